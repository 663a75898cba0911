"""Any data set at one size in one memory-mapped array."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64, UInt8
from torchvision.transforms.v2 import InterpolationMode
from tqdm.auto import tqdm

from prockd._types import IGNORE, UNLABELLED, ImageDataset, Sample
from prockd.cache import ArrayWriter, cached_arrays, digest
from prockd.datasets._common import DatasetError, check_label, named
from prockd.datasets.fit import fit_square, into_square, out_of_square

MIN_IMAGE_PX = 8
BARS = 128
"""Grey level of the bars beside a padded picture."""

MIN_KEPT = 0.3
"""A box that keeps a smaller share of its area when the middle of a picture is cut out is dropped."""

_BAR_AFTER_S = 2.0
_TOLERANCE_PX = 1.0
_ANNOTATIONS = ("parts", "mask", "tags", "boxes")


@dataclass(frozen=True, eq=False)
class PackedImages:
    """All images of a data set at one size: itself a data set, and a tensor to train on.

    What is not known of the images is None.

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
        frames: (M, 4) x0, y0, x1, y1 of each square in pixels of the picture that it was made of.
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
        bar = np.maximum(0, -low) / (high - low)
        return np.concatenate([bar, 1 - bar], 1)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Sample:
        def of(known: Sequence[np.ndarray] | np.ndarray | None) -> np.ndarray | None:
            return None if known is None else known[index]

        return Sample(
            self.pixels[index].transpose(1, 2, 0),
            int(self.labels[index]),
            self.ids[index],
            parts=of(self.parts),
            mask=of(self.masks),
            tags=of(self.tags),
            boxes=of(self.boxes),
            box_labels=of(self.box_labels),
        )

    def select(self, indices: Sequence[int] | np.ndarray) -> "PackedImages":
        """Return some of the images, by number or by a boolean mask; a run of neighbours stays on the disk.

        Raises:
            IndexError: an index is outside the data set.
        """
        chosen = chosen_rows(indices, len(self))
        if np.array_equal(chosen, np.arange(len(self))):
            return self
        run = len(chosen) > 0 and np.array_equal(chosen, np.arange(chosen[0], chosen[0] + len(chosen)))
        rows = slice(chosen[0], chosen[-1] + 1) if run else chosen
        return replace(
            self,
            pixels=self.pixels[rows],
            labels=self.labels[rows],
            ids=tuple(self.ids[m] for m in chosen),
            fingerprint=digest([self.fingerprint, chosen.tolist()]),
            parts=None if self.parts is None else self.parts[rows],
            masks=None if self.masks is None else self.masks[rows],
            tags=None if self.tags is None else self.tags[rows],
            boxes=None if self.boxes is None else tuple(self.boxes[m] for m in chosen),
            box_labels=None if self.box_labels is None else tuple(self.box_labels[m] for m in chosen),
            frames=None if self.frames is None else self.frames[rows],
            groups=None if self.groups is None else tuple(self.groups[m] for m in chosen),
        )

    def few(self, per_class: int, *, seed: int = 0) -> "PackedImages":
        """Return this many images of each class, drawn at random; fewer are always among more of the same seed.

        Raises:
            DatasetError: a class has fewer images.
        """
        rng = np.random.default_rng(seed)
        chosen = []
        for label, name in enumerate(self.classes):
            members = rng.permutation(np.flatnonzero(self.labels == label))
            if len(members) < per_class:
                raise DatasetError(f"{per_class} images a class are asked for, and {name} has {len(members)}")
            chosen.append(members[:per_class])
        return self.select(np.sort(np.concatenate(chosen)))

    def to_picture(self, index: int, boxes: Float32[np.ndarray, "n 4"]) -> Float32[np.ndarray, "n 4"]:
        """Boxes in pixels of square ``index``, such as detections, as boxes in pixels of the picture it was made of."""
        return boxes if self.frames is None else out_of_square(boxes, self.frames[index], self.image_px)

    def __repr__(self) -> str:
        count = 0 if self.boxes is None else sum(map(len, self.boxes))
        facts = {"parts": self.parts, "masks": self.masks, "tags": self.tags, f"{count} boxes": self.boxes}
        known = "".join(f", {name} known" for name, value in facts.items() if value is not None)
        free = int((self.labels == UNLABELLED).sum())
        told = self.masks is not None or self.tags is not None or self.boxes is not None
        unlabelled = f", {free} unlabelled" if free and not told else ""
        return f"PackedImages({len(self)} images of {self.image_px} px, {named(self.classes)}{unlabelled}{known})"


def pack(
    dataset: ImageDataset, image_px: int, *, fit: str | None = None, root: Path | None = None, progress: bool = True
) -> PackedImages:
    """Read every image once, at one size, into a memory-mapped array; the second call opens it.

    Pictures are resized with antialiased bicubic interpolation, masks by nearest neighbours, and boxes move with them;
    an image that has the size is copied as it is. A detection goes back to the picture with ``to_picture``.

    Args:
        dataset: the images; packed ones of this size are returned as they are.
        image_px: side of the square in pixels, at least 8.
        fit: "crop" takes the largest square in the middle, and drops boxes of which less than 30 % are left; "pad"
            takes the whole picture and adds grey bars, which masks ignore; "stretch" takes the whole picture and
            changes its proportions. None is "pad" for images with masks or boxes, so that no object is lost, and "crop"
            for others.
        root: folder of all caches; None is ``$PROCKD_CACHE`` or ``~/.cache/prockd``.
        progress: show a progress bar when it takes more than two seconds.

    Raises:
        DatasetError: there are no images, or one cannot be read, is smaller than 8 px, or has a label of no class, a
            mask of another size or with other values than the classes, or a box without area or outside the picture.
        CacheError: the disk is full.
    """
    if isinstance(dataset, PackedImages) and dataset.image_px == image_px:
        return dataset
    if image_px < MIN_IMAGE_PX or len(dataset) == 0:
        raise DatasetError(f"{len(dataset)} images at {image_px} px: needs at least one, at {MIN_IMAGE_PX} px or more")
    fit_square(1, 1, image_px, fit or "crop")  # an unknown word is refused before anything is read

    def build(writer: ArrayWriter) -> Mapping[str, object]:
        M, C, S = len(dataset), len(dataset.classes), image_px
        first = dataset[0]
        known = {name for name in _ANNOTATIONS if getattr(first, name) is not None}
        how = fit or ("pad" if known & {"mask", "boxes"} else "crop")
        pixels, labels = writer.create("pixels", (M, 3, S, S), np.uint8), writer.create("labels", (M,), np.int64)
        frames = writer.create("frames", (M, 4), np.float32)
        planes = {name: writer.create(name, (M, S, S), np.uint8) for name in ("parts", "mask") if name in known}
        tags = writer.create("tags", (M, C), np.uint8) if "tags" in known else None
        ids, boxes, box_labels = [], [], []
        for m in tqdm(range(M), desc="images", unit="image", delay=_BAR_AFTER_S, disable=not progress):
            sample = dataset[m]
            _check_sample(sample, C, known)
            H, W = sample.image.shape[:2]
            place = fit_square(H, W, S, how)
            pixels[m] = place.picture(sample.image.transpose(2, 0, 1), InterpolationMode.BICUBIC, BARS)
            for name, array in planes.items():
                bars = IGNORE if name == "mask" else 0
                array[m] = place.picture(getattr(sample, name)[None], InterpolationMode.NEAREST_EXACT, bars)[0]
            if tags is not None and sample.tags is not None:
                tags[m] = sample.tags
            if sample.boxes is not None:
                moved, kept = _boxes_in(sample.boxes, (H, W), place.frame, S)
                boxes.append(moved)
                box_labels.append(np.asarray(sample.box_labels, np.int64)[kept])
            labels[m], frames[m] = sample.label, place.frame
            ids.append(sample.id)
        if len(set(ids)) < M:
            raise DatasetError(f"{M} images share {len(set(ids))} ids: each needs its own")
        if boxes:
            total = sum(map(len, boxes))
            writer.create("boxes", (max(1, total), 4), np.float32)[:total] = np.concatenate(boxes)
            writer.create("box_labels", (max(1, total),), np.int64)[:total] = np.concatenate(box_labels)
        return {"ids": ids, "classes": list(dataset.classes), "counts": [len(b) for b in boxes]}

    key = {"version": 2, "dataset": dataset.fingerprint, "image_px": image_px, "fit": fit or "auto"}
    arrays, meta = cached_arrays("images", key, build, root=root)
    ends = np.cumsum(meta["counts"]).tolist()
    groups: Sequence[Hashable] | None = getattr(dataset, "groups", None)

    def ragged(name: str) -> tuple[np.ndarray, ...] | None:
        return tuple(np.split(np.array(arrays[name]), ends)[:-1]) if ends else None

    return PackedImages(
        arrays["pixels"], np.array(arrays["labels"]), tuple(meta["ids"]), tuple(meta["classes"]), digest(key),
        parts=arrays.get("parts"), masks=arrays.get("mask"), tags=arrays.get("tags"), boxes=ragged("boxes"),
        box_labels=ragged("box_labels"), frames=np.array(arrays["frames"]),
        groups=None if groups is None else tuple(groups),
    )  # fmt: skip


def _boxes_in(
    boxes: np.ndarray, size: tuple[int, int], frame: np.ndarray, side_px: int
) -> tuple[Float32[np.ndarray, "n 4"], np.ndarray]:
    """Boxes in the square, and which of the given ones they are."""
    H, W = size
    inside = np.clip(boxes, 0, [W, H, W, H]).astype(np.float32)
    moved = into_square(inside, frame, side_px)
    clipped = np.clip(moved, 0, side_px)
    kept = _area(clipped) >= MIN_KEPT * _area(moved)
    return clipped[kept], kept


def _area(boxes: np.ndarray) -> np.ndarray:
    area: np.ndarray = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return area


def _check_sample(sample: Sample, num_classes: int, known: set[str]) -> None:
    H, W = sample.image.shape[:2]
    if sample.image.shape != (H, W, 3) or sample.image.dtype != np.uint8:
        raise DatasetError(f"{sample.id} is {sample.image.dtype} {sample.image.shape}, not uint8 (H, W, 3)")
    if min(H, W) < MIN_IMAGE_PX:
        raise DatasetError(f"{sample.id} is {W} x {H} px, too small to show a part: {MIN_IMAGE_PX} px is the least")
    words = {"parts": "a part mask", "mask": "a mask", "tags": "tags", "boxes": "boxes (none are an empty array)"}
    for name, word in words.items():
        value = getattr(sample, name)
        if (value is not None) != (name in known):
            raise DatasetError(f"{sample.id}: every image or none has {word}")
        if name in ("parts", "mask") and value is not None and value.shape != (H, W):
            size = " x ".join(map(str, value.shape[::-1]))
            raise DatasetError(f"{sample.id} is {W} x {H} px and its {name} {size}: both need the size of the image")
    check_label(sample.label, num_classes, sample.id)
    if sample.mask is not None:
        values = np.flatnonzero(np.bincount(sample.mask.ravel(), minlength=256))
        wrong = [int(v) for v in values if v >= num_classes and v != IGNORE]
        if wrong:
            raise DatasetError(
                f"{sample.id}: its mask holds {', '.join(map(str, wrong[:5]))}, but {num_classes} classes have the "
                f"values 0..{num_classes - 1}, and {IGNORE} is ignored"
            )
    if sample.tags is not None and (sample.tags.shape != (num_classes,) or sample.tags.max(initial=0) > 1):
        raise DatasetError(
            f"{sample.id}: tags are {sample.tags.tolist()}, not a 0 or 1 for each of {num_classes} classes"
        )
    if sample.boxes is not None:
        check_boxes(sample.boxes, sample.box_labels, (H, W), num_classes, sample.id)


def check_boxes(
    boxes: np.ndarray, labels: np.ndarray | None, size: tuple[int, int], num_classes: int, name: str
) -> None:
    """Refuse boxes that no detector could learn; an edge up to one pixel outside the picture is let pass and clipped.

    Raises:
        DatasetError: names the image, the box and what is wrong with it.
    """
    H, W = size
    if labels is None or len(labels) != len(boxes):
        raise DatasetError(f"{name} has {len(boxes)} boxes and {0 if labels is None else len(labels)} box labels")
    for box, label in zip(boxes.tolist(), labels.tolist(), strict=True):
        x0, y0, x1, y1 = box
        told = f"{name}: box {', '.join(f'{v:g}' for v in box)}"
        if not np.isfinite(box).all():
            raise DatasetError(f"{told} is not a number")
        if x1 < x0 or y1 < y0:
            raise DatasetError(f"{told} has its corners swapped: x0 <= x1 and y0 <= y1 are needed")
        if min(x0, y0) < -_TOLERANCE_PX or x1 > W + _TOLERANCE_PX or y1 > H + _TOLERANCE_PX:
            raise DatasetError(f"{told} lies outside the picture of {W} x {H} px")
        if min(x1, W) <= max(x0, 0) or min(y1, H) <= max(y0, 0):
            raise DatasetError(f"{told} has no area")
        check_label(int(label), num_classes, told)


def chosen_rows(indices: Sequence[int] | np.ndarray, length: int) -> Int64[np.ndarray, " n"]:
    """Row numbers from numbers or a boolean mask; negative ones count from the end."""
    chosen: np.ndarray = np.arange(length)[np.asarray(indices, None if len(indices) else np.int64)]
    return chosen
