"""A list of pictures with their labels, in a CSV file."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from prockd._types import UNLABELLED
from prockd.datasets.files import SPLITS, WHOLE, FileDataset, FormatOptions, file_below, normal, pictures_root
from prockd.datasets.folder import class_folders
from prockd.datasets.problems import DatasetError, Problem
from prockd.datasets.read import pictures
from prockd.untrusted import reading

_PATHS = ("path", "file", "filename", "image", "image_path", "file_name", "image_name", "image_id", "img", "id")
_LABELS = ("class", "class_name", "category", "target", "breed", "species")  # for "label", where there is none
_BETWEEN = re.compile(r"[|;,]")


class ImageTable(FileDataset):
    """Pictures that a CSV file lists, one a line: classification with one class an image, or with several.

    Columns: ``path`` (or ``file``, ``filename``, ``image``), relative to the folder of the CSV file; then one of
    ``label``: the class of the image, empty where it is not known;
    ``labels``: all classes that it shows, with ``|``, ``;`` or ``,`` between them, empty for none (multi-label);
    one column a class, of 0 and 1 (multi-label);
    nothing, for images without labels. A column ``group`` names what belongs together (video, patient, farm), and a
    column ``split`` says which lines are of ``train``, ``val`` and ``test``.

    Args:
        path: the CSV file.
        classes: class names in label order; None for the sorted names in the file, or the columns of 0 and 1.
        split: "train", "val" or "test": the lines of that split; None for all lines.
        options: ``group`` and ``on_bad``, see :class:`~prockd.datasets.files.FormatOptions`.

    Raises:
        DatasetError: the file cannot be read or has no column of paths, or (with ``"refuse"``) a line has no path, a
            class that is not among ``classes``, a path that an earlier line has, or something else than 0 and 1.
    """

    def __init__(
        self, path: Path | str, *, classes: Sequence[str] | None = None, split: str | None = None,
        **options: Unpack[FormatOptions],
    ) -> None:  # fmt: skip
        self.path = Path(path)
        columns, rows = read_table(self.path)
        where = next((name for name in _PATHS if name in columns), "")
        if not where:
            raise DatasetError(f"{path}, line 1: no column {' or '.join(_PATHS[:4])}; it has {', '.join(columns)}")
        flags = _flags(columns)
        self._several = "label" not in columns and bool(flags or "labels" in columns)
        self._doubts = _doubts(rows)
        if split is not None:
            rows = [row for row in rows if split_of(row[1]) in (split, "" if split == "train" else split)]
        labels_of_rows = [_classes_in(cells, flags) for _, cells in rows]
        names = tuple(
            flags or sorted({name for row in labels_of_rows for name in row})
            if classes is None
            else map(normal, classes)
        )
        flaws, good, first_line = [], [], dict[str, int]()
        for (line, cells), labels in zip(rows, labels_of_rows, strict=True):
            name, unknown, flaw = cells[where], [label for label in labels if label not in names], ""
            odd = [flag for flag in flags if cells[flag] not in ("0", "1")]
            if not name:
                flaw = f"no {where}: the name of an image file is missing"
            elif name in first_line:
                flaw = f"{name} is listed twice, first in line {first_line[name]}"
            elif split is not None and not split_of(cells):
                flaw = f"split is {cells['split']!r}, not one of {', '.join(SPLITS)}"
            elif odd:
                flaw = f"column {odd[0]!r} holds {cells[odd[0]]!r}, not 0 or 1"
            elif cells.get("group") == "":
                flaw = "no group: where there is a column of groups, every image needs one"
            elif unknown:
                flaw = f"class {unknown[0]!r} is not one of {', '.join(names)}"
            else:
                first_line[name] = line
                good.append((cells, labels))
            flaws += [Problem(str(path), f"line {line}", flaw)] if flaw else []
        single = None if self._several else [names.index(labels[0]) if labels else UNLABELLED for _, labels in good]
        self.facts = ", several an image" if self._several else ""
        self.tags = np.array([[name in labels for name in names] for _, labels in good], np.uint8)  # (M, C)
        root = pictures_root(self.path, [cells[where] for cells, _ in good])
        super().__init__(
            root, [file_below(root, cells[where]) for cells, _ in good], names, labels=single,
            groups=[cells["group"] for cells, _ in good] if "group" in columns else None, annotations=[self.path],
            key=self.tags.tolist() if self._several else None, flaws=flaws, **options,
        )  # fmt: skip

    def notes(self) -> list[Problem]:
        """How cells were read that could be read otherwise."""
        return [Problem(str(self.path), "", doubt, note=True) for doubt in self._doubts]

    def _annotation(self, index: int, size: tuple[int, ...] | None) -> tuple[Mapping[str, Any], list[Problem]]:
        return {"tags": self.tags[index]} if self._several else {}, []


def _classes_in(cells: dict[str, str], flags: Sequence[str]) -> list[str]:
    if flags:
        return [name for name in flags if cells[name] == "1"]
    names = [cells["label"]] if "label" in cells else _BETWEEN.split(cells.get("labels", ""))
    return list(dict.fromkeys(normal(name.strip()) for name in names if name.strip()))


def _flags(columns: Sequence[str]) -> list[str]:
    """The columns of 0 and 1, one a class: all without a meaning of their own, and none beside labels."""
    others = [name for name in columns if name and name not in (*_PATHS, "group", "split")]
    return [] if {"label", "labels"} & set(columns) else others


def _doubts(rows: Sequence[tuple[int, Mapping[str, str]]]) -> list[str]:
    cells = [row["labels"] for _, row in rows if "labels" in row]
    commas = sum("," in cell for cell in cells)
    names = {row["label"] for _, row in rows if "label" in row}
    joined = sorted(n for n in names if len(parts := _BETWEEN.split(n)) > 1 and names >= {p.strip() for p in parts})
    of_comma = f"column labels: commas stand between classes ({commas} lines); write | where one is part of a name"
    of_label = [f"{name!r} is read as one class, and its parts are classes: call the column labels" for name in joined]
    return [of_comma] * bool(commas) + of_label[:1]


def split_of(cells: Mapping[str, str]) -> str:
    """The split that a line names, in any usual word; empty for another word."""
    word = cells["split"].lower()
    return next((split for split, words in SPLITS.items() if word in words), "")


def is_image_table(path: Path) -> bool:
    """Whether a CSV file has a column of image paths, and beside it none but those of an image list."""
    columns, rows = read_table(path)
    odd = [flag for flag in _flags(columns) if not any(cells[flag] in ("0", "1") for _, cells in rows)]
    return bool(set(columns) & set(_PATHS)) and not (odd and rows) and not {"xmin", "xmax"} & set(columns)


def table_splits(path: Path) -> dict[str, partial[ImageTable]]:
    """What opens each split of an image list; nothing for another table."""
    if not is_image_table(path):
        return {}
    columns, rows = read_table(path)
    there = {split_of(cells) for _, cells in rows} if "split" in columns else set()
    splits = [split for split in SPLITS if split in there]
    return {s: partial(ImageTable, path, split=s) for s in splits} or {WHOLE: partial(ImageTable, path)}


def lists_the_folder(path: Path) -> bool:
    """Whether an image list speaks for the folder it lies in: with others there, it lists half of the class folders."""
    folder = path.parent
    if len(class_folders(folder)) < 2:
        return True
    listed = sum(len(read_table(table)[1]) for table in folder.glob("*.csv") if is_image_table(table))
    return 2 * listed >= len(pictures(folder))


def read_table(path: Path, required: Sequence[str] = ()) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Column names in lower case and, of each line that is not empty, its number (the header has 1) and its cells."""
    with reading(path, "a table", DatasetError, "save it as CSV UTF-8"):
        text = path.read_text("utf-8-sig")
        comma = max(",;\t", key=text.partition("\n")[0].count)
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=comma, restval="")
        columns = [name.strip().lower() for name in reader.fieldnames or ()]
        if not {"label", "labels", "xmin"} & set(columns) and (named := [n for n in _LABELS if n in columns]):
            columns[columns.index(named[0])] = "label"
        reader.fieldnames = columns
        rows = [(reader.line_num, {name: row[name].strip() for name in columns}) for row in reader]
    if missing := [name for name in required if name not in columns]:
        raise DatasetError(f"{path}, line 1: no column {', '.join(missing)}; it has {', '.join(columns) or 'none'}")
    return columns, [(line, cells) for line, cells in rows if any(cells.values())]
