"""The four stages on Farmyard, joined once: what `prockd demo`, the notebooks and the ablation table all run."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from prockd.config import AugmentConfig, DistillConfig
from prockd.datasets import pack
from prockd.distill import Callback, History, distill
from prockd.farmyard import Farmyard
from prockd.features import PatchFeatures, extract
from prockd.metrics import linear_probe, pooled
from prockd.prototypes import PrototypeBank
from prockd.student import Student
from prockd.tasks import Classification
from prockd.teacher import Teacher

STUDENT = "resnet10t"
STUDENT_KWARGS: Mapping[str, Any] = {"channels": (16, 40, 80, 128), "stem_width": 8}
"""A residual network of 0.39 M parameters: less than a tenth of the Farmyard teacher."""


@dataclass(frozen=True, eq=False)
class World:
    """Every image set of a Farmyard experiment, with the teacher's features where the teacher may look.

    Attributes:
        source: images of the teacher's own species, for discovery; their labels are not used.
        labelled: the task's labelled images (target species).
        unlabelled: more target images, labels hidden.
        val: for tuning.
        test: for the last number only.
    """

    source: PatchFeatures
    labelled: PatchFeatures
    unlabelled: PatchFeatures
    val: PatchFeatures
    test: PatchFeatures

    @property
    def task(self) -> Classification:
        """Classification of the target species."""
        classes = tuple(self.labelled.images.classes)
        return Classification(len(classes), classes)

    def few(self, per_class: int) -> "World":
        """The same world with the first ``per_class`` labelled images of each class."""
        labels = np.asarray(self.labelled.images.labels)
        rows = np.sort(np.concatenate([np.flatnonzero(labels == c)[:per_class] for c in np.unique(labels)]))
        return replace(self, labelled=self.labelled.select(rows))

    def probe(self, on: str = "test") -> float:
        """Accuracy of a linear probe on the teacher's pooled features, trained on the labelled images: the ceiling."""
        other: PatchFeatures = getattr(self, on)
        return linear_probe(
            pooled(self.labelled.maps), self.labelled.images.labels, pooled(other.maps), other.images.labels
        )


def farmyard_world(
    teacher: Teacher,
    *,
    per_class: int = 30,
    num_source: int = 1500,
    num_unlabelled: int = 2000,
    num_val: int = 500,
    num_test: int = 1000,
    seed: int = 0,
    background: str = "field",
    progress: bool = True,
) -> World:
    """Render, pack and extract every set; all of it is cached.

    ``seed`` changes which images are labelled; the other sets stay the same. ``background`` changes the test set only.
    """

    def features(
        split: str, subset: str, size: int, *, seed: int = 0, views: int = 2, background: str = "field"
    ) -> PatchFeatures:
        images = pack(
            Farmyard(split, subset, size, seed=seed, background=background), teacher.image_px, progress=progress
        )
        return extract(teacher, images, views=views, progress=progress)

    classes = len(Farmyard("target", "train", 1).classes)
    return World(
        features("source", "unlabelled", num_source, views=3),
        features("target", "train", per_class * classes, seed=seed),
        features("target", "unlabelled", num_unlabelled),
        features("target", "val", num_val, views=1),
        features("target", "test", num_test, views=1, background=background),
    )


def train_student(
    world: World,
    bank: PrototypeBank | None,
    augment: AugmentConfig | None,
    config: DistillConfig,
    *,
    teacher: bool = True,
    on: str = "test",
    start: Mapping[str, torch.Tensor] | None = None,
    callbacks: tuple[Callback, ...] = (),
    progress: bool = False,
) -> tuple[Student, History]:
    """Train one student of the default size on the world's labelled images and score it.

    Args:
        world: images and features.
        bank: prototypes; None for rivals that use none.
        augment: None trains the plain prediction only.
        config: its seed is also that of the initial weights.
        teacher: False learns from labels alone.
        on: ``"val"`` while tuning, ``"test"`` once at the end.
        start: weights to start from, such as those of a label-free first stage.
        callbacks: see :func:`prockd.distill`.
        progress: show a progress bar.
    """
    student = Student(
        STUDENT, world.task, bank, augment=augment, image_px=world.labelled.images.image_px, seed=config.seed,
        **STUDENT_KWARGS,
    )  # fmt: skip
    if start is not None:
        kept = {k: v for k, v in start.items() if k.startswith(("backbone.", "adapter."))}
        student.load_state_dict(student.state_dict() | kept)
    scored: PatchFeatures = getattr(world, on)
    history = distill(
        student, world.labelled.images, config=config, val=scored.images, callbacks=callbacks, progress=progress,
        teacher=world.labelled if teacher else None,
        unlabelled=world.unlabelled if teacher and config.unlabelled_batch else None,
    )  # fmt: skip
    return student, history
