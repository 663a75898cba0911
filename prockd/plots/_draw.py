"""What all figures share: colours, captions, pictures with maps over them, tables, and checks of what was asked for."""

import io
import re
import textwrap
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from math import isqrt
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
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

    def _repr_jpeg_(self) -> bytes:  # of many pictures: a PNG would be two to five times as large
        file = io.BytesIO()
        self.savefig(file, format="jpeg", dpi=100, pil_kwargs={"quality": 88, "subsampling": 0})
        return file.getvalue()

    def _ipython_display_(self) -> None:  # itself: with pyplot at hand IPython adds the PNG of any figure
        display = import_module("IPython.display").display  # IPython is there: nobody else calls this
        display({"image/jpeg": self._repr_jpeg_(), "text/plain": repr(self)}, raw=True)


def style(number: int) -> tuple[str, str]:
    """Colour and marker of the n-th thing; 64 pairs are different."""
    n = len(COLOURS)
    return COLOURS[number % n], MARKERS[(number + number // n) % n]


def caption(where: Axes | Figure, text: str) -> None:
    """Put a sentence below a figure, or below one of its Axes and that one's label, wrapped to its width."""
    text = plain(text)
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
    for colour, thick in (("black", 2.4), ("white", 1.2)):
        corner = (column * width - left - 0.5, row * height - top - 0.5)
        ax.add_patch(Rectangle(corner, width, height, fill=False, ec=colour, lw=thick))


def colour_bar(heat: AxesImage, ax: Axes | list[Axes], label: str, **kwargs: Any) -> None:
    """The scale of a map beside the Axes that share it."""
    bar = heat.axes.figure.colorbar(heat, ax=ax, **kwargs)
    bar.ax.tick_params(labelsize=SMALL)
    bar.set_label(label, fontsize=SMALL)


def legend_key(number: int, label: str) -> Line2D:
    """The n-th colour and marker, for a legend."""
    colour, marker = style(number)
    return Line2D([], [], ls="", marker=marker, color=colour, markersize=6, label=label)


def legend(where: Axes | Figure, handles: Sequence[Any] | None = None, *, above: bool = False) -> None:
    """A legend outside, on the right or above; without handles it names all that has a label."""
    if isinstance(where, Figure):
        place: dict[str, Any] = {"loc": "outside right upper"}
    else:
        handles = where.get_legend_handles_labels()[0] if handles is None else handles
        on_the_right = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
        place = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": len(handles)} if above else on_the_right
    if handles is not None and not handles:  # nothing of what could be explained is there
        return
    if handles is not None:
        place["labels"] = [plain(str(handle.get_label())) for handle in handles]
    where.legend(handles=handles, fontsize=SMALL, frameon=False, **place)


def heat_table(
    ax: Axes, values: np.ndarray, rows: Sequence[str], columns: Sequence[str], label: str, **options: Any
) -> None:
    """A table in colours with its names and scale: shares of 1 unless the options, those of imshow, say otherwise."""
    # Not of imshow: one name in so many is written, those of columns above, turned by so many degrees; and of the scale
    # the room before it and the format of its numbers.
    every, above = options.pop("every", 1), options.pop("above", None)
    bar = {"pad": options.pop("pad", 0.03), "format": options.pop("form", PercentFormatter(1))}
    kwargs: dict[str, Any] = {"cmap": "cividis", "vmin": 0, "aspect": "auto", "interpolation": "nearest"} | options
    heat = ax.imshow(values, **kwargs)
    above_each, beside_each = ([*map(plain, names[::every])] for names in (columns, rows))
    ax.set_xticks(range(0, len(columns), every), above_each, fontsize=SMALL if len(columns) <= 60 else 4)
    ax.set_yticks(range(0, len(rows), every), beside_each, fontsize=SMALL - 1)
    up = above is not None
    ax.tick_params(length=0, top=up, labeltop=up, bottom=not up, labelbottom=not up)
    ax.tick_params("x", labelrotation=above if up else 90)
    colour_bar(heat, ax, label, fraction=0.04, **bar)


def row_axis(ax: Axes, places: Sequence[Any] | np.ndarray, names: Sequence[str], measured: str) -> None:
    """Names of rows down the side, and what is measured along a light grid."""
    ax.set_yticks(places, [*map(plain, names)], fontsize=SMALL)
    ax.grid(axis="x", alpha=0.25)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.set_xlabel(measured, fontsize=SMALL + 1)


def interval(
    ax: Axes, y: int | float, ends: tuple[float, float, float], text: str, style: tuple[str, str], alpha: float = 1.0
) -> None:
    """A row's value in its interval, as (low, value, high), with a text beside it."""
    (low, value, high), (colour, marker) = ends, style
    ax.plot([low, high], [y, y], color=colour, lw=2, alpha=alpha, solid_capstyle="butt")
    ax.plot(value, y, marker, color=colour, ms=6, mec="white", mew=0.8, alpha=alpha)
    ax.annotate(text, (high, y), (5, 0), textcoords="offset points", va="center", fontsize=6.5, color="#444444")


def array(values: Any) -> np.ndarray:
    """Numbers as an array, wherever a tensor lies."""
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def in_pictures(values: Tensor, images: PackedImages, grid: tuple[int, int]) -> Tensor:
    """What is said of (M, N, ...) patches, 0 in the bars beside padded pictures, which show nothing."""
    inside = torch.from_numpy(images.in_picture(grid)).to(values.device)
    return values if inside.all() else values * inside.reshape(*inside.shape, *(1,) * (values.ndim - 2))


def strongest(assignments: Tensor) -> np.ndarray:
    """The strongest prototype of each patch, (..., N) of (..., N, K); -1 where none has a share."""
    share, prototype = assignments.max(-1)
    return np.where(array(share) > 0, array(prototype), -1)


def usage(assigned: np.ndarray, count: int) -> np.ndarray:
    """How many patches prefer each of ``count`` prototypes."""
    return np.bincount(assigned[assigned >= 0], minlength=count)


def centres(patches: np.ndarray, grid: tuple[int, int], image_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Place (x, y) of the middle of each patch, in pixels as imshow counts them: 0 is the middle of the first one."""
    rows, columns = np.divmod(patches, grid[1])
    return (columns + 0.5) * image_px / grid[1] - 0.5, (rows + 0.5) * image_px / grid[0] - 0.5


def checked_indices(indices: Sequence[int] | np.ndarray, length: int, what: str) -> list[int]:
    """The indices, or an IndexError that says what there is."""
    for index in indices:
        if not 0 <= index < length:
            raise IndexError(f"{what} {index} is not there: {length} are numbered 0..{length - 1}")
    return list(map(int, indices))


def grid_of(patches: Tensor, images: PackedImages, grid: tuple[int, int] | None) -> tuple[int, int]:
    """Rows and columns of (M, N, ...) patches of these images, square by default, or a ValueError."""
    M, N = patches.shape[:2]
    if len(images) != M:
        raise ValueError(f"patches of {M} images, and {len(images)} images: pass those they belong to")
    h, w = grid or (isqrt(N),) * 2
    if h * w != N:
        raise ValueError(f"{N} patches do not fill a grid of {h} x {w}: pass grid=(rows, columns)")
    return h, w


def names_of(names: Sequence[str] | None, count: int, pattern: str = "p{:02d}") -> list[str]:
    """Names as plain text (no mathtext), numbers where there are none, or a ValueError where there are too few."""
    if names is None:
        return [pattern.format(k) for k in range(count)]
    if len(names) < count:
        raise ValueError(f"{len(names)} names for {count}")
    return [plain(name) for name in names]


def short_name(name: str) -> str:
    """The last part of an image's name, as plain text that fits below a small picture."""
    last = name.rsplit("/", 1)[-1]
    return plain(last if len(last) <= 12 else f"{last[:4]}…{last[-7:]}")


def plain(text: str) -> str:
    """A text as it is, once or twice: matplotlib takes what stands between two dollar signs for a formula.

    What the font cannot draw, such as an emoji, is an empty square and no warning.
    """
    known = _drawable(tuple(FontProperties().get_family()))
    shown = "".join(c if ord(c) in known or c == "\n" else "□" for c in text)
    return re.sub(r"(?<!\\)\$", r"\\$", shown)


@cache
def _drawable(families: tuple[str, ...]) -> frozenset[int]:
    """The characters of the fonts in use."""
    fonts = [get_font(findfont(FontProperties(family=[family]))) for family in families]
    return frozenset(code for font in fonts for code in font.get_charmap())
