"""Tables in colour: prototypes by parts, classes by prototypes, teacher by student, true by predicted classes."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

from prockd.evaluation.parts import PartAgreement
from prockd.evaluation.scores import Scores
from prockd.plots import _draw as draw


def plot_part_table(
    agreement: PartAgreement, part_names: Sequence[str], names: Sequence[str] | None = None, *, ax: Axes | None = None
) -> Axes:
    """Prototypes by parts: which share of a prototype's patches lies on each part, rows by part, then purity.

    A prototype's part is the commonest on the animals where more than a quarter of its patches lie, else background.

    Raises:
        ValueError: names that do not fit the table.
    """
    table = agreement.table
    K, P = table.shape
    labels = draw.names_of(names, K)
    if len(part_names) != P:
        raise ValueError(f"{len(part_names)} part names for a table of {P} parts")
    counts, parts = table.sum(1), parts_of(table)
    shares = table / np.maximum(counts, 1)[:, None]
    purity = shares[np.arange(K), parts]
    order = [int(k) for k in np.lexsort((-purity, (parts - 1) % P)) if counts[k]]  # background last
    ax = draw.own_or_new(ax, 7.2, 1.6 + 0.19 * len(order))
    rows = [labels[k] for k in order]
    draw.heat_table(ax, shares[order], rows, part_names, "share of the prototype's patches", above=0, pad=0.1, vmax=1)
    for y, k in enumerate(order):
        colour = "black" if purity[k] > 0.55 else "white"
        ax.text(parts[k], y, f"{purity[k]:.0%}", ha="center", va="center", fontsize=6.5, color=colour)
        ax.text(P - 0.4, y, f"{counts[k]:,}", va="center", fontsize=6.5)
    dead = f" {K - len(order)} prototypes without a patch are left out." if len(order) < K else ""
    draw.caption(
        ax,
        f"{counts.sum():,} patches, numbers at the side; prototypes with at most a quarter on animals come last. "
        f"On the animals purity is {agreement.purity:.2f} and NMI {agreement.nmi:.2f}; the commonest part alone "
        f"would be {agreement.majority:.2f}.{dead}",
    )
    return ax


def plot_usage(
    assignments: Float[Tensor, "M N K"],
    labels: Sequence[int] | np.ndarray | Tensor,
    classes: Sequence[str],
    *,
    names: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Classes by prototypes: which share of a class's patches prefers each prototype, the most used first.

    Images without a label are left out.

    Raises:
        ValueError: not one label an image.
    """
    M, _, K = assignments.shape
    labels = draw.array(labels)
    if len(labels) != M:
        raise ValueError(f"{len(labels)} labels for the assignments of {M} images")
    assigned = draw.strongest(assignments)
    counts = np.stack([np.bincount(assigned[labels == c].ravel(), minlength=K) for c in range(len(classes))])
    order = np.argsort(-counts.sum(0), kind="stable")
    shares = (counts / np.maximum(counts.sum(1, keepdims=True), 1))[:, order]
    ax = draw.own_or_new(ax, 8.0, 1.7 + 0.24 * len(classes))
    columns = np.array(draw.names_of(names, K))[order].tolist()
    draw.heat_table(ax, shares, classes, columns, "share of the class's patches", pad=0.02)
    total = f"{counts.sum():,}"
    draw.caption(ax, f"Strongest prototype of {total} patches; a column that lights up in one row tells that class.")
    return ax


def plot_agreement(
    teacher_assignments: Float[Tensor, "M N K"],
    student_assignments: Float[Tensor, "M N K"],
    *,
    names: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Does the student see the teacher's prototype in the same patch? Rows teacher, columns student, diagonal agrees.

    Both are assignments of the same patches: resize the map of one to the grid of the other first.
    """
    teacher, student = (draw.strongest(a).ravel() for a in (teacher_assignments, student_assignments))
    labels = draw.names_of(names, teacher_assignments.shape[2])
    ax, table = _pairs(teacher, student, labels, ("teacher's", "student's strongest prototype"), ax)
    same, total = int(np.trace(table)), len(teacher)
    ax.set_title(f"{same:,} of {total:,} patches agree ({same / max(1, total):.0%})", fontsize=draw.SMALL + 2)
    chance = float((table.sum(0) * table.sum(1)).sum() / max(1, total) ** 2)
    draw.caption(ax, f"Each row sums to 100 %. Chance would be {chance:.0%} with the same usage.")
    return ax


def plot_confusion(scores: Scores, classes: Sequence[str], *, augmented: bool = False, ax: Axes | None = None) -> Axes:
    """True classes by predicted classes of z, or of z+ when ``augmented``; rows sum to 100 %.

    Raises:
        ValueError: ``augmented`` scores of a student without augmentation.
    """
    predictions = scores.augmented_predictions if augmented else scores.predictions
    if predictions is None:
        raise ValueError("this student has no augmented prediction: it was built without a bank or augmentation")
    ax, table = _pairs(scores.labels, predictions, classes, ("true", "predicted"), ax)
    right, total = int(np.trace(table)), len(predictions)
    kind = "augmented prediction z⁺" if augmented else "plain prediction z"
    ax.set_title(f"{kind}: {right:,} of {total:,} right ({right / total:.1%})", fontsize=draw.SMALL + 2)
    draw.caption(ax, "Share of each true class, in percent; the diagonal is right.")
    return ax


def _pairs(
    rows: np.ndarray, columns: np.ndarray, names: Sequence[str], axes: tuple[str, str], ax: Axes | None
) -> tuple[Axes, Float[np.ndarray, "K K"]]:
    """Draw counts of pairs as shares of the rows, with percents where they can be read; returns the counts too."""
    K = len(names)
    table = np.zeros((K, K))
    np.add.at(table, (rows, columns), 1)
    shares = table / np.maximum(table.sum(1, keepdims=True), 1)
    side = float(np.clip(0.36 * K, 3.2, 5.6))
    ax = draw.own_or_new(ax, side + 1.6, side + 1.5)
    draw.heat_table(ax, shares, names, names, "share of the row", every=-(-K // 24), vmax=1, aspect="equal")
    for i, j in np.argwhere(shares >= 0.005) if K <= 12 else ():
        colour = "black" if shares[i, j] > 0.55 else "white"
        ax.text(j, i, f"{100 * shares[i, j]:.0f}", ha="center", va="center", fontsize=6.5, color=colour)
    ax.set_ylabel(axes[0], fontsize=draw.SMALL)
    ax.set_xlabel(axes[1], fontsize=draw.SMALL)
    return ax, table


def parts_of(table: np.ndarray) -> np.ndarray:
    """Each prototype's part: the commonest where more than a quarter of its patches lie on animals, else background."""
    front = table[:, 1:]
    return np.where(4 * front.sum(1) > table.sum(1), front.argmax(1) + 1, 0)
