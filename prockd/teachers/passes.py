"""The teacher's passes over a data set, one batch in one view after the other: whatever is kept is made of these.

A batch is read by threads, goes up while the one before it is computed, and comes down while the next one is.
"""

import sys
import zlib
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from tqdm.auto import tqdm

from prockd._types import ImageDataset
from prockd.datasets import PackedImages, pack
from prockd.datasets.transforms import recolour, resize, to_unit
from prockd.devices import (
    PRECISIONS,
    autocast,
    cast_weights,
    device_for,
    fastest_precision,
    is_out_of_memory,
    made_ahead,
    on_device,
)
from prockd.teachers.teacher import Teacher

VIEWS = ("plain", "mirrored", "recoloured")
"""How the teacher may see an image: as it is, left-right mirrored, in other colours."""

CPU_BATCH, LARGEST_BATCH, BATCH_BYTES = 16, 256, 2**28
"""Images in a pass where none are asked for: on a CPU; elsewhere at most so many, and so many bytes of maps."""

READERS = 4
"""Threads that read images, each a batch ahead."""

Keep = Callable[[list[Tensor], int], Mapping[str, Tensor]]
"""What is kept of the teacher's maps in a view, by name, one row an image; made on the device."""


class PassOptions(TypedDict, total=False):
    """How a teacher passes over images: as of :func:`prockd.extract`."""

    image_px: int | None
    views: Sequence[str]
    precision: str
    batch_size: int | None
    device: str | torch.device | None
    root: Path | None
    progress: bool


class Kept:
    """What is kept of a batch in a view, on its way from the device.

    Attributes:
        rows: of the images.
        view: its number.
    """

    def __init__(self, rows: slice, view: int, tensors: Mapping[str, Tensor], ready: Any = None) -> None:
        self.rows, self.view, self._tensors, self._ready = rows, view, tensors, ready

    def __iter__(self) -> Generator[str, None, None]:
        yield from self._tensors

    def __getitem__(self, name: str) -> np.ndarray:
        """One of the arrays; waits until it has come."""
        if self._ready is not None:
            self._ready.synchronize()
        return np.asarray(self._tensors[name].numpy())


class Passes:
    """Every view of every image, once; each time :meth:`keep` is iterated the teacher runs.

    Args:
        teacher: the frozen teacher; it is moved for the passes and comes back.
        dataset: images; packed at ``image_px`` (default: the teacher's input size) when they are not packed yet.
        image_px: as all that follow, see :func:`prockd.extract`.

    Raises:
        ValueError: a view or a precision that there is not.
    """

    def __init__(
        self,
        teacher: Teacher,
        dataset: ImageDataset | PackedImages,
        *,
        image_px: int | None = None,
        views: Sequence[str] = ("plain",),
        precision: str = "auto",
        batch_size: int | None = None,
        device: str | torch.device | None = None,
        root: Path | None = None,
        progress: bool = True,
    ) -> None:
        if isinstance(views, str) or not set(views) <= set(VIEWS):
            raise ValueError(f"views={views!r}: choose some of {VIEWS}")
        if precision not in ("auto", *PRECISIONS):
            raise ValueError(f"precision={precision!r}: choose one of {('auto', *PRECISIONS)}")
        if isinstance(dataset, PackedImages) and image_px is None:
            self.images = dataset
        else:
            self.images = pack(dataset, image_px or teacher.image_px, root=root, progress=progress)
        self.teacher, self.progress, self.root = teacher, progress, root
        self.views = tuple(view for view in VIEWS if view in ("plain", *views))
        self.device = device_for(teacher, device)
        self.precision = fastest_precision(self.device) if precision == "auto" else precision
        self.batch_size = batch_size or self._suitable_batch()

    def _suitable_batch(self) -> int:
        if self.device.type == "cpu":
            return CPU_BATCH  # more leave the caches: 64 are an eighth slower
        values: int = sum(D * h * w for D, (h, w) in zip(self.teacher.widths, self.teacher.grids, strict=True))
        return max(1, min(LARGEST_BATCH, BATCH_BYTES // (2 * values)))

    @property
    def key(self) -> dict[str, object]:
        """All that decides what the teacher says, for the cache."""
        return {
            "teacher": self.teacher.fingerprint, "images": self.images.fingerprint, "image_px": self.images.image_px,
            "views": self.views, "precision": self.precision,
        }  # fmt: skip

    def keep(self, keep: Keep, parts: Sequence[slice] | None = None) -> Generator[Kept, None, None]:
        """What is kept of all images, or of some runs of neighbours, in batches; no batch reaches over two runs."""
        runs = parts if parts is not None else [slice(0, len(self.images))]
        batches = [
            slice(start, min(start + self.batch_size, run.stop))
            for run in runs
            for start in range(run.start, run.stop, self.batch_size)
        ]
        total = sum(run.stop - run.start for run in runs)
        bar = tqdm(total=total, desc="teacher", unit="image", disable=not self.progress)
        lanes = _Lanes(self.device)
        with (
            on_device(self.device, self.teacher),
            cast_weights(self.teacher, self.precision),
            bar,
            closing(self._uploaded(batches, lanes)) as ahead,
        ):
            for rows, pixels, seeds in ahead:
                for v in range(len(self.views)):
                    yield from self._seen(rows, pixels, seeds, v, keep, lanes)
                bar.update(rows.stop - rows.start)

    def _read(self, rows: slice) -> tuple[UInt8[Tensor, "B 3 S S"], list[int]]:
        """In a thread: images, from where the device can fetch them, and what decides their new colours."""
        stored = self.images.pixels[rows]
        pixels = torch.empty(stored.shape, dtype=torch.uint8, device="cpu", pin_memory=self.device.type == "cuda")
        np.copyto(pixels.numpy(), stored)
        return pixels, [zlib.crc32(image) for image in pixels.numpy()] if "recoloured" in self.views else []

    def _uploaded(
        self, batches: Sequence[slice], lanes: "_Lanes"
    ) -> Generator[tuple[slice, Tensor, list[int]], None, None]:
        """Batches on the device; while one is computed, the next goes up and those after it are read."""
        with closing(made_ahead(self._read, batches, READERS, READERS - 1)) as reading:
            up = ((rows, lanes.up(pixels), seeds) for rows, (pixels, seeds) in zip(batches, reading, strict=True))
            ahead = next(up, None)
            while ahead is not None:
                now = ahead
                lanes.arrive(now[1])
                ahead = next(up, None)
                yield now

    def _seen(
        self, rows: slice, pixels: Tensor, seeds: list[int], v: int, keep: Keep, lanes: "_Lanes"
    ) -> Generator[Kept, None, None]:
        """A batch in one view; in halves, and quarters, from where it does not fit on."""
        start = 0
        while start < len(pixels):
            piece = slice(start, min(start + self.batch_size, len(pixels)))
            own = slice(rows.start + piece.start, rows.start + piece.stop)
            if (found := self._fitting(own, pixels[piece], seeds[piece], v, keep, lanes)) is None:
                self.batch_size = max(1, (piece.stop - piece.start) // 2)
                if self.device.type in ("cuda", "mps"):
                    torch.get_device_module(self.device).empty_cache()
                told = f"a batch of {piece.stop - piece.start} images does not fit the memory of {self.device}"
                tqdm.write(f"{told}: going on with {self.batch_size}", file=sys.stderr)
                continue
            yield found
            start = piece.stop

    @torch.no_grad()
    def _fitting(
        self, rows: slice, pixels: Tensor, seeds: list[int], v: int, keep: Keep, lanes: "_Lanes"
    ) -> Kept | None:
        """What is kept of a batch; None where there is no room for it."""
        try:
            return Kept(rows, v, *lanes.down(keep(self.look(pixels, seeds, v), v)))
        except RuntimeError as error:
            if len(pixels) == 1 or not is_out_of_memory(error):
                raise
        return None  # here the error, and with it all that its frames held, is gone

    @torch.no_grad()
    def look(self, pixels: Tensor, seeds: Sequence[int], v: int, precision: str | None = None) -> list[Tensor]:
        """The maps of images on the device in a view, as the teacher computed them."""
        images = as_view(resize(to_unit(pixels), self.teacher.image_px), seeds, self.views[v])
        with autocast(self.device, precision or self.precision):
            maps: list[Tensor] = self.teacher(images)
        return maps


class _Lanes:
    """The ways to a device and back, beside what it computes; where it has none, one thing follows the other."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        stream: Any = torch.cuda.Stream  # neither it nor an event has types
        self._up, self._down = [stream(device) if device.type == "cuda" else None for _ in range(2)]

    def up(self, pixels: Tensor) -> Tensor:
        """Send a pinned tensor on its way."""
        with torch.cuda.stream(self._up) if self._up else nullcontext():
            return pixels.to(self.device, non_blocking=self._up is not None)

    def arrive(self, tensor: Tensor) -> None:
        """What is computed from here on finds the tensor there."""
        if self._up is not None:
            computing = torch.cuda.current_stream(self.device)
            computing.wait_stream(self._up)
            tensor.record_stream(computing)  # its memory is that of the other lane

    def down(self, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Any]:
        """Tensors of the CPU, and the event after which they hold their values; None where they do already."""
        if self._down is None:
            return {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, None
        whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
        self._down.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._down):
            # without blocking, PyTorch takes pinned memory, which it keeps until the copy is there, and uses again
            here = {name: tensor.to("cpu", non_blocking=True) for name, tensor in whole.items()}
            ready = self._down.record_event(torch.cuda.Event(blocking=True))  # type: ignore[no-untyped-call]
        for tensor in whole.values():
            tensor.record_stream(self._down)
        return here, ready


def number_of(view: str, views: tuple[str, ...]) -> int:
    """Where a view lies among those that the teacher has seen; a ValueError says how to get another one."""
    if view not in views:
        raise ValueError(f"there is no view {view!r}, only {views}: extract(..., views={(*views, view)})")
    return views.index(view)


def as_view(batch: Float[Tensor, "B 3 H W"], seeds: Sequence[int], view: str) -> Float[Tensor, "B 3 H W"]:
    """A view of images; ``seeds``, one of each image's own pixels, decide its new colours, on every run alike."""
    if view == "recoloured":
        return recolour(batch, seeds)
    return batch.flip(3) if view == "mirrored" else batch
