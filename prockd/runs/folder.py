"""The folder of one run: its settings, where they ran, and what came out; a finished run is never overwritten unasked.

``config.toml``, ``versions.json``, ``bank.safetensors``, ``metrics.jsonl``, ``checkpoint.pt``, ``student.safetensors``,
``figures/``, ``report.html``, and last ``results.json``: a folder that has it is finished. ``baseline/`` holds labels
alone, trained beside it: its ``metrics.jsonl``, ``checkpoint.pt`` and ``student.safetensors``.
"""

import json
import os
import platform
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from prockd.settings.experiment import ExperimentConfig
from prockd.settings.toml import differences, read_config, write_config

WRITTEN = (
    "config.toml", "versions.json", "bank.safetensors", "metrics.jsonl", "checkpoint.pt", "checkpoint.new",
    "student.safetensors", "report.html", "results.json",
    *(f"baseline/{name}" for name in ("metrics.jsonl", "checkpoint.pt", "checkpoint.new", "student.safetensors")),
)  # fmt: skip


class RunFolderError(ValueError):
    """A folder holds another run, or none; the message says what to do."""


def start_run(folder: Path, config: ExperimentConfig, *, resume: bool = False, overwrite: bool = False) -> None:
    """Write settings, seed and versions of a new run, or see that the run that is there may be resumed with these."""
    finished, begun = (folder / "results.json").is_file(), (folder / "checkpoint.pt").is_file()
    if (finished or begun) and not overwrite:
        if finished:
            raise RunFolderError(f"{folder} holds a finished run: choose another --run-dir, or --overwrite it")
        if not resume:
            raise RunFolderError(f"{folder} holds an unfinished run: go on with --resume, or --overwrite it")
        if changed := differences(read_config(folder / "config.toml"), config):
            remedy = "resume it with the same ones, or choose another --run-dir"
            raise RunFolderError(f"{folder} was begun with other settings ({'; '.join(changed)}): {remedy}")
        return
    for name in WRITTEN:
        (folder / name).unlink(missing_ok=True)
    write_config(config, folder / "config.toml")
    write_json(folder / "versions.json", {"seed": config.distill.seed, **versions()})


def run_config(folder: Path) -> ExperimentConfig:
    """The settings of a run."""
    if not (folder / "config.toml").is_file():
        remedy = f"Make one with: prockd distill --run-dir {folder}"
        raise RunFolderError(f"{folder} is no run folder: it has no config.toml. {remedy}")
    return read_config(folder / "config.toml")


def student_file(folder: Path) -> Path:
    """The student of a run."""
    run_config(folder)
    path = folder / "student.safetensors"
    if not path.is_file():
        remedy = f"finish it with `prockd distill --run-dir {folder} --resume`"
        raise RunFolderError(f"{folder} has no student yet: {remedy}")
    return path


def versions() -> dict[str, Any]:
    """Command without absolute paths, Python, machine, packages that decide a result, and the commit of a checkout."""
    installed: dict[str, Any] = dict.fromkeys(("prockd", "torch", "torchvision", "timm", "torchmetrics", "numpy"))
    for name in installed:
        with suppress(PackageNotFoundError):
            installed[name] = version(name)
    command = [Path(sys.argv[0]).name, *map(without_place, sys.argv[1:])]
    machine = {"command": command, "python": platform.python_version(), "machine": platform.platform()}
    return machine | installed | {"git": git_commit(Path(__file__).parent)}


def without_place(argument: str) -> str:
    """An argument without the folders of an absolute path, which tell of its writer and not of the run.

    >>> without_place("--data=/home/ann/photos"), without_place("photos/cats")
    ('--data=photos', 'photos/cats')
    """
    option, equals, value = argument.rpartition("=")
    return f"{option}{equals}{Path(value).name if Path(value).is_absolute() else value}"


def git_commit(folder: Path) -> str | None:
    """The commit of a checkout, with a plus where files differ from it; None outside of one, or without git."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=20)
        return done.stdout.strip()

    with suppress(OSError, subprocess.SubprocessError):
        # A file of ours in its top folder: else prockd is installed inside a checkout of something else.
        if (Path(git("rev-parse", "--show-toplevel")) / "prockd" / "runs" / "folder.py").is_file():
            return git("rev-parse", "HEAD") + "+" * bool(git("status", "--porcelain"))
    return None


def write_whole(path: Path, text: str) -> None:
    """Write a file in one rename, so that one that is there is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        unfinished.write_bytes(text.encode())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON, whole."""
    write_whole(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
