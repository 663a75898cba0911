"""Pictures with a mask each: what segmentation learns."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8, UInt16
from tqdm.auto import tqdm

from prockd._types import IGNORE
from prockd.datasets._common import DatasetError, Problem
from prockd.datasets.files import FileDataset, pair_by_stem
from prockd.datasets.read import pictures, read_mask

IGNORED_CLASS = "ignore"
"""The name that marks a value of a mask as belonging to no class: such pixels become ``IGNORE``."""

_LOSSY = {".jpg", ".jpeg"}
_MOST_CLASSES = 255
_MOST_VALUE = 65535
_BAR_AFTER_S = 2.0


class MaskDataset(FileDataset):
    """Pictures with a mask each, wherever they lie.

    Args:
        root: the folder that ids are relative to.
        paths: M image files.
        masks: M mask files.
        classes: class names by the value that stands for them in the masks, see :class:`MaskFolder`.
        options: what :class:`FileDataset` takes: groups, flaws, ...
    """

    task = "segmentation"

    def __init__(
        self,
        root: Path,
        paths: Sequence[Path],
        masks: Sequence[Path],
        classes: Sequence[str] | Mapping[int, str] | None = None,
        **options: Any,
    ) -> None:
        self.masks = tuple(masks)
        self._given = None if classes is None else _by_value(classes)
        key = self._given and list(self._given.items())
        super().__init__(root, paths, (), annotations=self.masks, key=key, **options)

    @cached_property
    def names(self) -> dict[int, str]:
        """Class name by the value that stands for it in the masks; ``"ignore"`` for no class."""
        if self._given is not None:
            return self._given
        values: set[int] = set()
        for path in tqdm(self.masks, desc="values of masks", unit="mask", delay=_BAR_AFTER_S):
            try:
                values |= set(_values(read_mask(path)))
            except DatasetError:
                continue  # told when the sample is read
        if values - {IGNORE} <= {0, 1} or values <= {0, IGNORE}:
            return {value: "background" if value == 0 else "object" for value in _two(values)} | _ignored(values)
        if len(values) > _MOST_CLASSES:
            raise DatasetError(
                f"the masks of {self.root} hold {len(values)} values: a class has one value, so list `classes` by value"
            )
        return {value: str(value) for value in sorted(values - {IGNORE})} | {IGNORE: IGNORED_CLASS}

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of their values."""
        return tuple(dict.fromkeys(name for name in self.names.values() if name != IGNORED_CLASS))

    def _known(self, index: int, size: tuple[int, ...] | None) -> tuple[Mapping[str, Any], list[Problem]]:
        path = self.masks[index]
        try:
            levels = read_mask(path)
        except DatasetError as error:
            return {}, [Problem(str(path), "", str(error).removeprefix(f"{path} "))]
        problems = []
        if size is not None and levels.shape != size:
            (H, W), (h, w) = size, levels.shape
            problems.append(Problem(str(path), "", f"is {w} x {h} px and its image {W} x {H} px: both need one size"))
        values = _values(levels)
        undeclared = [value for value in values if value not in self.names]
        if undeclared:
            told = ", ".join(map(str, undeclared[:5])) + (", ..." if len(undeclared) > 5 else "")
            declared = ", ".join(map(str, list(self.names)[:12])) + (", ..." if len(self.names) > 12 else "")
            text = (
                f"holds {told}, and the classes have the values {declared}: mend it, or name the value in classes.txt"
            )
            problems.append(Problem(str(path), "", text))
        if problems:
            return {}, problems
        if all(self.names[value] == IGNORED_CLASS for value in values):
            problems.append(Problem(str(path), "", "every pixel is ignored", note=True))
        return {"mask": self._indices(levels)}, problems

    def _indices(self, levels: UInt16[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
        index = {name: i for i, name in enumerate(self.classes)} | {IGNORED_CLASS: IGNORE}
        lookup = np.full(max(self.names) + 1, IGNORE, np.uint8)
        for value, name in self.names.items():
            lookup[value] = index[name]
        found: np.ndarray = lookup[levels]  # (H, W)
        return found


class MaskFolder(MaskDataset):
    """Pictures in one folder and their masks, of the same name, in another: semantic segmentation.

    A mask is a picture file whose pixels are class numbers: a palette, 1-bit, 8-bit or 16-bit grey PNG, TIFF or BMP of
    the size of the upright image. Where the folder itself has no image folder, its sub-folders are taken one by one
    (``cows/frames``, ``cows/masks``, ``goat/frames``, ...), and each is a group. Images in sub-folders of the image
    folder have those as groups.

    Args:
        root: the folder that holds both.
        images: path of the image folder below ``root``, or below each of its sub-folders.
        masks: the same for the masks.
        classes: class names by the value that stands for them: a list (value 0 first) or ``{0: "sky", 255: "plane"}``.
            Values of one name are one class, and the name ``"ignore"`` marks pixels that are not scored; 255 is ignored
            where it has no name. None finds the values by reading all masks once, when the classes are first asked for;
            masks of 0 and 1 or of 0 and 255 are then "background" and "object", others are named by their number.
        group: regular expression that finds the group of an image in its id; None as described above.
        on_bad: ``"refuse"`` raises when an image or a mask has no partner, ``"skip"`` leaves it out.

    Raises:
        DatasetError: a folder is missing or holds no picture, or partners are missing (with ``"refuse"``).
    """

    def __init__(
        self,
        root: Path | str,
        *,
        images: str = "images",
        masks: str = "masks",
        classes: Sequence[str] | Mapping[int, str] | None = None,
        group: str | None = None,
        on_bad: str = "refuse",
    ) -> None:
        root = Path(root)
        paths, groups, found = [], [], []
        flaws: list[Problem] = []
        for name in mask_places(root, images, masks):
            place = root / name / images
            pairs, unpaired = pair_by_stem(
                pictures(place, "**/*"), place, pictures(root / name / masks, "**/*"), root / name / masks, "mask"
            )
            flaws += unpaired
            for image, mask in pairs:
                if mask.suffix.lower() in _LOSSY:
                    flaws.append(Problem(str(mask), "", "JPEG does not keep class numbers: store masks as PNG"))
                    continue
                paths.append(image)
                found.append(mask)
                groups.append(name or image.parent.relative_to(place).as_posix())
        several = groups if len(set(groups)) > 1 else None
        super().__init__(root, paths, found, classes, groups=several, group=group, flaws=flaws, on_bad=on_bad)


def mask_places(root: Path, images: str, masks: str) -> list[str]:
    """Where below ``root`` the image and mask folders are: ``""`` for root itself, else names of sub-folders.

    Raises:
        DatasetError: nowhere.
    """
    if (root / images).is_dir() and (root / masks).is_dir():
        return [""]
    below = sorted(root.iterdir()) if root.is_dir() else []
    places = [p.name for p in below if (p / images).is_dir() and (p / masks).is_dir() and not p.name.startswith(".")]
    if not places:
        raise DatasetError(f"{root} has no folders {images} and {masks}, and no sub-folder has both")
    return places


def _values(levels: UInt16[np.ndarray, "H W"]) -> list[int]:
    return [int(value) for value in np.flatnonzero(np.bincount(levels.ravel()))]


def _by_value(classes: Sequence[str] | Mapping[int, str]) -> dict[int, str]:
    pairs = classes.items() if isinstance(classes, Mapping) else enumerate(classes)
    names = dict(sorted(pairs))
    names.setdefault(IGNORE, IGNORED_CLASS)
    count = len(set(names.values()) - {IGNORED_CLASS})
    if not 1 <= count <= _MOST_CLASSES:
        raise DatasetError(f"{count} classes: a mask tells 1 to {_MOST_CLASSES} apart")
    if not 0 <= min(names) <= max(names) <= _MOST_VALUE:
        raise DatasetError(f"classes have the values {min(names)}..{max(names)}, and a mask holds 0..{_MOST_VALUE}")
    return names


def _two(values: set[int]) -> list[int]:
    return [0, IGNORE] if 1 not in values and IGNORE in values else [0, 1]


def _ignored(values: set[int]) -> dict[int, str]:
    return {} if IGNORE in _two(values) else {IGNORE: IGNORED_CLASS}
