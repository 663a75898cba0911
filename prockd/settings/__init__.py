"""Everything that decides a run: knobs with ranges, the sections of an experiment, and TOML files of them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
