"""Self-training: images with a student's own answers in the place of annotations (Lee 2013, Pseudo-Label)."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from prockd._types import UNLABELLED
from prockd.cache import digest
from prockd.datasets import DatasetError, PackedImages
from prockd.evaluation.scores import predict
from prockd.students.student import Student
from prockd.tasks import Boxes

SURE = 0.5
"""Boxes and joints that a student is at least this sure of are pseudo-labels."""


def pseudo_labelled(student: Student, images: PackedImages) -> PackedImages:
    """Images with what a student says of them, and no other annotation.

    Raises:
        DatasetError: a task whose answers are neither classes, nor masks, nor boxes, nor joints.
    """
    answers, data = predict(student, images), student.task.data
    bare: dict[str, Any] = dict.fromkeys(("parts", "masks", "tags", "boxes", "box_labels", "joints"))
    bare["labels"] = np.full(len(images), UNLABELLED)
    if data == "classification" and np.ndim(answers) == 1:
        own: dict[str, Any] = {"labels": np.asarray(answers, np.int64)}
    elif data == "segmentation":
        own = {"masks": np.asarray(answers, np.uint8)}
    elif data == "detection" and isinstance(answers[0], Boxes):
        sure = [answer.above(SURE) for answer in answers]
        own = {"boxes": tuple(s.boxes for s in sure), "box_labels": tuple(s.labels for s in sure)}
    elif data == "keypoints":
        joints = np.array(answers, np.float32)
        joints[..., 2] = joints[..., 2] >= SURE
        own = {"joints": joints}
    else:
        raise DatasetError(
            f"the arm pseudo-labels knows classes, masks, boxes and joints, not those of {student.task!r}"
        )
    return replace(images, **bare | own)


def joined(labelled: PackedImages, others: PackedImages) -> PackedImages:
    """Both in one set, the labelled ones repeated until they are as many, so that each is half of every batch."""
    rows = np.resize(np.arange(len(labelled)), max(len(labelled), len(others)))
    names = ("pixels", "labels", "masks", "boxes", "box_labels", "joints", "frames")
    columns: dict[str, Any] = {}
    for name in names:
        first, second = getattr(labelled, name), getattr(others, name)
        if first is None or second is None:
            columns[name] = None
        elif isinstance(first, np.ndarray):
            columns[name] = np.concatenate([first[rows], second])
        else:
            columns[name] = tuple(first[row] for row in rows) + tuple(second)
    ids = (*(f"{labelled.ids[row]} {n}" for n, row in enumerate(rows)), *(f"{name} (pseudo)" for name in others.ids))
    fingerprint = digest([labelled.fingerprint, others.fingerprint, len(rows), hash_of(columns)])
    return PackedImages(ids=ids, classes=labelled.classes, fingerprint=fingerprint, **columns)


def hash_of(columns: Mapping[str, Any]) -> str:
    """Digest of the answers, which two students give of the same images."""
    found = hashlib.sha256(np.ascontiguousarray(columns["labels"]).tobytes())
    for name in ("masks", "boxes", "joints"):
        for one in columns[name] if columns[name] is not None else ():
            found.update(np.ascontiguousarray(one).tobytes())
    return found.hexdigest()
