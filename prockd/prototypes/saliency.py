"""Which patches look like the subject of a picture, and which like its border (METHOD part 1)."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression
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


@torch.no_grad()
def activity(maps: Sequence[Float[Tensor, "B _ _ _"]], grid: tuple[int, int]) -> Float[Tensor, "B h w"]:
    """How active patches are: log-odds that they show the subject of a picture, from the length of their features.

    The activation-based attention of Zagoruyko & Komodakis (arXiv 1612.03928): what a teacher responds to, it was
    trained to tell apart. Of each layer the logarithm of the length of each patch, standardised over all of them; their
    mean over the layers, in thirds of a standard deviation above half of one. It sees ears, horns and tails that reach
    the edge of a picture, which the border prior takes for background.
    """
    layers = []
    for layer in maps:
        length = torch.linalg.vector_norm(layer.float(), dim=1, keepdim=True).clamp_min(1e-6).log()
        length = (
            F.interpolate(length, grid, mode="bilinear", align_corners=False) if length.shape[2:] != grid else length
        )
        layers.append((length - length.mean()) / length.std().clamp_min(1e-6))
    mean = torch.cat(layers, 1).mean(1)
    return 3 * (mean / mean.std().clamp_min(1e-6) - 0.5)


def patch_saliency(patches: Float[Tensor, "P D"], zone: Int[Tensor, " P"], *, seed: int = 0) -> Float[Tensor, " P"]:
    """How much each patch looks like the middle of pictures rather than like their border, 0..1.

    See :func:`saliency_readout`. A grid without an inside gives 1 everywhere.
    """
    readout = saliency_readout(patches, zone, seed=seed)
    if readout is None:
        return torch.ones(len(patches))
    weight, bias = readout
    return (patches @ weight + bias).sigmoid()


def saliency_readout(
    patches: Float[Tensor, "P D"], zone: Int[Tensor, " P"], *, seed: int = 0
) -> tuple[Float[Tensor, " D"], float] | None:
    """Weights and bias that tell patches of the inside of pictures from those along their border, by features alone.

    The border prior of salient object detection (Wei et al., ECCV 2012): photographers keep what they mean away from
    the edge. A logistic regression learns to tell outer from inner patches by their features and then judges all of
    them, wherever they lie; nobody says which is which. None where a grid has no inside.
    """
    sides = [torch.nonzero(zone == side).flatten().numpy() for side in (OUTER, INNER)]
    count = min(5000, *map(len, sides))
    if count < 2:
        return None
    rng = np.random.default_rng(seed)
    rows = np.concatenate([side[rng.permutation(len(side))[:count]] for side in sides])
    scaler, regression = StandardScaler(), LogisticRegression(C=0.01, max_iter=200)
    regression.fit(scaler.fit_transform(patches[rows].numpy()), np.repeat([0, 1], count))
    weight = regression.coef_[0] / scaler.scale_
    return torch.from_numpy(weight).float(), float(regression.intercept_[0] - weight @ scaler.mean_)
