"""Figures of prototypes: where they are, what they stand for, and which part of a key point they name."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from prockd.datasets import PackedImages
from prockd.evaluation.best_prototypes import prototypes_on
from prockd.evaluation.galleries import gallery_prototypes
from prockd.evaluation.patches import lies_on
from prockd.evaluation.points import PointAgreement, PointPatches
from prockd.plots import _draw as draw
from prockd.prototypes.bank import Patch, PrototypeBank, nearest_patches
from prockd.teachers.embedded import EmbeddedFeatures
from prockd.teachers.features import PatchFeatures


def plot_gallery(
    assignments: Float[Tensor, "M N K"],
    images: PackedImages,
    *,
    prototypes: Sequence[int] | None = None,
    count: int = 8,
    names: Sequence[str] | None = None,
    part_names: Sequence[str] | None = None,
    context: float = 2.0,
    full: bool = False,
    grid: tuple[int, int] | None = None,
    bank: PrototypeBank | None = None,
    features: PatchFeatures | EmbeddedFeatures | None = None,
) -> Figure:
    """One row a prototype: the patches that belong most to it, best first, one from an image, each in its box.

    The bars beside padded pictures show nothing, and are left out.

    Args:
        assignments: soft assignments of every patch.
        images: the images, in the same order.
        prototypes: which; None is where parts are known the clearest one of each part, by the one rule of all galleries
            (:func:`prockd.evaluation.galleries.gallery_prototypes`), else with ``bank`` and ``features`` the ten
            clearest of all, else the ten that most patches prefer.
        count: patches in a row.
        names: of all K prototypes.
        part_names: by part index; where the images have part masks, each row then names the part that it shows and how
            many of its strongest patches, one an image, lie on it.
        context: what is drawn around the patch on each side, in patches.
        full: draw the whole image.
        grid: rows and columns of patches.
        bank: the prototypes; with ``features`` each patch gives its distance too, 1 - cosine (0..2).
        features: of the same images.

    Raises:
        IndexError: a prototype that is not there.
        ValueError: assignments of another number of images, or ``count`` below 1.
    """
    M, _, K = assignments.shape
    grid = draw.grid_of(assignments, images, grid)
    labels = draw.names_of(names, K)
    if count < 1:
        raise ValueError(f"count={count}: at least one patch a row")
    assignments, found = draw.in_pictures(assignments, images, grid), None
    usage = draw.usage(draw.strongest(assignments), K)
    if images.parts is not None and part_names is not None:
        on = lies_on(np.asarray(images.parts), grid, len(part_names))
        found = prototypes_on(assignments, on, part_names)
    if prototypes is None and found is not None:
        prototypes = found.gallery or None  # there is none where all is background
    if prototypes is None and bank is not None and features is not None:
        prototypes = gallery_prototypes(bank, features, assignments)
    if prototypes is None:
        prototypes = [int(k) for k in np.argsort(-usage, kind="stable")[:10] if usage[k]]
    selected = draw.checked_indices(prototypes, K, "prototype")
    figure, axes = draw.panels(len(selected), min(count, M), 1.0, below=0.18)
    for row, k in zip(axes, selected, strict=True):
        label = f"{labels[k]}\n{usage[k]:,} patches"
        if found is not None:
            label += "".join(f"\n{part}" for part in found.told(k))
        row[0].set_ylabel(label, fontsize=draw.SMALL, rotation=0, ha="right", va="center", labelpad=6)
        for ax, patch in zip(row, nearest_patches(assignments, grid, k, count), strict=True):
            _show_patch(ax, images, patch, grid, None if full else context)
            text = f"{patch.score:.2f} · {draw.short_name(images.ids[patch.image])}"
            if bank is not None and features is not None:
                text += f"\ndistance {_distance(bank, features, patch, k):.2f}"
            ax.set_xlabel(text, fontsize=6, labelpad=2)
    draw.caption(
        figure,
        f"Strongest patches of {len(selected)} of {K} prototypes in {M:,} images, best first, at most one an image; "
        f"each box is one patch. Numbers: assignment, 0..1{', and distance, 1 - cosine' if bank and features else ''}."
        + ("" if found is None else f" Parts: share of the {found.top} strongest patches that lie on them."),
    )
    return figure


def plot_heatmap(
    assignments: Float[Tensor, "M N K"],
    images: PackedImages,
    image: int,
    prototype: int,
    *,
    smooth: bool = False,
    name: str | None = None,
    grid: tuple[int, int] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """How much each place of an image belongs to a prototype, 0..1: raw patches, or smoothed (bilinear) and titled so.

    Raises:
        IndexError: an image or prototype that is not there.
        ValueError: assignments of another number of images.
    """
    h, w = draw.grid_of(assignments, images, grid)
    (m,) = draw.checked_indices([image], len(images), "image")
    (k,) = draw.checked_indices([prototype], assignments.shape[2], "prototype")
    values = draw.in_pictures(assignments[m : m + 1, :, k], images.select([m]), (h, w)).reshape(h, w)
    highest = float(values.max())
    if smooth:
        values = F.interpolate(values[None, None], (images.image_px,) * 2, mode="bilinear", align_corners=False)[0, 0]
    ax = draw.own_or_new(ax, 3.8, 3.9)
    heat = draw.overlay(ax, images.pixels[m], draw.array(values), 0.0, 1.0)
    draw.colour_bar(heat, ax, "assignment", fraction=0.046, pad=0.03)
    kind = "smoothed" if smooth else f"raw, {h} × {w} patches"
    ax.set_title(f"{name or f'p{k:02d}'}: {kind}", fontsize=draw.SMALL + 1)
    draw.caption(ax, f"{draw.short_name(images.ids[m])}; highest patch {highest:.2f}")
    return ax


def plot_points(
    points: PointPatches,
    assigned: Int[np.ndarray, "M N"],
    agreement: PointAgreement,
    images: PackedImages,
    indices: Sequence[int] | np.ndarray,
    grid: tuple[int, int],
) -> Figure:
    """Images with their key points, and below them the part that each point's prototype names; wrong ones are ringed.

    Args:
        points: where the parts are.
        assigned: the strongest prototype of each patch.
        agreement: names the prototypes; see :func:`prockd.evaluation.points.point_agreement`.
        images: the images, in the same order.
        indices: images to draw, at best ones that did not name the prototypes.
        grid: rows and columns of patches.

    Raises:
        IndexError: an image that is not there.
        ValueError: none of these images has a key point.
    """
    selected = draw.checked_indices(indices, len(images), "image")
    if not np.isin(points.image, selected).any():
        raise ValueError(f"none of the images {', '.join(images.ids[m] for m in selected[:3])} has a key point")
    predicted = agreement.named[assigned[points.image, points.patch]]
    wrong = predicted != points.part
    x, y = draw.centres(points.patch, grid, images.image_px)
    figure, axes = draw.panels(2, len(selected), 1.75, below=0.1)
    right = total = 0
    for column, m in zip(axes.T, selected, strict=True):
        mine = points.image == m
        for ax, parts in zip(column, (points.part, predicted), strict=True):
            draw.bare(ax).imshow(images.pixels[m].mean(0), cmap="gray", vmin=-80, vmax=255)
            for part in range(len(points.parts)):
                at, (colour, marker) = mine & (parts == part), draw.style(part)
                ax.scatter(x[at], y[at], s=34, c=colour, marker=marker, edgecolors="white", linewidths=0.7)
        ringed = mine & wrong
        column[1].scatter(x[ringed], y[ringed], s=120, facecolors="none", edgecolors="white", linewidths=1.2)
        column[0].set_title(draw.short_name(images.ids[m]), fontsize=draw.SMALL)
        total, right = total + int(mine.sum()), right + int((mine & ~wrong).sum())
    for ax, label in zip(axes[:, 0], ("true part", "its prototype tells"), strict=True):
        ax.set_ylabel(label, fontsize=draw.SMALL)
    names = draw.names_of(points.parts, len(points.parts))
    draw.legend(figure, [draw.legend_key(part, name) for part, name in enumerate(names)])
    draw.caption(
        figure,
        f"{right} of {total} points shown are told rightly, the others are ringed; on all test images "
        f"{agreement.accuracy:.0%} are (always telling the commonest part: {agreement.chance:.0%}).",
    )
    return figure


def _show_patch(ax: Axes, images: PackedImages, patch: Patch, grid: tuple[int, int], context: float | None) -> None:
    """A patch in its box with its context, or in the whole image."""
    across, down = (slice(None),) * 2 if context is None else _window(grid, patch, images.image_px, context)
    draw.show_image(ax, images.pixels[patch.image][:, down, across])
    draw.draw_box(ax, patch.row, patch.column, grid, images.image_px, across.start or 0, down.start or 0)


@torch.no_grad()
def _distance(bank: PrototypeBank, features: PatchFeatures | EmbeddedFeatures, patch: Patch, prototype: int) -> float:
    """1 - cosine between a patch and a prototype, in the space of the prototypes."""
    bank.check(features)
    u = bank.read(features, [patch.image])[0]  # (N, E)
    here = u[patch.row * features.grid[1] + patch.column]
    return 1 - float(F.cosine_similarity(here, bank.prototypes[prototype], dim=0))


def _window(grid: tuple[int, int], patch: Patch, image_px: int, context: float) -> list[slice]:
    """Columns and rows of the pixels of a patch with its context, moved into the image."""
    window = []
    for index, cells in ((patch.column, grid[1]), (patch.row, grid[0])):
        size = image_px / cells
        side = min(image_px, round(size * (1 + 2 * context)))
        start = min(max(0, round((index - context) * size)), image_px - side)
        window.append(slice(start, start + side))
    return window
