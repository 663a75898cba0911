"""Students as the arms of a contest make them: another teacher, another bank, or one's own answers as labels."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F

from prockd.prototypes.bank import PrototypeBank
from prockd.prototypes.discovery import discover, draw_patches, read_patches
from prockd.runs.arms import ARMS, Arm
from prockd.runs.pseudo_labels import joined, pseudo_labelled
from prockd.runs.students import make_student, teach
from prockd.runs.world import World, make_teacher
from prockd.settings.experiment import ExperimentConfig
from prockd.settings.method import DiscoverConfig, DistillConfig
from prockd.students.student import Student
from prockd.teachers.teacher import Teacher
from prockd.training.loop import Callback, History


def train_arm(
    world: World,
    arm: Arm | str,
    config: ExperimentConfig,
    bank: PrototypeBank | None = None,
    *,
    on: str = "test",
    watch: Callable[[Student], Callback] | None = None,
    **options: Any,
) -> tuple[Student, History]:
    """Train one student as an arm of a contest does, with settings of one's own.

    Args:
        world: images, task and teacher; for a random teacher that of :func:`arm_world`.
        arm: the arm, or the name of one that ships.
        config: all settings, as :meth:`Arm.settings` gives them; data, task and teacher stay those of the world.
        bank: changed where the settings train it; None finds what the arm reads.
        on: "val" while tuning, "test" once at the end.
        watch: makes a callback for the student that is trained.
        options: see :func:`teach`; those of checkpoints do not go together with pseudo-labels.

    Raises:
        ValueError: the arm needs a teacher, or its weights, and there is none.
    """
    arm, world = ARMS[arm] if isinstance(arm, str) else arm, copy.copy(world)
    if arm.teacher != "none" and not world.is_taught:
        raise ValueError(f"{arm.name!r} learns from a teacher, and this world has none: choose one of labels alone")
    if arm.is_teacher and world.teacher is None:
        raise ValueError(f"{arm.name!r} begins with the teacher's weights, and this world has its features alone")
    world.config = replace(
        world.config, discover=config.discover, feature_augmentation=config.feature_augmentation, distill=config.distill
    )
    if bank is None and world.is_taught and arm.bank != "none":
        bank = find_bank(world, arm.bank, config.discover)
    student = begun(world, arm, bank, config.distill.seed, world.teacher)
    return finished(world, student, arm, bank, on=on, watch=watch, **options)


def arm_world(world: World, arm: Arm | str) -> World:
    """The world that an arm learns in: the same one, but for an arm of a random teacher.

    Raises:
        ValueError: the arm is of a random teacher, and the settings name none.
    """
    arm = ARMS[arm] if isinstance(arm, str) else arm
    if arm.teacher != "random":
        return world
    if (teacher := make_teacher(world.config.teacher)) is None:
        raise ValueError(f"{arm.name!r} draws the teacher's weights anew, and teacher.name is 'none'")
    return world.with_teacher(randomised(teacher))


def randomised(teacher: Teacher) -> Teacher:
    """A copy of the network with random weights, always the same."""
    teacher = copy.deepcopy(teacher)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        for module in teacher.backbone.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
    return teacher.requires_grad_(False)


def find_bank(
    world: World, kind: str, config: DiscoverConfig, *, stop: Callable[[], bool] | None = None
) -> PrototypeBank:
    """Prototypes of the world's source, or with another ``kind`` (of ``Arm.bank``) what stands in their place."""
    bank = discover(world.source, config=config, progress=False, stop=stop)
    if kind != "prototypes":
        replace_prototypes(bank, world.source, kind, config)
    return bank


@torch.no_grad()
def replace_prototypes(bank: PrototypeBank, source: Any, kind: str, config: Any) -> None:
    """Random patches of the teacher, or random directions, in the place of the prototypes; the space stays.

    The assignment is NetVLAD's own: softmax_k(-s |u - c_k|^2), that is w_k = 2 s c_k, b_k = -s |c_k|^2.
    """
    generator = torch.Generator().manual_seed(config.seed)
    if kind == "random patches":
        drawn = draw_patches(source, 10 * bank.num_prototypes, config.seed)
        patches = torch.cat([views[0] for views in read_patches(source, drawn)])
        rows = torch.randperm(len(patches), generator=generator)[: bank.num_prototypes]
        centres = bank.embed(patches[rows].T[None, ..., None])[0]
    else:
        centres = torch.randn(bank.prototypes.shape, generator=generator)
    centres = F.normalize(centres, dim=-1)
    bank.prototypes.copy_(centres)
    bank.assigner.weight.copy_(2 * config.sharpness * centres)
    bank.assigner.bias.copy_(-config.sharpness * centres.square().sum(1))


def begun(world: World, arm: Arm, bank: PrototypeBank | None, seed: int, teacher: Teacher | None) -> Student:
    """A new student; its backbone, adapter and head are the same for every arm of a seed."""
    if arm.is_teacher and teacher is not None:
        side = world.config.student.image_px
        student = Student(teacher.architecture, world.task, bank, image_px=side, seed=seed, **teacher.timm_kwargs)
        student.backbone.load_state_dict(teacher.backbone.state_dict(), strict=False)  # without layers behind the last
        student.mean.copy_(teacher.mean)
        student.std.copy_(teacher.std)
        return student
    if bank is None:  # as wide as with one
        settings = world.config.student
        options = {**settings.options, "embed_dim": world.config.discover.embed_dim}
        world.config = replace(world.config, student=settings.replace(options=options))
    augmentation = world.config.feature_augmentation if arm.augmented else None
    return make_student(world, bank, augmentation, seed=seed)


def finished(
    world: World, student: Student, arm: Arm, bank: PrototypeBank | None, *,
    watch: Callable[[Student], Callback] | None = None, callbacks: Sequence[Callback] = (), **options: Any,
) -> tuple[Student, History]:  # fmt: skip
    """The student that was begun, taught by the world's settings; of pseudo-labels a second one."""

    def learn(student: Student, world: World, config: DistillConfig) -> History:
        calls = callbacks if watch is None else (*callbacks, watch(student))
        return teach(world, student, config, teacher=arm.teacher != "none", callbacks=calls, **options)

    if arm.pseudo:
        return self_trained(world, student, arm, bank, learn)
    return student, learn(student, world, world.config.distill)


def self_trained(
    world: World, student: Student, arm: Arm, bank: PrototypeBank | None,
    learn: Callable[[Student, World, DistillConfig], History],
) -> tuple[Student, History]:  # fmt: skip
    """Half of the steps on labels, then a new student for the rest, on these and on the first one's own answers."""
    config = world.config.distill
    first, second = config.replace(steps=max(1, config.steps // 2)), config.replace(steps=max(1, -(-config.steps // 2)))
    history = learn(student, world, first)
    if history.stopped:
        return student, history
    images = joined(world.images("train"), pseudo_labelled(student, world.images("unlabelled")))
    again = copy.copy(world)
    again._images = {**world._images, "train": images}
    student = begun(again, arm, bank, config.seed, None)
    return student, learn(student, again, second)
