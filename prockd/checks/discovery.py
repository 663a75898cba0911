"""Exercises of notebook 02: discover prototypes."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from prockd.checks.verdict import Step, close, exercise, integers, noise, shape, values


def soft_assignment(patches: Tensor, prototypes: Tensor, temperature: float) -> Tensor:
    """How much each patch (N, E) belongs to each prototype (K, E): rows (N, K) that sum to 1."""
    return (F.normalize(patches, dim=-1) @ F.normalize(prototypes, dim=-1).T / temperature).softmax(-1)


def residuals(a: Tensor, patches: Tensor, prototypes: Tensor) -> Tensor:
    """V_k = sum_n a_nk (u_n - c_k), (K, E), without a tensor of all pairs."""
    return a.T @ patches - a.sum(0)[:, None] * prototypes


def purity(prototype: np.ndarray, part: np.ndarray) -> float:
    """The share of patches whose part is the commonest one of their prototype."""
    own = (part[prototype == k] for k in np.unique(prototype))
    return sum(int(np.bincount(parts).max()) for parts in own) / len(part)


def used(assignments: Tensor) -> float:
    """Over how many prototypes a set of patches (n, K) spreads: e to the entropy of the mean assignment."""
    usage = assignments.mean(0)
    return float(torch.exp(-torch.xlogy(usage, usage).sum()))


class Largest(TorchFunctionMode):
    """Notes the largest tensor that torch makes inside a ``with`` block."""

    size = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function of torch, and look at what it gives."""
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.size = max(self.size, out.numel())
        return out


@exercise(soft_assignment)
def check_soft_assignment(answer: Callable[[Tensor, Tensor, float], Tensor]) -> Iterator[Step]:
    """``answer(patches (N, E), prototypes (K, E), temperature)`` gives assignments (N, K)."""
    patches, prototypes = noise(6, 8), noise(4, 8, seed=1)
    found = values(answer(patches, prototypes, 0.2))
    yield shape(found, 6, 4)
    yield close(found.sum(-1), torch.ones(6)), "each patch shares out exactly 1", "softmax over prototypes, dim=-1"
    yield close(answer(3 * patches, prototypes, 0.2), found), "longer patches change nothing", "normalise the patches"
    yield close(answer(patches, 3 * prototypes, 0.2), found), "nor longer prototypes", "normalise the prototypes too"
    sharp = values(answer(patches, prototypes, 0.02)).max(-1).values.mean()
    change = "divide the cosines by the temperature, do not multiply"
    yield sharp > found.max(-1).values.mean(), "a lower temperature is sharper", change
    yield close(found, soft_assignment(patches, prototypes, 0.2)), "all shares are right", "cosines / temperature"


@exercise(residuals)
def check_residuals(answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Iterator[Step]:
    """``answer(a (N, K), patches (N, E), prototypes (K, E))`` gives the residual descriptor (K, E)."""
    a, patches, prototypes = noise(50, 3).softmax(-1), noise(50, 4, seed=1), noise(3, 4, seed=2)
    with Largest() as seen:
        found = values(answer(a, patches, prototypes))
    yield shape(found, 3, 4)
    change = "take the prototypes away, each as often as it was assigned: a.sum(0)"
    yield not close(found, a.T @ patches), "it is relative to the prototypes", change
    truth = (a[:, :, None] * (patches[:, None] - prototypes)).sum(0)
    yield not close(found, truth / 50), "it is a sum over patches", "do not divide by the number of patches"
    yield close(found, truth), "it is the sum of all residuals", "A'U - diag(A'1) C"
    change = f"yours made one of {seen.size} numbers; a.T @ patches sums over patches at once"
    yield seen.size < 50 * 3 * 4, "no tensor of all pairs was made", change


@exercise(purity)
def check_purity(answer: Callable[[np.ndarray, np.ndarray], float]) -> Iterator[Step]:
    """``answer(prototype (n,), part (n,))`` gives the purity, 0 to 1."""
    prototype, part = np.array([0, 0, 0, 0, 4, 4, 9]), np.array([1, 1, 1, 2, 2, 3, 3])
    found = answer(prototype, part)
    yield shape(found)
    change = "count in each prototype by itself; one name for all is the chance level"
    yield not close(found, 3 / 7), "each prototype has a name of its own", change
    yield close(answer(part, part), 1), "groups that are parts have purity 1", "it is a share of all patches"
    change = "add the patches that are rightly named, then divide once by all patches"
    yield not close(found, (3 / 4 + 1 / 2 + 1) / 3), "large prototypes count more than small ones", change
    yield close(found, 5 / 7), "5 of the 7 patches are rightly named", "commonest part of each prototype, summed"
    prototype, part = integers(0, 9, 200), integers(1, 4, 200, seed=1)
    yield close(answer(prototype, part), purity(prototype, part)), "a random grouping is right too", "mind the gaps"


@exercise(used)
def check_used(answer: Callable[[Tensor], float]) -> Iterator[Step]:
    """``answer(assignments (n, K))`` gives the effective number of prototypes in use, 1 to K."""
    certain = torch.eye(4).repeat(3, 1)
    yield shape(answer(certain))
    change = "first the mean over patches, then its entropy: sharp patches can use all prototypes between them"
    yield not close(answer(certain), 1), "patches that are sure of different ones use them all", change
    yield not close(answer(certain), np.log(4)), "it is a number of prototypes", "take e to the entropy"
    yield close(answer(certain), 4), "four used alike are 4", "e to the entropy of the mean, natural logarithm"
    collapsed = torch.eye(4)[[1] * 12]
    change = "0 log 0 is 0: torch.xlogy, or leave out the zeros"
    yield close(answer(collapsed), 1), "a collapse onto one prototype is 1", change
    soft = noise(9, 5).softmax(-1)
    yield close(answer(soft), used(soft)), "soft assignments are right too", "use the shares, not the first choices"
