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
from prockd.plots._draw import (
    SMALL,
    caption,
    checked_index,
    colour_bar,
    draw_shares,
    legend_key,
    names_of,
    overlay,
    own_or_new,
    panels,
    short_name,
    show_image,
    style,
)
from prockd.students.student import Student
from prockd.training.loop import History


def plot_curves(
    histories: Mapping[str, History], terms: Sequence[str] | None = None, *, ax: Axes | None = None
) -> Axes:
    """Training curves: each term a colour, each run a line style (one term alone: each run a colour).

    Long curves are shown as running means over a twentieth of their length, the raw values faint behind them.

    Raises:
        ValueError: no history has any such term; the message names what there is.
    """
    there = list(dict.fromkeys(key for h in histories.values() for row in h.rows for key in row))
    there = [key for key in there if key not in ("step", "lr", "seconds")]
    chosen = list(there if terms is None else terms)
    if not set(chosen) & set(there):
        raise ValueError(
            f"no curve of {', '.join(chosen) or 'anything'}: these histories have {', '.join(there) or 'none'}"
        )
    ax = own_or_new(ax, 7.2, 4.0)
    low, high = np.inf, 0.0
    for i, (run, history) in enumerate(histories.items()):
        for j, term in enumerate(chosen):
            steps, values = history.curve(term)
            if not steps:
                continue
            width = max(1, len(values) // 20)
            smooth = np.convolve(values, np.ones(width) / width, "valid")
            colour = style(j if len(chosen) > 1 else i)[0]
            line = ("-", "--", ":", "-.")[i % 4] if len(chosen) > 1 else "-"
            label = ": ".join([run] * (len(histories) > 1) + [term] * (len(chosen) > 1)) or term
            if width > 1:
                ax.plot(steps, values, color=colour, lw=0.6, alpha=0.3)
            dots = "o" if len(values) < 12 else ""  # one value alone would be an invisible line
            ax.plot(steps[width - 1 :], smooth, color=colour, ls=line, lw=1.7, marker=dots, ms=3.5, label=label)
            low, high = min(low, float(np.min(smooth))), max(high, float(np.max(smooth)))
    if low > 0 and high / low > 20:
        ax.set_yscale("log")
    ax.set_xlabel("step")
    ax.set_ylabel(chosen[0] if len(chosen) == 1 else "loss term")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(fontsize=SMALL, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    ends = "; ".join(f"{run} {h.step:,} steps{', stopped early' if h.stopped else ''}" for run, h in histories.items())
    caption(ax, f"Runs: {ends}.")
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
    ax = own_or_new(ax, 7.2, 1.5 + 0.44 * (len(rows) + len(groups)))
    ticks: list[tuple[float, str, str]] = []
    y, seeds = 0.0, set()
    for group in groups:
        ticks.append((y, f"{group} images a class", "bold"))
        for row in (r for r in rows if int(str(r["labels_per_class"])) == group):
            y += 1
            ticks.append((y, str(row["name"]), "normal"))
            for kind, (key, offset) in enumerate((("values", 0.0), ("augmented", 0.4))):
                values = np.asarray(row.get(key) if row.get(key) is not None else [], float)
                if not len(values):
                    continue
                seeds.add(len(values))
                colour, marker = style(kind)
                ax.plot(values, np.full(len(values), y + offset - 0.17), ".", color=colour, alpha=0.6, ms=5, mew=0)
                mean, low, high = paired_interval(values) if len(values) > 1 else (values[0],) * 3
                ax.plot([low, high], [y + offset] * 2, color=colour, lw=2, solid_capstyle="butt")
                ax.plot(mean, y + offset, marker, color=colour, ms=5.5, mec="white", mew=0.8)
                ax.annotate(f"{mean:.1%}", (max(high, values.max()), y + offset), (5, 0), textcoords="offset points",
                            va="center", fontsize=6.5, color="#444444")  # fmt: skip
        y += 1.2
    ax.set_yticks([t[0] for t in ticks], [t[1] for t in ticks], fontsize=SMALL)
    for label, (_, _, weight) in zip(ax.get_yticklabels(), ticks, strict=True):
        label.set_fontweight(weight)
    ax.set_ylim(y - 0.4, -0.7)
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.grid(axis="x", alpha=0.25)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.set_xlabel("accuracy on test images", fontsize=SMALL + 1)
    drawn = [(0, "plain z"), (1, "augmented z⁺")][: 2 if any(r.get("augmented") is not None for r in rows) else 1]
    ax.legend(
        handles=[legend_key(k, text) for k, text in drawn],
        fontsize=SMALL,
        frameon=False,
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=2,
    )
    count = f"{min(seeds)}" if len(seeds) == 1 else f"{min(seeds)} to {max(seeds)}"
    caption(ax, f"Dots are seeds ({count} a row); bars are 95 % intervals of the mean over seeds.")
    return ax


def plot_class_scores(scores: Mapping[str, Scores], classes: Sequence[str], *, ax: Axes | None = None) -> Axes:
    """The metric of each class for the z of several students, the largest gain of the last over the first on top.

    Raises:
        ValueError: there are no scores, or they tell nothing of each class.
    """
    each = [told.per_class for told in scores.values()]
    known = [values for values in each if values is not None]
    if not known or len(known) < len(each):
        raise ValueError("no scores of each class: pass what evaluate returned, by name")
    order = np.argsort(np.nan_to_num(known[-1] - known[0], nan=-np.inf))  # a class that no image shows comes last
    ax = own_or_new(ax, 6.4, 1.3 + 0.24 * len(classes))
    places = np.arange(len(classes))
    low, high = np.min(known, axis=0)[order], np.max(known, axis=0)[order]
    ax.hlines(places, low, high, color="#C4C9CE", lw=2, zorder=1)
    for i, (name, values) in enumerate(zip(scores, known, strict=True)):
        colour, marker = style(i)
        ax.plot(values[order], places, marker, color=colour, ms=6, mec="white", mew=0.7, label=name)
    ax.set_yticks(places, [classes[c] for c in order], fontsize=SMALL)
    first = next(iter(scores.values()))
    ax.set_xlim(left=-0.015)
    ax.set_xlabel(first.class_metric, fontsize=SMALL + 1)
    ax.grid(axis="x", alpha=0.25)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.legend(fontsize=SMALL, frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(known))
    means = "; ".join(f"{name} {told.plain:.1%}" for name, told in scores.items())
    caption(ax, f"A row a class, the largest gain on top. Over all classes, {first.metric}: {means}.")
    return ax


def plot_confusion(scores: Scores, classes: Sequence[str], *, augmented: bool = False, ax: Axes | None = None) -> Axes:
    """True classes by predicted classes of z, or of z+ when ``augmented``; rows sum to 100 %.

    Raises:
        ValueError: ``augmented`` scores of a student without augmentation.
    """
    predictions = scores.augmented_predictions if augmented else scores.predictions
    if predictions is None:
        raise ValueError("this student has no augmented prediction: it was built without a bank or augmentation")
    table = np.zeros((len(classes), len(classes)))
    np.add.at(table, (scores.labels, predictions), 1)
    ax = draw_shares(table, list(classes), "predicted", "true", ax)
    right = int((predictions == scores.labels).sum())
    kind = "augmented prediction z⁺" if augmented else "plain prediction z"
    ax.set_title(
        f"{kind}: {right:,} of {len(predictions):,} right ({right / len(predictions):.1%})", fontsize=SMALL + 2
    )
    caption(ax, "Share of each true class, in percent; the diagonal is right.")
    return ax


@torch.no_grad()
def plot_attention(
    student: Student, images: PackedImages, index: int, *, top: int = 4, names: Sequence[str] | None = None
) -> Figure:
    """What the augmentation does to one image: attention on the prototypes with the highest peak, and |f⁺ - f|.

    Raises:
        IndexError: an image that is not there.
        ValueError: a student without prototypes in its augmentation.
    """
    m = checked_index(index, len(images), "image")
    if (
        student.feature_augmentation is None
        or student.bank is None
        or student.feature_augmentation.content != "prototypes"
    ):
        raise ValueError(
            "this student attends to no prototypes: build it with bank= and FeatureAugmentationConfig('prototypes')"
        )
    labels = names_of(student.bank.names if names is None else names, student.bank.num_prototypes)
    features = next(outputs(student, images.select([m]))).features  # (1, N, E)
    attention = student.feature_augmentation.attention(features, student.bank.prototypes, enabled=student.bank.enabled)[
        0
    ].cpu()
    augmented = student.augmented(features)
    change = torch.zeros(features.shape[1]) if augmented is None else (augmented - features)[0].norm(dim=-1).cpu()
    relative = float(change.mean() / features[0].norm(dim=-1).mean().cpu().clamp_min(1e-9))
    best = attention.amax(0).argsort(descending=True)[:top].tolist()
    pixels, low, high = images.pixels[m], float(attention[:, best].min()), float(attention.max())
    figure, axes = panels(1, len(best) + 2, 1.45, below=0.75)
    show_image(axes[0, 0], pixels)
    axes[0, 0].set_title("image", fontsize=SMALL)
    for ax, k in zip(axes[0, 1:-1], best, strict=True):
        heat = overlay(ax, pixels, attention[:, k].reshape(student.grid).numpy(), low, high)
        ax.set_title(labels[k], fontsize=SMALL)
    colour_bar(heat, list(axes[0, :-1]), "attention", location="bottom", shrink=0.5, aspect=40)
    moved = overlay(axes[0, -1], pixels, change.reshape(student.grid).numpy(), 0.0, float(change.max()) or 1.0)
    axes[0, -1].set_title("change |f⁺ - f|", fontsize=SMALL)
    colour_bar(moved, axes[0, -1], "length", location="bottom", shrink=0.9, aspect=15)
    uniform = 1 / int(student.bank.enabled.sum())
    about = (
        f"{short_name(images.ids[m])}: the {len(best)} prototypes with the highest peak of attention, on one scale; "
        f"uniform attention would be {uniform:.3f}. On average the augmentation moves a feature by {relative:.1%} of "
        "its length."
    )
    caption(figure, about)
    return figure
