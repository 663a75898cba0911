"""Widgets for the notebooks; every one of them also works from Python alone, without a browser."""

import lazy_loader

from prockd._extras import needs_extra

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    with needs_extra("lab", f"prockd_widgets.{name}"):
        return _load(name)
