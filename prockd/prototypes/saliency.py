"""Which patches look like the subject of a picture, and which like its border (METHOD part 1)."""

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

BARS, OUTER, BETWEEN, INNER = range(-1, 3)
"""Zones of a square: beside the picture, along its border, and at least a third of its shorter side away from it."""


def zones(pictured: Float[np.ndarray, "M 4"], grid: tuple[int, int]) -> Int[np.ndarray, "M N"]:
    """Where each patch lies in its picture, x0, y0, x1, y1 in 0..1 of its square, to which its centre must belong."""
    distances, sides = [], []
    for low, high, count in zip((1, 0), (3, 2), grid, strict=True):
        centre = (np.arange(count) + 0.5) / count
        inside = (centre >= pictured[:, low, None]) & (centre <= pictured[:, high, None])  # (M, count)
        side, before = inside.sum(1), inside.cumsum(1) - 1  # of the picture: patches, and those before each
        distances.append(np.where(inside, np.minimum(before, side[:, None] - 1 - before), -1))
        sides.append(side)
    ring = np.minimum(distances[0][:, :, None], distances[1][:, None, :]).reshape(len(pictured), -1)
    deep = np.maximum(1, np.minimum(*sides) // 3)[:, None]
    return np.select([ring < 0, ring == 0, ring >= deep], [BARS, OUTER, INNER], BETWEEN).astype(np.int8)


def patch_saliency(patches: Float[Tensor, "P D"], zone: Int[Tensor, " P"], *, seed: int = 0) -> Float[Tensor, " P"]:
    """How much each patch looks like the middle of pictures rather than like their border, 0..1.

    The border prior of salient object detection (Wei et al., ECCV 2012): photographers keep what they mean away from
    the edge. A logistic regression learns to tell outer from inner patches by their features and then judges all of
    them, wherever they lie; nobody says which is which. A grid without an inside gives 1 everywhere.
    """
    sides = [torch.nonzero(zone == side).flatten().numpy() for side in (OUTER, INNER)]
    count = min(5000, *map(len, sides))
    if count < 2:
        return torch.ones(len(patches))
    rng = np.random.default_rng(seed)
    rows = np.concatenate([side[rng.permutation(len(side))[:count]] for side in sides])
    regression = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200))
    regression.fit(patches[rows].numpy(), np.repeat([0, 1], count))
    return torch.from_numpy(regression.predict_proba(patches.numpy())[:, 1]).float()
