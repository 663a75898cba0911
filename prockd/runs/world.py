"""The four stages on Farmyard, joined once for any task: what the demo, the notebooks and the benchmarks all run."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from prockd.datasets import pack
from prockd.evaluation.probe import linear_probe, pooled
from prockd.farmyard import Farmyard
from prockd.prototypes.bank import PrototypeBank
from prockd.settings.method import DistillConfig, FeatureAugmentationConfig
from prockd.students.student import Student
from prockd.tasks import Classification, Detection, Segmentation, Task
from prockd.teachers.features import PatchFeatures, extract
from prockd.teachers.teacher import Teacher
from prockd.training.loop import Callback, History, distill

STUDENT = "resnet10t"
STUDENT_KWARGS: Mapping[str, Any] = {"channels": (16, 40, 80, 128), "stem_width": 8}
"""A residual network of 0.39 M parameters: less than a tenth of the Farmyard teacher."""


@dataclass(frozen=True)
class Recipe:
    """A student and a training that measured well for a task on the validation split (benchmarks/results/search.md).

    Attributes:
        backbone: timm's name of the student.
        options: timm's options, and those of :class:`prockd.Student` but its bank and augmentation.
        distill: steps, weights and learning rate.
        alone: the same without a teacher; its learning rate is the better one there.
        teacher_px: side at which Farmyard's teacher sees the images; None for the side it was trained at.
    """

    backbone: str = STUDENT
    options: Mapping[str, Any] = field(default_factory=lambda: STUDENT_KWARGS)
    distill: DistillConfig = field(default_factory=DistillConfig)
    alone: DistillConfig = field(default_factory=DistillConfig)
    teacher_px: int | None = None


DENSE = DistillConfig(steps=300, batch_size=24, assignment_weight=3.0, feature_weight=10.0)
"""Lighter transfer: a map needs more of the gradient for the task than one answer an image does."""

BOXES = DistillConfig(steps=900, batch_size=24, lr=8e-3, recoloured=0.5, min_crop=0.3)
"""Scenes are few and their animals small: many steps, other colours, and crops that enlarge."""

RECIPES: Mapping[str, Recipe] = {
    "classification": Recipe(),
    "segmentation": Recipe(distill=DENSE, alone=DENSE),
    "detection": Recipe(
        options={**STUDENT_KWARGS, "image_px": 144},
        distill=BOXES.replace(
            batch_size=12,
            unlabelled_batch=12,
            assignment_weight=0.0,
            feature_weight=40.0,
            teacher_branch_weight=1.0,
            teacher_reads="patches",
        ),
        alone=BOXES.replace(lr=14e-3),
        teacher_px=192,
    ),
}
"""By the name of a Farmyard task."""


@dataclass(frozen=True, eq=False)
class World:
    """Every image set of an experiment, with the teacher's features where the teacher may look.

    Attributes:
        source: images of the teacher's own kind, for discovery; their labels are not used.
        labelled: the task's labelled images.
        unlabelled: more images of the task's kind, labels hidden.
        val: for tuning.
        test: for the last number only.
        learned: the task; None is classification of the labelled images.
        recipe: which student learns it, and how.
    """

    source: PatchFeatures
    labelled: PatchFeatures
    unlabelled: PatchFeatures
    val: PatchFeatures
    test: PatchFeatures
    learned: Task | None = None
    recipe: Recipe = RECIPES["classification"]

    @property
    def task(self) -> Task:
        """What the student learns."""
        classes = tuple(self.labelled.images.classes)
        return self.learned or Classification(len(classes), classes)

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


def farmyard_task(name: str, classes: tuple[str, ...]) -> Task:
    """The task of this name.

    Raises:
        ValueError: there is no such task; the message lists them.
    """
    if name == "classification":
        return Classification(len(classes), classes)
    if name == "segmentation":
        return Segmentation(len(classes), classes)
    if name == "detection":
        return Detection(len(classes), classes)
    raise ValueError(f"task={name!r}: Farmyard has {', '.join(map(repr, RECIPES))}")


def farmyard_world(
    teacher: Teacher,
    *,
    task: str = "classification",
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

    Args:
        teacher: whose features are extracted; animals of a scene are half as large as those that Farmyard's learned, so
            one that reads 192 px sees them better.
        task: "classification" of species, "segmentation" of parts, or "detection" of species in scenes.
        per_class: labelled images of each of the 10 species; for detection a tenth of the scenes.
        num_source: images of the teacher's own species; scenes for detection.
        num_unlabelled: unlabelled images of the target species.
        num_val: images for tuning.
        num_test: images for the last number.
        seed: changes which images are labelled; the other sets stay the same.
        background: of the test set only.
        progress: show progress bars.
    """
    kind = "scene" if task == "detection" else "single"
    target = functools.partial(Farmyard, "target", labels="parts" if task == "segmentation" else "species", kind=kind)
    one = target("train", 1)

    def features(images: Farmyard, views: int) -> PatchFeatures:
        return extract(teacher, pack(images, teacher.image_px, progress=progress), views=views, progress=progress)

    return World(
        features(Farmyard("source", "unlabelled", num_source, kind=kind), 3),
        features(target("train", per_class * len(one.species), seed=seed), 2),
        features(target("unlabelled", num_unlabelled), 2),
        features(target("val", num_val), 1),
        features(target("test", num_test, background=background), 1),
        farmyard_task(task, one.classes),
        RECIPES[task],
    )


def train_student(
    world: World,
    bank: PrototypeBank | None,
    augmentation: FeatureAugmentationConfig | None,
    config: DistillConfig | None = None,
    *,
    teacher: bool = True,
    on: str = "test",
    start: Mapping[str, torch.Tensor] | None = None,
    callbacks: tuple[Callback, ...] = (),
    progress: bool = False,
) -> tuple[Student, History]:
    """Train one student of the world's recipe on its labelled images and score it.

    Args:
        world: images, features and task.
        bank: prototypes; None for rivals that use none.
        augmentation: None trains the plain prediction only.
        config: its seed is also that of the initial weights; None is the recipe's, with or without a teacher.
        teacher: False learns from labels alone.
        on: ``"val"`` while tuning, ``"test"`` once at the end.
        start: weights to start from, such as those of a label-free first stage.
        callbacks: see :func:`prockd.training.loop`.
        progress: show a progress bar.
    """
    recipe = world.recipe
    config = config or (recipe.distill if teacher else recipe.alone)
    options = {"image_px": world.labelled.images.image_px, "seed": config.seed, **recipe.options}
    student = Student(recipe.backbone, world.task, bank, feature_augmentation=augmentation, **options)
    if start is not None:
        kept = {k: v for k, v in start.items() if k.startswith(("backbone.", "adapter."))}
        student.load_state_dict(student.state_dict() | kept)
    scored: PatchFeatures = getattr(world, on)
    history = distill(
        student, world.labelled.images, config=config, val=scored.images, callbacks=callbacks, progress=progress,
        features=world.labelled if teacher else None,
        unlabelled=world.unlabelled if teacher and config.unlabelled_batch else None,
    )  # fmt: skip
    return student, history
