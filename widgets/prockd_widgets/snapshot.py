"""What a widget shows as an ordinary picture, for pages without a kernel; drawn in Python, without a browser."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt16
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from prockd.datasets import PackedImages
from prockd.plots import plot_heatmap, style
from prockd.plots._draw import draw_box, plain
from prockd_widgets.patches import NOWHERE

_GREY = "#CFD4D9"
_THUMBS = 8


@dataclass(frozen=True, eq=False)
class ExplorerView:
    """What an explorer shows of one model.

    Attributes:
        images: with ``grid`` patches each, numbered image by image, row by row.
        grid: rows and columns of patches.
        names: of the prototypes.
        label: (P,) strongest prototype of each patch, -1 in the bars beside padded pictures.
        hue: (P,) number of each patch's colour and shape on the map, -1 for grey.
        hue_names: what these numbers stand for.
        soft: (P, K) soft assignment.
        stats: one row a prototype; ``near`` has its nearest patches with their distances.
        gallery: prototypes to show after the one in focus; see :mod:`prockd.evaluation.galleries`.
        xy: (P, 2) places on the map, ``NOWHERE`` for none.
        selection: numbers of the selected patches.
        prototype: the one in focus, -1 for none.
        image: the image beside the map.
        smooth: its heat-map smoothed, else raw.
        map_title: above the map.
        title: above everything.
    """

    images: PackedImages
    grid: tuple[int, int]
    names: Sequence[str]
    label: Int[np.ndarray, " P"]
    hue: Int[np.ndarray, " P"]
    hue_names: Sequence[str]
    soft: Float[Tensor, "P K"]
    stats: Sequence[Mapping[str, Any]]
    gallery: Sequence[int]
    xy: UInt16[np.ndarray, "P 2"]
    selection: Sequence[int]
    prototype: int
    image: int
    smooth: bool
    map_title: str
    title: str


def explorer_picture(view: ExplorerView) -> bytes:
    """A PNG: the map with the selection, the image with its heat-map, and nearest patches of some prototypes."""
    figure = Figure(figsize=(11, 6.0), dpi=84, layout="constrained")
    sizes = np.bincount(view.label[view.label >= 0], minlength=len(view.names))
    order = [view.prototype, *view.gallery, *np.argsort(-sizes, kind="stable").tolist()]
    rows = [k for k in dict.fromkeys(order) if k >= 0 and sizes[k]][:3]
    grid = figure.add_gridspec(1 + len(rows), 1, height_ratios=[3.4, *(1.0,) * len(rows)])
    upper = grid[0].subgridspec(1, 2, width_ratios=(1.5, 1))
    _draw_map(figure.add_subplot(upper[0]), view)
    _draw_image(figure.add_subplot(upper[1]), view)
    for row, k in enumerate(rows, 1):
        line = grid[row].subgridspec(1, _THUMBS)
        for column, (p, distance) in enumerate(view.stats[k]["near"][:_THUMBS]):
            ax = figure.add_subplot(line[column])
            _draw_patch(ax, view, p)
            ax.set_xlabel(f"{distance:.2f}", fontsize=7, labelpad=2)
            if column == 0:
                label = f"{_plain(view.names[k])}\n{sizes[k]:,} patches"
                ax.set_ylabel(label, fontsize=8, rotation=0, ha="right", va="center")
    figure.suptitle(view.title, fontsize=9)
    return save_figure(figure)


def comparison_picture(views: Sequence[ExplorerView], prototypes: Sequence[int], said: str) -> bytes:
    """A PNG of two models side by side: their maps, the image with the matched prototypes, and nearest patches."""
    figure = Figure(figsize=(11, 7.0), dpi=84, layout="constrained")
    grid = figure.add_gridspec(3, 2, height_ratios=[2.6, 2.6, 1.0])
    for column, (view, k) in enumerate(zip(views, prototypes, strict=True)):
        _draw_map(figure.add_subplot(grid[0, column]), view)
        _draw_image(figure.add_subplot(grid[1, column]), replace(view, prototype=k))
        line, near = grid[2, column].subgridspec(1, 5), view.stats[k]["near"] if k >= 0 else []
        for at, (p, distance) in enumerate(near[:5]):
            ax = figure.add_subplot(line[at])
            _draw_patch(ax, view, p)
            ax.set_xlabel(f"{distance:.2f}", fontsize=7, labelpad=2)
    figure.suptitle(f"{views[0].title}: {said}", fontsize=9)
    return save_figure(figure)


def save_figure(figure: Figure) -> bytes:
    """A figure as PNG of 256 colours, a third of the bytes: notebooks keep many of them."""
    drawn, file = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png")
    Image.open(drawn, formats=["PNG"]).convert("RGB").quantize(256).save(file, "PNG", optimize=True)
    return file.getvalue()


def static_bundle(widget: Any, live: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The live view of a widget, with its picture and its words for pages without a kernel.

    Where images are gone from the disk the live view goes on with what it was sent, and the words say so.
    """
    bundle, metadata = live or ({}, {})
    try:
        picture = {"image/png": base64.b64encode(widget.snapshot().data).decode()}
    except OSError as error:
        return {**bundle, "text/plain": f"{widget!r}\nno picture: images cannot be read any more ({error})"}, metadata
    return {**bundle, "text/plain": repr(widget), **picture}, metadata


def picture_of(widget: Any) -> bytes:
    """What an explorer shows, of one model or of two side by side."""
    if len(widget.models) == 1:
        return explorer_picture(_view(widget, 0, f"{widget.map_note}, {len(widget.selection):,} selected"))
    focus = [widget.prototype, widget.prototype]
    if widget.prototype >= 0:
        other, matched = 1 - widget.model, widget.meta["match"]
        back = {k: j for j, k in enumerate(matched)}
        focus[other] = back.get(widget.prototype, -1) if other else matched[widget.prototype]
    first, second = widget._label[0], np.array([*widget.meta["match"], -1])[widget._label[1]]
    same = (first == second)[widget._shown].mean()
    said = f"{' and '.join(m.name for m in widget.models)} agree on {same:.0%} of {len(widget._shown):,} patches"
    return comparison_picture([_view(widget, i, m.name) for i, m in enumerate(widget.models)], focus, said)


def shown_map(widget: Any) -> int:
    """Which of an explorer's maps is shown: the first where its name is none of theirs."""
    return next((i for i, one in enumerate(widget.maps) if one["name"] == widget.on_map), 0)


def _view(widget: Any, i: int, map_title: str) -> ExplorerView:
    model, chosen = widget.models[i], shown_map(widget)
    xy = widget.xy[chosen * len(widget.models) + i]
    return ExplorerView(
        widget.images, widget.grid, model.bank.names, widget.label(i), *_hues(widget, i), widget.soft(i),
        widget.stats[i], widget._gallery(i), np.frombuffer(xy, np.uint16).reshape(-1, 2), widget.selection,
        widget.prototype, min(widget.image, len(widget.images) - 1), widget.smooth, map_title,
        f"Prototype explorer, seed {widget.seed}, data {widget.meta['data'][:12]}",
    )  # fmt: skip


def _hues(widget: Any, i: int) -> tuple[np.ndarray, list[str]]:
    """What colours the patches of a model's map, as in the browser."""
    label, match = widget._label[i], widget.meta.get("match")
    first = label if i == 0 or match is None else np.array([*match, -1])[label]
    if widget.colour_by == "part" and widget.parts:
        return np.where(label >= 0, widget._parts.ravel() - 1, -1), widget._part_names[1:]
    if widget.colour_by == "class":
        per_image = widget.grid[0] * widget.grid[1]
        return np.where(label >= 0, widget.images.labels.repeat(per_image), -1), list(widget.images.classes)
    if widget.colour_by == "agreement" and match is not None:
        second = np.array([*match, -1])[widget._label[1]]
        return np.where(label >= 0, widget._label[0] != second, -1), ["same prototype", "different ones"]
    if widget.colour_by == "group":
        return np.array([*(row["group"] for row in widget.stats[0]), -1])[first], []
    return first, []


def _plain(name: str) -> str:
    """A name that matplotlib takes as text, not as a formula."""
    short = name if len(name) <= 18 else f"{name[:17]}…"
    return plain(short)


def _draw_map(ax: Axes, view: ExplorerView) -> None:
    xy = view.xy.astype(float)
    placed = view.xy[:, 0] != NOWHERE
    selected = np.zeros(len(xy), bool)
    selected[list(view.selection)] = True
    if view.selection:
        rest = placed & ~selected
        ax.scatter(xy[rest, 0], xy[rest, 1], s=2, c=_GREY, linewidths=0)
    dot = 18 if 0 < len(view.selection) < 2000 else 5
    for number in np.unique(view.hue):
        mine = placed & (view.hue == number) & (selected if view.selection else placed)
        colour, marker = style(int(number)) if number >= 0 else (_GREY, "o")
        shape = marker if dot > 5 else "o"  # matplotlib draws no plus as small as that
        named = 0 <= number < min(8, len(view.hue_names))
        name = _plain(view.hue_names[number]) if named else None
        ax.scatter(xy[mine, 0], xy[mine, 1], s=dot, c=colour, marker=shape, linewidths=0, label=name)
    if ax.get_legend_handles_labels()[1]:
        ax.legend(fontsize=6, markerscale=1.6, loc="upper left", frameon=False, handletextpad=0.1, borderaxespad=0.1)
    ax.set(xticks=[], yticks=[], title=view.map_title)
    ax.set_aspect("equal", "datalim")


def _draw_image(ax: Axes, view: ExplorerView) -> None:
    k, m, (h, w) = view.prototype, view.image, view.grid
    if k < 0:
        ax.imshow(np.asarray(view.images.pixels[m]).transpose(1, 2, 0))
        ax.set(xticks=[], yticks=[])
        return
    soft = view.soft.reshape(-1, h * w, len(view.names))[[m]]
    plot_heatmap(
        soft, view.images.select([m]), 0, k, smooth=view.smooth, name=_plain(view.names[k]), grid=(h, w), ax=ax
    )
    ax.set_xlabel("")
    ax.title.set_fontsize(9)


def _draw_patch(ax: Axes, view: ExplorerView, patch: int) -> None:
    """A patch with its surroundings, boxed."""
    h, w = view.grid
    pixels = np.asarray(view.images.pixels[patch // (h * w)]).transpose(1, 2, 0)
    ax.imshow(pixels)
    ax.set(xticks=[], yticks=[])
    S, (row, column) = len(pixels), divmod(patch % (h * w), w)
    draw_box(ax, row, column, (h, w), S)
    side = min(S, 3.6 * max(S / h, S / w))
    middle = ((column + 0.5) * S / w, (row + 0.5) * S / h)
    left, top = (float(np.clip(at - side / 2, 0, S - side)) for at in middle)
    ax.set(xlim=(left - 0.5, left + side - 0.5), ylim=(top + side - 0.5, top - 0.5))
