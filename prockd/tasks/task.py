"""What every task offers; the training loop, the student and the scores know no more of a task than this."""

import csv
import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor, nn
from torchvision.ops import nms

from prockd.datasets import PackedImages
from prockd.datasets.transforms import Crops
from prockd.writing import write_file

Decoded = Sequence[Any] | np.ndarray
"""Predictions that people read, one an image: (M,) classes, (M, C) probabilities of tags, (M, S, S) masks, (M, J, 3)
joints, or a list of :class:`prockd.tasks.Boxes`."""


class ExportError(ValueError):
    """A student cannot be written in this format; the message says why and which format does."""


@dataclass(frozen=True, eq=False)
class Score:
    """How good predictions are.

    Attributes:
        value: the task's metric, 0..1.
        per_class: (C,) the same for each class; NaN where the images show none of it.
        details: other numbers worth a look, by name.
    """

    value: float
    per_class: np.ndarray
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Boxes:
    """The objects of one image, best first where they are predicted.

    Attributes:
        boxes: (n, 4) x0, y0, x1, y1 in pixels of the square image.
        labels: (n,) classes.
        scores: (n,) 0..1; 1 where they are the truth.
    """

    boxes: Float32[np.ndarray, "n 4"]
    labels: Int64[np.ndarray, " n"]
    scores: Float32[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, rows: np.ndarray) -> "Boxes":
        """Some of them, by index or by True and False."""
        return Boxes(self.boxes[rows], self.labels[rows], self.scores[rows])

    def above(self, score: float) -> "Boxes":
        """Those with at least this score."""
        return self.select(self.scores >= score)

    def distinct(self, iou: float = 0.5) -> "Boxes":
        """The best of each place, whatever its class: those that overlap no better one by more than this IoU."""
        return self.select(nms(torch.tensor(self.boxes), torch.tensor(self.scores), iou).numpy())


@dataclass(frozen=True, eq=False)
class Marks:
    """A decoded prediction, or the truth, of one image as a figure shows it: one of the four.

    Attributes:
        text: a line above the image; two equal lines agree.
        mask: (H, W) class of each pixel, ``IGNORE`` where nothing is drawn.
        boxes: frames of objects.
        points: (C, 3) x, y in pixels of a point of each class, and how sure it is, 0..1; of 0 are not drawn.
    """

    text: str = ""
    mask: UInt8[np.ndarray, "H W"] | None = None
    boxes: Boxes | None = None
    points: Float32[np.ndarray, "C 3"] | None = None


@dataclass(frozen=True, eq=False)
class Answer:
    """What is told of one picture, and where the square that the student saw lies in it.

    Attributes:
        name: path of the picture below its folder, with ``/``.
        size: height and width of the picture in pixels.
        frame: (4,) x0, y0, x1, y1 of the square in pixels of the picture; beyond it where the square has bars.
        side_px: side of the square in its own pixels.
        told: what :meth:`Task.answer` gives of one image, in pixels of the square.
    """

    name: str
    size: tuple[int, int]
    frame: Float32[np.ndarray, "4"]
    side_px: int
    told: Any

    def to_picture(self, xy: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        """Places in pixels of the square as places in pixels of the picture, the nearest ones where they are beyond."""
        low, high = np.split(self.frame, 2)
        return np.asarray(np.clip(xy * ((high - low) / self.side_px) + low, 0, self.size[::-1]))


@dataclass(frozen=True)
class Task(ABC):
    """A label space and everything that depends on it: subclass it as a frozen dataclass.

    A *prediction* is what the head returns for a batch, *targets* are what the loss compares it with, *decoded*
    predictions are what people read, in numpy. A new task writes ``head``, ``targets``, ``loss``, ``decode``, ``truth``
    and ``score`` (or ``counts`` and ``score_counts``); the rest has defaults. CONTRIBUTING.md shows a whole one.

    Args:
        num_classes: C.
        classes: names of the classes; empty for their numbers.

    Raises:
        ValueError: another number of names than of classes.
    """

    num_classes: int
    classes: tuple[str, ...] = ()

    data: ClassVar[str] = "classification"  # what it learns from: or "segmentation", "detection", "keypoints"
    fit: ClassVar[str] = "pad"  # how pictures become squares where nobody says, see prockd.datasets.pack
    pooled: ClassVar[bool] = False  # C scores of the whole image: they can be read of pooled patches, in closed form
    sure: ClassVar[float] = 0.0  # what is predicted with a lower score, 0..1, is left out of files and sheets
    stride: ClassVar[int] = 8  # image pixels in a cell of the finest map that it would like to read
    formats: ClassVar[tuple[str, ...]] = ()  # what its students are exported in, see prockd.students.export_student

    def __post_init__(self) -> None:
        names = self.classes
        if self.num_classes < 1 or (names and len(names) != self.num_classes):
            raise ValueError(f"num_classes={self.num_classes}, but {len(names)} classes are named: {', '.join(names)}")

    @classmethod
    def for_images(cls, images: PackedImages, **knobs: Any) -> "Task":
        """The task with the classes of these images; knobs are its own fields."""
        return cls(len(images.classes), tuple(images.classes), **knobs)

    @classmethod
    def knobs(cls) -> frozenset[str]:
        """Names of the knobs that :meth:`for_images` takes."""
        taken = {f.name for f in fields(cls)} | set(signature(cls.for_images).parameters)
        return frozenset(taken - {"num_classes", "classes", "images", "knobs"})

    @property
    def metric(self) -> str:
        """What :meth:`score` measures, in words."""
        return "score"

    @property
    def class_metric(self) -> str:
        """What it measures of one class."""
        return self.metric

    @property
    def names(self) -> tuple[str, ...]:
        """C names: the classes, or their numbers."""
        return self.classes or tuple(map(str, range(self.num_classes)))

    @abstractmethod
    def head(self, embed_dim: int, grid: tuple[int, int], image_px: int) -> nn.Module:
        """A new head; it maps features (B, N, E) on this grid, plain or augmented, to a prediction."""

    @abstractmethod
    def targets(self, images: PackedImages, rows: np.ndarray, crops: Crops, image_px: int) -> Any:
        """What is to be learned of some images, cut like them, at this size; ``len`` is the number of images."""

    @abstractmethod
    def loss(self, prediction: Any, targets: Any, smoothing: float = 0.0) -> Float[Tensor, ""]:
        """The task loss, a mean over images."""

    def fit_crops(self, images: PackedImages, rows: np.ndarray, crops: Crops) -> Crops:
        """Random crops of some images as the task can learn from them; all that is cut of the images is cut so."""
        return crops

    def consistency(self, prediction: Any, augmented: Any) -> Float[Tensor, ""]:
        """How far the augmented prediction is from the plain one of the same images (METHOD part 3, w3)."""
        return F.mse_loss(prediction, augmented)

    @abstractmethod
    def decode(self, prediction: Any, image_px: int) -> Decoded:
        """One decoded prediction an image, for images of this size."""

    def answer(self, prediction: Any, image_px: int) -> Decoded:
        """Decoded predictions with all that files tell of them, such as how sure they are: what :meth:`write` gets."""
        return self.decode(prediction, image_px)

    def write(self, answers: Iterable[Answer], folder: Path, sure: float) -> list[Path]:
        """Write what is told of pictures to files, in a form that :func:`prockd.open_data` reads where there is one.

        Args:
            answers: made as they are asked for, so that of many pictures no more is kept than the files need.
            folder: where the files go; it is there.
            sure: what is less sure, 0..1, is left out, where a task can.

        Returns:
            The files, or a folder of them.
        """
        rows = [{"path": answer.name, "answer": self.marks(answer.told).text} for answer in answers]
        return [write_table(folder / "answers.csv", rows)]

    @abstractmethod
    def truth(self, images: PackedImages) -> Decoded:
        """The truth in the form of a decoded prediction."""

    def trivial(self, train: PackedImages, count: int) -> Mapping[str, Decoded]:
        """Answers of one who knows the labelled images and looks at no other: by name, ``count`` predictions each.

        A student has to be above them. Without any, as for a task of your own, reports compare with chance alone.
        """
        return {}

    def check(self, images: PackedImages) -> None:
        """Refuse images that the task cannot learn from, by a ValueError that names the image and what is wrong."""
        name, sample = {
            "classification": ("labels", "Sample.label"),
            "segmentation": ("masks", "Sample.mask, a class for each pixel"),
            "detection": ("boxes", "Sample.boxes and Sample.box_labels"),
            "keypoints": ("joints", "Sample.joints, x, y and visibility of each"),
        }[self.data]
        if getattr(images, name) is None:
            raise ValueError(f"{images!r} has no {name}: {type(self).__name__} learns {sample}")

    def counts(self, decoded: Any, truth: Any) -> Float[np.ndarray, "B C 3"] | None:
        """Of each image and class: right, predicted wrongly, missed; None where the metric does not follow from sums.

        With counts :func:`prockd.prototype_effects` draws a bootstrap, without them it needs a jackknife.
        """
        return None

    def score_counts(self, counts: Float[np.ndarray, "... C 3"]) -> Float[np.ndarray, "... 1+C"]:
        """The metric of summed counts, of all classes and of each; NaN for a class that no image shows."""
        raise NotImplementedError(f"{type(self).__name__} has no counts: write counts and score_counts, or score")

    def score(self, decoded: Any, images: PackedImages) -> Score:
        """Compare decoded predictions with the truth; by their counts, where a task has them."""
        truth, total = self.truth(images), np.zeros((self.num_classes, 3))
        for m in range(0, len(images), 64):  # in parts: all masks at once would need eight times their memory
            counts = self.counts(decoded[m : m + 64], truth[m : m + 64])
            total += 0 if counts is None else counts.sum(0)
        whole, *each = self.score_counts(total)
        return Score(float(np.nan_to_num(whole)), np.array(each))

    def scorer(self, decoded: Any, images: PackedImages) -> Callable[[np.ndarray], Score]:
        """What scores some of these images, by their numbers, again and again."""
        return lambda rows: self.score(chosen(decoded, rows), images.select(rows))

    def marks(self, decoded: Any) -> Marks:
        """One decoded prediction, or one truth, as a figure shows it."""
        return Marks(" ".join(f"{value:g}" for value in np.ravel(decoded)))

    def check_format(self, format: str) -> None:
        """Refuse a format that its students cannot be exported in, by an ExportError that names those it has."""
        name = type(self).__name__
        if not self.formats:
            raise ExportError(f"{name} is a task of your own: export its head yourself")
        if format not in self.formats:
            raise ExportError(f"{format} has no form for {name}: export {name} as {' or '.join(self.formats)}")

    def graph_outputs(self, prediction: Any) -> dict[str, Tensor]:
        """A prediction as the named outputs of an ONNX graph."""
        return {"logits": prediction}

    def graph_constants(self, prediction: Any) -> dict[str, Tensor]:
        """What decoding these outputs takes besides, the same for every image."""
        return {}


def chosen(decoded: Decoded, rows: np.ndarray) -> Decoded:
    """Some decoded predictions, or truths, in the form that all have."""
    part = [decoded[m] for m in rows]
    return np.array(part) if isinstance(part[0], np.ndarray | np.generic) else part


def write_table(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """Write rows as CSV; the columns are those of the first one."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return write_file(path, text.getvalue())


def class_weights(weights: Sequence[float], prediction: Float[Tensor, "B C *S"]) -> Float[Tensor, " C"] | None:
    """The weights of the classes where the prediction lies, which is not waited for; None where there are none."""
    return torch.tensor(weights).to(prediction.device, prediction.dtype, non_blocking=True) if weights else None


def kl(prediction: Float[Tensor, "B C *S"], augmented: Float[Tensor, "B C *S"]) -> Float[Tensor, ""]:
    """KL(augmented || plain) of class scores, a mean over images and pixels."""
    plain, plus = prediction.log_softmax(1), augmented.log_softmax(1)
    return F.kl_div(plain, plus, reduction="none", log_target=True).sum(1).mean()


def recall_of_counts(counts: Float[np.ndarray, "... C 3"]) -> Float[np.ndarray, "... 1+C"]:
    """:meth:`Task.score_counts` of a share of right ones: of all, and of each class."""
    right, shown = counts[..., 0], counts[..., 0] + counts[..., 2]
    right, shown = (np.concatenate([n.sum(-1, keepdims=True), n], -1) for n in (right, shown))
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: a class that no image shows has no recall
        shares: np.ndarray = right / shown
    return shares


def class_counts(
    predicted: np.ndarray, truth: np.ndarray, num_classes: int, ignore: int | None = None
) -> Float[np.ndarray, "B C 3"]:
    """:meth:`Task.counts` of classes (B, ...), in images or pixels; where the truth is ``ignore``, nothing counts."""
    B, C = len(truth), num_classes
    predicted, truth = (np.reshape(classes, (B, -1)).astype(np.int64) for classes in (predicted, truth))
    kept = np.ones(truth.shape, bool) if ignore is None else truth != ignore
    rows = C * np.arange(B)[:, None]

    def tally(classes: np.ndarray, where: np.ndarray) -> np.ndarray:
        return np.bincount((rows + classes)[where], minlength=B * C).reshape(B, C)

    right = tally(truth, kept & (predicted == truth))
    return np.stack([right, tally(predicted, kept) - right, tally(truth, kept) - right], -1).astype(float)
