"""Teacher features taken to the space of the prototypes once, and kept there."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Unpack

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
from prockd.teachers.passes import Passes, PassOptions
from prockd.teachers.stored import Column, Share, keep_shards
from prockd.teachers.teacher import Teacher


@torch.no_grad()
def embed_features(
    bank: PrototypeBank,
    features: PatchFeatures | Teacher,
    dataset: ImageDataset | PackedImages | None = None,
    *,
    share: Share | None = None,
    **how: Unpack[PassOptions],
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
        share: of the shards that this process makes, for a teacher.
        how: ``views`` (plain and mirrored), ``precision``, ``batch_size``, ``device``, ``root`` and ``progress`` of
            :func:`prockd.extract`, for a teacher; stored features keep their views.

    Raises:
        ValueError: another teacher than the bank's, or a teacher without images.
        CacheError: there is no room on the disk, or shards of other shares are not there yet.
        DatasetError: an image cannot be read.
    """
    if isinstance(features, PatchFeatures):
        return _embedded(bank, features, how.get("batch_size") or 16, how.get("root"))
    if dataset is None:
        raise ValueError("a teacher alone has no patches: pass its images, embed_features(bank, teacher, images)")
    teacher, E = features, bank.embed_dim
    bank.check_teacher(teacher.fingerprint, D := sum(teacher.widths))
    passes = Passes(teacher, dataset, **PassOptions(views=("plain", "mirrored")) | how)
    there = copy.deepcopy(bank).to(passes.device)
    columns = {"u": Column((E, *teacher.grid), np.float16), "means": Column((D,), np.float32, in_views=False)}

    def u_of(maps: list[Tensor]) -> Float[Tensor, "B E h w"]:
        return embedded_maps(there, fuse_layers([m.float() for m in maps], teacher.grid))

    def keep(maps: list[Tensor], v: int) -> Mapping[str, Tensor]:
        rows = {"u": u_of(maps).half()}
        return rows if v else rows | {"means": pool_layers([m.float() for m in maps])}

    def strongest(maps: list[Tensor]) -> Tensor:
        return there.assign(u_of(maps).flatten(2).mT).argmax(-1)

    key = {"version": 1, "space": bank.space, **passes.key}
    arrays = keep_shards("embedded", passes, columns, keep, key=key, strongest=strongest, share=share)
    rows, fingerprint = np.arange(len(passes.images)), teacher.fingerprint
    return EmbeddedFeatures(arrays["u"], rows, passes.images, fingerprint, bank.space, passes.views, arrays["means"])


def _embedded(bank: PrototypeBank, features: PatchFeatures, batch_size: int, root: Path | None) -> EmbeddedFeatures:
    """The same of stored features."""
    bank.check_teacher(features.teacher, features.width)
    M, V = len(features), len(features.views)

    def build(writer: ArrayWriter) -> Mapping[str, object]:
        u = writer.create("u", (M, V, bank.embed_dim, *features.grid), np.float16)
        for start in range(0, M, batch_size):
            rows = np.arange(start, min(start + batch_size, M))
            for v, view in enumerate(features.views):
                u[rows, v] = embedded_maps(bank, features.fused(rows, view)).half().cpu().numpy()
        writer.create("means", (M, features.width), np.float32)[:] = features.pooled()
        return {}

    key = {"version": 1, "space": bank.space, "features": features.fingerprint}
    arrays, _ = cached_arrays("embedded", key, build, root=root)
    return EmbeddedFeatures(
        arrays["u"], np.arange(M), features.images, features.teacher, bank.space, features.views, arrays["means"]
    )


def embedded_maps(bank: PrototypeBank, fused: Float[Tensor, "B D h w"]) -> Float[Tensor, "B E h w"]:
    """U as maps."""
    u = bank.embed(fused)  # (B, N, E)
    return u.transpose(1, 2).reshape(len(u), -1, *fused.shape[2:])
