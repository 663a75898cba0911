"""Reading a data set once, and every problem of it in one table."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from prockd._types import IGNORE, UNLABELLED, ImageDataset, Sample
from prockd.datasets.files import WHOLE, FileDataset
from prockd.datasets.formats import find_layout
from prockd.datasets.keypoints import check_keypoints, is_keypoints
from prockd.datasets.problems import DatasetError, Problem, class_list, counted, sample_problems, values_of
from prockd.datasets.read import IMAGE_SUFFIXES

MAX_ROWS = 40
"""Rows that a :class:`DataCheck` prints; ``rows()`` has all."""

_OTHER_SUFFIXES = {".gif", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".svg", ".psd", ".raw", ".dng", ".cr2", ".nef",
                   ".arw", ".ppm", ".pgm", ".tga", ".exr", ".hdr", ".ico", ".dcm", ".jfif"}  # fmt: skip
_NEEDED = {"classification": "a class", "segmentation": "a mask", "detection": "boxes"}


@dataclass(frozen=True, eq=False)
class DataCheck:
    """What is wrong with a data set; prints as a table.

    Attributes:
        name: what was checked.
        layout: what it was taken for, in words.
        counts: images by split.
        problems: all of them, in the order of the data.
        bad: by the fingerprint of each split, the numbers of the samples that cannot be used.
        twins: the same for good samples whose file is that of an earlier one of the same split.
    """

    name: str
    layout: str
    counts: Mapping[str, int]
    problems: tuple[Problem, ...]
    bad: Mapping[str, Sequence[int]] = field(default_factory=dict)
    twins: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @property
    def errors(self) -> tuple[Problem, ...]:
        """Problems that training cannot go on with."""
        return tuple(problem for problem in self.problems if not problem.note)

    @property
    def notes(self) -> tuple[Problem, ...]:
        """What is worth knowing, and no reason to stop."""
        return tuple(problem for problem in self.problems if problem.note)

    @property
    def ok(self) -> bool:
        """True when there is no error."""
        return not self.errors

    def rows(self) -> list[dict[str, str]]:
        """All problems as rows of a table: kind, file, entry, problem."""
        return [
            {
                "kind": "note" if problem.note else "error",
                "file": "" if problem.file == self.name else problem.file.removeprefix(f"{self.name}{os.sep}"),
                "entry": problem.entry,
                "problem": problem.text.replace(f"{self.name}{os.sep}", ""),
            }
            for problem in self.problems
        ]

    def __repr__(self) -> str:
        images = ", ".join(f"{count} images" + (f" in {s}" if s != WHOLE else "") for s, count in self.counts.items())
        verdict = f"{counted(len(self.errors), 'error')}, {counted(len(self.notes), 'note')}"
        bad = sum(map(len, self.bad.values()))
        unusable = f"; {counted(bad, 'image')} cannot be used" if bad else ""
        verdict = verdict if self.problems else "nothing is wrong"
        lines = [f"{self.name}: {self.layout}", f"{images or 'no images'}: {verdict}{unusable}"]
        rows = sorted(self.rows(), key=lambda row: row["kind"])  # errors first
        widths = {key: max((len(r[key]) for r in rows[:MAX_ROWS]), default=0) for key in ("kind", "file", "entry")}
        for row in rows[:MAX_ROWS]:
            cells = [row[key].ljust(width) for key, width in widths.items() if width]
            lines.append("  ".join(["", *cells, row["problem"]]))
        if len(rows) > MAX_ROWS:
            lines.append(f"  ... and {len(rows) - MAX_ROWS} more: rows(), or prockd check-data --all, has them")
        if bad:
            lines.append("Mend them, or train without them: on_bad='skip' (--set data.on_bad=skip) leaves them out.")
        return "\n".join(lines)


def check_data(
    data: Path | str | ImageDataset | Mapping[str, ImageDataset],
    *,
    task: str | None = None,
    classes: Sequence[str] | Mapping[int, str] | None = None,
    progress: bool = True,
) -> DataCheck:
    """Read everything once and list every problem, instead of stopping at the first.

    Errors are images that cannot be read or are too small or too large, masks of another size or with values that no
    class has, boxes without area, with swapped corners or outside the image, broken annotation files, entries that
    belong to no image, the same file in two splits or of two classes, and classes in ``val`` or ``test`` that
    ``train`` lacks. Notes are images without objects or label, the same file twice in a split, and files that are left
    out.

    Example:
        >>> import numpy as np
        >>> from prockd.datasets import Arrays
        >>> pixels = np.zeros((3, 6, 9, 3), np.uint8)
        >>> check_data(Arrays(pixels[:1], labels=[0], classes=["cat", "dog"]), progress=False).errors[0].text
        'is 9 x 6 px, too small to show a part: 8 px is the least'

    Args:
        data: a folder or file of any format that :func:`open_data` knows, a data set, or data sets by split.
        task: "classification", "segmentation" or "detection"; None for what the format is for.
        classes: class names of a folder or file, as :func:`open_data` takes them.
        progress: show a progress bar.
    """
    problems: list[Problem] = []
    if isinstance(data, Path | str):
        path, name = Path(data), str(data).rstrip(os.sep)
        if path.suffix.lower() == ".csv" and is_keypoints(path):
            count, problems = check_keypoints(path)
            return DataCheck(name, "looks like key points", {WHOLE: count}, tuple(problems))
        try:
            found = find_layout(path, task)
            splits = found.open(classes=classes, on_bad="skip")
        except DatasetError as error:
            return DataCheck(name, "cannot be opened", {}, (Problem.of(name, error),))
        task = task or found.format.task
        layout = f"looks like {found.format.name}" + (f", for {task}" if task != "none" else "")
        if path.is_dir():
            problems += _left_out(path)
            for table in sorted(table for table in path.rglob("*.csv") if is_keypoints(table)):
                problems += check_keypoints(table)[1]
    else:
        splits = dict(data) if isinstance(data, Mapping) else {WHOLE: data}
        name, first = (repr(data) if len(splits) == 1 else ", ".join(splits)), next(iter(splits.values()))
        task = task or getattr(first, "task", None) or _task_of(first)
        layout = f"data set for {task}"
    classes = tuple(next(iter(splits.values())).classes)
    reading = _Reading(task, problems)
    with tqdm(total=sum(map(len, splits.values())), desc="checking", unit="image", disable=not progress) as bar:
        for split, dataset in splits.items():
            reading.read_split(split, dataset, bar)
    reading.compare_with_train(splits)
    if task == "classification" and len(classes) == 1 and getattr(next(iter(splits.values())), "tags", None) is None:
        text = f"there is one class, {classes[0]!r}: classification needs two"
        problems.append(Problem("", "", text, note=True))
    counts = {split: len(dataset) for split, dataset in splits.items()}
    bad, twins = ({key: tuple(sorted(n)) for key, n in of.items()} for of in (reading.bad, reading.twins))
    return DataCheck(name, f"{layout}, {class_list(classes)}", counts, tuple(problems), bad, twins)


@dataclass(frozen=True)
class _First:
    """Where the content of a file was first met."""

    split: str
    name: str
    number: int
    classes: set[int]


@dataclass
class _Reading:
    """What is known of a data set while its splits are read once, one after the other.

    Attributes:
        task: what the images are for.
        problems: those so far.
        bad: by fingerprint, numbers of the samples that cannot be used.
        twins: by fingerprint, numbers of good samples whose file was met before in the same split.
        first: by the digest of a file, where it was first met.
        classes: by split, the classes that each of its samples shows.
    """

    task: str
    problems: list[Problem]
    bad: dict[str, set[int]] = field(default_factory=dict)
    twins: dict[str, set[int]] = field(default_factory=dict)
    first: dict[str, _First] = field(default_factory=dict)
    classes: dict[str, list[set[int]]] = field(default_factory=dict)

    def read_split(self, split: str, dataset: ImageDataset, bar: tqdm) -> None:
        """Read all samples of a split."""
        self.problems += getattr(dataset, "flaws", ())
        bad, twins = (of.setdefault(dataset.fingerprint, set()) for of in (self.bad, self.twins))
        unlabelled, of_split = [], self.classes.setdefault(split, [])
        for m in range(len(dataset)):
            sample, problems = _read(dataset, m)
            name = str(dataset.paths[m]) if isinstance(dataset, FileDataset) else id_of(dataset, m)
            of_split.append(set() if sample is None else _classes_in(sample))
            if sample is not None:
                problems += self._twin(split, dataset, m, sample, name)
                problems += sample_problems(sample, len(dataset.classes), name)
                unlabelled += [] if _has_annotation(sample, self.task) else [name]
            if any(not problem.note for problem in problems):
                bad.add(m)
            self.problems += problems
            bar.update()
        twins -= bad
        if self.task in _NEEDED and unlabelled:
            if len(unlabelled) == len(dataset) - len(bad):
                text = f"no image has {_NEEDED[self.task]} (unlabelled: can be used for transfer, never for the task)"
                self.problems.append(Problem(split, "", text, note=self.task == "classification"))
            else:
                text = f"has no {_NEEDED[self.task].split()[-1]}"
                self.problems += [Problem(name, "", text, note=True) for name in unlabelled]

    def _twin(self, split: str, dataset: ImageDataset, m: int, sample: Sample, name: str) -> Iterator[Problem]:
        """Whether the file was met before. Its content decides: a copy has another name, and often another date."""
        classes, content = self.classes[split][m], _content(dataset, m, sample)
        first = self.first.setdefault(content, _First(split, name, m, classes))
        if (first.split, first.number) == (split, m):
            return
        text = f"is the same file as {first.name}" + (f" in {first.split}" if first.split != split else "")
        contradicts = bool(classes and first.classes and classes != first.classes)
        if contradicts:
            here, there = (", ".join(_names(dataset, labels)) for labels in (classes, first.classes))
            text += f", but shows {here}, and that {there}: mend the one that is wrong"
        yield Problem(name, "", text, note=first.split == split and not contradicts)
        if first.split == split:
            self.twins[dataset.fingerprint].add(m)
            self.bad[dataset.fingerprint] |= {first.number} if contradicts else set()

    def compare_with_train(self, splits: Mapping[str, ImageDataset]) -> None:
        """Samples of other splits that show a class which no sample of train shows cannot be used."""
        learned = set[int]().union(*self.classes.get("train", ()))
        for split in self.classes.keys() - {"train"} if learned else ():
            dataset, of_split = splits[split], self.classes[split]
            for label in sorted(set[int]().union(*of_split) - learned):
                images = counted(sum(label in labels for labels in of_split), "image")
                text = f"has class {dataset.classes[label]!r} in {images}, and train has none"
                self.problems.append(Problem(split, "", f"{text}: give train some, or leave these out"))
            self.bad[dataset.fingerprint] |= {m for m, labels in enumerate(of_split) if labels - learned}


def id_of(dataset: ImageDataset, index: int) -> str:
    """The name of a sample without reading it: its id where the data set lists them, else its number."""
    ids = getattr(dataset, "ids", None)
    return str(index if ids is None else ids[index])


def _read(dataset: ImageDataset, index: int) -> tuple[Sample | None, list[Problem]]:
    if isinstance(dataset, FileDataset):
        return dataset.read(index)
    try:
        return dataset[index], []
    except DatasetError as error:
        return None, [Problem(id_of(dataset, index), "", str(error))]


def _classes_in(sample: Sample) -> set[int]:
    classes = {sample.label}
    if sample.box_labels is not None:
        classes |= set(np.asarray(sample.box_labels).tolist())
    if sample.mask is not None:
        classes |= set(values_of(sample.mask)) - {IGNORE}
    if sample.tags is not None:
        classes |= set(np.flatnonzero(sample.tags).tolist())
    return classes - {UNLABELLED}


def _names(dataset: ImageDataset, labels: set[int]) -> list[str]:
    return [dataset.classes[c] if 0 <= c < len(dataset.classes) else f"class {c}" for c in sorted(labels)]


def _has_annotation(sample: Sample, task: str) -> bool:
    if task == "segmentation":
        return sample.mask is not None
    if task == "detection":
        return sample.boxes is not None
    return sample.label != UNLABELLED or sample.tags is not None


def _task_of(dataset: ImageDataset) -> str:
    sample, _ = _read(dataset, 0)
    if sample is not None and sample.mask is not None:
        return "segmentation"
    plain = sample is None or _has_annotation(sample, "classification") or sample.boxes is None
    return "classification" if plain else "detection"


def _content(dataset: ImageDataset, index: int, sample: Sample) -> str:
    """Digest of the image file, or of the pixels where there is no file."""
    if isinstance(dataset, FileDataset):
        with dataset.paths[index].open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(repr(sample.image.shape).encode() + sample.image.tobytes()).hexdigest()


def _left_out(root: Path) -> Iterator[Problem]:
    """Links that lead nowhere or back, and pictures of kinds that are not read."""
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if not name.startswith("."))
        for name in sorted([*names, *files]):
            path = Path(folder, name)
            if path.is_symlink() and not path.exists():
                yield Problem(str(path), "", f"is a link to {path.readlink()}, which leads nowhere")
            elif path.is_symlink() and path.is_dir() and _leads_back(path):
                yield Problem(str(path), "", f"is a link that leads back to {path.readlink()}: left out", note=True)
            elif path.suffix.lower() in _OTHER_SUFFIXES and not name.startswith("."):
                wanted = " ".join(sorted(IMAGE_SUFFIXES))
                yield Problem(str(path), "", f"is left out: {path.suffix} is not one of {wanted}", note=True)


def _leads_back(link: Path) -> bool:
    return Path(os.path.realpath(link.parent)).is_relative_to(os.path.realpath(link))
