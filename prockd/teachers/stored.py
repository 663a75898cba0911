"""What is kept of a teacher's passes, in shards: each whole or not there, all of them read as one array.

A shard is an entry of the cache (:mod:`prockd.cache`) of some thousand images; of fewer images there is one, without
more ado. A killed extraction goes on with the shards that are missing, and several processes or jobs share them out.
"""

import hashlib
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import DTypeLike
from torch import Tensor
from tqdm.auto import tqdm

from prockd.cache import ArrayMap, ArrayWriter, CacheError, cache_root, cached_arrays, entry_path, is_whole, open_arrays
from prockd.devices import on_device
from prockd.teachers.passes import Keep, Kept, Passes
from prockd.teachers.rows import Rows, joined

SHARD, AT_ONCE = 1024, 16
"""Images in a shard; of more shards than so many, each is compared with its checksums when it is first read."""

ON_THE_WAY = 3
"""Shards that may be on their way to the disk at once."""

WRITERS = min(8, os.cpu_count() or 1)
"""Threads that copy what has come from the device to the disk."""

ERROR_IMAGES = 4
"""Images that half precision is compared with full precision on."""

Strongest = Callable[[list[Tensor]], Tensor]
"""The strongest prototype of each patch, of the teacher's maps."""


@dataclass(frozen=True)
class Column:
    """An array of a store: the shape of an image's row, in each view or in the plain one alone."""

    shape: tuple[int, ...]
    dtype: DTypeLike
    in_views: bool = True

    def of(self, count: int, num_views: int) -> "Column":
        """That of so many images."""
        return replace(self, shape=(count, num_views, *self.shape) if self.in_views else (count, *self.shape))

    @property
    def nbytes(self) -> int:
        """Its size."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Share:
    """Which shards a process makes: every ``count``-th, from ``number`` on, which is counted from 1.

    >>> Share.parse("3/16")
    Share(number=3, count=16)

    Raises:
        ValueError: a number that there is not.
    """

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ValueError(
                f"shard {self.number}/{self.count}: say which of how many, from 1/{max(1, self.count)} to "
                f"{max(1, self.count)}/{max(1, self.count)}"
            )

    @classmethod
    def parse(cls, text: str) -> "Share":
        """Read ``3/16``."""
        number, slash, count = text.partition("/")
        if not (slash and number.strip().isdecimal() and count.strip().isdecimal()):
            raise ValueError(f"shard {text!r}: write which of how many, such as 3/16")
        return cls(int(number), int(count))


class MissingShardsError(CacheError):
    """Other processes have not made their shards yet."""


def keep_shards(
    kind: str,
    passes: Passes,
    columns: Mapping[str, Column],
    keep: Keep,
    *,
    key: Mapping[str, object],
    strongest: Strongest | None = None,
    share: Share | None = None,
) -> dict[str, Rows]:
    """Open what is kept of a teacher's passes; the shards of this process's share that are missing are made first.

    Args:
        kind: of the cache's entries.
        passes: what the teacher sees.
        columns: the arrays, by name.
        keep: makes a batch's rows of them.
        key: all that they depend on.
        strongest: to tell of how many patches half precision changes the prototype.
        share: of the shards; all of them where it is None.

    Raises:
        CacheError: there is no room; told before the teacher runs.
        MissingShardsError: shards of other processes are not there yet.
    """
    M, V, share, root = len(passes.images), len(passes.views), share or Share(), passes.root
    runs = [slice(start, min(start + SHARD, M)) for start in range(0, M, SHARD)]
    keys = [key if len(runs) == 1 else {**key, "rows": [run.start, run.stop]} for run in runs]
    at_once = len(runs) <= AT_ONCE
    found = [open_arrays(kind, own, root=root, compare=at_once) for own in keys]
    missing = [i for i in range(share.number - 1, len(runs), share.count) if found[i] is None]
    if missing:
        images, began = sum(runs[i].stop - runs[i].start for i in missing), time.perf_counter()
        size = sum(column.of(images, V).nbytes for column in columns.values())
        free = check_room(size, images, kind, root)
        if passes.progress:
            each = f"{size / images / 1e3:,.0f} kB each"
            need = f"{size / 1e6:,.0f} MB for {images:,} images ({each}), {free / 1e6:,.0f} MB are free"
            tqdm.write(f"{kind}: {need}", file=sys.stderr)
        told = precision_error(passes, strongest) if passes.progress else ""
        shards = []
        for i in missing:
            own = {name: column.of(runs[i].stop - runs[i].start, V) for name, column in columns.items()}
            shards.append((runs[i], partial(_Filling, kind, keys[i], own, root)))
        _make(passes, keep, shards)
        if passes.progress:
            seconds = time.perf_counter() - began
            rate = f"{images:,} images in {seconds:.0f} s, {images / seconds:,.0f} images/s, {size / 1e6:,.0f} MB"
            tqdm.write(f"{kind}: {rate}{told}", file=sys.stderr)
        for i in missing:
            found[i] = open_arrays(kind, keys[i], root=root, compare=at_once)
    there = [one[0] for one in found if one is not None]
    if len(there) < len(runs):
        raise MissingShardsError(
            f"{len(there)} of {len(runs)} shards of {kind} are in {root or cache_root()}: the other shares of "
            f"{share.count} make the others, or `prockd extract` without --shard"
        )
    if len(runs) > 1:
        _write_manifest(kind, key, runs, keys, passes.teacher.fingerprint, root)

    def compare(shard: int) -> None:
        if not at_once and not is_whole(entry := entry_path(kind, keys[shard], root)):
            raise CacheError(f"{entry} was damaged and is removed: the same command again makes it anew")

    return {name: joined([arrays[name] for arrays in there], compare) for name in columns}


def check_room(size: int, images: int, kind: str, root: Path | None) -> int:
    """The bytes that are free; what the disk has no room for is refused with numbers."""
    folder = root or cache_root()
    at = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if size > (free := shutil.disk_usage(at).free):
        raise CacheError(
            f"disk full: {kind} of {images:,} images need {size / 1e9:,.3g} GB ({size / images / 1e3:,.0f} kB each), "
            f"and {free / 1e9:,.3g} GB are free in {folder}: keep less (`prockd extract --store embedded`, or "
            "distill.store = none, where the teacher sees every step), or set PROCKD_CACHE to a folder on a larger disk"
        )
    return free


def _write_manifest(
    kind: str, key: Mapping[str, object], runs: Sequence[slice], keys: Sequence[Any], teacher: str, root: Path | None
) -> None:
    """An entry that names the shards: rows, folder, teacher, and the SHA-256 of what checks their bytes (meta.json)."""

    def shards(writer: ArrayWriter) -> Mapping[str, object]:
        told = []
        for run, own in zip(runs, keys, strict=True):
            folder = entry_path(kind, own, root)
            sha256 = hashlib.sha256((folder / "meta.json").read_bytes()).hexdigest()
            told.append({"rows": [run.start, run.stop], "folder": folder.name, "sha256": sha256})
        return {"teacher": teacher, "images": runs[-1].stop, "shards": told}

    cached_arrays(kind, {**key, "manifest": [len(runs), SHARD]}, shards, root=root)


class _Filling:
    """A shard on its way: a thread holds its entry open until all rows are written, and then brings it to the disk."""

    def __init__(self, kind: str, key: Mapping[str, object], columns: Mapping[str, Column], root: Path | None) -> None:
        self._columns, self._opened = columns, Future[dict[str, ArrayMap]]()
        self._all, self._writes = Future[list[Future[None]]](), list[Future[None]]()
        self._thread = ThreadPoolExecutor(1, "prockd-shard")
        self._entry = self._thread.submit(cached_arrays, kind, key, self._build, root=root)

    def fill(self, kept: Kept, start: int, writers: ThreadPoolExecutor) -> list[Future[None]]:
        """Let threads write a batch, of which the shard's first row is ``start``."""
        wait(list[Future[Any]]([self._opened, self._entry]), return_when=FIRST_COMPLETED)
        if not self._opened.done():
            self._entry.result()  # raises what kept it from being opened; else another process has just made it
            return []
        arrays, rows = self._opened.result(), slice(kept.rows.start - start, kept.rows.stop - start)
        writes = [
            writers.submit(
                _write, arrays[name], (rows, kept.view) if self._columns[name].in_views else rows, kept, name
            )
            for name in kept
            if name in self._columns
        ]
        self._writes += writes
        return writes

    def finish(self) -> None:
        """All rows have been handed over."""
        self._all.set_result(self._writes)

    def close(self) -> None:
        """Wait until it is on the disk, or gone where it is not whole."""
        if not self._all.done():
            self._all.set_exception(InterruptedError("the extraction was stopped"))
        self._thread.shutdown()

    def result(self) -> None:
        """Raise what went wrong on the way to the disk; of what did not, neither a thread nor memory is held on to."""
        self._entry.result()
        self._thread.shutdown()
        self._writes.clear()
        self._opened = Future()

    def _build(self, writer: ArrayWriter) -> Mapping[str, object]:
        self._opened.set_result({name: writer.create(name, c.shape, c.dtype) for name, c in self._columns.items()})
        for write in self._all.result():
            write.result()
        return {}


def _write(array: ArrayMap, rows: Any, kept: Kept, name: str) -> None:
    array[rows] = kept[name]


def _check(kept: Kept, ids: Sequence[str]) -> None:
    if not (finite := kept["finite"]).all():
        raise not_finite(ids[kept.rows.start + int(finite.argmin())])


def not_finite(image: str) -> ValueError:
    """The error for an image of which the teacher says something that is no number."""
    return ValueError(
        f"features of image {image!r} are not finite: look at it, or choose layers whose values fit in float16"
    )


def _make(passes: Passes, keep: Keep, shards: Sequence[tuple[slice, Callable[[], _Filling]]]) -> None:
    """Run the teacher over the shards' images: one is filled while the one before is brought to the disk."""
    fillings, pending, i = list[_Filling](), deque[Future[None]](), 0
    with ThreadPoolExecutor(WRITERS, "prockd-writer") as writers:
        try:
            with closing(passes.keep(keep, [run for run, _ in shards])) as seen:
                for kept in seen:
                    if kept.rows.start >= shards[i][0].stop:
                        fillings[i].finish()
                        i += 1
                        if i > ON_THE_WAY:
                            fillings[i - ON_THE_WAY - 1].result()
                    while len(fillings) < min(i + 2, len(shards)):
                        fillings.append(shards[len(fillings)][1]())
                    pending.extend(fillings[i].fill(kept, shards[i][0].start, writers))
                    if "finite" in kept:
                        pending.append(writers.submit(_check, kept, passes.images.ids))
                    while len(pending) > 2 * WRITERS:  # so much waits in memory
                        pending.popleft().result()
            fillings[i].finish()
            for filling in fillings:
                filling.result()
        finally:
            for filling in fillings:
                filling.close()


@torch.no_grad()
def precision_error(passes: Passes, strongest: Strongest | None = None) -> str:
    """What the teacher's maps of some images lose to full precision, in words; nothing where they have it."""
    if passes.precision == "fp32":
        return ""
    pixels = torch.from_numpy(np.array(passes.images.pixels[:ERROR_IMAGES]))
    with on_device(passes.device, passes.teacher):
        whole, half = (
            [m.float() for m in passes.look(pixels.to(passes.device), [], 0, p)] for p in ("fp32", passes.precision)
        )
        cosine = torch.stack([F.cosine_similarity(a, b, dim=1).mean() for a, b in zip(whole, half, strict=True)]).mean()
        told = f"; {passes.precision}, cosine to fp32 {float(cosine):.5f}"
        if strongest is not None:
            same = (strongest(whole) == strongest(half)).float().mean()
            told += f", strongest prototype the same in {float(same):.1%} of patches"
    return told
