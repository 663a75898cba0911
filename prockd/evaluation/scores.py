"""What a student predicts, and how good both of its predictions are."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from prockd._types import ImageDataset
from prockd.datasets import PackedImages, pack
from prockd.datasets.transforms import cut_whole, to_unit
from prockd.devices import device_for, on_device
from prockd.students.student import Student, StudentOutput
from prockd.tasks.task import Decoded


@dataclass(frozen=True, eq=False)
class Scores:
    """How good the plain (z) and the augmented (z+) student are on some labelled images, by the task's metric, 0..1."""

    plain: float  # of z
    augmented: float | None  # of z+; None without augmentation, as all that follows of it
    predictions: Any  # predicted by z, one an image: see prockd.tasks.task.Decoded
    augmented_predictions: Any  # predicted by z+
    labels: Any  # the truth, in the same form
    metric: str = "accuracy"  # what is measured, in words
    per_class: np.ndarray | None = None  # (C,) the class metric of each class for z, NaN where the images show none
    augmented_per_class: np.ndarray | None = None  # the same for z+
    details: Mapping[str, float] = field(default_factory=dict)  # other numbers of z, by name
    augmented_details: Mapping[str, float] = field(default_factory=dict)  # the same of z+
    class_metric: str = "recall"  # what is measured of one class

    def __repr__(self) -> str:
        metric = "" if self.metric == "accuracy" else f"{self.metric}: "
        plus = "" if self.augmented is None else f", augmented z+ {self.augmented:.1%}"
        return f"Scores({metric}plain z {self.plain:.1%}{plus}, {len(self.labels)} images)"


def evaluate(
    student: Student,
    dataset: ImageDataset | PackedImages,
    *,
    batch_size: int = 128,
    device: str | torch.device | None = None,
) -> Scores:
    """Score both predictions on labelled images.

    >>> import prockd as pk
    >>> images = pk.Farmyard("target", "test", 10)
    >>> scores = pk.evaluate(pk.Student("test_efficientnet", pk.tasks.Classification(10)), images)
    >>> scores.metric, len(scores.predictions), scores.per_class.shape
    ('accuracy', 10, (10,))

    Args:
        student: who predicts; it stays on its device and in its mode.
        dataset: labelled images; packed at the student's size when they are not packed yet.
        batch_size: images in a pass.
        device: where the student runs; None is where it is, or from the CPU the GPU if there is one.

    Raises:
        ValueError: images without what the task learns from, or labels outside its classes.
        DatasetError: an image cannot be read.
    """
    task, images = student.task, packed_for(student, dataset)
    task.check(images)
    decoded = decode_all(student, images, batch_size=batch_size, device=device)
    z, z_plus = [*(task.score(predictions, images) for predictions in decoded), None][:2]
    assert z is not None
    return Scores(
        z.value, None if z_plus is None else z_plus.value, decoded[0], None if z_plus is None else decoded[1],
        task.truth(images), task.metric, z.per_class, None if z_plus is None else z_plus.per_class, z.details,
        {} if z_plus is None else z_plus.details, task.class_metric,
    )  # fmt: skip


def predict(
    student: Student,
    dataset: ImageDataset | PackedImages,
    *,
    augmented: bool = False,
    batch_size: int = 128,
    device: str | torch.device | None = None,
) -> Decoded:
    """Predictions in the form that people read, one an image; the images need no labels.

    :func:`prockd.predict_pictures` writes them to files, in pixels of the pictures themselves.

    >>> import prockd as pk
    >>> images = pk.Farmyard("target", "test", 3)
    >>> pk.predict(pk.Student("test_efficientnet", pk.tasks.Segmentation(9)), images).shape
    (3, 96, 96)

    Args:
        student: who predicts.
        dataset: images, packed as :func:`evaluate` does; masks and boxes are in pixels of the packed images.
        augmented: give z+ rather than z.
        batch_size: images in a pass.
        device: as of :func:`evaluate`.

    Returns:
        See :data:`prockd.tasks.task.Decoded`.

    Raises:
        ValueError: z+ is asked of a student without augmentation.
        DatasetError: an image cannot be read.
    """
    how: dict[str, Any] = {"batch_size": batch_size, "device": device, "augmented": augmented}
    decoded = decode_all(student, packed_for(student, dataset), **how)
    if augmented and len(decoded) < 2:
        raise ValueError(f"{student!r} has no augmentation: pass bank= and feature_augmentation= to Student")
    return decoded[augmented]


def packed_for(student: Student, dataset: ImageDataset | PackedImages) -> PackedImages:
    """Images that are packed, at the student's size when they were not."""
    return dataset if isinstance(dataset, PackedImages) else pack(dataset, student.image_px)


def decode_all(student: Student, images: PackedImages, **how: Any) -> tuple[Decoded, ...]:
    """What z predicts and, with augmentation, what z+ predicts; ``how`` is that of :func:`outputs`."""
    batches = [
        [
            student.task.decode(logits, images.image_px)
            for logits in (out.logits, out.augmented_logits)
            if logits is not None
        ]
        for out in outputs(student, images, **how)
    ]

    def joined(parts: Sequence[Any]) -> Decoded:
        return np.concatenate(parts) if isinstance(parts[0], np.ndarray) else [one for part in parts for one in part]

    return tuple(map(joined, zip(*batches, strict=True)))


@torch.no_grad()
def outputs(
    student: Student, images: PackedImages, *, batch_size: int = 128, device: str | torch.device | None = None,
    augmented: bool = True,
) -> Generator[StudentOutput, None, None]:  # fmt: skip
    """Run a student over images of any size, in eval mode; afterwards it is in the mode and where it was before."""
    was_training, device = student.training, device_for(student, device)
    student.eval()
    try:
        with on_device(device, student):
            for start in range(0, len(images), batch_size):
                pixels = torch.from_numpy(np.array(images.pixels[start : start + batch_size])).to(device)
                yield student(cut_whole(to_unit(pixels), student.image_px), augmented=augmented)
    finally:
        student.train(was_training)
