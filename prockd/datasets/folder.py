"""A folder of pictures: one sub-folder a class."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from prockd._types import UNLABELLED
from prockd.datasets.files import FileDataset, FormatOptions, by_split, normal, sub_folders
from prockd.datasets.problems import DatasetError, Problem
from prockd.datasets.read import IMAGE_SUFFIXES, pictures


class ImageFolder(FileDataset):
    """Pictures in a folder: one sub-folder a class, or all in the folder itself and unlabelled.

    Labels follow the sorted names of the sub-folders. Hidden files and folders are left out, and so are links to the
    folder itself or above it; sub-folders of a class folder belong to the class.

    Example:
        >>> import os, tempfile, PIL.Image
        >>> with tempfile.TemporaryDirectory() as photos:
        ...     os.mkdir(f"{photos}/cat")
        ...     PIL.Image.new("RGB", (32, 24)).save(f"{photos}/cat/a.png")
        ...     ImageFolder(photos)[0].id, ImageFolder(photos).classes
        ('cat/a.png', ('cat',))

    Args:
        root: the folder.
        classes: the class sub-folders to use, in label order; None for all of them. For a folder without sub-folders,
            the names of the classes that the pictures may belong to.
        options: ``group``, ``on_bad`` and ``from_train``, see :class:`~prockd.datasets.files.FormatOptions`.

    Raises:
        DatasetError: the folder is missing, or it or a class folder holds no picture, or an image has no group.
    """

    def __init__(
        self, root: Path | str, *, classes: Sequence[str] | None = None, **options: Unpack[FormatOptions]
    ) -> None:
        root = Path(root)
        if not root.is_dir():
            raise DatasetError(f"{root} is not a folder")
        folders, loose = class_folders(root), pictures(root, "*")
        names = list(folders) if classes is None else list(classes)
        files, flaws = [(path, UNLABELLED) for path in loose], list[Problem]()
        if folders:
            places = [folders.get(normal(name), [root / name]) for name in names]
            files = [(p, label) for label, place in enumerate(places) for one in place for p in pictures(one)]
            empty = [names[label] for label in sorted(set(range(len(names))) - {label for _, label in files})]
            text = dict.fromkeys(empty, "holds no images: remove it, or list the other classes in classes.txt")
            if options.get("from_train"):
                known = set(map(normal, names))
                beyond = {n: sum(len(pictures(one)) for one in place) for n, place in folders.items() if n not in known}
                text = {n: f"train has no class of that name: its {m} images are left out" for n, m in beyond.items()}
            flaws = [Problem(str(root), f"class folder {name}", flaw) for name, flaw in text.items()]
        if not files and not flaws:
            wanted = " ".join(sorted(IMAGE_SUFFIXES))
            raise DatasetError(f"{root} holds no images: looked for {wanted} in it and in its class sub-folders")
        paths, labels = [path for path, _ in files], [label for _, label in files]
        super().__init__(root, paths, names, labels=labels, flaws=flaws, **options)


class UnlabelledFolder(FileDataset):
    """All pictures of a folder, at any depth and whatever the folders are called: none has a label.

    >>> import os, tempfile, PIL.Image
    >>> with tempfile.TemporaryDirectory() as photos:
    ...     os.makedirs(f"{photos}/june/farm")
    ...     PIL.Image.new("RGB", (32, 24)).save(f"{photos}/june/farm/a.png")
    ...     UnlabelledFolder(photos).ids, UnlabelledFolder(photos)[0].label
    (('june/farm/a.png',), -1)

    DatasetError where the folder is missing or holds no picture.
    """

    def __init__(self, root: Path | str, **options: Unpack[FormatOptions]) -> None:
        root = Path(root)
        if not root.is_dir():
            raise DatasetError(f"{root} is not a folder")
        if not (paths := pictures(root)):
            wanted = " ".join(sorted(IMAGE_SUFFIXES))
            raise DatasetError(f"{root} holds no images, looked for {wanted} at any depth: put some in, or remove it")
        super().__init__(root, paths, (), **options)


def class_folders(root: Path) -> dict[str, list[Path]]:
    """Sub-folders by name, sorted, ü in one spelling; links back to the folder or above it are left out."""
    real, found = Path(os.path.realpath(root)), dict[str, list[Path]]()
    for folder in sub_folders(root):
        if not real.is_relative_to(os.path.realpath(folder)):
            found.setdefault(normal(folder.name), []).append(folder)
    return found


def has_class_folders(path: Path) -> bool:
    """Whether a folder is divided into classes, and not into splits of loose pictures."""
    folders = [folder for some in class_folders(path).values() for folder in some]
    splits = by_split(folders, whole_name=True)
    if "train" in splits and pictures(splits["train"], "*"):  # else "train" may be a class beside others
        return any(pictures(folder, "*") for folder in folders if folder not in splits.values())
    return any(map(pictures, folders))
