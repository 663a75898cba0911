"""Semantic segmentation: a small convolutional head on the student's map, cross-entropy + Dice, mean IoU."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from prockd._types import IGNORE
from prockd.datasets import PackedImages
from prockd.datasets.transforms import Crops, cut_masks
from prockd.tasks.task import Score, check_classes


class ConvHead(nn.Module):
    """Convolutions on the grid, then class scores, enlarged to the image: (B, N, E) -> (B, C, S, S).

    Group norms keep no running statistics, so plain and augmented features do not disturb each other.
    """

    def __init__(self, embed_dim: int, width: int, num_classes: int, grid: tuple[int, int], image_px: int) -> None:
        super().__init__()
        self.grid, self.image_px = grid, image_px
        norm = partial(nn.GroupNorm, 8)
        self.convs = nn.Sequential(
            Conv2dNormActivation(embed_dim, width, 3, norm_layer=norm, inplace=None),
            Conv2dNormActivation(width, width, 3, norm_layer=norm, inplace=None),
        )
        self.classify = nn.Conv2d(width, num_classes, 1)

    def forward(self, features: Float[Tensor, "B N E"]) -> Float[Tensor, "B C S S"]:
        """Class scores of each pixel."""
        B, _, E = features.shape
        coarse = self.classify(self.convs(features.transpose(1, 2).reshape(B, E, *self.grid)))
        return F.interpolate(coarse, (self.image_px, self.image_px), mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class Segmentation:
    """The class of each pixel.

    Args:
        num_classes: C, the background included where it is a class.
        classes: their names.
        width: channels of the head, a multiple of 8.
        dice_weight: weight of the Dice loss beside the cross-entropy.
        class_weights: C factors of the cross-entropy of each class; empty for none.
    """

    num_classes: int
    classes: tuple[str, ...] = ()
    width: int = 64
    dice_weight: float = 1.0
    class_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_classes(self.classes, self.num_classes)
        if self.width < 8 or self.width % 8:
            raise ValueError(f"Segmentation.width={self.width}: must be a multiple of 8")
        if self.class_weights and len(self.class_weights) != self.num_classes:
            raise ValueError(f"{len(self.class_weights)} class_weights for {self.num_classes} classes")

    @property
    def metric(self) -> str:
        """Intersection over union of all pixels, a mean over the classes that occur."""
        return "mean IoU"

    @property
    def stride(self) -> int:
        """Small parts are lost on a coarser map."""
        return 4

    def head(self, width: int, grid: tuple[int, int], image_px: int) -> nn.Module:
        """A new head that reads features of width E; it takes plain and augmented ones alike."""
        return ConvHead(width, self.width, self.num_classes, grid, image_px)

    def targets(self, images: PackedImages, rows: np.ndarray, crops: Crops, image_px: int) -> Tensor:
        """(B, S, S) classes, ``IGNORE`` where there is none."""
        return cut_masks(torch.from_numpy(np.array(self._masks(images)[rows])), crops, image_px)

    def loss(
        self, prediction: Float[Tensor, "B C S S"], targets: Int[Tensor, "B S S"], smoothing: float = 0.0
    ) -> Float[Tensor, ""]:
        """Cross-entropy of each known pixel + Dice over the classes of the batch."""
        if not (targets != IGNORE).any():
            return prediction.sum() * 0
        weights = prediction.new_tensor(self.class_weights) if self.class_weights else None
        loss = F.cross_entropy(prediction, targets, weight=weights, ignore_index=IGNORE, label_smoothing=smoothing)
        return loss + self.dice_weight * dice_loss(prediction, targets) if self.dice_weight else loss

    def consistency(
        self, prediction: Float[Tensor, "B C S S"], augmented: Float[Tensor, "B C S S"]
    ) -> Float[Tensor, ""]:
        """KL(augmented || plain), a mean over pixels."""
        plain, plus = prediction.log_softmax(1), augmented.log_softmax(1)
        return F.kl_div(plain, plus, reduction="none", log_target=True).sum(1).mean()

    def decode(self, prediction: Float[Tensor, "B C S S"], image_px: int) -> np.ndarray:
        """(B, H, W) classes."""
        if prediction.shape[-1] != image_px:
            prediction = F.interpolate(prediction, (image_px, image_px), mode="bilinear", align_corners=False)
        decoded: np.ndarray = prediction.argmax(1).to(torch.uint8).cpu().numpy()
        return decoded

    def score(self, decoded: np.ndarray, images: PackedImages) -> Score:
        """Mean IoU over the pixels of all images; details give the accuracy of pixels."""
        from torchmetrics.functional.classification import multiclass_confusion_matrix

        masks, table = self._masks(images), torch.zeros(self.num_classes, self.num_classes)
        for start in range(0, len(images), 64):  # in parts: all masks at once would need eight times their memory
            known = torch.from_numpy(np.array(masks[start : start + 64])).long()
            guess = torch.from_numpy(np.asarray(decoded[start : start + 64])).long()
            table = table + multiclass_confusion_matrix(guess, known, self.num_classes, ignore_index=IGNORE)
        right, shown = table.diagonal(), table.sum(1) > 0
        union = table.sum(0) + table.sum(1) - right
        each = torch.where(shown, right / union.clamp_min(1), torch.nan)
        value = float(each[shown].mean()) if shown.any() else 0.0
        return Score(value, each.numpy(), {"pixel accuracy": float(right.sum() / table.sum().clamp_min(1))})

    def truth(self, images: PackedImages) -> np.ndarray:
        """(M, S, S) masks."""
        return self._masks(images)

    def check(self, images: PackedImages) -> None:
        """Refuse images without masks, and masks of more classes than the task has.

        Raises:
            ValueError: names the image and the values that the task lacks.
        """
        for name, mask in zip(images.ids, self._masks(images), strict=True):
            values = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
            wrong = [int(v) for v in values if v >= self.num_classes and v != IGNORE]
            if wrong:
                raise ValueError(
                    f"the mask of image {name!r} holds {wrong[:5]}, but the task has classes 0..{self.num_classes - 1}"
                )

    def _masks(self, images: PackedImages) -> np.ndarray:
        if images.masks is None:
            raise ValueError(f"{images!r} has no masks: Segmentation learns Sample.mask, a class for each pixel")
        return images.masks


def dice_loss(prediction: Float[Tensor, "B C S S"], targets: Int[Tensor, "B S S"]) -> Float[Tensor, ""]:
    """1 - Dice of each class that the batch shows, a mean over them; ignored pixels count for nothing."""
    C, known = prediction.shape[1], targets != IGNORE
    guess = prediction.softmax(1) * known[:, None]
    truth = F.one_hot(targets.where(known, 0), C).movedim(-1, 1) * known[:, None]
    both, all_ = (guess * truth).sum((0, 2, 3)), (guess + truth).sum((0, 2, 3))
    shown = truth.sum((0, 2, 3)) > 0
    return (1 - (2 * both + 1) / (all_ + 1))[shown].mean()
