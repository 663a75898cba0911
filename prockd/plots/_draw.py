"""What all figures share: colours, captions, pictures with maps over them, and checks of what was asked for."""

import io
import textwrap
from collections.abc import Sequence
from math import isqrt
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from prockd.datasets import PackedImages

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
"""Okabe and Ito's colours, told apart by colour-blind people too."""
MARKERS = "osD^vPX*"
OTHER = "#C4C9CE"
SMALL = 8.0
"""Size of captions and labels in points."""
_CHARACTERS_PER_INCH = 17
HEAT = LinearSegmentedColormap.from_list(
    "prockd", [(1.0, 0.85, 0.2, 0.0), (1.0, 0.55, 0.0, 0.65), (0.9, 0.05, 0.3, 0.95)]
)
"""From nothing over yellow to red: what is low leaves the grey image below as it is."""


class Panels(Figure):
    """A figure that pyplot does not know and a notebook shows, whether or not pyplot has been used before."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=100)
        return file.getvalue()


def style(number: int) -> tuple[str, str]:
    """Colour and marker of the n-th thing; 64 pairs are different."""
    n = len(COLOURS)
    return COLOURS[number % n], MARKERS[(number + number // n) % n]


def caption(where: Axes | Figure, text: str) -> None:
    """Put a sentence below a figure, or below one of its Axes and that one's label, wrapped to its width."""
    if isinstance(where, Figure):
        wide = where.get_figwidth()
        where.supxlabel(textwrap.fill(text, int(wide * _CHARACTERS_PER_INCH)), x=0.01, ha="left", fontsize=SMALL)
    else:
        wide = where.get_window_extent().width / where.get_figure(root=True).dpi  # type: ignore[union-attr]
        label = where.get_xlabel()
        filled = textwrap.fill(text, max(24, int(wide * _CHARACTERS_PER_INCH)))
        where.set_xlabel(f"{label}\n\n{filled}" if label else filled, loc="left", fontsize=SMALL)


def own_or_new(ax: Axes | None, width: float, height: float) -> Axes:
    """The Axes that were given, or those of a new pyplot figure of this size in inches."""
    if ax is None:
        ax = plt.subplots(figsize=(width, height), layout="constrained")[1]
    ax.tick_params(labelsize=SMALL)
    return ax


def panels(rows: int, columns: int, side: float, below: float = 0.06) -> tuple[Figure, np.ndarray]:
    """A figure of square panels, ``side`` inches each, with ``below`` inches for the text under each."""
    figure = Panels(figsize=(1.1 + columns * side, 0.5 + rows * (side + below)), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        bare(ax)
    return figure, axes


def bare(ax: Axes) -> Axes:
    """The same Axes without ticks and frame."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return ax


def show_image(ax: Axes, pixels: UInt8[np.ndarray, "3 H W"]) -> AxesImage:
    """An image, pixel by pixel."""
    return bare(ax).imshow(pixels.transpose(1, 2, 0), interpolation="nearest")


def overlay(
    ax: Axes, pixels: UInt8[np.ndarray, "3 S S"], values: np.ndarray, low: float, high: float, cmap: Colormap = HEAT
) -> AxesImage:
    """A map over the greyed image, stretched to it patch by patch."""
    S = pixels.shape[1]
    bare(ax).imshow(pixels.mean(0), cmap="gray", vmin=0, vmax=255)
    extent = (-0.5, S - 0.5, S - 0.5, -0.5)
    return ax.imshow(values, cmap=cmap, vmin=low, vmax=high, extent=extent, interpolation="nearest")


def draw_box(
    ax: Axes, row: int, column: int, grid: tuple[int, int], image_px: int, left: int = 0, top: int = 0
) -> None:
    """The outline of a patch on an image, or on the part of it that begins at ``left``, ``top`` pixels."""
    height, width = image_px / grid[0], image_px / grid[1]
    corner = (column * width - left - 0.5, row * height - top - 0.5)
    ax.add_patch(Rectangle(corner, width, height, fill=False, ec="black", lw=2.4))
    ax.add_patch(Rectangle(corner, width, height, fill=False, ec="white", lw=1.2))


def colour_bar(heat: AxesImage, ax: Axes | list[Axes], label: str, **kwargs: Any) -> None:
    """The scale of a map beside the Axes that share it."""
    bar = heat.axes.figure.colorbar(heat, ax=ax, **kwargs)
    bar.ax.tick_params(labelsize=SMALL)
    bar.set_label(label, fontsize=SMALL)


def legend_key(number: int, label: str) -> Line2D:
    """The n-th colour and marker, for a legend."""
    colour, marker = style(number)
    return Line2D([], [], ls="", marker=marker, color=colour, markersize=6, label=label)


def draw_shares(table: np.ndarray, names: Sequence[str], across: str, down: str, ax: Axes | None) -> Axes:
    """A square table of counts as row shares, with percents where they can be read."""
    K = len(table)
    shares = table / np.maximum(table.sum(1, keepdims=True), 1)
    side = float(np.clip(0.36 * K, 3.2, 5.6))
    ax = own_or_new(ax, side + 1.6, side + 1.5)
    heat = ax.imshow(shares, cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
    every = -(-K // 24)
    ax.set_xticks(range(0, K, every), names[::every], rotation=90, fontsize=SMALL - 1)
    ax.set_yticks(range(0, K, every), names[::every], fontsize=SMALL - 1)
    ax.tick_params(length=0)
    for i, j in np.argwhere(shares >= 0.005) if K <= 12 else ():
        colour = "black" if shares[i, j] > 0.55 else "white"
        ax.text(j, i, f"{100 * shares[i, j]:.0f}", ha="center", va="center", fontsize=6.5, color=colour)
    ax.set_xlabel(across, fontsize=SMALL)
    ax.set_ylabel(down, fontsize=SMALL)
    colour_bar(heat, ax, "share of the row", fraction=0.04, pad=0.03, format=PercentFormatter(1))
    return ax


def checked_index(index: int, length: int, what: str) -> int:
    """The index, or an IndexError that says what there is."""
    if not 0 <= index < length:
        raise IndexError(f"{what} {index} is not there: {length} are numbered 0..{length - 1}")
    return int(index)


def grid_of(num_patches: int, grid: tuple[int, int] | None) -> tuple[int, int]:
    """Rows and columns of the patches; square unless told, or a ValueError."""
    h, w = grid or (isqrt(num_patches),) * 2
    if h * w != num_patches:
        raise ValueError(f"{num_patches} patches do not fill a grid of {h} x {w}: pass grid=(rows, columns)")
    return h, w


def matching_grid(assignments: Tensor, images: PackedImages, grid: tuple[int, int] | None) -> tuple[int, int]:
    """The grid of assignments that belong to these images, or a ValueError."""
    if len(assignments) != len(images):
        raise ValueError(
            f"assignments of {len(assignments)} images, and {len(images)} images: pass those they belong to"
        )
    return grid_of(assignments.shape[1], grid)


def names_of(names: Sequence[str] | None, count: int, pattern: str = "p{:02d}") -> list[str]:
    """Names as plain text (no mathtext), numbers where there are none, or a ValueError where there are too few."""
    if names is None:
        return [pattern.format(k) for k in range(count)]
    if len(names) < count:
        raise ValueError(f"{len(names)} names for {count}")
    return [name.replace("$", r"\$") for name in names]


def short_name(name: str) -> str:
    """The last part of an image's name, as plain text that fits below a small picture."""
    last = name.rsplit("/", 1)[-1]
    return (last if len(last) <= 12 else f"{last[:4]}…{last[-7:]}").replace("$", r"\$")
