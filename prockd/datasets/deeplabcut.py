"""Joints in the CSV files that DeepLabCut writes for pictures labelled by hand."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from prockd.datasets.files import FormatOptions, file_below
from prockd.datasets.keypoints import MAX_PX, missing_picture
from prockd.datasets.poses import Joint, Pose, PoseDataset, tables_in
from prockd.datasets.problems import DatasetError, Problem, number_or_nan
from prockd.datasets.read import is_file
from prockd.untrusted import reading

_FIRST_ROWS = ("scorer", "individuals", "bodyparts", "coords")


class DeepLabCut(PoseDataset):
    """Pictures and the ``CollectedData_NAME.csv`` that has their joints (DeepLabCut, Mathis et al., 2018).

    Three rows at the top name scorer, body part and coordinate of each column, or four with the individual, of which a
    picture shows one; each further row begins with the picture's path, in one column or three. A joint without numbers
    is not annotated. The pictures lie beside the file, or where its paths lead from the project's folder.

    Args:
        path: the CSV file, a folder with one, or ``labeled-data``, whose folders are a video each.
        classes: names of the body parts in order; None for those of the files, in their order.
        options: ``group`` and ``on_bad``, see :class:`~prockd.datasets.files.FormatOptions`.

    Raises:
        DatasetError: a file cannot be read or has another head, or (with ``"refuse"``) a cell is no number, or a
            picture is missing.
    """

    def __init__(
        self, path: Path | str, *, classes: Sequence[str] | None = None, **options: Unpack[FormatOptions]
    ) -> None:
        path = Path(path)
        poses, flaws, names = list[Pose](), list[Problem](), dict[str, None]()
        for table in tables_in(path, is_deeplabcut):
            found, parts = _read(table, flaws)
            poses += found
            names |= dict.fromkeys(parts)
        joints = list(names) if classes is None else list(classes)
        super().__init__(path if path.is_dir() else path.parent, poses, joints, flaws=flaws, **options)


def is_deeplabcut(path: Path) -> bool:
    """Whether a CSV file begins as DeepLabCut's do."""
    with path.open("rb") as file:
        return file.readline(64).removeprefix(b"\xef\xbb\xbf").lower().startswith(b"scorer,")


def has_deeplabcut(path: Path) -> bool:
    """Whether a folder, or each of some folders in it, has such a file."""
    return bool(tables_in(path, is_deeplabcut))


def _read(table: Path, flaws: list[Problem]) -> tuple[list[Pose], list[str]]:
    """The poses of a file, and its body parts in order; what is wrong is added to the flaws."""
    with reading(table, "a table", DatasetError), table.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file))
    count = next((n for n, row in enumerate(rows) if not row or row[0] not in _FIRST_ROWS), len(rows))
    head = {row[0]: row for row in rows[:count]}
    wanted = [name for name in _FIRST_ROWS if name != "individuals"]
    if missing := [name for name in wanted if name not in head]:
        raise DatasetError(f"{table} has no row {', '.join(missing)} at its top: rows {', '.join(wanted)} are needed")
    coords, parts = head["coords"], head["bodyparts"]
    columns = [k for k, axis in enumerate(coords) if axis == "x" and coords[k + 1 : k + 2] == ["y"]]
    if not columns or len(parts) < len(coords):
        told = "no columns x, y of a body part: its rows of coords and bodyparts must name them"
        raise DatasetError(f"{table} has {told}")
    poses = []
    for line, row in enumerate(rows[count:], count + 1):
        names = [cell for cell in row[: columns[0]] if cell]
        if not names:
            continue
        path = Path(*(part for name in names for part in name.replace("\\", "/").split("/") if part not in ("", "..")))
        near, project = file_below(table.parent, path.name), file_below(table.parent.parent.parent, path.as_posix())
        picture = near if is_file(near) else project
        if not is_file(picture):
            flaws.append(missing_picture(table, f"line {line}", path.as_posix()))
            continue
        pose = Pose(table, picture, group=table.parent.name)
        for k in columns:
            cells, entry = (row + [""] * (k + 2))[k : k + 2], f"line {line}, {parts[k]}"
            x, y = map(number_or_nan, cells)
            if abs(x) <= MAX_PX and abs(y) <= MAX_PX:
                pose.joints.append(Joint(entry, parts[k], x, y))
            elif any(cell.strip().lower() not in ("", "nan") for cell in cells):
                flaws.append(Problem(str(table), entry, f"x, y are {', '.join(map(repr, cells))}, not two numbers"))
        poses.append(pose)
    return poses, list(dict.fromkeys(parts[k] for k in columns))
