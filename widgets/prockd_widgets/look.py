"""How panels look and speak: their style sheet, pictures, messages and tables."""

import io
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

STYLE = f"<style>{(Path(__file__).parent / 'static' / 'panel.css').read_text(encoding='utf-8')}</style>"
COPY = (
    "navigator.clipboard.writeText(this.closest('.prockd-panel').querySelector('textarea').value)"
    ".then(() => { this.textContent = 'Copied'; setTimeout(() => { this.textContent = 'Copy as code' }, 1500) })"
)
"""What the button "Copy as code" does in the page."""


def picture(width: float, height: float, dpi: int = 120) -> Figure:
    """A new figure that pyplot does not know."""
    return Figure(figsize=(width, height), dpi=dpi, layout="constrained")


def png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


@cache
def waiting(text: str) -> bytes:
    """A picture that says what will be seen in its place."""
    figure = picture(5.4, 3.9)
    ax = figure.subplots()
    ax.text(0.5, 0.5, text, ha="center", va="center", color="#666666")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return png(figure)


def status_line(status: str) -> str:
    """A sentence that screen readers read out when it changes."""
    return f'<div role="status" aria-live="polite">{escape(status)}</div>'


def error_message(error: str, failure: Exception | None = None) -> str:
    """A message, and where it came from for those who want to know; empty where there is none."""
    trace = "".join(traceback.format_exception(failure)) if failure else ""
    more = f"<details><summary>where</summary><pre>{escape(trace)}</pre></details>" if trace else ""
    return f'<div role="alert" class="prockd-error">{escape(error)}{more}</div>' if error else ""


def table(rows: Sequence[Mapping[str, object]], caption: str) -> str:
    """Rows with the same keys as an HTML table; what is None is a dash."""
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{escape(key)}</th>' for key in rows[0])
    cells = ("".join(f"<td>{'–' if v is None else escape(str(v))}</td>" for v in row.values()) for row in rows)
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    return f'<div class="prockd-table"><table><caption>{escape(caption)}</caption><tr>{head}</tr>{body}</table></div>'
