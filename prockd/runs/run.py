"""One run from its settings, with a folder that keeps what it gave."""

import tempfile
import warnings
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from prockd.datasets import DatasetError, PackedImages, checked, classes_of, pack
from prockd.devices import device_for, fastest_precision
from prockd.evaluation.scores import Scores, evaluate
from prockd.locks import locked
from prockd.prototypes.bank import PrototypeBank
from prockd.runs.folder import begun_precision, check_run, kept, run_config, start_run, student_file
from prockd.runs.known import KnownImages
from prockd.runs.recipes import alone_beside
from prockd.runs.sets import opened, to_score_on
from prockd.runs.students import Run, find_prototypes, train_student
from prockd.runs.world import World, open_world
from prockd.settings.experiment import FARMYARD, ExperimentConfig
from prockd.students.student import Student
from prockd.tasks import TASKS
from prockd.training.loop import Callback
from prockd.training.processes import Processes, connect
from prockd.writing import WriteError


def run_experiment(
    config: ExperimentConfig,
    run_dir: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    bank: str | Path | None = None,
    baseline: bool = True,
    cpu: bool = False,
    checkpoint_every: int = 100,
    profile: bool = False,
    callbacks: tuple[Callback, ...] = (),
    progress: bool = True,
) -> Run:
    """Extract, discover, distill and score, and keep everything in one folder (see :mod:`prockd.runs.folder`).

    Then a second student learns from labels alone at the same budget, for the report's verdict: did the teacher help?

    Several processes share the teacher's passes and the steps; the first one packs and writes.

    Args:
        config: all settings.
        run_dir: the folder.
        resume: go on from its last checkpoint; ends in the same weights as a run that was never stopped.
        overwrite: start again in a folder that holds a run.
        bank: prototypes from an earlier run or ``prockd discover``, in place of finding them.
        baseline: train labels alone beside it (:func:`prockd.runs.recipes.alone_beside`); without them the question
            whether the teacher helped stays open, and the report says so.
        cpu: stay on the CPU even where there is a GPU.
        checkpoint_every: steps between checkpoints.
        profile: write where the time of each student's steps went, see :func:`prockd.distill`.
        callbacks: see :func:`prockd.distill`, of both students; one that returns True leaves a run to be resumed.
        progress: show progress bars.

    Returns:
        The run; it has scores unless a callback stopped it.

    Raises:
        RunFolderError: the folder holds another run, files that no run wrote, or the run was begun with other images.
        LockedError: another process works in it.
        WriteError: the disk is full, or nothing can be written there; what was kept is whole, and the message says
            where a finished student is.
        KeyboardInterrupt: with a note of what is kept.
        DatasetError: images that cannot be used.
        WeightsError: weights that cannot be found or do not fit.
    """
    folder, processes = Path(run_dir), connect(cpu=cpu)
    how: dict[str, Any] = {"resume": resume, "checkpoint_every": checkpoint_every, "profile": profile}
    how["callbacks"] = callbacks
    with locked(folder) if processes.is_main else nullcontext():
        try:
            with processes.main_first():  # the others find images packed
                begun = {"resume": resume, "overwrite": overwrite, "cpu": cpu}
                world, prototypes = begin(config, folder, bank, processes, progress=progress, **begun)
            if world.teacher is not None:
                prototypes = asked(world, prototypes, folder, processes)
            return trained(world, prototypes, folder, processes, baseline=baseline, progress=progress, **how)
        except (KeyboardInterrupt, WriteError) as stop:
            if told := kept(folder):
                stop.add_note(told)
            raise


def begin(
    config: ExperimentConfig,
    folder: Path,
    bank: str | Path | None,
    processes: Processes,
    *,
    resume: bool,
    overwrite: bool,
    cpu: bool,
    progress: bool,
) -> tuple[World, PrototypeBank | None]:
    """The world of a run and prototypes that are there; its folder is touched after what may be refused was read."""
    own, is_main, given = folder / "bank.safetensors", processes.is_main, bank
    if is_main:
        check_run(folder, config, resume=resume, overwrite=overwrite)
    goes_on = resume and not overwrite
    known = KnownImages.read(folder) if goes_on and (folder / "images.json").is_file() else None
    if known is not None and config.teacher.pretrained:  # a run keeps no copy: it may be gigabytes
        where = "asked for at the hub again, or taken from its cache; --teacher-weights FILE asks nobody"
        warnings.warn(
            f"{folder}: teacher.pretrained = true, so weights of {config.teacher.name} are {where}", stacklevel=3
        )
    world = open_world(config if known is None else known.placed(config), cpu=cpu, progress=progress and is_main)
    if world.precision == "auto" and world.teacher is not None:
        begun = None if is_main and not goes_on else begun_precision(folder)
        world.precision = begun or fastest_precision(device_for(world.teacher, "cpu" if cpu else None))
    if goes_on and own.is_file():
        given = own
    prototypes = None if world.teacher is None or given is None else find_prototypes(world, given)
    if is_main:
        now = KnownImages.of(world)
        if known is not None:
            known.check(now, folder)
        start_run(folder, config, precision=world.precision, resume=resume, overwrite=overwrite)
        now.write(folder)
    return world, prototypes


def asked(world: World, prototypes: PrototypeBank | None, folder: Path, processes: Processes) -> PrototypeBank:
    """The prototypes of a run, and the teacher's part of what it learns from: each process makes a share of them."""
    own, distill = folder / "bank.safetensors", world.config.distill
    if prototypes is None:
        prototypes = find_prototypes(world, progress=world.progress, processes=processes)
    if processes.is_main:
        prototypes.save(own, overwrite=True)
    with processes.main_first():
        prototypes = find_prototypes(world, own)  # the same to the last bit in each of them
    for name in ("train", *(["unlabelled"] if distill.unlabelled_batch else [])):
        world.by_shares(processes, partial(world.teacher_input, name, distill, prototypes))
    return prototypes


def trained(
    world: World,
    prototypes: PrototypeBank | None,
    folder: Path,
    processes: Processes,
    *,
    baseline: bool,
    progress: bool,
    **how: Any,
) -> Run:
    """The students of a run, and its report."""
    config, distill = world.config, world.config.distill
    student, history = train_student(
        world, prototypes, config.feature_augmentation, distill, run_dir=folder, progress=progress, **how
    )
    if history.stopped:
        return Run(world, prototypes, student, history)
    if processes.is_main:
        keep(student, folder / "student.safetensors")
    run = Run(world, prototypes, student, history)
    if baseline and prototypes is not None:
        alone, beside = train_student(
            world, prototypes, None, alone_beside(config.task.kind, distill), teacher=False,
            run_dir=folder / "baseline", progress=progress, **how,
        )  # fmt: skip
        run = replace(run, alone=beside)
        if beside.stopped:
            return run
        if processes.is_main:
            keep(alone, folder / "baseline" / "student.safetensors")
    if processes.is_main:
        from prockd.runs.report import finish_run  # it loads matplotlib, which only the main process needs

        finish_run(run, folder)
    return run


def keep(student: Student, path: Path) -> None:
    """Save a finished student; where there is no room, in the folder of temporary files, and say so."""
    try:
        student.save(path, overwrite=True)
    except WriteError as error:
        spare = Path(tempfile.mkdtemp(prefix="prockd-")) / path.name
        try:
            student.save(spare)
        except WriteError:
            spare.parent.rmdir()
            raise error from None
        raise WriteError(f"{error}. The finished student is kept in {spare}") from error


def scored(
    run_dir: str | Path, data: str | None = None, *, cpu: bool = False, progress: bool = True
) -> tuple[Student, Scores]:
    """The student of a finished run, and its scores on the run's test images, or on all images of another folder.

    The teacher is not needed. Images are compared with those of the run (:class:`prockd.runs.known.KnownImages`).

    Raises:
        RunFolderError: no run is there, or its test images are gone or have changed.
    """
    folder, device = Path(run_dir), "cpu" if cpu else None
    config, student, known = run_config(folder), Student.load(student_file(folder)), KnownImages.read(folder)
    if data is None:
        images = known.to_score(open_world(known.untaught(config), cpu=cpu, progress=progress))
    else:  # its own images may be gone
        images = other_images(World(known.untaught(config), {}, cpu=cpu, progress=progress), student, data)
        known.warn_of_learned(images, data)
    return student, evaluate(student, images, device=device)


def other_images(world: World, student: Student, path: str) -> PackedImages:
    """The images of another folder, checked, with the classes that a student learned elsewhere."""
    data, task = world.config.data, student.task
    layout = TASKS[world.config.task.kind].data
    learned: Any = tuple(task.classes)
    if data.path != FARMYARD and Path(data.path).exists():  # which values its masks have is known where it was learned
        own = opened(data, data.path, layout)
        learned = classes_of(own.get("train", next(iter(own.values()))))
    images = to_score_on(opened(data, path, layout, classes=learned))
    if tuple(images.classes) != tuple(task.classes):
        both = f"{', '.join(images.classes)}, and the student knows {', '.join(task.classes)}"
        raise DatasetError(f"{path} has the classes {both}: it can be scored on the same ones only")
    good = checked({"test": images}, task=layout, on_bad=data.on_bad, progress=world.progress)["test"]
    return pack(good, world.image_px, fit=data.asked_fit, progress=world.progress)
