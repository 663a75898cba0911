"""Images in memory."""

import hashlib
import math
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from prockd._types import Sample
from prockd.cache import digest
from prockd.datasets.files import SPLITS, WHOLE
from prockd.datasets.problems import DatasetError, class_list, label_flaw
from prockd.untrusted import ALWAYS_ALLOWED, MAX_RATIO, RefusedError, reading

_MAX_CLASSES = 65_536


class Arrays:
    """Images in memory as a data set.

    Example:
        >>> import numpy as np
        >>> Arrays(np.zeros((3, 32, 32, 3), np.uint8), labels=[0, 1, 1], classes=["cat", "dog"])
        Arrays(3 images of 32 x 32 px, 2 classes: cat, dog)

    Args:
        images: (M, H, W, 3) uint8 RGB.
        labels: (M,) class indices 0..C-1, or ``UNLABELLED``.
        classes: C class names in label order.
        ids: M unique names; None for their numbers.

    Raises:
        DatasetError: a wrong shape or dtype, or a label that names no class.
    """

    def __init__(
        self, images: np.ndarray, labels: np.ndarray | Sequence[int], classes: Sequence[str],
        ids: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or len(images) == 0:
            raise DatasetError(f"images are {images.dtype} {images.shape}, not uint8 (M, H, W, 3) with M > 0")
        self.images = images
        self.labels = np.asarray(labels, np.int64)
        self.classes = tuple(classes)
        self.ids = tuple(map(str, range(len(images)) if ids is None else ids))
        if self.labels.shape != (len(images),) or len(self.ids) != len(images):
            raise DatasetError(f"{len(images)} images with labels {self.labels.shape} and {len(self.ids)} ids")
        for index, label in enumerate(self.labels.tolist()):
            if flaw := label_flaw(label, len(self.classes)):
                raise DatasetError(f"image {index} ({self.ids[index]}) {flaw}")
        pixels = hashlib.sha256(images.tobytes()).hexdigest()
        self.fingerprint = digest(["arrays", images.shape, pixels, self.labels.tolist(), self.classes, self.ids])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.images[index], int(self.labels[index]), self.ids[index])

    def __repr__(self) -> str:
        M, H, W, _ = self.images.shape
        return f"Arrays({M} images of {W} x {H} px, {class_list(self.classes)})"


def open_npz(path: Path | str) -> dict[str, Arrays]:
    """Read an NPZ file of arrays: ``images`` and ``labels``, or those of ``train``, ``val`` and ``test``.

    ``class_names`` or ``classes`` (C,) names the classes; without it they are named by their number. Arrays of a split
    have its name in front: ``train_images``, ``train_labels``.

    The answer is by the name of the split, ``all`` for one without; DatasetError where the file cannot be read, holds
    pickled objects, or lacks the arrays.
    """
    advice = "save it again with numpy.savez, without objects"
    with reading(path, "an NPZ file of images and labels", DatasetError, advice):
        _check_headers(Path(path))
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        names, splits = arrays.get("class_names", arrays.get("classes")), {}
        for split, prefix in (*((split, f"{split}_") for split in SPLITS), (WHOLE, "")):
            images, labels = arrays.get(f"{prefix}images"), arrays.get(f"{prefix}labels")
            if images is not None and labels is not None:
                try:
                    splits[split] = Arrays(images, _numbers(labels), _class_names(names, labels))
                except DatasetError as error:
                    raise DatasetError(f"{path}, {split}: {error}") from error
    if not splits:
        has = ", ".join(arrays)
        raise DatasetError(f"{path} has no images and labels, or train_images and train_labels; it has {has}")
    return splits


def _check_headers(path: Path) -> None:
    """Read what the arrays of an NPZ file claim to be, before memory is taken for them; RefusedError for a bomb."""
    total, allowed = 0, max(ALWAYS_ALLOWED, MAX_RATIO * path.stat().st_size)
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            total += info.file_size
            if not info.filename.endswith(".npy"):  # numpy gives its bytes as they are
                continue
            with archive.open(info) as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
            size = math.prod(shape) * dtype.itemsize
            if dtype.hasobject:
                raise RefusedError(f"{info.filename} holds pickled objects")
            if size > info.file_size:
                raise RefusedError(f"{info.filename} claims {size} bytes and has {info.file_size}")
            if total > allowed:
                raise RefusedError(f"{info.filename} takes it beyond {MAX_RATIO} times its size: it looks like a bomb")


def _numbers(labels: np.ndarray) -> np.ndarray:
    """Labels as a row of whole numbers, or a DatasetError."""
    whole = labels.dtype.kind in "iu" or (labels.dtype.kind == "f" and bool((labels == np.rint(labels)).all()))
    if not whole or labels.size == 0 or not -1 <= labels.min() <= labels.max() < _MAX_CLASSES:
        ends = f", {labels.min()}..{labels.max()}" if labels.dtype.kind in "iuf" and labels.size else ""
        raise DatasetError(f"labels are {labels.dtype} {labels.shape}{ends}, not whole numbers below {_MAX_CLASSES}")
    return labels.ravel().astype(np.int64)


def _class_names(names: np.ndarray | None, labels: np.ndarray) -> list[str]:
    """The names of the classes, by default their numbers; or a DatasetError."""
    if names is None:
        return [str(number) for number in range(int(_numbers(labels).max()) + 1)]
    if names.ndim != 1 or names.dtype.kind not in "USiu" or len(names) > _MAX_CLASSES:
        raise DatasetError(f"class names are {names.dtype} {names.shape}, not a row of texts")
    return [name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in names.tolist()]


def npz_splits(path: Path) -> dict[str, Callable[..., Arrays]]:
    """What opens each split of an NPZ file."""
    return {split: partial(_with_classes, dataset) for split, dataset in open_npz(path).items()}


def _with_classes(dataset: Arrays, classes: Sequence[str] | None = None, **_: object) -> Arrays:
    if classes is not None and tuple(classes) != dataset.classes:
        asked, own = ", ".join(classes), ", ".join(dataset.classes)
        raise DatasetError(f"classes {asked} are asked for, and the arrays have {own}")
    return dataset
