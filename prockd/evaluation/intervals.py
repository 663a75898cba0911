"""Intervals over seeds."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import sem, t


def paired_interval(differences: Sequence[float] | np.ndarray) -> tuple[float, float, float]:
    """Mean of paired differences and its 95 % interval (Student's t over seeds); ValueError for fewer than two."""
    values = np.asarray(differences, dtype=float)
    if len(values) < 2:
        raise ValueError("an interval needs at least 2 paired differences")
    mean, half = values.mean(), t.ppf(0.975, len(values) - 1) * sem(values)
    return float(mean), float(mean - half), float(mean + half)
