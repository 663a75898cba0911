"""Figures of every stage, for notebooks and reports.

A function that draws one picture returns its Axes and takes ``ax=None``, which makes a new figure; one that draws many
panels returns a Figure of its own, unknown to pyplot, which a notebook shows when it ends a cell. Colours are those of
Okabe and Ito with a marker beside each, ``assignments`` are what :meth:`prockd.PrototypeBank.assignments` returns, and
``grid`` (rows, columns of patches) may be left out where it is square.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
