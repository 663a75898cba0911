"""The folder of one run: its settings, where they ran, and what came out; a finished run is never overwritten unasked.

``config.toml``, ``versions.json``, ``images.json``, ``bank.safetensors``, ``metrics.jsonl``, ``checkpoint.pt``,
``student.safetensors``, ``figures/``, ``report.html``, and last ``results.json``: a folder that has it is finished.
``baseline/`` holds labels alone, trained beside it: its ``metrics.jsonl``, ``checkpoint.pt`` and
``student.safetensors``. While a process works there, ``.lock.0`` says which.
"""

import os
import platform
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from prockd.devices import PRECISIONS
from prockd.settings.experiment import ExperimentConfig
from prockd.settings.knobs import ConfigError
from prockd.settings.toml import differences, read_config, write_config
from prockd.untrusted import RefusedError, read_json, reading, shown
from prockd.writing import write_json

WRITTEN = (
    "config.toml", "versions.json", "images.json", "bank.safetensors", "metrics.jsonl", "checkpoint.pt",
    "student.safetensors", "report.html", "results.json",
    *(f"baseline/{name}" for name in ("metrics.jsonl", "checkpoint.pt", "student.safetensors")),
)  # fmt: skip


class RunFolderError(ValueError):
    """A folder holds another run, or none; the message says what to do."""


def check_run(folder: Path, config: ExperimentConfig, *, resume: bool = False, overwrite: bool = False) -> None:
    """See that a run may begin in a folder, or go on there; nothing is changed.

    Raises:
        RunFolderError: files of somebody else, another run, or other settings are there; or a run would be overwritten
            with what it begins from.
    """
    if overwrite:
        own = {(folder / name).resolve(): name for name in WRITTEN}
        for given in filter(None, (config.student.weights, config.teacher.weights, config.teacher.name)):
            if name := own.get(Path(given).resolve()):
                raise RunFolderError(f"{folder} cannot be overwritten: the run begins from its {name}; move that first")
        return
    there = [name for name in WRITTEN if os.path.lexists(folder / name)]
    if not is_run(folder):
        there += ["figures"] if (folder / "figures").exists() else []
    if there and not is_run(folder):
        if there == ["config.toml"] and holds(folder, config):
            return
        raise RunFolderError(
            f"{folder} holds {', '.join(there)} of no run: choose another --run-dir, or --overwrite it"
        )
    if "results.json" in there:
        raise RunFolderError(f"{folder} holds a finished run: choose another --run-dir, or --overwrite it")
    if "checkpoint.pt" in there and not resume:
        raise RunFolderError(f"{folder} holds an unfinished run: go on with --resume, or --overwrite it")
    if resume and "config.toml" in there and (changed := differences(read_config(folder / "config.toml"), config)):
        remedy = "resume it with the same ones, or choose another --run-dir"
        raise RunFolderError(f"{folder} was begun with other settings ({'; '.join(changed)}): {remedy}")


def start_run(
    folder: Path, config: ExperimentConfig, *, precision: str = "auto", resume: bool = False, overwrite: bool = False
) -> None:
    """Write settings, seed, precision and versions of a new run, or see that one may be resumed with these."""
    check_run(folder, config, resume=resume, overwrite=overwrite)
    if resume and not overwrite and is_run(folder) and (folder / "config.toml").is_file():
        return
    for name in reversed(WRITTEN):  # what says that a run is here goes last and comes first, in case of a kill
        if name != "config.toml":
            (folder / name).unlink(missing_ok=True)
    write_json(folder / "versions.json", {"seed": config.distill.seed, "precision": precision, **versions()})
    if not holds(folder, config):
        write_config(config, folder / "config.toml")


def begun_precision(folder: Path) -> str | None:
    """What the teacher of a run computes in, which another machine would choose otherwise; None where nothing is told.

    Raises:
        RunFolderError: it is told, and is no precision.
    """
    path = folder / "versions.json"
    if not path.is_file():
        return None
    with reading(path, "a list of what a run was begun with", RunFolderError, "start again with --overwrite"):
        named = read_json(path).get("precision", "auto")
        if named not in ("auto", *PRECISIONS):
            raise RefusedError(f"its precision is {shown(named)}")
    return None if named == "auto" else str(named)


def is_run(folder: Path) -> bool:
    """Whether a run was begun in a folder, and not only files of somebody's put there."""
    return (folder / "versions.json").is_file()


def holds(folder: Path, config: ExperimentConfig) -> bool:
    """Whether these very settings are written there already, as a person may have done."""
    with suppress(ConfigError):
        return read_config(folder / "config.toml") == config
    return False


def kept(folder: Path) -> str:
    """What an unfinished run has kept, in words; empty where none was begun."""
    if not is_run(folder):
        return ""
    names = ("bank.safetensors", "student.safetensors")
    there = [name for name in names if (folder / name).is_file()]
    return f"{folder} keeps its settings" + "".join(f", {name}" for name in there)


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

    >>> without_place("--data=/srv/ann/photos"), without_place("photos/cats")
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
