"""Ridge regression in closed form, its strength by leaving out one image after the other, its scores calibrated."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

STRENGTHS = tuple(10 ** (half / 2) for half in range(-9, 3))
"""Of the penalty, in units of the mean square of a row: 3e-5 to 10."""

SHARPNESS = tuple(2 ** (half / 2) for half in range(-2, 13))
"""By which scores are multiplied to become logits: 0.5 to 64."""

MOST_JUDGES = 2000
"""Labelled images by which a penalty is chosen, at most; all are fitted to."""


@dataclass(frozen=True, eq=False)
class Ridge:
    """A linear reading of features whose scores are calibrated logits.

    Attributes:
        weight: (F, C).
        bias: (C,).
        strength: of the penalty, the one of ``STRENGTHS`` that tells left-out images best.
        sharpness: the factor that was found for their probabilities; weight and bias hold it already.
        held_out: logits of the images that chose strength and sharpness, each by the reading without it.
    """

    weight: Float[Tensor, "F C"]
    bias: Float[Tensor, " C"]
    strength: float
    sharpness: float
    held_out: Float[Tensor, "judges C"]

    def __call__(self, x: Float[Tensor, "M F"]) -> Float[Tensor, "M C"]:
        """Logits."""
        return x @ self.weight + self.bias


Smoother = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Of a penalty (V, j, R) A and (R, C) B: of the rows that judge, A A' is their part of H, and A B of H y."""

Form = tuple[Tensor, Tensor, Tensor, Smoother, Callable[[Tensor], Tensor]]
"""Mean of all rows (x, 1, y), mean square of x about it, y of those that judge; smoother and weight by the penalty."""

Given = Iterable[tuple[Float[Tensor, "V b W"], slice | None]]
"""Rows about nearly their mean, so that sums of squares lose no digits, and which of them judge."""


def joined(
    pieces: Iterable[Float[Tensor, "V b F"]], targets: Float[Tensor, "n C"], others: Sequence[tuple[Tensor, Tensor]],
    middle: Float[Tensor, " W"],
) -> Given:  # fmt: skip
    """(x, 1, y) of labelled images, of which some that lie evenly judge, and then of others, which all do.

    Rows about their mean add up to 0, so each is told exactly by the others, and without a penalty their targets tell
    its target. A constant value in every row, as long as the others together, breaks that sum and changes no fit: the 1
    becomes it once that length is known.
    """

    def rows(x: Tensor, y: Tensor) -> Tensor:
        if not x.isfinite().all():
            raise ValueError("features that a reading is fitted to are not finite: look for NaN in them")
        x, y = x.cpu().double(), y.cpu().double()  # some devices know no double precision
        return torch.cat([x, torch.ones_like(x[..., :1]), y.expand(len(x), -1, -1)], 2) - middle

    start, apart = 0, -(-len(targets) // MOST_JUDGES)
    for piece in pieces:
        few = targets[start : start + piece.shape[1]]
        # A student has learned its labelled images by heart: those that it has not are the better judges.
        yield rows(piece, few), None if others else slice(-start % apart, None, apart)
        start += len(few)
    yield from ((rows(*pair), slice(None)) for pair in others)


def of_rows(given: Given, width: int) -> Form:
    """X X' = U diag(values) U': one decomposition serves all penalties, and its cost is that of the rows."""
    kept, judges, count = list[Tensor](), list[Tensor](), 0
    for some, judging in given:
        kept.append(some.flatten(0, 1))
        if judging is not None:
            judges.append(torch.arange(count, count + len(kept[-1])).view(some.shape[:2])[:, judging])
        count += len(kept[-1])
    rows, who = torch.cat(kept), torch.cat(judges, 1)
    rows -= (mean := rows.mean(0))
    rows[:, width] = (size := rows[:, :width].square().sum(1).mean().clamp_min(1e-12)).sqrt()
    x, y = rows[:, : width + 1], rows[:, width + 1 :]
    values, vectors = torch.linalg.eigh(x @ x.T)
    values, seen, own = values.clamp_min(0), vectors.T @ y, vectors[who]

    def smoother(penalty: Tensor) -> tuple[Tensor, Tensor]:
        share = (values / (values + penalty)).sqrt()
        return own * share, share.unsqueeze(1) * seen

    return mean, size, y[who], smoother, lambda p: x.T @ (vectors @ (seen / (values + p).unsqueeze(1)))


def of_sums(given: Given, width: int) -> Form:
    """X' X and X' y alone, and the rows that judge: of any number of rows, and its cost is that of the columns."""
    judges, sums, count = list[Tensor](), torch.empty(0), 0
    for some, judging in given:
        rows = some.flatten(0, 1)
        sums = sums if count else rows.new_zeros(rows.shape[1], rows.shape[1])
        sums.addmm_(rows.T, rows)
        count += len(rows)
        if judging is not None:
            judges.append(some[:, judging].clone())
    sums.addr_(mean := sums[width] / count, mean, alpha=-count)
    size = (sums.diagonal()[:width].sum() / count).clamp_min(1e-12)
    sums[width, width], own = count * size, torch.cat(judges, 1) - mean
    own[..., width] = size.sqrt()
    squares, products = sums[: width + 1, : width + 1], sums[: width + 1, width + 1 :]

    def factor(penalty: Tensor) -> Tensor:
        whole = squares.clone(memory_format=torch.contiguous_format).mT
        whole.diagonal().add_(penalty)
        torch.linalg.cholesky(whole, out=whole)  # it may be a gigabyte
        return whole

    def smoother(penalty: Tensor) -> tuple[Tensor, Tensor]:
        solve = partial(torch.linalg.solve_triangular, factor(penalty), upper=False)
        return solve(own[..., : width + 1].flatten(0, 1).T).T.view(*own.shape[:2], -1), solve(products)

    return mean, size, own[..., width + 1 :], smoother, lambda p: torch.cholesky_solve(products, factor(p))


def fit_ridge(
    x: Float[Tensor, "V n F"] | Iterable[Float[Tensor, "V b F"]],
    targets: Float[Tensor, "n C"],
    more: Float[Tensor, "m F"] | None = None,
    soft: Float[Tensor, "m C"] | None = None,
    *,
    tags: bool = False,
    strengths: Sequence[float] = STRENGTHS,
) -> Ridge:
    """Fit scores to targets of 0 and 1, and make them logits.

    With rows X and the penalty s: W = X' (X X' + s)^-1 Y, or (X' X + s)^-1 X' Y where rows outnumber columns, so that
    neither many nor wide rows cost much. An image is left out exactly, in all its views at once: with the smoother
    H = X X' (X X' + s)^-1 the others predict y_S - (1 - H_SS)^-1 (y - H y)_S for its rows S (Allen's PRESS), about the
    mean of all rows, which stays: without it each image would be told against its own class.

    Args:
        x: features of n labelled images in V views, such as plain and mirrored; or a few images of them at a time.
        targets: their classes, one-hot, or tags.
        more: features of unlabelled images; where there are some, strength and sharpness are chosen on them, else on
            labelled ones, at most 2,000 that lie evenly among all.
        soft: what somebody thinks of those, 0..1.
        tags: each class is a yes or no of its own, a sigmoid; else one class is right, a softmax.
        strengths: penalties to choose from.

    Raises:
        ValueError: no image, or features that are not finite.

    >>> x = torch.eye(4)[None]  # four images, one view
    >>> reading = fit_ridge(x, torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]))
    >>> reading(x[0]).argmax(1).tolist()
    [0, 0, 1, 1]
    """
    if not (n := len(targets)):
        raise ValueError("there is no labelled image to fit a reading to")
    pieces = iter((x,) if isinstance(x, Tensor) else x)
    first = next(pieces)
    V, _, width = first.shape
    others = [] if more is None or soft is None or not len(more) else [(more[None], soft)]
    middle = torch.zeros(width + 1 + targets.shape[1], dtype=torch.double)
    middle[:width] = first.cpu().mean((0, 1))
    given = joined(chain((first,), pieces), targets, others, middle)
    form = of_sums if V * n + sum(len(s) for _, s in others) > width else of_rows
    mean, size, told, smoother, weigh = form(given, width)
    mean += middle
    level = mean[width + 1 :]
    # And where a class has one image, without it nobody has seen the class, so its views leave one after the other.
    views = 1 if not tags and not others and bool((targets.sum(0) < 2).any()) else len(told)

    def by_image(values: Tensor) -> Tensor:  # views of an image leave together
        return values.reshape(views, -1, values.shape[2]).transpose(0, 1)  # (images, views, ...)

    told, eye = by_image(told), torch.eye(views, dtype=level.dtype)
    truth = told[:, 0] + level

    def left_out(strength: float) -> Tensor:
        a, b = smoother(strength * size)
        a = by_image(a)
        wrong = torch.linalg.solve((1 + 1e-9) * eye - a @ a.transpose(1, 2), told - a @ b)
        scores: Tensor = (told - wrong).mean(1) + level
        return scores

    found = [left_out(strength) for strength in strengths]
    errors = [float(F.mse_loss(scores, truth)) for scores in found]
    best = errors.index(min(errors))
    strength, scores = strengths[best], found[best] - 0.5 * tags
    losses = [misfit(factor * scores, truth, tags) for factor in SHARPNESS]
    sharpness = SHARPNESS[losses.index(min(losses))]
    weight = weigh(strength * size)[:width]
    bias = level - mean[:width] @ weight - 0.5 * tags
    return Ridge(
        (sharpness * weight).to(first), (sharpness * bias).to(first), strength, sharpness,
        (sharpness * scores).to(first),
    )  # fmt: skip


def misfit(logits: Float[Tensor, "n C"], targets: Float[Tensor, "n C"], tags: bool) -> float:
    """Mean negative log likelihood."""
    loss = F.binary_cross_entropy_with_logits if tags else F.cross_entropy
    return float(loss(logits, targets))
