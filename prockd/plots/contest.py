"""A figure of a contest: every arm's score, its seeds and its interval, coloured by what kind of arm it is."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from prockd.evaluation.intervals import paired_interval
from prockd.plots import _draw as draw

GROUPS = ("ours", "rival", "control", "baseline", "own", "ceiling", "floor")
"""From the top of the figure to its bottom."""


def plot_contest(rows: Sequence[Mapping[str, object]], metric: str = "score", *, ax: Axes | None = None) -> Axes:
    """Arms by group, the best first: a dot a seed, the mean and its 95 % interval (Student's t); z⁺ is hollow.

    A dashed line is at the best of ours, so that who is beyond it is seen at once.

    Args:
        rows: ``name``, ``group`` (one of ``GROUPS``), ``values`` (z by seed, 0..1) and ``augmented`` (z⁺) or None.
        metric: what is measured.
        ax: where to draw.

    Raises:
        ValueError: no rows, or a group that is not known.
    """
    if not rows:
        raise ValueError("no arms to draw")
    if unknown := {str(row["group"]) for row in rows}.difference(GROUPS):
        raise ValueError(f"group {', '.join(sorted(unknown))}: there are {', '.join(GROUPS)}")
    ordered = sorted(rows, key=lambda row: (GROUPS.index(str(row["group"])), -best_mean(row)))
    heights = {str(row["name"]): 1.0 + 0.6 * (row.get("augmented") is not None) for row in ordered}
    ax = draw.own_or_new(ax, 7.4, 1.4 + 0.27 * sum(heights.values()))
    y, places, groups = 0.0, [], dict.fromkeys(str(row["group"]) for row in ordered)
    for row in ordered:
        number = list(groups).index(str(row["group"]))
        places.append(y + 0.3 * (row.get("augmented") is not None))
        for kind, key in enumerate(("values", "augmented")):
            values = numbers(row, key)
            if len(values):
                draw_values(ax, y + 0.6 * kind, values, draw.style(number), hollow=kind == 1)
        y += heights[str(row["name"])]
    ours = [best_mean(row) for row in rows if row["group"] == "ours"]
    if ours:
        ax.axvline(max(ours), color=draw.style(list(groups).index("ours"))[0], lw=1, ls="--", alpha=0.6, zorder=0)
    draw.row_axis(ax, places, [str(row["name"]) for row in ordered], metric)
    ax.set_ylim(y - 0.3, -0.7)
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    draw.legend(ax, [draw.legend_key(n, group) for n, group in enumerate(groups)], above=True)
    counts = {len(numbers(row, "values")) for row in rows}
    count = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    draw.caption(
        ax,
        f"Dots are seeds ({count} a row), bars 95 % intervals of the mean over seeds; of two rows the hollow one is "
        "z⁺. The dashed line is the best of ours. Whether two arms differ is told by paired differences, not by bars.",
    )
    return ax


def numbers(row: Mapping[str, object], key: str) -> np.ndarray:
    """The values of a row by seed; none where it has none."""
    return np.asarray([] if row.get(key) is None else row[key], float)


def best_mean(row: Mapping[str, object]) -> float:
    """The mean of z, or of z⁺ where that is better."""
    return max(float(values.mean()) for key in ("values", "augmented") if len(values := numbers(row, key)))


def draw_values(ax: Axes, y: float, values: np.ndarray, style: tuple[str, str], *, hollow: bool) -> None:
    """Seeds as dots, their mean and its interval; without a second seed the mean alone."""
    colour, marker = style
    ax.plot(values, np.full(len(values), y - 0.2), ".", color=colour, alpha=0.5, ms=4, mew=0)
    mean, low, high = paired_interval(values) if len(values) > 1 else (float(values[0]),) * 3
    draw.interval(ax, y, (low, mean, high), f"{mean:.1%}", style)
    if hollow:
        ax.plot(mean, y, marker, mfc="white", mec=colour, ms=5.5, mew=1.3)
