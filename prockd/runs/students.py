"""Students of a world: prototypes for them, their start, their training, and what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from prockd.evaluation.scores import Scores
from prockd.prototypes.bank import PrototypeBank
from prockd.prototypes.discovery import discover
from prockd.runs.recipes import recipe_of
from prockd.runs.world import World
from prockd.settings.method import DistillConfig, FeatureAugmentationConfig
from prockd.students.student import Student
from prockd.training.loop import History, distill
from prockd.training.processes import Processes


@dataclass(frozen=True, eq=False)
class Run:
    """What a run has made.

    Attributes:
        world: its settings, images, task and features.
        bank: prototypes; None without a teacher.
        student: trained.
        history: of the training; its scores are of the test images.
        alone: of labels alone, trained beside it at the same budget; None where nobody did.
    """

    world: World
    bank: PrototypeBank | None
    student: Student
    history: History
    alone: History | None = None

    @property
    def scores(self) -> Scores | None:
        """On the test images, after the last step; None where a callback stopped it."""
        return self.history.scores


def find_prototypes(
    world: World, bank: str | Path | None = None, *, progress: bool = True, processes: Processes | None = None
) -> PrototypeBank:
    """The prototypes of a file, or those that the world's settings find now, by one process or several together.

    Raises:
        ValueError: a file that cannot be read, or prototypes of another teacher than the world's.
    """
    if bank is None:
        several = processes is not None and processes.count > 1
        source = world.by_shares(processes, lambda: world.source) if processes is not None else world.source
        return discover(source, config=world.config.discover, progress=progress, together=several)
    found, teacher = PrototypeBank.load(bank), world.teacher
    if teacher is not None and found.teacher not in ("", teacher.fingerprint):
        raise ValueError(
            f"{bank} holds prototypes of another teacher ({found.teacher[:8]}) than {teacher.name!r} "
            f"({teacher.fingerprint[:8]}), as an older prockd shipped one: find them anew, in a new --run-dir "
            "and without --bank, or pass that teacher's weights"
        )
    return found


def make_student(
    world: World,
    bank: PrototypeBank | None,
    feature_augmentation: FeatureAugmentationConfig | None = None,
    *,
    seed: int = 0,
) -> Student:
    """A new student of the world's settings; without a bank it has no augmentation."""
    s = world.config.student
    return Student(
        s.backbone, world.task, bank, feature_augmentation=feature_augmentation if bank is not None else None,
        layers=s.layers or None, grid=s.grid or None, image_px=s.image_px, weights=s.weights or None, seed=seed,
        **s.options,
    )  # fmt: skip


def teach(
    world: World,
    student: Student,
    config: DistillConfig | None = None,
    *,
    teacher: bool = True,
    on: str = "test",
    progress: bool = False,
    **options: Any,
) -> History:
    """Train a student on the world's labelled images, with the teacher's features or without, and score it.

    Args:
        world: images, features and task.
        student: changed in place.
        config: None is the settings' own, with a teacher or without.
        teacher: False learns from labels alone.
        on: "val" while tuning, "test" once at the end.
        progress: show a progress bar.
        options: passed on to :func:`prockd.distill`: ``run_dir``, ``resume``, ``callbacks``, ...
    """
    teacher = teacher and world.is_taught
    config = config or (world.config.distill if teacher else recipe_of(world.config.task.kind).alone)
    return distill(
        student, world.images("train"), config=config, val=world.images(on), cpu=world.cpu, progress=progress,
        features=world.teacher_input("train", config, student.bank) if teacher else None,
        unlabelled=(
            world.teacher_input("unlabelled", config, student.bank) if teacher and config.unlabelled_batch else None
        ),
        **options,
    )  # fmt: skip


def train_student(
    world: World,
    bank: PrototypeBank | None = None,
    feature_augmentation: FeatureAugmentationConfig | None = None,
    config: DistillConfig | None = None,
    *,
    start: Mapping[str, torch.Tensor] | None = None,
    **options: Any,
) -> tuple[Student, History]:
    """Make a student of the world's settings and teach it: :func:`make_student`, then :func:`teach`.

    Args:
        world: images, features and task.
        bank: prototypes; None for rivals that use none.
        feature_augmentation: None trains the plain prediction only.
        config: its seed is also that of the initial weights.
        start: weights to start from, such as those of a label-free first stage.
        options: see :func:`teach`.
    """
    student = make_student(world, bank, feature_augmentation, seed=0 if config is None else config.seed)
    if start is not None:
        kept = {k: v for k, v in start.items() if k.startswith(("backbone.", "adapter."))}
        student.load_state_dict(student.state_dict() | kept)
    return student, teach(world, student, config, **options)
