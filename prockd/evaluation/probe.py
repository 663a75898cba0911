"""A linear probe on the teacher: the ceiling of what its features tell."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler
from torch import Tensor


def linear_probe(
    train: Float[np.ndarray, "M F"] | Float[Tensor, "M F"],
    train_labels: Sequence[int] | np.ndarray | Tensor,
    test: Float[np.ndarray, "T F"] | Float[Tensor, "T F"],
    test_labels: Sequence[int] | np.ndarray | Tensor,
    *,
    strengths: Sequence[float] = (0.001, 0.003, 0.01, 0.03, 0.1, 1.0),
    seed: int = 0,
) -> float:
    """Test accuracy of a logistic regression whose strength is chosen on a fifth of the training images."""
    x, labels, x_test, labels_test = (
        np.asarray(a.detach().cpu() if isinstance(a, Tensor) else a) for a in (train, train_labels, test, test_labels)
    )
    order = np.random.default_rng(seed).permutation(len(labels))
    held = np.zeros(len(labels), dtype=bool)
    for c in np.unique(labels):
        rows = order[labels[order] == c]
        held[rows[: max(1, len(rows) // 5) if len(rows) > 1 else 0]] = True
    scaler = StandardScaler().fit(x)
    x, x_test = scaler.transform(x), scaler.transform(x_test)
    middle = sorted(strengths)[len(strengths) // 2]  # where one image a class leaves none to choose by
    model = LogisticRegression(C=middle, max_iter=500)
    if held.any():
        model = GridSearchCV(model, {"C": list(strengths)}, cv=[(np.flatnonzero(~held), np.flatnonzero(held))])
    return float(model.fit(x, labels).score(x_test, labels_test))
