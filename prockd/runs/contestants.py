"""One run of a contest: its world, its prototypes, its student, and the line that tells what came of it."""

import copy
import hashlib
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prockd.cache import digest
from prockd.devices import default_device
from prockd.evaluation.scores import Scores
from prockd.locks import claim, release
from prockd.prototypes.bank import PrototypeBank
from prockd.prototypes.part_maps import PartMaps
from prockd.runs.arm_students import begun, find_bank, finished, randomised
from prockd.runs.arms import ARMS, OURS, Arm
from prockd.runs.folder import git_commit
from prockd.runs.plan import TUNE_SEED, Job, Plan
from prockd.runs.references import reference_rows
from prockd.runs.world import World, make_teacher, open_world
from prockd.settings.experiment import FARMYARD, ExperimentConfig
from prockd.students.student import Student
from prockd.teachers.embedded import EmbeddedFeatures
from prockd.teachers.teacher import Teacher
from prockd.training.controls import control_readings
from prockd.training.loop import NonFiniteLossError


class Worlds:
    """The worlds and prototypes of a contest, in one process: each is opened once, and the last two are kept."""

    def __init__(self, plan: Plan, folder: Path, *, cpu: bool = False) -> None:
        self.plan, self.folder, self.cpu = plan, folder, cpu
        self._teachers: dict[str, Teacher | None] = {}
        self._opened: dict[tuple[str, int], World] = {}

    def teacher(self, kind: str) -> Teacher | None:
        """The teacher of the settings, or the same network with random weights, always the same."""
        if kind not in self._teachers:
            teacher = make_teacher(self.plan.config.teacher)
            self._teachers[kind] = randomised(teacher) if teacher is not None and kind == "random" else teacher
        return self._teachers[kind]

    def world(self, kind: str, seed: int) -> World:
        """Images and features; the seed draws which images are labelled, and never what is tuned or scored on."""
        kind = "random" if kind == "random" else "trained"  # labels alone see what the teacher's students see
        if (kind, seed) not in self._opened:
            while len(self._opened) > 1:
                self._opened.pop(next(iter(self._opened)))
            self._opened[kind, seed] = self._open(kind, seed)
        return self._opened[kind, seed]

    def _open(self, kind: str, seed: int) -> World:
        config, teacher = self.plan.config, self.teacher(kind)
        data = config.data
        how: dict[str, Any] = {"cpu": self.cpu, "progress": False}
        if data.path == FARMYARD:
            seeded = replace(config, data=data.replace(seed=seed))
            return open_world(seeded, teacher=teacher, **how)
        world = open_world(replace(config, data=data.replace(per_class=0)), teacher=teacher, **how)
        world.config = replace(config, data=data.replace(per_class=0, seed=seed))
        return world.few(data.per_class) if data.per_class else world

    def check(self) -> None:
        """Refuse to begin without images to tune or to score on."""
        world = self.world("trained", TUNE_SEED)
        if self.plan.budget or self.plan.compare.on == "val":
            world.images("val")
        world.images(self.plan.compare.on)

    def prepare(self) -> None:
        """Find the prototypes that arms need, and extract what all processes would extract at once."""
        for arm in self.plan.arms.values():
            self.bank(arm, self.plan.settings(Job("told", arm.name, 0, 1e-3)))

    def bank(self, arm: Arm, config: ExperimentConfig) -> PrototypeBank | None:
        """The prototypes of an arm, found once for all seeds, without labels; its own copy, since it may train them."""
        kind = "random" if arm.teacher == "random" else "trained"
        teacher = self.teacher(kind)
        if teacher is None or arm.bank == "none":
            return None
        name = f"bank {digest([teacher.fingerprint, vars(config.discover), arm.bank])}"
        path, claims = self.folder / "banks" / f"{name[5:]}.safetensors", self.folder / "claims"
        while not path.is_file():
            if claim(claims, name):
                try:
                    if not path.is_file():
                        self._find(arm, config, path)
                finally:
                    release(claims, name)
            else:
                time.sleep(0.5)
        return PrototypeBank.load(path)

    def _find(self, arm: Arm, config: ExperimentConfig, path: Path) -> None:
        find_bank(self.world(arm.teacher, TUNE_SEED), arm.bank, config.discover).save(path)


def run_job(plan: Plan, job: Job, worlds: Worlds) -> dict[str, Any]:
    """Train and score one student; returns its line. A setting that diverges while tuning is one that scores nothing.

    Raises:
        NonFiniteLossError: a run whose number is to be told diverges.
    """
    try:
        return trained(plan, job, worlds)
    except NonFiniteLossError as error:
        if job.kind != "tune":
            raise
        row = {"job": job.key, "kind": job.kind, "arm": job.arm, "seed": job.seed, "lr": job.lr, "weight": job.weight}
        return row | {"on": "val", "z": 0.0, "z_plus": None, "readings": {}, "diverged": str(error)}


def trained(plan: Plan, job: Job, worlds: Worlds) -> dict[str, Any]:
    """The line of a run that ends."""
    arm, config = plan.arms[job.arm], plan.settings(job)
    on, began = "val" if job.kind == "tune" else plan.compare.on, time.process_time()
    world = copy.copy(worlds.world(arm.teacher, job.seed))
    world.config = replace(config, data=world.config.data)
    teacher, bank = worlds.teacher(arm.teacher), worlds.bank(arm, config)
    student = begun(world, arm, bank, job.seed, teacher)
    start, clock = digest_of(student), Clock()
    taught = arm.teacher != "none"
    student, history = finished(world, student, arm, bank, on=on, callbacks=(clock,))
    scores, seconds = history.scores, round(time.process_time() - began, 2)
    assert scores is not None
    row = {"job": job.key, "kind": job.kind, "arm": job.arm, "seed": job.seed, "lr": job.lr, "weight": job.weight}
    row |= {"on": on, "start": start, **score_facts(scores, world)}
    row["readings"] = readings_of(world, student, config, on) if job.kind == "told" else {}
    row |= {"steps": config.distill.steps, "images_a_step": config.distill.batch_size + config.distill.unlabelled_batch}
    row |= image_facts(world, on, config, arm) | cost_facts(world, student, config, taught)
    row |= {"cpu_ms_a_step": clock.milliseconds, "cpu_seconds": seconds, "device": device_name(worlds.cpu)}
    row["final"] = {k: v for k, v in history.rows[-1].items() if k not in ("step", "seconds", "lr")}
    return row | {"git": this_commit()}


def run_references(plan: Plan, job: Job, worlds: Worlds) -> dict[str, Any]:
    """Score what needs no student; returns its line."""
    world, distill = worlds.world("trained", job.seed), plan.config.distill.replace(seed=job.seed)
    bank = worlds.bank(ARMS[OURS], plan.config) if world.is_taught else None
    row = {"job": job.key, "kind": "reference", "seed": job.seed, "on": plan.compare.on, "git": this_commit()}
    return row | {"rows": reference_rows(world, bank, distill, plan.compare.on)}


def readings_of(world: World, student: Student, config: ExperimentConfig, on: str) -> dict[str, float]:
    """The controls of part maps in closed form, fitted to the same finished student; none for others."""
    maps, distill, bank = student.feature_augmentation, config.distill, student.bank
    if not isinstance(maps, PartMaps) or not maps.num_outputs or bank is None or distill.store == "none":
        return {}
    more = world.embedded("unlabelled", bank) if distill.unlabelled_batch else None
    return control_readings(
        student, world.embedded("train", bank), more, world.images(on), flip=distill.flip, seed=distill.seed
    )


@cache
def this_commit() -> str | None:
    """The commit that this process runs."""
    return git_commit(Path(__file__).parent)


def device_name(cpu: bool) -> str:
    """What a run is computed on: times of two kinds are not to be compared."""
    device = default_device(cpu=cpu)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()


class Clock:
    """A callback that counts the CPU time of the steps alone."""

    def __init__(self) -> None:
        self.first: tuple[int, float] | None = None
        self.milliseconds: float | None = None

    def __call__(self, step: int, row: dict[str, float]) -> None:
        """Note when a step ended."""
        now = time.process_time()
        if self.first is None or step <= self.first[0]:
            self.first = step, now
        else:
            self.milliseconds = round((now - self.first[1]) / (step - self.first[0]) * 1e3, 2)


def digest_of(student: Student) -> str:
    """Digest of the weights that every arm has: backbone, adapter and head."""
    found = hashlib.sha256()
    for key, value in student.state_dict().items():
        if key.startswith(("backbone.", "adapter.", "head.")):
            found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:12]


def score_facts(scores: Scores, world: World) -> dict[str, Any]:
    """The numbers of both predictions."""

    def named(values: Any) -> dict[str, float | None]:
        each = () if values is None else zip(world.task.names, values, strict=True)
        return {name: None if np.isnan(v) else round(float(v), 5) for name, v in each}

    return {
        "metric": scores.metric, "z": scores.plain, "z_plus": scores.augmented, "details": dict(scores.details),
        "details_plus": dict(scores.augmented_details), "per_class": named(scores.per_class),
        "per_class_plus": named(scores.augmented_per_class),
    }  # fmt: skip


def image_facts(world: World, on: str, config: ExperimentConfig, arm: Arm) -> dict[str, Any]:
    """How many images were read, and at which size."""
    more = len(world.images("unlabelled")) if config.distill.unlabelled_batch or arm.pseudo else 0
    again = more > 0 and "unlabelled" not in world.sets
    facts = {"labelled": len(world.images("train")), "unlabelled": more, "scored": len(world.images(on))}
    return facts | {"labelled_again": again}


def cost_facts(world: World, student: Student, config: ExperimentConfig, taught: bool) -> dict[str, Any]:
    """What the run took from a teacher, and what its student costs."""
    from prockd.runs.report import milliseconds  # it loads matplotlib

    names = ["train", *(["unlabelled"] if config.distill.unlabelled_batch else [])] if taught else []
    read = [world.teacher_input(name, config.distill, student.bank) for name in names]
    stored = {id(features): features for features in read if hasattr(features, "views")}.values()
    ms, ms_plus = milliseconds(student)
    return {
        "teacher_passes": sum(len(features) * len(features.views) for features in stored),
        "cache_bytes": sum(map(stored_bytes, stored)), "parameters": student.plain_parameters,
        "extra_parameters": student.extra_parameters, "ms_an_image": ms,
        "ms_an_image_plus": ms_plus if student.extra_parameters else None,
        "teacher_parameters": 0 if world.teacher is None else sum(p.numel() for p in world.teacher.parameters()),
        "image_px": student.image_px,
    }  # fmt: skip


def stored_bytes(features: Any) -> int:
    """Bytes on the disk of the features of these images."""
    if isinstance(features, EmbeddedFeatures):
        return int(features.maps[:1].nbytes * len(features))
    return sum(int(array.nbytes) for array in features.maps)
