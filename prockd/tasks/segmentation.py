"""Semantic segmentation: a small convolutional head on the student's map, cross-entropy + Dice, mean IoU."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int, UInt8
from PIL import Image
from torch import Tensor, nn

from prockd._types import IGNORE
from prockd.datasets import PackedImages
from prockd.datasets.transforms import Crops, cut_masks
from prockd.tasks.heads import ConvHead
from prockd.tasks.task import Answer, Marks, Score, Task, class_counts, class_weights, kl
from prockd.writing import write_file


@dataclass(frozen=True)
class Segmentation(Task):
    """The class of each pixel.

    Args:
        num_classes: C, the background included where it is a class.
        classes: their names.
        width: channels of the head, a multiple of 8.
        dice_weight: weight of the Dice loss beside the cross-entropy.
        class_weights: C factors of the cross-entropy of each class; empty for none.
    """

    width: int = 64
    dice_weight: float = 1.0
    class_weights: tuple[float, ...] = ()
    data = "segmentation"
    stride = 4  # small parts are lost on a coarser map
    metric = "mean IoU"
    class_metric = "IoU"
    formats = ("timm", "onnx")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width < 8 or self.width % 8:
            raise ValueError(f"Segmentation.width={self.width}: must be a multiple of 8")
        if self.class_weights and len(self.class_weights) != self.num_classes:
            raise ValueError(f"{len(self.class_weights)} class_weights for {self.num_classes} classes")

    def head(self, embed_dim: int, grid: tuple[int, int], image_px: int) -> nn.Module:
        """Two convolutions, and class scores of each pixel."""
        return ConvHead(embed_dim, self.width, self.num_classes, grid, image_px)

    def targets(self, images: PackedImages, rows: np.ndarray, crops: Crops, image_px: int) -> Tensor:
        """(B, S, S) classes, ``IGNORE`` where there is none."""
        return cut_masks(torch.from_numpy(np.array(self.truth(images)[rows])), crops, image_px)

    def loss(
        self, prediction: Float[Tensor, "B C S S"], targets: Int[Tensor, "B S S"], smoothing: float = 0.0
    ) -> Float[Tensor, ""]:
        """Cross-entropy of each pixel that has a class + Dice over the classes of the batch."""
        # a mean of its own: to ask first whether any pixel counts is to wait for the device
        weights, counted = class_weights(self.class_weights, prediction), targets != IGNORE
        loss = F.cross_entropy(
            prediction, targets, weight=weights, ignore_index=IGNORE, label_smoothing=smoothing, reduction="sum"
        )
        each = counted if weights is None else weights[targets.where(counted, 0)] * counted
        loss = loss / each.sum().clamp_min(1e-6)
        return loss + self.dice_weight * dice_loss(prediction, targets) if self.dice_weight else loss

    def consistency(
        self, prediction: Float[Tensor, "B C S S"], augmented: Float[Tensor, "B C S S"]
    ) -> Float[Tensor, ""]:
        """KL(augmented || plain), a mean over pixels."""
        return kl(prediction, augmented)

    def decode(self, prediction: Float[Tensor, "B C S S"], image_px: int) -> np.ndarray:
        """(B, H, W) classes."""
        if prediction.shape[-1] != image_px:
            prediction = F.interpolate(prediction, (image_px, image_px), mode="bilinear", align_corners=False)
        return prediction.argmax(1).to(torch.uint8).cpu().numpy()

    def truth(self, images: PackedImages) -> np.ndarray:
        """(M, S, S) masks."""
        super().check(images)
        assert images.masks is not None
        return images.masks

    def trivial(self, train: PackedImages, count: int) -> dict[str, np.ndarray]:
        """The most common class everywhere, and the one that is most common at each place (the mean mask)."""
        truth = self.truth(train)
        seen = np.stack([(truth == c).sum(0) for c in range(self.num_classes)])  # (C, S, S)
        most, shape = int(seen.sum((1, 2)).argmax()), (count, *truth.shape[1:])
        everywhere, mean = np.full(shape, most, np.uint8), np.broadcast_to(seen.argmax(0).astype(np.uint8), shape)
        return {f"all {self.names[most]}": everywhere, "mean mask": mean}

    def check(self, images: PackedImages) -> None:
        """Refuse images without masks, and masks with values that the task lacks; the message names them."""
        for name, mask in zip(images.ids, self.truth(images), strict=True):
            if wrong := [int(v) for v in np.unique(mask) if v >= self.num_classes and v != IGNORE]:
                raise ValueError(
                    f"the mask of image {name!r} holds {wrong[:5]}, but the task has classes 0..{self.num_classes - 1}"
                )

    def counts(self, decoded: np.ndarray, truth: np.ndarray) -> Float[np.ndarray, "B C 3"]:
        """In pixels, those without a class left out."""
        return class_counts(decoded, truth, self.num_classes, ignore=IGNORE)

    def score_counts(self, counts: Float[np.ndarray, "... C 3"]) -> Float[np.ndarray, "... 1+C"]:
        """Intersection over union of all pixels, a mean over the classes that occur, and of each."""
        occurs = counts[..., 0] + counts[..., 2] > 0
        with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: nothing of the class is there, nor of any
            each = np.where(occurs, counts[..., 0] / counts.sum(-1), np.nan)
            whole = np.nansum(each, -1, keepdims=True) / occurs.sum(-1, keepdims=True)
        return np.concatenate([whole, each], -1)

    def score(self, decoded: np.ndarray, images: PackedImages) -> Score:
        """Mean IoU over the pixels of all images; details give the accuracy of pixels."""
        truth = self.truth(images)
        right, counted = int(np.sum(decoded == truth)), int(np.sum(truth != IGNORE))
        return replace(super().score(decoded, images), details={"pixel accuracy": right / max(1, counted)})

    def answer(self, prediction: Float[Tensor, "B C S S"], image_px: int) -> Float32[np.ndarray, "B C S S"]:
        """Probability of each class in each pixel."""
        scores = F.interpolate(prediction.float(), (image_px, image_px), mode="bilinear", align_corners=False)
        return scores.softmax(1).detach().cpu().numpy()

    def write(self, answers: Iterable[Answer], folder: Path, sure: float) -> list[Path]:
        """``masks/NAME.png`` of the size of each picture, in colours whose numbers are the classes, and their names.

        They lie in ``classes.txt``. Pixels beyond the square that the student saw have the value ``IGNORE``.
        """
        masks, taken = folder / "masks", set[Path]()
        for answer in answers:
            path = masks / Path(answer.name).with_suffix(".png")
            if path in taken:  # a.jpg and a.png: the second keeps its whole name
                path = masks / f"{answer.name}.png"
            taken.add(path)
            picture = Image.fromarray(mask_of(answer))
            picture.putpalette(palette())
            write_file(path, picture.save)
        return [masks, write_file(folder / "classes.txt", "\n".join(self.names) + "\n")]

    def marks(self, decoded: np.ndarray) -> Marks:
        """The mask; a class that is named background is not drawn."""
        if decoded.ndim == 3:
            decoded = decoded.argmax(0).astype(np.uint8)
        background = decoded == (0 if self.classes[:1] == ("background",) else IGNORE)
        return Marks(mask=np.where(background, np.uint8(IGNORE), decoded))


def dice_loss(prediction: Float[Tensor, "B C S S"], targets: Int[Tensor, "B S S"]) -> Float[Tensor, ""]:
    """1 - Dice of each class that the batch shows, a mean over them; ignored pixels count for nothing."""
    C, counted = prediction.shape[1], targets != IGNORE
    guess = prediction.softmax(1) * counted[:, None]
    truth = F.one_hot(targets.where(counted, 0), C).movedim(-1, 1) * counted[:, None]
    both, total = (guess * truth).sum((0, 2, 3)), (guess + truth).sum((0, 2, 3))
    occurs = truth.sum((0, 2, 3)) > 0
    return ((1 - (2 * both + 1) / (total + 1)) * occurs).sum() / occurs.sum().clamp_min(1)


def mask_of(answer: Answer) -> UInt8[np.ndarray, "H W"]:
    """The likeliest class of each pixel of a picture; probabilities are stretched, so that edges are smooth."""
    (H, W), (x0, y0, x1, y1), side = answer.size, answer.frame.astype(float), answer.side_px
    # Where the picture and the square meet, in whole pixels of the picture, and the same place in the square.
    left, top, right, bottom = max(0, round(x0)), max(0, round(y0)), min(W, round(x1)), min(H, round(y1))
    across, down = side / (x1 - x0), side / (y1 - y0)
    box = tuple(
        min(max(0.0, place), side)
        for place in ((left - x0) * across, (top - y0) * down, (right - x0) * across, (bottom - y0) * down)
    )
    best, label = np.zeros((bottom - top, right - left), np.float32), np.zeros((bottom - top, right - left), np.uint8)
    for number, likely in enumerate(answer.told):  # one class at a time: all of a large picture would need gigabytes
        layer = Image.fromarray(likely).resize((right - left, bottom - top), Image.Resampling.BILINEAR, box=box)
        more = np.asarray(layer) > best
        label[more], best[more] = number, np.asarray(layer)[more]
    mask = np.full((H, W), IGNORE, np.uint8)
    mask[top:bottom, left:right] = label
    return mask


def palette() -> list[int]:
    """256 colours as PASCAL VOC has them, whose bits are spread over red, green and blue; 255 is almost white."""
    bits = [[sum((v >> (3 * k + c) & 1) << (7 - k) for k in range(3)) for c in range(3)] for v in range(256)]
    return [level for colour in bits for level in colour]
