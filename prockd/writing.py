"""The one writer of files outside the cache: what lies there is whole, before, during and after.

A file is built beside its place under a name that nothing reads, brought to the disk, and renamed. A killed process
leaves the old file whole and at most a ``.prockd-*`` beside it, which the next write into that folder removes.
"""

import errno
import itertools
import json
import os
import platform
import re
import secrets
import shutil
import stat
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from prockd.untrusted import parse_json

Content = bytes | str | Callable[[Path], object]
"""Bytes, text (UTF-8), or a function that writes the file at the path it is given, which ends as the real one does."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_UNFINISHED = re.compile(r"\.prockd-(?P<host>[0-9a-f]+)-(?P<pid>\d+)-(?P<began>\d+)-[0-9a-f]+")
_swept: dict[Path, float] = {}


class WriteError(OSError):
    """A file could not be written, and what was there before is whole; the message says where, why, need and room."""


def write_file(path: str | Path, content: Content, *, overwrite: bool = True) -> Path:
    """Write a file whole or not at all, on the disk when this returns; a link stays and what it points to is written.

    Folders are made; ``overwrite`` replaces a file that is there, which keeps its permissions.

    Raises:
        FileExistsError: it is there and ``overwrite`` is False; of two processes that write it at once, one gets this.
        WriteError: the disk is full, nothing can be written there, or it is no file.

    >>> import tempfile
    >>> write_file(Path(tempfile.mkdtemp()) / "notes.txt", "ears").read_text()
    'ears'
    """
    path = Path(path)
    refuse_existing(path, overwrite)
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    need = len(data) if isinstance(data, bytes) else None
    real, unfinished, room = path, None, None
    try:
        real = path.resolve()
        real.parent.mkdir(parents=True, exist_ok=True)
        sweep(real.parent)
        room = shutil.disk_usage(real.parent).free
        unfinished, mode = _begin(real)
        if isinstance(data, bytes):
            if len(data) > room:
                raise _full()
            unfinished.write_bytes(data)
        else:
            data(unfinished)
        _finish(unfinished, real, mode, overwrite)
    except Exception as error:
        if isinstance(error, FileExistsError) and unfinished is not None:
            raise _there(path) from None
        cause = _of_the_disk(error, unfinished)
        if cause is None:
            raise
        raise refusal(path, cause, need, room) from error
    finally:
        if unfinished is not None:
            unfinished.unlink(missing_ok=True)
    return path


def write_json(path: str | Path, content: Any, *, overwrite: bool = True) -> Path:
    """Write JSON, see :func:`write_file`."""
    return write_file(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n", overwrite=overwrite)


def append_line(path: str | Path, row: Mapping[str, Any]) -> None:
    """Add a line of JSON, on the disk when this returns, or a WriteError; half a line of a killed process is ended."""
    path = Path(path)
    line, room = (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace"), None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        room = shutil.disk_usage(path.parent).free
        with path.open("ab+", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            if end:
                file.seek(end - 1)
                line = line if file.read(1) == b"\n" else b"\n" + line
            if file.write(line) < len(line):  # what is there of it is half a line, which the next one ends
                raise _full()
            os.fsync(file.fileno())
    except OSError as error:
        raise refusal(path, error, len(line), room) from error


def read_lines(path: str | Path) -> list[dict[str, Any]]:
    """All whole lines of JSON that hold a table; half of one, which a killed process left, is passed over."""
    rows = []
    for line in Path(path).read_text(encoding="utf-8", errors="replace").split("\n") if Path(path).is_file() else ():
        with suppress(ValueError):
            if isinstance(row := parse_json(line), dict):
                rows.append(row)
    return rows


def refuse_existing(path: str | Path, overwrite: bool = False) -> None:
    """Say before the work that its file would not be written: FileExistsError where one is there, and not to go."""
    if not overwrite and os.path.lexists(path):
        raise _there(Path(path))


def free_path(path: str | Path) -> Path:
    """The path, or where something is there the first of ``name-2``, ``name-3``, ... where nothing is."""
    path = Path(path)
    names = itertools.chain([path], (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(2)))
    return next(one for one in names if not os.path.lexists(one))


def this_process() -> dict[str, Any]:
    """What tells this process from all others, before and after, on this host and elsewhere."""
    return {"host": platform.node(), "pid": os.getpid(), "began": psutil.Process().create_time()}


def is_running(owner: Mapping[str, Any]) -> bool:
    """Whether a process that told :func:`this_process` still runs; one of another host counts as running."""
    if owner["host"] != platform.node():
        return True
    with suppress(psutil.Error):
        # the second of its start is enough: pids come round much later
        return bool(abs(psutil.Process(int(owner["pid"])).create_time() - float(owner["began"])) < 1.5)
    return False


def _begin(real: Path) -> tuple[Path, int]:
    """A new empty file beside the real one, and the permissions that it will have."""
    mode = None
    with suppress(FileNotFoundError):
        there = real.stat()
        if not stat.S_ISREG(there.st_mode):  # a rename would take the place of a device
            raise IsADirectoryError(errno.EISDIR, "it is a folder" if real.is_dir() else "it is a device, not a file")
        real.open("r+b").close()  # a rename would replace what may not be written
        mode = stat.S_IMODE(there.st_mode)
    unfinished = real.with_name(unfinished_name() + real.suffix[-16:])
    descriptor = os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)  # less the umask
    os.close(descriptor)
    return unfinished, stat.S_IMODE(unfinished.stat().st_mode) if mode is None else mode


def _finish(unfinished: Path, real: Path, mode: int, overwrite: bool) -> None:
    """Bring it to the disk and put it in its place."""
    unfinished.chmod(mode)  # safetensors, and others that make a file of their own there, leave 0600
    sync(unfinished)
    if overwrite:
        unfinished.replace(real)
    else:
        try:
            os.link(unfinished, real)  # fails where somebody was quicker
        except OSError:  # or on a file system without hard links
            if os.path.lexists(real):
                raise FileExistsError from None
            unfinished.rename(real)
    with suppress(OSError):  # some network file systems sync no folder
        sync(real.parent)


def sync(path: Path) -> None:
    """Bring a file or a folder to the disk."""
    if os.name == "nt" and path.is_dir():  # has no descriptor there
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unfinished_name() -> str:
    """A name that nothing reads, for a file or folder that is being made; :func:`sweep` removes it after a kill."""
    return f".prockd-{_host()}-{os.getpid()}-{int(this_process()['began'])}-{secrets.token_hex(4)}"


def _host() -> str:
    return f"{zlib.crc32(platform.node().encode()):08x}"


def sweep(folder: Path) -> None:
    """Remove what killed processes left, once a second at most: thousands of files may follow one another."""
    if time.monotonic() - _swept.get(folder, -1e9) < 1:
        return
    _swept[folder] = time.monotonic()
    for path in folder.glob(".prockd-*"):
        if (named := _UNFINISHED.match(path.name)) is None:
            continue
        with suppress(OSError):  # another process may be removing it too
            here, is_folder = named["host"] == _host(), path.is_dir()
            owner = {"host": platform.node(), "pid": int(named["pid"]), "began": int(named["began"]) + 0.5}
            # how old a folder is says nothing: what is made there may take days
            if not is_running(owner) if here else not is_folder and time.time() - path.stat().st_mtime > 24 * 3600:
                shutil.rmtree(path) if is_folder else path.unlink()


def _of_the_disk(error: Exception, unfinished: Path | None) -> OSError | None:
    """The error of the disk behind another one, if there is one: PyTorch and safetensors wrap it in their own.

    A new one, whose traceback does not lead back to who asks: such a circle would hold a library's file open, and its
    room taken, until the next collection of garbage.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return OSError(error.errno, error.strerror)
    if told := re.search(r"os error (\d+)", str(error)):
        return OSError(number := int(told[1]), os.strerror(number))
    if unfinished is not None:
        try:  # ask the disk itself
            with unfinished.open("ab", buffering=0) as file:
                if file.write(bytes(1 << 20)) < 1 << 20:
                    return _full()
                os.fsync(file.fileno())
        except OSError as cause:
            return OSError(cause.errno, cause.strerror)
    return None


def refusal(path: Path, cause: OSError, need: int | None = None, room: int | None = None) -> WriteError:
    """The sentence for an error of the disk; need and room are in bytes, None where nobody knows them."""
    told = f"{path} cannot be written: {(cause.strerror or str(cause)).lower()}"
    if cause.errno not in FULL:
        return WriteError(f"{told}. Choose another place, or mend this one")
    needed = "more" if need is None else _size(need)
    there = "" if room is None else f", {_size(room)} were free"
    return WriteError(f"{told} ({needed} needed{there}). Make room, or choose another place")


def _full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _size(count: int) -> str:
    """A number of bytes as people say it."""
    power = min(3, max(0, len(str(count)) - 1) // 3)
    return f"{count / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB')[power]}"


def _there(path: Path) -> FileExistsError:
    told = "choose another name, or overwrite it (overwrite=True, --overwrite)"
    return FileExistsError(f"{path} is there already: {told}")
