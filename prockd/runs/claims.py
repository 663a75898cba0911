"""Work that several processes share through one folder: who does what, and what is done."""

import json
import os
import platform
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil


def claim(folder: Path, name: str) -> bool:
    """True for the one process that may do this piece of work: nobody has it, or who had it has died.

    The file ``name.0`` says which process has it. Where that is dead, the next one is ``name.1``, and so on: a file
    appears whole, once, for one process only, so that two can never take over the same. A process of another machine
    counts as alive: remove the folder of claims if it is not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[^\w.+-]+", "_", name)
    before = [int(path.suffix[1:]) for path in folder.glob(f"{stem}.*") if path.stem == stem]
    number = max(before, default=-1)
    if number >= 0 and is_alive(folder / f"{stem}.{number}"):
        return False
    own = folder / f".{secrets.token_hex(8)}"
    try:
        own.write_text(json.dumps(this_process()))
        os.link(own, folder / f"{stem}.{number + 1}")
    except FileExistsError:
        return False
    finally:
        own.unlink(missing_ok=True)
    return True


def release(folder: Path, name: str) -> None:
    """Give up a claim of this process, so that another may have it."""
    stem = re.sub(r"[^\w.+-]+", "_", name)
    for path in folder.glob(f"{stem}.*"):
        with suppress(FileNotFoundError):
            path.unlink()


def this_process() -> dict[str, Any]:
    """What tells this process from all others, before and after."""
    return {"host": platform.node(), "pid": os.getpid(), "began": psutil.Process().create_time()}


def is_alive(path: Path) -> bool:
    """Whether the process that a claim names still runs."""
    try:
        owner = json.loads(path.read_text())
    except FileNotFoundError:
        return True  # given up just now: whoever asks again will know whether the work is done
    if owner["host"] != platform.node():
        return True
    with suppress(psutil.Error):
        return bool(psutil.Process(owner["pid"]).create_time() == owner["began"])
    return False


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """Add one line of JSON, on the disk when this returns; one that a killed process left half written is ended."""
    text = json.dumps(row, ensure_ascii=False) + "\n"
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            text = text if file.read(1) == b"\n" else "\n" + text
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All whole lines of JSON; half of one, which a killed process left, is passed over."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        with suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows
