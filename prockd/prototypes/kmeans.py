"""K-means by blocks, where the points lie, in one process or in several that hold some of the points each."""

import math

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

BLOCK = 2**14
"""Points that are compared with all centres at once."""

STARTERS, LEARNERS = 2**15, 2**17
"""Points, drawn at random, that the first centres are chosen from, and that move them; more points only end it."""

LAST_ROUNDS = 2
"""Rounds over all points where there are more than move the centres."""


@torch.no_grad()
def k_means(
    points: Float[Tensor, "P E"],
    weights: Float[Tensor, " P"],
    num_centres: int,
    *,
    seed: int,
    max_rounds: int = 100,
    tolerance: float = 1e-4,
    together: bool = False,
) -> tuple[Float[Tensor, "K E"], Int64[Tensor, " P"]]:
    """Weighted k-means: greedy k-means++ (as scikit-learn has it), then Lloyd's rounds until centres hardly move.

    Beside the points there is never more than a block of them times K. Above ``LEARNERS`` points, so many of them move
    the centres, and the last rounds are over all.

    >>> points = torch.tensor([[0.0], [0.25], [4.0], [4.25]])
    >>> centres, labels = k_means(points, torch.ones(4), 2, seed=0)
    >>> sorted(centres.flatten().tolist()), len(set(labels.tolist()))
    ([0.125, 4.125], 2)

    Args:
        points: in any floating type, on any device.
        weights: at least 0.
        num_centres: K.
        seed: of the points that are drawn; the same on all devices.
        max_rounds: at most so many.
        tolerance: squared way of all centres, in mean variances of a value, below which it ends.
        together: the points are those of this process, behind those of processes before it; all processes of
            ``torch.distributed`` get the same centres, which are those of one process but for the order of sums.

    Returns:
        Centres, and the number of the nearest of each point.
    """
    counts = torch.zeros(dist.get_world_size() if together else 1, dtype=torch.int64, device=points.device)
    rank = dist.get_rank() if together else 0
    counts[rank] = len(points)
    sizes = _summed(counts, together).tolist()
    total, before, rng = sum(sizes), sum(sizes[:rank]), np.random.default_rng(seed)

    def drawn(count: int) -> tuple[Int64[Tensor, " d"], Int64[Tensor, " d"]]:
        """Places in the sample, and rows here, of the points that are drawn and lie here."""
        numbers = np.arange(total) if total <= count else np.sort(rng.permutation(total)[:count])
        places = np.flatnonzero((numbers >= before) & (numbers < before + len(points)))
        here = (torch.from_numpy(part).to(points.device) for part in (places, numbers[places] - before))
        return next(here), next(here)

    places, rows = drawn(STARTERS)
    starters = points.new_zeros(min(total, STARTERS), points.shape[1] + 1, dtype=torch.float32)
    starters[places] = torch.cat([points[rows].float(), weights[rows, None].float()], 1)
    starters = _summed(starters, together)
    centres = _first_centres(starters[:, :-1], starters[:, -1], num_centres, rng)
    still = tolerance * float(starters[:, :-1].var(0, correction=0).mean())
    own, own_weights, rounds = points, weights, max_rounds
    if total > LEARNERS:
        _, rows = drawn(LEARNERS)
        own, own_weights = points[rows], weights[rows]
    for _ in range(rounds):
        moved = _moved(own, own_weights, centres, together)
        way, centres = float((moved - centres).square().sum()), moved
        if way <= still:
            break
    for _ in range(LAST_ROUNDS if total > LEARNERS else 0):
        centres = _moved(points, weights, centres, together)
    blocks = (_nearest(points[start : start + BLOCK], centres)[1] for start in range(0, len(points), BLOCK))
    return centres, torch.cat([points.new_zeros(0, dtype=torch.int64), *blocks])


def own_part(count: int, together: bool) -> slice:
    """The rows of so many that are this process's own: all, where it is not one of several."""
    rank, processes = (dist.get_rank(), dist.get_world_size()) if together else (0, 1)
    return slice(count * rank // processes, count * (rank + 1) // processes)


def from_all(own: Shaped[Tensor, "p *more"], count: int, together: bool) -> Shaped[Tensor, "P *more"]:
    """The rows of all processes, each of which has its :func:`own_part` of them."""
    if not together:
        return own
    whole = own.new_zeros(count, *own.shape[1:])
    whole[own_part(count, together)] = own
    return _summed(whole, together)


def _summed(values: Tensor, together: bool) -> Tensor:
    if together:
        dist.all_reduce(values)
    return values


def _nearest(block: Float[Tensor, "b E"], centres: Float[Tensor, "K E"]) -> tuple[Tensor, Int64[Tensor, " b"]]:
    """The points in full precision, and the number of the centre that is nearest to each."""
    x = block.float()
    return x, torch.addmm(-0.5 * centres.square().sum(1), x, centres.T).argmax(1)  # -|x - c|^2 / 2 and a constant


def _moved(
    points: Float[Tensor, "P E"], weights: Float[Tensor, " P"], centres: Float[Tensor, "K E"], together: bool
) -> Float[Tensor, "K E"]:
    """The means of what is nearest to each centre; a centre without points stays."""
    K, E = centres.shape
    sums, sizes = centres.new_zeros(K, E), centres.new_zeros(K)
    for start in range(0, len(points), BLOCK):
        x, labels = _nearest(points[start : start + BLOCK], centres)
        w = weights[start : start + BLOCK].to(x)
        if x.device.type == "cpu":
            sums.index_add_(0, labels, x * w[:, None])
            sizes.index_add_(0, labels, w)
        else:  # on a GPU the order of index_add_ is another one each time
            members = (labels == torch.arange(K, device=x.device)[:, None]).to(x) * w
            sums += members @ x
            sizes += members.sum(1)
    both = _summed(torch.cat([sums, sizes[:, None]], 1), together)
    sums, sizes = both[:, :-1], both[:, -1:]
    return torch.where(sizes > 0, sums / sizes.clamp_min(1e-30), centres)


def _first_centres(
    points: Float[Tensor, "S E"], weights: Float[Tensor, " S"], count: int, rng: np.random.Generator
) -> Float[Tensor, "K E"]:
    """Greedy k-means++: of some points drawn by weight and squared distance, the one that leaves the least of it."""
    trials, squares = 2 + int(math.log(count)), points.square().sum(1)

    def draw(mass: Float[Tensor, " S"], number: int) -> Int64[Tensor, " n"]:
        summed = mass.cumsum(0)
        at = torch.from_numpy(rng.random(number, np.float32)).to(points.device) * summed[-1]
        return torch.searchsorted(summed, at).clamp_max(len(points) - 1)

    def distances(chosen: Int64[Tensor, " n"]) -> Float[Tensor, "n S"]:
        return (squares - 2 * points[chosen] @ points.T + squares[chosen, None]).clamp_min(0)

    centres = [points[draw(weights, 1)]]
    nearest = (points - centres[0]).square().sum(1)
    for _ in range(count - 1):
        chosen = draw(weights * nearest, trials)
        closer = torch.minimum(nearest, distances(chosen))
        best = int((closer @ weights).argmin())
        centres.append(points[chosen[best : best + 1]])
        nearest = closer[best]
    return torch.cat(centres)
