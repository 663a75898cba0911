"""Tasks: what the student predicts, in a label space of its own."""

from collections.abc import Callable

from prockd.tasks.classification import Classification as Classification
from prockd.tasks.detection import Detection as Detection
from prockd.tasks.segmentation import Segmentation as Segmentation
from prockd.tasks.task import Score as Score
from prockd.tasks.task import Task as Task

TASKS: dict[str, Callable[..., Task]] = {
    "Classification": Classification,
    "Segmentation": Segmentation,
    "Detection": Detection,
}
"""Tasks that a saved student is read back with, by the name of their class."""
