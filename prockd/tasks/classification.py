"""Classification: pooled patches, one linear layer; one class an image, or any number of them."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor, nn

from prockd.datasets import PackedImages
from prockd.datasets.transforms import Crops
from prockd.tasks.heads import PooledLinear
from prockd.tasks.task import Answer, Marks, Score, Task, class_counts, class_weights, kl, recall_of_counts, write_table


@dataclass(frozen=True)
class Classification(Task):
    """Which class an image shows (its label), or which classes (its tags).

    Args:
        num_classes: C.
        classes: their names, for tables and figures.
        multi_label: learn tags, with a yes or no for each class.
        class_weights: C factors of the loss of each class, of its yes with ``multi_label``; empty for none. See
            :meth:`balanced`.
    """

    multi_label: bool = False
    class_weights: tuple[float, ...] = ()
    fit = "crop"
    pooled = True
    formats = ("timm", "onnx")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_classes < 2 and not self.multi_label:
            only = f", {self.classes[0]!r}" if self.classes else ""
            raise ValueError(f"there is one class{only}: classification needs two, each with a folder of its own")
        if self.class_weights and len(self.class_weights) != self.num_classes:
            raise ValueError(f"{len(self.class_weights)} class_weights for {self.num_classes} classes")

    @classmethod
    def for_images(cls, images: PackedImages, balanced: bool = False, **knobs: Any) -> "Classification":
        """The task with the classes of these images, multi-label where they have tags; see :meth:`balanced`."""
        knobs = {"multi_label": images.tags is not None, **knobs}
        task = cls(len(images.classes), tuple(images.classes), **knobs)
        return task.balanced(images) if balanced else task

    def balanced(self, images: PackedImages) -> "Classification":
        """The same task with weights for these images: rare classes count more, as if all were equally many.

        The weight is M / (C count) for labels, and the number of images without the class over those with it for tags.
        """
        truth = self.truth(images)
        if self.multi_label:
            yes = np.maximum(1, truth.sum(0))
            weights = (len(images) - yes).clip(1) / yes
        else:
            weights = len(images) / (self.num_classes * np.bincount(truth, minlength=self.num_classes).clip(1))
        return replace(self, class_weights=tuple(float(w) for w in weights))

    @property
    def metric(self) -> str:
        """Share of right classes; with tags the mean over classes of the average precision."""
        return "mean AP" if self.multi_label else "accuracy"

    @property
    def class_metric(self) -> str:
        """Share of a class's images that are right; with tags its average precision."""
        return "AP" if self.multi_label else "recall"

    def head(self, embed_dim: int, grid: tuple[int, int], image_px: int) -> nn.Module:
        """Mean of the patches, LayerNorm, linear layer."""
        return PooledLinear(embed_dim, self.num_classes)

    def targets(self, images: PackedImages, rows: np.ndarray, crops: Crops, image_px: int) -> Tensor:
        """(B,) labels, or (B, C) tags as 0 and 1."""
        targets = torch.from_numpy(self.truth(images)[rows])
        return targets.float() if self.multi_label else targets

    def loss(self, prediction: Float[Tensor, "B C"], targets: Tensor, smoothing: float = 0.0) -> Float[Tensor, ""]:
        """Mean cross-entropy; with tags the binary one, summed over classes."""
        weights = class_weights(self.class_weights, prediction)
        if not self.multi_label:
            return F.cross_entropy(prediction, targets, weight=weights, label_smoothing=smoothing)
        soft = targets * (1 - smoothing) + smoothing / 2
        each = F.binary_cross_entropy_with_logits(prediction, soft, pos_weight=weights, reduction="none")
        return each.sum(1).mean()

    def consistency(self, prediction: Float[Tensor, "B C"], augmented: Float[Tensor, "B C"]) -> Float[Tensor, ""]:
        """KL(augmented || plain), a mean over images; with tags summed over the yes and no of each class."""
        if self.multi_label:
            return binary_kl(prediction, augmented).sum(1).mean()
        return kl(prediction, augmented)

    def decode(self, prediction: Float[Tensor, "B C"], image_px: int) -> np.ndarray:
        """(B,) classes, or (B, C) probabilities of tags."""
        decoded = prediction.sigmoid() if self.multi_label else prediction.argmax(-1)
        return decoded.detach().cpu().numpy()

    def answer(self, prediction: Float[Tensor, "B C"], image_px: int) -> Float32[np.ndarray, "B C"]:
        """Probability of each class, or of each tag."""
        likely = prediction.float().sigmoid() if self.multi_label else prediction.float().softmax(-1)
        return likely.detach().cpu().numpy()

    def write(self, answers: Iterable[Answer], folder: Path, sure: float) -> list[Path]:
        """``classes.csv``: the class of each picture, or its tags from 0.5 on, and the probability of each class."""
        rows = []
        for answer in answers:
            likely = {f"probability of {n}": f"{p:.4f}" for n, p in zip(self.names, answer.told, strict=True)}
            tags = "|".join(self.names[c] for c in np.flatnonzero(answer.told >= 0.5))
            best = {"labels": tags} if self.multi_label else {"label": self.names[int(answer.told.argmax())]}
            rows.append({"path": answer.name} | best | likely)
        return [write_table(folder / "classes.csv", rows)]

    def truth(self, images: PackedImages) -> np.ndarray:
        """(M,) labels, or (M, C) tags."""
        if self.multi_label and images.tags is None:
            raise ValueError(f"{images!r} has no tags: Classification(multi_label=True) learns Sample.tags")
        return np.array(images.tags if self.multi_label else images.labels)

    def trivial(self, train: PackedImages, count: int) -> dict[str, np.ndarray]:
        """The most common class; with tags how common each one is."""
        truth = self.truth(train)
        if self.multi_label:
            return {"how common each tag is": np.tile(truth.mean(0, dtype=np.float32), (count, 1))}
        most = int(np.bincount(truth, minlength=self.num_classes).argmax())
        return {f"always {self.names[most]}": np.full(count, most)}

    def check(self, images: PackedImages) -> None:
        """Refuse labels outside the task; the message names the image, its label and the range."""
        truth = self.truth(images)
        if self.multi_label:
            if truth.shape[1] != self.num_classes:
                raise ValueError(f"images have tags of {truth.shape[1]} classes, but the task has {self.num_classes}")
            return
        for m in np.flatnonzero((truth < 0) | (truth >= self.num_classes)):
            raise ValueError(
                f"image {images.ids[m]!r} has label {truth[m]}, but the task has classes 0..{self.num_classes - 1}; "
                "pass images without a label as unlabelled="
            )

    def counts(self, decoded: np.ndarray, truth: np.ndarray) -> Float[np.ndarray, "B C 3"] | None:
        """Of labels, in images; average precision does not add up over images."""
        return None if self.multi_label else class_counts(decoded, truth, self.num_classes)

    def score_counts(self, counts: Float[np.ndarray, "... C 3"]) -> Float[np.ndarray, "... 1+C"]:
        """Accuracy, and recall of each class."""
        return recall_of_counts(counts)

    def score(self, decoded: np.ndarray, images: PackedImages) -> Score:
        """Accuracy and recall of each class; with tags the average precision, a mean over the classes that occur."""
        if not self.multi_label:
            return super().score(decoded, images)
        from torchmetrics.functional.classification import multilabel_average_precision

        predicted, truth = torch.from_numpy(np.asarray(decoded, np.float32)), torch.from_numpy(self.truth(images))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of classes that do not occur: they become NaN below
            each = multilabel_average_precision(predicted, truth.long(), self.num_classes, average="none")
        each = torch.where(truth.sum(0) > 0, each, torch.nan)
        return Score(float(each.nanmean().nan_to_num()), each.numpy())

    def marks(self, decoded: np.ndarray | np.integer[Any]) -> Marks:
        """The class, with its probability where that is known, or the tags that are more likely than not."""
        if np.ndim(decoded) == 0:
            return Marks(self.names[int(decoded)])
        if not self.multi_label:
            return Marks(f"{self.names[int(np.argmax(decoded))]} {np.max(decoded):.0%}")
        return Marks(", ".join(self.names[c] for c in np.flatnonzero(decoded >= 0.5)) or "nothing")


def binary_kl(logits: Tensor, augmented: Tensor) -> Tensor:
    """KL(augmented || plain) of each yes or no."""
    p = augmented.sigmoid()
    yes, no = F.logsigmoid(augmented) - F.logsigmoid(logits), F.logsigmoid(-augmented) - F.logsigmoid(-logits)
    return p * yes + (1 - p) * no
