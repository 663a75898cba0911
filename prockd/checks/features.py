"""Exercises of notebook 01: what the teacher sees."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from prockd.checks.verdict import Step, close, exercise, integers, noise, shape, values


def cosine_map(patches: Tensor, n: int) -> Tensor:
    """Cosine of patch n to every patch (N, D) of an image."""
    unit = F.normalize(patches, dim=-1)
    return torch.mv(unit, unit[n])


def three_directions(patches: Tensor) -> Tensor:
    """The patches (N, D) along the three directions in which they differ most, (N, 3)."""
    centred = patches - patches.mean(0)
    found: Tensor = centred @ torch.linalg.svd(centred, full_matrices=False).Vh[:3].T
    return found


def chance(part: np.ndarray) -> float:
    """How often two patches drawn at random have the same part."""
    return float(((np.bincount(part) / len(part)) ** 2).sum())


def place_answer(parts: np.ndarray) -> np.ndarray:
    """The commonest part (N,) of each place in images (M, N), but for the background 0: what place alone answers."""
    return np.array([np.bincount(column[column > 0], minlength=1).argmax() for column in parts.T])


@exercise(cosine_map)
def check_cosine_map(answer: Callable[[Tensor, int], Tensor]) -> Iterator[Step]:
    """``answer(patches (N, D), n)`` gives the cosine of patch n to all N."""
    patches, n = noise(7, 5) * torch.arange(1, 8)[:, None], 2
    found = values(answer(patches, n))
    yield shape(found, 7)
    yield close(answer(patches * 3, n), found), "longer vectors change nothing", "divide each patch by its own length"
    yield close(found.max(), 1), "no patch is more alike than 1", "normalise along the last axis, dim=-1"
    yield close(found[n], 1), "patch n is the one most like itself", "is it patch n that the others meet?"
    yield close(found, cosine_map(patches, n)), "all cosines are right", "products of unit vectors"


@exercise(three_directions)
def check_three_directions(answer: Callable[[Tensor], Tensor]) -> Iterator[Step]:
    """``answer(patches (N, D))`` gives the first three principal components (N, 3)."""
    patches = noise(40, 6) * torch.tensor([0.3, 5.0, 0.5, 3.0, 0.1, 2.0])
    found = values(answer(patches))
    yield shape(found, 40, 3)
    moved = values(answer(patches + 100))
    change = "take the mean of all patches away first"
    yield close(found.var(0), moved.var(0), 1e-2), "a constant added to all patches changes nothing", change
    truth, spread = values(three_directions(patches)), found.var(0)
    change = "rotate to principal directions (SVD); features as they come are not"
    yield close(torch.corrcoef(found.T), torch.eye(3), 1e-3), "the three values are uncorrelated", change
    change = "keep the first three directions; the largest singular value comes first"
    yield close(spread, truth.var(0), 1e-2), "they are the ones that differ most, in order", change


@exercise(chance)
def check_chance(answer: Callable[[np.ndarray], float]) -> Iterator[Step]:
    """``answer(part (n,))`` gives the probability that two random patches share their part."""
    part = np.array([1] * 6 + [2] * 3 + [5])
    found = answer(part)
    yield shape(found)
    yield close(answer(part[::-1].copy()), found), "the order of patches does not matter", "use counts only"
    change = "parts are not equally common: square each one's share"
    yield not close(found, 1 / 3), "common parts count more than rare ones", change
    change = "that is the commonest part's share, what one name for all would get; here both are drawn"
    yield not close(found, 0.6), "both patches are drawn at random", change
    yield close(found, 0.46), "shares .6, .3 and .1 give .46", "add the squares of the shares"


@exercise(place_answer)
def check_place_answer(answer: Callable[[np.ndarray], np.ndarray]) -> Iterator[Step]:
    """``answer(parts (M, N))`` gives the commonest part of each of N places, 0 where no animal ever was."""
    parts = integers(0, 3, 9, 5)
    parts[:5, 0], parts[5:, 0], parts[:7, 1], parts[7:, 1], parts[:, 2] = 1, 7, 0, 2, 0
    found = answer(parts)
    yield shape(found, 5)
    change = "parts are names: count them, a mean of names is none"
    yield bool(np.isin(values(found).numpy(), parts).all()), "each answer is one of the parts", change
    yield close(found[0], 1), "the part that is there most often wins", "count with np.bincount, then argmax"
    yield close(found[1], 2), "the background is no answer", "count parts above 0 only"
    yield close(found[2], 0), "where no animal was, it is 0", "an empty count: np.bincount(..., minlength=1)"
    yield close(found, place_answer(parts)), "it is right at every place", "count along the images, place by place"
