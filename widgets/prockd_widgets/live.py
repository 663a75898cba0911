"""Live curves: what is drawn while a try is trained, and over the tries that were chosen."""

from collections.abc import Mapping

import numpy as np
from matplotlib.ticker import PercentFormatter

from prockd.datasets import PackedImages
from prockd.evaluation.scores import evaluate
from prockd.plots import plot_curves
from prockd.prototypes.part_maps import PartMaps
from prockd.students.student import Student
from prockd.training.batches import Source
from prockd.training.loop import History
from prockd.training.readings import fit_part_maps
from prockd_widgets.look import picture, png, waiting

SCORES = ("z", "z⁺")
"""Keys of a history's rows that hold the validation score."""
EVERY_TERM = "every term of the loss"
_NOT_TERMS = ("step", "lr", "seconds", "loss", *SCORES)


def watched(images: PackedImages, count: int = 200) -> PackedImages:
    """The images that are scored while a try is trained: every so many of them, at most ``count``."""
    if len(images) <= count:
        return images
    return images.select(np.linspace(0, len(images) - 1, count).astype(int))


def score(student: Student, images: PackedImages, labelled: PackedImages) -> dict[str, float]:
    """The score of both predictions, as a part of a history's row.

    Part maps in closed form are fitted to the finished student: until then to what it is now, and to the labels alone.
    No training step reads them.
    """
    maps = student.feature_augmentation
    if isinstance(maps, PartMaps) and maps.num_outputs:
        fit_part_maps(student, Source(watched(labelled, 300), task=student.task, flip=False))
    scores = evaluate(student, images)
    return {"z": scores.plain} | ({} if scores.augmented is None else {"z⁺": scores.augmented})


def terms_of(histories: Mapping[str, History]) -> list[str]:
    """The terms of the loss in any of these histories, in the order in which they appear."""
    there = (key for history in histories.values() for row in history.rows[:1] + history.rows[-1:] for key in row)
    return [term for term in dict.fromkeys(there) if term not in _NOT_TERMS and not term.endswith("_weight")]


def curves(
    histories: Mapping[str, History],
    metric: str,
    term: str = EVERY_TERM,
    *,
    size: tuple[float, float] = (5.6, 4.6),
    dpi: int = 120,
) -> bytes:
    """A PNG of the loss, and below it of the validation score: every run in each, one term or all of them."""
    terms = terms_of(histories) if term == EVERY_TERM else [term]
    if not set(terms) & set(terms_of(histories)):
        return waiting("curves appear here" if not any(h.rows for h in histories.values()) else f"no {term} to draw")
    scored = any(key in row for h in histories.values() for row in h.rows for key in SCORES)
    figure = picture(*size, dpi)
    axes = figure.subplots(1 + scored, 1, height_ratios=[3, 2][: 1 + scored], squeeze=False)[:, 0]
    plot_curves(histories, terms, ax=axes[0])
    if scored:
        plot_curves(histories, SCORES, ax=axes[1])
        axes[1].set(yscale="linear", ylabel=f"{metric} on\nvalidation images", xlim=axes[0].get_xlim())
        axes[1].yaxis.set_major_formatter(PercentFormatter(1))
        axes[0].set_xlabel("")
    return png(figure)
