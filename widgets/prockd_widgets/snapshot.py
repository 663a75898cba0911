"""What a widget shows as an ordinary picture, for pages without a kernel; drawn in Python, without a browser."""

import base64
import io
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from prockd.plots import plot_heatmap, style
from prockd.plots._draw import draw_box
from prockd_widgets.patches import NOWHERE

if TYPE_CHECKING:
    from prockd_widgets.explorer import PrototypeExplorer

_GREY = "#CFD4D9"
_SHOWN = 8


def explorer_picture(explorer: "PrototypeExplorer") -> bytes:
    """A PNG: the map with the selection, the image with its heat-map, and nearest patches of some prototypes."""
    k = explorer.prototype
    label, names = explorer.label(explorer.model), explorer.models[explorer.model].bank.names
    figure = Figure(figsize=(11, 6.0), dpi=84, layout="constrained")
    rows = [k, *(i for i in np.argsort(-np.bincount(label, minlength=len(names)), kind="stable").tolist() if i != k)]
    rows = [i for i in rows if i >= 0 and (label == i).any()][:3]
    grid = figure.add_gridspec(1 + len(rows), 1, height_ratios=[3.4, *(1.0,) * len(rows)])
    upper = grid[0].subgridspec(1, 2, width_ratios=(1.5, 1))
    ax = figure.add_subplot(upper[0])
    xy = np.frombuffer(explorer.xy[explorer.model], np.uint16).reshape(-1, 2).astype(float)
    seen = xy[:, 0] != NOWHERE
    chosen = np.zeros(len(xy), bool)
    chosen[list(explorer.selection)] = True
    if explorer.selection:
        ax.scatter(xy[seen & ~chosen, 0], xy[seen & ~chosen, 1], s=2, c=_GREY, linewidths=0)
    dot = 18 if 0 < len(explorer.selection) < 2000 else 5
    for i in np.unique(label):
        mine = seen & (label == i) & (chosen if explorer.selection else seen)
        colour, marker = style(int(i))
        ax.scatter(xy[mine, 0], xy[mine, 1], s=dot, c=colour, marker=marker, linewidths=0)
    ax.set(xticks=[], yticks=[], title=f"{explorer.map_note}, {len(explorer.selection):,} selected")
    ax.set_aspect("equal", "datalim")
    ax = figure.add_subplot(upper[1])
    m, (h, w) = explorer.image, explorer.grid
    _picture(ax, explorer, m)
    if k >= 0:
        ax.clear()
        soft = explorer.soft(explorer.model).reshape(-1, h * w, len(names))[[m]]
        plot_heatmap(soft, explorer.images.select([m]), 0, k, smooth=explorer.smooth, name=_plain(names[k]),
                     grid=(h, w), ax=ax)  # fmt: skip
        ax.set_xlabel("")
    ax.title.set_fontsize(9)
    for row, i in enumerate(rows, 1):
        line = grid[row].subgridspec(1, _SHOWN)
        for column, (p, distance) in enumerate(explorer.stats[explorer.model][i]["near"][:_SHOWN]):
            ax = figure.add_subplot(line[column])
            _picture(ax, explorer, p // (h * w), p % (h * w))
            ax.set_xlabel(f"{distance:.2f}", fontsize=7, labelpad=2)
            if column == 0:
                about = f"{_plain(names[i])}\n{(label == i).sum():,} patches"
                ax.set_ylabel(about, fontsize=8, rotation=0, ha="right", va="center")
    figure.suptitle(f"Prototype explorer, seed {explorer.seed}, data {explorer.meta['data'][:12]}", fontsize=9)
    return save_figure(figure)


def save_figure(figure: Figure) -> bytes:
    """A figure as PNG of 256 colours, a third of the bytes: notebooks keep many of them."""
    drawn, file = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png")
    Image.open(drawn).convert("RGB").quantize(256).save(file, "PNG", optimize=True)
    return file.getvalue()


def static_bundle(widget: Any, live: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The live view of a widget, with its picture and its words for pages without a kernel."""
    shown, metadata = live or ({}, {})
    picture = base64.b64encode(widget.snapshot().data).decode()
    return {**shown, "text/plain": repr(widget), "image/png": picture}, metadata


def _plain(name: str) -> str:
    """A name that matplotlib takes as text, not as a formula."""
    short = name if len(name) <= 18 else f"{name[:17]}…"
    return short.replace("$", r"\$")


def _picture(ax: Axes, explorer: "PrototypeExplorer", image: int, patch: int | None = None) -> None:
    """An image, or a patch of it with its surroundings, boxed."""
    pixels = np.asarray(explorer.images.pixels[image]).transpose(1, 2, 0)
    ax.imshow(pixels)
    ax.set(xticks=[], yticks=[])
    if patch is None:
        return
    S, (h, w) = len(pixels), explorer.grid
    draw_box(ax, patch // w, patch % w, (h, w), S)
    side = min(S, 3.6 * max(S / h, S / w))
    middle = ((patch % w + 0.5) * S / w, (patch // w + 0.5) * S / h)
    left, top = (float(np.clip(at - side / 2, 0, S - side)) for at in middle)
    ax.set(xlim=(left - 0.5, left + side - 0.5), ylim=(top + side - 0.5, top - 0.5))
