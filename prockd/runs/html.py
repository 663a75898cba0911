"""One HTML file that holds text, tables and figures and asks nothing of the network."""

import base64
import io
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
from prockd.writing import write_file

_SPARE_FONTS = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans", "Noto Sans Devanagari", "Microsoft YaHei", "Yu Gothic",
    "Malgun Gothic", "Nirmala UI", "Hiragino Sans", "PingFang SC", "Arial Unicode MS", "WenQuanYi Zen Hei",
)  # fmt: skip


@dataclass(frozen=True)
class Section:
    """One part of a report: heading, text, table and figures."""

    title: str
    text: str = ""  # a blank line starts a new paragraph
    figures: Sequence[tuple[Figure, str]] = ()  # each with the sentence below it, which is also read in its place
    table: Sequence[Mapping[str, object]] = ()  # rows with the same keys, in the order of the columns


def write_report(path: str | Path, title: str, sections: Sequence[Section], *, max_bytes: int = 5_000_000) -> Path:
    """Write one self-contained HTML file, readable in light and dark, and return its path.

    Figures become inline PNG images, at a lower resolution where the file would grow beyond ``max_bytes``; ValueError
    if it does at the lowest. All text is shown as it is, never run as HTML. The file appears whole or not at all.
    """
    template = Path(__file__).with_name("report.html.jinja").read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(template)
    for dpi in (130, 100, 72, 50):
        text = page.render(title=title, sections=[_content(section, dpi) for section in sections])
        if (size := len(text.encode())) <= max_bytes:
            return write_file(path, text)
    count = sum(len(s.figures) for s in sections)
    too_large = f"{size / 1e6:.1f} MB, more than {max_bytes / 1e6:.1f}"
    raise ValueError(f"{path}: {count} figures make {too_large}; leave some out")


def _content(section: Section, dpi: int) -> dict[str, Any]:
    """What the template shows of a section."""

    def png(figure: Figure) -> str:
        file = io.BytesIO()
        save_png(figure, file, dpi=dpi)
        return base64.b64encode(file.getvalue()).decode()

    return {
        "title": section.title,
        "paragraphs": [" ".join(p.split()) for p in section.text.split("\n\n") if p.strip()],
        "table": table_cells(section.table) if section.table else None,
        "figures": [(png(figure), text) for figure, text in section.figures],
    }


def save_png(figure: Figure, file: Path | io.BytesIO, *, dpi: int) -> None:
    """Save a figure on white; letters that matplotlib's own font lacks are taken from fonts of the system, if any."""
    spare = [name for name in _SPARE_FONTS if name in get_font_names()]
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if not text.get_text().isascii():
            text.set_fontfamily([*text.get_fontfamily(), *spare])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from font", UserWarning)  # they are drawn as boxes
        how: dict[str, Any] = {"format": "png", "dpi": dpi, "bbox_inches": "tight", "facecolor": "white"}
        if isinstance(file, Path):
            write_file(file, lambda path: figure.savefig(path, **how))
        else:
            figure.savefig(file, **how)
