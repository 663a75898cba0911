"""Your own images as samples, and any data set packed at one size into one memory-mapped array.

A data set is anything with ``classes``, ``fingerprint``, a length and samples (:class:`prockd._types.ImageDataset`):
a folder of pictures, arrays in memory, Farmyard, a part of one of them, or the packed form of any.
"""

import hashlib
import struct
import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image, ImageOps
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms
from tqdm.auto import tqdm

from prockd._types import UNLABELLED, ImageDataset, Sample
from prockd.cache import ArrayWriter, cached_arrays, digest

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
MIN_IMAGE_PX = 8
_BAR_AFTER_S = 2.0


class DatasetError(ValueError):
    """Images or labels that cannot be used; the message names the first of them and what to do."""


def read_image(path: Path | str) -> UInt8[np.ndarray, "H W 3"]:
    """Read a picture of any kind as upright 8-bit RGB.

    The EXIF orientation is applied, transparency laid on white, 16 and 32 bits scaled to 8 by the range of their mode.

    Raises:
        DatasetError: the file is missing, truncated, too large to be a photograph, or no picture.
    """
    try:
        with Image.open(path) as file:
            file.load()
            return _to_rgb(ImageOps.exif_transpose(file))
    except FileNotFoundError as error:
        raise DatasetError(f"{path} does not exist") from error
    except Image.DecompressionBombError as error:
        raise DatasetError(f"{path} is larger than any photograph: {error} Store a smaller copy.") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise DatasetError(f"{path} cannot be read as an image ({error}): replace or remove the file") from error


def _to_rgb(picture: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    if picture.mode.startswith(("I", "F")):
        levels = np.asarray(picture)
        if picture.mode == "F" or levels.min() < 0:
            raise ValueError(f"levels {levels.min()}..{levels.max()} have no defined white; convert it to 8 bits")
        white = 65535 if levels.max() <= 65535 else 2**31 - 1
        grey = np.rint(levels * (255 / white)).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)  # (H, W, 3)
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return np.array(picture.convert("RGB"))


class ImageFolder:
    """Pictures in a folder: one sub-folder a class, or all in the folder itself and unlabelled.

    Labels follow the sorted names of the sub-folders. Hidden files and folders are left out; sub-folders of a class
    folder belong to the class. The fingerprint covers the names, sizes and times of change of all files.

    Args:
        root: the folder.
        classes: the class sub-folders to use, in label order; None for all of them. For a folder without sub-folders,
            the names of the classes that the pictures may belong to.

    Raises:
        DatasetError: the folder is missing, or it or a class folder holds no picture.
    """

    def __init__(self, root: Path | str, *, classes: Sequence[str] | None = None) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise DatasetError(f"{self.root} is not a folder")
        folders = sorted(p.name for p in self.root.iterdir() if p.is_dir() and not p.name.startswith("."))
        loose = _pictures(self.root, "*")
        self.classes = tuple(folders if classes is None else classes)
        if folders:
            if loose:
                warnings.warn(f"{len(loose)} images beside the class folders of {root} are left out", stacklevel=2)
            files = [(path, label) for label, name in enumerate(self.classes) for path in self._of_class(name)]
        else:
            files = [(path, UNLABELLED) for path in loose]
        if not files:
            wanted = " ".join(sorted(IMAGE_SUFFIXES))
            raise DatasetError(f"{self.root} holds no images: looked for {wanted} in it and in its class sub-folders")
        self._paths = [path for path, _ in files]
        self.labels = np.array([label for _, label in files], np.int64)
        self.ids = tuple(path.relative_to(self.root).as_posix() for path in self._paths)
        stats = [path.stat() for path in self._paths]
        dates = [(id, s.st_size, s.st_mtime_ns) for id, s in zip(self.ids, stats, strict=True)]
        self.fingerprint = digest(["folder", self.classes, self.labels.tolist(), dates])

    def _of_class(self, name: str) -> list[Path]:
        paths = _pictures(self.root / name, "**/*")
        if not paths:
            raise DatasetError(f"class folder {self.root / name} holds no images: remove it, or list `classes`")
        return paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Sample:
        return Sample(read_image(self._paths[index]), int(self.labels[index]), self.ids[index])

    def __repr__(self) -> str:
        return f"ImageFolder({str(self.root)!r}: {len(self)} images, {_named(self.classes)})"


def _pictures(folder: Path, pattern: str) -> list[Path]:
    found = [p for p in folder.glob(pattern) if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))


class Arrays:
    """Images in memory as a data set.

    Args:
        images: (M, H, W, 3) uint8 RGB.
        labels: (M,) class indices 0..C-1, or ``UNLABELLED``.
        classes: C class names in label order.
        ids: M unique names; None for their numbers.

    Raises:
        DatasetError: a wrong shape or dtype, or a label that names no class.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray | Sequence[int],
        classes: Sequence[str],
        ids: Sequence[str] | None = None,
    ) -> None:
        if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or len(images) == 0:
            raise DatasetError(f"images are {images.dtype} {images.shape}, not uint8 (M, H, W, 3) with M > 0")
        self.images = images
        self.labels = np.asarray(labels, np.int64)
        self.classes = tuple(classes)
        self.ids = tuple(map(str, range(len(images)) if ids is None else ids))
        if self.labels.shape != (len(images),) or len(self.ids) != len(images):
            raise DatasetError(f"{len(images)} images with labels {self.labels.shape} and {len(self.ids)} ids")
        for index, label in enumerate(self.labels):
            _check_label(int(label), len(self.classes), f"image {index} ({self.ids[index]})")
        pixels = hashlib.sha256(images.tobytes()).hexdigest()
        self.fingerprint = digest(["arrays", images.shape, pixels, self.labels.tolist(), self.classes, self.ids])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.images[index], int(self.labels[index]), self.ids[index])

    def __repr__(self) -> str:
        M, H, W, _ = self.images.shape
        return f"Arrays({M} images of {W} x {H} px, {_named(self.classes)})"


@dataclass(frozen=True, eq=False)
class PackedImages:
    """All images of a data set at one size: itself a data set, and a tensor to train on.

    Attributes:
        pixels: (M, 3, S, S) RGB, 0..255, read from the disk as it is used.
        labels: (M,) class indices, or ``UNLABELLED``.
        ids: M unique names.
        classes: C class names in label order.
        fingerprint: changes when any image, label or the size would.
        parts: (M, S, S) part index of each pixel, 0 is background; None when it is not known.
    """

    pixels: UInt8[np.ndarray, "M 3 S S"]
    labels: Int64[np.ndarray, " M"]
    ids: tuple[str, ...]
    classes: tuple[str, ...]
    fingerprint: str
    parts: UInt8[np.ndarray, "M S S"] | None = None

    @property
    def image_px(self) -> int:
        """S: the side of every image in pixels."""
        return int(self.pixels.shape[3])

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Sample:
        parts = None if self.parts is None else self.parts[index]
        return Sample(self.pixels[index].transpose(1, 2, 0), int(self.labels[index]), self.ids[index], parts)

    def select(self, indices: Sequence[int] | np.ndarray) -> "PackedImages":
        """Return some of the images, by number or by a boolean mask; a run of neighbours stays on the disk.

        Raises:
            IndexError: an index is outside the data set.
        """
        chosen = _chosen(indices, len(self))
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

    def __repr__(self) -> str:
        known = "" if self.parts is None else ", parts known"
        free = int((self.labels == UNLABELLED).sum())
        unlabelled = f", {free} unlabelled" if free else ""
        return f"PackedImages({len(self)} images of {self.image_px} px, {_named(self.classes)}{unlabelled}{known})"


def pack(dataset: ImageDataset, image_px: int, *, root: Path | None = None, progress: bool = True) -> PackedImages:
    """Read every image once, at one size, into a memory-mapped array; the second call opens it.

    The largest square in the middle of an image is resized with antialiased bicubic interpolation, its part mask by
    nearest neighbours; an image that has the size is copied as it is.

    Args:
        dataset: the images; packed ones of this size are returned as they are.
        image_px: side of the square in pixels, at least 8.
        root: folder of all caches; None is ``$PROCKD_CACHE`` or ``~/.cache/prockd``.
        progress: show a progress bar when it takes more than two seconds.

    Raises:
        DatasetError: there are no images, or one cannot be read, is smaller than 8 px, or has a label of no class.
        CacheError: the disk is full.
    """
    if isinstance(dataset, PackedImages) and dataset.image_px == image_px:
        return dataset
    if image_px < MIN_IMAGE_PX or len(dataset) == 0:
        raise DatasetError(f"{len(dataset)} images at {image_px} px: needs at least one, at {MIN_IMAGE_PX} px or more")

    def build(writer: ArrayWriter) -> Mapping[str, object]:
        M = len(dataset)
        pixels = writer.create("pixels", (M, 3, image_px, image_px), np.uint8)
        labels = writer.create("labels", (M,), np.int64)
        known = dataset[0].parts is not None
        parts = writer.create("parts", (M, image_px, image_px), np.uint8) if known else None
        ids = []
        for m in tqdm(range(M), desc="images", unit="image", delay=_BAR_AFTER_S, disable=not progress):
            sample = dataset[m]
            _check_sample(sample, len(dataset.classes), known)
            pixels[m] = _square(sample.image.transpose(2, 0, 1), image_px, InterpolationMode.BICUBIC)
            if parts is not None and sample.parts is not None:
                parts[m] = _square(sample.parts[None], image_px, InterpolationMode.NEAREST_EXACT)[0]
            labels[m] = sample.label
            ids.append(sample.id)
        if len(set(ids)) < M:
            raise DatasetError(f"{M} images share {len(set(ids))} ids: each needs its own")
        return {"ids": ids, "classes": list(dataset.classes)}

    key = {"version": 1, "dataset": dataset.fingerprint, "image_px": image_px}
    arrays, meta = cached_arrays("images", key, build, root=root)
    labels = np.array(arrays["labels"])
    return PackedImages(
        arrays["pixels"], labels, tuple(meta["ids"]), tuple(meta["classes"]), digest(key), arrays.get("parts")
    )


def _square(image: UInt8[np.ndarray, "c H W"], side_px: int, how: InterpolationMode) -> UInt8[np.ndarray, "c S S"]:
    H, W = image.shape[1:]
    side = min(H, W)
    top, left = (H - side) // 2, (W - side) // 2
    middle = torch.tensor(image[:, top : top + side, left : left + side])
    resized: torch.Tensor = transforms.resize(middle, [side_px, side_px], interpolation=how, antialias=True)
    return resized.numpy()


def _check_sample(sample: Sample, num_classes: int, parts_known: bool) -> None:
    H, W = sample.image.shape[:2]
    if sample.image.shape != (H, W, 3) or sample.image.dtype != np.uint8:
        raise DatasetError(f"{sample.id} is {sample.image.dtype} {sample.image.shape}, not uint8 (H, W, 3)")
    if min(H, W) < MIN_IMAGE_PX:
        raise DatasetError(f"{sample.id} is {W} x {H} px, too small to show a part: {MIN_IMAGE_PX} px is the least")
    if (sample.parts is not None) != parts_known or (sample.parts is not None and sample.parts.shape != (H, W)):
        raise DatasetError(f"{sample.id}: every image or none has a part mask, of the size of the image")
    _check_label(sample.label, num_classes, sample.id)


def _check_label(label: int, num_classes: int, name: str) -> None:
    if label != UNLABELLED and not 0 <= label < num_classes:
        raise DatasetError(f"{name} has label {label}: {num_classes} classes have labels 0..{num_classes - 1}")


@dataclass(frozen=True, eq=False)
class _Subset:
    dataset: ImageDataset
    indices: Sequence[int]

    @property
    def classes(self) -> Sequence[str]:
        return self.dataset.classes

    @property
    def fingerprint(self) -> str:
        return digest([self.dataset.fingerprint, self.indices])

    @property
    def labels(self) -> Int64[np.ndarray, " M"]:
        return labels_of(self.dataset)[self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[self.indices[index]]

    def __repr__(self) -> str:
        return f"{len(self)} of {self.dataset!r}"


def labels_of(dataset: ImageDataset) -> Int64[np.ndarray, " M"]:
    """Return all labels, from the data set's own ``labels`` where it has them, else by reading every sample."""
    known = getattr(dataset, "labels", None)
    return np.array([dataset[m].label for m in range(len(dataset))] if known is None else known, np.int64)


def subset(dataset: ImageDataset, indices: Sequence[int] | np.ndarray) -> ImageDataset:
    """Return some samples of a data set, by number or by a boolean mask; packed images stay packed.

    Raises:
        IndexError: an index is outside the data set.
    """
    if isinstance(dataset, PackedImages):
        return dataset.select(indices)
    return _Subset(dataset, _chosen(indices, len(dataset)).tolist())


def split(
    dataset: ImageDataset, fraction: float, seed: int, groups: Sequence[Hashable] | None = None
) -> tuple[ImageDataset, ImageDataset]:
    """Divide a data set at random into two.

    Without groups each class is divided alike. With groups, such as the video that each frame is from, a group goes to
    one side as a whole, so that near copies are never on both.

    Args:
        dataset: what to divide.
        fraction: share of the first part, between 0 and 1; both parts get at least one image or group.
        seed: the same seed divides alike.
        groups: a name for each sample, equal for those that belong together.

    Returns:
        The first part and the rest, each in the order of the data set.

    Raises:
        DatasetError: fewer than two images or groups, or not one group a sample.
        ValueError: the fraction is not between 0 and 1.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction={fraction}: must lie between 0 and 1")
    rng = np.random.default_rng(seed)
    if groups is None:
        labels = labels_of(dataset)
        first = np.concatenate([_draw(np.flatnonzero(labels == c), fraction, rng) for c in np.unique(labels)])
    else:
        if len(groups) != len(dataset):
            raise DatasetError(f"{len(groups)} groups for {len(dataset)} samples")
        number = {group: i for i, group in enumerate(dict.fromkeys(groups))}
        group_of = np.array([number[group] for group in groups])
        order = rng.permutation(len(number))
        filled = np.bincount(group_of)[order].cumsum()
        count = int(np.abs(filled - fraction * len(dataset)).argmin()) + 1
        first = np.flatnonzero(np.isin(group_of, order[: min(count, len(number) - 1)]))
    rest = np.setdiff1d(np.arange(len(dataset)), first)
    if len(first) == 0 or len(rest) == 0:
        raise DatasetError(
            f"{len(dataset)} images cannot be divided: two are needed, of two groups where there are groups"
        )
    return subset(dataset, np.sort(first)), subset(dataset, rest)


def _chosen(indices: Sequence[int] | np.ndarray, length: int) -> Int64[np.ndarray, " n"]:
    chosen: np.ndarray = np.arange(length)[np.asarray(indices, None if len(indices) else np.int64)]
    return chosen


def _draw(members: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    count = round(fraction * len(members))
    if len(members) > 1:
        count = min(max(count, 1), len(members) - 1)
    return rng.permutation(members)[:count]


def _named(classes: Sequence[str]) -> str:
    shown = ", ".join(classes[:4]) + (", ..." if len(classes) > 4 else "")
    return f"{len(classes)} classes: {shown}" if classes else "no classes"
