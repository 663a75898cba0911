"""Patch features of a whole data set, computed once and memory-mapped: the teacher never runs in a training step."""

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
from prockd.datasets.transforms import recolour, to_unit
from prockd.teachers.teacher import Teacher


@dataclass(frozen=True, eq=False)
class PatchFeatures:
    """What a teacher said about every patch of every image.

    Attributes:
        maps: one (M, V, D_l, h_l, w_l) float16 array a layer; view 0 is the image, view 1 its mirror image, view 2 the
            image in other colours.
        images: the images themselves, at one size.
        teacher: fingerprint of the teacher.
        layers: the teacher's layer indices.
    """

    maps: tuple[np.ndarray, ...]
    images: PackedImages
    teacher: str
    layers: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the finest layer's patches; every other layer is resized to it when fused."""
        sizes = [(m.shape[3], m.shape[4]) for m in self.maps]
        return max(sizes, key=lambda size: size[0] * size[1])

    @property
    def num_views(self) -> int:
        """1, 2 when the mirror images were passed through the teacher too, 3 when the recoloured ones were as well."""
        return int(self.maps[0].shape[1])

    @property
    def width(self) -> int:
        """D: the summed width of all layers."""
        return sum(m.shape[2] for m in self.maps)

    def fused(self, indices: Sequence[int] | np.ndarray, view: int = 0) -> Float[Tensor, "B D h w"]:
        """All layers of some images on the finest grid; each layer's patches have unit length before they are resized.

        Unit length per layer keeps a layer of large activations from drowning the others.
        """
        return fuse_layers([torch.from_numpy(np.array(m[indices, view])).float() for m in self.maps], self.grid)

    def select(self, indices: Sequence[int] | np.ndarray) -> "PatchFeatures":
        """The same features for some of the images only."""
        indices = np.asarray(indices)
        return replace(self, maps=tuple(m[indices] for m in self.maps), images=self.images.select(indices))

    def __repr__(self) -> str:
        layers = ", ".join(
            f"layer {i}: {m.shape[3]}x{m.shape[4]} patches of {m.shape[2]}"
            for i, m in zip(self.layers, self.maps, strict=True)
        )
        size = sum(m.nbytes for m in self.maps) / 1e6
        about = f"{len(self)} images, {self.num_views} views; {layers}; {size:.0f} MB"
        return f"PatchFeatures({about}, teacher {self.teacher[:8]})"


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
    views: int = 2,
    batch_size: int = 64,
    device: str | torch.device | None = None,
    root: Path | None = None,
    progress: bool = True,
) -> PatchFeatures:
    """Run the teacher once over every image and its mirror image; the second call reads the cache.

    Args:
        teacher: the frozen teacher.
        dataset: images; packed at ``image_px`` (default: the teacher's input size) when they are not packed yet.
        image_px: side of the stored images in pixels; resized to the teacher's input size where they differ.
        views: 1 for the images as they are, 2 to add their mirror images, which random flips in training need, 3 to add
            the images in other colours, which :func:`prockd.discover` learns from.
        batch_size: images in a teacher pass.
        device: where the teacher runs; the default is a GPU if there is one.
        root: cache folder; the default is ``$PROCKD_CACHE`` or ``~/.cache/prockd``.
        progress: show a progress bar.

    Raises:
        CacheError: the disk is full.
        DatasetError: an image cannot be read.
    """
    if views not in (1, 2, 3):
        raise ValueError(f"views={views}: 1 (as is), 2 (and mirrored) or 3 (and recoloured)")
    if isinstance(dataset, PackedImages) and image_px is None:
        images = dataset
    else:
        images = pack(dataset, image_px or teacher.image_px, root=root, progress=progress)
    key: dict[str, object] = {
        "teacher": teacher.fingerprint,
        "images": images.fingerprint,
        "image_px": images.image_px,
        "views": views,
    }
    if views > 2:
        key["batch_size"] = batch_size  # new colours are drawn batch by batch
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def build(writer: ArrayWriter) -> Mapping[str, object]:
        shapes = [(len(images), views, width, *grid) for width, grid in zip(teacher.widths, teacher.grids, strict=True)]
        arrays = [writer.create(f"layer{i}", shape, np.float16) for i, shape in enumerate(shapes)]
        teacher.to(where)
        with tqdm(total=len(images), desc="teacher", unit="image", disable=not progress) as bar:
            for start in range(0, len(images), batch_size):
                stop = min(start + batch_size, len(images))
                batch = to_unit(torch.from_numpy(np.array(images.pixels[start:stop])).to(where))
                if images.image_px != teacher.image_px:
                    size = (teacher.image_px, teacher.image_px)
                    batch = F.interpolate(batch, size, mode="bilinear", antialias=True, align_corners=False)
                for view in range(views):
                    for array, layer in zip(arrays, teacher(VIEWS[view](batch)), strict=True):
                        array[start:stop, view] = layer.half().cpu().numpy()
                bar.update(stop - start)
        return {"layers": list(teacher.layers)}

    arrays, _ = cached_arrays("features", key, build, root=root)
    maps = tuple(arrays[f"layer{i}"] for i in range(len(teacher.layers)))
    return PatchFeatures(maps, images, teacher.fingerprint, teacher.layers)


VIEWS = (lambda images: images, lambda images: images.flip(3), recolour)
"""What the teacher is shown of a batch, by view."""
