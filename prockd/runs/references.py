"""What stands beside a contest without a student: trivial answers below, what is read of the teacher above."""

from typing import Any

import numpy as np
import torch

from prockd.devices import on_device
from prockd.evaluation.pose_probe import ridge_pose
from prockd.prototypes.bank import PrototypeBank
from prockd.runs.students import make_student
from prockd.runs.world import World
from prockd.settings.method import DistillConfig
from prockd.tasks import KeyPoints
from prockd.training.batches import Source, patches_of
from prockd.training.loop import read_teacher
from prockd.training.processes import connect
from prockd.training.readings import teacher_probe, whole

FLOOR, CEILING = "floor", "ceiling"


def reference_rows(world: World, bank: PrototypeBank | None, config: DistillConfig, on: str) -> list[dict[str, Any]]:
    """One row each: name, group, what it is, and its score on a set, by the same labelled images as the students'.

    Args:
        world: images, task and teacher.
        bank: in whose space the teacher's patches are read; None leaves the teacher out.
        config: the students'; its steps are those of a head on the teacher's patches.
        on: the set that is scored, "test" or "val".
    """
    task, images = world.task, world.images(on)
    rows = [
        {"arm": name, "group": FLOOR, "told": "Looks at no image.", "z": task.score(predicted, images).value}
        for name, predicted in task.trivial(world.images("train"), len(images)).items()
    ]
    return rows if bank is None else rows + [
        {"arm": name, "group": CEILING, "told": "Fitted to the teacher's own patches.", "z": value}
        for name, value in teacher_scores(world, bank, config, on).items()
    ]  # fmt: skip


def teacher_scores(world: World, bank: PrototypeBank, config: DistillConfig, on: str) -> dict[str, float]:
    """What readings of the teacher's patches score: in closed form where there is one, else by the task's own head."""
    task, train, unseen = world.task, world.embedded("train", bank), world.embedded(on, bank)
    if task.pooled:
        reads = {"mean of patches": "mean", "part maps": "part_maps"}
        return {f"the teacher, {n}": teacher_probe(task, bank, train, unseen, kind) for n, kind in reads.items()}
    found = {"the teacher, the task's head": head_score(world, bank, config, on)}
    if isinstance(task, KeyPoints):
        pose = ridge_pose(task, train, unseen)
        found["the teacher, ridge of patches"] = task.score(pose, unseen.images).value
    return found


@torch.no_grad()
def head_score(world: World, bank: PrototypeBank, config: DistillConfig, on: str) -> float:
    """The score of a head like the student's, trained on the teacher's patches of the labelled images."""
    task, student, processes = world.task, make_student(world, bank, seed=config.seed), connect(cpu=world.cpu)
    how: dict[str, Any] = {"bank": bank, "task": task, "min_crop": config.min_crop}
    train = Source(world.images("train"), world.embedded("train", bank), flip=config.flip, **how)
    shown = Source(world.images(on), world.embedded(on, bank), flip=False, **how)
    with on_device(processes.device, student):
        with torch.enable_grad():
            reading = read_teacher(student, train, config.replace(soft_weight=1.0, soft_steps=config.steps), processes)
        assert reading is not None
        reading.eval()
        parts: list[Any] = [
            task.decode(reading(patches_of(batch)), shown.images.image_px)
            for batch in whole(shown, np.arange(len(shown.images)), student, mirrored=False)
        ]
    joined = np.concatenate(parts) if isinstance(parts[0], np.ndarray) else [one for part in parts for one in part]
    return task.score(joined, shown.images).value
