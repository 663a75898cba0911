"""What measured well for each task on validation images (benchmarks/results/search.md): one place for all defaults."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from prockd.settings.experiment import FARMYARD, NO_TEACHER, ExperimentConfig
from prockd.settings.knobs import ConfigError
from prockd.settings.method import DistillConfig
from prockd.tasks import TASKS


def alone(taught: DistillConfig, lr: float) -> DistillConfig:
    """The same training from labels alone: as many steps and images, nothing of the teacher, a rate of its own."""
    return taught.replace(
        batch_size=taught.batch_size + taught.unlabelled_batch, unlabelled_batch=0, feature_weight=0.0,
        assignment_weight=0.0, soft_weight=0.0, teacher_branch_weight=0.0, lr=lr,
    )  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """How a student of a task is made and trained, and which of Farmyard's images it learns from.

    Attributes:
        student: changes to :class:`prockd.settings.StudentConfig`.
        distill: training with a teacher.
        alone: training from labels alone; its learning rate is the better one there.
        teacher_px: side at which Farmyard's teacher sees the images; 0 for the side it was trained at.
        farmyard: keyword arguments of :class:`prockd.Farmyard`: which pictures, and what their labels are.
        per_class: labelled Farmyard images of each species.
    """

    student: Mapping[str, Any] = field(default_factory=dict)
    distill: DistillConfig = field(default_factory=DistillConfig)
    alone: DistillConfig = field(default_factory=lambda: alone(DistillConfig(), 64e-3))
    teacher_px: int = 0
    farmyard: Mapping[str, Any] = field(default_factory=dict)
    per_class: int = 30


DENSE = DistillConfig(steps=300, feature_weight=30.0, soft_weight=1.0)
"""Lighter transfer: a map needs more of the gradient for the task than one answer an image does."""

POSES = DENSE.replace(lr=32e-3, feature_weight=100.0)
"""PCK of 300 validation images: with feature_weight 30 .836 at 8e-3 and .864 at 16e-3; with 100 .861 at 8e-3, .883 and
.878 (two seeds) at 16e-3, .883 at 24e-3, .902 at 32e-3. Labels alone (24 images) .597 at 4e-3, .658 at 8e-3, .702 and
.706 at 16e-3, .706 and .731 at 24e-3, .719 at 32e-3 (.713 with 48). The mean pose .093, a ridge on the teacher's
patches .927."""

BOXES = DistillConfig(steps=900, batch_size=12, unlabelled_batch=12, lr=8e-3, recoloured=0.5, min_crop=0.3)
"""Scenes are few and their animals small: many steps, other colours, and crops that enlarge."""


RECIPES: Mapping[str, Recipe] = {
    "classification": Recipe(alone=alone(DistillConfig(), 64e-3)),
    "segmentation": Recipe(distill=DENSE, alone=alone(DENSE, 16e-3), farmyard={"labels": "parts"}, per_class=5),
    "detection": Recipe(
        student={"image_px": 144},
        distill=BOXES.replace(
            feature_weight=40.0, soft_weight=0.0, teacher_branch_weight=1.0, teacher_reads="patches",
        ),
        alone=alone(BOXES, 14e-3),
        teacher_px=192,
        farmyard={"kind": "scene"},
        per_class=10,
    ),
    "keypoints": Recipe(distill=POSES, alone=alone(POSES, 32e-3), farmyard={"labels": "joints"}, per_class=5),
}  # fmt: skip
"""By the kind of task; a task without a recipe is trained as :func:`recipe_of` says."""


def recipe_of(kind: str) -> Recipe:
    """The recipe of a task; one that has none is trained like the task that learns from the same kind of data."""
    if kind not in TASKS:
        raise ConfigError(f"task.kind = {kind!r}: choose one of {', '.join(map(repr, TASKS))}")
    return RECIPES.get(kind, RECIPES[TASKS[kind].data])


def alone_beside(kind: str, distill: DistillConfig) -> DistillConfig:
    """How labels alone are trained beside a run with a teacher: the recipe that is best for them, at the same budget.

    The same start, steps, images a step (all of them labelled), order, crops and colours.
    """
    same = ("steps", "seed", "min_crop", "flip", "recoloured", "mixed_precision")
    images = distill.batch_size + distill.unlabelled_batch
    return recipe_of(kind).alone.replace(batch_size=images, **{name: getattr(distill, name) for name in same})


def fallback(config: ExperimentConfig) -> ExperimentConfig:
    """The settings where there are no unlabelled images: a recipe's steps then take as many more labelled ones.

    Another ``distill.unlabelled_batch`` than the recipe's own was asked for: labelled images are then used again.
    """
    distill = config.distill
    if distill.unlabelled_batch != recipe_of(config.task.kind).distill.unlabelled_batch:
        return config
    images = distill.batch_size + distill.unlabelled_batch
    return replace(config, distill=distill.replace(batch_size=images, unlabelled_batch=0))


def task_settings(kind: str = "classification", *, preset: str = "best", teacher: str = FARMYARD) -> ExperimentConfig:
    """The settings of a preset for a task: ``"best"`` trains as measured best for this task on Farmyard.

    Args:
        kind: of task, a key of ``prockd.tasks.TASKS``.
        preset: ``"best"`` or ``"paper"``.
        teacher: its name; what is best from labels alone may be something else, and Farmyard's has a size a task.

    Raises:
        ConfigError: there is no such preset or task.

    >>> task_settings("segmentation").distill.steps
    300
    """
    config, recipe = ExperimentConfig.preset(preset), recipe_of(kind)
    config = replace(config, task=config.task.replace(kind=kind))
    if preset != "best":
        return config
    return replace(
        config,
        teacher=config.teacher.replace(image_px=recipe.teacher_px) if teacher == FARMYARD else config.teacher,
        student=config.student.replace(**recipe.student),
        distill=recipe.alone if teacher == NO_TEACHER else recipe.distill,
    )
