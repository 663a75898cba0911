"""prockd: Prototype-guided Cross-task Knowledge Distillation, to run, to see and to teach.

Data flows one way: images -> teacher -> features -> prototypes -> augmentation -> student -> report.

``import prockd`` loads nothing else: a name of ``__init__.pyi`` loads its room (and PyTorch) when it is first used.
"""

from importlib.metadata import PackageNotFoundError, version

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

try:
    __version__ = version("prockd")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0.0.0"
