"""The contest: any arms, equal starts, steps, order and tuning budgets; a run is a line, and any process may do it.

A folder holds ``settings.json``, ``runs.jsonl`` (one line a run, appended), ``banks/``, ``claims/`` and, of
:mod:`prockd.runs.compare_report`, ``results.json``, ``compare.png`` and ``report.html``.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from prockd.locks import claim, release
from prockd.runs.contestants import Worlds, run_job, run_references
from prockd.runs.folder import RunFolderError, versions
from prockd.runs.plan import Job, Plan
from prockd.runs.world import make_teacher
from prockd.untrusted import TABLE, fields, read_json, reading
from prockd.writing import append_line, read_lines, write_json

WRITTEN = ("runs.jsonl", "results.json", "compare.png", "report.html")


def begin(plan: Plan, folder: Path) -> None:
    """Write what decides the lines of a new folder, or see that the one that is there was begun with the same.

    Raises:
        RunFolderError: it was not; names what differs.
    """
    teacher = make_teacher(plan.config.teacher)
    facts = plan.facts() | {"teacher": None if teacher is None else teacher.fingerprint}
    path, known = folder / "settings.json", {}
    strange = [name for name in WRITTEN if (folder / name).exists()]
    if strange and not path.is_file():
        raise RunFolderError(f"{folder} holds {', '.join(strange)} of no contest: choose another --run-dir")
    if path.is_file():
        with reading(path, "the settings of a contest", RunFolderError, "choose another --run-dir"):
            known = fields(read_json(path), {"settings": TABLE, "versions": TABLE})
            known = {k: os.path.expandvars(v) if isinstance(v, str) else v for k, v in known["settings"].items()}
    changed_names = [name for name, value in facts.items() if known.get(name, value) != value]
    if differ := [f"{name} was {known[name]}, is {facts[name]}" for name in changed_names]:
        raise RunFolderError(
            f"{folder} was begun with other settings ({'; '.join(differ)[:600]}): choose another --run-dir"
        )
    if set(facts) - set(known):
        write_json(path, {"settings": known | facts, "versions": versions()})


def run_contest(
    plan: Plan, run_dir: str | Path, *, jobs: int = 1, cpu: bool = False, progress: bool = True
) -> list[dict[str, Any]]:
    """Do what is missing of a contest, and return all lines; any number of processes may share the folder.

    Args:
        plan: see :func:`read_plan`.
        run_dir: the folder; one that holds runs goes on.
        jobs: processes, each with one thread.
        cpu: stay on the CPU even where there is a GPU.
        progress: print a line a run.

    Raises:
        RunFolderError: the folder was begun with other settings.
        DatasetError: images cannot be used, or there are none to tune on.
    """
    folder = Path(run_dir)
    begin(plan, folder)
    worlds = Worlds(plan, folder, cpu=cpu)
    worlds.check()
    path = folder / "runs.jsonl"
    if plan.pending(read_lines(path))[0]:
        worlds.prepare()
        how = {"cpu": cpu, "progress": progress}
        context = multiprocessing.get_context("spawn")
        others = [context.Process(target=help_with, args=(plan, folder), kwargs=how) for _ in range(jobs - 1)]
        try:
            for process in others:
                process.start()
            work(plan, folder, worlds=worlds, **how)
            for process in others:
                process.join()
        except BaseException as stop:  # Ctrl-C too: what the others have begun is begun again later
            for process in others:
                process.kill()
            stop.add_note(f"{path} keeps every run that was finished")
            raise
        if failed := [process.exitcode for process in others if process.exitcode]:
            raise RuntimeError(f"{len(failed)} of {jobs} processes failed; run again to go on from what is finished")
    return read_lines(path)


def help_with(plan: Plan, folder: Path, **how: Any) -> None:
    """The work of a process that another one started, and alone stops."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    work(plan, folder, **how)


def work(plan: Plan, folder: Path, *, cpu: bool, progress: bool, worlds: Worlds | None = None) -> None:
    """Do runs that nobody else does, one after the other, until none is missing."""
    os.environ["TQDM_DISABLE"] = "1"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    worlds = worlds or Worlds(plan, folder, cpu=cpu)
    try:
        for job in claimed(plan, folder):
            row = (run_references if job.kind == "reference" else run_job)(plan, job, worlds)
            append_line(folder / "runs.jsonl", row)
            if progress:
                print(told(row), flush=True)  # noqa: T201
    finally:
        torch.set_num_threads(threads)


def told(row: Mapping[str, Any]) -> str:
    """A line of a contest in words."""
    if row["kind"] == "reference":
        return f"{row['job']}: " + ", ".join(f"{one['arm']} {one['z']:.3f}" for one in row["rows"])
    plus = "" if row["z_plus"] is None else f", z+ {row['z_plus']:.3f}"
    return f"{row['job']}: {row['metric']} z {row['z']:.3f}{plus}, {row['cpu_seconds']:.0f} s"


def claimed(plan: Plan, folder: Path) -> Iterator[Job]:
    """Runs for this process, each as soon as it can begin; ends when none is left, or all that are left are others'."""
    while True:
        ready, more_follow = plan.pending(read_lines(folder / "runs.jsonl"))
        job = next((job for job in ready if claim(folder / "claims", job.key)), None)
        if job is not None:
            try:
                # its line may have been written between the reading and the claim
                if job.key not in {row["job"] for row in read_lines(folder / "runs.jsonl")}:
                    yield job
            finally:
                release(folder / "claims", job.key)
        elif ready and more_follow:
            time.sleep(0.5)  # the others' tuning decides what comes next
        else:
            return
