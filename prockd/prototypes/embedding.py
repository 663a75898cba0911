"""Teacher features taken to the space of the prototypes once, and kept there."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from prockd._types import ImageDataset
from prockd.cache import ArrayWriter, cached_arrays
from prockd.datasets import PackedImages
from prockd.prototypes.bank import PrototypeBank
from prockd.teachers.embedded import EmbeddedFeatures
from prockd.teachers.features import PatchFeatures, fuse_layers, pool_layers
from prockd.teachers.passes import Passes
from prockd.teachers.teacher import Teacher

Embedded = tuple[slice, int, Float[Tensor, "B E h w"], Float[Tensor, "B D"] | None]
"""Rows, number of the view, U, and in the plain view the mean of each layer."""


@torch.no_grad()
def embed_features(
    bank: PrototypeBank,
    features: PatchFeatures | Teacher,
    dataset: ImageDataset | PackedImages | None = None,
    *,
    views: Sequence[str] = ("plain", "mirrored"),
    precision: str = "auto",
    batch_size: int = 16,
    device: str | torch.device | None = None,
    root: Path | None = None,
    progress: bool = True,
) -> EmbeddedFeatures:
    """Take every patch to the space of the bank's prototypes; the second call reads the cache.

    From a teacher and images no raw map is ever kept: of Farmyard's at 160 px, 77 KB an image and view in place of
    486 KB. The key is ``bank.space`` beside teacher, images, views and precision, so that a bank whose prototypes are
    renamed, merged, disabled or found again in the same space reads the same entry.

    >>> import prockd as pk
    >>> teacher, images = pk.Teacher("farmyard"), pk.Farmyard("target", "test", 4)
    >>> bank = pk.PrototypeBank(6, feature_dim=608, embed_dim=96)
    >>> embedded = pk.embed_features(bank, teacher, images, views=("plain",), progress=False)
    >>> bank.assignments(embedded).shape[::2], embedded.maps.dtype
    (torch.Size([4, 6]), dtype('float16'))

    Args:
        bank: only its W_c and ReLU are read.
        features: stored ones, or the teacher itself, which then sees the images once.
        dataset: the images, for a teacher; packed at its input size when they are not packed yet.
        views: names out of ``VIEWS``, for a teacher; stored features keep theirs.
        precision: what the teacher computes in, as of :func:`prockd.extract`, like the rest.
        batch_size: images in a teacher pass.
        device: where the teacher runs.
        root: cache folder.
        progress: show a progress bar.

    Raises:
        ValueError: another teacher than the bank's, or a teacher without images.
        CacheError: the disk is full.
        DatasetError: an image cannot be read.
    """
    source: PatchFeatures | Passes
    key: dict[str, object]
    if isinstance(features, PatchFeatures):
        source, key = features, {"features": features.fingerprint}
        teacher, grid, D = features.teacher, features.grid, features.width
    elif dataset is None:
        raise ValueError("a teacher alone has no patches: pass its images, embed_features(bank, teacher, images)")
    else:
        source = Passes(
            features, dataset, views=views, precision=precision, batch_size=batch_size, device=device, root=root,
            progress=progress,
        )  # fmt: skip
        key, teacher, grid, D = source.key, features.fingerprint, features.grid, sum(features.widths)
    bank.check_teacher(teacher, D)

    def build(writer: ArrayWriter) -> Mapping[str, object]:
        M, V = len(source.images), len(source.views)
        u = writer.create("u", (M, V, bank.embed_dim, *grid), np.float16)
        means = writer.create("means", (M, D), np.float32)
        with closing(embedded(bank, source, batch_size)) as batches:
            for rows, v, maps, mean in batches:
                u[rows, v] = maps.half().cpu().numpy()
                if mean is not None:
                    means[rows] = mean.cpu().numpy()
        if isinstance(source, PatchFeatures):
            means[:] = source.pooled()
        return {}

    arrays, _ = cached_arrays("embedded", {"version": 1, "space": bank.space, **key}, build, root=root)
    rows = np.arange(len(source.images))
    return EmbeddedFeatures(arrays["u"], rows, source.images, teacher, bank.space, source.views, arrays["means"])


def embedded(bank: PrototypeBank, source: PatchFeatures | Passes, batch_size: int) -> Generator[Embedded, None, None]:
    """U of all images, some in a view at a time."""
    if isinstance(source, Passes):
        with closing(iter(source)) as seen:
            for rows, v, maps in seen:
                mean = pool_layers(maps) if v == 0 else None
                yield rows, v, embedded_maps(bank, fuse_layers(maps, source.teacher.grid)), mean
        return
    for start in range(0, len(source), batch_size):
        rows = slice(start, min(start + batch_size, len(source)))
        for v, view in enumerate(source.views):
            yield rows, v, embedded_maps(bank, source.fused(np.arange(rows.start, rows.stop), view)), None


def embedded_maps(bank: PrototypeBank, fused: Float[Tensor, "B D h w"]) -> Float[Tensor, "B E h w"]:
    """U as maps."""
    u = bank.embed(fused)  # (B, N, E)
    return u.transpose(1, 2).reshape(len(u), -1, *fused.shape[2:])
