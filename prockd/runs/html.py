"""One HTML file that holds text, tables and figures and asks nothing of the network."""

import base64
import io
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font_names
from matplotlib.text import Text

from prockd.evaluation.tables import table_cells

MAX_BYTES = 5_000_000
_DPIS = (130, 100, 72, 50)
_SPARE_FONTS = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans", "Noto Sans Devanagari", "Microsoft YaHei", "Yu Gothic",
    "Malgun Gothic", "Nirmala UI", "Hiragino Sans", "PingFang SC", "Arial Unicode MS", "WenQuanYi Zen Hei",
)  # fmt: skip


@dataclass(frozen=True)
class Section:
    """One part of a report.

    Attributes:
        title: its heading.
        text: plain text; a blank line starts a new paragraph.
        figures: each figure with the sentence that stands below it and is read in its place.
        table: rows with the same keys, in the order of the columns; shown below the text.
    """

    title: str
    text: str = ""
    figures: Sequence[tuple[Figure, str]] = ()
    table: Sequence[Mapping[str, object]] = ()


def write_report(path: str | Path, title: str, sections: Sequence[Section], *, max_bytes: int = MAX_BYTES) -> Path:
    """Write one self-contained HTML file, readable in light and dark.

    Figures become inline PNG images, at a lower resolution where the file would grow beyond ``max_bytes``. All text is
    shown as it is, never run as HTML. The file appears whole or not at all.

    Returns:
        The path of the file.

    Raises:
        OSError: the file cannot be written.
        ValueError: there are so many figures that the file is too large at the lowest resolution.
    """
    path = Path(path)
    template = Path(__file__).with_name("report.html.jinja").read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(template)
    for dpi in _DPIS:
        data = page.render(title=title, sections=[_content(section, dpi) for section in sections]).encode()
        if len(data) <= max_bytes:
            break
    else:
        count = sum(len(s.figures) for s in sections)
        size = f"{len(data) / 1e6:.1f} MB, more than {max_bytes / 1e6:.1f}"
        raise ValueError(f"{path}: {count} figures make {size}; leave some out")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        unfinished.write_bytes(data)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def _content(section: Section, dpi: int) -> dict[str, Any]:
    """What the template shows of a section."""
    return {
        "title": section.title,
        "paragraphs": [" ".join(p.split()) for p in section.text.split("\n\n") if p.strip()],
        "table": table_cells(section.table) if section.table else None,
        "figures": [(_png(figure, dpi), text) for figure, text in section.figures],
    }


def _png(figure: Figure, dpi: int) -> str:
    file = io.BytesIO()
    save_png(figure, file, dpi=dpi)
    return base64.b64encode(file.getvalue()).decode()


def save_png(figure: Figure, file: Path | io.BytesIO, *, dpi: int) -> None:
    """Save a figure on white; letters that matplotlib's own font lacks are taken from fonts of the system, if any."""
    spare = [name for name in _SPARE_FONTS if name in get_font_names()]
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if not text.get_text().isascii():
            text.set_fontfamily([*text.get_fontfamily(), *spare])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from font", UserWarning)  # they are drawn as boxes
        figure.savefig(file, format="png", dpi=dpi, bbox_inches="tight", facecolor="white")
