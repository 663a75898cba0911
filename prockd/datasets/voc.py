"""Boxes in the XML files of PASCAL VOC, one beside each image."""

import math
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from prockd.datasets._common import DatasetError, Problem
from prockd.datasets.boxes import Annotation, Box, BoxDataset
from prockd.datasets.files import pair_by_stem
from prockd.datasets.read import pictures

IMAGE_FOLDERS = ("images", "JPEGImages")
XML_FOLDERS = ("annotations", "Annotations")


class VocFolder(BoxDataset):
    """Pictures in one folder and a PASCAL VOC XML file of the same name each in another: detection.

    The pixels of a VOC file are counted from 1 and its last column and row belong to the box, so that the box
    ``xmin=1, xmax=3`` covers x from 0 to 3. An image without objects has a file without ``<object>``.

    Args:
        root: the folder that holds ``images`` or ``JPEGImages`` and ``annotations`` or ``Annotations``, or both
            kinds of files side by side.
        classes: class names in label order; None for the sorted names of all objects.
        first_px: number of the first pixel, 1 as VOC has it, or 0.
        group: regular expression that finds the group of an image in its id.
        on_bad: ``"refuse"`` raises when an image or an XML file has no partner, ``"skip"`` leaves it out.

    Raises:
        DatasetError: a folder is missing or empty, or partners are missing (with ``"refuse"``).
    """

    def __init__(
        self,
        root: Path | str,
        *,
        classes: Sequence[str] | None = None,
        first_px: int = 1,
        group: str | None = None,
        on_bad: str = "refuse",
    ) -> None:
        root = Path(root)
        if not root.is_dir():
            raise DatasetError(f"{root} is not a folder")
        images = next((root / name for name in IMAGE_FOLDERS if (root / name).is_dir()), root)
        files = next((root / name for name in XML_FOLDERS if (root / name).is_dir()), root)
        xml = sorted(p for p in files.rglob("*.xml") if p.is_file() and not p.name.startswith("."))
        pairs, flaws = pair_by_stem(pictures(images, "**/*"), images, xml, files, "XML file")
        annotations = [read_voc(path, first_px) for _, path in pairs]
        super().__init__(
            root, [image for image, _ in pairs], annotations, classes, group=group, flaws=flaws, key=first_px,
            on_bad=on_bad,
        )  # fmt: skip


def read_voc(path: Path, first_px: int = 1) -> Annotation:
    """Read one XML file; what it lacks is told among the problems of the annotation."""
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except ElementTree.ParseError as error:
        line, column = error.position
        text = f"is not well-formed XML at column {column}: {str(error).partition(': line')[0]}"
        return Annotation(path, problems=(Problem(str(path), f"line {line}", text),))
    except (OSError, ValueError, LookupError) as error:
        return Annotation(path, problems=(Problem(str(path), "", f"cannot be read: {error}"),))
    problems, boxes = [], []
    if root.tag != "annotation":
        problems.append(Problem(str(path), "", f"is a <{root.tag}>, not a VOC <annotation>"))
    for number, element in enumerate(root.iter("object"), 1):
        entry = f"object {number}"
        name = (element.findtext("name") or "").strip()
        missing = [] if name else ["<name>"]
        written = {side: element.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")}
        missing += [f"<bndbox><{side}>" for side, text in written.items() if text is None]
        edges = [_number(text or "") for text in written.values()]
        if missing:
            problems.append(Problem(str(path), entry, f"lacks {', '.join(missing)}"))
        elif not all(map(math.isfinite, edges)):
            odd = next(side for side, edge in zip(written, edges, strict=True) if not math.isfinite(edge))
            problems.append(Problem(str(path), entry, f"<{odd}> is {written[odd]!r}, not a number"))
        else:
            x0, y0, x1, y1 = edges
            wide, high = int(x1 > x0), int(y1 > y0)  # one number for both edges is a box without area, not a pixel
            corners = (x0 - first_px, y0 - first_px, x1 + wide - first_px, y1 + high - first_px)
            told = ", ".join(f"{side} {edge:g}" for side, edge in zip(written, edges, strict=True))
            boxes.append(Box(entry, name, corners, f"box {told}"))
    H, W = (_number(root.findtext(f"size/{side}") or "") for side in ("height", "width"))
    size = (int(H), int(W)) if math.isfinite(H * W) and H * W > 0 else None
    return Annotation(path, tuple(boxes), size, tuple(problems))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
