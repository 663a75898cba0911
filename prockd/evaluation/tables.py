"""Rows of numbers as text."""

from collections.abc import Mapping, Sequence

import numpy as np


def format_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows as aligned plain text: numbers to the right, a rule below the names of the columns.

    Columns are all keys in the order in which they first appear; what a row does not have, or is None, is a dash.
    """
    columns, cells, numeric = table_cells(rows)
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]

    def line(texts: Sequence[str]) -> str:
        parts = zip(texts, widths, numeric, strict=True)
        return "  ".join(t.rjust(width) if right else t.ljust(width) for t, width, right in parts).rstrip()

    return "\n".join([line(columns), "  ".join("─" * width for width in widths), *map(line, cells)])


def table_cells(rows: Sequence[Mapping[str, object]]) -> tuple[list[str], list[list[str]], list[bool]]:
    """Names of the columns, text of every cell, and which columns hold nothing but numbers."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    values = {key: [row.get(key) for row in rows] for key in keys}
    numeric = [all(v is None or _is_number(v) for v in values[key]) for key in keys]
    return [str(key) for key in keys], [[_text(row.get(key)) for key in keys] for row in rows], numeric


def _is_number(value: object) -> bool:
    return hasattr(value, "__float__") and not isinstance(value, bool)


def _text(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float | np.floating):
        number = float(value)
        if 100 <= abs(number) < 1000:
            return f"{number:.1f}"
        return f"{number:.3f}" if 0.001 <= abs(number) < 100 or number == 0 else f"{number:.3g}"
    return str(value)
