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
    """One object as its file has it; nothing is checked yet."""

    entry: str  # where it is in the file
    name: str  # of its class
    corners: tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels
    text: str  # the box as the file writes it, for messages


@dataclass
class Annotation:
    """What a file has about one image."""

    file: Path
    boxes: list[Box] = field(default_factory=list)
    size: tuple[int, int] | None = None  # height and width of the image that the boxes are for
    problems: list[Problem] = field(default_factory=list)  # what could not be read

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
        self.facts = f", {sum(len(a.boxes) for a in annotations)} boxes"
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
