"""One function that opens any known format, and those that leave out what cannot be used."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path

from prockd._types import ImageDataset
from prockd.cache import cached_arrays
from prockd.datasets.check import IS_COPY, DataCheck, check_data
from prockd.datasets.files import WHOLE
from prockd.datasets.formats import open_splits
from prockd.datasets.problems import DatasetError, Problem, grouped, listed, refuse
from prockd.datasets.splits import id_of, subset


def open_data(
    path: Path | str, *, task: str | None = None, split: str | None = None,
    classes: Sequence[str] | Mapping[int, str] | None = None, group: str | None = None, on_bad: str = "refuse",
    white: int = 0, exif: bool = True, progress: bool = True,
) -> ImageDataset:  # fmt: skip
    """Open a folder or file of any known format as one data set; :func:`open_splits` gives all splits at once.

    Example:
        >>> import tempfile, numpy as np
        >>> with tempfile.TemporaryDirectory() as home:
        ...     np.savez(f"{home}/photos.npz", images=np.zeros((2, 32, 24, 3), np.uint8), labels=[0, 1])
        ...     open_data(f"{home}/photos.npz")
        Arrays(2 images of 24 x 32 px, 2 classes: 0, 1)

    Args:
        path: the folder, or one file of a format.
        task: "classification", "segmentation", "detection" or "keypoints"; None for the first format that fits.
        split: "train", "val" or "test" of a divided data set; None for one that is not divided.
        classes: class names, as the format takes them; None for ``classes.txt``, or else for what the files hold.
        group: see :class:`~prockd.datasets.files.FormatOptions`, also for ``white`` and ``exif``.
        on_bad: ``"refuse"``: entries that belong to no image raise now, bad samples when they are read. ``"skip"``: all
            samples are read and checked now, and a warning names the bad ones, which are left out.
        white: level of white; 0 for the range of the picture's mode.
        exif: turn pictures as their EXIF says.
        progress: show a progress bar while they are checked.

    Raises:
        DatasetError: nothing is there, no format fits (the message lists them), no such split, or data are bad.
    """
    splits = open_splits(path, task=task, classes=classes, group=group, on_bad=on_bad, white=white, exif=exif)
    if (split or WHOLE) not in splits:
        advice = f"say split={next(iter(splits))!r}" if split is None else f"there is no split {split!r}"
        raise DatasetError(f"{path} has {', '.join(splits)}: {advice}")
    dataset = splits[split or WHOLE]
    return skip_bad(dataset, check_data(dataset, task=task, progress=progress)) if on_bad == "skip" else dataset


def skip_bad(dataset: ImageDataset, check: DataCheck) -> ImageDataset:
    """Leave out what a check calls bad, with a warning; DatasetError where it is of other data, or none is left."""
    if dataset.fingerprint not in check.bad:
        raise DatasetError(f"the check is not of this data: run check_data again on {dataset!r}")
    bad = check.bad[dataset.fingerprint]
    if len(bad) == len(dataset):
        raise DatasetError(f"no image can be used:\n{check!r}")
    if flaws := [flaw for flaw in getattr(dataset, "flaws", ()) if not flaw.note]:
        entries = f"{len(flaws)} entries are" if len(flaws) > 1 else "an entry is"
        warnings.warn(f"{entries} skipped: {listed(flaws, between='; ')}", stacklevel=2)
    return _leave_out(dataset, bad, "skipped")


def checked(
    splits: Mapping[str, ImageDataset], *, task: str | None = None, on_bad: str = "refuse", once: bool = False,
    progress: bool = True,
) -> dict[str, ImageDataset]:  # fmt: skip
    """Read all splits once, as :func:`check_data` does, and refuse what is bad or leave it out.

    What the reading showed is kept in the cache, so that unchanged data are not read again.

    Args:
        splits: data sets by name; the classes of the others must be among those that ``train`` shows.
        task: one of four; None for what the data are for.
        on_bad: ``"refuse"`` raises when there is an error, ``"skip"`` leaves bad samples out, with a warning.
        once: leave out files that are there twice too, with a warning: a copy must not be learned and scored on.
        progress: show a progress bar.

    Raises:
        DatasetError: something is bad (with ``"refuse"``), or nothing is left.
    """

    def read(_: object) -> dict[str, object]:
        check = check_data(splits, task=task, progress=progress)
        return {"problems": list(map(astuple, check.problems)), "bad": dict(check.bad), "twins": dict(check.twins)}

    prints = {name: dataset.fingerprint for name, dataset in splits.items()}
    kept = cached_arrays("checks", {"version": 4, "data": prints, "task": task}, read)[1]
    counts = {name: len(dataset) for name, dataset in splits.items()}
    problems = tuple(Problem(*row) for row in kept["problems"])
    check = DataCheck(", ".join(splits), "data set", counts, problems, kept["bad"], kept["twins"])
    if notes := grouped(note for note in check.notes if note.file and not note.text.startswith(IS_COPY)):
        warnings.warn(listed(notes, between="; "), stacklevel=2)
    if on_bad == "refuse":
        roots = dict.fromkeys(str(getattr(dataset, "root", name)) for name, dataset in splits.items())
        refuse(problems, " and ".join(roots), on_bad)
    good = {}
    for name, dataset in splits.items():
        good[name] = skip_bad(dataset, check) if on_bad == "skip" else dataset
        if once:
            bad = check.bad[prints[name]] if on_bad == "skip" else ()
            left = sorted(set(range(len(dataset))) - set(bad))
            again = [place for place, m in enumerate(left) if m in check.twins[prints[name]]]
            good[name] = _leave_out(good[name], again, "there twice and used once")
    return good


def _leave_out(dataset: ImageDataset, numbers: Sequence[int], reason: str) -> ImageDataset:
    if not numbers:
        return dataset
    names, images = (id_of(dataset, m) for m in numbers), "images are" if len(dataset) > 1 else "image is"
    warnings.warn(f"{len(numbers)} of {len(dataset)} {images} {reason}: {listed(names)}", stacklevel=3)
    return subset(dataset, sorted(set(range(len(dataset))) - set(numbers)))
