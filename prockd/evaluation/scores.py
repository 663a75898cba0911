"""What a student predicts, and how good both of its predictions are."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from prockd.datasets import PackedImages
from prockd.datasets.transforms import to_unit
from prockd.students.student import Student, StudentOutput
from prockd.tasks.task import Decoded


@dataclass(frozen=True, eq=False)
class Scores:
    """How good the plain (z) and the augmented (z+) student are on some labelled images, by the task's metric, 0..1.

    Attributes:
        plain: of z.
        augmented: of z+; None without augmentation.
        predictions: predicted by z, one an image: see :data:`prockd.tasks.task.Decoded`.
        augmented_predictions: predicted by z+; None without augmentation.
        labels: the truth, in the same form.
        metric: what is measured, in words.
        per_class: (C,) the metric of each class for z, NaN where the images show none.
        augmented_per_class: (C,) the same for z+; None without augmentation.
        details: other numbers of z, by name.
        augmented_details: the same of z+.
        class_metric: what is measured of one class, in words.
    """

    plain: float
    augmented: float | None
    predictions: Any
    augmented_predictions: Any
    labels: Any
    metric: str = "accuracy"
    per_class: np.ndarray | None = None
    augmented_per_class: np.ndarray | None = None
    details: Mapping[str, float] = field(default_factory=dict)
    augmented_details: Mapping[str, float] = field(default_factory=dict)
    class_metric: str = "recall"

    def __repr__(self) -> str:
        what = "" if self.metric == "accuracy" else f"{self.metric}: "
        plus = "" if self.augmented is None else f", augmented z+ {self.augmented:.1%}"
        return f"Scores({what}plain z {self.plain:.1%}{plus}, {len(self.labels)} images)"


@torch.no_grad()
def evaluate(student: Student, images: PackedImages, *, batch_size: int = 128) -> Scores:
    """Score both predictions on labelled images.

    Raises:
        ValueError: images without what the task learns from, or labels outside its classes.
    """
    task = student.task
    task.check(images)
    plain, augmented = _predictions(student, images, batch_size)
    z = task.score(plain, images)
    z_plus = None if augmented is None else task.score(augmented, images)
    return Scores(
        z.value,
        None if z_plus is None else z_plus.value,
        plain,
        augmented,
        task.truth(images),
        task.metric,
        z.per_class,
        None if z_plus is None else z_plus.per_class,
        z.details,
        {} if z_plus is None else z_plus.details,
        task.class_metric,
    )


@torch.no_grad()
def predict(student: Student, images: PackedImages, *, augmented: bool = False, batch_size: int = 128) -> Decoded:
    """Predictions in the form that people read, one an image; the images need no labels.

    Args:
        student: who predicts.
        images: packed at any size; masks and boxes are in pixels of these images.
        augmented: give z+ rather than z.
        batch_size: images in a pass.

    Returns:
        See :data:`prockd.tasks.task.Decoded`.

    Raises:
        ValueError: z+ is asked of a student without augmentation.
    """
    z, z_plus = _predictions(student, images, batch_size)
    if not augmented:
        return z
    if z_plus is None:
        raise ValueError(f"{student!r} has no augmentation: pass bank= and feature_augmentation= to Student")
    return z_plus


def _predictions(student: Student, images: PackedImages, batch_size: int) -> tuple[Decoded, Decoded | None]:
    task, plain, augmented = student.task, [], []
    for output in outputs(student, images, batch_size=batch_size):
        plain.append(task.decode(output.logits, images.image_px))
        if output.augmented_logits is not None:
            augmented.append(task.decode(output.augmented_logits, images.image_px))

    def joined(batches: list[Any]) -> Decoded:
        if isinstance(batches[0], np.ndarray):
            return np.concatenate(batches)
        return [one for batch in batches for one in batch]

    return joined(plain), joined(augmented) if augmented else None


@torch.no_grad()
def outputs(student: Student, images: PackedImages, *, batch_size: int = 128) -> Iterator[StudentOutput]:
    """Run a student over images of any size, in eval mode; afterwards it is in the mode it was in before."""
    was_training, device = student.training, next(student.parameters()).device
    student.eval()
    try:
        for start in range(0, len(images), batch_size):
            batch = to_unit(torch.from_numpy(np.array(images.pixels[start : start + batch_size])).to(device))
            if images.image_px != student.image_px:
                size = (student.image_px, student.image_px)
                batch = F.interpolate(batch, size, mode="bilinear", antialias=True, align_corners=False)
            yield student(batch)
    finally:
        student.train(was_training)
