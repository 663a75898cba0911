"""Losses as free functions ``name(student, teacher, prototypes, temperature)``, each with a knob ``name_weight``.

Patches are (B, N, E), prototypes (K, E); every value is a mean over images, of which each process has its own. The hint
alone compares other maps, those of all.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def assignment(
    student: Float[Tensor, "B N E"],
    teacher: Float[Tensor, "B N E"],
    prototypes: Float[Tensor, "K E"],
    temperature: float = 0.1,
) -> Float[Tensor, ""]:
    """KL(teacher || student) between prototype assignments of the same patch (METHOD part 3, "transfer").

    Features and prototypes are compared by cosine over ``temperature``. The teacher's side carries no gradient.
    """
    target = torch.softmax(cosine(teacher.detach(), prototypes.detach()) / temperature, dim=-1)
    score = torch.log_softmax(cosine(student, prototypes) / temperature, dim=-1)
    return F.kl_div(score.flatten(0, 1), target.flatten(0, 1), reduction="batchmean")


def feature(
    student: Float[Tensor, "B N E"],
    teacher: Float[Tensor, "B N E"],
    prototypes: Tensor | None = None,
    temperature: float = 0.1,
) -> Float[Tensor, ""]:
    """1 - cosine between the student's and the teacher's patch, 0..2; prototypes have no part in it."""
    cosines: Tensor = _Cosine.apply(student, teacher.detach())
    return 1 - cosines.mean()


class _Cosine(torch.autograd.Function):
    """Cosine of each patch to its teacher's, which gets no gradient: passes over memory in half of autograd's time."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor) -> Tensor:
        lengths = length(student), length(teacher)
        cosines = (student * teacher).sum(-1) / (lengths[0] * lengths[1])
        ctx.save_for_backward(student, teacher, *lengths, cosines)
        return cosines

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        student, teacher, f, t, cosines = ctx.saved_tensors
        along = (grads[0] / (f * t)).unsqueeze(-1)
        return torch.addcmul(teacher * along, student, (grads[0] * cosines / f**2).unsqueeze(-1), value=-1), None


def hint(student: Float[Tensor, "B D h w"], teacher: Float[Tensor, "B D h w"]) -> Float[Tensor, ""]:
    """FitNets hint (arXiv 1412.6550): mean squared error to the teacher's map, in units of the teacher's variance."""
    teacher = teacher.detach()
    return F.mse_loss(student, teacher) / teacher.var().clamp_min(1e-6)


def cosine(features: Float[Tensor, "B N E"], prototypes: Float[Tensor, "K E"]) -> Float[Tensor, "B N K"]:
    """Cosine of each patch to each prototype; the products are scaled, which is cheaper than scaled features."""
    products: Tensor = features @ F.normalize(prototypes, dim=-1).T
    return products / length(features).unsqueeze(-1)


def length(features: Float[Tensor, "B N E"]) -> Float[Tensor, "B N"]:
    """Euclidean length of each patch, at least a little."""
    lengths: Tensor = torch.linalg.vector_norm(features, dim=-1)
    return lengths.clamp_min(1e-8)
