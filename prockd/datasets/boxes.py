"""Pictures with boxes: what detection learns, from PASCAL VOC or COCO files."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prockd.datasets._common import Problem
from prockd.datasets.files import FileDataset

TOLERANCE_PX = 1.0
"""An edge up to this far outside the image is a rounding, and is moved onto the border."""


@dataclass(frozen=True)
class Box:
    """One object as its file tells it.

    Attributes:
        entry: where it is in the file.
        name: its class.
        corners: x0, y0, x1, y1 in pixels; not checked yet.
        told: the box as the file writes it, for messages.
    """

    entry: str
    name: str
    corners: tuple[float, float, float, float]
    told: str = ""


@dataclass(frozen=True)
class Annotation:
    """What a file tells about one image.

    Attributes:
        file: the file.
        boxes: its objects.
        size: height and width of the image that the boxes are for; None where the file does not tell.
        problems: what could not be read.
    """

    file: Path
    boxes: tuple[Box, ...] = ()
    size: tuple[int, int] | None = None
    problems: tuple[Problem, ...] = ()


class BoxDataset(FileDataset):
    """Pictures with boxes, whatever the file they come from; each annotation belongs to the image of its place."""

    task = "detection"

    def __init__(
        self, root: Path, paths: Sequence[Path], annotations: Sequence[Annotation], classes: Sequence[str] | None,
        **options: Any,
    ) -> None:  # fmt: skip
        self.annotations = tuple(annotations)
        names = sorted({box.name for a in annotations for box in a.boxes}) if classes is None else classes
        files = list(dict.fromkeys(a.file for a in annotations))
        super().__init__(root, paths, names, annotations=files, **options)

    def _known(self, index: int, size: tuple[int, ...] | None) -> tuple[Mapping[str, Any], list[Problem]]:
        annotation = self.annotations[index]
        file, name = str(annotation.file), self.ids[index]
        problems = list(annotation.problems)
        if size is not None and annotation.size not in (None, size):
            (H, W), (h, w) = size, annotation.size or size
            text = f"its boxes are for an image of {w} x {h} px, and {name} has {W} x {H} px"
            problems.append(Problem(file, "", text))
        for box in annotation.boxes:
            if box.name not in self.classes:
                told = f"class {box.name!r} is not one of {', '.join(self.classes) or 'the classes'}"
                problems.append(Problem(file, box.entry, f"{told} ({name})"))
            wrong = box_flaw(box.corners, size, box.told)
            if wrong:
                problems.append(Problem(file, box.entry, f"{wrong} ({name})"))
        if problems or size is None:
            return {}, problems
        if not annotation.boxes:
            problems.append(Problem(str(self.paths[index]), "", "no objects", note=True))
        H, W = size
        corners = np.array([box.corners for box in annotation.boxes], np.float32).reshape(-1, 4)
        labels = np.array([self.classes.index(box.name) for box in annotation.boxes], np.int64)
        return {"boxes": corners.clip(0, np.array([W, H, W, H], np.float32)), "box_labels": labels}, problems

    def _facts(self) -> str:
        return f", {sum(len(a.boxes) for a in self.annotations)} boxes"


def box_flaw(corners: Sequence[float], size: tuple[int, ...] | None, told: str = "") -> str:
    """What is wrong with a box on an image of height and width ``size``, in words; empty when nothing is."""
    x0, y0, x1, y1 = corners
    told = told or f"box {x0:g}, {y0:g}, {x1:g}, {y1:g}"
    if not all(map(math.isfinite, corners)):
        return f"{told} is not four numbers"
    if x1 < x0 or y1 < y0:
        return f"{told} has its corners swapped: the left and upper edge come first"
    if x1 == x0 or y1 == y0:
        return f"{told} has no area"
    if size is not None:
        H, W = size
        if min(x0, y0) < -TOLERANCE_PX or x1 > W + TOLERANCE_PX or y1 > H + TOLERANCE_PX:
            return f"{told} reaches outside the image of {W} x {H} px"
        if min(x1, W) <= max(x0, 0) or min(y1, H) <= max(y0, 0):
            return f"{told} has no area inside the image of {W} x {H} px"
    return ""
