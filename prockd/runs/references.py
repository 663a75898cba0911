"""What stands beside a contest without a student: trivial answers below, what is read of the teacher above."""

from typing import Any

import numpy as np
import torch

from prockd.devices import on_device
from prockd.prototypes.bank import PrototypeBank
from prockd.runs.students import make_student
from prockd.runs.world import World
from prockd.settings.method import DistillConfig
from prockd.students.student import Student
from prockd.tasks.task import Decoded
from prockd.training.batches import Source
from prockd.training.loop import read_teacher
from prockd.training.processes import connect
from prockd.training.readings import patches_of, whole

FLOOR, CEILING = "floor", "ceiling"
READS = {"mean": "the teacher, mean of patches", "part_maps": "the teacher, part maps"}
"""Readings of whole images in closed form; other tasks have a head of their own on the teacher's patches."""


def references(world: World, bank: PrototypeBank | None, config: DistillConfig, on: str) -> list[dict[str, Any]]:
    """One row each: name, group, what it is, and its score on a set, by the same labelled images as the students'."""
    task, images = world.task, world.images(on)
    trivial = task.trivial(world.images("train"), len(images))
    rows = [
        {"arm": name, "group": FLOOR, "told": "Looks at no image.", "z": task.score(predicted, images).value}
        for name, predicted in trivial.items()
    ]
    if bank is None:
        return rows
    reads = READS if task.pooled else {"mean": "the teacher, the task's head"}
    for kind, name in reads.items():
        value = teacher_score(world, bank, config.replace(soft_reads=kind), on)
        rows.append({"arm": name, "group": CEILING, "told": "Fitted to the teacher's own patches.", "z": value})
    return rows


def teacher_score(world: World, bank: PrototypeBank, config: DistillConfig, on: str) -> float:
    """What a reading of the teacher's patches scores: of whole images in closed form, of places by a trained head."""
    student, processes = make_student(world, bank, seed=config.seed), connect(cpu=world.cpu)
    train = Source(
        world.images("train"), world.embedded("train", bank), bank, task=world.task, min_crop=config.min_crop,
        flip=config.flip,
    )  # fmt: skip
    asked = config.replace(soft_weight=1.0, soft_steps=config.steps)
    with on_device(processes.device, student):
        reading = read_teacher(student, train, asked, processes)
        assert reading is not None
        shown = Source(world.images(on), world.embedded(on, bank), bank, task=world.task, flip=False)
        return world.task.score(decoded(reading, shown, student), shown.images).value


@torch.no_grad()
def decoded(reading: torch.nn.Module, source: Source, student: Student) -> Decoded:
    """What a reading predicts of whole images, as people read it."""
    reading.eval()
    parts: list[Any] = [
        student.task.decode(reading(patches_of(batch)), source.images.image_px)
        for batch in whole(source, np.arange(len(source.images)), student, mirrored=False)
    ]
    return np.concatenate(parts) if isinstance(parts[0], np.ndarray) else [one for part in parts for one in part]
