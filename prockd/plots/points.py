"""Figures of key points: which part each one is, and which part its prototype tells."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from matplotlib.figure import Figure

from prockd.datasets import PackedImages
from prockd.evaluation.points import PointAgreement, PointPatches
from prockd.plots._draw import (
    SMALL,
    bare,
    caption,
    checked_index,
    legend_key,
    names_of,
    panels,
    short_name,
    style,
)


def plot_points(
    points: PointPatches,
    assigned: Int[np.ndarray, "M N"],
    agreement: PointAgreement,
    images: PackedImages,
    indices: Sequence[int] | np.ndarray,
    grid: tuple[int, int],
) -> Figure:
    """Images with their key points, and below them the part that each point's prototype tells; wrong ones are ringed.

    Args:
        points: where the parts are.
        assigned: the strongest prototype of each patch.
        agreement: names the prototypes; see :func:`prockd.evaluation.points.point_agreement`.
        images: the images, in the same order.
        indices: images to be shown, at best ones that did not name the prototypes.
        grid: rows and columns of patches.

    Raises:
        IndexError: an image that is not there.
        ValueError: none of these images has a key point.
    """
    chosen = [checked_index(i, len(images), "image") for i in indices]
    if not np.isin(points.image, chosen).any():
        raise ValueError(f"none of the images {', '.join(images.ids[m] for m in chosen[:3])} has a key point")
    h, w = grid
    told = agreement.named[assigned[points.image, points.patch]]
    y, x = (points.patch // w + 0.5) * images.image_px / h - 0.5, (points.patch % w + 0.5) * images.image_px / w - 0.5
    figure, axes = panels(2, len(chosen), 1.75, below=0.1)
    right = total = 0
    for column, m in enumerate(chosen):
        for row, parts in enumerate((points.part, told)):
            ax = bare(axes[row, column])
            ax.imshow(images.pixels[m].mean(0), cmap="gray", vmin=-80, vmax=255)
            for part in range(len(points.parts)):
                at = (points.image == m) & (parts == part)
                colour, marker = style(part)
                ax.scatter(x[at], y[at], s=34, c=colour, marker=marker, edgecolors="white", linewidths=0.7)
        wrong = (points.image == m) & (told != points.part)
        axes[1, column].scatter(x[wrong], y[wrong], s=120, facecolors="none", edgecolors="white", linewidths=1.2)
        axes[0, column].set_title(short_name(images.ids[m]), fontsize=SMALL)
        total += int((points.image == m).sum())
        right += int((points.image == m).sum() - wrong.sum())
    axes[0, 0].set_ylabel("true part", fontsize=SMALL)
    axes[1, 0].set_ylabel("its prototype tells", fontsize=SMALL)
    handles = [legend_key(part, name) for part, name in enumerate(names_of(points.parts, len(points.parts)))]
    figure.legend(handles=handles, loc="outside right upper", fontsize=SMALL, frameon=False)
    about = (
        f"{right} of {total} points shown are told rightly, the others are ringed; on all test images "
        f"{agreement.accuracy:.0%} are (always telling the commonest part: {agreement.chance:.0%})."
    )
    caption(figure, about)
    return figure
