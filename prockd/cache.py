"""Arrays that are computed once and then memory-mapped: an entry is whole, or it is not there.

An entry is a folder ``<root>/<kind>/<digest of its key>`` with one ``.npy`` file an array and a ``meta.json``. It is
built beside its place and renamed into it when every byte is on the disk. A killed run leaves a ``*.tmp-*`` folder,
which is never read and which a later run removes; of two processes that build one entry, the second discards its own.
"""

import errno
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import DTypeLike

ArrayMap = np.memmap[Any, np.dtype[Any]]
"""An array whose bytes stay on the disk until they are read."""

_UNFINISHED = re.compile(r"[0-9a-f]+\.tmp-(?P<host>.*)-(?P<pid>\d+)-[0-9a-f]+")


class CacheError(OSError):
    """The cache cannot be written; the message says why, where, and what to do."""


def cache_root() -> Path:
    """Return the folder of all caches: ``$PROCKD_CACHE``, else ``~/.cache/prockd``."""
    return Path(os.environ.get("PROCKD_CACHE") or "~/.cache/prockd").expanduser()


def digest(key: object) -> str:
    """Return 20 hexadecimal digits for a key, whatever the order of its mappings; TypeError if JSON cannot hold it."""
    text = json.dumps(key, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


class ArrayWriter:
    """Creates the arrays of one entry while it is being built."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._needed_bytes, self._free_bytes = folder, 0, shutil.disk_usage(folder).free
        self._arrays: dict[str, ArrayMap] = {}

    def create(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> ArrayMap:
        """Return a zeroed array on the disk, to be filled in place; CacheError where there is no room for it."""
        self._needed_bytes += int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        if self._needed_bytes > self._free_bytes:
            raise _no_room(self._folder, self._free_bytes, f"{self._needed_bytes / 1e9:.3g} GB are needed, ")
        path = self._folder / f"{name}.npy"
        array: ArrayMap = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        if hasattr(os, "posix_fallocate"):  # a disk that fills up later would end the process without a word
            with path.open("r+b") as file:
                try:
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
                except OSError as error:
                    if error.errno not in (
                        errno.EINVAL,
                        errno.EOPNOTSUPP,
                    ):  # else the file system takes room as the array is filled
                        raise
        self._arrays[name] = array
        return array

    def finish(self, key: Mapping[str, object], meta: Mapping[str, object]) -> None:
        """Bring every byte to the disk, then write ``meta.json``, against which the entry is checked when opened."""
        described = {}
        for name, array in self._arrays.items():
            array.flush()
            path = self._folder / f"{name}.npy"
            _sync(path)
            described[name] = _describe(path, array)
        path = self._folder / "meta.json"
        path.write_text(json.dumps({"key": key, "meta": meta, "arrays": described}), encoding="utf-8")
        _sync(path)
        _sync(self._folder)


Build = Callable[[ArrayWriter], Mapping[str, object]]


def cached_arrays(
    kind: str, key: Mapping[str, object], build: Build, *, root: Path | None = None
) -> tuple[dict[str, ArrayMap], dict[str, Any]]:
    """Open, read-only, the arrays under a key, which says all that they depend on, and the metadata kept with them.

    Where they are not there, ``build`` makes them and returns the metadata. JSON must hold key and metadata.
    """
    entry = (root or cache_root()) / kind / digest(key)
    opened = _open(entry, key)
    if opened is None:
        _build(entry, key, build)
        opened = _open(entry, key)
    if opened is None:
        raise CacheError(f"{entry} could not be read back after it was written; is another program changing it?")
    return opened


def _open(entry: Path, key: Mapping[str, object]) -> tuple[dict[str, ArrayMap], dict[str, Any]] | None:
    """Open an entry; None when there is none, or when it was damaged and has been removed."""
    if not entry.exists():
        return None
    arrays = {}
    try:
        record = json.loads((entry / "meta.json").read_text(encoding="utf-8"))
        if digest(record["key"]) != digest(key):
            raise ValueError("meta.json names another key")
        for name, described in record["arrays"].items():
            path = entry / f"{name}.npy"
            arrays[name] = np.load(path, mmap_mode="r")
            if (stored := _describe(path, arrays[name])) != described:
                raise ValueError(f"{path.name} is {stored}, not {described}")
        return arrays, record["meta"]
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        warnings.warn(f"damaged cache entry is built again: {entry} ({error})", RuntimeWarning, stacklevel=3)
        arrays.clear()  # Windows removes no file that is still mapped
        shutil.rmtree(entry, ignore_errors=True)
        return None


def _describe(path: Path, array: ArrayMap) -> dict[str, object]:
    return {"shape": list(array.shape), "dtype": array.dtype.str, "bytes": path.stat().st_size}


def _build(entry: Path, key: Mapping[str, object], build: Build) -> None:
    folder = entry.with_name(f"{entry.name}.tmp-{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        reason = f"{error.strerror}): set PROCKD_CACHE to a folder that you may write to"
        raise CacheError(f"no cache can be kept in {entry.parent} ({reason}") from error
    try:
        _remove_unfinished(entry.parent)
        writer = ArrayWriter(folder)
        writer.finish(key, build(writer))
        try:
            folder.rename(entry)
        except OSError:
            if not entry.exists():  # else another process was first, with the same arrays
                raise
        _sync(entry.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_room(entry.parent, shutil.disk_usage(folder).free) from error
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_unfinished(parent: Path) -> None:
    """Remove what killed runs left: their process is gone, or they began more than a day ago."""
    for folder in parent.glob("*.tmp-*"):
        named = _UNFINISHED.fullmatch(folder.name)
        gone = named and named["host"] == platform.node() and not psutil.pid_exists(int(named["pid"]))
        with suppress(FileNotFoundError):  # another process may be removing it too
            if gone or time.time() - folder.stat().st_mtime > 24 * 3600:
                shutil.rmtree(folder, ignore_errors=True)


def _sync(path: Path) -> None:
    if os.name == "posix":  # elsewhere a folder has no descriptor
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _no_room(folder: Path, free: int, needed: str = "") -> CacheError:
    room = f"{free / 1e9:.3g} GB are free in {folder}"
    return CacheError(f"disk full: {needed}{room}. Set PROCKD_CACHE to a folder on a larger disk.")
