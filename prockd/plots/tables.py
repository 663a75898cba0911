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
    counts = table.sum(1)
    shares = table / np.maximum(counts, 1)[:, None]
    parts = parts_of(table)
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
    sentence = f"Strongest prototype of {counts.sum():,} patches; a column that lights up in one row tells that class."
    draw.caption(ax, sentence)
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
    K = teacher_assignments.shape[2]
    table = np.zeros((K, K))
    teacher, student = (draw.strongest(a).ravel() for a in (teacher_assignments, student_assignments))
    np.add.at(table, (teacher, student), 1)
    same = int(np.trace(table))
    ax = draw.share_table(table, draw.names_of(names, K), "student's strongest prototype", "teacher's", ax)
    title = f"{same:,} of {len(teacher):,} patches agree ({same / max(1, len(teacher)):.0%})"
    ax.set_title(title, fontsize=draw.SMALL + 2)
    chance = float((table.sum(0) * table.sum(1)).sum() / max(1.0, table.sum()) ** 2)
    draw.caption(ax, f"Each row sums to 100 %. Chance would be {chance:.0%} with the same usage.")
    return ax


def plot_confusion(scores: Scores, classes: Sequence[str], *, augmented: bool = False, ax: Axes | None = None) -> Axes:
    """True classes by predicted classes of z, or of z+ when ``augmented``; rows sum to 100 %.

    Raises:
        ValueError: ``augmented`` scores of a student without augmentation.

    >>> scores = Scores(0.75, None, np.array([0, 1, 1, 1]), None, np.array([0, 0, 1, 1]))
    >>> plot_confusion(scores, ("cow", "pig")).get_title()
    'plain prediction z: 3 of 4 right (75.0%)'
    """
    predictions = scores.augmented_predictions if augmented else scores.predictions
    if predictions is None:
        raise ValueError("this student has no augmented prediction: it was built without a bank or augmentation")
    table = np.zeros((len(classes), len(classes)))
    np.add.at(table, (scores.labels, predictions), 1)
    ax = draw.share_table(table, list(classes), "predicted", "true", ax)
    right, total = int((predictions == scores.labels).sum()), len(predictions)
    kind = "augmented prediction z⁺" if augmented else "plain prediction z"
    ax.set_title(f"{kind}: {right:,} of {total:,} right ({right / total:.1%})", fontsize=draw.SMALL + 2)
    draw.caption(ax, "Share of each true class, in percent; the diagonal is right.")
    return ax


def parts_of(table: np.ndarray) -> np.ndarray:
    """Each prototype's part: the commonest where more than a quarter of its patches lie on animals, else background."""
    front = table[:, 1:]
    return np.where(4 * front.sum(1) > table.sum(1), front.argmax(1) + 1, 0)
