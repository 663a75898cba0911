"""Patch features of a whole data set, computed once and memory-mapped: the teacher need not run in a training step."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from prockd._types import ImageDataset
from prockd.cache import ArrayWriter, cached_arrays
from prockd.datasets import PackedImages, pack
from prockd.datasets.transforms import recolour, resize, to_unit
from prockd.devices import PRECISIONS, autocast, device_for, on_device
from prockd.teachers.teacher import Teacher, finest

VIEWS = ("plain", "mirrored", "recoloured")
"""How the teacher may see an image: as it is, left-right mirrored, in other colours."""


@dataclass(frozen=True, eq=False)
class PatchFeatures:
    """What a teacher computed for every patch of every image.

    Raises:
        ValueError: another number of views than the maps have.
    """

    maps: tuple[np.ndarray, ...]  # one (M, V, D_l, h_l, w_l) float16 array a layer; V in the order of views
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

    def fused(self, indices: Sequence[int] | np.ndarray, view: str = "plain") -> Float[Tensor, "B D h w"]:
        """All layers of some images on the finest grid; each layer's patches have unit length before they are resized.

        Unit length per layer keeps a layer of large activations from drowning the others.

        Raises:
            ValueError: the teacher has not seen this view.
        """
        if view not in self.views:
            raise ValueError(f"there is no view {view!r}, only {self.views}: extract(..., views={(*self.views, view)})")
        v = self.views.index(view)
        return fuse_layers([torch.from_numpy(np.array(m[indices, v])).float() for m in self.maps], self.grid)

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


def extract(
    teacher: Teacher,
    dataset: ImageDataset | PackedImages,
    *,
    image_px: int | None = None,
    views: Sequence[str] = ("plain", "mirrored"),
    precision: str = "fp32",
    batch_size: int = 64,
    device: str | torch.device | None = None,
    root: Path | None = None,
    progress: bool = True,
) -> PatchFeatures:
    """Run the teacher once over every view of every image; the second call reads the cache.

    >>> import prockd as pk
    >>> teacher, images = pk.Teacher("farmyard"), pk.Farmyard("target", "test", 4)
    >>> features = pk.extract(teacher, images, progress=False)
    >>> features
    PatchFeatures(4 images, plain + mirrored; layer 2: 12x12 patches of 96, layer 3: 12x12 patches of 192, \
layer 4: 12x12 patches of 320; 1 MB, teacher 4a3d8f91)
    >>> features.fused([0, 3], "mirrored").shape
    torch.Size([2, 608, 12, 12])

    Args:
        teacher: the frozen teacher.
        dataset: images; packed at ``image_px`` (default: the teacher's input size) when they are not packed yet.
        image_px: side of the stored images in pixels; resized to the teacher's input size where they differ.
        views: names out of ``VIEWS``; "plain" is always there. Random flips in training need "mirrored", and
            :func:`prockd.discover` learns from all three.
        precision: what the teacher computes in: "fp32", "bf16" or "fp16"; features are stored as float16 in any case.
            With "bf16" the patches of Farmyard's teacher have a cosine of 0.99999 with those of "fp32", 0.9997 at worst
            (benchmarks/crops.py).
        batch_size: images in a teacher pass.
        device: where the teacher runs; None is where it is, or from the CPU the GPU if there is one.
        root: cache folder; the default is ``$PROCKD_CACHE`` or ``~/.cache/prockd``.
        progress: show a progress bar.

    Raises:
        ValueError: a view or a precision that there is not.
        CacheError: the disk is full.
        DatasetError: an image cannot be read.
    """
    if isinstance(views, str) or not set(views) <= set(VIEWS):
        raise ValueError(f"views={views!r}: choose some of {VIEWS}")
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r}: choose one of {tuple(PRECISIONS)}")
    views = tuple(view for view in VIEWS if view in ("plain", *views))
    if isinstance(dataset, PackedImages) and image_px is None:
        images = dataset
    else:
        images = pack(dataset, image_px or teacher.image_px, root=root, progress=progress)
    key: dict[str, object] = {
        "teacher": teacher.fingerprint, "images": images.fingerprint, "image_px": images.image_px, "views": views,
        "precision": precision,
    }  # fmt: skip
    device = device_for(teacher, device)

    def build(writer: ArrayWriter) -> Mapping[str, object]:
        shapes = [(len(images), len(views), D, h, w) for D, (h, w) in zip(teacher.widths, teacher.grids, strict=True)]
        arrays = [writer.create(f"layer{i}", shape, np.float16) for i, shape in enumerate(shapes)]
        bar = tqdm(total=len(images), desc="teacher", unit="image", disable=not progress)
        with on_device(device, teacher), bar:
            for start in range(0, len(images), batch_size):
                pixels = np.array(images.pixels[start : start + batch_size])
                rows = slice(start, start + len(pixels))
                batch = resize(to_unit(torch.from_numpy(pixels).to(device)), teacher.image_px)
                for v, view in enumerate(views):
                    with autocast(device, precision):
                        maps = teacher(as_view(batch, pixels, view))
                    for array, layer in zip(arrays, maps, strict=True):
                        array[rows, v] = layer.half().cpu().numpy()
                bar.update(len(pixels))
        return {}

    arrays, _ = cached_arrays("features", key, build, root=root)
    maps = tuple(arrays[f"layer{i}"] for i in range(len(teacher.layers)))
    return PatchFeatures(maps, images, teacher.fingerprint, teacher.layers, views)


def as_view(batch: Float[Tensor, "B 3 H W"], pixels: np.ndarray, view: str) -> Float[Tensor, "B 3 H W"]:
    """A view of images; the new colours of one depend on its own pixels alone, so they are the same on every run."""
    if view == "recoloured":
        return recolour(batch, [zlib.crc32(image.tobytes()) for image in pixels])
    return batch.flip(3) if view == "mirrored" else batch
