"""Classification: pooled patches, one linear layer; one class an image, or any number of them."""

import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from prockd.datasets import PackedImages
from prockd.datasets.transforms import Crops
from prockd.tasks.task import Score, check_classes


class PooledLinear(nn.Module):
    """Mean over patches, LayerNorm, linear: (B, N, E) -> (B, C)."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, num_classes)

    def forward(self, features: Float[Tensor, "B N E"]) -> Float[Tensor, "B C"]:
        """Class scores of each image."""
        logits: Tensor = self.linear(self.norm(features.mean(1)))
        return logits


@dataclass(frozen=True)
class Classification:
    """Which class an image shows (its label), or which classes (its tags).

    Args:
        num_classes: C.
        classes: their names, for tables and figures.
        multi_label: learn tags, with a yes or no for each class.
        class_weights: C factors of the loss of each class, of its yes with ``multi_label``; empty for none. See
            :meth:`balanced`.
    """

    num_classes: int
    classes: tuple[str, ...] = ()
    multi_label: bool = False
    class_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_classes(self.classes, self.num_classes)
        if self.num_classes < 2 and not self.multi_label:
            only = f", {self.classes[0]!r}" if self.classes else ""
            raise ValueError(f"there is one class{only}: classification needs two, each with a folder of its own")
        if self.class_weights and len(self.class_weights) != self.num_classes:
            raise ValueError(f"{len(self.class_weights)} class_weights for {self.num_classes} classes")

    @property
    def metric(self) -> str:
        """Share of right classes; with tags the mean over classes of the average precision."""
        return "mean AP" if self.multi_label else "accuracy"

    @property
    def stride(self) -> int:
        """What is pooled need not be fine."""
        return 8

    def balanced(self, images: PackedImages) -> "Classification":
        """The same task with weights for these images: rare classes count more, as if all were equally many.

        The weight is M / (C count) for labels, and the number of images without the class over those with it for tags.
        """
        if self.multi_label:
            yes = np.maximum(1, self._known(images).sum(0))
            weights = (len(images) - yes).clip(1) / yes
        else:
            counts = np.maximum(1, np.bincount(self._known(images), minlength=self.num_classes))
            weights = len(images) / (self.num_classes * counts)
        return replace(self, class_weights=tuple(float(w) for w in weights))

    def head(self, width: int, grid: tuple[int, int], image_px: int) -> nn.Module:
        """A new head that reads features of width E; it takes plain and augmented ones alike."""
        return PooledLinear(width, self.num_classes)

    def targets(self, images: PackedImages, rows: np.ndarray, crops: Crops, image_px: int) -> Tensor:
        """(B,) labels, or (B, C) tags as 0 and 1."""
        known = torch.from_numpy(np.array(self._known(images)[rows]))
        return known.float() if self.multi_label else known

    def loss(self, prediction: Float[Tensor, "B C"], targets: Tensor, smoothing: float = 0.0) -> Float[Tensor, ""]:
        """Mean cross-entropy; with tags the binary one, summed over classes."""
        weights = prediction.new_tensor(self.class_weights) if self.class_weights else None
        if not self.multi_label:
            return F.cross_entropy(prediction, targets, weight=weights, label_smoothing=smoothing)
        soft = targets * (1 - smoothing) + smoothing / 2
        each = F.binary_cross_entropy_with_logits(prediction, soft, pos_weight=weights, reduction="none")
        return each.sum(1).mean()

    def consistency(self, prediction: Float[Tensor, "B C"], augmented: Float[Tensor, "B C"]) -> Float[Tensor, ""]:
        """KL(augmented || plain), a mean over images; with tags summed over the yes and no of each class."""
        if self.multi_label:
            return binary_kl(prediction, augmented).sum(1).mean()
        return F.kl_div(prediction.log_softmax(-1), augmented.log_softmax(-1), reduction="batchmean", log_target=True)

    def decode(self, prediction: Float[Tensor, "B C"], image_px: int) -> np.ndarray:
        """(B,) classes, or (B, C) probabilities of tags."""
        decoded: np.ndarray = (
            (prediction.sigmoid() if self.multi_label else prediction.argmax(-1)).detach().cpu().numpy()
        )
        return decoded

    def score(self, decoded: np.ndarray, images: PackedImages) -> Score:
        """Accuracy and recall of each class; with tags the average precision, a mean over the classes that occur."""
        from torchmetrics.functional.classification import multiclass_recall, multilabel_average_precision

        predicted, known = torch.from_numpy(np.asarray(decoded)), torch.from_numpy(np.array(self._known(images)))
        shown = known.sum(0) > 0 if self.multi_label else torch.bincount(known, minlength=self.num_classes) > 0
        if self.multi_label:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of classes that do not occur: they become NaN below
                each = multilabel_average_precision(predicted, known.long(), self.num_classes, average="none")
            value = float(each[shown].mean()) if shown.any() else 0.0
        else:
            each = multiclass_recall(predicted, known, self.num_classes, average="none")
            value = float((predicted == known).double().mean())
        return Score(value, torch.where(shown, each, torch.nan).numpy())

    def truth(self, images: PackedImages) -> np.ndarray:
        """(M,) labels, or (M, C) tags."""
        return np.array(self._known(images))

    def check(self, images: PackedImages) -> None:
        """Refuse labels outside the task.

        Raises:
            ValueError: names the image, its label and the range.
        """
        known = self._known(images)
        if self.multi_label:
            if known.shape[1] != self.num_classes:
                raise ValueError(f"images have tags of {known.shape[1]} classes, but the task has {self.num_classes}")
            return
        for i in np.flatnonzero((known < 0) | (known >= self.num_classes)):
            raise ValueError(
                f"image {images.ids[i]!r} has label {known[i]}, but the task has classes 0..{self.num_classes - 1}; "
                "pass images without a label as unlabelled="
            )

    def _known(self, images: PackedImages) -> np.ndarray:
        if not self.multi_label:
            return images.labels
        if images.tags is None:
            raise ValueError(f"{images!r} has no tags: Classification(multi_label=True) learns Sample.tags")
        return images.tags


def binary_kl(logits: Tensor, augmented: Tensor) -> Tensor:
    """KL(augmented || plain) of each yes or no."""
    p = augmented.sigmoid()
    yes, no = F.logsigmoid(augmented) - F.logsigmoid(logits), F.logsigmoid(-augmented) - F.logsigmoid(-logits)
    return p * yes + (1 - p) * no
