"""Pictures with boxes: what detection learns, from PASCAL VOC or COCO files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from prockd.datasets.files import FileDataset
from prockd.datasets.problems import Problem, box_flaw


@dataclass(frozen=True)
class Box:
    """One object as its file has it.

    Attributes:
        entry: where it is in the file.
        name: its class.
        corners: x0, y0, x1, y1 in pixels; not checked yet.
        text: the box as the file writes it, for messages.
    """

    entry: str
    name: str
    corners: tuple[float, float, float, float]
    text: str


@dataclass
class Annotation:
    """What a file has about one image.

    Attributes:
        file: the file.
        boxes: its objects.
        size: height and width of the image that the boxes are for; None where the file has none.
        problems: what could not be read.
    """

    file: Path
    boxes: list[Box] = field(default_factory=list)
    size: tuple[int, int] | None = None
    problems: list[Problem] = field(default_factory=list)

    def add_problem(self, entry: str, text: str) -> None:
        """Note what is wrong with an entry of the file."""
        self.problems.append(Problem(str(self.file), entry, text))


class BoxDataset(FileDataset):
    """Pictures with boxes, whatever the file they come from; each annotation belongs to the image of its place."""

    task = "detection"

    def __init__(
        self, root: Path, paths: Sequence[Path], annotations: Sequence[Annotation], classes: Sequence[str] | None,
        **options: Any,
    ) -> None:  # fmt: skip
        self.annotations = tuple(annotations)
        names = sorted({box.name for a in annotations for box in a.boxes}) if classes is None else classes
        super().__init__(root, paths, names, annotations=list(dict.fromkeys(a.file for a in annotations)), **options)

    def _annotation(self, index: int, size: tuple[int, ...] | None) -> tuple[Mapping[str, Any], list[Problem]]:
        annotation, name = self.annotations[index], self.ids[index]
        file, problems = str(annotation.file), list(annotation.problems)
        if size is not None and annotation.size not in (None, size):
            (H, W), (h, w) = size, annotation.size or size
            text = f"its boxes are for an image of {w} x {h} px, and {name} has {W} x {H} px"
            problems.append(Problem(file, "", text))
        for box in annotation.boxes:
            if box.name not in self.classes:
                text = f"class {box.name!r} is not one of {', '.join(self.classes) or 'the classes'} ({name})"
                problems.append(Problem(file, box.entry, text))
            if flaw := box_flaw(box.corners, size, box.text):
                problems.append(Problem(file, box.entry, f"{flaw} ({name})"))
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
