"""What one model says about patches, small enough for a browser: assignments, codes and a place on the map."""

import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from prockd.datasets import PackedImages
from prockd.datasets.transforms import to_unit
from prockd.prototypes.bank import PrototypeBank, check_finite
from prockd.students.student import Student
from prockd.teachers.embedded import EmbeddedFeatures
from prockd.teachers.features import PatchFeatures
from prockd_widgets.sprites import Sheet

NOWHERE = 0xFFFF
"""Coordinate of a patch that is not on the map."""
MAX_PATCHES, MAX_IMAGES = 200_000, 1_600
Model = PatchFeatures | EmbeddedFeatures | Student
"""A teacher's features, taken to the space of the bank or not, or a student that looks at the images now."""
_LEVELS = 7
_CHUNK = 128


@dataclass(frozen=True)
class Sent:
    """Bytes that a widget sends to the browser.

    Attributes:
        patches: all that describes patches, images and prototypes.
        sheet: the sprite sheet.
        a_patch: ``patches`` divided by their number.
    """

    patches: int
    sheet: int
    a_patch: float

    @classmethod
    def count(cls, widget: Any, arrays: Sequence[str], words: Sequence[str]) -> "Sent":
        """Count the binary and the textual traits of a widget."""
        binary = [part for name in arrays for part in _as_list(getattr(widget, name))]
        size = sum(map(len, binary)) + len(json.dumps([getattr(widget, name) for name in words]))
        return cls(size, len(widget.sheet), round(size / widget.meta["patches"], 2))


def _as_list(value: bytes | list[bytes]) -> list[bytes]:
    return [value] if isinstance(value, bytes) else value


@dataclass(frozen=True, eq=False)
class Patches:
    """What one model says about the patches that are shown.

    Attributes:
        name: of the model, such as "teacher".
        bank: the prototypes it is read with.
        unit: (P, E) patches in the space of the prototypes, of length 1; in the bars beside a picture 0.
    """

    name: str
    bank: PrototypeBank
    unit: Float[Tensor, "P E"]

    @property
    @torch.no_grad()
    def base(self) -> Float[Tensor, "P K"]:
        """(P, K) soft assignment with every prototype on and none merged, in the bars 0; large, so nobody keeps it."""
        device, chunks = self.bank.prototypes.device, torch.split(self.unit, 1 << 14)
        base = [torch.softmax(self.bank.assigner(u.float().to(device)), dim=-1).half().cpu() for u in chunks]
        return torch.cat(base) * self.unit.any(1, keepdim=True)

    def switched(self) -> Float[Tensor, "P K"]:
        """The soft assignment with the bank's switches as they are now; rows sum to 1, in the bars to 0."""
        merged = self.bank.merged.cpu()
        a = self.base.float().mul_(self.bank.enabled.cpu()[merged])  # a copy, for base is of 16 bits
        a /= a.sum(1, keepdim=True).clamp_min(1e-6)
        alone = torch.equal(merged, torch.arange(len(merged)))
        return a if alone else torch.zeros_like(a).index_add_(1, merged, a)

    @property
    def shown(self) -> Bool[np.ndarray, " P"]:
        """Whether each patch shows something of the picture."""
        shown: np.ndarray = self.unit.any(1).numpy()
        return shown

    def label(self, assignments: Float[Tensor, "P K"]) -> Int[np.ndarray, " P"]:
        """The strongest prototype of each patch, -1 in the bars."""
        return np.where(self.shown, assignments.argmax(1).numpy(), -1)


@torch.no_grad()
def read_patches(
    name: str,
    bank: PrototypeBank,
    source: Model,
    images: PackedImages,
    indices: Int[np.ndarray, " m"],
    grid: tuple[int, int],
) -> Patches:
    """Pass some images through a model and a bank; arguments and errors as in :func:`read_units`."""
    if isinstance(source, Student):
        return Patches(name, bank, read_units(name, source, images, indices, grid, bank))
    shared = _READ.setdefault(source, WeakValueDictionary())
    key = (bank.space, grid, indices.tobytes())
    if (unit := shared.get(key)) is None:  # a cell that is run again takes no more memory for the same patches
        shared[key] = unit = read_units(name, source, images, indices, grid, bank)
    return Patches(name, bank, unit)


_READ: WeakKeyDictionary[Any, WeakValueDictionary[Any, Tensor]] = WeakKeyDictionary()
"""Patches that a widget holds, by the features that they were read of."""


@torch.no_grad()
def read_units(
    name: str,
    source: Model,
    images: PackedImages,
    indices: Int[np.ndarray, " m"],
    grid: tuple[int, int],
    bank: PrototypeBank | None = None,
) -> Float[Tensor, "P E"]:
    """Patches of some images as one model sees them, each of length 1, in half precision; 0 in the bars beside them.

    Args:
        name: of the model, for messages.
        source: a teacher's features of all images, or a student that looks at them now.
        images: all images.
        indices: which of them the widget shows.
        grid: rows and columns that the patches are laid on; another grid is resized to it.
        bank: where given, a teacher's patches are taken to the space of its prototypes.

    Raises:
        ValueError: the features belong to another teacher or other images, or are not finite (names the image), or
            images are gone.
    """
    if isinstance(source, PatchFeatures | EmbeddedFeatures):
        if bank is not None:
            bank.check(source)
        if source.images.ids != images.ids:
            raise ValueError(f"{name}: its features are of other images: both models must see the same {len(images)}")
    elif bank is not None and source.embed_dim != bank.embed_dim:
        raise ValueError(f"{name}: its features are {source.embed_dim} wide, the prototypes {bank.embed_dim}")
    units = []
    for start in range(0, len(indices), _CHUNK):
        chunk = indices[start : start + _CHUNK]
        if isinstance(source, Student):
            u = _student_patches(source, images, chunk)
        elif bank is not None:
            u = bank.read(source, chunk)
        else:
            maps = source.fused(chunk) if isinstance(source, PatchFeatures) else source.embedded(chunk)
            check_finite(maps, source, chunk)
            u = maps.flatten(2).transpose(1, 2)
        if source.grid != grid:
            maps = u.transpose(1, 2).reshape(len(u), -1, *source.grid)
            u = F.interpolate(maps, grid, mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)
        units.append(F.normalize(u, dim=-1).flatten(0, 1).half().cpu())
    shown = images.in_picture(grid)[indices].ravel()
    return torch.cat(units) * torch.from_numpy(shown)[:, None]


def _student_patches(student: Student, images: PackedImages, indices: np.ndarray) -> Float[Tensor, "B N E"]:
    """The student's patches of some images; it is left as it was, training or not."""
    try:
        pixels = torch.from_numpy(np.array(images.pixels[indices]))
    except (OSError, ValueError, IndexError) as error:
        first = images.ids[int(indices[0])]
        raise ValueError(f"images from {first!r} on cannot be read any more ({error}): pack them again") from error
    was_training = student.training
    student.eval()
    batch = to_unit(pixels.to(next(student.parameters()).device))
    if images.image_px != student.image_px:
        size = (student.image_px, student.image_px)
        batch = F.interpolate(batch, size, mode="bilinear", antialias=True, align_corners=False)
    features: Tensor = student(batch).features
    student.train(was_training)
    return features


def choose_images(num_images: int, num_patches: int, seed: int, limit: int = MAX_PATCHES) -> Int[np.ndarray, " m"]:
    """Whole images, drawn with a seed where all of them would be too many patches or too many thumbnails.

    Whoever asks for more patches than ``MAX_PATCHES`` gets as many times more thumbnails, smaller ones.
    """
    thumbnails = MAX_IMAGES * max(limit, MAX_PATCHES) // MAX_PATCHES
    most = max(1, min(thumbnails, limit // num_patches))
    if num_images <= most:
        return np.arange(num_images)
    return np.sort(np.random.default_rng(seed).choice(num_images, most, replace=False))


def describe_images(
    images: PackedImages, grid: tuple[int, int], sheet: Sheet, total: int, seed: int
) -> dict[str, object]:
    """What a widget's script needs of its images, which are all or some of ``total``."""
    levels = zip(*(name.split("/")[:-1] for name in images.ids), strict=False)
    folder = "".join(f"{level[0]}/" for level in takewhile(lambda level: len(set(level)) == 1, levels))
    note = "" if len(images) == total else f"{len(images):,} of {total:,} images are shown, drawn with seed {seed}"
    shown = images.in_picture(grid).reshape(-1, *grid)
    sides = np.asarray(shown.any(2)), np.asarray(shown.any(1))
    ends = [each.argmax(1) for side in sides for each in (side, side[:, ::-1])]
    top, low, left, right = ends[0], grid[0] - ends[1], ends[2], grid[1] - ends[3]
    return {
        "grid": grid,
        "patches": len(images) * grid[0] * grid[1],
        "shown": None
        if shown.all()
        else np.stack([top, low, left, right], 1).tolist(),  # rows, columns; beside are bars
        "folder": folder,
        "ids": [name[len(folder) :] for name in images.ids],
        "labels": images.labels.tolist(),
        "classes": list(images.classes),
        "sheet": {"cell": sheet.cell_px, "columns": sheet.columns},
        "seed": seed,
        "data": images.fingerprint[:20],
        "kernel": True,
        "note": note,
    }


def numbered(groups: Sequence[Hashable] | None) -> list[int] | None:
    """Groups of images by number; None where they are not known."""
    return None if groups is None else np.unique([str(g) for g in groups], return_inverse=True)[1].tolist()


def pack_xy(xy: Float[np.ndarray, "Q 2"], indices: Int[np.ndarray, " Q"], num_patches: int) -> bytes:
    """Places on the map in 16 bits a coordinate, y upwards; patches that are not among ``indices`` are nowhere."""
    low, high = xy.min(0), xy.max(0)
    side = max(float((high - low).max()), 1e-9)  # one scale for both axes
    place = np.full((num_patches, 2), NOWHERE, np.uint16)
    place[indices] = np.round((xy - (low + high) / 2 + side / 2) / side * (NOWHERE - 1)).astype(np.uint16)
    return place.tobytes()


def pack_top(assignments: Float[Tensor, "P K"], count: int) -> bytes:
    """The ``count`` strongest prototypes of each patch (8 bits, or 16 where K > 256), then their shares (8 bits)."""
    values, which = assignments.topk(count, dim=1)
    first = assignments.argmax(1, keepdim=True)  # of several that are equal the same one as labels have
    which = torch.where(which == first, which[:, :1], which)
    which[:, :1] = first
    wide = np.uint8 if assignments.shape[1] <= 256 else np.uint16
    return which.numpy().astype(wide).tobytes() + (values * 255).round().numpy().astype(np.uint8).tobytes()


def pack_codes(
    unit: Float[Tensor, "P E"], num_bytes: int, of: Float[Tensor, "Q E"] | None = None
) -> tuple[bytes, list[float]]:
    """Patches for likeness in the browser: their strongest directions, two of 4 bits a byte, and each one's step.

    Those of ``of``, where given, are coded in the directions and steps of ``unit``. The dot product of two codes, each
    value times its step, is close to the cosine of the patches.
    """
    # The browser multiplies 25,000 vectors in a frame: it gets as many principal directions as bytes allow, each
    # in 15 levels. A level is 2.5 standard deviations / 7, since what lies further out is rare and costs more
    # cosine as a coarser step for all than as a clamped value for one.
    u = unit.float()
    axes = torch.linalg.eigh(u.T @ u)[1].flip(1)[:, : 2 * num_bytes]
    values, coded = (F.pad(each @ axes, (0, axes.shape[1] % 2)) for each in (u, u if of is None else of.float()))
    step = (2.5 * values[u.any(1)].square().mean(0).sqrt() / _LEVELS).clamp_min(1e-6)
    levels = ((coded / step).round().clamp(-_LEVELS, _LEVELS) + 8).numpy().astype(np.uint8)
    return (levels[:, ::2] | levels[:, 1::2] << 4).tobytes(), step.tolist()
