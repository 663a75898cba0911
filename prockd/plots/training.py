"""Figures of students: how training went, how well they do, and what the augmentation changes."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from prockd.datasets import PackedImages
from prockd.evaluation.intervals import paired_interval
from prockd.evaluation.scores import Scores, outputs
from prockd.plots import _draw as draw
from prockd.prototypes.augmentation import FeatureAugmentation
from prockd.students.student import Student
from prockd.training.loop import History


def plot_curves(
    histories: Mapping[str, History], terms: Sequence[str] | None = None, *, ax: Axes | None = None
) -> Axes:
    """Training curves: each term a colour, each run a line style (one term alone: each run a colour).

    Long curves are drawn as running means over a twentieth of their length, the raw values faint behind them.

    Raises:
        ValueError: no history has any such term; the message names what there is.

    >>> from prockd.training.loop import History
    >>> history = History([{"step": 0.0, "task": 2.3}, {"step": 1.0, "task": 1.9}], step=2)
    >>> plot_curves({"labels alone": history}, ["task"]).get_ylabel()
    'task'
    """
    keys = dict.fromkeys(key for history in histories.values() for row in history.rows for key in row)
    there = [key for key in keys if key not in ("step", "lr", "seconds")]
    terms = [key for key in there if not key.endswith("_weight")] if terms is None else list(terms)
    if not set(terms) & set(there):
        wanted, had = ", ".join(terms) or "anything", ", ".join(there) or "none"
        raise ValueError(f"no curve of {wanted}: these histories have {had}")
    ax = draw.own_or_new(ax, 7.2, 4.0)
    low, high, several = np.inf, 0.0, len(terms) > 1
    for i, (run, history) in enumerate(histories.items()):
        for j, term in enumerate(terms):
            steps, values = history.curve(term)
            if not steps:
                continue
            width = max(1, len(values) // 20)
            smooth = np.convolve(values, np.ones(width) / width, "valid")
            colour, line = draw.style(j if several else i)[0], ("-", "--", ":", "-.")[i % 4] if several else "-"
            label = ": ".join([run] * (len(histories) > 1) + [term] * several) or term
            if width > 1:
                ax.plot(steps, values, color=colour, lw=0.6, alpha=0.3)
            dots = "o" if len(values) < 12 else ""  # one value alone would be an invisible line
            ax.plot(steps[width - 1 :], smooth, color=colour, ls=line, lw=1.7, marker=dots, ms=3.5, label=label)
            low, high = min(low, float(np.min(smooth))), max(high, float(np.max(smooth)))
    if low > 0 and high / low > 20:
        ax.set_yscale("log")
    ax.set(xlabel="step", ylabel="loss term" if several else terms[0])
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    draw.legend(ax)
    ends = "; ".join(f"{run} {h.step:,} steps{', stopped early' if h.stopped else ''}" for run, h in histories.items())
    draw.caption(ax, f"Runs: {ends}.")
    return ax


def plot_scores(rows: Sequence[Mapping[str, object]], *, ax: Axes | None = None) -> Axes:
    """Accuracy of each way of training: a dot a seed, the mean, and its 95 % interval over seeds (Student's t).

    Args:
        rows: ``name``, ``labels_per_class``, ``values`` (accuracy of z by seed, 0..1), ``augmented`` (of z⁺) or None.
        ax: where to draw.

    Raises:
        ValueError: no rows.
    """
    if not rows:
        raise ValueError("no scores to draw")
    groups = sorted({int(str(row["labels_per_class"])) for row in rows})
    ax = draw.own_or_new(ax, 7.2, 1.5 + 0.44 * (len(rows) + len(groups)))
    ticks, y, counts = [], 0.0, set()
    for group in groups:
        ticks.append((y, f"{group} images a class", "bold"))
        for row in (r for r in rows if int(str(r["labels_per_class"])) == group):
            y += 1
            ticks.append((y, str(row["name"]), "normal"))
            for kind, key in enumerate(("values", "augmented")):
                values = np.asarray([] if row.get(key) is None else row[key], float)
                if not len(values):
                    continue
                counts.add(len(values))
                at, style = y + 0.4 * kind, draw.style(kind)
                ax.plot(values, np.full(len(values), at - 0.17), ".", color=style[0], alpha=0.6, ms=5, mew=0)
                mean, low, high = paired_interval(values) if len(values) > 1 else (values[0],) * 3
                draw.interval(ax, at, (low, mean, high), f"{mean:.1%}", style)
        y += 1.2
    places, names, weights = zip(*ticks, strict=True)
    draw.row_axis(ax, places, names, "accuracy on test images")
    for label, weight in zip(ax.get_yticklabels(), weights, strict=True):
        label.set_fontweight(weight)
    ax.set_ylim(y - 0.4, -0.7)
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    kinds = ["plain z", "augmented z⁺"][: 1 + any(row.get("augmented") is not None for row in rows)]
    draw.legend(ax, [draw.legend_key(kind, text) for kind, text in enumerate(kinds)], above=True)
    count = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    draw.caption(ax, f"Dots are seeds ({count} a row); bars are 95 % intervals of the mean over seeds.")
    return ax


def plot_class_scores(scores: Mapping[str, Scores], classes: Sequence[str], *, ax: Axes | None = None) -> Axes:
    """The metric of each class for the z of several students, the largest gain of the last over the first on top.

    Raises:
        ValueError: there are no scores, or some have no metric of each class.
    """
    each = {name: one.per_class for name, one in scores.items() if one.per_class is not None}
    if not each or len(each) < len(scores):
        raise ValueError("no scores of each class: pass what evaluate returned, by name")
    table = np.stack(list(each.values()))  # (students, C)
    order = np.argsort(np.nan_to_num(table[-1] - table[0], nan=-np.inf))  # a class that no image shows comes last
    ax, places = draw.own_or_new(ax, 6.4, 1.3 + 0.24 * len(classes)), np.arange(len(classes))
    ax.hlines(places, table.min(0)[order], table.max(0)[order], color=draw.OTHER, lw=2, zorder=1)
    for i, (name, values) in enumerate(each.items()):
        colour, marker = draw.style(i)
        ax.plot(values[order], places, marker, color=colour, ms=6, mec="white", mew=0.7, label=name)
    first = next(iter(scores.values()))
    draw.row_axis(ax, places, [classes[c] for c in order], first.class_metric)
    ax.set_xlim(left=-0.015)
    draw.legend(ax, above=True)
    means = "; ".join(f"{name} {one.plain:.1%}" for name, one in scores.items())
    draw.caption(ax, f"A row a class, the largest gain on top. Over all classes, {first.metric}: {means}.")
    return ax


@torch.no_grad()
def plot_attention(
    student: Student, images: PackedImages, index: int, *, top: int = 4, names: Sequence[str] | None = None
) -> Figure:
    """What the augmentation does to one image: attention on the prototypes with the highest peak, and |f⁺ - f|.

    The bars beside a padded picture are left out.

    Raises:
        IndexError: an image that is not there.
        ValueError: a student without prototypes in its augmentation.
    """
    (m,) = draw.checked_indices([index], len(images), "image")
    bank, augmentation = student.bank, student.feature_augmentation
    if not isinstance(augmentation, FeatureAugmentation) or bank is None or augmentation.content != "attention":
        raise ValueError(
            "this student attends to no prototypes: build it with bank= and FeatureAugmentationConfig('attention'); "
            "part maps are seen in plot_evidence"
        )
    labels = draw.names_of(bank.names if names is None else names, bank.num_prototypes)
    features = next(outputs(student, images.select([m]))).features  # (1, N, E)
    attention = augmentation.attention(features, bank.prototypes, enabled=bank.enabled)[0]  # (N, K)
    augmented = student.augmented(features)
    change = (features if augmented is None else augmented) - features
    shown = images.select([m]).in_picture(student.grid)[0]  # (N,)
    blank = np.where(shown, 0.0, np.nan)
    lengths, moved = draw.array(features[0].norm(dim=-1)), draw.array(change[0].norm(dim=-1)) + blank
    best = attention[shown].amax(0).argsort(descending=True)[:top].tolist()
    maps = (draw.array(attention.T)[best] + blank).reshape(-1, *student.grid)
    pixels = images.pixels[m]
    figure, axes = draw.panels(1, len(best) + 2, 1.45, below=0.75)
    first, *middle, last = axes[0]
    draw.show_image(first, pixels)
    for ax, values in zip(middle, maps, strict=True):
        heat = draw.overlay(ax, pixels, values, float(np.nanmin(maps)), float(np.nanmax(maps)))
    draw.colour_bar(heat, [first, *middle], "attention", location="bottom", shrink=0.5, aspect=40)
    heat = draw.overlay(last, pixels, moved.reshape(student.grid), 0.0, float(np.nanmax(moved)) or 1.0)
    draw.colour_bar(heat, last, "length", location="bottom", shrink=0.9, aspect=15)
    for ax, title in zip(axes[0], ("image", *(labels[k] for k in best), "change |f⁺ - f|"), strict=True):
        ax.set_title(title, fontsize=draw.SMALL)
    relative = float(np.nanmean(moved) / max(1e-9, lengths[shown].mean()))
    draw.caption(
        figure,
        f"{draw.short_name(images.ids[m])}: the {len(best)} prototypes with the highest peak of attention, on one "
        f"scale; uniform attention would be {1 / int(bank.enabled.sum()):.3f}. On average the augmentation moves a "
        f"feature by {relative:.1%} of its length.",
    )
    return figure
