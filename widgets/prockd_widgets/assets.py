"""The scripts and style sheets of the widgets as the browser gets them: the files as written, one behind the other."""

from pathlib import Path

STATIC = Path(__file__).parent / "static"
PANES = ("geometry", "density", "data", "choice", "page", "map", "image", "patches", "table", "saved")
SCRIPTS = {
    "explorer": ("core", *(f"explorer_{name}" for name in PANES), "explorer"),
    "lens": ("core", "lens"),
    "tries": ("core", "tries"),
    "causes": ("core", "causes"),
}
"""The files of each widget's one ES module, in their order: what a file uses at once stands before it."""


def script(widget: str) -> str:
    """The ES module of a widget, a key of ``SCRIPTS``."""
    return "\n".join((STATIC / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS[widget])


def style_sheet(widget: str) -> str:
    """What all widgets share, then a widget's own."""
    return "\n".join((STATIC / f"{name}.css").read_text(encoding="utf-8") for name in ("core", widget))
