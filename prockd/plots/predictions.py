"""Test images with their truth and what a student predicts: classes, masks, boxes or points."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from prockd._types import IGNORE
from prockd.datasets import PackedImages
from prockd.evaluation.scores import Scores
from prockd.plots import _draw as draw
from prockd.tasks import Marks, Task


def plot_predictions(
    scores: Scores | Mapping[str, Scores], images: PackedImages, task: Task, *, count: int = 8, sure: float = 0.3
) -> Figure:
    """One column an image, evenly spread, and one row a way to see it.

    A detector often gives one place several boxes, of a class each: the best of them is drawn.

    Args:
        scores: of these images: the rows are the truth, z, and z+ where there is one. Several by name, such as those of
            a student before and after, are compared: the rows are the truth and the z of each.
        images: what was scored.
        task: turns predictions into words, masks, boxes or points.
        count: images.
        sure: detections below this score are not drawn.

    Raises:
        ValueError: the scores are of another number of images, or there are none.
    """
    several = dict(scores) if isinstance(scores, Mapping) else {"plain z": scores}
    if not several:
        raise ValueError("no scores are given: pass what evaluate returned, or several by name")
    for each in several.values():
        if len(each.labels) != len(images):
            raise ValueError(f"scores of {len(each.labels)} images, but {len(images)} images are given")
    predictions = {"truth": next(iter(several.values())).labels}
    predictions |= {name: each.predictions for name, each in several.items()}
    if isinstance(scores, Scores) and scores.augmented_predictions is not None:
        predictions["augmented z⁺"] = scores.augmented_predictions
    selected = np.unique(np.linspace(0, len(images) - 1, min(count, len(images))).astype(int)).tolist()
    rows = {name: [task.marks(each[m]) for m in selected] for name, each in predictions.items()}
    first = rows["truth"][0]
    texts = first.mask is None and first.boxes is None and first.points is None
    figure, axes = draw.panels(1 if texts else 1 + len(rows), len(selected), 1.25, below=0.45 if texts else 0.08)
    drawn: set[int] = set()
    for column, m in enumerate(selected):
        draw.show_image(axes[0, column], images.pixels[m])
        if texts:
            _write([marks[column].text for marks in rows.values()], axes[0, column])
        for ax, (name, marks) in zip(axes[1:, column], rows.items(), strict=False):
            shown = _told(marks[column], rows["truth"][column])
            drawn |= _mark(ax, images.pixels[m], shown, sure, best=name != "truth")
    if texts:
        draw.caption(figure, f"Above each image, line by line: {', '.join(rows)}; green is right, red is wrong.")
        return figure
    for ax, name in zip(axes[:, 0], ["image", *rows], strict=True):
        ax.set_ylabel(draw.plain(name), fontsize=draw.SMALL)
    _explain(figure, first, {label: task.names[label] for label in sorted(drawn)[:24]}, sure)
    return figure


def plot_answers(
    squares: Sequence[np.ndarray], marks: Sequence[Marks], names: Sequence[str], task: Task, *, sure: float = 0.3,
    truth: bool = False,
) -> Figure:  # fmt: skip
    """A contact sheet: pictures, six a row, with what is told of each, and their names below.

    Args:
        squares: (3, S, S) pixels of each.
        marks: what is drawn on each, or written above it.
        names: of the pictures.
        task: names the classes.
        sure: boxes and points below this score are not drawn.
        truth: the marks are labels, of which all are drawn, and not what a student tells.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not squares:
        raise ValueError("no pictures are given: a contact sheet needs one")
    columns = min(6, len(squares))
    figure, axes = draw.panels(-(-len(squares) // columns), columns, 1.6, below=0.3)
    drawn: set[int] = set()
    for ax, pixels, mark, name in zip(axes.flat, squares, marks, names, strict=False):
        if mark.text:
            draw.show_image(ax, pixels)
            ax.set_title(draw.plain(mark.text), fontsize=draw.SMALL)
        else:
            points = None if mark.points is None else np.where(mark.points[:, 2:] >= sure, mark.points, 0)
            drawn |= _mark(ax, pixels, replace(mark, points=points), sure, best=not truth)
        ax.set_xlabel(draw.short_name(name), fontsize=draw.SMALL)
    if not marks[0].text:
        _explain(figure, marks[0], {label: task.names[label] for label in sorted(drawn)[:24]}, None if truth else sure)
    return figure


def _explain(figure: Figure, marks: Marks, names: Mapping[int, str], sure: float | None) -> None:
    """The legend of the classes that are drawn, and the caption."""
    if marks.points is not None:
        keys, text = [draw.legend_key(label, name) for label, name in names.items()], "A mark a joint that is visible."
    else:
        masked, looks = marks.mask is not None, {name: _look(label) for label, name in names.items()}
        keys = [
            Line2D([], [], color=colour, label=name, lw=5 if masked else 1.6, ls="-" if masked else line)
            for name, (colour, line) in looks.items()
        ]
        boxes = f"Predicted boxes: the best one of each place, with a score of at least {sure}."
        boxes = "All boxes of the data." if sure is None else boxes
        text = "Colours are classes; grey is none of them." if masked else boxes
    draw.legend(figure, keys)
    draw.caption(figure, text)


def _told(marks: Marks, truth: Marks) -> Marks:
    """The marks without the points that have no truth to be compared with."""
    if marks.points is None or truth.points is None:
        return marks
    return replace(marks, points=np.where(truth.points[:, 2:] > 0, marks.points, 0))


def _write(lines: Sequence[str], ax: Axes) -> None:
    """The truth and the predictions, line by line above an image."""
    size = draw.SMALL - 1
    for up, line in enumerate(reversed(lines)):
        colour = "#333333" if up == len(lines) - 1 else "#1B6E3C" if line == lines[0] else "#B3261E"
        ax.annotate(
            draw.plain(line), (0.5, 1), (0, 3 + 1.25 * size * up), xycoords="axes fraction", textcoords="offset points",
            ha="center", fontsize=size, color=colour,
        )  # fmt: skip


def _mark(ax: Axes, pixels: np.ndarray, marks: Marks, sure: float, *, best: bool) -> set[int]:
    """One image with its mask, points or boxes, of these the best of each place; returns the classes drawn."""
    if marks.points is not None:
        draw.show_image(ax, pixels)
        shown = [label for label, (*_, seen) in enumerate(marks.points.tolist()) if seen > 0]
        for label in shown:
            colour, marker = draw.style(label)
            x, y, _ = marks.points[label] - 0.5
            ax.plot(x, y, ls="", marker=marker, ms=4.5, mfc=colour, mec="white", mew=0.6)
        ax.set(xlim=(-0.5, pixels.shape[2] - 0.5), ylim=(pixels.shape[1] - 0.5, -0.5))
        return set(shown)
    if marks.boxes is not None:
        draw.show_image(ax, pixels)
        # Of boxes that overlap by more than 0.4, of whatever classes, the best one is drawn.
        boxes = marks.boxes.distinct(0.4).above(sure) if best else marks.boxes
        for (x0, y0, x1, y1), label in zip(boxes.boxes.tolist(), boxes.labels.tolist(), strict=True):
            colour, line = _look(label)
            for edge, width, dash in (("white", 2.6, "-"), (colour, 1.6, line)):
                ax.add_patch(Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, ec=edge, lw=width, ls=dash))
        return set(boxes.labels.tolist())
    assert marks.mask is not None
    labels, index = np.unique(marks.mask, return_inverse=True)
    grey = pixels.mean(0, keepdims=True).repeat(3, 0).transpose(1, 2, 0) / 255
    table = np.array([to_rgb(_look(label)[0]) for label in labels.tolist()])
    colours = np.where((marks.mask == IGNORE)[..., None], grey, table[index.reshape(marks.mask.shape)])
    ax.imshow((0.45 * grey + 0.55 * colours).clip(0, 1), interpolation="nearest")
    return set(labels.tolist()) - {IGNORE}


def _look(label: int) -> tuple[str, str]:
    """Colour and line of a class; lines tell classes of one colour apart."""
    return draw.style(label)[0], ("-", ":", "--", "-.")[label // len(draw.COLOURS) % 4]
