"""Which of the known layouts a folder or file has, and its data sets."""

import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prockd._types import ImageDataset
from prockd.datasets._common import DatasetError
from prockd.datasets._table import read_table
from prockd.datasets.arrays import open_npz
from prockd.datasets.coco import CocoFile
from prockd.datasets.folder import ImageFolder, class_folders
from prockd.datasets.known import known_sets
from prockd.datasets.masks import MaskFolder, mask_places
from prockd.datasets.read import IMAGE_SUFFIXES, pictures
from prockd.datasets.table import PATH_COLUMNS, ImageTable
from prockd.datasets.voc import IMAGE_FOLDERS, XML_FOLDERS, VocFolder

LAYOUTS = (
    ("classification", "class folders", "cats/*.jpg, dogs/*.jpg: one folder a class"),
    ("classification", "image list", "labels.csv: path,label[,group]; or path,labels (a|b); or path and 0/1 columns"),
    ("classification", "arrays", "data.npz with images (M,H,W,3) and labels, or train_images, train_labels, test_..."),
    ("segmentation", "images and masks", "images/a.jpg, masks/a.png; video/frames, video/masks; train, trainannot"),
    ("detection", "PASCAL VOC", "images/a.jpg with annotations/a.xml"),
    ("detection", "COCO", "annotations/instances.json, or any .json with images, annotations, categories"),
    ("any", "torchvision's", "folders oxford-iiit-pet, VOCdevkit, cifar-10-batches-py or cifar-100-python"),
    ("none", "loose pictures", "*.jpg in the folder itself: unlabelled images"),
)  # fmt: skip
"""Task, name and looks of each layout; any of them may lie in folders ``train``, ``val`` and ``test``."""

SUBSETS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""Names that folders and files of a subset go by."""

WHOLE = "all"
"""Name of the only subset of a data set that is not divided."""

_IMAGES = ("images", "frames", "imgs", "img", "JPEGImages", "image")
_MASKS = ("masks", "mask", "labels", "annotations", "SegmentationClass", "annot", "gt")
_BESIDE = ("annot", "_annot", "_masks", "_mask", "_labels", "masks", "labels")


@dataclass(frozen=True)
class Found:
    """A layout that fits a place.

    Attributes:
        task: what can be learned from it.
        layout: its name, one of ``LAYOUTS``.
        open: makes the data set; takes ``classes``, ``group`` and ``on_bad``.
    """

    task: str
    layout: str
    open: Callable[..., ImageDataset]


def open_subsets(
    path: Path | str,
    *,
    task: str | None = None,
    classes: Sequence[str] | Mapping[int, str] | None = None,
    from_train: bool = False,
    group: str | None = None,
    on_bad: str = "refuse",
) -> dict[str, ImageDataset]:
    """Open a folder or file of any known layout, by its looks, with all its subsets.

    A file ``classes.txt`` in the folder lists class names, one a line, in label order (in the order of mask values,
    where the name ``ignore`` marks a value that is not scored). All subsets have the classes of ``train``.

    Args:
        path: the folder, or a CSV, JSON or NPZ file.
        task: "classification", "segmentation" or "detection"; None for the first layout that fits.
        classes: class names, as the layout takes them; None for ``classes.txt``, or else for what is found.
        from_train: the classes are those of a training set, so some may have no image here.
        group: regular expression that finds the group (video, patient, farm) of an image in its id.
        on_bad: ``"refuse"`` raises when there are entries that belong to no image, ``"skip"`` leaves them out.

    Returns:
        Data sets by the name of their subset: ``train``, ``val``, ``test``, or only ``all``.

    Raises:
        DatasetError: nothing is there, no layout fits (the message lists them), or entries are bad.
    """
    path = Path(path)
    found = find_layout(path, task)
    listed = path / "classes.txt"
    if classes is None and listed.is_file():
        classes = [line.strip() for line in listed.read_text("utf-8-sig").splitlines() if line.strip()]
    opened: dict[str, ImageDataset] = {}
    options: dict[str, Any] = {"classes": classes, "group": group, "on_bad": on_bad}
    for subset, place in found.items():
        if from_train and place.layout == "class folders":
            options["from_train"] = True
        first = opened[subset] = place.open(**options)
        if options["classes"] is None:
            options["classes"] = first.names if isinstance(first, MaskFolder) else tuple(first.classes) or None
            options |= {"from_train": True} if isinstance(first, ImageFolder) else {}
    return opened


def find_layout(path: Path, task: str | None = None) -> dict[str, Found]:
    """The layout of each subset, ``train`` first; one without subsets is named ``all``.

    Raises:
        DatasetError: the path does not exist, or nothing fits.
        ValueError: the task is unknown.
    """
    tasks = sorted({known for known, _, _ in LAYOUTS} - {"any", "none"})
    if task is not None and task not in tasks:
        raise ValueError(f"task={task!r}: must be one of {', '.join(tasks)}")
    if not path.exists():
        raise DatasetError(f"{path} does not exist")
    if path.suffix.lower() in (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz"):
        raise DatasetError(
            f"{path} is an archive: unpack it first with `prockd unpack {shlex.quote(str(path))} FOLDER`"
        )
    other: Found | None = None
    for subsets in _divisions(path):
        fits = all(task in (None, found.task) for found in subsets.values())
        if fits:
            first = next(iter(subsets.values()))
            if other is None or first.layout != "class folders":  # folders "images" and "masks" are no classes
                return subsets
        other = other or next(iter(subsets.values()))
    if other and other.task != "none":
        known = f"it looks like {other.layout}, for {other.task} (task={other.task!r}, --task {other.task})"
        raise DatasetError(f"{path} cannot be used for {task}: {known}. Layouts for {task}:\n{_looks(task)}")
    if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES:
        raise DatasetError(f"{path} is one picture: name the folder that holds them, {path.parent}")
    nothing = path.is_dir() and not pictures(path, "**/*")
    lacks = "holds no pictures" if nothing else "has no layout that is known"
    raise DatasetError(f"{path} {lacks}. Known layouts, each also below train, val and test:\n{_looks()}")


def _looks(task: str | None = None) -> str:
    return "\n".join(
        f"  {known:<15} {name:<17} {look}" for known, name, look in LAYOUTS if task in (None, known) or known == "any"
    )


def _divisions(path: Path) -> Iterator[dict[str, Found]]:
    """Every way to read a place, the most telling one first."""
    if path.is_file():
        yield from _of_file(path)
        return
    for (task, name), subsets in known_sets(path).items():
        yield {subset: Found(task, name, make) for subset, make in subsets.items()}
    for suffix in ("json", "csv", "npz"):
        files = sorted(p for folder in (path, path / "annotations") for p in folder.glob(f"*.{suffix}"))
        readable = {file: divisions for file in files if (divisions := _if_readable(file))}
        by_subset = {subset: readable[file][0][WHOLE] for subset, file in _by_subset(list(readable)).items()
                     if WHOLE in readable[file][0]}  # fmt: skip
        if len(by_subset) > 1:
            yield by_subset
        elif len(readable) == 1:
            yield next(iter(readable.values()))[0]
    beside = {}
    folders = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    for subset, folder in _by_subset(folders, words_only=True).items():
        masks = next(
            (f"{folder.name}{ending}" for ending in _BESIDE if (path / f"{folder.name}{ending}").is_dir()), None
        )
        if masks:
            beside[subset] = _masks(path, folder.name, masks)
    if beside:
        yield beside
    for images in _IMAGES:
        for masks in _MASKS:
            parts = _by_subset(sorted((path / images).glob("*/")), words_only=True) if (path / masks).is_dir() else {}
            inner = {s: p.name for s, p in parts.items() if pictures(path / masks / p.name, "**/*")}
            if inner:
                yield {s: _masks(path, f"{images}/{name}", f"{masks}/{name}") for s, name in inner.items()}
    below = _by_subset(folders, words_only=True)
    if "train" in below:
        options = {subset: list(_of_folder(folder)) for subset, folder in below.items()}
        a_class = any(pictures(folder, "*") for folder in folders if folder not in below.values())
        for first in options["train"]:
            if first.layout == "loose pictures" and a_class:
                continue  # "train" is a class among others
            alike = {s: next((f for f in found if f.layout == first.layout), None) for s, found in options.items()}
            yield {subset: found for subset, found in alike.items() if found}
    for found in _of_folder(path):
        yield {WHOLE: found}


def _if_readable(path: Path) -> list[dict[str, Found]]:
    """What a file beside the images is; nothing when it cannot be read, since it may be there for something else."""
    try:
        return list(_of_file(path))
    except DatasetError:
        return []


def _of_file(path: Path) -> Iterator[dict[str, Found]]:
    suffix = path.suffix.lower()
    if suffix == ".json" and _has_words(path, (b'"images"', b'"annotations"', b'"categories"')):
        yield {WHOLE: Found("detection", "COCO", lambda **options: CocoFile(path, **options))}
    elif suffix == ".csv":
        columns, _ = read_table(path)
        if set(columns) & set(PATH_COLUMNS):
            yield {WHOLE: Found("classification", "image list", lambda **options: ImageTable(path, **options))}
    elif suffix == ".npz":
        arrays = open_npz(path)
        yield {subset: Found("classification", "arrays", _already(dataset)) for subset, dataset in arrays.items()}


def _of_folder(path: Path) -> Iterator[Found]:
    """Every layout that fits an undivided folder."""
    has_xml = any(next((path / name).rglob("*.xml"), None) for name in XML_FOLDERS) or any(path.glob("*.xml"))
    if has_xml and (any((path / name).is_dir() for name in IMAGE_FOLDERS) or pictures(path, "*")):
        yield Found("detection", "PASCAL VOC", lambda **options: VocFolder(path, **options))
    for images in _IMAGES:
        for masks in _MASKS:
            try:
                places = mask_places(path, images, masks)
            except DatasetError:
                continue
            if any(pictures(path / place / masks, "**/*") for place in places):
                yield _masks(path, images, masks)
    folders = [name for name in class_folders(path) if pictures(path / name, "**/*")]
    if folders:
        yield Found("classification", "class folders", lambda **options: ImageFolder(path, **options))
    elif pictures(path, "*"):
        yield Found("none", "loose pictures", lambda **options: ImageFolder(path, **options))


def _masks(path: Path, images: str, masks: str) -> Found:
    def make(**options: Any) -> ImageDataset:
        return MaskFolder(path, images=images, masks=masks, **options)

    return Found("segmentation", "images and masks", make)


def _already(dataset: ImageDataset) -> Callable[..., ImageDataset]:
    def check(classes: Sequence[str] | None = None, **options: Any) -> ImageDataset:
        if classes is not None and tuple(classes) != tuple(dataset.classes):
            raise DatasetError(
                f"classes {', '.join(classes)} are asked for, and the arrays have {', '.join(dataset.classes)}"
            )
        return dataset

    return check


def _by_subset(paths: Sequence[Path], *, words_only: bool = False) -> dict[str, Path]:
    """The paths that are named like a subset: ``train``, ``val2017``, and among others ``instances_val2017.json``."""
    found: dict[str, Path] = {}
    for subset, names in SUBSETS.items():
        for path in paths:
            words = [word for word in re.split(r"[^a-z]+", path.name.lower()) if word]
            if set(words) & set(names) and (len(words) == 1 or not words_only):
                found.setdefault(subset, path)
    return found


def _has_words(path: Path, words: Sequence[bytes]) -> bool:
    content = path.read_bytes()
    return all(word in content for word in words)
