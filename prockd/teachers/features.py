"""Patch features of a whole data set, computed once and memory-mapped: the teacher need not run in a training step."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from prockd._types import ImageDataset
from prockd.cache import digest
from prockd.datasets import PackedImages
from prockd.teachers.embedded import EmbeddedFeatures
from prockd.teachers.passes import Passes, PassOptions, number_of
from prockd.teachers.rows import Rows
from prockd.teachers.stored import Column, Share, keep_shards, not_finite
from prockd.teachers.teacher import Teacher, finest


@dataclass(frozen=True, eq=False)
class PatchFeatures:
    """What a teacher computed for every patch of every image.

    Raises:
        ValueError: another number of views than the maps have.
    """

    maps: tuple[Rows, ...]  # one (M, V, D_l, h_l, w_l) float16 array a layer; V in the order of views
    images: PackedImages  # the images themselves, at one size
    teacher: str  # fingerprint of the teacher
    layers: tuple[int, ...]  # the teacher's layer indices
    views: tuple[str, ...] = ("plain",)  # names out of VIEWS

    def __post_init__(self) -> None:
        if any(m.shape[1] != len(self.views) for m in self.maps):
            raise ValueError(f"views={self.views}, but the maps have {[m.shape[1] for m in self.maps]} views")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the finest layer's patches; every other layer is resized to it when fused."""
        return finest([(m.shape[3], m.shape[4]) for m in self.maps])

    @property
    def widths(self) -> tuple[int, ...]:
        """D_l: values of a patch of each layer."""
        return tuple(m.shape[2] for m in self.maps)

    @property
    def width(self) -> int:
        """D: the summed width of all layers."""
        return sum(self.widths)

    def layer_maps(
        self, indices: Sequence[int] | np.ndarray, view: str | np.ndarray = "plain", layers: slice = slice(None)
    ) -> list[Tensor]:
        """The (B, D_l, h_l, w_l) map of each layer as the teacher gave it, of all or some layers.

        ``view`` is a name, or of each image the number of its view.

        Raises:
            ValueError: the teacher has not seen this view.
        """
        v = number_of(view, self.views) if isinstance(view, str) else view
        return [torch.from_numpy(np.array(m[indices, v])).float() for m in self.maps[layers]]

    def fused(self, indices: Sequence[int] | np.ndarray, view: str | np.ndarray = "plain") -> Float[Tensor, "B D h w"]:
        """All layers of some images on the finest grid; each layer's patches have unit length before they are resized.

        Unit length per layer keeps a layer of large activations from drowning the others. Arguments and errors are
        those of :meth:`layer_maps`.
        """
        return fuse_layers(self.layer_maps(indices, view), self.grid)

    def projected(
        self, indices: Sequence[int] | np.ndarray, weight: Float[Tensor, "E D"], view: str | np.ndarray = "plain"
    ) -> Float[Tensor, "B E h w"]:
        """A linear map of the fused patches of some images, where its weight lies; errors of :meth:`layer_maps`."""
        return torch.einsum("bdhw,ed->behw", self.fused(indices, view).to(weight), weight)

    def patches(
        self, indices: Sequence[int] | np.ndarray, owners: np.ndarray, patches: np.ndarray, view: str = "plain"
    ) -> Float[Tensor, "P D"]:
        """Single fused patches: number ``patches[p]`` of image ``indices[owners[p]]``; errors of :meth:`layer_maps`."""
        return self.fused(indices, view).flatten(2)[torch.from_numpy(owners), :, torch.from_numpy(patches)]

    def lengths(self, indices: Sequence[int] | np.ndarray) -> Float[Tensor, "B L h w"]:
        """Logarithm of the length of each layer's patches, plain view, on the finest grid; see :func:`log_lengths`."""
        return log_lengths(self.layer_maps(indices), self.grid)

    def pooled(self) -> Float[np.ndarray, "M D"]:
        """Each layer averaged over its patches and all layers joined: what a linear probe on the teacher reads."""
        chunks = (np.arange(start, min(start + 128, len(self))) for start in range(0, len(self), 128))
        return torch.cat([pool_layers(self.layer_maps(chunk)) for chunk in chunks]).numpy()

    def arrays(self) -> tuple[Rows, ...]:
        """All that the features are made of."""
        return self.maps

    @property
    def fingerprint(self) -> str:
        """Digest of the features themselves, which are read for it: two that differ in a value never share it."""
        # not of where they come from: anybody may make features by hand, or change those of a data set
        crc = [zlib.crc32(a[m : m + 64].tobytes()) for a in self.arrays() for m in range(0, len(a), 64)]
        return digest([self.teacher, self.images.fingerprint, self.views, self.layers, self.grid, crc])

    def select(self, indices: Sequence[int] | np.ndarray) -> "PatchFeatures":
        """The same features for some of the images only."""
        indices = np.asarray(indices)
        return replace(self, maps=tuple(m[indices] for m in self.maps), images=self.images.select(indices))

    def __repr__(self) -> str:
        layers = ", ".join(
            f"layer {i}: {m.shape[3]}x{m.shape[4]} patches of {m.shape[2]}"
            for i, m in zip(self.layers, self.maps, strict=True)
        )
        megabytes = sum(m.nbytes for m in self.maps) / 1e6
        images = f"{len(self)} images, {' + '.join(self.views)}"
        return f"PatchFeatures({images}; {layers}; {megabytes:.0f} MB, teacher {self.teacher[:8]})"


def fuse_layers(maps: Sequence[Tensor], grid: tuple[int, int]) -> Float[Tensor, "B D h w"]:
    """Concatenate layers on one grid: each is L2-normalised per patch, then resized bilinearly."""
    unit = [F.normalize(m, dim=1) for m in maps]
    return torch.cat(
        [m if m.shape[2:] == grid else F.interpolate(m, grid, mode="bilinear", align_corners=False) for m in unit], 1
    )


def log_lengths(maps: Sequence[Float[Tensor, "B _ _ _"]], grid: tuple[int, int]) -> Float[Tensor, "B L h w"]:
    """Logarithm of the length of each layer's patches, resized to one grid: what unit length takes away."""
    lengths = [torch.linalg.vector_norm(m.float(), dim=1, keepdim=True).clamp_min(1e-6).log() for m in maps]
    return torch.cat([F.interpolate(n, grid, mode="bilinear", align_corners=False) for n in lengths], 1)


def pool_layers(maps: Sequence[Tensor]) -> Float[Tensor, "B D"]:
    """The mean of each layer over its patches, all layers joined."""
    return torch.cat([m.mean((2, 3)) for m in maps], 1)


def finite_rows(fused: Float[Tensor, "B D h w"]) -> Bool[Tensor, " B"]:
    """Of which images all values are finite, in a third of the time of looking at each value."""
    return fused.flatten(1).sum(1, dtype=torch.float32).isfinite()


def check_finite(
    fused: Float[Tensor, "B D h w"], features: "PatchFeatures | EmbeddedFeatures", indices: np.ndarray
) -> None:
    """Refuse features that are not finite with a ValueError that names the first image."""
    finite = finite_rows(fused)
    if not finite.all():
        raise not_finite(features.images.ids[int(indices[int(finite.int().argmin())])])


def extract(
    teacher: Teacher,
    dataset: ImageDataset | PackedImages,
    *,
    image_px: int | None = None,
    views: Sequence[str] = ("plain", "mirrored"),
    precision: str = "auto",
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    share: Share | None = None,
    root: Path | None = None,
    progress: bool = True,
) -> PatchFeatures:
    """Run the teacher once over every view of every image; the second call reads the cache.

    >>> import prockd as pk
    >>> teacher = pk.Teacher("farmyard")
    >>> images = pk.Farmyard("target", "test", 4, image_px=teacher.image_px)
    >>> features = pk.extract(teacher, images, progress=False)
    >>> len(features), features.views, features.grid, features.width
    (4, ('plain', 'mirrored'), (20, 20), 608)
    >>> features.fused([0, 3], "mirrored").shape
    torch.Size([2, 608, 20, 20])

    Args:
        teacher: the frozen teacher.
        dataset: images; packed at ``image_px`` (default: the teacher's input size) when they are not packed yet.
        image_px: side of the stored images in pixels; resized to the teacher's input size where they differ.
        views: names out of ``VIEWS``; "plain" is always there. Random flips in training need "mirrored", and
            :func:`prockd.discover` learns from all three.
        precision: what the teacher computes in: "fp32", "bf16" or "fp16"; features are stored as float16 in any case.
            "auto" is "bf16" on a GPU or CPU that has units for it, about twice as fast (benchmarks/speed.py), else
            "fp32". With "bf16" the patches of Farmyard's teacher have a cosine of 0.99999 with those of "fp32", 0.9997
            at worst (benchmarks/crops.py).
        batch_size: images in a teacher pass, halved where they do not fit; None is what suits the device.
        share: of the shards that this process makes, see :class:`prockd.teachers.stored.Share`; None for all.
        device: where the teacher runs; None is where it is, or from the CPU the GPU if there is one.
        root: cache folder; the default is ``$PROCKD_CACHE`` or ``~/.cache/prockd``.
        progress: show a progress bar.

    Raises:
        ValueError: a view or a precision that there is not.
        CacheError: there is no room on the disk, or shards of other shares are not there yet.
        DatasetError: an image cannot be read.
    """
    passes = Passes(
        teacher, dataset, image_px=image_px, views=views, precision=precision, batch_size=batch_size, device=device,
        root=root, progress=progress,
    )  # fmt: skip
    columns = {
        f"layer{i}": Column((D, *grid), np.float16)
        for i, (D, grid) in enumerate(zip(teacher.widths, teacher.grids, strict=True))
    }

    def keep(maps: list[Tensor], v: int) -> Mapping[str, Tensor]:
        return {name: layer.half() for name, layer in zip(columns, maps, strict=True)}

    arrays = keep_shards("features", passes, columns, keep, key=passes.key, share=share)
    return PatchFeatures(tuple(arrays.values()), passes.images, teacher.fingerprint, teacher.layers, passes.views)


def extract_pooled(
    teacher: Teacher,
    dataset: ImageDataset | PackedImages,
    *,
    share: Share | None = None,
    **how: Unpack[PassOptions],
) -> Float[np.ndarray, "M D"]:
    """Run the teacher once and keep each layer's mean over the patches of an image: what a linear probe reads.

    ``how`` takes ``precision``, ``batch_size``, ``device``, ``root`` and ``progress`` of :func:`extract`; its errors
    are those.
    """
    passes = Passes(teacher, dataset, **how)
    columns = {"means": Column((sum(teacher.widths),), np.float32, in_views=False)}

    def keep(maps: list[Tensor], v: int) -> Mapping[str, Tensor]:
        return {"means": pool_layers([m.float() for m in maps])}

    return np.array(keep_shards("pooled", passes, columns, keep, key=passes.key, share=share)["means"])
