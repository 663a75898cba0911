"""Rows of numbers as text."""

import io
import sys
from collections.abc import Mapping, Sequence

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table


def format_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows as aligned plain text, however wide: numbers to the right, a rule below the names of the columns.

    Columns are all keys in the order in which they first appear; what a row does not have, or is None, is a dash. Where
    standard output cannot write dashes and rules (a pipe on Windows), they are minus signs.
    """
    columns, cells, numeric = table_cells(rows)
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name, right in zip(columns, numeric, strict=True):
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for row in cells:
        table.add_row(*row)
    # Not the process's own console: markup, colours, a narrow terminal or a notebook would change the text.
    console = Console(
        file=io.StringIO(), width=10**6, color_system=None, markup=False, emoji=False, force_jupyter=False
    )
    with console.capture() as capture:
        console.print(table)
    text = "\n".join(line.rstrip() for line in capture.get().splitlines())
    try:
        "─–".encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return text.translate({ord("─"): "-", ord("–"): "-"})
    return text


def table_cells(rows: Sequence[Mapping[str, object]]) -> tuple[list[str], list[list[str]], list[bool]]:
    """Names of the columns, text of every cell, and which columns hold nothing but numbers."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    values = [[row[key] for row in rows if row.get(key) is not None] for key in keys]
    numeric = [all(hasattr(v, "__float__") and not isinstance(v, bool) for v in column) for column in values]
    return keys, [[_text(row.get(key)) for key in keys] for row in rows], numeric


def _text(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float | np.floating):
        number = float(value)
        if 100 <= abs(number) < 1000:
            return f"{number:.1f}"
        return f"{number:.3f}" if 0.001 <= abs(number) < 100 or number == 0 else f"{number:.3g}"
    return str(value)
