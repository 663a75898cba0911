"""Which patches look like the subject of a picture, and which like its border (METHOD part 1)."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

BARS, OUTER, BETWEEN, INNER = range(-1, 3)
"""Zones of a square: beside the picture, along its border, and at least a third of its shorter side away from it."""

ROUNDS, SURE = 2, (0.6, 0.8)
"""Of self-training, and the quantiles of the scores below and above which an answer is sure."""


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
def activity(lengths: Float[Tensor, "B L h w"], inside: Bool[Tensor, "B h w"] | None = None) -> Float[Tensor, "B h w"]:
    """How active patches are, 0..1: how likely they show the subject of a picture, by the length of their features.

    The activation-based attention of Zagoruyko & Komodakis (arXiv 1612.03928): what a teacher responds to, it was
    trained to tell apart. The logarithm of the length of each layer's patches is standardised over all patches, and so
    is the mean over layers, z; the logistic function of 3 (z - 1/2). It sees ears, horns and tails that reach the edge
    of a picture, which the border prior takes for background.

    Args:
        lengths: logarithms, see :func:`prockd.teachers.features.log_lengths`.
        inside: patches that count; None for all of them. Bars beside a picture have lengths too.
    """
    inside = torch.ones_like(lengths[:, 0], dtype=torch.bool) if inside is None else inside

    def standardised(values: Float[Tensor, "B h w"]) -> Float[Tensor, "B h w"]:
        kept = values[inside]
        spread = kept.std(correction=0).clamp_min(1e-6) if len(kept) else values.new_ones(())
        return (values - (kept.mean() if len(kept) else 0)) / spread

    mean = torch.stack([standardised(layer) for layer in lengths.unbind(1)]).mean(0)
    return (3 * (standardised(mean) - 0.5)).sigmoid()


def learn_saliency(patches: Float[Tensor, "P D"], active: Float[Tensor, " P"]) -> Callable[[Tensor, Tensor], Tensor]:
    """Learn from some patches what salient ones look like; what is returned judges these and others, 0..1.

    Activity judges a patch by one number; a logistic regression learns from the most and the least active patches to
    tell them apart by all of their features, and then, once more, from its own surest answers (self-training). On
    Farmyard it knows animals better than activity (area under the curve .936, activity .913, border prior of Wei et
    al., ECCV 2012, .890), above all heads and horns. Where all patches are equally active they stay so.
    """
    scaler = StandardScaler().fit(patches.numpy())
    scaled, scores, regression = scaler.transform(patches.numpy()), active.numpy(), None
    for _ in range(ROUNDS):
        low, high = np.quantile(scores, SURE)
        sure = np.flatnonzero((scores < low) | (scores > high))
        if len(np.unique(scores[sure] > high)) < 2:
            break
        regression = LogisticRegression(C=0.01, max_iter=200).fit(scaled[sure], scores[sure] > high)
        scores = regression.predict_proba(scaled)[:, 1]

    def judge(others: Float[Tensor, "Q D"], their_activity: Float[Tensor, " Q"]) -> Float[Tensor, " Q"]:
        if regression is None:
            return their_activity
        return torch.from_numpy(regression.predict_proba(scaler.transform(others.numpy()))[:, 1]).float()

    return judge
