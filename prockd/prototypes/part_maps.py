"""Part maps: every prototype reads how a patch differs from it (METHOD part 2; the residual of arXiv 1511.07247)."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

TEMPERATURE = 0.1
"""Of the cosines by which patches belong to prototypes: sharp, so that a map reads the patches of its own part."""


def belonging(
    features: Float[Tensor, "B N E"],
    prototypes: Float[Tensor, "K E"],
    enabled: Bool[Tensor, " K"] | None = None,
    merged: Int[Tensor, " K"] | None = None,
    temperature: float = TEMPERATURE,
) -> tuple[Float[Tensor, "B N E"], Float[Tensor, "B N K"]]:
    """h, the directions of patches, and a, how much each belongs to every prototype: softmax_k(cos(f_n, c_k) / T).

    What belongs to a disabled prototype belongs to none: its column is 0 and the others stay, so that to switch one off
    takes away what it says and changes nothing else. One that was merged into another is not there at all.
    """
    h = F.normalize(features, dim=-1)
    scores = h @ F.normalize(prototypes, dim=-1).T / temperature
    if merged is not None:
        scores = scores.masked_fill(merged != torch.arange(len(merged), device=merged.device), float("-inf"))
    a = scores.softmax(-1)
    return h, a if enabled is None else a * enabled.to(a)


def part_descriptor(
    features: Float[Tensor, "B N E"],
    prototypes: Float[Tensor, "K E"],
    enabled: Bool[Tensor, " K"] | None = None,
    merged: Int[Tensor, " K"] | None = None,
    temperature: float = TEMPERATURE,
) -> Float[Tensor, "B K E"]:
    """V_k = sum_n a_nk (h_n - c_k) / (1 + sum_n a_nk): how the patches of each part differ from it, on the whole.

    The 1 keeps a part that is not there near 0. A'H - diag(A'1) C is the same sum without a tensor of size B*K*E*N.

    >>> part_descriptor(torch.rand(2, 9, 4), torch.rand(3, 4)).shape
    torch.Size([2, 3, 4])
    """
    h, a = belonging(features, prototypes, enabled, merged, temperature)
    total = a.sum(1).unsqueeze(-1)  # (B, K, 1)
    return (a.transpose(1, 2) @ h - total * prototypes) / (1 + total)


class PartMaps(nn.Module):
    """Each prototype's own small map of how a patch differs from it; z+ is read from them, and z never touched.

    h = f/|f|, a = :func:`belonging`, w_nk = a_nk N / (1 + sum_n a_nk): each part speaks once, however many patches it
    has. What prototype k says of patch n is w_nk D_k (h_n - c_k).

    - ``num_outputs``: the mean of what all patches say, with a bias, is z+ itself, one linear layer on
      :func:`part_descriptor`. D (K x E x C) is found in closed form on the finished student: :meth:`set_reading`.
    - else f+ = f + W_out sum_k w_nk D_k (h_n - c_k) goes through the student's own head; both learn beside it. There
      D_k = G_k R shares R (E -> q), so that (sum_k w_nk G_k)(R h_n) needs q*r numbers a patch and not K*r.

    Args:
        num_prototypes: K.
        embed_dim: E.
        num_outputs: C, for a reading in closed form; 0 for f+.
        num_maps: r and q, for f+.
        temperature: of :func:`belonging`.
    """

    content = "part_maps"
    fitted: Tensor

    def __init__(
        self, num_prototypes: int, embed_dim: int, *, num_outputs: int = 0, num_maps: int = 16,
        temperature: float = TEMPERATURE,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_outputs, self.num_maps, self.temperature = num_outputs, num_maps, temperature
        if num_outputs:
            self.maps = nn.Parameter(torch.zeros(num_prototypes, embed_dim, num_outputs), requires_grad=False)
            self.bias = nn.Parameter(torch.zeros(num_outputs), requires_grad=False)
            self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))
        else:
            self.reduce = nn.Linear(embed_dim, num_maps, bias=False)
            self.maps = nn.Parameter(torch.randn(num_prototypes, num_maps, num_maps) / num_maps)  # G_k: q -> r
            self.spread = nn.Linear(num_maps, embed_dim, bias=False)
            nn.init.zeros_(self.spread.weight)  # f+ begins as f

    @property
    def is_ready(self) -> bool:
        """Whether z+ can be read: in closed form it is fitted to a finished student, and no training step reads it."""
        return not self.num_outputs or (not self.training and bool(self.fitted))

    def settle(self) -> None:
        """Make ``fitted`` a plain number, which a traced graph does not ask for; it is in no file any more."""
        if self.num_outputs:
            fitted = bool(self.fitted)
            del self.fitted
            self.__dict__["fitted"] = fitted

    def set_reading(self, weight: Float[Tensor, "KE C"], bias: Float[Tensor, " C"]) -> None:
        """Take the maps that were fitted to descriptors, flattened prototype by prototype."""
        with torch.no_grad():
            self.maps.copy_(weight.reshape(self.maps.shape))
            self.bias.copy_(bias)
            self.fitted.fill_(True)

    def forward(
        self, features: Float[Tensor, "B N E"], prototypes: Float[Tensor, "K E"],
        enabled: Bool[Tensor, " K"] | None = None, merged: Int[Tensor, " K"] | None = None,
    ) -> Tensor:  # fmt: skip
        """z+ (B, C) of a fitted reading, or f+ (B, N, E)."""
        features = features.to(self.maps)
        if self.num_outputs:
            v = part_descriptor(features, prototypes, enabled, merged, self.temperature)
            logits: Tensor = v.flatten(1) @ self.maps.flatten(0, 1) + self.bias
            return logits
        f, prototypes = features.detach(), prototypes.detach()
        h, a = belonging(f, prototypes, enabled, merged, self.temperature)
        w = a * (a.shape[1] / (1 + a.sum(1, keepdim=True)))
        mixed = (w @ self.maps.flatten(1)).view(*w.shape[:2], *self.maps.shape[1:])  # (B, N, q, r) sum_k w_nk G_k
        of_centres = torch.einsum("kq,kqr->kr", self.reduce(prototypes), self.maps)  # G_k R c_k
        said = (self.reduce(h).unsqueeze(-2) @ mixed).squeeze(-2) - w @ of_centres
        f_plus: Tensor = f + self.spread(said)
        return f_plus

    def shares(
        self, features: Float[Tensor, "B N E"], prototypes: Float[Tensor, "K E"],
        enabled: Bool[Tensor, " K"] | None = None, merged: Int[Tensor, " K"] | None = None,
    ) -> Float[Tensor, "B K C"]:  # fmt: skip
        """V_k D_k: what each prototype adds to z+; with the bias they are z+, and without one the others stay.

        Raises:
            ValueError: these maps make f+, in which no class has a number.
        """
        self._check_closed()
        v = part_descriptor(features.to(self.maps), prototypes, enabled, merged, self.temperature)
        return torch.einsum("bke,kec->bkc", v, self.maps)

    def _check_closed(self) -> None:
        if not self.num_outputs:
            raise ValueError("part maps that make f+ have no classes: the head reads them")

    @torch.no_grad()
    def evidence(
        self, features: Float[Tensor, "B N E"], prototypes: Float[Tensor, "K E"],
        enabled: Bool[Tensor, " K"] | None = None, merged: Int[Tensor, " K"] | None = None, *, output: int,
    ) -> Float[Tensor, "B N K"]:  # fmt: skip
        """What each prototype says of each patch for one class, in logits; the mean over patches adds up to z+.

        Raises:
            ValueError: these maps make f+, in which no class has a number.
            IndexError: a class that is not there.
        """
        self._check_closed()
        if not 0 <= output < self.num_outputs:
            raise IndexError(f"class {output} is not there: {self.num_outputs} are numbered from 0")
        h, a = belonging(features.to(self.maps), prototypes, enabled, merged, self.temperature)
        w = a * (a.shape[1] / (1 + a.sum(1, keepdim=True)))
        own = self.maps[:, :, output]  # (K, E)
        return w * (h @ own.T - (own * prototypes).sum(1))
