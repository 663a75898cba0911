"""Ridge regression in closed form, its strength by leaving out one image after the other, its scores calibrated."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

STRENGTHS = tuple(10 ** (half / 2) for half in range(-9, 3))
"""Of the penalty, in units of the mean square of a row: 3e-5 to 10."""

SHARPNESS = tuple(2 ** (half / 2) for half in range(-2, 13))
"""By which scores are multiplied to become logits: 0.5 to 64."""


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


def fit_ridge(
    x: Float[Tensor, "V n F"],
    targets: Float[Tensor, "n C"],
    more: Float[Tensor, "m F"] | None = None,
    soft: Float[Tensor, "m C"] | None = None,
    *,
    tags: bool = False,
    strengths: Sequence[float] = STRENGTHS,
) -> Ridge:
    """Fit scores to targets of 0 and 1, and make them logits.

    With rows X and the penalty s: W = X' (X X' + s)^-1 Y, so the cost is that of the rows, however wide they are. One
    eigendecomposition serves all penalties. An image is left out exactly, in all its views at once: with the smoother
    H = X X' (X X' + s)^-1 the others predict y_S - (1 - H_SS)^-1 (y - H y)_S for its rows S (Allen's PRESS), about the
    mean of all rows, which stays: without it each image would be told against its own class.

    Args:
        x: features of n labelled images in V views, such as plain and mirrored.
        targets: their classes, one-hot, or tags.
        more: features of unlabelled images; where there are some, strength and sharpness are chosen on them.
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
    V, n, width = x.shape
    if not n:
        raise ValueError("there is no labelled image to fit a reading to")
    rows, wanted = x.reshape(V * n, width), targets.repeat(V, 1)
    others = None if more is None or soft is None or not len(more) else (more, soft)
    if others is not None:
        rows, wanted = torch.cat([rows, others[0]]), torch.cat([wanted, others[1]])
    if not rows.isfinite().all():
        raise ValueError("features that a reading is fitted to are not finite: look for NaN in them")
    rows, wanted = rows.cpu().double(), wanted.cpu().double()  # some devices know no double precision
    middle, level = rows.mean(0), wanted.mean(0)
    rows, wanted = rows - middle, wanted - level
    kernel = rows @ rows.T
    size = kernel.diagonal().mean().clamp_min(1e-12)
    # Rows about their mean add up to 0, so each is told exactly by the others, and without a penalty their targets tell
    # its target. A constant value in every row, as long as the others together, breaks that sum and changes no fit.
    kernel = kernel + size
    values, vectors = torch.linalg.eigh(kernel)
    seen = vectors.T @ wanted
    # A student has learned its labelled images by heart: those that it has not are the better judges. And where a class
    # has one image, without it nobody has seen the class, so its views leave one after the other.
    lone = not tags and bool((targets.sum(0) < 2).any())
    judges, leave, truth = slice(V * n), (1, V * n) if lone else (V, n), targets.repeat(V, 1) if lone else targets
    if others is not None:
        judges, leave, truth = slice(V * n, None), (1, len(rows) - V * n), others[1]
    truth = truth.cpu().double()

    def by_image(of_rows: Tensor) -> Tensor:
        return of_rows[judges].reshape(*leave, -1).transpose(0, 1)  # (images, views, ...), which leave together

    own, mine, eye = by_image(vectors), by_image(wanted), torch.eye(leave[0], dtype=vectors.dtype)

    def left_out(strength: float) -> Tensor:
        shrink = values.clamp_min(0) / (values.clamp_min(0) + strength * size)
        smoother = (own * shrink) @ own.transpose(1, 2)  # (images, views, views)
        apart = torch.linalg.solve((1 + 1e-9) * eye - smoother, mine - (own * shrink) @ seen)
        scores: Tensor = (mine - apart).mean(1) + level
        return scores

    errors = [float(F.mse_loss(left_out(strength), truth)) for strength in strengths]
    strength = strengths[errors.index(min(errors))]
    scores = left_out(strength) - 0.5 * tags
    losses = [misfit(factor * scores, truth, tags) for factor in SHARPNESS]
    sharpness = SHARPNESS[losses.index(min(losses))]
    weight = rows.T @ (vectors @ (seen / (values.clamp_min(0) + strength * size).unsqueeze(1)))
    bias = level - middle @ weight - 0.5 * tags
    return Ridge(
        (sharpness * weight).to(x), (sharpness * bias).to(x), strength, sharpness, (sharpness * scores).to(x)
    )  # fmt: skip


def misfit(logits: Float[Tensor, "n C"], targets: Float[Tensor, "n C"], tags: bool) -> float:
    """Mean negative log likelihood."""
    loss = F.binary_cross_entropy_with_logits if tags else F.cross_entropy
    return float(loss(logits, targets))
