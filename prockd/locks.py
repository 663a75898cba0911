"""Work that several processes share through folders: who does what, and who keeps others out of a folder."""

import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from prockd.untrusted import read_json
from prockd.writing import is_running, this_process, write_json

_LOCK = ".lock"
_held: dict[Path, int] = {}  # by this process: what it does in a folder may be done in steps that lock it each
_guard = threading.Lock()


class LockedError(ValueError):
    """Another process works in a folder; the message names it and says what to do."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder that this one works in; the lock of one that died is told and taken.

    Raises:
        LockedError: another process works there.
    """
    folder = folder.resolve()
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    with _guard:
        if not _held.get(folder):
            _take(folder)
        _held[folder] = _held.get(folder, 0) + 1
    try:
        yield
    finally:
        with _guard:
            _held[folder] -= 1
            if not _held[folder]:
                release(folder, _LOCK)
                with suppress(OSError):  # something was written
                    for place in made:
                        place.rmdir()


def _take(folder: Path) -> None:
    before = latest(folder, _LOCK)
    if not claim(folder, _LOCK):
        owner = owner_of(path := latest(folder, _LOCK) or folder / _LOCK)
        who = f"process {owner['pid']} on {owner['host']}" if owner else "another process"
        told = f"{who} works there: wait for it or choose another folder; if it is gone, remove {path}"
        raise LockedError(f"{folder}: {told}")
    if before is not None:
        dead = (owner_of(before) or {}).get("pid")
        warnings.warn(f"{folder}: process {dead}, which worked there, has died; its lock is taken", stacklevel=4)


def claim(folder: Path, name: str) -> bool:
    """True for the one process that may do this piece of work: nobody has it, or who had it has died.

    The file ``name.0`` says which process has it. Where that is dead, the next one is ``name.1``, and so on: a file
    appears whole, once, for one process only, so that two can never take over the same. A process of another machine
    counts as alive: remove the folder of claims if it is not.
    """
    last = latest(folder, name)
    if last is None or not is_alive(last):
        number = 0 if last is None else int(last.suffix[1:]) + 1
        with suppress(FileExistsError):
            write_json(folder / f"{_stem(name)}.{number}", this_process(), overwrite=False)
            return True
    return False


def release(folder: Path, name: str) -> None:
    """Give up a claim of this process, so that another may have it."""
    for path in claims(folder, name):
        path.unlink(missing_ok=True)


def latest(folder: Path, name: str) -> Path | None:
    """The claim that counts, if there is one."""
    return max(claims(folder, name), key=lambda path: int(path.suffix[1:]), default=None)


def claims(folder: Path, name: str) -> list[Path]:
    """The files of a claim, in any order."""
    stem = _stem(name)
    return [path for path in folder.glob(f"{stem}.*") if path.stem == stem and path.suffix[1:].isdecimal()]


def owner_of(path: Path) -> dict[str, Any] | None:
    """The process that a claim names; None where it names none that could be read."""
    with suppress(OSError, ValueError, KeyError, TypeError, OverflowError):
        owner = read_json(path)
        return {"host": str(owner["host"]), "pid": int(owner["pid"]), "began": float(owner["began"])}
    return None


def is_alive(path: Path) -> bool:
    """Whether the process that a claim names still runs."""
    owner = owner_of(path)  # given up just now: whoever asks again will know whether the work is done
    return owner is None or is_running(owner)


def _stem(name: str) -> str:
    return re.sub(r"[^\w.+-]+", "_", name)
