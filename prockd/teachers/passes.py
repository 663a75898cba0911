"""The teacher's passes over a data set, one batch in one view after the other: whatever is kept is made of these."""

import zlib
from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from prockd._types import ImageDataset
from prockd.datasets import PackedImages, pack
from prockd.datasets.transforms import recolour, resize, to_unit
from prockd.devices import PRECISIONS, autocast, device_for, fastest_precision, on_device
from prockd.teachers.teacher import Teacher

VIEWS = ("plain", "mirrored", "recoloured")
"""How the teacher may see an image: as it is, left-right mirrored, in other colours."""


class Passes:
    """Every view of every image, once; each time they are iterated the teacher runs, a batch of maps in memory.

    Args:
        teacher: the frozen teacher; it is moved for the passes and comes back.
        dataset: images; packed at ``image_px`` (default: the teacher's input size) when they are not packed yet.
        image_px: side of the packed images in pixels; resized to the teacher's input size where they differ.
        views: names out of ``VIEWS``; "plain" is always there.
        precision: "fp32", "bf16" or "fp16"; "auto" is :func:`prockd.devices.fastest_precision`.
        batch_size: images in a pass.
        device: where the teacher runs; None is where it is, or from the CPU the GPU if there is one.
        root: cache folder, for packing.
        progress: show a progress bar.

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
        batch_size: int = 16,
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
        self.teacher, self.batch_size, self.progress = teacher, batch_size, progress
        self.views = tuple(view for view in VIEWS if view in ("plain", *views))
        self.device = device_for(teacher, device)
        self.precision = fastest_precision(self.device) if precision == "auto" else precision

    @property
    def key(self) -> dict[str, object]:
        """All that decides what the teacher says, for the cache."""
        return {
            "teacher": self.teacher.fingerprint, "images": self.images.fingerprint, "image_px": self.images.image_px,
            "views": self.views, "precision": self.precision,
        }  # fmt: skip

    def __iter__(self) -> Generator[tuple[slice, int, list[Tensor]], None, None]:
        """Rows of the images, number of the view, and the teacher's map of each layer, still on the device."""
        bar = tqdm(total=len(self.images), desc="teacher", unit="image", disable=not self.progress)
        with on_device(self.device, self.teacher), bar:
            for start in range(0, len(self.images), self.batch_size):
                pixels = np.array(self.images.pixels[start : start + self.batch_size])
                rows = slice(start, start + len(pixels))
                batch = resize(to_unit(torch.from_numpy(pixels).to(self.device)), self.teacher.image_px)
                for v, view in enumerate(self.views):
                    with autocast(self.device, self.precision):
                        maps = self.teacher(as_view(batch, pixels, view))
                    yield rows, v, [m.float() for m in maps]
                bar.update(len(pixels))


def number_of(view: str, views: tuple[str, ...]) -> int:
    """Where a view lies among those that the teacher has seen; a ValueError says how to get another one."""
    if view not in views:
        raise ValueError(f"there is no view {view!r}, only {views}: extract(..., views={(*views, view)})")
    return views.index(view)


def as_view(batch: Float[Tensor, "B 3 H W"], pixels: np.ndarray, view: str) -> Float[Tensor, "B 3 H W"]:
    """A view of images; the new colours of one depend on its own pixels alone, so they are the same on every run."""
    if view == "recoloured":
        return recolour(batch, [zlib.crc32(image.tobytes()) for image in pixels])
    return batch.flip(3) if view == "mirrored" else batch
