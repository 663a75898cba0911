"""Single-label classification: pooled patches, one linear layer, cross-entropy, accuracy."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


class PooledLinear(nn.Module):
    """Mean over patches, LayerNorm, linear: (B, N, E) -> (B, C)."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, num_classes)

    def forward(self, features: Float[Tensor, "B N E"]) -> Float[Tensor, "B C"]:
        """Class scores of each image."""
        logits: Tensor = self.linear(self.norm(features.mean(1)))
        return logits


@dataclass(frozen=True)
class Classification:
    """One class an image.

    Args:
        num_classes: C.
        classes: their names, for tables and figures.
    """

    num_classes: int
    classes: tuple[str, ...] = ()

    def head(self, width: int) -> nn.Module:
        """A new head that reads features of width E; it takes plain and augmented ones alike."""
        return PooledLinear(width, self.num_classes)

    def loss(
        self, logits: Float[Tensor, "B C"], labels: Int[Tensor, " B"], smoothing: float = 0.0
    ) -> Float[Tensor, ""]:
        """Mean cross-entropy."""
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)

    def consistency(self, logits: Float[Tensor, "B C"], augmented_logits: Float[Tensor, "B C"]) -> Float[Tensor, ""]:
        """KL(augmented || plain) between the two predictions of one image (METHOD part 3, w3)."""
        return F.kl_div(
            logits.log_softmax(-1), augmented_logits.log_softmax(-1), reduction="batchmean", log_target=True
        )

    def check(self, labels: torch.Tensor, ids: tuple[str, ...]) -> None:
        """Refuse labels outside the task.

        Raises:
            ValueError: names the image, its label and the range.
        """
        for i in torch.nonzero((labels < 0) | (labels >= self.num_classes)).flatten().tolist():
            raise ValueError(
                f"image {ids[i]!r} has label {int(labels[i])}, but the task has classes 0..{self.num_classes - 1}; "
                "pass images without a label as unlabelled="
            )
