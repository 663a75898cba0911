"""Whole animals in the colours of parts: what each patch's prototype stands for, beside the true parts."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer, UInt8
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from prockd.datasets import PackedImages
from prockd.evaluation.parts import part_agreement
from prockd.evaluation.patches import patch_parts
from prockd.farmyard import part_palette
from prockd.plots import _draw as draw
from prockd.plots.prototypes import plot_assignments
from prockd.plots.tables import parts_of


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
