"""Intervals over seeds, and over blocks of frames that are near copies of each other."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import sem, t


def paired_interval(differences: Sequence[float] | np.ndarray) -> tuple[float, float, float]:
    """Mean of paired differences and its 95 % interval (Student's t over seeds); ValueError for fewer than two."""
    values = np.asarray(differences, dtype=float)
    if len(values) < 2:
        raise ValueError("an interval needs at least 2 paired differences")
    mean, half = values.mean(), t.ppf(0.975, len(values) - 1) * sem(values)
    return float(mean), float(mean - half), float(mean + half)


def block_interval(
    differences: Float[np.ndarray, "S T"],
    blocks: Int[np.ndarray, " T"],
    classes: Int[np.ndarray, " T"] | None = None,
    *,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Mean of paired differences and its 95 % interval: a bootstrap that draws whole blocks, and seeds.

    Neighbouring frames of a video are near copies, so blocks of them are drawn with replacement, not single points
    (Künsch 1989, The jackknife and the bootstrap for general stationary observations); percentiles of the draws.

    Args:
        differences: of S seeds, drawn with replacement too, and T points.
        blocks: the number of each point's block.
        classes: the mean is that of the means of the classes; a draw leaves out classes that it does not meet.
        draws: of the bootstrap.
        seed: of the draws.

    Raises:
        ValueError: fewer than two blocks.

    >>> better = np.array([[1.0, 1.0, 0.0, 1.0, 1.0, 1.0]])
    >>> mean, low, high = block_interval(better, np.array([0, 0, 1, 1, 2, 2]))
    >>> 0.5 <= low < mean < high <= 1
    True
    """
    rng, numbers = np.random.default_rng(seed), np.unique(blocks, return_inverse=True)[1]
    S, n = len(differences), int(numbers.max()) + 1 if len(numbers) else 0
    if n < 2:
        raise ValueError(f"an interval needs at least 2 blocks of frames, not {n}")
    groups = np.zeros(len(blocks), int) if classes is None else np.unique(classes, return_inverse=True)[1]
    C = int(groups.max()) + 1
    cells = numbers * C + groups
    sums = np.stack([np.bincount(cells, row, n * C) for row in differences]).reshape(S, n, C)
    counts = np.bincount(cells, minlength=n * C).reshape(n, C)

    def means(seeds: Float[np.ndarray, "B S"], drawn: Float[np.ndarray, "B n"]) -> Float[np.ndarray, " B"]:
        met = drawn @ counts
        found = np.einsum("bs,bn,snc->bc", seeds, drawn, sums, optimize=True)
        each = np.divide(found, met, out=np.full(met.shape, np.nan), where=met > 0)
        return np.asarray(np.nanmean(each, axis=1))

    mean = means(np.full((1, S), 1 / S), np.ones((1, n)))[0]
    drawn = rng.multinomial(n, np.full(n, 1 / n), draws).astype(float)
    low, high = np.percentile(means(rng.multinomial(S, np.full(S, 1 / S), draws) / S, drawn), (2.5, 97.5))
    return float(mean), float(low), float(high)
