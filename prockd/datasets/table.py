"""A list of pictures with their labels, in a CSV file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prockd.datasets._common import DatasetError, Problem
from prockd.datasets._table import Row, read_table
from prockd.datasets.files import FileDataset, numbers_of

PATH_COLUMNS = ("path", "file", "filename", "image")
_SEPARATORS = ("|", ";")


class ImageTable(FileDataset):
    """Pictures that a CSV file lists, one a line: classification with one class an image, or with several.

    Columns: ``path`` (or ``file``, ``filename``, ``image``), relative to the folder of the CSV file; then one of
    ``label``: the class of the image, empty where it is not known;
    ``labels``: all classes that it shows, with ``|`` or ``;`` between them, empty for none (multi-label);
    one column a class, of 0 and 1 (multi-label);
    nothing, for images without labels. A column ``group`` names what belongs together (video, patient, farm).

    Args:
        path: the CSV file.
        classes: class names in label order; None for the sorted names in the file, or the columns of 0 and 1.
        group: regular expression that finds the group of an image in its id; None takes the column ``group``.
        on_bad: ``"refuse"`` raises when a line cannot be used, ``"skip"`` leaves it out.

    Raises:
        DatasetError: the file cannot be read or has no column of paths, or (with ``"refuse"``) a line has no path, a
            class that is not among ``classes``, a path that an earlier line has, or something else than 0 and 1.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        classes: Sequence[str] | None = None,
        group: str | None = None,
        on_bad: str = "refuse",
    ) -> None:
        self.path = Path(path)
        columns, rows = read_table(self.path)
        where = next((name for name in PATH_COLUMNS if name in columns), None)
        if where is None:
            raise DatasetError(f"{path}, line 1: no column {' or '.join(PATH_COLUMNS)}; it has {', '.join(columns)}")
        flags = [name for name in columns if name and name not in (where, "group")]
        self._multi = "label" not in columns and bool(flags)
        tell = _Teller(columns, [] if {"label", "labels"} & set(columns) else flags)
        shown = [tell(row) for row in rows]
        names = tell.flags or sorted({name for of_row in shown for name in of_row if isinstance(of_row, list)} - {""})
        known = tuple(names if classes is None else classes)
        flaws, good, seen = [], [], dict[str, int]()
        for row, classes_shown in zip(rows, shown, strict=True):
            text = _flaw(row, where, classes_shown, known, seen)
            if text:
                flaws.append(Problem(str(path), f"line {row[0]}", text))
            else:
                seen[row[1][where]] = row[0]
                good.append((row[1], classes_shown))
        paths = [self.path.parent / cells[where] for cells, _ in good]
        labels = None if self._multi else numbers_of([names[0] if names else "" for _, names in good], known).tolist()
        self.tags = np.array([[name in names for name in known] for _, names in good], np.uint8)
        groups = [cells["group"] for cells, _ in good] if "group" in columns else None
        super().__init__(
            self.path.parent, paths, known, labels=labels, groups=groups, group=group, annotations=[self.path],
            key=self.tags.tolist() if self._multi else None, flaws=flaws, on_bad=on_bad,
        )  # fmt: skip

    def _known(self, index: int, size: tuple[int, ...] | None) -> tuple[Mapping[str, Any], list[Problem]]:
        return {"tags": self.tags[index]} if self._multi else {}, []

    def _facts(self) -> str:
        return ", several an image" if self._multi else ""


class _Teller:
    """Which classes a row of a table names, or in words why it cannot be told."""

    def __init__(self, columns: list[str], flags: list[str]) -> None:
        self.columns, self.flags = columns, flags

    def __call__(self, row: Row) -> list[str] | str:
        cells = row[1]
        if self.flags:
            odd = [name for name in self.flags if cells[name] not in ("0", "1")]
            if odd:
                return f"column {odd[0]!r} holds {cells[odd[0]]!r}, not 0 or 1"
            return [name for name in self.flags if cells[name] == "1"]
        if "label" in self.columns:
            return [cells["label"]] if cells["label"] else []
        joined = cells.get("labels", "")
        for separator in _SEPARATORS:
            joined = joined.replace(separator, "|")
        return list(dict.fromkeys(name.strip() for name in joined.split("|") if name.strip()))


def _flaw(row: Row, where: str, shown: list[str] | str, classes: Sequence[str], seen: Mapping[str, int]) -> str:
    path = row[1][where]
    if not path:
        return f"no {where}: the name of an image file is missing"
    if path in seen:
        return f"{path} is listed twice, first in line {seen[path]}"
    if isinstance(shown, str):
        return shown
    if row[1].get("group") == "":
        return "no group: where there is a column of groups, every image needs one"
    unknown = [name for name in shown if name not in classes]
    return f"class {unknown[0]!r} is not one of {', '.join(classes)}" if unknown else ""
