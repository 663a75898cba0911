"""Pictures with boxes: what detection learns, here from PASCAL VOC's XML files, one beside each image."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Unpack
from xml.etree import ElementTree

import numpy as np

from prockd.datasets.files import FileDataset, FormatOptions, normal, pair_by_stem, refuse_outside
from prockd.datasets.problems import DatasetError, Problem, box_flaw, number_or_nan
from prockd.datasets.read import pictures

_IMAGES = ("images", "JPEGImages")
_XML = ("annotations", "Annotations", "annots", "annot", "xmls", "xml", "labels")


@dataclass(frozen=True)
class Box:
    """One object as its file has it; nothing is checked yet."""

    entry: str  # where it is in the file
    name: str  # of its class
    corners: tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels
    text: str  # the box as the file writes it, for messages

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", normal(self.name))


@dataclass
class Annotation:
    """What a file has about one image."""

    file: Path
    boxes: list[Box] = field(default_factory=list)
    size: tuple[int, int] | None = None  # height and width of the image that the boxes are for
    problems: list[Problem] = field(default_factory=list)  # what could not be read
    is_relative: bool = False  # corners are shares of the picture

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
        names = sorted({box.name for a in annotations for box in a.boxes}) if classes is None else map(normal, classes)
        super().__init__(
            root, paths, tuple(names), annotations=list(dict.fromkeys(a.file for a in annotations)), **options
        )

    def _annotation(self, index: int, size: tuple[int, ...] | None) -> tuple[Mapping[str, Any], list[Problem]]:
        annotation, name = self.annotations[index], self.ids[index]
        file, problems = str(annotation.file), list(annotation.problems)
        if size is not None and annotation.size not in (None, size):
            (H, W), (h, w) = size, annotation.size or size
            text = f"its boxes are for an image of {w} x {h} px, and {name} has {W} x {H} px"
            problems.append(Problem(file, "", text))
        H, W = size or (1, 1)
        scale = np.array([W, H] * 2 if annotation.is_relative else 1)
        for box in annotation.boxes:
            unknown = f"class {box.name!r} is not one of {', '.join(self.classes) or 'the classes'}"
            corners = (np.array(box.corners) * scale).tolist()
            flaws = (unknown if box.name not in self.classes else "", box_flaw(corners, size, box.text))
            problems += [Problem(file, box.entry, f"{flaw} ({name})") for flaw in flaws if flaw]
        if problems or size is None:
            return {}, problems
        if not annotation.boxes:
            problems.append(Problem(str(self.paths[index]), "", "no objects", note=True))
        corners = np.array([box.corners for box in annotation.boxes], np.float32).reshape(-1, 4) * scale
        labels = np.array([self.classes.index(box.name) for box in annotation.boxes], np.int64)
        return {"boxes": corners.clip(0, [W, H, W, H]).astype(np.float32), "box_labels": labels}, problems


class VocFolder(BoxDataset):
    """Pictures in one folder and a PASCAL VOC XML file of the same name each in another: detection.

    The pixels of a VOC file are counted from 1 and its last column and row belong to the box, so that the box
    ``xmin=1, xmax=3`` covers x from 0 to 3. An image without objects has a file without ``<object>``.

    Args:
        root: the folder that holds ``images`` (``JPEGImages``) and ``annotations`` (``Annotations``), or all files.
        classes: class names in label order; None for the sorted names of all objects.
        first_px: number of the first pixel, 1 as VOC has it, or 0.
        options: ``group`` and ``on_bad``, see :class:`~prockd.datasets.files.FormatOptions`.

    Raises:
        DatasetError: a folder is missing or empty, or partners are missing (with ``"refuse"``).
    """

    def __init__(
        self, root: Path | str, *, classes: Sequence[str] | None = None, first_px: int = 1,
        **options: Unpack[FormatOptions],
    ) -> None:  # fmt: skip
        root = Path(root)
        if not root.is_dir():
            raise DatasetError(f"{root} is not a folder")
        images = next((root / name for name in _IMAGES if (root / name).is_dir()), root)
        folder = next((root / name for name in _XML if (root / name).is_dir()), root)
        files = sorted(p for p in folder.rglob("*.xml") if p.is_file() and not p.name.startswith("."))
        refuse_outside(root, files)
        pairs, flaws = pair_by_stem(pictures(images), images, files, folder, "XML file")
        paths, annotations = [image for image, _ in pairs], [read_voc(path, first_px) for _, path in pairs]
        super().__init__(root, paths, annotations, classes, flaws=flaws, key=first_px, **options)


def is_voc(path: Path) -> bool:
    """Whether a folder has pictures and XML files where :class:`VocFolder` looks for them."""
    has_xml = any(path.glob("*.xml")) or any(any((path / name).rglob("*.xml")) for name in _XML)
    return has_xml and (any((path / name).is_dir() for name in _IMAGES) or bool(pictures(path, "*")))


def read_voc(path: Path, first_px: int = 1) -> Annotation:
    """Read one XML file; what it lacks is among the problems of the annotation."""
    annotation = Annotation(path)
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except ElementTree.ParseError as error:
        (line, column), reason = error.position, str(error).partition(": line")[0]
        annotation.add_problem(f"line {line}", f"is not well-formed XML at column {column}: {reason}")
        return annotation
    except (OSError, ValueError, LookupError) as error:
        annotation.add_problem("", f"cannot be read: {error}")
        return annotation
    if root.tag != "annotation":
        annotation.add_problem("", f"is a <{root.tag}>, not a VOC <annotation>")
    for number, element in enumerate(root.iter("object"), 1):
        entry, name = f"object {number}", (element.findtext("name") or "").strip()
        texts = {side: element.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")}
        edges = {side: number_or_nan(text) for side, text in texts.items()}
        missing = ["<name>"] * (not name) + [f"<bndbox><{side}>" for side, text in texts.items() if text is None]
        odd = [side for side, edge in edges.items() if not math.isfinite(edge)]
        if missing:
            annotation.add_problem(entry, f"lacks {', '.join(missing)}")
        elif odd:
            annotation.add_problem(entry, f"<{odd[0]}> is {texts[odd[0]]!r}, not a number")
        else:
            x0, y0, x1, y1 = (edge - first_px for edge in edges.values())
            # The last pixel belongs to the box, so that its far edge is one further. Not so where both edges have one
            # number: that is a box without area, to be refused, and would become one of a single pixel.
            corners = (x0, y0, x1 + (x1 > x0), y1 + (y1 > y0))
            text = "box " + ", ".join(f"{side} {edge:g}" for side, edge in edges.items())
            annotation.boxes.append(Box(entry, name, corners, text))
    annotation.size = size_of(root.findtext("size/height"), root.findtext("size/width"))
    return annotation


def size_of(height: object, width: object) -> tuple[int, int] | None:
    """Height and width as a file writes them; None where it does not."""
    H, W = number_or_nan(str(height)), number_or_nan(str(width))
    return (int(H), int(W)) if math.isfinite(H * W) and H * W > 0 else None
