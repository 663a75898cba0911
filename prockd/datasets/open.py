"""One function that opens any known layout, and one that leaves out what cannot be used."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from prockd._types import ImageDataset
from prockd.cache import cached_arrays
from prockd.datasets._common import SHOWN, DatasetError, Problem, refuse
from prockd.datasets.check import check_data, id_of
from prockd.datasets.data_report import DataReport
from prockd.datasets.layouts import WHOLE, open_subsets
from prockd.datasets.split import subset as take


def skip_bad(dataset: ImageDataset, report: DataReport) -> ImageDataset:
    """Leave out the samples that a report calls bad, with a warning that names them and the entries left out before.

    Raises:
        DatasetError: the report is of other data, or no sample is left.
    """
    if dataset.fingerprint not in report.bad:
        raise DatasetError(f"the report is not of this data: run check_data again on {dataset!r}")
    bad = report.bad[dataset.fingerprint]
    if len(bad) == len(dataset):
        raise DatasetError(f"no image can be used:\n{report!r}")
    flaws = getattr(dataset, "flaws", ())
    if flaws:
        many = f"{len(flaws)} entries are" if len(flaws) > 1 else "an entry is"
        warnings.warn(f"{many} skipped: {_few(map(str, flaws), '; ')}", stacklevel=2)
    return _without(dataset, bad, "skipped")


def checked(
    subsets: Mapping[str, ImageDataset],
    *,
    task: str | None = None,
    on_bad: str = "refuse",
    once: bool = False,
    progress: bool = True,
) -> dict[str, ImageDataset]:
    """Read all subsets once, as :func:`check_data` does, and refuse what is bad or leave it out.

    What was found is kept in the cache, so that unchanged data are not read again.

    Args:
        subsets: data sets by name; the classes of the others must be among those that ``train`` shows.
        task: "classification", "segmentation" or "detection"; None for what the data are for.
        on_bad: ``"refuse"`` raises when there is an error, ``"skip"`` leaves bad samples out, with a warning.
        once: leave out files that are there twice too, with a warning: a copy must not be learned and scored on.
        progress: show a progress bar.

    Raises:
        DatasetError: something is bad (with ``"refuse"``), or nothing is left.
    """
    prints = {name: dataset.fingerprint for name, dataset in subsets.items()}

    def read(_: object) -> dict[str, object]:
        report = check_data(subsets, task=task, progress=progress)
        rows = [[p.file, p.entry, p.text, p.note] for p in report.problems]
        return {"problems": rows, "bad": dict(report.bad), "twins": dict(report.twins)}

    kept = cached_arrays("checks", {"version": 2, "data": prints, "task": task}, read)[1]
    counts = {name: len(dataset) for name, dataset in subsets.items()}
    problems = tuple(Problem(*row) for row in kept["problems"])
    report = DataReport(", ".join(subsets), "data set", counts, problems, kept["bad"], kept["twins"])
    if on_bad == "refuse":
        roots = dict.fromkeys(str(getattr(dataset, "root", name)) for name, dataset in subsets.items())
        refuse(report.problems, " and ".join(roots), on_bad)
    good = {}
    for name, dataset in subsets.items():
        good[name] = skip_bad(dataset, report) if on_bad == "skip" else dataset
        if once:
            bad = set(report.bad[prints[name]]) if on_bad == "skip" else set()
            left = [m for m in range(len(dataset)) if m not in bad]
            again = [place for place, m in enumerate(left) if m in report.twins[prints[name]]]
            good[name] = _without(good[name], again, "there twice and used once")
    return good


def _without(dataset: ImageDataset, numbers: Sequence[int], why: str) -> ImageDataset:
    if not numbers:
        return dataset
    names = _few(id_of(dataset, m) for m in numbers)
    many = "images are" if len(dataset) > 1 else "image is"
    warnings.warn(f"{len(numbers)} of {len(dataset)} {many} {why}: {names}", stacklevel=3)
    return take(dataset, sorted(set(range(len(dataset))) - set(numbers)))


def _few(names: Iterable[str], between: str = ", ") -> str:
    listed = list(names)
    return between.join([*listed[:SHOWN], *["..."][: len(listed) > SHOWN]])


def open_data(
    path: Path | str,
    *,
    task: str | None = None,
    subset: str | None = None,
    classes: Sequence[str] | Mapping[int, str] | None = None,
    group: str | None = None,
    on_bad: str = "refuse",
    progress: bool = True,
) -> ImageDataset:
    """Open a folder or file of any known layout as one data set; :func:`open_subsets` gives all subsets at once.

    Args:
        path: the folder, or a CSV, JSON or NPZ file.
        task: "classification", "segmentation" or "detection"; None for the first layout that fits.
        subset: "train", "val" or "test" of a divided data set; None for one that is not divided.
        classes: class names, as the layout takes them; None for ``classes.txt``, or else for what is found.
        group: regular expression that finds the group (video, patient, farm) of an image in its id.
        on_bad: ``"refuse"``: entries that belong to no image raise now, bad samples when they are read. ``"skip"``: all
            samples are read and checked now, and a warning names the bad ones, which are left out.
        progress: show a progress bar while they are checked.

    Raises:
        DatasetError: nothing is there, no layout fits (the message lists them), there is no such subset, or data are
            bad.
    """
    subsets = open_subsets(path, task=task, classes=classes, group=group, on_bad=on_bad)
    name = WHOLE if subset is None else subset
    if name not in subsets:
        have = ", ".join(subsets)
        say = f"say subset={next(iter(subsets))!r}" if subset is None else f"there is no subset {subset!r}"
        raise DatasetError(f"{path} has {have}: {say}")
    dataset = subsets[name]
    return skip_bad(dataset, check_data(dataset, task=task, progress=progress)) if on_bad == "skip" else dataset
