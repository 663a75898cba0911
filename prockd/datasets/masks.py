"""Pictures with a mask each: what segmentation learns."""

import itertools
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from tqdm.auto import tqdm

from prockd._types import IGNORE
from prockd.datasets.files import WHOLE, FileDataset, FormatOptions, by_split, pair_by_stem, refuse_outside, sub_folders
from prockd.datasets.problems import DatasetError, Problem, listed, values_of
from prockd.datasets.read import MAX_MASK_VALUE, is_in_alpha, pictures, read_colours, read_mask, read_palette
from prockd.untrusted import reading

IGNORED_CLASS = "ignore"  # marks a value of a mask as belonging to no class: such pixels become IGNORE
_MAX_CLASSES = 255
_IMAGES = ("images", "frames", "imgs", "img", "JPEGImages", "image", "Images", "leftImg8bit")
_MASKS = ("masks", "mask", "labels", "label", "annotations", "Annotations", "SegmentationClass", "annot", "annots",
          "segmentation", "segmentations", "gt", "ground_truth", "Masks", "Labels", "gtFine")  # fmt: skip
_NO_MASKS = ("_gtFine_color", "_gtFine_instanceIds")  # what Cityscapes has beside them
_COLOUR_LISTS = ("labelmap.txt", "label_colors.txt", "class_dict.csv")
DIFFER = (
    f"palettes of its masks list the same colours in another order, so that a value says nothing of a class: name the "
    f"colours in {_COLOUR_LISTS[0]} (name:red,green,blue), in place of values"
)
_BESIDE = ("labels", "masks", "_labels", "_mask", "_masks", "_annot", "annot")  # of several, the last


class MaskDataset(FileDataset):
    """Pictures with a mask each, wherever they lie: M ``paths`` and M ``masks``, with :class:`MaskFolder`'s classes."""

    task = "segmentation"

    def __init__(
        self, root: Path, paths: Sequence[Path], masks: Sequence[Path],
        classes: Sequence[str] | Mapping[int, str] | None = None, **options: Any,
    ) -> None:  # fmt: skip
        self.masks = tuple(masks)
        refuse_outside(root, self.masks)
        listed_colours = _listed_colours(root)
        if classes is None and listed_colours:
            classes = dict(enumerate(dict.fromkeys(listed_colours.values())))
        self._declared = None if classes is None else _by_value(classes)
        value_of = {name: value for value, name in (self._declared or {}).items()}
        self._listed = {colour: value_of[name] for colour, name in listed_colours.items() if name in value_of}
        key = self._declared and [list(self._declared.items()), *self._listed.items()]
        super().__init__(root, paths, (), annotations=self.masks, key=key, **options)

    @cached_property
    def names(self) -> dict[int, str]:
        """Class name by the value that stands for it in the masks; ``"ignore"`` for no class."""
        if self._declared is not None:
            return self._declared
        if self.colours:
            return {value: colour for colour, value in self.colours.items()} | {IGNORE: IGNORED_CLASS}
        counts = self._pixels
        values = set(counts)
        # Programs that write one object use 0 and 255, where 255 is the object; beside a 1, 255 is a border as in VOC.
        if values <= {0, IGNORE} and IGNORE in values:
            return {0: "background", IGNORE: "object"}
        if values <= {0, 1, IGNORE}:
            return {0: "background", 1: "object", IGNORE: IGNORED_CLASS}
        if flaw := _smoothed(counts):
            raise DatasetError(f"the masks of {self.root} {flaw}")
        if len(values) > _MAX_CLASSES:
            advice = "a class has one value, so list `classes` by value"
            raise DatasetError(f"the masks of {self.root} hold {len(values)} values: {advice}")
        named = {value: str(value) for value in sorted(values - {IGNORE})}
        return named | {IGNORE: str(IGNORE) if _evenly_spaced(values) else IGNORED_CLASS}

    @cached_property
    def _pixels(self) -> dict[int, int]:
        """How many pixels of all masks have each value."""
        counts: Counter[int] = Counter()
        for path in tqdm(self.masks, desc="values of masks", unit="mask", delay=2.0):
            with suppress(DatasetError):  # a problem of its sample, when that is read
                levels = self._levels(path)
                counts += Counter(dict(zip(*(v.tolist() for v in np.unique(levels, return_counts=True)), strict=True)))
        return dict(counts)

    @cached_property
    def colours(self) -> dict[str, int]:
        """The value of each colour (``#ff8800``) where the palettes of the masks differ in order; else nothing.

        The colours are the classes then, numbered in their own order, black first: another split has the same ones.
        """
        if self._listed:
            return self._listed
        found, declared = differing_colours(self.masks), list((self._declared or {}).values())
        names = [name for name in declared if name.startswith("#")]
        if found and declared and not names:
            raise DatasetError(f"{self.root}: {DIFFER}")
        return {colour: n for n, colour in enumerate(names or found)}

    def _levels(self, path: Path) -> np.ndarray:
        """The numbers of a mask (H, W); those of its colours where palettes differ."""
        if not self.colours or not (self._listed or read_palette(path)):
            return read_mask(path)
        codes, lookup = read_colours(path), {int(colour[1:], 16): value for colour, value in self.colours.items()}
        there, places = np.unique(codes, return_inverse=True)
        if unknown := [f"#{code:06x}" for code in there.tolist() if code not in lookup]:
            if read_palette(path) is None and all(code % 0x010101 == 0 for code in there.tolist()):
                return read_mask(path)  # grey: numbers, whatever colours are listed
            known = listed(self.colours, 12)
            raise DatasetError(f"{path} holds the colour {unknown[0]}, and the classes are the colours {known}")
        return np.array([lookup[code] for code in there.tolist()], np.uint16)[places.reshape(codes.shape)]

    def notes(self) -> list[Problem]:
        """How values were read that could be read otherwise."""
        folder, texts = os.path.commonpath(self.masks), list[str]()
        if self.colours and not self._listed:
            pairs = ", ".join(f"{number} {colour}" for colour, number in self.colours.items())
            texts.append(f"its palettes list the same colours in another order: the colours are the classes ({pairs})")
        if alpha := sum(map(is_in_alpha, self.masks)):
            texts.append(f"{alpha} masks are one colour all over: their transparency is taken for the mask")
        if self._declared is None:
            hidden = self._pixels.get(IGNORE, 0) / max(1, sum(self._pixels.values()))
            example = ",".join(f"{v}:{v}" for v in sorted(self._pixels))
            if _evenly_spaced(set(self._pixels)):
                text = f"{listed(sorted(self._pixels))} are evenly spaced grey levels, so {IGNORE} is taken for a class"
                texts.append(f"{text}; if it is not one, say data.classes={example.removesuffix(str(IGNORE))}ignore")
            elif self.names.get(IGNORE) == IGNORED_CLASS and hidden > 0.3:
                text = f"{hidden:.0%} of the pixels have the value {IGNORE} and are ignored"
                texts.append(f"{text}; if it is a class, say data.classes={example}")
        return [Problem(folder, "", text, note=True) for text in texts]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of their values."""
        return tuple(dict.fromkeys(name for name in self.names.values() if name != IGNORED_CLASS))

    def _annotation(self, index: int, size: tuple[int, ...] | None) -> tuple[Mapping[str, Any], list[Problem]]:
        path, problems = self.masks[index], list[Problem]()
        try:
            levels = self._levels(path)
        except DatasetError as error:
            return {}, [Problem.of(path, error)]
        if size is not None and levels.shape != size:
            (H, W), (h, w) = size, levels.shape
            problems.append(Problem(str(path), "", f"is {w} x {h} px and its image {W} x {H} px: both need one size"))
        values = values_of(levels)
        if undeclared := [value for value in values if value not in self.names]:
            text = f"holds {listed(undeclared)}, and the classes have the values {listed(self.names, 12)}"
            problems.append(Problem(str(path), "", f"{text}: mend it, or name the value in classes.txt"))
        if problems:
            return {}, problems
        if all(self.names[value] == IGNORED_CLASS for value in values):
            problems.append(Problem(str(path), "", "every pixel is ignored", note=True))
        index_of = {name: i for i, name in enumerate(self.classes)} | {IGNORED_CLASS: IGNORE}
        lookup = np.full(max(self.names) + 1, IGNORE, np.uint8)  # from the value in the file to the class index
        for value, name in self.names.items():
            lookup[value] = index_of[name]
        return {"mask": lookup[levels]}, problems


def differing_colours(masks: Sequence[Path]) -> list[str]:
    """The colours (``#ff8800``) that masks show, black first, where a colour has another number in some; else none."""
    palettes: dict[tuple[str, ...], list[Path]] = {}
    for path in masks:
        with suppress(DatasetError):
            palettes.setdefault(tuple(read_palette(path) or ()), []).append(path)
    numbers: dict[str, set[int]] = {}  # of each colour that is seen
    for palette, paths in palettes.items() if len(palettes) > 1 else ():
        for path in paths if palette else ():
            with suppress(DatasetError, IndexError):
                for value in values_of(read_mask(path)):
                    numbers.setdefault(palette[value], set()).add(value)
    return sorted(numbers) if max(map(len, numbers.values()), default=0) > 1 else []


def _listed_colours(root: Path) -> dict[str, str]:
    """Class name by colour (``#ff8800``), where a file beside the masks lists them as CVAT or CamVid do."""
    path = next((p for f in (root, root.parent) for name in _COLOUR_LISTS if (p := f / name).is_file()), None)
    found: dict[str, str] = {}
    with reading(path or root, "a list of colours", DatasetError, "write name:red,green,blue in each line"):
        for line in path.read_text("utf-8-sig").splitlines() if path else ():
            numbers = re.search(r"(\d{1,3})[,\s]+(\d{1,3})[,\s]+(\d{1,3})(?!\d)", line)
            name = line.partition(":")[0] if ":" in line else re.sub(r"[\d,\s]+", " ", line)
            if numbers and name.strip() and not line.startswith("#"):
                red, green, blue = (min(255, int(text)) for text in numbers.groups())
                found.setdefault(f"#{red:02x}{green:02x}{blue:02x}", name.strip())
    return found


def _evenly_spaced(values: Collection[int]) -> bool:
    """Whether values look like classes spread over the grey levels (0, 127, 255), of which 255 is one as the others."""
    levels, steps = np.array(sorted(values)), np.linspace(0, IGNORE, len(values))
    return 3 <= len(values) <= 18 and bool((np.abs(levels - steps) <= 1).all())


def _smoothed(counts: Mapping[int, int]) -> str:
    """That masks look drawn with smooth edges, or resized: two or three levels, and a few pixels of many between."""
    total = sum(counts.values())
    main = sorted(value for value, count in counts.items() if count >= 0.02 * total)
    between = len(counts) - len(main)
    if not 2 <= len(main) <= 3 or between < 8 or main[-1] - main[0] < 64:
        return ""
    low, high = main[0], main[-1]
    ranges = f"0-{(low + high) // 2}:background,{(low + high) // 2 + 1}-{IGNORE}:object"
    text = f"hold {listed(main)} and a few pixels of {between} values between: their edges are smoothed, or JPEG's"
    return f"{text}. Store them without, or say what counts: --set data.classes={ranges} (classes.txt takes it too)"


class MaskFolder(MaskDataset):
    """Pictures in one folder and their masks, of the same name, in another: semantic segmentation.

    A mask is a picture file whose pixels are class numbers: a palette, 1-bit, 8-bit or 16-bit grey PNG, TIFF or BMP of
    the size of the upright image. Where the folder itself has no image folder, its sub-folders are taken one by one
    (``cows/frames``, ``cows/masks``, ...), and each is a group, as sub-folders of the image folder are.

    Args:
        root: the folder that holds both.
        images: path of the image folder below ``root``, or below each of its sub-folders.
        masks: the same for the masks.
        classes: class names by the value that stands for them: a list (value 0 first) or ``{0: "sky", 255: "plane"}``.
            Values of one name are one class, and the name ``"ignore"`` marks pixels that are not scored; 255 is ignored
            where it has no name. Names may say their values, ``["0-127:sky", "128-255:plane"]``.
            ``labelmap.txt`` (CVAT: ``name:255,0,0``), ``label_colors.txt`` or ``class_dict.csv`` names colours.
            None finds the values by reading all masks once, when the classes are first asked for; masks of 0 and 1
            or of 0 and 255 are then "background" and "object", others are named by their number.
        options: ``group`` and ``on_bad``, see :class:`~prockd.datasets.files.FormatOptions`.

    Raises:
        DatasetError: a folder is missing or holds no picture, or partners are missing (with ``"refuse"``).
    """

    def __init__(
        self, root: Path | str, *, images: str = "images", masks: str = "masks",
        classes: Sequence[str] | Mapping[int, str] | None = None, **options: Unpack[FormatOptions],
    ) -> None:  # fmt: skip
        root, flaws, files = Path(root), list[Problem](), list[tuple[Path, Path, str]]()
        if not (places := _places(root, images, masks)):
            raise DatasetError(f"{root} has no folders {images} and {masks}, and no sub-folder has both")
        for name in places:
            folder, others = root / name / images, root / name / masks
            mask_files = [p for p in pictures(others) if not p.stem.endswith(_NO_MASKS)]
            pairs, unpaired = pair_by_stem(pictures(folder), folder, mask_files, others, "mask")
            flaws += unpaired
            for image, mask in pairs:
                if mask.suffix.lower() in (".jpg", ".jpeg"):
                    flaws.append(Problem(str(mask), "", "JPEG does not keep class numbers: store masks as PNG"))
                else:
                    files.append((image, mask, name or image.parent.relative_to(folder).as_posix()))
        groups = [group for *_, group in files]
        several = groups if len(set(groups)) > 1 else None
        paths, mask_paths = [path for path, *_ in files], [mask for _, mask, _ in files]
        super().__init__(root, paths, mask_paths, classes, groups=several, flaws=flaws, **options)


def mask_splits(path: Path) -> dict[str, partial[MaskFolder]]:
    """What opens each split of images and masks: ``train`` and ``trainannot``, ``images/train``, or undivided."""
    names = {split: folder.name for split, folder in by_split(sub_folders(path), whole_name=True).items()}
    ways = [{s: (name, name + end) for s, name in names.items() for end in _BESIDE if (path / (name + end)).is_dir()}]
    for images in _IMAGES:
        inside = by_split(sorted((path / images).glob("*/")), whole_name=True)
        for masks in _MASKS:
            both = {split: p.name for split, p in inside.items() if pictures(path / masks / p.name)}
            ways.append({split: (f"{images}/{name}", f"{masks}/{name}") for split, name in both.items()})
    for images, masks in itertools.product(_IMAGES, _MASKS):
        if any(pictures(path / place / masks) for place in _places(path, images, masks)):
            ways.append({WHOLE: (images, masks)})
    places = next(filter(None, ways), {})
    return {split: partial(MaskFolder, path, images=images, masks=masks) for split, (images, masks) in places.items()}


def _places(root: Path, images: str, masks: str) -> list[str]:
    """Where below ``root`` the image and mask folders are: ``""`` for root itself, else names of sub-folders."""
    if (root / images).is_dir() and (root / masks).is_dir():
        return [""]
    below = sub_folders(root) if root.is_dir() else []
    return [p.name for p in below if (p / images).is_dir() and (p / masks).is_dir()]


def _by_value(classes: Sequence[str] | Mapping[int, str]) -> dict[int, str]:
    pairs = classes.items() if isinstance(classes, Mapping) else _said_values(classes)
    names = dict(sorted(pairs))
    names.setdefault(IGNORE, IGNORED_CLASS)
    count = len(set(names.values()) - {IGNORED_CLASS})
    if not 1 <= count <= _MAX_CLASSES:
        raise DatasetError(f"{count} classes: a mask tells 1 to {_MAX_CLASSES} apart")
    if not 0 <= min(names) <= max(names) <= MAX_MASK_VALUE:
        raise DatasetError(f"classes have the values {min(names)}..{max(names)}, and a mask holds 0..{MAX_MASK_VALUE}")
    return names


def _said_values(classes: Sequence[str]) -> Iterable[tuple[int, str]]:
    """Values and names of ``["0-127:sky", "255:plane"]``, or of names alone, which are numbered from 0."""
    matches = [re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?\s*:\s*(.+)", name) for name in classes]
    if not all(matches):
        return enumerate(classes)
    return [(v, m[3]) for m in matches if m for v in range(int(m[1]), int(m[2] or m[1]) + 1)]
