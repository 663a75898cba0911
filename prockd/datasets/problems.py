"""What can be wrong with images and labels: the error, a problem as a row of a table, and the rules for any sample."""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prockd._types import IGNORE, UNLABELLED, Sample

MAX_LISTED = 5  # problems that one error message spells out; the rest are counted
MIN_IMAGE_PX = 8
TOLERANCE_PX = 1.0  # an edge up to this far outside the image is a rounding, and is moved onto the border
WHAT_TO_DO = "Mend what `prockd check-data` lists, or leave it out with on_bad='skip' (--set data.on_bad=skip)."


class DatasetError(ValueError):
    """Images or labels that cannot be used; the message names the first of them and what to do."""

    def __str__(self) -> str:
        return printable(super().__str__())


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a data set."""

    file: str  # as the user would look for it
    entry: str  # where in the file (line 3, object 2, annotation 17); empty for all of it
    text: str  # what is wrong, and what to do where that is not plain
    note: bool = False  # training can go on as it is

    def __post_init__(self) -> None:
        for name in ("file", "entry", "text"):
            object.__setattr__(self, name, printable(getattr(self, name)))

    @classmethod
    def of(cls, file: Path | str, error: Exception) -> "Problem":
        """An error as a problem of a file, whose name the text then need not repeat."""
        return cls(str(file), "", str(error).removeprefix(f"{printable(str(file))} "))

    def __str__(self) -> str:
        return f"{self.file}{f', {self.entry}' if self.entry else ''}: {self.text}"


def refuse(problems: Sequence[Problem], name: str, on_bad: str) -> None:
    """Raise one DatasetError that spells out the first problems, unless they are to be skipped; notes are no reason."""
    if on_bad not in ("refuse", "skip"):
        raise ValueError(f"on_bad={on_bad!r}: must be 'refuse' or 'skip'")
    errors = [problem for problem in problems if not problem.note]
    if errors and on_bad == "refuse":
        lines = "".join(f"\n  {problem}" for problem in errors[:MAX_LISTED])
        more = f"\n  and {len(errors) - MAX_LISTED} more" if len(errors) > MAX_LISTED else ""
        count = f"{len(errors)} bad entries" if len(errors) > 1 else "a bad entry"
        raise DatasetError(f"{name} has {count}:{lines}{more}\n{WHAT_TO_DO}")


def printable(text: str) -> str:
    r"""A text in which the bytes of a file name that are not UTF-8 (old ZIP files leave such) stand as ``\udce9``."""
    return text.encode("utf-8", "backslashreplace").decode()


def listed(values: Iterable[object], most: int = MAX_LISTED, between: str = ", ") -> str:
    """The first values as text, with dots for the others."""
    texts = list(map(str, values))
    return between.join([*texts[:most], *["..."] * (len(texts) > most)])


def grouped(problems: Iterable[Problem]) -> list[str]:
    """Problems that differ in names and numbers alone as one text: the first of them, and how many there are more."""
    alike: dict[str, list[Problem]] = {}
    for problem in problems:
        alike.setdefault(re.sub(r"\S*[\d/.]\S*", "", problem.text), []).append(problem)
    return [f"{several[0]}{f' (and {len(several) - 1} more)' * (len(several) > 1)}" for several in alike.values()]


def counted(count: int, noun: str, plural: str = "") -> str:
    """A number with its noun: ``1 image``, ``2 images``."""
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"


def class_list(classes: Sequence[str]) -> str:
    """Classes as a repr counts and names them."""
    return f"{counted(len(classes), 'class', 'classes')}: {listed(classes, 4)}" if classes else "no classes"


def label_flaw(label: int, num_classes: int) -> str:
    """What is wrong with a label, in words; empty when nothing is."""
    fits = label == UNLABELLED or 0 <= label < num_classes
    return "" if fits else f"has label {label}: {num_classes} classes have labels 0..{num_classes - 1}"


def box_flaw(corners: Sequence[float], size: tuple[int, ...] | None, text: str = "") -> str:
    """What is wrong with a box, ``text`` in its file, on an image of height and width ``size``, in words, or empty."""
    x0, y0, x1, y1 = corners
    text = text or f"box {x0:g}, {y0:g}, {x1:g}, {y1:g}"
    if not all(map(math.isfinite, corners)):
        return f"{text}: one of them is not a number"
    if x1 < x0 or y1 < y0:
        return f"{text} has its corners swapped: the left and upper edge come first"
    if x1 == x0 or y1 == y0:
        return f"{text} has no area"
    if size is not None:
        H, W = size
        if min(x0, y0) < -TOLERANCE_PX or x1 > W + TOLERANCE_PX or y1 > H + TOLERANCE_PX:
            return f"{text} reaches outside the image of {W} x {H} px"
        if min(x1, W) <= max(x0, 0) or min(y1, H) <= max(y0, 0):
            return f"{text} has no area inside the image of {W} x {H} px"
    return ""


def number_or_nan(text: str | None) -> float:
    """A number that a file writes; NaN where it is none."""
    try:
        return math.nan if "_" in (text or "") else float(text or "")  # Python alone reads 1_000
    except ValueError:
        return math.nan


def as_float(value: int | float) -> float:
    """A number that JSON holds as a float; infinite where it is longer than any."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def values_of(mask: np.ndarray) -> list[int]:
    """The values that a mask (H, W) holds, ascending."""
    return [int(value) for value in np.flatnonzero(np.bincount(mask.ravel()))]


def sample_problems(sample: Sample, num_classes: int, name: str) -> Iterator[Problem]:
    """What no data set may give, whatever it was made from; ``name`` is what messages call the sample."""
    H, W = size = sample.image.shape[:2]
    if sample.image.shape != (H, W, 3) or sample.image.dtype != np.uint8:
        yield Problem(name, "", f"is {sample.image.dtype} {sample.image.shape}, not uint8 (H, W, 3)")
    if min(size) < MIN_IMAGE_PX:
        yield Problem(name, "", f"is {W} x {H} px, too small to show a part: {MIN_IMAGE_PX} px is the least")
    if flaw := label_flaw(sample.label, num_classes):
        yield Problem(name, "", flaw)
    for plane, values in (("parts", sample.parts), ("mask", sample.mask)):
        if values is not None and values.shape != size:
            other = " x ".join(map(str, values.shape[::-1]))
            yield Problem(name, "", f"is {W} x {H} px and its {plane} {other}: both need the size of the image")
    beyond = [] if sample.mask is None else [v for v in values_of(sample.mask) if num_classes <= v != IGNORE]
    if beyond:
        allowed = f"{num_classes} classes have the values 0..{num_classes - 1}, and {IGNORE} is ignored"
        yield Problem(name, "", f"its mask holds {listed(beyond)}, but {allowed}")
    tags = sample.tags
    if tags is not None and (tags.shape != (num_classes,) or tags.max(initial=0) > 1):
        yield Problem(name, "", f"tags are {tags.tolist()}, not a 0 or 1 for each of {num_classes} classes")
    joints = sample.joints
    if joints is not None and (joints.shape != (num_classes, 3) or not np.isfinite(joints).all()):
        yield Problem(name, "", f"joints are {joints.tolist()}, not x, y and 0 or 1 for each of {num_classes}")
    boxes = [] if sample.boxes is None else sample.boxes.tolist()
    labels = [] if sample.box_labels is None else np.asarray(sample.box_labels).tolist()
    if len(boxes) != len(labels):
        yield Problem(name, "", f"has {len(boxes)} boxes and {len(labels)} box labels")
    for number, (box, label) in enumerate(zip(boxes, labels, strict=False), 1):
        if flaw := box_flaw(box, size) or label_flaw(label, num_classes):
            yield Problem(name, f"object {number}", flaw)
