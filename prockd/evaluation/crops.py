"""Prototypes asked anew: of any teacher on any pixels, and on random crops, where place in the frame tells little."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from prockd.cache import digest
from prockd.datasets import PackedImages
from prockd.datasets.transforms import cut_maps, cut_masks, random_crops, resize, to_unit
from prockd.devices import device_for, on_device
from prockd.evaluation.parts import PartAgreement, agreement_with_controls
from prockd.prototypes.bank import PrototypeBank
from prockd.teachers.features import fuse_layers
from prockd.teachers.teacher import Teacher

Assign = Callable[[Float[Tensor, "B 3 S S"]], Float[Tensor, "B N K"]]
"""Images in 0..1 -> the assignment of each patch: a teacher with a bank, or whatever else names patches."""

MIN_AREA = 0.35
"""Smallest part of an image's area that a crop keeps."""

_CHUNK = 32  # images in a pass


def assigner(teacher: Teacher, bank: PrototypeBank, *, device: str | torch.device | None = None) -> Assign:
    """How this teacher and this bank name patches of images of any size; nothing is cached."""
    where = device_for(teacher, device)

    @torch.no_grad()
    def assign(images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B N K"]:
        with on_device(where, teacher):
            maps = teacher(resize(images.to(where), teacher.image_px))
        return bank.assign(bank.embed(fuse_layers(maps, teacher.grid))).cpu()

    return assign


def assign_images(
    assign: Assign,
    images: PackedImages,
    change: Callable[[Float[Tensor, "B 3 S S"]], Float[Tensor, "B 3 S S"]] | None = None,
) -> Float[Tensor, "M N K"]:
    """Assignments of all images, in half precision as a bank gives them, some at a time; each may be changed before."""
    assigned = []
    for start in range(0, len(images), _CHUNK):
        batch = to_unit(torch.from_numpy(np.array(images.pixels[start : start + _CHUNK])))
        assigned.append(assign(batch if change is None else change(batch)).half())
    return torch.cat(assigned).float()


def crop_images(images: PackedImages, *, min_area: float = MIN_AREA, seed: int = 0) -> PackedImages:
    """One random crop of each image, of at least ``min_area`` of its area, at its size; part masks are cut alike.

    Boxes, masks of classes and frames are left out.
    """
    generator, side = torch.Generator().manual_seed(seed), images.image_px
    crops = random_crops(len(images), generator, min_area=min_area, flip=False)
    pixels = np.empty_like(images.pixels, subok=False)
    parts = None if images.parts is None else np.empty_like(images.parts, subok=False)
    for start in range(0, len(images), _CHUNK):
        rows = slice(start, start + _CHUNK)
        batch = to_unit(torch.from_numpy(np.array(images.pixels[rows])))
        cut = cut_maps(batch, crops.regions[rows], (side, side))
        pixels[rows] = (cut * 255).round().clamp(0, 255).byte().numpy()
        if parts is not None and images.parts is not None:
            parts[rows] = cut_masks(torch.from_numpy(np.array(images.parts[rows])), crops[rows], side).numpy()
    name = digest([images.fingerprint, "crops", min_area, seed])
    return replace(
        images, pixels=pixels, parts=parts, fingerprint=name, masks=None, tags=None, boxes=None, box_labels=None,
        frames=None,
    )  # fmt: skip


def crop_agreement(
    assign: Assign,
    images: PackedImages,
    grid: tuple[int, int],
    num_parts: int,
    *,
    others: Mapping[str, Assign] | None = None,
    min_area: float = MIN_AREA,
    seed: int = 0,
) -> dict[str, PartAgreement]:
    """Part agreement on random crops of the images, with its controls.

    An animal's parts then lie anywhere in the frame: on Farmyard blocks of the frame tell .41 of the parts in place of
    .47. As :func:`prockd.evaluation.parts.agreement_with_controls`, which also says what is refused.
    """
    crops = crop_images(images, min_area=min_area, seed=seed)
    beside = {name: assign_images(other, crops) for name, other in (others or {}).items()}
    return agreement_with_controls(assign_images(assign, crops), crops, grid, num_parts, others=beside, seed=seed)
