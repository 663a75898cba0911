"""Reading a data set once, and every problem of it in one table."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Unpack

import numpy as np
from tqdm.auto import tqdm

from prockd._types import IGNORE, UNLABELLED, ImageDataset, Sample
from prockd.datasets.files import UNLABELLED_SPLIT, WHOLE, FileDataset, FormatOptions
from prockd.datasets.formats import open_format, passed_over
from prockd.datasets.keypoints import check_keypoints, is_keypoints
from prockd.datasets.left_out import odd_links
from prockd.datasets.problems import DatasetError, Problem, class_list, counted, listed, sample_problems, values_of
from prockd.datasets.splits import id_of
from prockd.devices import made_ahead

IGNORED, MAX_CLASSES = "ignored", 24
IS_COPY = "is the same file as "
MAX_ROWS = 40  # that a DataCheck prints; rows() has all
_NEEDED = {"classification": "a class", "segmentation": "a mask", "detection": "boxes", "keypoints": "joints"}


@dataclass(frozen=True, eq=False)
class DataCheck:
    """What is wrong with a data set; prints as a table."""

    name: str  # what was checked
    layout: str  # what it was taken for, in words
    counts: Mapping[str, int]  # images by split
    problems: tuple[Problem, ...]  # all of them, in the order of the data
    # by the fingerprint of each split, the numbers of the samples that cannot be used
    bad: Mapping[str, Sequence[int]] = field(default_factory=dict)
    # the same for good samples whose file is that of an earlier one of the same split
    twins: Mapping[str, Sequence[int]] = field(default_factory=dict)
    # how much there is of each class: "images" of it, "boxes", "joints", or "pixels", of which some may be "ignored"
    shown: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

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
        rows, root = [], f"{self.name}{os.sep}"
        whole = re.compile(rf"(?<![\w./\\-]){re.escape(root)}")  # not the end of another name
        for p in self.problems:
            kind, file = "note" if p.note else "error", "" if p.file == self.name else p.file.removeprefix(root)
            rows.append({"kind": kind, "file": file, "entry": p.entry, "problem": whole.sub("", p.text)})
        return rows

    def __repr__(self) -> str:
        images = ", ".join(f"{count} images" + (f" in {s}" if s != WHOLE else "") for s, count in self.counts.items())
        verdict = f"{counted(len(self.errors), 'error')}, {counted(len(self.notes), 'note')}"
        verdict = verdict if self.problems else "nothing is wrong"
        bad = sum(map(len, self.bad.values()))
        unusable = f"; {counted(bad, 'image')} cannot be used" if bad else ""
        lines = [f"{self.name}: {self.layout}", f"{images or 'no images'}: {verdict}{unusable}"]
        lines += [_amounts(kind, counts) for kind, counts in self.shown.items()]
        rows = sorted(self.rows(), key=lambda row: row["kind"])  # errors first
        widths = {key: max((len(r[key]) for r in rows[:MAX_ROWS]), default=0) for key in ("kind", "file", "entry")}
        for row in rows[:MAX_ROWS]:
            cells = (row[key].ljust(width) for key, width in widths.items() if width)
            lines.append("  ".join(["", *cells, row["problem"]]))
        if len(rows) > MAX_ROWS:
            lines.append(f"  ... and {len(rows) - MAX_ROWS} more: rows(), or prockd check-data --all, has them")
        if bad:
            lines.append("Mend them, or train without them: on_bad='skip' (--set data.on_bad=skip) leaves them out.")
        return "\n".join(lines)


def check_data(
    data: Path | str | ImageDataset | Mapping[str, ImageDataset], *, task: str | None = None,
    classes: Sequence[str] | Mapping[int, str] | None = None, progress: bool = True, **options: Unpack[FormatOptions],
) -> DataCheck:  # fmt: skip
    """Read everything once and list every problem, instead of stopping at the first.

    Errors are images that cannot be read or are too small or too large, masks of another size or with values that no
    class has, boxes without area, with swapped corners or outside the image, joints outside of it or there twice,
    broken annotation files, entries that belong to no image, the same file in two splits or of two classes, and classes
    in ``val`` or ``test`` that ``train`` lacks. Notes are images without objects or label, one file twice in a split,
    an image of ``train`` again among the unlabelled ones, and files that are left out.

    Example:
        >>> import numpy as np
        >>> from prockd.datasets import Arrays
        >>> tiny = Arrays(np.zeros((1, 6, 9, 3), np.uint8), labels=[0], classes=["cat", "dog"])
        >>> check_data(tiny, progress=False).errors[0].text
        'is 9 x 6 px, too small to show a part: 8 px is the least'

    Args:
        data: a folder or file of any format that :func:`open_data` knows, a data set, or data sets by split.
        task: "classification", "segmentation", "detection" or "keypoints"; None for what the format is for.
        classes: class names of a folder or file, as :func:`open_data` takes them.
        progress: show a progress bar.
        options: of a folder or file: ``group``, ``white`` and ``exif``, as :func:`open_data` takes them.
    """
    problems: list[Problem] = []
    if isinstance(data, Path | str):
        path, name = Path(data), str(data).rstrip(os.sep)
        try:
            options["on_bad"] = "skip"
            format, splits = open_format(path, task, classes, **options)
        except DatasetError as error:
            return DataCheck(name, "cannot be opened", {}, (Problem.of(name, error),))
        task = task or format.task
        layout = f"looks like {format.name}" + (f", for {task}" if task != "none" else "")
        if path.is_dir():
            problems += [*odd_links(path), *passed_over(path, splits)]
            tables = [] if format.task == "keypoints" else sorted(path.rglob("*.csv"))
            for table in filter(is_keypoints, tables):
                problems += check_keypoints(table)
    else:
        splits = dict(data) if isinstance(data, Mapping) else {WHOLE: data}
        name, layout = repr(data) if len(splits) == 1 else ", ".join(splits), ""
    samples: dict[str, list[_Read]] = {split: [] for split in splits}
    places = [(split, m) for split, dataset in splits.items() for m in range(len(dataset))]
    threads = min(getattr(dataset, "threads", 0) for dataset in splits.values())
    reads_of = made_ahead(lambda at: _read(at[0], splits[at[0]], at[1]), places, threads, 2 * threads)
    for read in tqdm(reads_of, "checking", len(places), unit="image", disable=not progress):
        samples[read.split].append(read)
    first, tasks = next(iter(splits.values())), next((read.tasks for reads in samples.values() for read in reads), ())
    task = str(task or getattr(first, "task", None) or next(iter(tasks), "classification"))
    layout = layout or f"data set for {task}"
    _compare_files([read for reads in samples.values() for read in reads])
    for split, dataset in splits.items():
        guessed = dataset.notes() if isinstance(dataset, FileDataset) else ()
        problems += [*getattr(dataset, "flaws", ()), *guessed]
        problems += [problem for read in samples[split] for problem in read.problems]
        problems += _unlabelled(split, samples[split], task)
    problems += _lacking_in_train(samples)
    if task == "classification" and len(first.classes) == 1 and getattr(first, "tags", None) is None:
        text = f"there is one class, {first.classes[0]!r}: classification needs two"
        problems.append(Problem("", "", text, note=True))
    reads = {dataset.fingerprint: list(enumerate(samples[split])) for split, dataset in splits.items()}
    bad = {key: tuple(m for m, read in pairs if read.is_bad) for key, pairs in reads.items()}
    twins = {key: tuple(m for m, read in pairs if read.is_twin and not read.is_bad) for key, pairs in reads.items()}
    counts = {split: len(dataset) for split, dataset in splits.items()}
    shown = _shown([read for reads in samples.values() for read in reads], first.classes)
    problems += _alike(shown, name)
    layout = f"{layout}, {class_list(tuple(first.classes))}"
    return DataCheck(name, layout, counts, tuple(problems), bad, twins, shown)


def _shown(reads: Sequence["_Read"], classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """How much there is of each class, see DataCheck."""
    shown = dict[str, dict[str, int]]()
    for kind in ("images", "boxes", "joints", "pixels"):
        amounts = Counter[str]()
        for read in reads:
            amounts.update(read.shown.get(kind, {}))
        if amounts:
            shown[kind] = {each: amounts[each] for each in (*classes, IGNORED)}
    return shown


def _amounts(kind: str, counts: Mapping[str, int]) -> str:
    """How much there is of each class, in words."""
    total, ignored = sum(counts.values()), counts.get(IGNORED, 0)
    if kind == "pixels":
        texts = [f"{name} {count / total:.1%}" for name, count in counts.items() if name != IGNORED or count]
    else:
        texts = [f"{name} {count}" for name, count in counts.items() if name != IGNORED]
        kind = f"{total - ignored} {kind}" if kind != "images" else kind
    return f"{kind}: {listed(texts, MAX_CLASSES)}"


def _alike(shown: Mapping[str, Mapping[str, int]], name: str) -> Iterator[Problem]:
    """Classes whose names differ in case alone."""
    alike: dict[str, list[str]] = {}
    for each in dict.fromkeys(each for counts in shown.values() for each in counts):
        alike.setdefault(each.casefold().strip(), []).append(each)
    for names in (names for names in alike.values() if len(names) > 1):
        text = f"classes {' and '.join(map(repr, names))} differ in case or blanks alone"
        yield Problem(name, "", f"{text}: if they are one, give them one name", note=True)


@dataclass
class _Read:
    """A sample as it was read: what messages call it, what is wrong with it, and the names of the classes it shows."""

    split: str
    name: str
    problems: list[Problem]
    content: str = ""  # digest; empty when it cannot be read
    labels: dict[int, str] = field(default_factory=dict)
    shown: dict[str, Counter[str]] = field(default_factory=dict)  # see DataCheck
    tasks: tuple[str, ...] = ()  # that it has the annotation for
    is_twin: bool = False
    contradicted: bool = False

    @property
    def is_bad(self) -> bool:
        return self.contradicted or any(not problem.note for problem in self.problems)


def _read(split: str, dataset: ImageDataset, index: int) -> _Read:
    if isinstance(dataset, FileDataset):
        name, (sample, problems) = str(dataset.paths[index]), dataset.read(index)
    else:
        name, sample, problems = id_of(dataset, index), None, []
        try:
            sample = dataset[index]
        except DatasetError as error:
            problems = [Problem(name, "", str(error))]
    if sample is None:
        return _Read(split, name, problems)
    if isinstance(dataset, FileDataset):
        with dataset.paths[index].open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    else:
        content = hashlib.sha256(repr(sample.image.shape).encode() + sample.image.tobytes()).hexdigest()
    problems += sample_problems(sample, len(dataset.classes), name)
    labels = {sample.label, *([] if sample.box_labels is None else np.asarray(sample.box_labels).tolist())}
    labels |= set() if sample.mask is None else set(values_of(sample.mask)) - {IGNORE}
    labels |= set() if sample.tags is None else set(np.flatnonzero(sample.tags).tolist())
    names = dict(enumerate(dataset.classes))
    class_names = {label: names.get(label, f"class {label}") for label in sorted(labels - {UNLABELLED})}
    labelled = sample.label != UNLABELLED or sample.tags is not None
    has = {"segmentation": sample.mask is not None, "keypoints": sample.joints is not None, "classification": labelled,
           "detection": sample.boxes is not None}  # fmt: skip
    shown = _shown_by(sample, names)
    return _Read(split, name, problems, content, class_names, shown, tuple(task for task in has if has[task]))


def _shown_by(sample: Sample, names: Mapping[int, str]) -> dict[str, Counter[str]]:
    """How much of each class a sample shows."""
    of: dict[str, Iterable[int]] = {"images": [sample.label]}
    if sample.tags is not None:
        of["images"] = np.flatnonzero(sample.tags).tolist()
    if sample.box_labels is not None:
        of["boxes"] = np.asarray(sample.box_labels).tolist()
    if sample.joints is not None:
        of["joints"] = np.flatnonzero(sample.joints[:, 2]).tolist()
    shown = {kind: Counter(names[label] for label in labels if label in names) for kind, labels in of.items()}
    if sample.mask is not None:
        counts = dict(zip(*(v.tolist() for v in np.unique(sample.mask, return_counts=True)), strict=True))
        shown["pixels"] = Counter({names.get(v, IGNORED): n for v, n in counts.items() if v in names or v == IGNORE})
    return shown


def _compare_files(reads: Sequence[_Read]) -> None:
    """Find files that are there twice. Their content decides: a copy has another name, and often another date."""
    firsts: dict[str, _Read] = {}
    for read in reads:
        if (first := firsts.setdefault(read.content, read)) is read or not read.content:
            continue
        # no label is read of an unlabelled copy of a labelled image, but one of a test image would be seen in training
        harmless = read.split == UNLABELLED_SPLIT and first.split not in ("val", "test")
        read.is_twin = first.split == read.split or harmless
        text = f"{IS_COPY}{first.name}" + ("" if first.split == read.split else f" in {first.split}")
        contradicts = bool(read.labels and first.labels and read.labels != first.labels)
        if contradicts:
            here, there = (", ".join(labels.values()) for labels in (read.labels, first.labels))
            text += f", but shows {here}, and that {there}: mend the one that is wrong"
        read.problems.append(Problem(read.name, "", text, note=read.is_twin and not contradicts))
        first.contradicted |= read.is_twin and contradicts


def _unlabelled(split: str, reads: Sequence[_Read], task: str) -> list[Problem]:
    readable = [read for read in reads if read.content and split != UNLABELLED_SPLIT]
    unlabelled = [read for read in readable if task in _NEEDED and task not in read.tasks]
    if unlabelled and len(unlabelled) == len(readable):
        text = f"no image has {_NEEDED[task]} (unlabelled: can be used for transfer, never for the task)"
        return [Problem(split, "", text, note=task == "classification")]
    return [Problem(read.name, "", f"has no {_NEEDED[task].split()[-1]}", note=True) for read in unlabelled]


def _lacking_in_train(samples: Mapping[str, Sequence[_Read]]) -> Iterator[Problem]:
    """Classes of other splits that no sample of train shows; the samples that show them cannot be used."""
    learned = {label for read in samples.get("train", ()) for label in read.labels}
    for split in samples.keys() - {"train", UNLABELLED_SPLIT} if learned else ():
        beyond: dict[tuple[int, str], list[_Read]] = {}
        for read in samples[split]:
            for label in read.labels.keys() - learned:
                beyond.setdefault((label, read.labels[label]), []).append(read)
                read.contradicted = True
        for (_, name), reads in sorted(beyond.items(), key=lambda item: item[0]):
            text = f"has class {name!r} in {counted(len(reads), 'image')}, and train has none"
            yield Problem(split, "", f"{text}: give train some, or leave these out")
