"""Arrays that are computed once and then memory-mapped: an entry is whole, or it is not there.

An entry is a folder ``<root>/<kind>/<digest of its key>`` with one ``.npy`` file an array and a ``meta.json``. It is
built beside its place and renamed into it when every byte is on the disk. A killed run leaves a ``.prockd-*`` folder,
which is never read and which a later run removes; of two processes that build one entry, the second discards its own.
``meta.json`` keeps a checksum of itself and of every block of the arrays; a process compares them when it first opens
an entry, or of many shards when it first reads one, and an entry that differs is built again.
"""

import errno
import hashlib
import json
import os
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from prockd.writing import FULL, sweep, sync, unfinished_name

ArrayMap = np.memmap[Any, np.dtype[Any]]
"""An array whose bytes stay on the disk until they are read."""

_BLOCK_BYTES = 2**24  # that one checksum is of, so that threads share the reading of a large array
_verified = set[tuple[object, ...]]()  # what this process has written or compared, by place, size and date


class CacheError(OSError):
    """The cache cannot be written; the message says why, where, and what to do."""


def cache_root() -> Path:
    """Return the folder of all caches: ``$PROCKD_CACHE``, else ``~/.cache/prockd``."""
    try:
        return Path(os.environ.get("PROCKD_CACHE") or "~/.cache/prockd").expanduser()
    except RuntimeError as error:  # a container may run as a user that nobody knows
        raise CacheError("no home is known to keep a cache in: set PROCKD_CACHE to a folder") from error


def digest(key: object) -> str:
    """Return 20 hexadecimal digits for a key, whatever the order of its mappings; TypeError if JSON cannot hold it."""
    text = json.dumps(key, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    # A name on the disk may hold bytes that are no text, which Python keeps as lone surrogates.
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:20]


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
                    if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # file systems that take room later
                        raise
        self._arrays[name] = array
        return array

    def finish(self, key: Mapping[str, object], meta: Mapping[str, object]) -> None:
        """Bring every byte to the disk, then write ``meta.json``, against which the entry is checked when opened."""
        described = {}
        for name, array in self._arrays.items():
            path = self._folder / f"{name}.npy"
            if os.name == "nt":
                array.flush()  # elsewhere the file's own sync has it too, and lets other threads run meanwhile
            sync(path)
            described[name] = _describe(path, array) | {"blocks": _block_sums(path)}
            _verified.add(_mark(path, described[name]["blocks"]))
        record = json.loads(json.dumps({"key": key, "meta": meta, "arrays": described}))  # as read: keys are texts
        path = self._folder / "meta.json"
        path.write_text(json.dumps({**record, "checksum": digest(record)}), encoding="utf-8")
        sync(path)
        sync(self._folder)


Build = Callable[[ArrayWriter], Mapping[str, object]]


def cached_arrays(
    kind: str, key: Mapping[str, object], build: Build, *, root: Path | None = None
) -> tuple[dict[str, ArrayMap], dict[str, Any]]:
    """Open, read-only, the arrays under a key, which says all that they depend on, and the metadata kept with them.

    Where they are not there, ``build`` makes them and returns the metadata. JSON must hold key and metadata.
    """
    entry = entry_path(kind, key, root)
    opened = _open(entry, key)
    if opened is None:
        _build(entry, key, build)
        opened = _open(entry, key)
    if opened is None:
        raise CacheError(f"{entry} could not be read back after it was written; is another program changing it?")
    return opened


def open_arrays(
    kind: str, key: Mapping[str, object], *, root: Path | None = None, compare: bool = True
) -> tuple[dict[str, ArrayMap], dict[str, Any]] | None:
    """What :func:`cached_arrays` returns, where it is there already; without ``compare`` :func:`is_whole` is to ask."""
    return _open(entry_path(kind, key, root), key, compare)


def is_whole(entry: Path) -> bool:
    """Compare all of an entry with its checksums; a damaged one is removed, with a warning."""
    return _open(entry, None) is not None


def entry_path(kind: str, key: Mapping[str, object], root: Path | None = None) -> Path:
    """The folder of an entry, there or not."""
    return (root or cache_root()) / kind / digest(key)


def _open(
    entry: Path, key: Mapping[str, object] | None, compare: bool = True
) -> tuple[dict[str, ArrayMap], dict[str, Any]] | None:
    """Open an entry, of whatever key for None; None when there is none, or it was damaged and has been removed."""
    if not entry.exists():
        return None
    arrays: dict[str, ArrayMap] = {}
    try:
        record = _read_record(entry, key)
        for name, described in record["arrays"].items():
            path = entry / f"{name}.npy"
            arrays[name] = np.load(path, mmap_mode="r")
            _verify(path, arrays[name], described, compare)
        return arrays, record["meta"]
    except Exception as error:  # whatever damaged bytes lead to, the entry can be made again
        if isinstance(error, PermissionError):
            reason = "you may not read it: set PROCKD_CACHE to a folder of your own"
            raise CacheError(f"{entry} cannot be opened ({reason})") from error
        reason = " ".join(str(error).split()) or type(error).__name__
        warnings.warn(f"damaged cache entry is built again: {entry} ({reason})", RuntimeWarning, stacklevel=3)
        arrays.clear()  # Windows removes no file that is still mapped
        _remove(entry)
        return None


def _read_record(entry: Path, key: Mapping[str, object] | None) -> dict[str, Any]:
    """What ``meta.json`` holds; ValueError where it is damaged, or of another key."""
    record: dict[str, Any] = json.loads((entry / "meta.json").read_text(encoding="utf-8"))
    if record.pop("checksum") != digest(record):
        raise ValueError("meta.json is damaged")
    if key is not None and digest(record["key"]) != digest(key):
        raise ValueError("meta.json names another key")
    return record


def _verify(path: Path, array: ArrayMap, described: Mapping[str, Any], compare: bool) -> None:
    """Compare an array with what ``meta.json`` has of it, block by block the first time; ValueError if it differs."""
    wanted, stored = dict(described), _describe(path, array)
    blocks = wanted.pop("blocks")
    if stored != wanted:
        raise ValueError(f"{path.name} is {stored}, not {wanted}")
    if not compare or (mark := _mark(path, blocks)) in _verified:
        return
    if (sums := _block_sums(path)) != blocks:
        wrong = [number for number, pair in enumerate(zip(sums, blocks, strict=False)) if pair[0] != pair[1]]
        raise ValueError(f"{path.name} is not what was written, block {wrong[0] if wrong else 0} of {len(sums)}")
    _verified.add(mark)


def _mark(path: Path, blocks: object) -> tuple[object, ...]:
    """What tells a file, wherever it is moved, from one that was changed."""
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, zlib.crc32(json.dumps(blocks).encode())


def _block_sums(path: Path) -> list[int]:
    """CRC-32 of each block of a file; zlib lets go of the interpreter, so that threads share the work."""
    piece = min(_BLOCK_BYTES, 2**20)  # what lies in memory of it

    def of_block(start: int) -> int:
        with path.open("rb") as file:
            file.seek(start)
            return reduce(lambda crc, _: zlib.crc32(file.read(piece), crc), range(_BLOCK_BYTES // piece), 0)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        return list(threads.map(of_block, range(0, path.stat().st_size, _BLOCK_BYTES)))


def _describe(path: Path, array: ArrayMap) -> dict[str, object]:
    return {"shape": list(array.shape), "dtype": array.dtype.str, "bytes": path.stat().st_size}


def _remove(entry: Path) -> None:
    """Remove a damaged entry, or a file in its place; CacheError where it cannot be."""
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)
    if entry.exists():
        raise CacheError(f"{entry} is damaged and cannot be removed: remove it, or set PROCKD_CACHE to another folder")


def _build(entry: Path, key: Mapping[str, object], build: Build) -> None:
    """Build an entry in a folder beside its place, and move it there."""
    with unfinished(entry) as folder:
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            reason = f"{error.strerror or error}): set PROCKD_CACHE to a folder that you may write to"
            raise CacheError(f"no cache can be kept in {entry.parent} ({reason}") from error
        try:
            sweep(entry.parent)
            writer = ArrayWriter(folder)
            writer.finish(key, build(writer))
            try:
                folder.rename(entry)
            except OSError:
                if not entry.exists():  # else another process was first, with the same arrays
                    raise
            sync(entry.parent)
        except OSError as error:
            if error.errno in FULL:
                raise _no_room(entry.parent, shutil.disk_usage(folder).free) from error
            raise


@contextmanager
def unfinished(entry: Path) -> Iterator[Path]:
    """A place beside an entry to make it in, or to take it apart: gone at the end, or after a kill by a later build."""
    folder = entry.with_name(unfinished_name())
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _no_room(folder: Path, free: int, needed: str = "") -> CacheError:
    room = f"{free / 1e9:.3g} GB are free in {folder}"
    return CacheError(f"disk full: {needed}{room}. Set PROCKD_CACHE to a folder on a larger disk.")
