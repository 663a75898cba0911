"""A teacher's features at a fifth of their size, to find prototypes in: the strongest directions, in 8 bits."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Unpack

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from prockd._types import ImageDataset
from prockd.cache import ArrayWriter, cached_arrays
from prockd.datasets import PackedImages
from prockd.teachers.features import PatchFeatures, finite_rows, fuse_layers, log_lengths, pool_layers
from prockd.teachers.passes import VIEWS, Passes, PassOptions, number_of
from prockd.teachers.rows import Rows
from prockd.teachers.stored import Column, Share, keep_shards
from prockd.teachers.teacher import Teacher

RANK = 256
"""Directions that are kept: with so many, u has a cosine of .998 with that of the maps (benchmarks/crops.py)."""

SAMPLE, SPREAD = 48, 6.0
"""Images that the directions are fitted to, and how many standard deviations the 8 bits reach on either side."""


@dataclass(frozen=True, eq=False, kw_only=True)
class CompactFeatures(PatchFeatures):
    """Fused features as 8-bit coordinates along their own strongest directions; maps of single layers are not kept.

    Farmyard's teacher at 160 px: 102 KB an image and view in place of 486 KB.
    """

    codes: Rows  # (M, V, R, h, w) int8
    directions: Float[np.ndarray, "R D"]  # orthonormal rows, times the step of their code
    means: Rows  # (M, D) of each layer over its patches, plain view
    logs: Rows  # (M, L, h, w) float16: log length of each layer's patches, plain view

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.codes.shape[3], self.codes.shape[4]

    @property
    def widths(self) -> tuple[int, ...]:
        """D: the layers are fused."""
        return (self.directions.shape[1],)

    def layer_maps(
        self, indices: Sequence[int] | np.ndarray, view: str | np.ndarray = "plain", layers: slice = slice(None)
    ) -> list[Tensor]:
        """Refused with a ValueError: these are not kept."""
        raise ValueError("compact features keep no maps of single layers: pk.extract(teacher, images) does")

    def fused(self, indices: Sequence[int] | np.ndarray, view: str | np.ndarray = "plain") -> Float[Tensor, "B D h w"]:
        """All layers of some images, as :meth:`PatchFeatures.fused` but for what the other directions held."""
        v = number_of(view, self.views) if isinstance(view, str) else view
        codes = torch.from_numpy(np.array(self.codes[indices, v])).float()
        return torch.einsum("brhw,rd->bdhw", codes, torch.from_numpy(self.directions))

    def projected(
        self, indices: Sequence[int] | np.ndarray, weight: Float[Tensor, "E D"], view: str | np.ndarray = "plain"
    ) -> Float[Tensor, "B E h w"]:
        """As :meth:`PatchFeatures.projected`, from the codes themselves, without a fused patch."""
        v = number_of(view, self.views) if isinstance(view, str) else view
        codes = torch.from_numpy(np.array(self.codes[indices, v])).to(weight)
        return torch.einsum("brhw,er->behw", codes, weight @ torch.from_numpy(self.directions).to(weight).T)

    def patches(
        self, indices: Sequence[int] | np.ndarray, owners: np.ndarray, patches: np.ndarray, view: str = "plain"
    ) -> Float[Tensor, "P D"]:
        """Single fused patches, as :meth:`PatchFeatures.patches`."""
        codes = self.codes[indices, number_of(view, self.views)].reshape(len(indices), self.codes.shape[2], -1)
        return torch.from_numpy(codes[owners, :, patches]).float() @ torch.from_numpy(self.directions)

    def lengths(self, indices: Sequence[int] | np.ndarray) -> Float[Tensor, "B L h w"]:
        """Logarithm of the length of each layer's patches, plain view, from the maps themselves."""
        return torch.from_numpy(np.array(self.logs[indices])).float()

    def pooled(self) -> Float[np.ndarray, "M D"]:
        """Each layer averaged over its patches and all layers joined, from the maps themselves."""
        return np.array(self.means)

    def select(self, indices: Sequence[int] | np.ndarray) -> "CompactFeatures":
        """The same features for some of the images only."""
        rows = np.asarray(indices)
        kept: dict[str, Any] = {"codes": self.codes[rows], "means": self.means[rows], "logs": self.logs[rows]}
        return replace(self, images=self.images.select(rows), **kept)

    def arrays(self) -> tuple[Rows, ...]:
        """All that the features are made of."""
        return self.codes, self.directions, self.logs

    def __repr__(self) -> str:
        (h, w), (R, D) = self.grid, self.directions.shape
        return (
            f"CompactFeatures({len(self)} images, {' + '.join(self.views)}; {h}x{w} patches of {D} in {R} directions; "
            f"{self.codes.nbytes / 1e6:.0f} MB, teacher {self.teacher[:8]})"
        )


def extract_compact(
    teacher: Teacher,
    dataset: ImageDataset | PackedImages,
    *,
    rank: int = RANK,
    share: Share | None = None,
    **how: Unpack[PassOptions],
) -> CompactFeatures:
    """Run the teacher once over every view of every image and keep what finding prototypes needs; then read the cache.

    The directions are those of the greatest second moments of the fused patches of some images, drawn at random; they
    pass twice.

    >>> import prockd as pk
    >>> teacher, images = pk.Teacher("farmyard"), pk.Farmyard("source", "unlabelled", 4)
    >>> features = pk.extract_compact(teacher, images, progress=False)
    >>> features.codes.dtype, features.fused([0, 3], "recoloured").shape[:2]
    (dtype('int8'), torch.Size([2, 608]))

    Args:
        teacher: the frozen teacher.
        dataset: images, as of :func:`prockd.extract`.
        rank: R, how many directions are kept; at most D.
        share: of the shards that this process makes.
        how: ``image_px``, ``views`` (all three, which :func:`prockd.discover` learns from), ``precision``,
            ``batch_size``, ``device``, ``root`` and ``progress`` of :func:`prockd.extract`.

    Raises:
        ValueError: a view, a precision or a rank that there is not, or features that are not finite (names the image).
        CacheError: there is no room on the disk, or shards of other shares are not there yet.
        DatasetError: an image cannot be read.
    """
    if rank < 1:
        raise ValueError(f"rank={rank}: keep at least one direction")
    how = PassOptions(views=VIEWS) | how
    passes = Passes(teacher, dataset, **how)
    D, rank, L = sum(teacher.widths), min(rank, sum(teacher.widths)), len(teacher.layers)
    key = passes.key | {"version": 3, "rank": rank, "sample": SAMPLE, "spread": SPREAD}

    def directions(writer: ArrayWriter) -> Mapping[str, object]:
        some = np.sort(np.random.default_rng(0).permutation(len(passes.images))[:SAMPLE])
        basis, step = strongest(Passes(teacher, passes.images.select(some), **how | {"progress": False}), rank)
        writer.create("directions", (rank, D), np.float32)[:] = (basis * step).T.numpy()
        return {}

    found, _ = cached_arrays("directions", key, directions, root=passes.root)
    along = torch.from_numpy(np.array(found["directions"]))  # orthogonal rows, as long as the steps of their codes
    coder = (along / along.square().sum(1, keepdim=True)).to(passes.device)
    columns = {
        "codes": Column((rank, *teacher.grid), np.int8), "means": Column((D,), np.float32, in_views=False),
        "logs": Column((L, *teacher.grid), np.float16, in_views=False),
    }  # fmt: skip

    def keep(maps: list[Tensor], v: int) -> Mapping[str, Tensor]:
        maps = [m.float() for m in maps]
        fused = fuse_layers(maps, teacher.grid)
        codes = torch.einsum("bdhw,rd->brhw", fused, coder).round().clamp(-127, 127).char()
        rows = {"codes": codes, "finite": finite_rows(fused)}
        return rows if v else rows | {"means": pool_layers(maps), "logs": log_lengths(maps, teacher.grid).half()}

    arrays = keep_shards("compact", passes, columns, keep, key=key, share=share)
    return CompactFeatures(
        (), passes.images, teacher.fingerprint, teacher.layers, passes.views, directions=along.numpy(), **arrays
    )


def strongest(passes: Passes, rank: int) -> tuple[Float[Tensor, "D R"], Float[Tensor, " R"]]:
    """The directions of greatest second moment of fused patches, as columns, and the step of an 8-bit code in each."""
    D, N = sum(passes.teacher.widths), passes.teacher.grid[0] * passes.teacher.grid[1]

    def keep(maps: list[Tensor], v: int) -> Mapping[str, Tensor]:
        x = fuse_layers([m.float() for m in maps], passes.teacher.grid).flatten(2).transpose(1, 2).flatten(0, 1)
        return {"moment": x.T @ x}  # of patches (P, D)

    moment = np.zeros((D, D))
    with closing(passes.keep(keep)) as seen:
        for kept in seen:
            moment += kept["moment"]
    patches = len(passes.images) * len(passes.views) * N
    values, basis = torch.linalg.eigh(torch.from_numpy(moment) / patches)
    step = SPREAD / 127 * values.flip(0)[:rank].clamp_min(1e-12).sqrt()
    return basis.flip(1)[:, :rank].float(), step.float()
