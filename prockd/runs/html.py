"""Tables for the terminal, and one HTML file that holds text, tables and figures and asks nothing of the network."""

import base64
import io
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

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

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2126; --soft: #5b6670; --line: #d9dee3; --page: #fcfcfb; --band: #f2f4f5 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e3e7ea; --soft: #9aa5af; --line: #373f46; --page: #15191c; --band: #1d2327 }
}
body { margin: 0; background: var(--page); color: var(--ink); font: 17px/1.6 system-ui, "Segoe UI", Roboto, sans-serif }
main { max-width: 60rem; margin: 0 auto; padding: 3rem 1.25rem 5rem }
h1 { font-size: 2.1rem; line-height: 1.2; margin: 0 0 2rem; text-wrap: balance }
h2 { font-size: 1.35rem; margin: 3rem 0 .5rem; padding-top: 1rem; border-top: 1px solid var(--line) }
p { max-width: 44rem; margin: .6rem 0 }
nav ol { columns: 18rem; padding-left: 1.3rem; color: var(--soft) }
nav a { color: inherit }
figure { margin: 1.5rem 0 }
figure img { max-width: 100%; height: auto; background: #fff; border-radius: 6px; border: 1px solid var(--line) }
figcaption { color: var(--soft); font-size: .9rem; max-width: 44rem }
.table { overflow-x: auto; margin: 1.5rem 0 }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums }
th, td { padding: .35rem .9rem; text-align: left; border-bottom: 1px solid var(--line) }
th { font-weight: 600; white-space: nowrap } tbody tr:nth-child(even) { background: var(--band) }
.number { text-align: right; white-space: nowrap }
@media print { h2 { break-after: avoid } figure, tr { break-inside: avoid } }
"""

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


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
    for dpi in _DPIS:
        data = _page(title, sections, dpi).encode()
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


def _page(title: str, sections: Sequence[Section], dpi: int) -> str:
    contents = "".join(f'<li><a href="#s{i}">{escape(s.title)}</a></li>' for i, s in enumerate(sections))
    body = "\n".join(_section(i, section, dpi) for i, section in enumerate(sections))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
<nav aria-label="Contents"><ol>{contents}</ol></nav>
{body}
</main>
</body>
</html>
"""


def _section(number: int, section: Section, dpi: int) -> str:
    paragraphs = [f"<p>{escape(' '.join(p.split()))}</p>" for p in section.text.split("\n\n") if p.strip()]
    table = [_table(section.table)] if section.table else []
    figures = [
        f'<figure><img alt="{escape(text)}" src="data:image/png;base64,{_png(figure, dpi)}">'
        f"<figcaption>{escape(text)}</figcaption></figure>"
        for figure, text in section.figures
    ]
    title = escape(section.title)
    return "\n".join([f'<section id="s{number}">', f"<h2>{title}</h2>", *paragraphs, *table, *figures, "</section>"])


def _table(rows: Sequence[Mapping[str, object]]) -> str:
    columns, cells, numeric = table_cells(rows)

    def line(tag: str, texts: Sequence[str]) -> str:
        kinds = [' class="number"' if right else "" for right in numeric]
        return "".join(f"<{tag}{kind}>{escape(text)}</{tag}>" for text, kind in zip(texts, kinds, strict=True))

    head, body = line("th", columns), "\n".join(f"<tr>{line('td', row)}</tr>" for row in cells)
    return f'<div class="table"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def _png(figure: Figure, dpi: int) -> str:
    file = io.BytesIO()
    save_png(figure, file, dpi=dpi)
    return base64.b64encode(file.getvalue()).decode()
