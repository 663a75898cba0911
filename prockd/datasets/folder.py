"""A folder of pictures: one sub-folder a class."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from prockd._types import UNLABELLED
from prockd.datasets._common import DatasetError, Problem
from prockd.datasets.files import FileDataset
from prockd.datasets.read import IMAGE_SUFFIXES, pictures


class ImageFolder(FileDataset):
    """Pictures in a folder: one sub-folder a class, or all in the folder itself and unlabelled.

    Labels follow the sorted names of the sub-folders. Hidden files and folders are left out, and so are links to the
    folder itself or above it; sub-folders of a class folder belong to the class.

    Args:
        root: the folder.
        classes: the class sub-folders to use, in label order; None for all of them. For a folder without sub-folders,
            the names of the classes that the pictures may belong to.
        from_train: the classes are those of a training set: a class without pictures is then fine, and a folder that is
            none of them is a bad entry.
        group: regular expression that finds the group of an image in its id (``"(video[0-9]+)"``); its groups are then
            known to :func:`split`.
        on_bad: ``"refuse"`` raises when a class folder holds no picture, ``"skip"`` leaves the class without pictures.

    Raises:
        DatasetError: the folder is missing, or it or a class folder holds no picture, or an image has no group.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        classes: Sequence[str] | None = None,
        from_train: bool = False,
        group: str | None = None,
        on_bad: str = "refuse",
    ) -> None:
        root = Path(root)
        if not root.is_dir():
            raise DatasetError(f"{root} is not a folder")
        folders = class_folders(root)
        loose = pictures(root, "*")
        names = folders if classes is None else list(classes)
        flaws: list[Problem] = []
        if folders:
            if loose:
                warnings.warn(f"{len(loose)} images beside the class folders of {root} are left out", stacklevel=2)
            files = [(path, label) for label, name in enumerate(names) for path in pictures(root / name, "**/*")]
            empty = sorted(set(range(len(names))) - {label for _, label in files})
            if from_train:
                beyond = [(name, len(pictures(root / name, "**/*"))) for name in folders if name not in names]
                text = "train has no class of that name: its {} images are left out"
                flaws = [Problem(str(root), f"class folder {name}", text.format(num)) for name, num in beyond]
            else:
                text = "holds no images: remove it, or list the other classes in classes.txt"
                flaws = [Problem(str(root), f"class folder {names[label]}", text) for label in empty]
        else:
            files = [(path, UNLABELLED) for path in loose]
        if not files and not flaws:
            wanted = " ".join(sorted(IMAGE_SUFFIXES))
            raise DatasetError(f"{root} holds no images: looked for {wanted} in it and in its class sub-folders")
        paths, labels = [path for path, _ in files], [label for _, label in files]
        super().__init__(root, paths, names, labels=labels, group=group, flaws=flaws, on_bad=on_bad)


def class_folders(root: Path) -> list[str]:
    """Names of the sub-folders, sorted; hidden ones and links that lead back to the folder or above it are left out."""
    real = Path(os.path.realpath(root))
    found = [p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")]
    return sorted(p.name for p in found if not real.is_relative_to(os.path.realpath(p)))
