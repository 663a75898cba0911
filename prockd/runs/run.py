"""One run from its settings, with a folder that keeps what it gave."""

from dataclasses import replace
from pathlib import Path

from accelerate import PartialState

from prockd.runs.experiment import Run, discovered, extracted, make_student
from prockd.runs.folder import start_run, write_json
from prockd.runs.html import write_report
from prockd.runs.report import report_sections, results, save_figures
from prockd.settings.experiment import ExperimentConfig
from prockd.training.loop import Callback, distill


def run_experiment(
    config: ExperimentConfig,
    run_dir: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    bank: str | Path | None = None,
    cpu: bool = False,
    checkpoint_every: int = 100,
    callbacks: tuple[Callback, ...] = (),
    progress: bool = True,
) -> Run:
    """Extract, discover, distill and score, and keep everything in one folder (see :mod:`prockd.runs.folder`).

    Args:
        config: all settings.
        run_dir: the folder.
        resume: go on from its last checkpoint; ends in the same weights as a run that was never stopped.
        overwrite: start again in a folder that holds a run.
        bank: prototypes from an earlier run or ``prockd discover``, in place of finding them.
        cpu: stay on the CPU even where there is a GPU.
        checkpoint_every: steps between checkpoints.
        callbacks: see :func:`prockd.training.loop`; one that returns True leaves a run to be resumed.
        progress: show progress bars.

    Returns:
        The run; it has scores unless a callback stopped it.

    Raises:
        RunFolderError: the folder holds another run.
        DatasetError: images that cannot be used.
        WeightsError: weights that cannot be found or do not fit.
    """
    folder, main = Path(run_dir), PartialState(cpu=cpu).is_main_process
    if main:
        start_run(folder, config, resume=resume, overwrite=overwrite)
    PartialState().wait_for_everyone()
    run = extracted(config, cpu=cpu, progress=progress)
    kept = folder / "bank.safetensors"
    run = discovered(run, kept if resume and kept.is_file() else bank, progress=progress and main)
    if run.bank is not None and main:
        run.bank.save(kept)
    student = make_student(config, run.task, run.bank)
    history = distill(
        student, run.images.train, features=run.train, unlabelled=run.unlabelled, config=config.distill,
        val=run.images.test, run_dir=folder, resume=resume, checkpoint_every=checkpoint_every, callbacks=callbacks,
        cpu=cpu, progress=progress,
    )  # fmt: skip
    run = replace(run, student=student, history=history)
    if main and not history.stopped:
        student.save(folder / "student.safetensors")
        finish_run(run, folder)
    return run


def finish_run(run: Run, folder: Path) -> None:
    """Write figures, the report, and last the results."""
    sections = report_sections(run)
    save_figures(sections, folder / "figures")
    write_report(folder / "report.html", f"prockd: {run.config.task.kind} by {run.config.student.backbone}", sections)
    write_json(folder / "results.json", results(run))
