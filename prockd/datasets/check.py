"""Reading a data set once, and every problem of it in one table."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from tqdm.auto import tqdm

from prockd._types import IGNORE, UNLABELLED, ImageDataset, Sample
from prockd.datasets._common import DatasetError, Problem, named
from prockd.datasets.boxes import box_flaw
from prockd.datasets.data_report import DataReport
from prockd.datasets.files import FileDataset
from prockd.datasets.keypoints import check_keypoints, is_keypoints
from prockd.datasets.layouts import WHOLE, find_layout, open_subsets
from prockd.datasets.packed import MIN_IMAGE_PX
from prockd.datasets.read import IMAGE_SUFFIXES

_UNREAD = {".gif", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".svg", ".psd", ".raw", ".dng", ".cr2", ".nef", ".arw",
           ".ppm", ".pgm", ".tga", ".exr", ".hdr", ".ico", ".dcm", ".jfif"}  # fmt: skip
_NEEDED = {"classification": "a class", "segmentation": "a mask", "detection": "boxes"}


def check_data(
    data: Path | str | ImageDataset | Mapping[str, ImageDataset],
    *,
    task: str | None = None,
    classes: Sequence[str] | Mapping[int, str] | None = None,
    progress: bool = True,
) -> DataReport:
    """Read everything once and tell every problem, instead of stopping at the first.

    Errors are images that cannot be read or are too small or too large, masks of another size or with values that no
    class has, boxes without area, with swapped corners or outside the image, broken annotation files, entries that
    belong to no image, the same file in two subsets or of two classes, and classes in ``val`` or ``test`` that
    ``train`` lacks. Notes are images without objects or label, the same file twice in a subset, and files that are left
    out.

    Args:
        data: a folder or file of any layout that :func:`open_data` knows, a data set, or data sets by subset.
        task: "classification", "segmentation" or "detection"; None for what the layout is for.
        classes: class names of a folder or file, as :func:`open_data` takes them.
        progress: show a progress bar.
    """
    problems: list[Problem] = []
    if isinstance(data, Path | str):
        path, name = Path(data), str(data).rstrip(os.sep)
        if path.suffix.lower() == ".csv" and is_keypoints(path):
            count, problems = check_keypoints(path)
            return DataReport(name, "looks like key points", {WHOLE: count}, tuple(problems))
        try:
            found = next(iter(find_layout(path, task).values()))
            subsets = open_subsets(path, task=task, classes=classes, on_bad="skip")
        except DatasetError as error:
            problem = Problem(name, "", str(error).removeprefix(f"{name} "))
            return DataReport(name, "cannot be opened", {}, (problem,))
        task = task or found.task
        layout = f"looks like {found.layout}, for {task}" if task != "none" else f"looks like {found.layout}"
        if path.is_dir():
            problems += _left_out(path)
            for table in sorted(table for table in path.rglob("*.csv") if is_keypoints(table)):
                problems += check_keypoints(table)[1]
    else:
        subsets = dict(data) if isinstance(data, Mapping) else {WHOLE: data}
        name, first = (repr(data) if len(subsets) == 1 else ", ".join(subsets)), next(iter(subsets.values()))
        task = task or getattr(first, "task", None) or _task_of(first)
        layout = f"data set for {task}"
    layout += f", {named(tuple(next(iter(subsets.values())).classes))}"
    seen: dict[str, _Seen] = {}
    shown: dict[str, list[set[int]]] = {}
    bad: dict[str, tuple[int, ...]] = {}
    twins: dict[str, tuple[int, ...]] = {}
    with tqdm(total=sum(map(len, subsets.values())), desc="checking", unit="image", disable=not progress) as bar:
        for subset, dataset in subsets.items():
            problems += getattr(dataset, "flaws", ())
            key = dataset.fingerprint
            told, bad[key], twins[key], shown[subset] = _check(subset, dataset, task, seen, bar)
            problems += told
    learned = set[int]().union(*shown.get("train", ()))
    for subset in shown.keys() - {"train"} if learned else ():
        dataset, images = subsets[subset], shown[subset]
        for label in sorted(set[int]().union(*images) - learned):
            count = sum(label in of_image for of_image in images)
            text = (
                f"has class {dataset.classes[label]!r} in {count} image{'' if count == 1 else 's'}, and train has none"
            )
            problems.append(Problem(subset, "", f"{text}: give train some, or leave these out"))
        lacking = {m for m, of_image in enumerate(images) if of_image - learned}
        bad[dataset.fingerprint] = tuple(sorted({*bad[dataset.fingerprint], *lacking}))
    problems += _too_few_classes(subsets, task)
    counts = {subset: len(dataset) for subset, dataset in subsets.items()}
    return DataReport(name, layout, counts, tuple(problems), MappingProxyType(bad), MappingProxyType(twins))


@dataclass(frozen=True)
class _Seen:
    """Where the content of a file was first met: its subset, name, number and classes."""

    subset: str
    name: str
    number: int
    classes: set[int]


def _check(
    subset: str, dataset: ImageDataset, task: str, seen: dict[str, _Seen], bar: tqdm
) -> tuple[list[Problem], tuple[int, ...], tuple[int, ...], list[set[int]]]:
    """Problems of one data set, the numbers of its bad samples and of twins, and the classes that each sample shows."""
    problems, bad, twins, untold = [], [], [], []
    shown: list[set[int]] = []
    for m in range(len(dataset)):
        sample, found = _read(dataset, m)
        name = _place(dataset, m)
        content = "" if sample is None else _content(dataset, m, sample)
        classes = set[int]() if sample is None else _classes_in(sample)
        twin = seen.get(content)
        if twin is not None:
            text = f"is the same file as {twin.name}" + (f" in {twin.subset}" if twin.subset != subset else "")
            torn = classes and twin.classes and classes != twin.classes
            if torn:
                here, there = (", ".join(_names(dataset, shown)) for shown in (classes, twin.classes))
                text += f", but shows {here}, and that {there}: mend the one that is wrong"
            found.append(Problem(name, "", text, note=twin.subset == subset and not torn))
            if twin.subset == subset:
                twins.append(m)
                bad += [twin.number] if torn else []
        elif content:
            seen[content] = _Seen(subset, name, m, classes)
        if sample is not None:
            found += [Problem(name, "", text) for text in _flaws(sample, len(dataset.classes))]
            if not _is_told(sample, task):
                untold.append(name)
        shown.append(classes)
        if any(not problem.note for problem in found):
            bad.append(m)
        problems += found
        bar.update()
    if untold and len(untold) == len(dataset) - len(bad) and task in _NEEDED:
        told = "unlabelled: can be used for transfer, never for the task"
        problems.append(Problem(subset, "", f"no image has {_NEEDED[task]} ({told})", note=task == "classification"))
    else:
        problems += [
            Problem(name, "", f"has no {_NEEDED[task].split()[-1]}", note=True) for name in untold if task in _NEEDED
        ]
    return problems, tuple(sorted({*bad})), tuple(m for m in twins if m not in bad), shown


def _too_few_classes(subsets: Mapping[str, ImageDataset], task: str) -> Iterator[Problem]:
    """One class of whole images, where there is nothing to tell apart."""
    first = next(iter(subsets.values()))
    if task == "classification" and len(first.classes) == 1 and getattr(first, "tags", None) is None:
        yield Problem("", "", f"there is one class, {first.classes[0]!r}: classification needs two", note=True)


def _read(dataset: ImageDataset, index: int) -> tuple[Sample | None, list[Problem]]:
    if isinstance(dataset, FileDataset):
        return dataset.read(index)
    try:
        return dataset[index], []
    except DatasetError as error:
        return None, [Problem(id_of(dataset, index), "", str(error))]


def _flaws(sample: Sample, num_classes: int) -> Iterator[str]:
    """What no data set may give, whatever it was made from."""
    H, W = size = sample.image.shape[:2]
    if min(size) < MIN_IMAGE_PX:
        yield f"is {W} x {H} px, too small to show a part: {MIN_IMAGE_PX} px is the least"
    box_labels = [] if sample.box_labels is None else np.asarray(sample.box_labels).tolist()
    for label in {sample.label, *box_labels} - {UNLABELLED}:
        if not 0 <= label < num_classes:
            yield f"has label {label}, and {num_classes} classes have labels 0..{num_classes - 1}"
    for number, box in enumerate([] if sample.boxes is None else sample.boxes.tolist(), 1):
        wrong = box_flaw(box, size)
        if wrong:
            yield f"object {number}: {wrong}"
    if sample.mask is not None:
        beyond = sorted(label for label in _classes_in(sample) if label >= num_classes)
        if beyond:
            held = ", ".join(map(str, beyond[:5]))
            yield f"its mask holds {held}, and {num_classes} classes have 0..{num_classes - 1}"


def _classes_in(sample: Sample) -> set[int]:
    found = {sample.label}
    if sample.box_labels is not None:
        found |= set(np.asarray(sample.box_labels).tolist())
    if sample.mask is not None:
        found |= set(np.flatnonzero(np.bincount(sample.mask.ravel(), minlength=256)).tolist()) - {IGNORE}
    if sample.tags is not None:
        found |= set(np.flatnonzero(sample.tags).tolist())
    return found - {UNLABELLED}


def _names(dataset: ImageDataset, labels: set[int]) -> list[str]:
    return [dataset.classes[c] if 0 <= c < len(dataset.classes) else f"class {c}" for c in sorted(labels)]


def _is_told(sample: Sample, task: str) -> bool:
    if task == "segmentation":
        return sample.mask is not None
    if task == "detection":
        return sample.boxes is not None
    return sample.label != UNLABELLED or sample.tags is not None


def _task_of(dataset: ImageDataset) -> str:
    sample, _ = _read(dataset, 0)
    if sample is not None and sample.mask is not None:
        return "segmentation"
    plain = sample is None or sample.label != UNLABELLED or sample.tags is not None or sample.boxes is None
    return "classification" if plain else "detection"


def _content(dataset: ImageDataset, index: int, sample: Sample) -> str:
    """Digest of the image file, or of the pixels where there is no file."""
    if isinstance(dataset, FileDataset):
        with dataset.paths[index].open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(repr(sample.image.shape).encode() + sample.image.tobytes()).hexdigest()


def id_of(dataset: ImageDataset, index: int) -> str:
    """The name of a sample without reading it: its id where the data set lists them, else its number."""
    ids = getattr(dataset, "ids", None)
    return str(index if ids is None else ids[index])


def _place(dataset: ImageDataset, index: int) -> str:
    return str(dataset.paths[index]) if isinstance(dataset, FileDataset) else id_of(dataset, index)


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
            elif path.suffix.lower() in _UNREAD and not name.startswith("."):
                wanted = " ".join(sorted(IMAGE_SUFFIXES))
                yield Problem(str(path), "", f"is left out: {path.suffix} is not one of {wanted}", note=True)


def _leads_back(link: Path) -> bool:
    return Path(os.path.realpath(link.parent)).is_relative_to(os.path.realpath(link))
