"""A data set at one size in one memory-mapped array: itself a data set, and a tensor to train on."""

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from prockd._types import UNLABELLED, Sample
from prockd.cache import digest
from prockd.datasets.problems import DatasetError, class_list


@dataclass(frozen=True, eq=False)
class PackedImages:
    """All images of a data set at one size: itself a data set, and a tensor to train on; what is not known is None.

    Attributes:
        pixels: (M, 3, S, S) RGB, 0..255, read from the disk as it is used.
        labels: (M,) class indices, or ``UNLABELLED``.
        ids: M unique names.
        classes: C class names in label order.
        fingerprint: changes when any image, label or the size would.
        parts: (M, S, S) part index of each pixel, 0 is background.
        masks: (M, S, S) class index of each pixel, or ``IGNORE``, as it is in the bars beside a padded picture.
        tags: (M, C) 1 for each class that an image shows.
        boxes: M arrays (n, 4) of x0, y0, x1, y1 in pixels of the square.
        box_labels: M arrays (n,) of class indices.
        joints: (M, C, 3) x, y of each joint in pixels of the square, and 1 visible / 0 hidden, outside or not known.
        frames: (M, 4) x0, y0, x1, y1 of each square in pixels of the picture that it was cut out of.
        groups: M names, equal for images that belong together, such as the video that frames are of.
    """

    pixels: UInt8[np.ndarray, "M 3 S S"]
    labels: Int64[np.ndarray, " M"]
    ids: tuple[str, ...]
    classes: tuple[str, ...]
    fingerprint: str
    parts: UInt8[np.ndarray, "M S S"] | None = None
    masks: UInt8[np.ndarray, "M S S"] | None = None
    tags: UInt8[np.ndarray, "M C"] | None = None
    boxes: tuple[np.ndarray, ...] | None = None
    box_labels: tuple[np.ndarray, ...] | None = None
    frames: Float32[np.ndarray, "M 4"] | None = None
    groups: tuple[Hashable, ...] | None = None
    joints: Float32[np.ndarray, "M C 3"] | None = None
    _told: tuple[Any, ...] = field(default=(), repr=False)  # a fingerprint, and the pixels and labels that it is of

    def __post_init__(self) -> None:
        own = (self.pixels, self.labels, self.parts, self.masks, self.tags, self.boxes, self.box_labels, self.joints)
        before = self._told[1] if self._told[:1] == (self.fingerprint,) else own  # of dataclasses.replace
        if changed := [m for m, (new, old) in enumerate(zip(own, before, strict=True)) if new is not old]:
            content = [None if (new := own[m]) is None else content_of(new) for m in changed]
            object.__setattr__(self, "fingerprint", digest([self.fingerprint, changed, content]))
        object.__setattr__(self, "_told", (self.fingerprint, own))

    @property
    def image_px(self) -> int:
        """S: the side of every image in pixels."""
        return int(self.pixels.shape[3])

    @property
    def pictured(self) -> Float32[np.ndarray, "M 4"]:
        """x0, y0, x1, y1 in 0..1 of each square: the part that shows the picture; beside it are bars."""
        if self.frames is None:
            return np.tile(np.array([0, 0, 1, 1], np.float32), (len(self), 1))
        low, high = self.frames[:, :2], self.frames[:, 2:]
        # A frame that begins at -9 has 9 picture pixels of bars before the picture, and as many behind it.
        bar = np.maximum(0, -low) / (high - low)
        return np.concatenate([bar, 1 - bar], 1)

    @property
    def hashes(self) -> tuple[str, ...]:
        """One of each image: equal where its pixels in the square and its annotations are, whatever its name is."""
        columns = [self.pixels, self.labels, self.masks, self.tags, self.boxes, self.box_labels, self.joints]
        there = [column for column in columns if column is not None]
        each = (b"".join(np.ascontiguousarray(column[m]).tobytes() for column in there) for m in range(len(self)))
        return tuple(hashlib.blake2b(content, digest_size=10).hexdigest() for content in each)

    def in_picture(self, grid: tuple[int, int], rows: np.ndarray | slice = slice(None)) -> Bool[np.ndarray, "m N"]:
        """Whether the centre of each patch, of all images or some, lies in the picture, and not in a bar beside it."""
        pictured, (h, w) = self.pictured[rows], grid
        inside = []
        for low, high, count in ((1, 3, h), (0, 2, w)):
            centre = (np.arange(count) + 0.5) / count
            inside.append((centre >= pictured[:, low, None]) & (centre <= pictured[:, high, None]))  # (M, count)
        return (inside[0][:, :, None] & inside[1][:, None, :]).reshape(len(pictured), -1)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Sample:
        columns = {"parts": self.parts, "mask": self.masks, "tags": self.tags, "boxes": self.boxes,
                   "box_labels": self.box_labels, "joints": self.joints}  # fmt: skip
        annotations: dict[str, Any] = {name: rows[index] for name, rows in columns.items() if rows is not None}
        return Sample(self.pixels[index].transpose(1, 2, 0), int(self.labels[index]), self.ids[index], **annotations)

    def select(self, indices: Sequence[int] | np.ndarray) -> "PackedImages":
        """Some of the images, by number (IndexError outside) or boolean mask; a run of neighbours stays on the disk."""
        numbers = row_numbers(indices, len(self))
        if np.array_equal(numbers, np.arange(len(self))):
            return self
        # numpy copies rows that are listed, and only views a slice: a run of neighbours need not come into memory.
        run = len(numbers) > 0 and np.array_equal(numbers, np.arange(numbers[0], numbers[0] + len(numbers)))
        rows = slice(numbers[0], numbers[-1] + 1) if run else numbers
        selected: dict[str, Any] = {}
        for name in {one.name for one in fields(self)} - {"classes", "fingerprint", "_told"}:
            if (column := getattr(self, name)) is not None:
                selected[name] = column[rows] if isinstance(column, np.ndarray) else tuple(column[m] for m in numbers)
        return replace(self, fingerprint=digest([self.fingerprint, numbers.tolist()]), **selected)

    def per_class(self, count: int, seed: int = 0) -> "PackedImages":
        """So many images of each class at random, or a DatasetError; fewer are always among more of the same seed."""
        rng = np.random.default_rng(seed)
        drawn = []
        for label, name in enumerate(self.classes):
            members = rng.permutation(np.flatnonzero(self.labels == label))
            if len(members) < count:
                raise DatasetError(f"{count} images a class are asked for, and {name} has {len(members)}")
            drawn.append(members[:count])
        return self.select(np.sort(np.concatenate(drawn)))

    def sample(self, count: int, seed: int = 0) -> "PackedImages":
        """Return this many of the images, drawn at random, whatever their labels; all where there are no more."""
        if len(self) <= count:
            return self
        return self.select(np.sort(np.random.default_rng(seed).permutation(len(self))[:count]))

    def to_picture(self, index: int, boxes: Float32[np.ndarray, "n 4"]) -> Float32[np.ndarray, "n 4"]:
        """Boxes in pixels of square ``index``, such as detections, as boxes in pixels of its picture."""
        if self.frames is None:
            return boxes
        low, high = np.split(self.frames[index], 2)
        moved = boxes.reshape(-1, 2, 2) * ((high - low) / self.image_px) + low
        return np.asarray(moved.reshape(-1, 4), np.float32)

    def __repr__(self) -> str:
        count = 0 if self.boxes is None else sum(map(len, self.boxes))
        columns = {"parts": self.parts, "masks": self.masks, "tags": self.tags, f"{count} boxes": self.boxes,
                   "joints": self.joints}  # fmt: skip
        facts = "".join(f", {name} known" for name, column in columns.items() if column is not None)
        free = int((self.labels == UNLABELLED).sum())
        annotated = any(column is not None for column in (self.masks, self.tags, self.boxes, self.joints))
        unlabelled = f", {free} unlabelled" if free and not annotated else ""
        return f"PackedImages({len(self)} images of {self.image_px} px, {class_list(self.classes)}{unlabelled}{facts})"


def content_of(values: np.ndarray | Sequence[np.ndarray]) -> str:
    """Text that changes with what arrays hold."""
    content = hashlib.sha256()
    for part in [values] if isinstance(values, np.ndarray) else values:
        content.update(repr((part.shape, part.dtype.str)).encode())
        content.update(np.ascontiguousarray(part).data)
    return content.hexdigest()


def join(parts: Sequence[PackedImages]) -> PackedImages:
    """Images of several sets of the same classes and size in one, in memory; what one of them lacks is left out."""
    columns: dict[str, Any] = {}
    for name in {one.name for one in fields(PackedImages)} - {"classes", "fingerprint", "_told"}:
        each = [getattr(part, name) for part in parts]
        if all(column is not None for column in each):
            whole = isinstance(each[0], np.ndarray)
            columns[name] = np.concatenate(each) if whole else tuple(one for column in each for one in column)
    return PackedImages(classes=parts[0].classes, fingerprint=digest([p.fingerprint for p in parts]), **columns)


def row_numbers(indices: Sequence[int] | np.ndarray, length: int) -> Int64[np.ndarray, " n"]:
    """Row numbers from numbers or a boolean mask; negative ones count from the end."""
    numbers: np.ndarray = np.arange(length)[np.asarray(indices, None if len(indices) else np.int64)]
    return numbers
