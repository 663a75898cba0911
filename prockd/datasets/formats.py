"""The formats in which images and labels lie in files: which of them a place has, and its data sets.

A new format is a file of its own, with a class that reads a path and a function that says whether a path has its form,
and one line in ``FORMATS``: opening, checking, messages and the table of :mod:`prockd.datasets` follow.
"""

import os
import shlex
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Unpack, cast

from prockd._types import ImageDataset
from prockd.datasets import torchvision_sets as sets
from prockd.datasets.arrays import npz_splits, open_npz
from prockd.datasets.boxes import VocFolder, is_voc
from prockd.datasets.coco import CocoFile, is_coco
from prockd.datasets.coco_points import CocoPoints, is_coco_points
from prockd.datasets.cvat import CvatFile, is_cvat
from prockd.datasets.deeplabcut import DeepLabCut, has_deeplabcut, is_deeplabcut
from prockd.datasets.files import (
    UNLABELLED_SPLIT,
    WHOLE,
    FileDataset,
    FormatOptions,
    by_split,
    is_unlabelled,
    sub_folders,
)
from prockd.datasets.folder import ImageFolder, UnlabelledFolder, has_class_folders
from prockd.datasets.keypoints import is_keypoints
from prockd.datasets.left_out import passed_pictures, unread_list
from prockd.datasets.masks import DIFFER, MaskFolder, differing_colours, mask_splits
from prockd.datasets.poses import PointTable, has_point_tables
from prockd.datasets.problems import DatasetError, Problem, grouped
from prockd.datasets.read import IMAGE_SUFFIXES, is_hidden, pictures
from prockd.datasets.table import ImageTable, lists_the_folder, table_splits
from prockd.datasets.torchvision_sets import Opener, cifar, oxford_pet, pascal_voc
from prockd.datasets.yolo import YoloFolder, yolo_splits
from prockd.untrusted import reading

TASKS = ("classification", "segmentation", "detection", "keypoints")


@dataclass(frozen=True)
class Format:
    """A way in which images and labels lie in files."""

    name: str  # what messages call it
    task: str  # what can be learned from it: one of TASKS, or "none" without labels
    looks: str  # an example, for messages and the documentation
    open: Callable[..., object]  # makes the data set of a path
    matches: Callable[[Path], bool] | None = None  # whether a folder has this form, or a file with the suffix
    suffix: str = ""  # of the file, for a format that is one file a split
    # For a format that divides itself, in place of ``matches``: what opens each split of a path.
    splits: Callable[[Path], Mapping[str, Opener]] | None = None
    speaks_for_folder: Callable[[Path], bool] = lambda _: True  # whether a file is of the folder it lies in

    def openers(self, path: Path) -> dict[str, Opener]:
        """What opens each split of a folder or file, ``train`` first; empty where it does not have this form."""
        if path.is_file():
            return self._at(path) if self.suffix and path.suffix.lower() == self.suffix else {}
        if not self.suffix:
            below = by_split(sub_folders(path), whole_name=True)
            divided = {s: places[WHOLE] for s, f in below.items() if WHOLE in (places := self._at(_inner(f)))}
            return divided if "train" in divided else self._at(path)
        at = self._files_in(path, path / "annotations", path / "annots")
        divided = {s: at[file][WHOLE] for s, file in by_split(list(at)).items() if WHOLE in at[file]}
        if len(divided) > 1 or at:
            return divided if len(divided) > 1 else next(iter(at.values())) if len(at) == 1 else {}
        below = by_split(sub_folders(path), whole_name=True)
        files = {split: list(self._files_in(folder).values()) for split, folder in below.items()}
        single = {split: each[0] for split, each in files.items() if len(each) == 1}
        return {s: places[WHOLE] for s, places in single.items() if WHOLE in places} if "train" in single else {}

    def _files_in(self, *folders: Path) -> dict[Path, dict[str, Opener]]:
        """The files of this form in some folders, and what opens their splits."""
        at: dict[Path, dict[str, Opener]] = {}
        for file in sorted(p for folder in folders for p in folder.glob(f"*{self.suffix}")):
            with suppress(DatasetError):  # a file beside the images may be there for something else
                at |= {file: places} if self.speaks_for_folder(file) and (places := self._at(file)) else {}
        return at

    def _at(self, path: Path) -> dict[str, Opener]:
        if self.splits:
            return dict(self.splits(path))
        return {WHOLE: cast(Opener, partial(self.open, path))} if self.matches and self.matches(path) else {}


FORMATS = (
    *(Format("Oxford-IIIT Pet", task, "oxford-iiit-pet, as torchvision lays it out", oxford_pet,
             splits=partial(sets.folder_splits, oxford_pet, "oxford-iiit-pet", "trainval", task=task))
      for task in ("classification", "segmentation")),
    *(Format("PASCAL VOC", task, "VOCdevkit, as torchvision lays it out", pascal_voc,
             splits=partial(sets.voc_splits, task=task)) for task in ("detection", "segmentation")),
    *(Format(f"CIFAR-{count}", "classification", f"{folder}, as torchvision lays it out", cifar,
             splits=partial(sets.folder_splits, cifar, folder, "train", num_classes=count))
      for count, folder in sets.CIFAR_FOLDERS.items()),
    Format("COCO key points", "keypoints", "annotations/person_keypoints.json, or any COCO .json with keypoints",
           CocoPoints, is_coco_points, suffix=".json"),
    Format("COCO", "detection", "annotations/instances.json, or any .json with images, annotations, categories",
           CocoFile, is_coco, suffix=".json"),
    Format("image list", "classification",
           "labels.csv: path,label[,group][,split]; or path,labels (a|b); or path and 0/1 columns",
           ImageTable, splits=table_splits, suffix=".csv", speaks_for_folder=lists_the_folder),
    Format("arrays", "classification",
           "data.npz: images (M,H,W,3), labels, class_names; or train_images, train_labels, test_...",
           open_npz, splits=npz_splits, suffix=".npz"),
    Format("CVAT", "detection", "annotations.xml of CVAT for images, beside images", CvatFile, is_cvat, suffix=".xml"),
    Format("PASCAL VOC", "detection", "images/a.jpg with annotations/a.xml", VocFolder, is_voc),
    Format("YOLO", "detection", "images/a.jpg, labels/a.txt, data.yaml; train/images, train/labels", YoloFolder,
           splits=yolo_splits),
    Format("images and masks", "segmentation",
           "images/a.jpg, masks/a.png; video/frames, video/masks; train, trainannot", MaskFolder, splits=mask_splits),
    Format("key points", "keypoints", "parts.csv: frame,joint_id,part,x_px,y_px,visible", PointTable, is_keypoints,
           suffix=".csv"),
    Format("key points", "keypoints", "cow/parts.csv, cow/frames/*.jpg: a folder a video", PointTable,
           has_point_tables),
    Format("DeepLabCut", "keypoints", "CollectedData_NAME.csv beside its pictures", DeepLabCut, is_deeplabcut,
           suffix=".csv"),
    Format("DeepLabCut", "keypoints", "labeled-data/VIDEO/CollectedData_NAME.csv", DeepLabCut, has_deeplabcut),
    Format("class folders", "classification", "cats/*.jpg, dogs/*.jpg: one folder a class",
           ImageFolder, has_class_folders),
    Format("loose pictures", "none", "*.jpg in the folder itself: unlabelled images",
           ImageFolder, lambda path: bool(pictures(path, "*"))),
)  # fmt: skip
"""Every format, the most telling one first; any of them may also lie in folders ``train``, ``val`` and ``test``."""


def format_list(task: str | None = None, *, openers: bool = False) -> str:
    """Task, name and looks of each format, or of those for one task, one a line; and what opens it if asked for."""
    rows = [f for wanted in (*TASKS, "none") for f in reversed(FORMATS) if f.task == wanted and task in (None, wanted)]
    functions = [f" ({getattr(f.open, '__name__', '')})" if openers else "" for f in rows]
    return "\n".join(f"  {f.task:<15} {f.name:<17} {f.looks}{end}" for f, end in zip(rows, functions, strict=True))


def classes_of(dataset: ImageDataset) -> Sequence[str] | Mapping[int, str]:
    """Class names as another folder is opened with them: of masks with the values that stand for them."""
    names: Mapping[int, str] | None = getattr(dataset, "names", None)
    return tuple(dataset.classes) if names is None else names


def open_splits(
    path: Path | str, *, task: str | None = None, classes: Sequence[str] | Mapping[int, str] | None = None,
    **options: Unpack[FormatOptions],
) -> dict[str, ImageDataset]:  # fmt: skip
    """Open a folder or file of any known format, by its looks, with all its splits.

    A file ``classes.txt`` in the folder lists class names, one a line, in label order (in the order of mask values,
    where the name ``ignore`` marks a value that is not scored). All splits have the classes of ``train``.

    Args:
        path: the folder, or one file of a format.
        task: one of :data:`TASKS`; None for the first format that fits.
        classes: class names, as the format takes them; None for ``classes.txt``, or else for what the files hold.
        options: ``group``, ``on_bad`` and more, see :class:`~prockd.datasets.files.FormatOptions`.

    Returns:
        Data sets by the name of their split: ``train``, ``val``, ``test``, or ``all`` where there are none, and
        ``unlabelled`` for the pictures at any depth of a folder of that name beside them.

    Raises:
        DatasetError: nothing is there, no format fits (the message lists them), or entries are bad.
    """
    _, splits = open_format(Path(path), task, classes, **options)
    if notes := grouped(passed_over(Path(path), splits)):
        warnings.warn("; ".join(notes), stacklevel=2)
    return splits


def open_format(
    path: Path, task: str | None = None, classes: Sequence[str] | Mapping[int, str] | None = None,
    **options: Unpack[FormatOptions],
) -> tuple[Format, dict[str, ImageDataset]]:  # fmt: skip
    """The format that fits, and the data sets of all splits: :func:`open_splits` without a word on what is left out."""
    format, openers = find_format(path, task)
    names = path / "classes.txt"
    if classes is None and names.is_file():
        with reading(names, "a list of classes", DatasetError, "save it as UTF-8, one name a line"):
            classes = [line.strip() for line in names.read_text("utf-8-sig").splitlines() if line.strip()]
    splits, asked = dict[str, ImageDataset](), classes
    for split, opener in openers.items():
        splits[split] = opener(classes=classes, **options)
        if classes is None:  # the other splits have those of the first
            named = splits[split].classes  # masks are read for them, and may be doubtful
            classes, options["from_train"] = classes_of(splits[split]) if named else None, True
    masks = {split: one.masks for split, one in splits.items() if isinstance(one, MaskFolder)}
    own = any(one.colours for one in splits.values() if isinstance(one, MaskFolder))
    if len(masks) > 1 and not own and (colours := differing_colours(list(chain(*masks.values())))):
        if asked is not None:
            raise DatasetError(f"{path}: {DIFFER}")
        return open_format(path, task, dict(enumerate(colours)), **options)
    if path.is_dir() and (more := next(filter(is_unlabelled, sorted(path.glob("*/"))), None)):
        splits[UNLABELLED_SPLIT] = UnlabelledFolder(more, **_of_pictures(options))
    return format, splits


def passed_over(path: Path, splits: Mapping[str, ImageDataset]) -> Iterator[Problem]:
    """What lies in a folder and is no part of its data sets: pictures, and lists that could have been read."""
    datasets = [dataset for dataset in splits.values() if isinstance(dataset, FileDataset)]
    if not path.is_dir() or not datasets:
        return
    used = {os.path.normpath(p) for dataset in datasets for p in (*dataset.paths, *dataset.annotation_files)}
    used |= {os.path.normpath(flaw.file) for dataset in datasets for flaw in dataset.flaws}
    if datasets[0].task == "keypoints":  # pictures without points are further images of the same animal
        used |= {os.path.normpath(p) for p in pictures(path)}
    yield from passed_pictures(path, used)
    loose = datasets[0].task == "classification" and not datasets[0].classes  # else labels were found
    for file in sorted(p for p in path.glob("*.*") if os.path.normpath(p) not in used and not is_hidden(p.name)):
        if loose and (told := unread_list(file)):
            yield Problem(str(file), "", f"is not read: {told}", note=True)
            continue
        with suppress(DatasetError):
            if like := next((f for f in FORMATS if f.suffix and f.task != "keypoints" and f.openers(file)), None):
                yield Problem(str(file), "", f"looks like {like.name} and is not read: name it to use it", note=True)


def _of_pictures(options: FormatOptions) -> FormatOptions:
    """The options that have a meaning where there are no labels."""
    return cast(FormatOptions, {name: options[name] for name in ("on_bad", "white", "exif") if name in options})


def open_unlabelled(path: Path | str, **options: Unpack[FormatOptions]) -> ImageDataset:
    """Open pictures whose labels are not asked for: all of a folder, or those of a file or of another known format.

    Raises:
        DatasetError: nothing is there, or no picture is.
    """
    path = Path(path)
    if path.is_dir():
        fitting = [format for format in FORMATS if format.openers(path)]
        if not fitting or fitting[0].open is ImageFolder:  # folders are no classes here
            return UnlabelledFolder(path, **options)
    return next(iter(open_splits(path, **options).values()))


def _inner(folder: Path) -> Path:
    """The folder itself, or what it holds under its own name alone, as some archives do: test_set/test_set."""
    there = [p for p in folder.iterdir() if not is_hidden(p.name)]
    return there[0] if [p.name for p in there] == [folder.name] and there[0].is_dir() else folder


def _own_folder(path: Path) -> Path | None:
    """The folder that an archive has for itself: it is all there is, and holds folders and no pictures of its own."""
    there = [p for p in path.iterdir() if not is_hidden(p.name)]
    if len(there) != 1 or not there[0].is_dir() or by_split(there, whole_name=True):
        return None
    return there[0] if sub_folders(there[0]) and not pictures(there[0], "*") else None


def find_format(path: Path, task: str | None = None) -> tuple[Format, dict[str, Opener]]:
    """The first format that fits a place and a task, and what opens each split there; an error where none does."""
    if task is not None and task not in TASKS:
        raise ValueError(f"task={task!r}: must be one of {', '.join(sorted(TASKS))}")
    if not path.exists():
        raise DatasetError(f"{path} does not exist")
    if path.suffix.lower() in (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz"):
        command = f"prockd unpack {shlex.quote(str(path))} FOLDER"
        raise DatasetError(f"{path} is an archive: unpack it first with `{command}`")
    other: Format | None = None  # fits the place and not the task
    for format in FORMATS:
        openers = format.openers(path)
        # Any two folders with pictures look like classes, also the folders "images" and "masks" of another format.
        if openers and format.name == "class folders" and (inside := _own_folder(path)):
            return find_format(inside, task)
        if openers and task in (None, format.task) and (other is None or format.name != "class folders"):
            return format, openers
        other = other or (format if openers else None)
    if other and other.task != "none":
        looks = f"it looks like {other.name}, for {other.task} (task={other.task!r}, --task {other.task})"
        raise DatasetError(f"{path} cannot be used for {task}: {looks}. Layouts for {task}:\n{format_list(task)}")
    if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES:
        raise DatasetError(f"{path} is one picture: name the folder that holds them, {path.parent}")
    lacks = "holds no pictures" if path.is_dir() and not pictures(path) else "has no layout that is known"
    raise DatasetError(f"{path} {lacks}. Known layouts, each also below train, val and test:\n{format_list()}")
