"""What one training step reads: random crops of images, of the teacher's maps and of the task's targets."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from prockd.datasets import PackedImages
from prockd.datasets.transforms import Crops, cut_maps, random_crops, to_unit, whole_images
from prockd.devices import map_tensors
from prockd.prototypes.bank import PrototypeBank
from prockd.prototypes.embedding import embed_features, embedded_maps
from prockd.tasks.task import Task
from prockd.teachers.embedded import EmbeddedFeatures
from prockd.teachers.features import PatchFeatures, check_finite, fuse_layers
from prockd.teachers.teacher import Teacher


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

    def batch(self, rows: np.ndarray, crops: Crops, student: Reader, device: torch.device) -> Batch:
        """Images and teacher maps, cropped at the same places."""
        pixels = torch.from_numpy(np.array(self.images.pixels[rows])).to(device).float()
        regions = crops.regions.to(device)
        images = to_unit(cut_maps(pixels, regions, (student.image_px, student.image_px), crops.mirrored))
        labelled = 0 if self.task is None else len(rows)
        if self.teacher is None:
            return Batch(images, labelled)
        if isinstance(self.teacher, Teacher):
            side = self.teacher.image_px
            patches, last = self.look(to_unit(cut_maps(pixels, regions, (side, side), crops.mirrored)))
            regions = whole_images(len(rows)).regions.to(device)
        else:
            patches, last = self.replay(rows, crops.mirrored)
        cut_last = None if last is None else cut_maps(last.to(device), regions, student.last_grid)
        return Batch(images, labelled, cut_maps(patches.to(device), regions, student.grid), cut_last)

    @torch.no_grad()
    def look(self, images: Float[Tensor, "B 3 S S"]) -> tuple[Tensor, Tensor | None]:
        """The teacher's patches and, where it is wanted, last map of the crops themselves."""
        assert isinstance(self.teacher, Teacher)
        maps = self.teacher(images)
        patches = fuse_layers(maps, self.teacher.grid)
        return patches if self.bank is None else embedded_maps(self.bank, patches), maps[
            -1
        ] if self.wants_last else None

    def replay(self, rows: np.ndarray, mirrored: Tensor) -> tuple[Tensor, Tensor | None]:
        """The teacher's patches and, where it is wanted, last map of the whole images.

        Raises:
            ValueError: one of the patches is not finite; the message names the image, labelled or not.
        """
        assert isinstance(self.stored, PatchFeatures | EmbeddedFeatures)
        views = np.where(mirrored.numpy(), self.stored.views.index("mirrored") if self.flip else 0, 0)
        read = self.stored.fused if isinstance(self.stored, PatchFeatures) else self.stored.embedded
        patches = read(rows, views)
        check_finite(patches, self.stored, rows)
        if not self.wants_last:
            return patches, None
        assert isinstance(self.teacher, PatchFeatures)
        return patches, self.teacher.layer_maps(rows, views, slice(-1, None))[0]


def shuffled(total: int, batch: int, seed: int, step: int) -> np.ndarray:
    """The rows of a step: every image comes once an epoch, in an order of that epoch's own."""
    places = range(step * batch, (step + 1) * batch)
    return np.array([permutation(total, seed, place // total)[place % total] for place in places])


@lru_cache(maxsize=64)
def permutation(total: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the images in one epoch."""
    return np.random.default_rng([seed, epoch]).permutation(total)
