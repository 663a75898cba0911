"""What the teacher's side thinks of an image in the label space of the task: the paper's z_T, and soft targets.

The teacher's own logits are of other classes and never used. What is read are its frozen patches in the space of the
prototypes, of labelled images: by a linear reading in closed form where the task has one answer an image, else by a
head like the student's own. The same closed form fits the student's part maps when it is finished.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from prockd.datasets import PackedImages
from prockd.datasets.transforms import whole_images
from prockd.prototypes.bank import PrototypeBank
from prockd.prototypes.part_maps import TEMPERATURE, PartMaps, part_descriptor
from prockd.students.student import Student
from prockd.tasks import Classification
from prockd.tasks.task import Task
from prockd.teachers.embedded import EmbeddedFeatures
from prockd.training.batches import Batch, Reader, Source, patches_of
from prockd.training.ridge import Ridge, fit_ridge

MOST_UNLABELLED = 1000
"""Images without labels that a closed form is fitted to, at most."""

WIDEST, MOST_LABELLED = 2**12, 2000
"""Values an image up to which a closed form is fitted to all labelled images; of wider ones to so many, since its cost
grows with the cube of the smaller of both numbers: half a minute of one core."""


class PooledReading(nn.Module):
    """A linear reading of pooled patches: (B, N, E) -> (B, C) calibrated logits.

    Args:
        bank: whose prototypes part maps are relative to.
        ridge: what was fitted.
        kind: ``"part_maps"``, :func:`prockd.prototypes.part_maps.part_descriptor`, or ``"mean"`` of the directions.
    """

    def __init__(self, bank: PrototypeBank, ridge: Ridge, kind: str = "part_maps") -> None:
        super().__init__()
        self.ridge, self.kind = ridge, kind
        weight, self.centres, self.offsets = ridge.weight, torch.empty(0), torch.empty(0)
        if kind == "part_maps":  # it is read in every step: what the bank decides is decided here, once
            there = bank.merged == torch.arange(len(bank.merged), device=bank.merged.device)
            centres, enabled = bank.prototypes.detach()[there], bank.enabled[there]
            maps = weight.reshape(len(there), -1, weight.shape[1])[there] * enabled[:, None, None]  # (K, E, C)
            weight = maps.flatten(0, 1)
            self.centres = _fixed(F.normalize(centres, dim=-1) / TEMPERATURE)
            self.offsets = _fixed(torch.einsum("ke,kec->ck", centres, maps))
        self.weight, self.bias = _fixed(weight.T.contiguous()), _fixed(ridge.bias)  # (C, V): a tenth of (V, C)'s time

    def forward(self, patches: Float[Tensor, "B N E"]) -> Float[Tensor, "B C"]:
        """Class scores of each image: those of :func:`part_descriptor`, a quarter of its time under bf16."""
        h = F.normalize(patches, dim=-1)
        if self.kind == "mean":
            return F.linear(h.mean(1), self.weight, self.bias)
        a = (h @ self.centres.T).softmax(-1)
        total = a.sum(1)
        mixed = (a.transpose(1, 2) @ h) / (1 + total).unsqueeze(-1)
        return F.linear(mixed.flatten(1), self.weight, self.bias) - F.linear(total / (1 + total), self.offsets)


def _fixed(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values, requires_grad=False)


def pooled(bank: PrototypeBank, patches: Float[Tensor, "B N E"], kind: str = "part_maps") -> Float[Tensor, "B V"]:
    """What a linear reading of whole images reads."""
    if kind == "mean":
        return F.normalize(patches, dim=-1).mean(1)
    return part_descriptor(patches, bank.prototypes.detach(), bank.enabled, bank.merged).flatten(1)


class HeadLearner(nn.Module):
    """The task's own head, which learns to read the teacher's patches in the loop of the students."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.reader: list[Student] = [student]  # in a list: no part of what learns here
        self.head = student.task.head(student.embed_dim, student.grid, student.image_px)
        self.quick_parameters: list[nn.Parameter] = []
        self.quick_rate = 1.0

    @property
    def student(self) -> Reader:
        """Whose crops and grid are read."""
        return self.reader[0]

    def forward(self, batch: Batch) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The prediction from the teacher's patches."""
        return {"task": self.head(patches_of(batch))}, {}

    def terms(self, predictions: dict[str, Any], maps: dict[str, Tensor], targets: Any) -> dict[str, Tensor]:
        """The task loss."""
        return {"task": self.reader[0].task.loss(predictions["task"], targets)}

    def total(self, terms: Mapping[str, Tensor]) -> Tensor:
        """The same."""
        return terms["task"]


def targets_of(task: Task, images: PackedImages, rows: np.ndarray) -> Float[Tensor, "n C"]:
    """The targets of labelled images as 0 and 1."""
    targets: Tensor = task.targets(images, rows, whole_images(len(rows)), images.image_px)
    return targets.float() if targets.ndim == 2 else F.one_hot(targets, task.num_classes).float()


def whole(source: Source, rows: np.ndarray, student: Student, *, mirrored: bool, at_once: int = 64) -> Iterator[Batch]:
    """Whole images, and the teacher's maps of them, a few at a time."""
    device = next(student.parameters()).device
    for start in range(0, len(rows), at_once):
        some = rows[start : start + at_once]
        yield source.batch(some, whole_images(len(some), mirrored=mirrored), student, device)


def in_views(
    source: Source, rows: np.ndarray, student: Student, read: Callable[[Batch], Tensor]
) -> Iterator[Float[Tensor, "V b F"]]:
    """What is read of whole labelled images, plain and (with flips) mirrored, a few at a time."""
    views = (whole(source, rows, student, mirrored=m) for m in ((False, True) if source.flip else (False,)))
    for batches in zip(*views, strict=True):
        yield torch.stack([read(batch) for batch in batches])


def fitted_rows(images: PackedImages, bank: PrototypeBank, kind: str = "part_maps") -> np.ndarray:
    """The labelled images that a reading is fitted to, whatever the seed."""
    every = kind == "mean" or bank.prototypes.numel() <= WIDEST
    return some_rows(images, len(images) if every else MOST_LABELLED)


def some_rows(images: PackedImages, count: int, seed: int = 0) -> np.ndarray:
    """So many of the images, or all, in their order."""
    return np.sort(np.random.default_rng(seed).permutation(len(images))[:count])


@torch.no_grad()
def fit_reading(student: Student, source: Source, kind: str = "part_maps") -> PooledReading:
    """Fit a reading of the teacher's patches to the labelled images, whole, plain and (with flips) mirrored."""
    bank = student.bank
    assert bank is not None
    rows = fitted_rows(source.images, bank, kind)
    x = in_views(source, rows, student, lambda batch: pooled(bank, patches_of(batch), kind))
    ridge = fit_ridge(x, targets_of(student.task, source.images, rows), tags=is_tags(student.task))
    return PooledReading(bank, ridge, kind)


@torch.no_grad()
def teacher_probe(
    task: Task, bank: PrototypeBank, train: EmbeddedFeatures, test: EmbeddedFeatures, kind: str = "part_maps"
) -> float:
    """The test score of the teacher itself, read in closed form from its labelled images: the students' ceiling.

    Args:
        task: read pooled.
        bank: which embedded the features.
        train: labelled images.
        test: labelled images that nothing was chosen on.
        kind: ``"part_maps"`` or ``"mean"``.
    """

    def read(features: EmbeddedFeatures, rows: np.ndarray, *views: str) -> Iterator[Tensor]:
        for some in np.array_split(rows, -(-len(rows) // 64)):
            yield torch.stack([pooled(bank, bank.read(features, some, view), kind) for view in views])

    rows = fitted_rows(train.images, bank, kind)
    x = read(train, rows, *(view for view in ("plain", "mirrored") if view in train.views))
    ridge = fit_ridge(x, targets_of(task, train.images, rows), tags=is_tags(task))
    logits = torch.cat([ridge(some[0]) for some in read(test, np.arange(len(test)), "plain")])
    return task.score(task.decode(logits, test.images.image_px), test.images).value


@torch.no_grad()
def fit_part_maps(
    student: Student, labelled: Source, more: Source | None = None, reading: nn.Module | None = None, *, seed: int = 0
) -> Ridge:
    """Fit a finished student's part maps in closed form: to labels, and to what a reading thinks of more images.

    Args:
        student: finished; its part maps are set, and nothing else of it changes.
        labelled: images with targets; of maps of more than 4,096 values 2,000 are read, the same for every seed.
        more: unlabelled images, of which at most 1,000 are, drawn by the seed.
        reading: of the teacher's patches; without it unlabelled images are left out.
        seed: of the draw.
    """
    bank, maps, was_training = student.bank, student.feature_augmentation, student.training
    assert isinstance(maps, PartMaps)
    assert bank is not None
    rows = fitted_rows(labelled.images, bank)
    student.eval()

    def read(batch: Batch) -> Tensor:
        features = student(batch.images, 0).features
        return part_descriptor(features, bank.prototypes, bank.enabled, bank.merged, maps.temperature).flatten(1)

    try:
        others = soft = None
        if more is not None and reading is not None:
            pairs = [
                (read(b), to_probabilities(student.task, reading(patches_of(b))))
                for b in whole(more, some_rows(more.images, MOST_UNLABELLED, seed), student, mirrored=False)
            ]
            others, soft = (torch.cat(column) for column in zip(*pairs, strict=True))
        x, targets = in_views(labelled, rows, student, read), targets_of(student.task, labelled.images, rows)
        ridge = fit_ridge(x, targets, others, soft, tags=is_tags(student.task))
    finally:
        student.train(was_training)
    maps.set_reading(ridge.weight, ridge.bias)
    return ridge


def is_tags(task: Task) -> bool:
    """Whether each class of the task is a yes or no of its own."""
    return isinstance(task, Classification) and task.multi_label


def to_probabilities(task: Task, logits: Float[Tensor, "B C"]) -> Float[Tensor, "B C"]:
    """What logits say, 0..1."""
    return logits.sigmoid() if is_tags(task) else logits.softmax(1)
