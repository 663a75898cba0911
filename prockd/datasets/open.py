"""One function that opens any known layout, and one that leaves out what cannot be used."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from prockd._types import ImageDataset
from prockd.datasets._common import SHOWN, DatasetError
from prockd.datasets.check import check_data, id_of
from prockd.datasets.data_report import DataReport
from prockd.datasets.layouts import WHOLE, open_subsets
from prockd.datasets.split import subset as take


def skip_bad(dataset: ImageDataset, report: DataReport) -> ImageDataset:
    """Leave out the samples that a report calls bad, with a warning that names them.

    Raises:
        DatasetError: the report is of other data, or no sample is left.
    """
    if dataset.fingerprint not in report.bad:
        raise DatasetError(f"the report is not of this data: run check_data again on {dataset!r}")
    bad = report.bad[dataset.fingerprint]
    if len(bad) == len(dataset):
        raise DatasetError(f"no image can be used:\n{report!r}")
    if not bad:
        return dataset
    names = ", ".join(id_of(dataset, m) for m in bad[:SHOWN]) + (", ..." if len(bad) > SHOWN else "")
    warnings.warn(f"{len(bad)} of {len(dataset)} images are skipped: {names}", stacklevel=2)
    return take(dataset, sorted(set(range(len(dataset))) - set(bad)))


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
