"""A linear probe on the teacher: the ceiling of what its features tell."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler


def linear_probe(
    train: Float[np.ndarray, "M F"],
    train_labels: Sequence[int] | np.ndarray,
    test: Float[np.ndarray, "T F"],
    test_labels: Sequence[int] | np.ndarray,
    *,
    strengths: Sequence[float] = (0.001, 0.003, 0.01, 0.03, 0.1, 1.0),
    seed: int = 0,
) -> float:
    """Test accuracy of a logistic regression whose strength is chosen on a fifth of the training images."""
    labels = np.asarray(train_labels)
    order = np.random.default_rng(seed).permutation(len(labels))
    held = np.zeros(len(labels), dtype=bool)
    for c in np.unique(labels):
        mine = order[labels[order] == c]
        held[mine[: max(1, len(mine) // 5) if len(mine) > 1 else 0]] = True
    scaler = StandardScaler().fit(train)
    x, unseen = scaler.transform(train), scaler.transform(test)

    def fit(strength: float, rows: np.ndarray) -> LogisticRegression:
        return LogisticRegression(C=strength, max_iter=500).fit(x[rows], labels[rows])

    if held.any():
        strengths = [max(strengths, key=lambda s: fit(s, ~held).score(x[held], labels[held]))]
    chosen = sorted(strengths)[len(strengths) // 2]  # the middle one where one image a class leaves none to choose by
    return float(fit(chosen, np.ones(len(labels), dtype=bool)).score(unseen, test_labels))


def pooled(maps: Sequence[np.ndarray], view: int = 0) -> Float[np.ndarray, "M D"]:
    """Each layer averaged over its patches and all layers joined: what a linear probe on the teacher reads."""
    return np.concatenate([torch.from_numpy(np.array(m[:, view])).float().mean((2, 3)).numpy() for m in maps], axis=1)
