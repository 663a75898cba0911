"""Whole images in colours: the prototype of each patch, and the part that it stands for beside the true parts."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Integer, UInt8
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from prockd.datasets import PackedImages
from prockd.evaluation.parts import part_agreement
from prockd.evaluation.patches import patch_parts
from prockd.farmyard import part_palette
from prockd.plots import _draw as draw
from prockd.plots.tables import parts_of


def plot_assignments(
    assignments: Float[Tensor, "M N K"],
    images: PackedImages,
    indices: Sequence[int] | np.ndarray,
    *,
    names: Sequence[str] | None = None,
    top: int = 12,
    grid: tuple[int, int] | None = None,
    alpha: float = 0.65,
) -> Figure:
    """Images, and below each the strongest prototype of its patches; the ``top`` commonest are coloured and named.

    The bars beside padded pictures stay grey; ``alpha`` is how much of the picture the colours cover, 0..1.

    Raises:
        IndexError: an image that is not there.
        ValueError: assignments of another number of images.
    """
    h, w = draw.grid_of(assignments, images, grid)
    labels = draw.names_of(names, assignments.shape[2])
    selected = draw.checked_indices(indices, len(images), "image")
    some, shown = images.select(selected), assignments[torch.tensor(selected)]
    assigned = draw.strongest(draw.in_pictures(shown, some, (h, w)))  # (n, N)
    usage = draw.usage(assigned, len(labels))
    common = [int(k) for k in np.argsort(-usage, kind="stable")[:top] if usage[k]]
    rank = np.full(len(labels) + 1, -1)  # and of -1: no prototype
    rank[common] = np.arange(len(common))
    styles = list(map(draw.style, range(len(common))))
    tints = ListedColormap([to_rgba(colour, alpha) for colour, _ in styles])
    figure, axes = draw.panels(2, len(selected), 1.7)
    x, y = draw.centres(np.arange(h * w), (h, w), images.image_px)
    dot = 6.0 * min(1.0, 12 / max(h, w)) ** 2  # in fine grids too the picture is seen between the markers
    for (above, below), m, ranks in zip(axes.T, selected, rank[assigned], strict=True):
        draw.show_image(above, images.pixels[m])
        coloured = np.ma.masked_less(ranks.reshape(h, w), 0)
        draw.overlay(below, images.pixels[m], coloured, -0.5, len(common) - 0.5, tints)
        for r, (_, marker) in enumerate(styles):
            at = ranks == r
            below.scatter(x[at], y[at], s=dot, c="white", marker=marker, edgecolors="black", linewidths=0.4)
    draw.legend(figure, [draw.legend_key(r, f"{labels[k]} ({usage[k]:,})") for r, k in enumerate(common)])
    left = int((usage > 0).sum()) - len(common)
    rest = f"; {left} rarer ones are left grey" if left else ""
    draw.caption(figure, f"Strongest prototype of each of {h} × {w} patches; {len(common)} are coloured{rest}.")
    return figure


def plot_part_maps(
    assignments: Float[Tensor, "M N K"],
    images: PackedImages,
    indices: Sequence[int] | np.ndarray,
    *,
    part_names: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    grid: tuple[int, int] | None = None,
    alpha: float = 0.6,
) -> Figure:
    """Images, below each the part that every patch's strongest prototype stands for, and below that the true parts.

    A prototype stands for the commonest part of all patches that prefer it in all images, as in
    :func:`plot_part_table`: colours that are right are purity to look at. What stands for background, and the bars
    beside padded pictures, stay grey. Where no parts are known the colours are prototypes: :func:`plot_assignments`.

    Args:
        assignments: soft assignments of every patch; a disabled prototype has none.
        images: the images, in the same order.
        indices: which of them to draw.
        part_names: by part index, background first; of images with part masks.
        names: of all K prototypes, where no parts are known.
        grid: rows and columns of patches.
        alpha: how much of the picture the colours cover, 0..1.

    Raises:
        IndexError: an image that is not there.
        ValueError: assignments of another number of images, or masks with a part that has no name.
    """
    if images.parts is None or part_names is None:
        return plot_assignments(assignments, images, indices, names=names, grid=grid, alpha=alpha)
    grid, P = draw.grid_of(assignments, images, grid), len(part_names)
    selected = draw.checked_indices(indices, len(images), "image")
    assigned = draw.strongest(draw.in_pictures(assignments, images, grid))  # (M, N), -1 in the bars
    true, K, inside = patch_parts(np.asarray(images.parts), grid, P), assignments.shape[2], assigned >= 0
    table = part_agreement(assigned[inside][None], true[inside][None], K, P).table
    told = np.append(parts_of(table), 0)[assigned]  # (M, N)
    figure, axes = draw.panels(3, len(selected), 1.7)
    for (picture, middle, lower), m in zip(axes.T, selected, strict=True):
        draw.show_image(picture, images.pixels[m])
        _paint(middle, images.pixels[m], told[m].reshape(grid), alpha)
        _paint(lower, images.pixels[m], np.asarray(images.parts[m]), alpha)
    for ax, label in zip(axes[:, 0], ("image", "part of its\nprototype", "true part"), strict=True):
        ax.set_ylabel(label, fontsize=draw.SMALL)
    texts = draw.names_of(part_names, P)
    draw.legend(figure, [Patch(color=_colour(p), label=texts[p]) for p in range(1, P)])
    told, true = told[selected][inside[selected]], true[selected][inside[selected]]
    front, right = true > 0, told == true
    draw.caption(
        figure,
        f"Each of {grid[0]} × {grid[1]} patches has the colour of the part that most patches of its prototype lie on; "
        f"grey is background. Right are {right[front].sum():,} of {front.sum():,} patches on these animals and "
        f"{right[~front].sum():,} of {(~front).sum():,} beside them.",
    )
    return figure


def _paint(ax: Axes, pixels: UInt8[np.ndarray, "3 S S"], parts: Integer[np.ndarray, "h w"], alpha: float) -> None:
    """Parts in colours over the greyed picture, background left out."""
    palette = ListedColormap([(*_colour(p), alpha) for p in range(1, max(2, int(parts.max()) + 1))])
    draw.overlay(ax, pixels, np.ma.masked_equal(parts, 0), 0.5, palette.N + 0.5, palette)


def _colour(part: int) -> tuple[float, float, float]:
    """The colour of a part, as in :func:`prockd.farmyard.overlay_parts`; those beyond eight begin anew."""
    red, green, blue = part_palette[1 + (part - 1) % (len(part_palette) - 1)]
    return red / 255, green / 255, blue / 255
