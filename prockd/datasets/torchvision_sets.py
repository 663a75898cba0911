"""Well-known data sets, through torchvision's own classes: Oxford-IIIT Pet, PASCAL VOC, CIFAR."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from torchvision import datasets as theirs

from prockd._types import ImageDataset
from prockd.datasets.arrays import Arrays
from prockd.datasets.boxes import BoxDataset, read_voc
from prockd.datasets.files import FileDataset
from prockd.datasets.masks import MaskDataset
from prockd.datasets.problems import DatasetError

Opener = Callable[..., ImageDataset]  # makes a data set; takes ``classes`` and FormatOptions
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

CIFAR_FOLDERS = {10: "cifar-10-batches-py", 100: "cifar-100-python"}  # by the number of classes


def oxford_pet(
    root: Path | str, split: str = "trainval", *, task: str = "classification", download: bool = False
) -> ImageDataset:
    """Oxford-IIIT Pet: 37 breeds, or pet against background with the border ignored.

    Args:
        root: the folder that holds, or shall hold, ``oxford-iiit-pet``.
        split: "trainval" or "test".
        task: "classification" or "segmentation".
        download: get 800 MB where they are missing.

    Raises:
        DatasetError: it is not there and cannot be downloaded; the message says where its files belong.
    """
    _one_of("task", task, ("classification", "segmentation"))
    files = "oxford-iiit-pet/images/*.jpg and oxford-iiit-pet/annotations/{trainval.txt, test.txt, trimaps/*.png}"
    source = _opened(theirs.OxfordIIITPet, "Oxford-IIIT Pet", root, files, split=split, download=download)
    folder = Path(root) / "oxford-iiit-pet"
    lines = [line.split() for line in (folder / "annotations" / f"{split}.txt").read_text().splitlines()]
    images = [folder / "images" / f"{name}.jpg" for name, *_ in lines]
    if task == "classification":
        return FileDataset(folder, images, source.classes, labels=[int(breed) - 1 for _, breed, *_ in lines])
    trimaps = [folder / "annotations" / "trimaps" / f"{name}.png" for name, *_ in lines]
    return MaskDataset(folder, images, trimaps, {1: "pet", 2: "background", 3: "ignore"})  # 3 is the border


def pascal_voc(
    root: Path | str, split: str = "train", *, task: str = "detection", year: str = "2012", download: bool = False
) -> ImageDataset:
    """PASCAL VOC: boxes of 20 classes, or their masks with the background.

    Args:
        root: the folder that holds, or shall hold, ``VOCdevkit``.
        split: "train", "val" or "trainval"; "test" for 2007.
        task: "detection" or "segmentation".
        year: "2007" to "2012".
        download: get up to 2 GB where they are missing.

    Raises:
        DatasetError: as of :func:`oxford_pet`.
    """
    _one_of("task", task, ("detection", "segmentation"))
    kind = theirs.VOCDetection if task == "detection" else theirs.VOCSegmentation
    files = f"VOCdevkit/VOC{year}/" + "{JPEGImages, Annotations, SegmentationClass, ImageSets/Main and /Segmentation}"
    source = _opened(kind, f"PASCAL VOC {year}", root, files, year=year, image_set=split, download=download)
    images, targets = ([Path(path) for path in paths] for paths in (source.images, source.targets))
    if task == "detection":
        return BoxDataset(Path(root), images, [read_voc(path) for path in targets], VOC_CLASSES)
    return MaskDataset(Path(root), images, targets, ("background", *VOC_CLASSES))


def cifar(root: Path | str, split: str = "train", *, num_classes: int = 10, download: bool = False) -> Arrays:
    """CIFAR-10 or CIFAR-100: photographs of 32 x 32 px.

    Args:
        root: the folder that holds, or shall hold, ``cifar-10-batches-py`` or ``cifar-100-python``.
        split: "train" or "test".
        num_classes: 10 or 100.
        download: get 170 MB where they are missing.

    Raises:
        DatasetError: as of :func:`oxford_pet`.
    """
    _one_of("split", split, ("train", "test"))
    _one_of("num_classes", num_classes, CIFAR_FOLDERS)
    kind, files = theirs.CIFAR10 if num_classes == 10 else theirs.CIFAR100, f"{CIFAR_FOLDERS[num_classes]}/*"
    source = _opened(kind, f"CIFAR-{num_classes}", root, files, train=split == "train", download=download)
    return Arrays(np.asarray(source.data), source.targets, source.classes)


def folder_splits(open_set: Opener, folder: str, train: str, path: Path, **how: Any) -> dict[str, Opener]:
    """What opens each split of a set, of which ``train`` is the first, where its folder lies in another."""
    return _openers(open_set, path, {"train": train, "test": "test"} if (path / folder).is_dir() else {}, **how)


def voc_splits(path: Path, task: str) -> dict[str, Opener]:
    """What opens each split of the latest year of PASCAL VOC, where it lies in a folder."""
    years = sorted(path.glob("VOCdevkit/VOC20*"))
    lists = years[-1] / "ImageSets" / ("Main" if task == "detection" else "Segmentation") if years else path
    splits = {split: split for split in ("train", "val") if years and (lists / f"{split}.txt").is_file()}
    return _openers(pascal_voc, path, splits, task=task, year=years[-1].name[3:] if years else "")


def _openers(open_set: Opener, path: Path, splits: dict[str, str], **how: Any) -> dict[str, Opener]:
    """The classes and groups of these sets are their own, whatever is asked for."""
    return {name: lambda split=split, **_: open_set(path, split, **how) for name, split in splits.items()}


def _opened(kind: Callable[..., Any], name: str, root: Path | str, files: str, **how: Any) -> Any:
    try:
        return kind(root, **how)
    except (OSError, RuntimeError, EOFError) as error:
        problem = f"could not be downloaded ({error})" if how["download"] else "is not there; download=True gets it"
        raise DatasetError(
            f"{name} {problem}. Without internet, put its files at {root}/{files}; "
            "or use Farmyard, which needs no download: prockd.Farmyard('target', 'train', 300)"
        ) from error


def _one_of(name: str, value: object, options: Iterable[object]) -> None:
    if value not in options:
        raise ValueError(f"{name}={value!r}: must be one of {', '.join(map(repr, options))}")
