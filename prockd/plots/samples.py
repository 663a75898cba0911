"""Images of a data set with their labels, as they were read: masks, boxes, points or classes on them."""

import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from prockd._types import UNLABELLED, ImageDataset
from prockd.datasets import DatasetError, labels_of, pack, subset
from prockd.plots.predictions import plot_answers
from prockd.tasks import TASKS, Marks


def plot_samples(dataset: ImageDataset, task: str | None = None, *, count: int = 10, image_px: int = 224) -> Figure:
    """A contact sheet of images, evenly spread, each as a square with its labels: a look tells whether they fit.

    Args:
        dataset: any; samples that cannot be read are left out.
        task: "classification", "segmentation", "detection" or "keypoints": which labels; None for those of the data.
        count: images.
        image_px: side at which they are drawn in pixels.

    Raises:
        DatasetError: no image can be read.
    """
    picked = [m for m in np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int).tolist()]
    good = [m for m in dict.fromkeys(picked) if _is_readable(dataset, m)]
    if not good:
        raise DatasetError("none of the images that were picked can be read: mend what check_data lists")
    kind = task or getattr(dataset, "task", "classification")
    with tempfile.TemporaryDirectory() as home:
        images = pack(subset(dataset, good), image_px, fit="pad", root=Path(home), progress=False)
        squares = [np.array(pixels) for pixels in images.pixels]
        marks, drawn = [Marks(text="unlabelled")] * len(good), TASKS["classification"]
        if kind != "classification" or (labels_of(images) != UNLABELLED).any() or images.tags is not None:
            drawn = next(t for t in TASKS.values() if t.data == kind)
            made = drawn.for_images(images)
            marks = [made.marks(each) for each in made.truth(images)]
            return plot_answers(squares, marks, list(images.ids), made, truth=True)
        return plot_answers(squares, marks, list(images.ids), drawn(2, ("", " ")))


def _is_readable(dataset: ImageDataset, index: int) -> bool:
    try:
        return dataset[index] is not None
    except DatasetError:
        return False
