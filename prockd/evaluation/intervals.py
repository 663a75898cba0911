"""Intervals over seeds."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import t


def paired_interval(differences: Sequence[float] | np.ndarray) -> tuple[float, float, float]:
    """Mean of paired differences and its 95 % interval (Student's t over seeds).

    Raises:
        ValueError: fewer than two differences.
    """
    values = np.asarray(differences, dtype=float)
    if len(values) < 2:
        raise ValueError("an interval needs at least 2 paired differences")
    half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return float(values.mean()), float(values.mean()) - half, float(values.mean()) + half
