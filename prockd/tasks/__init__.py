"""Tasks: what the student predicts, in a label space of its own."""

from prockd.tasks.classification import Classification as Classification
from prockd.tasks.detection import Detection as Detection
from prockd.tasks.key_points import KeyPoints as KeyPoints
from prockd.tasks.segmentation import Segmentation as Segmentation
from prockd.tasks.task import Answer as Answer
from prockd.tasks.task import Boxes as Boxes
from prockd.tasks.task import ExportError as ExportError
from prockd.tasks.task import Marks as Marks
from prockd.tasks.task import Score as Score
from prockd.tasks.task import Task as Task

TASKS: dict[str, type[Task]] = {
    "classification": Classification,
    "segmentation": Segmentation,
    "detection": Detection,
    "keypoints": KeyPoints,
}
"""Every task by the kind that people type and that a saved student is read back with."""
