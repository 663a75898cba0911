"""Well-known data sets, through torchvision's own classes: Oxford-IIIT Pet, PASCAL VOC, CIFAR."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from prockd._types import ImageDataset
from prockd.datasets._common import DatasetError
from prockd.datasets.arrays import Arrays
from prockd.datasets.boxes import BoxDataset
from prockd.datasets.files import FileDataset
from prockd.datasets.masks import MaskDataset
from prockd.datasets.voc import read_voc

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

TRIMAP = {1: "pet", 2: "background", 3: "ignore"}
"""What the values of a trimap of Oxford-IIIT Pet mean; the border is not scored."""

_PET_FILES = "oxford-iiit-pet/images/*.jpg and oxford-iiit-pet/annotations/{trainval.txt, test.txt, trimaps/*.png}"
_VOC_FILES = (
    "VOCdevkit/VOC{year}/{{JPEGImages, Annotations, SegmentationClass, ImageSets/Main, ImageSets/Segmentation}}"
)


def oxford_pet(
    root: Path | str, subset: str = "trainval", *, task: str = "classification", download: bool = False
) -> ImageDataset:
    """Oxford-IIIT Pet: 37 breeds, or pet against background with the border ignored.

    Args:
        root: the folder that holds, or shall hold, ``oxford-iiit-pet``.
        subset: "trainval" or "test".
        task: "classification" or "segmentation".
        download: get 800 MB where they are missing.

    Raises:
        DatasetError: it is not there and cannot be downloaded; the message says where its files belong.
        ValueError: an unknown subset or task.
    """
    from torchvision.datasets import OxfordIIITPet

    _one_of("task", task, ("classification", "segmentation"))
    source = _opened(
        lambda: OxfordIIITPet(root, split=subset, download=download),
        "Oxford-IIIT Pet",
        Path(root),
        _PET_FILES,
        download,
    )
    folder = Path(root) / "oxford-iiit-pet"
    images = [Path(path) for path in source._images]
    if task == "classification":
        return FileDataset(folder, images, source.classes, labels=source._labels)
    return MaskDataset(folder, images, [Path(path) for path in source._segs], TRIMAP)


def pascal_voc(
    root: Path | str, subset: str = "train", *, task: str = "detection", year: str = "2012", download: bool = False
) -> ImageDataset:
    """PASCAL VOC: boxes of 20 classes, or their masks with the background.

    Args:
        root: the folder that holds, or shall hold, ``VOCdevkit``.
        subset: "train", "val" or "trainval"; "test" for 2007.
        task: "detection" or "segmentation".
        year: "2007" to "2012".
        download: get up to 2 GB where they are missing.

    Raises:
        DatasetError: it is not there and cannot be downloaded; the message says where its files belong.
        ValueError: an unknown subset, task or year.
    """
    from torchvision.datasets import VOCDetection, VOCSegmentation

    _one_of("task", task, ("detection", "segmentation"))
    kind = VOCDetection if task == "detection" else VOCSegmentation
    source = _opened(
        lambda: kind(root, year=year, image_set=subset, download=download),
        f"PASCAL VOC {year}", Path(root), _VOC_FILES.format(year=year), download,
    )  # fmt: skip
    images, targets = ([Path(path) for path in paths] for paths in (source.images, source.targets))
    if task == "detection":
        return BoxDataset(Path(root), images, [read_voc(path) for path in targets], VOC_CLASSES)
    return MaskDataset(Path(root), images, targets, dict(enumerate(("background", *VOC_CLASSES))))


def cifar(root: Path | str, subset: str = "train", *, num_classes: int = 10, download: bool = False) -> Arrays:
    """CIFAR-10 or CIFAR-100: photographs of 32 x 32 px.

    Args:
        root: the folder that holds, or shall hold, ``cifar-10-batches-py`` or ``cifar-100-python``.
        subset: "train" or "test".
        num_classes: 10 or 100.
        download: get 170 MB where they are missing.

    Raises:
        DatasetError: it is not there, damaged, or cannot be downloaded; the message says where its files belong.
        ValueError: an unknown subset or number of classes.
    """
    from torchvision.datasets import CIFAR10, CIFAR100

    _one_of("subset", subset, ("train", "test"))
    _one_of("num_classes", num_classes, (10, 100))
    kind, files = (CIFAR10, "cifar-10-batches-py/*") if num_classes == 10 else (CIFAR100, "cifar-100-python/*")
    source = _opened(
        lambda: kind(root, train=subset == "train", download=download),
        f"CIFAR-{num_classes}",
        Path(root),
        files,
        download,
    )
    return Arrays(np.asarray(source.data), source.targets, source.classes)


def known_sets(path: Path) -> dict[tuple[str, str], dict[str, Callable[..., ImageDataset]]]:
    """Which of these sets lie in a folder: by task and name, a function for each subset that opens it."""
    found: dict[tuple[str, str], dict[str, Callable[..., ImageDataset]]] = {}
    if (path / "oxford-iiit-pet").is_dir():
        for task in ("classification", "segmentation"):
            open_pet = partial(oxford_pet, path, task=task)
            found[task, "Oxford-IIIT Pet"] = {"train": _fixed(open_pet, "trainval"), "test": _fixed(open_pet, "test")}
    for year in sorted(path.glob("VOCdevkit/VOC20*"), reverse=True)[:1]:
        for task, lists in (("detection", "Main"), ("segmentation", "Segmentation")):
            open_voc = partial(pascal_voc, path, task=task, year=year.name[3:])
            subsets = [s for s in ("train", "val") if (year / "ImageSets" / lists / f"{s}.txt").is_file()]
            if subsets:
                found[task, "PASCAL VOC"] = {subset: _fixed(open_voc, subset) for subset in subsets}
    for name, num_classes in (("cifar-10-batches-py", 10), ("cifar-100-python", 100)):
        if (path / name).is_dir():
            open_cifar = partial(cifar, path, num_classes=num_classes)
            subsets = ["train", "test"]
            found["classification", f"CIFAR-{num_classes}"] = {s: _fixed(open_cifar, s) for s in subsets}
    return found


def _fixed(make: Callable[[str], ImageDataset], subset: str) -> Callable[..., ImageDataset]:
    """Opens one subset; the classes and groups of these sets are their own, whatever is asked for."""
    return lambda **_: make(subset)


def _opened(make: Callable[[], Any], name: str, root: Path, files: str, download: bool) -> Any:
    try:
        return make()
    except (OSError, RuntimeError, EOFError) as error:
        tried = f"could not be downloaded ({error})" if download else "is not there; download=True gets it"
        raise DatasetError(
            f"{name} {tried}. Without internet, put its files at {root}/{files}; "
            "or use Farmyard, which needs no download: prockd.Farmyard('target', 'train', 300)"
        ) from error


def _one_of(name: str, value: object, options: tuple[object, ...]) -> None:
    if value not in options:
        raise ValueError(f"{name}={value!r}: must be one of {', '.join(map(repr, options))}")
