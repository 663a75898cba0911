"""Figures of the causal view: what each prototype does to each class, from :func:`prockd.prototype_effects`."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from prockd.evaluation.effects import PrototypeEffects
from prockd.plots._draw import SMALL, caption, checked_index, colour_bar, names_of, own_or_new, style


def plot_prototype_effects(effects: PrototypeEffects, *, top: int = 24, ax: Axes | None = None) -> Axes:
    """Removals by classes: the change in points, the most harmful first, bold where the interval leaves out zero.

    Args:
        effects: what :func:`prockd.prototype_effects` returned.
        top: removals shown, those that change most.
        ax: where to draw.

    Raises:
        ValueError: ``top`` below 1.
    """
    if top < 1:
        raise ValueError(f"top={top}: show one removal at least")
    largest = np.argsort(-np.nanmax(np.abs(effects.change), axis=1), kind="stable")[:top]
    order = [int(r) for r in effects.order() if r in largest]
    points = 100 * effects.change[order]
    names, columns = names_of(effects.removed, len(effects.removed)), names_of(effects.columns, len(effects.columns))
    ax = own_or_new(ax, 2.6 + 0.5 * len(columns), 1.9 + 0.24 * len(order))
    limit = float(np.nanmax(np.abs(points))) or 1.0
    heat = ax.imshow(points, cmap="PuOr", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    for y, r in enumerate(order):
        for x in np.flatnonzero(~np.isnan(points[y])).tolist():
            clear = effects.clear[r, x]
            text = f"{points[y, x]:+.1f}" if round(points[y, x], 1) else "0"
            strength = abs(points[y, x]) / limit
            colour = "white" if strength > 0.7 else "black" if clear or strength > 0.2 else "#777777"
            weight = "bold" if clear else "normal"
            ax.text(x, y, text, ha="center", va="center", fontsize=6.5, color=colour, fontweight=weight)
    ax.axvline(0.5, color="white", lw=3)
    ax.set_xticks(range(len(columns)), columns, rotation=90, fontsize=SMALL)
    ax.set_yticks(range(len(order)), [names[r] for r in order], fontsize=SMALL - 1)
    ax.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    signed = FuncFormatter(lambda value, _: f"{value:+g}")
    colour_bar(heat, ax, f"change of {effects.metric}, points", pad=0.03, fraction=0.05, format=signed)
    total = len(effects.removed)
    shown = f"the {len(order)} of {total} that change most" if len(order) < total else f"{total} removals"
    clear, cells = int(effects.clear.sum()), int((~np.isnan(effects.change)).sum())
    about = (
        f"Change of z⁺ when prototypes are removed, {shown}; negative: the prototype helped. Bold: the 95 % interval "
        f"over {effects.num_images} images leaves out zero ({clear} of {cells} cells; about "
        f"{0.05 * cells:.0f} at most would by chance)."
    )
    caption(ax, about)
    return ax


def plot_class_effects(effects: PrototypeEffects, removal: int = 0, *, ax: Axes | None = None) -> Axes:
    """What one removal does to each class: its change in points with the 95 % interval, the most harmed class on top.

    Raises:
        IndexError: a removal that is not there.
    """
    r = checked_index(removal, len(effects.removed), "removal")
    columns = names_of(effects.columns, len(effects.columns))
    change, low, high = (100 * ends[r] for ends in (effects.change, effects.low, effects.high))
    classes = 1 + np.argsort(change[1:], kind="stable")
    order = [0, *(int(c) for c in classes if not np.isnan(change[c]))]
    ax = own_or_new(ax, 5.6, 1.5 + 0.26 * len(order))
    for y, c in enumerate(order):
        colour, marker = style(0) if c else ("black", "D")
        faint = 1.0 if effects.clear[r, c] or not c else 0.45
        ax.plot([low[c], high[c]], [y, y], color=colour, lw=2, alpha=faint, solid_capstyle="butt")
        ax.plot(change[c], y, marker, color=colour, ms=6, mec="white", mew=0.8, alpha=faint)
        ax.annotate(f"{change[c]:+.1f}", (high[c], y), (5, 0), textcoords="offset points", va="center", fontsize=6.5)
    ax.axvline(0, color="#888888", lw=0.8, zorder=0)
    ax.set_yticks(range(len(order)), [columns[c] for c in order], fontsize=SMALL)
    ax.set_ylim(len(order) - 0.5, -0.6)
    ax.grid(axis="x", alpha=0.25)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.margins(x=0.12)
    left, right = ax.get_xlim()
    ax.set_xlim(min(left, -1.0), max(right, 1.0))  # what is smaller than a point should look small
    ax.set_xlabel(f"change of {effects.metric}, points", fontsize=SMALL + 1)
    members = effects.prototypes[r]
    what = "one prototype" if len(members) == 1 else f"{len(members)} prototypes"
    ax.set_title(f"without {names_of(effects.removed, r + 1)[r]} ({what})", fontsize=SMALL + 2)
    caption(ax, f"z⁺ on {effects.num_images} images; bars are 95 % intervals over images, faint where they hold zero.")
    return ax
