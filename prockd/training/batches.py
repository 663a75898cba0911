"""What one training step reads: random crops of images, of the teacher's maps and of the task's targets."""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.profiler import record_function

from prockd.datasets import PackedImages
from prockd.datasets.transforms import Crops, cut_maps, random_crops, to_unit, whole_images
from prockd.devices import autocast, map_tensors
from prockd.prototypes.bank import PrototypeBank
from prockd.prototypes.embedding import embed_features, embedded_maps
from prockd.tasks.task import Task
from prockd.teachers.embedded import EmbeddedFeatures
from prockd.teachers.features import PatchFeatures, check_finite, fuse_layers
from prockd.teachers.teacher import Teacher
from prockd.training.feeding import has_room, take


@runtime_checkable
class Reader(Protocol):
    """What learns from batches, a student or a teacher: the size of its images and its grids of patches."""

    image_px: int
    grid: tuple[int, int]  # of the features that are compared with the teacher's
    last_grid: tuple[int, int]  # of its last map


@dataclass(frozen=True)
class Batch:
    """One step's images, cropped, and what the teacher computes for the same crops."""

    images: Tensor  # (B, 3, H, W) RGB, 0..1
    labelled: int = 0  # how many have targets, the first ones; the others are for transfer only
    teacher: Tensor | None = None  # (B, D or E, h, w) teacher patches on the student's grid
    last: Tensor | None = None  # (B, D_last, h, w) teacher's last map on the student's last grid

    def joined(self, other: "Batch") -> "Batch":
        """These images followed by others, which are for transfer only."""
        pairs = ((self.teacher, other.teacher), (self.last, other.last))
        teacher, last = (None if a is None or b is None else torch.cat([a, b]) for a, b in pairs)
        return replace(self, images=torch.cat([self.images, other.images]), teacher=teacher, last=last)


def patches_of(batch: Batch) -> Float[Tensor, "B N E"]:
    """The teacher's patches in the student's order of memory, or backward through its maps is slow."""
    assert batch.teacher is not None
    return batch.teacher.flatten(2).transpose(1, 2).contiguous()


class Source:
    """Random crops of packed images with the same crops of the teacher's maps and of the task's targets.

    Stored maps are cut like the images ("replayed"); a teacher in their place sees the crops. Mirror images are read
    from the mirrored view: the features of a mirrored image are not mirrored features.

    Args:
        images: what is cropped.
        teacher: features of the same images, embedded by the bank or not, or the teacher itself; None to learn from
            labels alone.
        bank: embeds the teacher's patches when it is frozen, stored ones once for all; None leaves them as they are.
        task: whose targets are read; None for unlabelled images.
        min_crop: smallest part of the image that a crop keeps.
        flip: mirror half of the images.
        wants_last: read the teacher's last map too.
    """

    def __init__(
        self,
        images: PackedImages,
        teacher: PatchFeatures | EmbeddedFeatures | Teacher | None = None,
        bank: PrototypeBank | None = None,
        *,
        task: Task | None = None,
        min_crop: float = 0.5,
        flip: bool = True,
        wants_last: bool = False,
    ) -> None:
        self.images, self.teacher, self.bank, self.task = images, teacher, bank, task
        self.min_crop, self.flip, self.wants_last = min_crop, flip, wants_last
        self.stored = teacher
        self.resident: dict[str, Tensor] = {}  # "pixels" and "maps" that lie on a GPU for the whole run
        if bank is not None and isinstance(teacher, PatchFeatures):
            self.stored = embed_features(bank, teacher, batch_size=64)

    def rows(self, count: int, seed: int, step: int) -> Int64[np.ndarray, " B"]:
        """The images of a step."""
        return shuffled(len(self.images), count, seed, step)

    def crops(self, rows: np.ndarray, generator: torch.Generator) -> Crops:
        """Draw what is cut out of each of these images, as the task allows."""
        crops = random_crops(len(rows), generator, min_area=self.min_crop, flip=self.flip)
        return crops if self.task is None else self.task.fit_crops(self.images, rows, crops)

    def targets(self, rows: np.ndarray, crops: Crops, student: Reader, device: torch.device) -> Any:
        """The task's targets of some images, cropped."""
        assert self.task is not None
        return map_tensors(lambda t: t.to(device), self.task.targets(self.images, rows, crops, student.image_px))

    def settle(self, device: torch.device, at_once: int = 256) -> None:
        """Bring images and embedded patches to a GPU, where there is room; ValueError for one that is not finite."""
        columns: dict[str, tuple[int, ...]] = {"pixels": self.images.pixels.shape}
        if isinstance(self.stored, EmbeddedFeatures):
            columns["maps"] = (len(self.stored), len(self.stored.views), self.stored.width, *self.stored.grid)
        for name, shape in columns.items():
            kind = torch.uint8 if name == "pixels" else torch.float16
            if not has_room(math.prod(shape) * kind.itemsize, device):
                continue
            self.resident[name] = whole = torch.empty(shape, dtype=kind, device=device)
            for start in range(0, shape[0], at_once):
                rows = np.arange(start, min(start + at_once, shape[0]))
                if name == "pixels":
                    whole[start : start + at_once] = take(self.images.pixels, rows, device)
                for v in range(shape[1]) if name == "maps" else ():
                    whole[start : start + at_once, v] = self.patches(rows, np.full(len(rows), v)).to(device)

    def batch(
        self, rows: np.ndarray, crops: Crops, student: Reader, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> Batch:
        """Images and teacher maps, cropped at the same places; ``dtype`` is what crops and teacher are computed in."""
        if "pixels" in self.resident:
            pixels = self.resident["pixels"][torch.from_numpy(rows).to(device)]
        else:
            pixels = take(self.images.pixels, rows, device)
        pixels, regions = pixels.to(dtype), crops.regions
        images = to_unit(cut_maps(pixels, regions, (student.image_px, student.image_px), crops.mirrored))
        labelled = 0 if self.task is None else len(rows)
        if self.teacher is None:
            return Batch(images, labelled)
        if isinstance(self.teacher, Teacher):
            side = self.teacher.image_px
            patches, last = self.look(to_unit(cut_maps(pixels, regions, (side, side), crops.mirrored)))
            regions = whole_images(len(rows)).regions
        else:
            patches, last = self.replay(rows, crops.mirrored, device)
        cut_last = None if last is None else cut_maps(last, regions, student.last_grid)
        return Batch(images, labelled, cut_maps(patches.to(dtype), regions, student.grid), cut_last)

    @torch.no_grad()
    def look(self, images: Float[Tensor, "B 3 S S"]) -> tuple[Tensor, Tensor | None]:
        """The teacher's patches and, where it is wanted, last map of the crops themselves, in their precision."""
        assert isinstance(self.teacher, Teacher)
        precision = "bf16" if images.dtype == torch.bfloat16 else "fp32"
        with autocast(images.device, precision), record_function("teacher"):
            maps = [m.float() for m in self.teacher(images.float())]
        patches, last = fuse_layers(maps, self.teacher.grid), maps[-1] if self.wants_last else None
        return patches if self.bank is None else embedded_maps(self.bank, patches), last

    def replay(self, rows: np.ndarray, mirrored: Tensor, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """The teacher's patches and, where it is wanted, last map of the whole images, on a device.

        Raises:
            ValueError: one of the patches is not finite; the message names the image, labelled or not.
        """
        assert isinstance(self.stored, PatchFeatures | EmbeddedFeatures)
        views = np.where(mirrored.numpy(), self.stored.views.index("mirrored") if self.flip else 0, 0)
        if "maps" in self.resident:
            there = self.resident["maps"]
            places = torch.from_numpy(rows * there.shape[1] + views).to(device)
            patches = there.flatten(0, 1)[places]
        else:
            patches = self.patches(rows, views).to(device)
        if not self.wants_last:
            return patches, None
        assert isinstance(self.teacher, PatchFeatures)
        return patches, self.teacher.layer_maps(rows, views, slice(-1, None))[0].to(device)

    def patches(self, rows: np.ndarray, views: np.ndarray) -> Float[Tensor, "B D h w"]:
        """Stored patches of whole images, finite ones."""
        assert isinstance(self.stored, PatchFeatures | EmbeddedFeatures)
        read = self.stored.fused if isinstance(self.stored, PatchFeatures) else self.stored.embedded
        patches = read(rows, views)
        check_finite(patches, self.stored, rows)
        return patches


def shuffled(total: int, batch: int, seed: int, step: int) -> Int64[np.ndarray, " B"]:
    """The rows of a step: every image comes once an epoch, in an order of that epoch's own."""
    first, last = step * batch, (step + 1) * batch
    epochs = range(first // total, -(-last // total))
    orders = [permutation(total, seed, epoch)[max(0, first - epoch * total) : last - epoch * total] for epoch in epochs]
    return np.concatenate(orders).astype(np.int64)


def permutation(total: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the images in one epoch; the last two are kept, 4 bytes an image each."""
    kept = _orders(total, seed)
    if epoch not in kept:
        for old in sorted(kept)[:-1]:
            del kept[old]
        kept[epoch] = np.random.default_rng([seed, epoch]).permutation(total).astype(np.min_scalar_type(total))
    return kept[epoch]


@lru_cache(maxsize=64)
def _orders(total: int, seed: int) -> dict[int, np.ndarray]:
    return {}
