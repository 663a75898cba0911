"""Exercises of notebook 04: what a prototype adds to a student's feature."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from prockd.checks.verdict import Step, close, exercise, noise, shape, values
from prockd.prototypes.part_maps import part_descriptor


def looked_at(attention: Tensor) -> float:
    """Over how many prototypes a patch spreads its attention (N, K): e to its entropy, a mean over patches."""
    return float(torch.exp(-torch.xlogy(attention, attention).sum(-1)).mean())


def part_map(h: Tensor, a: Tensor, prototypes: Tensor) -> Tensor:
    """V (K, E) of one image: h (N, E) of length 1, assignments (N, K), prototypes (K, E)."""
    total = a.sum(0)[:, None]
    return torch.div(a.T @ h - total * prototypes, 1 + total)


def ridge(V: Tensor, Y: Tensor, penalty: float) -> Tensor:
    """The reading D (columns, C) of V (n, columns) to targets Y (n, C), solved among the n images."""
    return torch.mm(V.T, torch.linalg.solve(V @ V.T + penalty * torch.eye(len(V)).to(V), Y))


def left_out(V: Tensor, Y: Tensor, penalty: float) -> Tensor:
    """What each image would be told by a ridge of all others (n, C): Allen's PRESS."""
    inverse = torch.linalg.inv(V @ V.T + penalty * torch.eye(len(V)).to(V))
    return torch.sub(Y, (inverse @ Y) / inverse.diagonal()[:, None])


@exercise(looked_at)
def check_looked_at(answer: Callable[[Tensor], float]) -> Iterator[Step]:
    """``answer(attention (N, K))`` gives the effective number of prototypes a patch looks at."""
    even, sharp = torch.full((6, 8), 1 / 8), torch.eye(8)[:6]
    yield shape(answer(even))
    yield not close(answer(even), torch.tensor(8.0).log()), "it is a number of prototypes", "take e to the entropy"
    yield close(answer(even), 8), "even attention looks at all 8", "entropy: -sum a log a over prototypes"
    change = "the entropy of each patch first, then the mean over patches; and 0 log 0 is 0 (torch.xlogy)"
    yield close(answer(sharp), 1), "patches that each look at one other look at 1", change
    mixed = noise(6, 8).softmax(-1)
    yield close(answer(mixed), looked_at(mixed), 1e-3), "soft attention is right too", "mean of e to the entropies"


@exercise(part_map)
def check_part_map(answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Iterator[Step]:
    """``answer(h (N, E), a (N, K), prototypes (K, E))`` gives V of one image, (K, E)."""
    h, prototypes = F.normalize(noise(30, 5), dim=-1), F.normalize(noise(4, 5, seed=1), dim=-1)
    a = (h @ prototypes.T / 0.1).softmax(-1)
    found, total = values(answer(h, a, prototypes)), a.sum(0)[:, None]
    yield shape(found, 4, 5)
    absent = values(answer(h, torch.zeros(30, 4), prototypes))
    change = "divide by 1 + the sum of a: the 1 keeps it from 0 / 0"
    yield close(absent, torch.zeros(4, 5)), "a part that is not there says nothing", change
    sums = a.T @ h - total * prototypes
    yield not close(found, sums), "each part speaks once", "divide by 1 + how many patches the part has"
    yield not close(found, a.T @ h / (1 + total)), "it is the difference from the prototype", "take a_nk c_k away"
    truth = part_descriptor(h[None], prototypes)[0]
    yield close(found, truth, 1e-3), "it is what the module gives", "(A'H - diag(A'1) C) / (1 + A'1)"


@exercise(ridge)
def check_ridge(answer: Callable[[Tensor, Tensor, float], Tensor]) -> Iterator[Step]:
    """``answer(V (n, columns), Y (n, C), penalty)`` gives the reading D (columns, C)."""
    V, Y = noise(8, 20).double(), torch.eye(3).double()[[0, 1, 2, 0, 1, 2, 0, 1]]
    found = values(answer(V, Y, 0.5))
    yield shape(found, 20, 3)
    weak, strong = values(answer(V, Y, 1e-6)), values(answer(V, Y, 1e6))
    change = "V D should be Y: (V V' + penalty)^-1, not its square or its inverse"
    yield close(V @ weak, Y, 1e-3), "without a penalty every labelled image is right", change
    yield strong.norm() < 1e-3 * weak.norm(), "a strong penalty leaves nothing", "add penalty times the identity"
    truth = torch.linalg.solve(V.T @ V + 0.5 * torch.eye(20).double(), V.T @ Y)
    change = "the penalty is added as it is to the diagonal of V V'"
    yield close(found, truth), "it is the ridge, solved among images", change


@exercise(left_out)
def check_left_out(answer: Callable[[Tensor, Tensor, float], Tensor]) -> Iterator[Step]:
    """``answer(V (n, columns), Y (n, C), penalty)`` gives what each image is told by the others, (n, C)."""
    V, Y = noise(8, 5).double(), torch.eye(2).double()[[0, 1, 0, 1, 0, 1, 0, 1]]
    found = values(answer(V, Y, 0.3))
    yield shape(found, 8, 2)
    change = "that is the fit, in which each image told itself"
    yield not close(found, V @ ridge(V, Y, 0.3)), "no image tells itself", change
    inverse = torch.linalg.inv(V @ V.T + 0.3 * torch.eye(8).double())
    change = "that is the error; the answer is the target minus it"
    yield not close(found, inverse @ Y / inverse.diagonal()[:, None]), "it is an answer, not an error", change
    others = [torch.arange(8) != n for n in range(8)]
    truth = torch.stack([V[n] @ ridge(V[o], Y[o], 0.3) for n, o in enumerate(others)])
    yield close(found, truth, 1e-3), "it is what eight separate fits give", "Y - (inverse Y) / its diagonal, row by row"
