"""Figures of the causal view: what each prototype does to each class, from :func:`prockd.prototype_effects`."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from prockd.evaluation.effects import PrototypeEffects
from prockd.plots import _draw as draw


def plot_prototype_effects(effects: PrototypeEffects, *, top: int = 24, ax: Axes | None = None) -> Axes:
    """Removals by classes: the change in points, the most harmful first, bold where the interval leaves out zero.

    Of the removals those ``top`` are drawn that change most.

    Raises:
        ValueError: ``top`` below 1.
    """
    if top < 1:
        raise ValueError(f"top={top}: show one removal at least")
    total = len(effects.removed)
    largest = np.argsort(-np.nanmax(np.abs(effects.change), axis=1), kind="stable")[:top]
    order = [int(r) for r in effects.order() if r in largest]
    points = 100 * effects.change[order]
    names, columns = draw.names_of(effects.removed, total), draw.names_of(effects.columns, len(effects.columns))
    ax = draw.own_or_new(ax, 2.6 + 0.5 * len(columns), 1.9 + 0.24 * len(order))
    limit = float(np.nanmax(np.abs(points))) or 1.0
    draw.heat_table(
        ax, points, [names[r] for r in order], columns, f"change of {effects.metric}, points",
        above=90, form=FuncFormatter(lambda value, _: f"{value:+g}"), cmap="PuOr", vmin=-limit, vmax=limit,
    )  # fmt: skip
    for y, x in np.argwhere(~np.isnan(points)).tolist():
        clear = effects.clear[order[y], x]
        text = f"{points[y, x]:+.1f}" if round(points[y, x], 1) else "0"
        strength = abs(points[y, x]) / limit
        colour = "white" if strength > 0.7 else "black" if clear or strength > 0.2 else "#777777"
        weight = "bold" if clear else "normal"
        ax.text(x, y, text, ha="center", va="center", fontsize=6.5, color=colour, fontweight=weight)
    ax.axvline(0.5, color="white", lw=3)
    drawn = f"the {len(order)} of {total} that change most" if len(order) < total else f"{total} removals"
    num_clear, num_cells = int(effects.clear.sum()), int((~np.isnan(effects.change)).sum())
    draw.caption(
        ax,
        f"Change of z⁺ when prototypes are removed, {drawn}; negative: the prototype helped. Bold: the 95 % interval "
        f"over {effects.num_images} images leaves out zero ({num_clear} of {num_cells} cells; about "
        f"{0.05 * num_cells:.0f} at most would by chance).",
    )
    return ax


def plot_class_effects(
    effects: PrototypeEffects, removal: int = 0, *, beside: PrototypeEffects | None = None, ax: Axes | None = None
) -> Axes:
    """What one removal does to each class: its change in points with the 95 % interval, the most harmed class on top.

    Grey bands behind it reach over the removals of ``beside``, such as as many prototypes drawn at random.

    Raises:
        IndexError: a removal that is not there.
    """
    (r,) = draw.checked_indices([removal], len(effects.removed), "removal")
    columns = draw.names_of(effects.columns, len(effects.columns))
    change, low, high = (100 * ends[r] for ends in (effects.change, effects.low, effects.high))
    classes = 1 + np.argsort(change[1:], kind="stable")
    order = [0, *(int(c) for c in classes if not np.isnan(change[c]))]
    ax = draw.own_or_new(ax, 5.6, 1.5 + 0.26 * len(order))
    for y, c in enumerate(order):
        if beside is not None:
            least, most = 100 * beside.change[:, c].min(), 100 * beside.change[:, c].max()
            ax.plot((least, most), (y, y), color="#BBBBBB", lw=9, solid_capstyle="butt", zorder=0)
        style = draw.style(0) if c else ("black", "D")
        alpha = 1.0 if effects.clear[r, c] or not c else 0.45
        draw.interval(ax, y, (low[c], change[c], high[c]), f"{change[c]:+.1f}", style, alpha)
    ax.axvline(0, color="#888888", lw=0.8, zorder=0)
    draw.row_axis(ax, range(len(order)), [columns[c] for c in order], f"change of {effects.metric}, points")
    ax.set_ylim(len(order) - 0.5, -0.6)
    ax.margins(x=0.12)
    left, right = ax.get_xlim()
    ax.set_xlim(min(left, -1.0), max(right, 1.0))  # what is smaller than a point should look small
    members = len(effects.prototypes[r])
    what = "one prototype" if members == 1 else f"{members} prototypes"
    ax.set_title(f"without {draw.names_of(effects.removed, r + 1)[r]} ({what})", fontsize=draw.SMALL + 2)
    count = effects.num_images
    grey = f" Grey: {len(beside.removed)} removals of as many others, at random." if beside is not None else ""
    draw.caption(ax, f"z⁺ on {count} images; bars are 95 % intervals over images, faint where they hold zero.{grey}")
    return ax
