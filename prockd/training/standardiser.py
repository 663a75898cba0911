"""A teacher's features at one scale, by statistics taken once before the training."""

from collections.abc import Iterable

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float
from torch import Tensor, nn


class Standardiser(nn.Module):
    """Teacher patches with mean 0, and on average variance 1 in each value; :meth:`fit` comes first.

    - "mean_std": (t - mean) / deviation, value by value: rare values weigh as much as common ones.
    - "phi_s": PHI-S (arXiv 2410.01680): H U^T (t - mean) / phi, where U are the principal directions, H is
      a Hadamard matrix and phi one number. H spreads every direction evenly over all values, so each has variance 1 and
      distances are kept up to phi. Where there is no H of the teacher's width, the first columns of the next power of
      two serve: distances are kept all the same, and there are more values.

    Args:
        how: "mean_std" or "phi_s".
        teacher_width: D.
    """

    mean: Float[Tensor, " D"]
    scale: Float[Tensor, " *D"]
    rotation: Float[Tensor, "D D2"] | None

    def __init__(self, how: str, teacher_width: int) -> None:
        super().__init__()
        rotates = how == "phi_s"
        self.width = 1 << (teacher_width - 1).bit_length() if rotates else teacher_width
        self.register_buffer("mean", torch.zeros(teacher_width))
        self.register_buffer("scale", torch.ones(() if rotates else teacher_width))
        self.register_buffer("rotation", torch.zeros(teacher_width, self.width) if rotates else None)

    @torch.no_grad()
    def fit(self, patches: Iterable[Float[Tensor, "_ N D"]]) -> None:
        """Take the statistics of some teacher patches; memory does not grow with their number."""
        count, D, rotates = 0, len(self.mean), self.rotation is not None
        first, second = np.zeros(D), np.zeros((D, D) if rotates else D)
        for some in patches:
            rows = some.flatten(0, 1).cpu().double().numpy()
            count += len(rows)
            first += rows.sum(0)
            second += rows.T @ rows if rotates else (rows**2).sum(0)
        mean = first / count
        self.mean.copy_(torch.from_numpy(mean))
        if self.rotation is None:
            deviation = np.sqrt(np.maximum(second / count - mean**2, 0))
            # values that are dead but for a few patches would drown the others
            self.scale.copy_(torch.from_numpy(np.maximum(deviation, 1e-2 * deviation.mean() + 1e-12)))
            return
        covariance = second / count - np.outer(mean, mean)
        directions = scipy.linalg.eigh(covariance)[1]
        # LAPACK is free to turn a direction round: its greatest entry shall be positive, or machines would differ
        directions *= np.sign(np.take_along_axis(directions, np.abs(directions).argmax(0)[None], 0))
        hadamard = scipy.linalg.hadamard(self.width)[:, :D] / np.sqrt(self.width)
        self.rotation.copy_(torch.from_numpy(directions @ hadamard.T))
        self.scale.copy_(torch.tensor(np.sqrt(max(np.trace(covariance), 1e-12) / self.width)))

    def forward(self, patches: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D2"]:
        """Standardised patches, of ``width`` values."""
        centred = patches - self.mean
        return (centred if self.rotation is None else centred @ self.rotation) / self.scale
