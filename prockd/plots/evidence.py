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

    Values are logits of z⁺ times the number of patches; blue speaks for the class, red against it, and the mean over
    patches and prototypes, with a bias, is z⁺.

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
    shares = draw.array(evidence.mean(0))
    best = np.argsort(-np.abs(shares), kind="stable")[:top]
    labels, classes = draw.names_of(bank.names if names is None else names, bank.num_prototypes), student.task.names
    single, whole = draw.array(evidence.T)[best], draw.array(evidence.sum(1))
    pixels = images.pixels[m]
    figure, axes = draw.panels(1, len(best) + 2, 1.45, below=0.75)
    first, *middle, last = axes[0]
    draw.show_image(first, pixels)
    colours = mpl.colormaps["RdBu"]
    for group, values in ((middle, single), ([last], whole[None])):
        limit = float(np.abs(values).max()) or 1.0
        for ax, one in zip(group, values, strict=True):
            heat = draw.overlay(ax, pixels, one.reshape(student.grid), -limit, limit, colours)
            ax.images[-1].set_alpha(np.clip(np.abs(one.reshape(student.grid)) / limit * 1.6, 0.12, 0.9))
        bar = {"location": "bottom", "shrink": 0.5 if len(group) > 1 else 0.9, "aspect": 40 if len(group) > 1 else 15}
        draw.colour_bar(heat, [first, *group] if group is middle else last, "evidence, logits", **bar)
    titles = ("image", *(f"{labels[k]}  {shares[k]:+.2f}" for k in best), f"all {bank.num_prototypes}")
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title, fontsize=draw.SMALL)
    truth = int(images.labels[m])
    known = "" if truth == UNLABELLED else f", it is a {classes[truth]}"
    draw.caption(
        figure,
        f"{draw.short_name(images.ids[m])}: z⁺ tells {classes[told]}{known}. What speaks for {classes[label]} (blue) "
        f"and against it (red): the {len(best)} prototypes that say most, with their share of the logit, and all of "
        f"them; the shares of all add up to {shares.sum():+.2f}.",
    )
    return figure
