"""Reading every image of a data set once, as a square of one size: where a picture goes in it, and its boxes."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms
from tqdm.auto import tqdm

from prockd._types import IGNORE, ImageDataset
from prockd.cache import ArrayWriter, cached_arrays, digest
from prockd.datasets.packed import PackedImages
from prockd.datasets.problems import MIN_IMAGE_PX, DatasetError, sample_problems
from prockd.datasets.transforms import MIN_KEPT
from prockd.devices import made_ahead

BARS = 128  # grey level of the bars beside a padded picture
_ANNOTATIONS = {"parts": "a part mask", "mask": "a mask", "tags": "tags", "boxes": "boxes (none are an empty array)",
                "joints": "joints (those not known are 0, 0, 0)"}  # fmt: skip
FITS = ("crop", "pad", "stretch")
"""The middle square, the whole picture with bars beside it, or the whole picture with other proportions."""


@dataclass(frozen=True)
class Fit:
    """Which part of a picture goes to which part of a square; both are top, left, height, width in pixels."""

    source: tuple[int, int, int, int]
    target: tuple[int, int, int, int]  # the rest of the square is bars
    side_px: int

    @property
    def frame(self) -> Float32[np.ndarray, "4"]:
        """x0, y0, x1, y1 of the whole square in pixels of the picture; beyond it where there are bars."""
        (top, left, height, width), (down, right, h, w) = self.source, self.target
        x, y = width / w, height / h  # picture pixels in a square pixel
        x0, y0 = left - right * x, top - down * y
        return np.array([x0, y0, x0 + self.side_px * x, y0 + self.side_px * y], np.float32)

    def resize(
        self, image: UInt8[np.ndarray, "c H W"], interpolation: InterpolationMode, bars: int
    ) -> UInt8[np.ndarray, "c S S"]:
        """The square; ``bars`` is the value of what the picture does not cover."""
        (top, left, height, width), (down, right, h, w) = self.source, self.target
        part = torch.tensor(image[:, top : top + height, left : left + width])
        square = np.full((len(image), self.side_px, self.side_px), bars, np.uint8)
        resized: torch.Tensor = transforms.resize(part, [h, w], interpolation=interpolation, antialias=True)
        square[:, down : down + h, right : right + w] = resized.numpy()
        return square

    def move(self, boxes: Float[np.ndarray, "n 4"]) -> Float32[np.ndarray, "n 4"]:
        """Boxes in pixels of the picture as boxes in pixels of the square, not clipped."""
        low, high = np.split(self.frame, 2)
        moved = (boxes.reshape(-1, 2, 2) - low) * (self.side_px / (high - low))
        return np.asarray(moved.reshape(-1, 4), np.float32)

    def move_points(self, points: Float[np.ndarray, "n 3"]) -> Float32[np.ndarray, "n 3"]:
        """Points with their visibility: x, y in pixels of the square; those outside of it are not visible."""
        low, high = np.split(self.frame, 2)
        xy = (points[:, :2] - low) * (self.side_px / (high - low))
        inside = ((xy >= 0) & (xy <= self.side_px)).all(1)
        return np.concatenate([xy, (points[:, 2:] > 0) & inside[:, None]], 1).astype(np.float32)


def fit_square(height: int, width: int, side_px: int, fit: str) -> Fit:
    """Where a picture of this size goes in a square."""
    if fit not in FITS:
        raise ValueError(f"fit={fit!r}: choose one of {', '.join(map(repr, FITS))}")
    S, side, source, target = side_px, min(height, width), (0, 0, height, width), (0, 0, side_px, side_px)
    if fit == "crop":
        source = (height - side) // 2, (width - side) // 2, side, side
    elif fit == "pad":
        h, w = (max(1, round(S * length / max(height, width))) for length in (height, width))
        target = (S - h) // 2, (S - w) // 2, h, w
    return Fit(source, target, S)


def pack(
    dataset: ImageDataset, image_px: int, *, fit: str | None = None, root: Path | None = None, progress: bool = True
) -> PackedImages:
    """Read every image once, at one size, into a memory-mapped array; the second call opens it.

    Pictures are resized with antialiased bicubic interpolation, masks by nearest neighbours, and boxes and joints move
    with them; an image that has the size is copied as it is. A detection goes back to the picture with ``to_picture``.

    Example:
        >>> import tempfile, numpy as np
        >>> from prockd.datasets import Arrays
        >>> photos = Arrays(np.zeros((3, 24, 32, 3), np.uint8), labels=[0, 1, 1], classes=["cat", "dog"])
        >>> with tempfile.TemporaryDirectory() as cache:
        ...     pack(photos, 16, root=Path(cache))
        PackedImages(3 images of 16 px, 2 classes: cat, dog)

    Args:
        dataset: the images; packed ones of this size are returned as they are.
        image_px: side of the square in pixels, at least 8.
        fit: "crop" takes the largest square in the middle, and drops boxes of which less than 30 % are left; "pad"
            takes the whole picture and adds grey bars, which masks ignore; "stretch" takes the whole picture and
            changes its proportions. None is "pad" for images with masks, boxes or joints, else "crop".
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
    key = {"version": 3, "dataset": dataset.fingerprint, "image_px": image_px, "fit": fit or "auto"}
    write = partial(_write, dataset=dataset, image_px=image_px, fit=fit, progress=progress)
    arrays, meta = cached_arrays("images", key, write, root=root)
    joints = arrays.get("joints")
    ends = np.cumsum(meta["counts"]).tolist()
    groups: Sequence[Hashable] | None = getattr(dataset, "groups", None)
    per_image = (tuple(np.split(np.array(arrays[name]), ends)[:-1]) for name in ("boxes", "box_labels"))
    boxes, labels = per_image if ends else (None, None)
    return PackedImages(
        arrays["pixels"], np.array(arrays["labels"]), tuple(meta["ids"]), tuple(meta["classes"]), digest(key),
        parts=arrays.get("parts"), masks=arrays.get("mask"), tags=arrays.get("tags"), boxes=boxes, box_labels=labels,
        frames=np.array(arrays["frames"]), groups=None if groups is None else tuple(groups),
        joints=None if joints is None else np.array(joints),
    )  # fmt: skip


def _write(
    writer: ArrayWriter, dataset: ImageDataset, image_px: int, fit: str | None, progress: bool
) -> Mapping[str, object]:
    """Fill the arrays; boxes, of which images have different numbers, lie one behind the other."""
    M, C, S = len(dataset), len(dataset.classes), image_px
    first = dataset[0]
    annotations = {name for name in _ANNOTATIONS if getattr(first, name) is not None}
    fit = fit or ("pad" if annotations & {"mask", "boxes", "joints"} else "crop")
    pixels, labels = writer.create("pixels", (M, 3, S, S), np.uint8), writer.create("labels", (M,), np.int64)
    frames = writer.create("frames", (M, 4), np.float32)
    planes = {name: writer.create(name, (M, S, S), np.uint8) for name in ("parts", "mask") if name in annotations}
    tags = writer.create("tags", (M, C), np.uint8) if "tags" in annotations else None
    joints = writer.create("joints", (M, C, 3), np.float32) if "joints" in annotations else None
    ids, boxes, box_labels = [], [], []
    threads = getattr(dataset, "threads", 0)
    samples = made_ahead(dataset.__getitem__, range(M), threads, 2 * threads)
    for m, sample in enumerate(tqdm(samples, "images", M, unit="image", delay=2.0, disable=not progress)):
        for name, words in _ANNOTATIONS.items():
            if (getattr(sample, name) is not None) != (name in annotations):
                raise DatasetError(f"{sample.id}: every image or none has {words}")
        if problem := next(sample_problems(sample, C, sample.id), None):
            raise DatasetError(str(problem))
        H, W = sample.image.shape[:2]
        place = fit_square(H, W, S, fit)
        pixels[m] = place.resize(sample.image.transpose(2, 0, 1), InterpolationMode.BICUBIC, BARS)
        for name, array in planes.items():
            bars = IGNORE if name == "mask" else 0
            array[m] = place.resize(getattr(sample, name)[None], InterpolationMode.NEAREST_EXACT, bars)[0]
        if tags is not None and sample.tags is not None:
            tags[m] = sample.tags
        if joints is not None and sample.joints is not None:
            joints[m] = place.move_points(sample.joints)
        if sample.boxes is not None:
            moved = place.move(np.clip(sample.boxes, 0, [W, H, W, H]).astype(np.float32))
            clipped = np.clip(moved, 0, S)
            area, before = ((b[:, 2:] - b[:, :2]).prod(1) for b in (clipped, moved))
            kept = area >= MIN_KEPT * before
            boxes.append(clipped[kept])
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
