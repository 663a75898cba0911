"""What one training step reads: random crops of images, of the teacher's maps and of the task's targets."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from jaxtyping import Float
from torch import Tensor

from prockd.datasets import PackedImages
from prockd.datasets.transforms import Crops, cut_maps, random_crops, to_unit
from prockd.prototypes.bank import PrototypeBank
from prockd.settings.method import DistillConfig
from prockd.students.student import Student
from prockd.tasks.task import Task
from prockd.teachers.features import PatchFeatures, fuse_layers


@dataclass(frozen=True)
class Batch:
    """One step's images, cropped, and what the task and the teacher say of the same crops.

    Attributes:
        images: (B, 3, H, W) RGB, 0..1.
        targets: of the task, for the first images; the others are for transfer only.
        teacher: (B, D or E, h, w) teacher patches on the student's grid.
        last: (B, D_last, h, w) teacher's last map on the student's last grid.
    """

    images: Tensor
    targets: Any
    teacher: Tensor | None = None
    last: Tensor | None = None


class Source:
    """Random crops of packed images with the same crops of the teacher's cached maps and of the task's targets.

    Mirror images are read from the cache's second view: the features of a mirrored image are not mirrored features.

    Args:
        images: what is cropped.
        features: of the same images; None without a teacher.
        bank: embeds the features once when it is frozen.
        config: crops, flips and which terms are wanted.
        task: whose targets are read; None for unlabelled images.
    """

    def __init__(
        self,
        images: PackedImages,
        features: PatchFeatures | None,
        bank: PrototypeBank | None,
        config: DistillConfig,
        task: Task | None = None,
    ) -> None:
        self.images, self.features, self.task = images, features, task
        self.flip = config.flip and (features is None or features.num_views >= 2)
        self.min_crop = config.min_crop
        self.embedded: Tensor | None = None
        if features is not None and bank is not None and not config.train_bank:
            self.embedded = embed_all(bank, features)
        self.wants_last = features is not None and config.hint_weight > 0

    def crops(self, count: int, generator: torch.Generator) -> Crops:
        """Draw what is cut out of each of the next images."""
        return random_crops(count, generator, min_area=self.min_crop, flip=self.flip)

    def batch(self, rows: np.ndarray, crops: Crops, student: Student, device: torch.device) -> Batch:
        """Crop images, teacher maps and targets at the same places."""
        pixels = torch.from_numpy(np.array(self.images.pixels[rows])).to(device).float()
        pixels = torch.where(crops.mirrored.to(device)[:, None, None, None], pixels.flip(3), pixels)
        regions = crops.regions.to(device)
        images = to_unit(cut_maps(pixels, regions, (student.image_px, student.image_px)))
        targets = None
        if self.task is not None:
            targets = send_to_device(self.task.targets(self.images, rows, crops, student.image_px), device)
        teacher = last = None
        if self.features is not None:
            views = crops.mirrored.long()
            if self.embedded is not None:
                teacher = self.embedded[torch.from_numpy(rows), views]
            else:
                maps = [torch.from_numpy(m[rows, views.numpy()]).float() for m in self.features.maps]
                teacher = fuse_layers(maps, self.features.grid)
            teacher = cut_maps(teacher.to(device).float(), regions, student.grid)
            if self.wants_last:
                whole = torch.from_numpy(self.features.maps[-1][rows, views.numpy()]).to(device).float()
                last = cut_maps(whole, regions, student.last_grid)
        return Batch(images, targets, teacher, last)


def joined(first: Batch, second: Batch) -> Batch:
    """Labelled images followed by unlabelled ones as one batch; what the second part's labels are is never read."""
    pairs = ((first.teacher, second.teacher), (first.last, second.last))
    teacher, last = (None if a is None or b is None else torch.cat([a, b]) for a, b in pairs)
    return Batch(torch.cat([first.images, second.images]), first.targets, teacher, last)


@torch.no_grad()
def embed_all(bank: PrototypeBank, features: PatchFeatures, *, chunk: int = 128) -> Float[Tensor, "M V E h w"]:
    """U of every image and view in half precision: with a frozen bank it need not be computed in each step."""
    bank.check(features)
    h, w = features.grid
    out = torch.empty(len(features), features.num_views, bank.embed_dim, h, w, dtype=torch.float16)
    for start in range(0, len(features), chunk):
        indices = np.arange(start, min(start + chunk, len(features)))
        for view in range(features.num_views):
            u = bank.embed(features.fused(indices, view).to(bank.prototypes.device))
            out[indices, view] = u.transpose(1, 2).reshape(len(indices), -1, h, w).half().cpu()
    return out


def shuffled(total: int, batch: int, seed: int, start: int = 0) -> Iterator[np.ndarray]:
    """Endless batches of indices; any step can be reached without replaying the ones before it."""
    step = start
    while True:
        places = np.arange(step * batch, (step + 1) * batch)
        orders = {e: np.random.default_rng([seed, e]).permutation(total) for e in np.unique(places // total).tolist()}
        yield np.array([orders[p // total][p % total] for p in places.tolist()])
        step += 1


def same_images(first: PackedImages, second: PackedImages) -> bool:
    """Whether two packs hold the same images in the same order; where their sizes allow it, a few are compared."""
    if first.ids != second.ids:
        return False
    if first.fingerprint == second.fingerprint or first.image_px != second.image_px:
        return True
    few = slice(None, None, max(1, len(first) // 8))
    return bool(np.array_equal(first.pixels[few], second.pixels[few]))


def check_sources(
    student: Student,
    images: PackedImages,
    teacher: PatchFeatures | None,
    unlabelled: PatchFeatures | None,
    config: DistillConfig,
) -> None:
    """Refuse combinations that would silently train something else than was asked.

    Raises:
        ValueError: says which argument does not fit and what to pass.
    """
    student.task.check(images)
    if teacher is not None and not same_images(teacher.images, images):
        raise ValueError(
            "teacher features belong to other images than the labelled ones: "
            "extract() the same images in the same order"
        )
    wants_bank = [
        name for name in ("assignment_weight", "feature_weight", "teacher_branch_weight") if getattr(config, name)
    ]
    if teacher is not None and student.bank is None and wants_bank:
        raise ValueError(
            f"{', '.join(wants_bank)} > 0 need prototypes: pass bank=pk.discover(features) to Student, or set them to 0"
        )
    if teacher is None and (config.label_free_steps or unlabelled is not None):
        raise ValueError(
            "unlabelled images and label_free_steps are for transfer: pass features= of the labelled images too"
        )
    if unlabelled is not None and not config.unlabelled_batch:
        raise ValueError("unlabelled images are given, but unlabelled_batch is 0: say how many to add to each step")
    transfers = [
        name for name in ("assignment_weight", "feature_weight") if student.bank is not None and getattr(config, name)
    ]
    if config.label_free_steps and not (transfers and student.bank is not None) and not config.hint_weight:
        raise ValueError(
            "label_free_steps learn from transfer alone: "
            "set assignment_weight or feature_weight (with prototypes) or hint_weight above 0"
        )
    for features in (teacher, unlabelled):
        if features is not None and student.bank is not None:
            student.bank.check(features)
