"""What all formats that lie in files share: their options, reading one sample, telling everything wrong with it."""

import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypedDict, Unpack

import numpy as np

from prockd._types import UNLABELLED, Sample
from prockd.cache import digest
from prockd.datasets.problems import WHAT_TO_DO, DatasetError, Problem, class_list, counted, printable, refuse
from prockd.datasets.read import darkness, is_file, is_hidden, read_image, turn_of

SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
"""Names that folders and files of a split go by."""
_ANY_SET = {"set", "seg", "img", "imgs", "image", "images", "data"}  # words beside them: "seg_train", "test_set"
UNLABELLED_SPLIT = "unlabelled"
"""The name of a folder, beside those of the classes or splits, whose pictures have no label."""
WHOLE = "all"  # name of the only split of a data set that is not divided


class FormatOptions(TypedDict, total=False):
    """What every format of files takes beside its path and ``classes``.

    Attributes:
        group: regular expression that finds the group of an image (video, patient, farm) in its id, whole or by its
            first bracket: ``"(video[0-9]+)"``. Groups are never divided. None for what the format has as groups.
        on_bad: ``"refuse"`` raises when an entry belongs to no image (a line that cannot be used, a file without its
            partner, a class folder without pictures), ``"skip"`` leaves it out.
        from_train: the classes are those of a training set: a class folder without pictures is then fine, and one that
            is none of them is a bad entry. Other formats do not ask.
        white: level of white in pictures of 16 or 32 bits, see :func:`~prockd.datasets.read_image`; 0 for their range.
        exif: turn pictures as their EXIF says. False where boxes, masks or points were drawn on pictures as stored.
    """

    group: str | None
    on_bad: str
    from_train: bool
    white: int
    exif: bool


class FileDataset:
    """Images in files as a data set; a format adds what it reads beside the image in ``_annotation``.

    An image is decoded when it is asked for. A sample that cannot be used then raises; ``read`` gives all its problems.

    Attributes:
        root: the folder that ids are relative to.
        paths: M image files.
        ids: M unique names: the paths below ``root``, with ``/``.
        labels: (M,) class indices, or ``UNLABELLED``.
        groups: M names, equal for images that are near copies of each other (frames of a video); None if not known.
        flaws: entries that are no sample at all, and are left out (``on_bad="skip"``); notes among them are no reason
            to refuse.
        fingerprint: changes with names, sizes and dates of all files (``annotations`` too), arguments and ``key``.

    Raises:
        DatasetError: there are no images, one lies outside of ``root`` (by a link too), ``group`` finds nothing in an
            id, or there are flaws to be refused.
    """

    task: ClassVar[str] = "classification"
    threads: ClassVar[int] = min(8, os.cpu_count() or 1)  # that may read samples beside each other
    facts: str = ""  # what the repr says beside the counts of images and classes

    def __init__(
        self, root: Path, paths: Sequence[Path], classes: Sequence[str], *, labels: Sequence[int] | None = None,
        groups: Sequence[str] | None = None, annotations: Sequence[Path] = (), key: object = None,
        flaws: Sequence[Problem] = (), **options: Unpack[FormatOptions],
    ) -> None:  # fmt: skip
        refuse(flaws, str(root), options.get("on_bad", "refuse"))
        self.root, self.paths, self.flaws, self._classes = root, tuple(paths), tuple(flaws), tuple(classes)
        refuse_outside(root, self.paths)
        if not self.paths:
            raise DatasetError(f"{root} holds no images that can be used{f': {flaws[0]}' if flaws else ''}")
        self.annotation_files = tuple(annotations)
        self._white, self._exif = options.get("white", 0), options.get("exif", True)
        ids = ((p.relative_to(root) if p.is_relative_to(root) else p).as_posix() for p in self.paths)
        self.ids = tuple(map(printable, ids))
        self.labels = np.array([UNLABELLED] * len(self.paths) if labels is None else labels, np.int64)
        self.groups = None if groups is None else tuple(groups)
        if pattern := options.get("group"):
            try:
                matches = [re.search(pattern, id) for id in self.ids]
            except re.error as error:
                raise DatasetError(f"group={pattern!r} is no regular expression ({error})") from error
            if None in matches:
                id = self.ids[matches.index(None)]
                raise DatasetError(f"group={pattern!r} finds nothing in {id!r}: every image needs a group")
            self.groups = tuple(match[1] if match.re.groups else match[0] for match in matches if match)
        dates = [_date(path) for path in (*self.paths, *annotations)]
        read = {} if (self._white, self._exif) == (0, True) else {"white": self._white, "exif": self._exif}
        facts = [type(self).__name__, self._classes, self.labels.tolist(), self.ids, dates, key, *read.items()]
        self.fingerprint = digest(facts)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return self._classes

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        sample, problems = self.read(index)
        errors = [problem for problem in problems if not problem.note]
        if sample is None or errors:
            more = f" (and {len(errors) - 1} more problems of this image)" if len(errors) > 1 else ""
            raise DatasetError(f"{errors[0]}{more}. {WHAT_TO_DO}")
        return sample

    def read(self, index: int) -> tuple[Sample | None, list[Problem]]:
        """Return a sample, None when it cannot be made, and everything that is wrong with it."""
        path, image, problems = self.paths[index], None, []
        try:
            image = read_image(path, white=self._white, exif=self._exif)
            notes = darkness(path, image), self._turned(path) if self.task != "classification" and self._exif else ""
            problems += [Problem(str(path), "", note, note=True) for note in notes if note]
        except DatasetError as error:
            problems.append(Problem.of(path, error))
        fields, others = self._annotation(index, None if image is None else image.shape[:2])
        problems += others
        if image is None or any(not problem.note for problem in problems):
            return None, problems
        return Sample(image, int(self.labels[index]), self.ids[index], **fields), problems

    def notes(self) -> list[Problem]:
        """What was guessed about the data set as a whole."""
        return []

    def _turned(self, path: Path) -> str:
        """That a picture is turned by its EXIF, which annotations may have been drawn without, in words, or empty."""
        kind = {3: "upside down", 6: "on its side", 8: "on its side"}.get(turn := turn_of(path), "mirrored")
        drawn = {"segmentation": "its mask is", "detection": "its boxes are", "keypoints": "its points are"}[self.task]
        option = "if it was drawn on the pixels as stored, say exif=False (--set data.exif=false)"
        return "" if turn == 1 else f"is stored {kind} (EXIF), and {drawn} taken for the upright picture: {option}"

    def _annotation(self, index: int, size: tuple[int, ...] | None) -> tuple[Mapping[str, Any], list[Problem]]:
        """The other fields of a sample whose image has height and width ``size``, and what is wrong with them."""
        return {}, []

    def __repr__(self) -> str:
        groups = f", {len(set(self.groups))} groups" if self.groups else ""
        errors = sum(not flaw.note for flaw in self.flaws)
        bad = f", {counted(errors, 'bad entry', 'bad entries')} left out" if errors else ""
        counts = f"{len(self)} images, {class_list(self.classes)}"
        return f"{type(self).__name__}({str(self.root)!r}: {counts}{self.facts}{groups}{bad})"


def sub_folders(path: Path) -> list[Path]:
    """Folders in a folder, sorted, hidden ones and that of unlabelled pictures left out."""
    return sorted(p for p in path.iterdir() if p.is_dir() and not is_hidden(p.name) and not is_unlabelled(p))


def is_unlabelled(folder: Path) -> bool:
    """Whether a folder is named as that of pictures without a label, in any spelling."""
    return folder.name.lower() in (UNLABELLED_SPLIT, "unlabeled")


def by_split(paths: Sequence[Path], *, whole_name: bool = False) -> dict[str, Path]:
    """The paths that are named like a split: ``train``, ``val2017``, and among others ``instances_val2017.json``."""
    splits: dict[str, Path] = {}  # with whole_name, a name says nothing else: a class may be called "test tube"
    for split, names in SPLITS.items():
        for path in paths:
            words = {word for word in re.split(r"[^a-z]+", path.name.lower()) if word}
            if words & set(names) and (len(words - _ANY_SET) == 1 or not whole_name):
                splits.setdefault(split, path)
    return splits


def pair_by_stem(
    images: Sequence[Path], images_root: Path, others: Sequence[Path], others_root: Path, kind: str
) -> tuple[list[tuple[Path, Path]], list[Problem]]:
    """Each image with the file of the same path and stem, but for an ending as ``_mask``, and what is left over."""
    by_stem, by_key, used, pairs, flaws = dict[str, Path](), dict[str, Path](), set[Path](), [], []
    for other in others:
        stem = _stem(other, others_root)
        if by_stem.setdefault(stem, other) != other:
            flaws.append(Problem(str(other), "", f"a second {kind} of that name, beside {by_stem[stem].name}"))
        elif by_key.setdefault(_plain(stem), other) != other and _plain(stem) in by_stem:
            flaws.append(Problem(str(other), "", f"a second {kind} of that name, beside {by_key[_plain(stem)].name}"))
    for image in images:
        stem = _stem(image, images_root)
        if found := by_stem.get(stem) or by_key.get(_plain(stem)):
            pairs.append((image, found))
            used.add(found)
        else:
            flaws.append(Problem(str(image), "", f"no {kind}: looked for {Path(others_root, stem)}.*"))
    told = {str(flaw.file) for flaw in flaws}
    for path in (path for path in others if path not in used and str(path) not in told):
        looked = Path(images_root, _stem(path, others_root))
        flaws.append(Problem(str(path), "", f"{kind} without an image: looked for {looked}.*"))
    return pairs, flaws


def _plain(stem: str) -> str:
    """A stem without what says that it is a mask or an image: ``a_mask``, ``img_a``, ``a.jpg``, ``a_labelIds``."""
    folder, slash, name = stem.rpartition("/")
    name = re.sub(r"\.(jpe?g|png|tiff?|bmp)$", "", name, flags=re.IGNORECASE)
    name = re.sub(r"([_-](masks?|seg|labels?|gt|gtFine|labelIds|segmentation|img|image|rgb|leftImg8bit))+$", "", name)
    return folder + slash + re.sub(r"^(mask|label|seg|img|image)[_-]", "", name)


def file_below(root: Path, name: str) -> Path:
    r"""The file that a list calls by this name: as it stands, or as another system spells it.

    Windows has ``images\0.jpg``; and ü is one character or, as macOS has it, two.
    """
    plain = name.replace("\\", "/").removeprefix("./")
    spellings = [name, plain, *(unicodedata.normalize(form, plain) for form in ("NFC", "NFD"))]
    spellings += [plain + suffix for suffix in (".jpg", ".png", ".jpeg", ".tif")] if "." not in plain[-6:] else []
    return next((path for spelling in spellings if is_file(path := root / spelling)), root / name)


def pictures_root(path: Path, names: Sequence[str]) -> Path:
    """The first of the usual folders that holds most of the first images of a list; that of the list if none does."""
    ending, here, up = path.stem.rpartition("_")[2], path.parent, path.parent.parent
    places = [here, here / "images", up / "images", up / ending, up / "images" / ending, here / ending]
    return max(places, key=lambda place: sum(is_file(file_below(place, name)) for name in names[:20]))


def normal(text: str) -> str:
    """A name in the spelling that most systems use: macOS has ü as two characters."""
    return unicodedata.normalize("NFC", text)


def _stem(path: Path, root: Path) -> str:
    return normal(path.relative_to(root).with_suffix("").as_posix())


def _date(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except (OSError, ValueError):
        return None
    return stat.st_size, stat.st_mtime_ns


def refuse_outside(root: Path, paths: Sequence[Path]) -> None:
    """Refuse files that are not below a folder, whatever a list, a ``..`` or a link says; a DatasetError names one."""
    try:
        real, folders = os.path.realpath(root), dict[Path, str]()
        for path in paths:
            if path.parent not in folders:
                folders[path.parent] = os.path.realpath(path.parent)
            place = os.path.join(folders[path.parent], path.name)  # noqa: PTH118 - of many thousands of files
            if path.name == ".." or os.path.islink(place):  # noqa: PTH114
                place = os.path.realpath(path)
            if not place.startswith(os.path.join(real, "")):  # noqa: PTH118
                leads = f" (it leads to {place})" if place != os.fspath(path) else ""
                raise DatasetError(f"{path} lies outside of {root}{leads}: copy it there, no data set reads beyond it")
    except (OSError, ValueError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{root}: {str(path)!r} is no name of a file ({error})") from error
