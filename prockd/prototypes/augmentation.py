"""Feature augmentation by attention (METHOD part 2; arXiv 2212.13180, FSOD^up arXiv 2103.01077): an ablation.

Scores e p_k spread by a few tenths, so the attention is nearly even and r is nearly the same for every patch; and after
mean pooling even a sharp A p tells no more than how often each prototype occurs. What tells species apart is how a part
looks, which :mod:`prockd.prototypes.part_maps` reads.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


class FeatureAugmentation(nn.Module):
    """Adds what the prototypes know to a map of features; the result has the same shape, so any head can take either.

    e = E f, p_k = E (alpha_k c_k + beta_k), A = softmax_k(e p_k / sqrt E), r = A p; then with the default gate
    f+ = f + gamma * T([e; r]), gamma starting at 0, or with ``residual="relu"`` the paper's f+ = ReLU(T([e; r]) + f).

    Args:
        embed_dim: width E of features and prototypes.
        num_prototypes: K.
        content: ``"attention"`` (above), ``"descriptor"`` (r is the residual descriptor given to every patch), or
            ``"mlp"``, the control: r comes from a hidden layer with as many parameters as prototypes and condition.
        residual: ``"gate"`` or ``"relu"``.
        conditional: learn alpha and beta (``"attention"`` only).
        scaled: divide scores by sqrt(E).
        detach: cut the gradient from the augmented prediction to the features.

    Raises:
        ValueError: another content or residual, no descriptor for that content, or every prototype is disabled.
    """

    def __init__(
        self,
        embed_dim: int,
        num_prototypes: int,
        *,
        content: str = "attention",
        residual: str = "gate",
        conditional: bool = True,
        scaled: bool = True,
        detach: bool = False,
    ) -> None:
        super().__init__()
        if content not in ("attention", "descriptor", "mlp"):
            raise ValueError(f"content={content!r}: choose 'attention', 'descriptor' or 'mlp'")
        if residual not in ("gate", "relu"):
            raise ValueError(f"residual={residual!r}: choose 'gate' or 'relu'")
        self.content, self.residual, self.detach = content, residual, detach
        self.scale = 1 / math.sqrt(embed_dim) if scaled else 1.0
        self.encode = nn.Linear(embed_dim, embed_dim)
        self.transform = nn.Linear(2 * embed_dim, embed_dim)
        self.gate = nn.Parameter(torch.zeros(embed_dim)) if residual == "gate" else None
        if content == "mlp":  # as many weights as K prototypes and, when conditional, their K scales and K shifts
            hidden = max(1, round(num_prototypes * (3 if conditional else 1) / 2))
            self.hidden = nn.Sequential(nn.Linear(embed_dim, hidden), nn.ReLU(), nn.Linear(hidden, embed_dim))
        if content == "attention":
            shape = (num_prototypes, embed_dim)
            self.alpha = nn.Parameter(torch.ones(shape), requires_grad=conditional)
            self.beta = nn.Parameter(torch.zeros(shape), requires_grad=conditional)

    def forward(
        self,
        features: Float[Tensor, "B N E"],
        prototypes: Float[Tensor, "K E"],
        *,
        enabled: Bool[Tensor, " K"] | None = None,
        descriptor: Float[Tensor, "B E"] | None = None,
    ) -> Float[Tensor, "B N E"]:
        """Augment features; a disabled prototype takes no attention, ``descriptor`` is read for that content only."""
        features = features.to(self.transform.weight)
        source = features.detach() if self.detach else features
        e = self.encode(source)  # (B, N, E)
        of_e, of_r = self.transform.weight.chunk(2, dim=1)  # T([e; r]) = T_e e + T_r r, and T_r A p = A (T_r p)
        if self.content == "mlp":
            r = F.linear(self.hidden(e), of_r)
        elif self.content == "descriptor":
            if descriptor is None:
                raise ValueError("content='descriptor' needs the residual descriptor of the image")
            r = F.linear(descriptor.to(e), of_r).unsqueeze(1)  # (B, 1, E)
        else:
            keys = self.keys(prototypes)
            r = self._attend(e, keys, enabled) @ F.linear(keys, of_r)
        t = F.linear(e, of_e, self.transform.bias) + r
        return F.relu(t + source) if self.gate is None else source + self.gate * t

    def keys(self, prototypes: Float[Tensor, "K E"]) -> Float[Tensor, "K E"]:
        """p_k: the task's conditional prototypes, encoded like the features."""
        encoded: Tensor = self.encode(self.alpha * prototypes.to(self.alpha) + self.beta)
        return encoded

    def attention(
        self,
        features: Float[Tensor, "B N E"],
        prototypes: Float[Tensor, "K E"],
        *,
        enabled: Bool[Tensor, " K"] | None = None,
    ) -> Float[Tensor, "B N K"]:
        """A: how much each patch takes of each prototype; rows sum to 1, disabled columns are 0."""
        return self._attend(self.encode(features.to(self.transform.weight)), self.keys(prototypes), enabled)

    def _attend(self, e: Tensor, keys: Tensor, enabled: Tensor | None) -> Tensor:
        scores = e @ keys.T * self.scale  # (B, N, K)
        if enabled is not None:
            if not enabled.any():
                raise ValueError(f"all {len(enabled)} prototypes are disabled: enable one, bank.enable(k)")
            scores = scores.masked_fill(~enabled.to(scores.device), float("-inf"))
        return torch.softmax(scores, dim=-1)
