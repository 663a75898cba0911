"""What part maps say: which patches of which prototypes speak for a class, and by how much."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure

from prockd._types import UNLABELLED
from prockd.datasets import PackedImages
from prockd.evaluation.scores import outputs
from prockd.plots import _draw as draw
from prockd.prototypes.part_maps import PartMaps
from prockd.students.student import Student

FOR, AGAINST = "#2166AC", "#B2182B"
"""The dark ends of the map's colours."""


@torch.no_grad()
def plot_evidence(
    student: Student,
    images: PackedImages,
    index: int,
    *,
    label: int | None = None,
    top: int = 4,
    names: Sequence[str] | None = None,
) -> Figure:
    """What speaks for a class in one image: the prototypes that say most, patch by patch, and the sum of all.

    Values are logits: blue speaks for the class, red against it, and the sum over patches and prototypes, with a bias,
    is z⁺.

    Args:
        student: trained, with part maps in closed form.
        images: to choose from.
        index: of the image.
        label: the class; None for the one that z⁺ tells.
        top: prototypes that are drawn.
        names: of the prototypes; None for the bank's.

    Raises:
        IndexError: an image or a class that is not there.
        ValueError: a student without part maps that were fitted.
    """
    (m,) = draw.checked_indices([index], len(images), "image")
    bank, maps = student.bank, student.feature_augmentation
    if not isinstance(maps, PartMaps) or bank is None or not maps.num_outputs or not bool(maps.fitted):
        raise ValueError(
            "this student has no fitted part maps in closed form: train it with feature_augmentation.fit = closed"
        )
    output = next(outputs(student, images.select([m])))
    told = int(output.augmented_logits[0].argmax())
    label = told if label is None else label
    evidence = maps.evidence(output.features, bank.prototypes, bank.enabled, bank.merged, output=label)[0]  # (N, K)
    said = draw.array(evidence / len(evidence)).T  # so that patches and prototypes add up
    shares = said.sum(1)
    best = np.argsort(-np.abs(shares), kind="stable")[:top]
    labels, classes = (
        draw.names_of(bank.names if names is None else names, bank.num_prototypes),
        [*map(draw.plain, student.task.names)],
    )
    pixels, values = images.pixels[m], np.stack([*said[best], said.sum(0)]).reshape(-1, *student.grid)
    figure, axes = draw.panels(1, len(values) + 1, 1.45, below=0.9)
    first, *others = axes[0]
    draw.show_image(first, pixels)
    first.set_title(classes[told], fontsize=draw.SMALL)
    totals = [*shares[best], shares.sum()]
    words = [*(labels[k] for k in best), f"all {bank.num_prototypes}"]
    # all together say many times what one does: on one scale the prototypes would be blank
    limits = [float(np.abs(values[:-1]).max()) or 1.0] * len(best) + [float(np.abs(values[-1]).max()) or 1.0]
    for ax, one, word, total, limit in zip(others, values, words, totals, limits, strict=True):
        heat = draw.overlay(ax, pixels, one, -limit, limit, mpl.colormaps["RdBu"])
        heat.set_alpha(np.clip(np.abs(one) / limit * 1.6, 0.12, 0.9))
        ax.set_title(f"{word}  {total:+.2f}", fontsize=draw.SMALL, color=FOR if total >= 0 else AGAINST)
    for above, what in ((others[:-1], f"said for {classes[label]} by one, logits"), (others[-1:], "by all")):
        draw.colour_bar(above[0].images[-1], above, what, location="bottom")
    truth = int(images.labels[m])
    known = "" if truth == UNLABELLED else f", the label {classes[truth]}"
    draw.caption(
        figure,
        f"{draw.short_name(images.ids[m])}: z⁺ tells {classes[told]}{known}. What speaks for {classes[label]} (blue) "
        f"and against it (red), patch by patch: the {len(best)} prototypes that say most, and all together. The number "
        "above a picture is the sum of its patches; that of the last one and a bias are z⁺.",
    )
    return figure
