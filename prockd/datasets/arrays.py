"""Images in memory."""

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from prockd._types import Sample
from prockd.cache import digest
from prockd.datasets._common import DatasetError, check_label, named


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
            check_label(int(label), len(self.classes), f"image {index} ({self.ids[index]})")
        pixels = hashlib.sha256(images.tobytes()).hexdigest()
        self.fingerprint = digest(["arrays", images.shape, pixels, self.labels.tolist(), self.classes, self.ids])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.images[index], int(self.labels[index]), self.ids[index])

    def __repr__(self) -> str:
        M, H, W, _ = self.images.shape
        return f"Arrays({M} images of {W} x {H} px, {named(self.classes)})"


def open_npz(path: Path | str) -> dict[str, Arrays]:
    """Read an NPZ file of arrays: ``images`` and ``labels``, or those of ``train``, ``val`` and ``test``.

    ``class_names`` or ``classes`` (C,) names the classes; without it they are named by their number. Arrays of a subset
    have its name in front: ``train_images``, ``train_labels``.

    Returns:
        Data sets by the name of their subset; one without subsets is named ``all``.

    Raises:
        DatasetError: the file cannot be read, holds pickled objects, or lacks the arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path} cannot be read as NPZ without pickled objects ({error})") from error
    named_classes = arrays.get("class_names", arrays.get("classes"))
    found = {}
    for subset in ("train", "val", "test", ""):
        images, labels = (arrays.get(f"{subset}_{what}".lstrip("_")) for what in ("images", "labels"))
        if images is not None and labels is not None:
            most = int(labels.max(initial=-1)) if named_classes is None else 0
            classes = range(most + 1) if named_classes is None else named_classes.tolist()
            try:
                found[subset or "all"] = Arrays(images, labels.ravel(), [str(name) for name in classes])
            except DatasetError as error:
                raise DatasetError(f"{path}, {subset or 'all'}: {error}") from error
    if not found:
        raise DatasetError(
            f"{path} has no images and labels, or train_images and train_labels; it has {', '.join(arrays)}"
        )
    return found
