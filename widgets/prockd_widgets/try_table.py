"""The table of tries in the panel: sorted and filtered in the browser, ticked there or from Python."""

from collections.abc import Callable
from typing import Any

import anywidget
import traitlets

from prockd_widgets.assets import script, style_sheet


class TryTable(anywidget.AnyWidget):
    """A row a try; what is pressed below the filter is done by ``actions``, by name."""

    _esm = script("tries")
    _css = style_sheet("tries")
    rows: traitlets.List[Any] = traitlets.List(help="One row a try, numbers as numbers.").tag(sync=True)
    ticked: traitlets.List[int] = traitlets.List(help="Numbers of the ticked tries, in the order of ticking.").tag(
        sync=True
    )
    comparison = traitlets.Dict(help="Rows and a note of what was compared last.").tag(sync=True)
    deleted = traitlets.Int(0, help="How often Undo brings something back.").tag(sync=True)
    busy = traitlets.Bool(False, help="Something is being compared.").tag(sync=True)

    def __init__(self, actions: dict[str, Callable[[], None]]) -> None:
        super().__init__()
        self.on_msg(lambda _, content, __: actions.get(str(content.get("do")), lambda: None)())
