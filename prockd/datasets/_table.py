"""Rows of a CSV file by the names of their columns, with the line each came from."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from prockd.datasets._common import DatasetError

Row = tuple[int, dict[str, str]]
"""The number of a line, counted from 1 with the header, and its cells by column name."""


def read_table(path: Path, required: Sequence[str] = ()) -> tuple[list[str], list[Row]]:
    """Read a CSV file in UTF-8, with commas or semicolons between its cells; empty lines are left out.

    Returns:
        The column names in lower case, and the rows; a row that is too short has empty cells.

    Raises:
        DatasetError: the file is missing, empty or no text, or a required column is.
    """
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is not text in UTF-8 ({error}): save it as CSV UTF-8") from error
    header = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=";" if header.count(";") > header.count(",") else ",")
    try:
        columns = [name.strip().lower() for name in next(reader, [])]
        lines = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise DatasetError(f"{path}, line {reader.line_num}: is not CSV ({error})") from error
    missing = [name for name in required if name not in columns]
    if missing:
        raise DatasetError(f"{path}, line 1: no column {', '.join(missing)}; it has {', '.join(columns) or 'none'}")
    padding = [""] * len(columns)
    rows = [
        (line, {name: cell.strip() for name, cell in zip(columns, [*cells, *padding], strict=False)})
        for line, cells in lines
    ]
    return columns, rows
