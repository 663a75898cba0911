"""The keyword arguments that ipywidgets gives every widget, such as ``layout=`` and ``tooltip=``."""

import difflib
from collections.abc import Mapping

from traitlets import HasTraits


def check_options(widget: type[HasTraits], options: Mapping[str, object]) -> None:
    """Refuse keyword arguments that are no trait of a widget: traitlets would only warn of them.

    Raises:
        TypeError: there is no such argument; the message names the nearest one.
    """
    names = [name for name in widget.class_trait_names() if not name.startswith("_")]
    for name in options:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f": did you mean {near[0]}?" if near else ""
            raise TypeError(f"{widget.__name__} takes no argument {name!r}{hint}")
