"""Test images with what is true of them and what the student says: classes, masks or boxes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from prockd._types import IGNORE
from prockd.datasets import PackedImages
from prockd.evaluation.scores import Scores
from prockd.plots._draw import COLOURS, SMALL, caption, panels, show_image, style
from prockd.tasks import Detection, Segmentation, Task
from prockd.tasks.detection import Boxes

SURE = 0.3
"""Detections below this score are not drawn, unless asked for."""
OVERLAP = 0.4
"""Of detections that overlap more than this, of whatever classes, the best one is drawn."""


def plot_predictions(
    scores: Scores | Mapping[str, Scores], images: PackedImages, task: Task, *, count: int = 8, sure: float = SURE
) -> Figure:
    """One column an image, evenly spread, and one row a way to see it.

    A detector often gives one place several boxes, of a class each: the best of them is drawn.

    Args:
        scores: of these images: the rows are the truth, z, and z+ where there is one. Several by name, such as those of
            a student before and after, are compared: the rows are the truth and the z of each.
        images: what was scored.
        task: tells classes, masks and boxes apart.
        count: images.
        sure: detections below this score are not drawn.

    Raises:
        ValueError: the scores are of another number of images, or there are none.
    """
    several = dict(scores) if isinstance(scores, Mapping) else {"plain z": scores}
    if not several:
        raise ValueError("no scores are given: pass what evaluate returned, or several by name")
    for told in several.values():
        if len(told.labels) != len(images):
            raise ValueError(f"scores of {len(told.labels)} images, but {len(images)} images are given")
    rows: dict[str, Any] = {"truth": next(iter(several.values())).labels}
    rows |= {name: told.predictions for name, told in several.items()}
    if isinstance(scores, Scores) and scores.augmented_predictions is not None:
        rows["augmented z⁺"] = scores.augmented_predictions
    chosen = np.unique(np.linspace(0, len(images) - 1, min(count, len(images))).astype(int)).tolist()
    dense = np.ndim(rows["truth"]) == 3 or isinstance(rows["truth"][0], Boxes)
    figure, axes = panels(1 + len(rows) if dense else 1, len(chosen), 1.25, below=0.08 if dense else 0.45)
    seen: set[int] = set()
    for column, m in enumerate(chosen):
        show_image(axes[0, column], images.pixels[m])
        if dense:
            for row, (name, told) in enumerate(rows.items(), 1):
                one = told[m].distinct(OVERLAP) if isinstance(told[m], Boxes) and name != "truth" else told[m]
                seen |= _draw(axes[row, column], images.pixels[m], one, task, sure)
        else:
            _write([_words(told[m], task) for told in rows.values()], axes[0, column])
    if dense:
        for ax, name in zip(axes[:, 0], ["image", *rows], strict=True):
            ax.set_ylabel(name, fontsize=SMALL)
        keys = [_key(task, c) for c in sorted(seen)[:24]]
        figure.legend(handles=keys, loc="outside right upper", fontsize=SMALL, frameon=False)
        what = (
            "Colours are classes; grey is none of them."
            if isinstance(task, Segmentation)
            else f"Predicted boxes: the best one of each place, with a score of at least {sure}."
        )
        caption(figure, what)
    else:
        caption(figure, f"Above each image, line by line: {', '.join(rows)}; green is right, red is wrong.")
    return figure


def _write(lines: Sequence[str], ax: Axes) -> None:
    """The truth and what is said of it, line by line above an image."""
    size = SMALL - 1
    for up, line in enumerate(reversed(lines)):
        colour = "#333333" if up == len(lines) - 1 else "#1B6E3C" if line == lines[0] else "#B3261E"
        up_pt = 3 + 1.25 * size * up
        ax.annotate(
            line, (0.5, 1), (0, up_pt), xycoords="axes fraction", textcoords="offset points", ha="center",
            fontsize=size, color=colour,
        )  # fmt: skip


def _draw(ax: Axes, pixels: np.ndarray, told: Any, task: Task, sure: float) -> set[int]:
    """One image with its mask or boxes; returns the classes drawn."""
    if isinstance(told, Boxes):
        show_image(ax, pixels)
        shown = told.above(sure)
        for (x0, y0, x1, y1), label in zip(shown.boxes.tolist(), shown.labels.tolist(), strict=True):
            colour, line = _look(task, label)
            for edge, width, drawn in (("white", 2.6, "-"), (colour, 1.6, line)):
                ax.add_patch(Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, ec=edge, lw=width, ls=drawn))
        return set(shown.labels.tolist())
    grey = pixels.mean(0, keepdims=True).repeat(3, 0).transpose(1, 2, 0) / 255
    ax.imshow((0.45 * grey + 0.55 * _colours(told, grey, task)).clip(0, 1), interpolation="nearest")
    return set(np.unique(told[told != IGNORE]).tolist()) - set(range(_has_background(task)))


def _colours(mask: np.ndarray, grey: np.ndarray, task: Task) -> Float[np.ndarray, "H W 3"]:
    """The colour of each pixel's class; grey where there is none, and on a background."""
    table = np.array([to_rgb(_look(task, c)[0]) for c in range(task.num_classes)])
    coloured: np.ndarray = table[np.minimum(mask, task.num_classes - 1)]
    return np.where(((mask == IGNORE) | (mask < _has_background(task)))[..., None], grey, coloured)


def _has_background(task: Task) -> bool:
    """Whether class 0 is all that is nothing else, and so stays grey."""
    return isinstance(task, Segmentation) and task.classes[:1] == ("background",)


def _look(task: Task, label: int) -> tuple[str, str]:
    """Colour and line of a class; lines tell classes of one colour apart."""
    number = label - _has_background(task)
    return style(number)[0], ("-", ":", "--", "-.")[number // len(COLOURS) % 4]


def _key(task: Task, label: int) -> Line2D:
    """A class in the legend."""
    colour, line = _look(task, label)
    boxed = {"lw": 1.6, "ls": line} if isinstance(task, Detection) else {"lw": 5}
    return Line2D([], [], color=colour, label=_name(task, label), **boxed)


def _words(told: Any, task: Task) -> str:
    """A class, or the tags that are more likely than not."""
    if np.ndim(told) == 0:
        return _name(task, int(told))
    return ", ".join(_name(task, c) for c in np.flatnonzero(np.asarray(told) >= 0.5).tolist()) or "nothing"


def _name(task: Task, label: int) -> str:
    return task.classes[label] if task.classes else str(label)
