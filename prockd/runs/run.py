"""One run from its settings, with a folder that keeps what it gave."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from prockd.datasets import DatasetError, PackedImages, checked, classes_of, pack
from prockd.evaluation.scores import Scores, evaluate
from prockd.runs.folder import run_config, start_run, student_file
from prockd.runs.recipes import alone_beside
from prockd.runs.sets import opened, to_score_on
from prockd.runs.students import Run, find_prototypes, train_student
from prockd.runs.world import World, open_world
from prockd.settings.experiment import FARMYARD, ExperimentConfig
from prockd.students.student import Student
from prockd.tasks import TASKS
from prockd.training.loop import Callback
from prockd.training.processes import connect


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
    callbacks: tuple[Callback, ...] = (),
    progress: bool = True,
) -> Run:
    """Extract, discover, distill and score, and keep everything in one folder (see :mod:`prockd.runs.folder`).

    Then a second student learns from labels alone at the same budget, for the report's verdict: did the teacher help?

    Of several processes the first one extracts, finds prototypes and writes; the others read what it wrote.

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
        callbacks: see :func:`prockd.distill`, of both students; one that returns True leaves a run to be resumed.
        progress: show progress bars.

    Returns:
        The run; it has scores unless a callback stopped it.

    Raises:
        RunFolderError: the folder holds another run.
        DatasetError: images that cannot be used.
        WeightsError: weights that cannot be found or do not fit.
    """
    folder, processes = Path(run_dir), connect(cpu=cpu)
    kept = folder / "bank.safetensors"
    with processes.main_first():  # the others find images, features and prototypes made
        if processes.is_main:
            start_run(folder, config, resume=resume, overwrite=overwrite)
        world = open_world(config, cpu=cpu, progress=progress)
        distill = world.config.distill
        prototypes = None
        if world.teacher is not None:
            read = bank if processes.is_main and not (resume and kept.is_file()) else kept
            prototypes = find_prototypes(world, read, progress=progress)
            if processes.is_main:
                prototypes.save(kept)
            for name in ("train", *(["unlabelled"] if distill.unlabelled_batch else [])):
                world.teacher_input(name, distill, prototypes)
    how: dict[str, Any] = {"resume": resume, "checkpoint_every": checkpoint_every, "callbacks": callbacks}
    student, history = train_student(
        world, prototypes, config.feature_augmentation, distill, run_dir=folder, progress=progress, **how
    )
    if history.stopped:
        return Run(world, prototypes, student, history)
    if processes.is_main:
        student.save(folder / "student.safetensors")
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
            alone.save(folder / "baseline" / "student.safetensors")
    if processes.is_main:
        from prockd.runs.report import finish_run  # it loads matplotlib, which only the main process needs

        finish_run(run, folder)
    return run


def scored(
    run_dir: str | Path, data: str | None = None, *, cpu: bool = False, progress: bool = True
) -> tuple[Student, Scores]:
    """The student of a finished run, and its scores on the run's test images, or on all images of another folder."""
    config = run_config(Path(run_dir))
    student = Student.load(student_file(Path(run_dir)))
    world = open_world(config, cpu=cpu, progress=progress)
    images = world.images("test") if data is None else other_images(world, student, data)
    return student, evaluate(student, images, device="cpu" if cpu else None)


def other_images(world: World, student: Student, path: str) -> PackedImages:
    """The images of another folder, checked, with the classes that a student learned elsewhere."""
    data, task = world.config.data, student.task
    layout = TASKS[world.config.task.kind].data
    learned: Any = tuple(task.classes)
    if data.path != FARMYARD:  # which values its masks have is known where it was learned
        own = opened(data, data.path, layout)
        learned = classes_of(own.get("train", next(iter(own.values()))))
    images = to_score_on(opened(data, path, layout, classes=learned))
    if tuple(images.classes) != tuple(task.classes):
        both = f"{', '.join(images.classes)}, and the student knows {', '.join(task.classes)}"
        raise DatasetError(f"{path} has the classes {both}: it can be scored on the same ones only")
    good = checked({"test": images}, task=layout, on_bad=data.on_bad, progress=world.progress)["test"]
    return pack(good, world.image_px, fit=None if data.fit == "auto" else data.fit, progress=world.progress)
