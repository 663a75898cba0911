"""Key points from a CSV file: where the parts are in some images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from jaxtyping import Bool, Float32, Int64

from prockd.datasets.files import file_below
from prockd.datasets.problems import DatasetError, Problem, number_or_nan, refuse
from prockd.datasets.read import image_size, is_file
from prockd.datasets.table import read_table

FOLDERS = (".", "frames", "images")  # beside the table, in which pictures lie
MAX_PX = 1e7
"""No point lies further from the corner of its picture."""
_MAX_JOINT = 1_000_000
_COLUMNS = ("frame", "part", "x_px", "y_px")


@dataclass(frozen=True, eq=False)
class ImagePoints:
    """The key points of one image."""

    xy: Float32[np.ndarray, "n 2"]  # x to the right and y down, in pixels of the image file
    part: Int64[np.ndarray, " n"]  # index into the part names
    visible: Bool[np.ndarray, " n"]  # False where the point is hidden behind something
    joint: Int64[np.ndarray, " n"]  # equal for the same joint in all images; -1 where it is not known

    def __len__(self) -> int:
        return len(self.xy)


@dataclass(frozen=True, eq=False)
class PointAnnotations:
    """Key points of many images: ``annotations.images["00000.jpg"].xy``."""

    parts: tuple[str, ...]  # names, of which a point's ``part`` is the index
    images: Mapping[str, ImagePoints]  # by the file name as the CSV file writes it, in the order of the file

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        points, parts = sum(map(len, self.images.values())), ", ".join(self.parts)
        hidden = sum(int((~p.visible).sum()) for p in self.images.values())
        return f"PointAnnotations({points} points, {hidden} of them hidden, on {len(self)} images; parts: {parts})"


def read_keypoints(path: Path | str, *, parts: Sequence[str] | None = None, on_bad: str = "refuse") -> PointAnnotations:
    """Read key points from a CSV file with the columns ``frame, part, x_px, y_px``, ``joint_id``, ``visible``.

    The last two may be missing. ``frame`` names an image file, ``visible`` is 1 or 0; a point without it is visible.

    Args:
        path: the CSV file.
        parts: part names in the order of their indices, to share them between files; None sorts those of the file.
        on_bad: ``"refuse"`` raises when a line cannot be used, ``"skip"`` leaves it out.

    Raises:
        DatasetError: the file cannot be read or lacks a column, or (with ``"refuse"``) a line has no number where one
            belongs, or a part that is not among ``parts``.
    """
    annotations, problems = parse_keypoints(Path(path), parts)
    refuse(problems, str(path), on_bad)
    return annotations


def is_keypoints(path: Path) -> bool:
    """Whether a CSV file has the columns of key points."""
    try:
        return set(_COLUMNS) <= set(read_table(path)[0])
    except DatasetError:
        return False


def check_keypoints(path: Path) -> list[Problem]:
    """Every problem of a table: bad lines, images that are missing, points outside of them."""
    annotations, problems = parse_keypoints(path)
    for frame, points in annotations.images.items():
        if (place := place_of(path, frame)) is None:
            problems.append(missing_picture(path, f"frame {frame}", frame))
            continue
        try:
            H, W = image_size(place)
        except DatasetError as error:
            problems.append(Problem.of(place, error))
            continue
        for (x, y), part in zip(points.xy.tolist(), points.part, strict=True):
            if not (0 <= x <= W and 0 <= y <= H):
                text = f"{annotations.parts[part]} at {x:g}, {y:g} is outside of its image of {W} x {H} px"
                problems.append(Problem(str(path), f"frame {frame}", text))
    return problems


def place_of(path: Path, frame: str) -> Path | None:
    """The picture of a frame of a table: beside it, in ``frames`` or in ``images``; None where it is in none."""
    if ".." in Path(frame).parts or Path(frame).is_absolute():
        return None
    places = (file_below(path.parent / folder, frame) for folder in FOLDERS)
    return next((place for place in places if is_file(place)), None)


def missing_picture(path: Path, entry: str, name: str) -> Problem:
    """A line of a table whose picture is not there."""
    places = ", ".join(str(path.parent / folder / name) for folder in FOLDERS)
    return Problem(str(path), entry, f"its image is missing: looked for {places}")


def parse_keypoints(path: Path, parts: Sequence[str] | None = None) -> tuple[PointAnnotations, list[Problem]]:
    """The points of a CSV file, and what is wrong with its lines, which are left out."""
    _, rows = read_table(path, _COLUMNS)
    names = tuple(sorted({row["part"] for _, row in rows} - {""}) if parts is None else parts)
    lines, problems = dict[str, list[dict[str, str]]](), []
    for line, cells in rows:
        if flaw := _line_flaw(cells, names):
            problems.append(Problem(str(path), f"line {line}", flaw))
        else:
            lines.setdefault(cells["frame"], []).append(cells)
    images = {}
    for frame, points in lines.items():
        xy = np.array([[number_or_nan(cells[axis]) for axis in ("x_px", "y_px")] for cells in points], np.float32)
        part = np.array([names.index(cells["part"]) for cells in points], np.int64)
        joint = np.array([int(cells.get("joint_id") or -1) for cells in points], np.int64)
        images[frame] = ImagePoints(xy, part, np.array([cells.get("visible") != "0" for cells in points]), joint)
    return PointAnnotations(names, MappingProxyType(images)), problems


def _line_flaw(cells: Mapping[str, str], parts: tuple[str, ...]) -> str:
    if not cells["frame"]:
        return "no frame: the name of an image file is missing"
    if cells["part"] not in parts:
        return f"part {cells['part']!r} is not one of {', '.join(parts)}"
    for axis in ("x_px", "y_px"):
        if not abs(number_or_nan(cells[axis])) <= MAX_PX:  # so written, NaN is refused too
            return f"{axis} is {cells[axis]!r}, not a number of pixels"
    visible, joint = cells.get("visible", ""), cells.get("joint_id", "")
    if visible not in ("", "0", "1"):
        return f"visible is {visible!r}, not 1 or 0"
    fits = not joint or (joint.isdecimal() and len(joint) <= 7 and int(joint) <= _MAX_JOINT)
    return "" if fits else f"joint_id is {joint!r}, not a number from 0 to {_MAX_JOINT}"
