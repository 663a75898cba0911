"""The folder of one run: its settings, where they ran, and what came out; a finished run is never overwritten unasked.

``config.toml``, ``versions.json``, ``bank.safetensors``, ``metrics.jsonl``, ``checkpoint.pt``, ``student.safetensors``,
``figures/``, ``report.html``, and last ``results.json``: a folder that has it is finished.
"""

import json
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from prockd.settings.experiment import ExperimentConfig
from prockd.settings.toml import differences, read_config, write_config

WRITTEN = (
    "config.toml", "versions.json", "bank.safetensors", "metrics.jsonl", "checkpoint.pt", "checkpoint.new",
    "student.safetensors", "report.html", "results.json",
)  # fmt: skip
PACKAGES = ("prockd", "torch", "torchvision", "timm", "torchmetrics", "numpy")


class RunFolderError(ValueError):
    """A folder holds another run, or none; the message says what to do."""


def start_run(folder: Path, config: ExperimentConfig, *, resume: bool = False, overwrite: bool = False) -> None:
    """Make the folder ready for a run with these settings, and write them down with seed and versions.

    Args:
        folder: made when missing.
        config: all settings.
        resume: go on with the run that is there; its settings must be the same.
        overwrite: remove the files of the run that is there.

    Raises:
        RunFolderError: the folder holds a finished run, an unfinished one that is not to be resumed, or one of other
            settings.
    """
    finished, begun = (folder / "results.json").is_file(), (folder / "checkpoint.pt").is_file()
    if overwrite or not (begun or finished):
        for name in WRITTEN:
            (folder / name).unlink(missing_ok=True)
        begun = False
    elif finished:
        raise RunFolderError(f"{folder} holds a finished run: choose another --run-dir, or --overwrite it")
    elif begun and not resume:
        raise RunFolderError(f"{folder} holds an unfinished run: go on with --resume, or --overwrite it")
    if begun:
        changed = differences(read_config(folder / "config.toml"), config)
        if changed:
            raise RunFolderError(
                f"{folder} was begun with other settings ({'; '.join(changed)}): resume it with the same ones, or "
                "choose another --run-dir"
            )
        return
    write_config(config, folder / "config.toml")
    write_json(folder / "versions.json", {"seed": config.distill.seed, **versions()})


def run_config(folder: Path) -> ExperimentConfig:
    """The settings of a run.

    Raises:
        RunFolderError: there is no run in the folder.
    """
    if not (folder / "config.toml").is_file():
        raise RunFolderError(
            f"{folder} is no run folder: it has no config.toml. Make one with: prockd distill --run-dir {folder}"
        )
    return read_config(folder / "config.toml")


def student_file(folder: Path) -> Path:
    """The student of a run.

    Raises:
        RunFolderError: there is no run in the folder, or it is not finished.
    """
    run_config(folder)
    path = folder / "student.safetensors"
    if not path.is_file():
        raise RunFolderError(
            f"{folder} has no student yet: finish it with `prockd distill --run-dir {folder} --resume`"
        )
    return path


def versions() -> dict[str, Any]:
    """Python, machine, the packages that decide a result, and prockd's git commit where it is a checkout."""
    known: dict[str, Any] = {"command": sys.argv, "python": platform.python_version(), "machine": platform.platform()}
    for name in PACKAGES:
        try:
            known[name] = version(name)
        except PackageNotFoundError:
            known[name] = None
    return known | {"git": git_commit(Path(__file__).parent)}


def git_commit(folder: Path) -> str | None:
    """The commit of a checkout, with a plus where files differ from it; None outside of one, or without git."""
    try:
        top = _git(folder, "rev-parse", "--show-toplevel")
        if not (Path(top) / "prockd" / "runs" / "folder.py").is_file():  # installed inside a checkout of something else
            return None
        return _git(folder, "rev-parse", "HEAD") + "+" * bool(_git(folder, "status", "--porcelain"))
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=20)
    return done.stdout.strip()


def write_json(path: Path, content: Any) -> None:
    """Write JSON in one rename, so that a file that is there is whole."""
    unfinished = path.with_name(f".{path.name}.tmp")
    unfinished.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    unfinished.replace(path)
