"""Boxes in one XML file of CVAT ("CVAT for images")."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack
from xml.etree import ElementTree

from prockd.datasets.boxes import Annotation, Box, BoxDataset, size_of
from prockd.datasets.files import FormatOptions, file_below, pictures_root
from prockd.datasets.problems import DatasetError, Problem, counted, number_or_nan
from prockd.untrusted import reading

_SIDES = ("xtl", "ytl", "xbr", "ybr")


class CvatFile(BoxDataset):
    """Pictures and the ``annotations.xml`` of CVAT that has their boxes: detection.

    Of polygons and masks the box around them is taken; other shapes are left out, which a note says.

    Args:
        path: the XML file; pictures lie beside it or in ``images``.
        classes: class names in label order; None for the labels of its task.
        options: ``group`` and ``on_bad``, see :class:`~prockd.datasets.files.FormatOptions`.

    Raises:
        DatasetError: the file is no such XML, or is of a video (says what to export instead).
    """

    def __init__(
        self, path: Path | str, *, classes: Sequence[str] | None = None, **options: Unpack[FormatOptions]
    ) -> None:
        path, annotations, others = Path(path), list[Annotation](), Counter[str]()
        with reading(path, "an XML file", DatasetError):
            tree = ElementTree.fromstring(path.read_bytes())
        if tree.find("track") is not None:
            raise DatasetError(f"{path} is of a video: export it again as 'CVAT for images', or as COCO")
        images = [image for image in tree.iter("image") if image.get("name")]
        for image in images:
            size = size_of(image.get("height"), image.get("width"))
            annotations.append(annotation := Annotation(path, size=size))
            for number, shape in enumerate(image, 1):
                corners, name = _corners(shape), shape.get("label") or ""
                if corners is None:
                    others[shape.tag] += shape.tag != "tag"
                elif not name or not all(map(math.isfinite, corners)):
                    annotation.add_problem(f"{image.get('name')}, shape {number}", "lacks a label or a number")
                else:
                    text = f"box {', '.join(f'{value:g}' for value in corners)}"
                    annotation.boxes.append(Box(f"{image.get('name')}, shape {number}", name, corners, text))
        kinds = ", ".join(counted(count, kind) for kind, count in others.items() if count)
        flaws = [Problem(str(path), "", f"{kinds} left out: boxes are read", note=True)] if kinds else []
        names = [str(image.get("name")) for image in images]
        root, told = pictures_root(path, names), [label.text or "" for label in tree.findall("meta//label/name")]
        paths = [file_below(root, name) for name in names]
        super().__init__(root, paths, annotations, classes or told or None, flaws=flaws, **options)


def is_cvat(path: Path) -> bool:
    """Whether an XML file begins as CVAT's do."""
    with path.open("rb") as file:
        return b"<annotations>" in file.read(200)


def _corners(shape: ElementTree.Element) -> tuple[float, float, float, float] | None:
    """The box around a shape; None for a shape that has no inside, NaN where a number is none."""
    if shape.tag == "box":
        x0, y0, x1, y1 = (number_or_nan(shape.get(side)) for side in _SIDES)
        return x0, y0, x1, y1
    if shape.tag == "mask":
        x, y, width, height = (number_or_nan(shape.get(side)) for side in ("left", "top", "width", "height"))
        return x, y, x + width, y + height
    if shape.tag != "polygon":
        return None
    values = [number_or_nan(text) for pair in (shape.get("points") or "").split(";") for text in pair.split(",")]
    if len(values) < 6 or len(values) % 2 or not all(map(math.isfinite, values)):
        return (math.nan,) * 4
    return min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
