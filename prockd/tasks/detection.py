"""Object detection: FCOS, RetinaNet or Faster R-CNN on the student's map, COCO's mean average precision."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn
from torchvision.ops import nms

from prockd._extras import needs_extra
from prockd.datasets import PackedImages
from prockd.datasets.transforms import Crops, cut_boxes
from prockd.tasks.classification import binary_kl
from prockd.tasks.detectors import DETECTORS, DetectionHead, RawBoxes, Targets
from prockd.tasks.task import Score, check_classes


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

    def above(self, score: float) -> "Boxes":
        """Those with at least this score."""
        kept = self.scores >= score
        return Boxes(self.boxes[kept], self.labels[kept], self.scores[kept])

    def distinct(self, iou: float = 0.5) -> "Boxes":
        """The best of each place, whatever its class: those that overlap no better one by more than this IoU."""
        kept = nms(torch.tensor(self.boxes), torch.tensor(self.scores), iou).numpy()
        return Boxes(self.boxes[kept], self.labels[kept], self.scores[kept])


@dataclass(frozen=True)
class Detection:
    """A box around each object, and its class. Label smoothing is left out: the detectors' losses have none.

    Args:
        num_classes: C; there is no class for the background.
        classes: their names.
        detector: "fcos", "retinanet" or "fasterrcnn".
        width: channels of the detector, a multiple of 32.
        num_levels: maps of its pyramid; the finest is the student's, each further one is half as fine.
        dropout: share of the features' channels, 0..1, that the detector does without in each training step: with few
            boxes it otherwise learns them by heart.
    """

    num_classes: int
    classes: tuple[str, ...] = ()
    detector: str = "fcos"
    width: int = 64
    num_levels: int = 3
    dropout: float = 0.3

    def __post_init__(self) -> None:
        check_classes(self.classes, self.num_classes)
        if self.detector not in DETECTORS:
            raise ValueError(f"Detection.detector={self.detector!r}: choose one of {', '.join(map(repr, DETECTORS))}")
        if self.width < 32 or self.width % 32:
            raise ValueError(f"Detection.width={self.width}: must be a multiple of 32")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"Detection.dropout={self.dropout}: must be at least 0 and less than 1")

    @property
    def metric(self) -> str:
        """COCO's mean average precision, over IoU 0.5 to 0.95."""
        return "mAP"

    @property
    def stride(self) -> int:
        """Objects are larger than their parts."""
        return 8

    def head(self, width: int, grid: tuple[int, int], image_px: int) -> nn.Module:
        """A new detector that reads features of width E; it takes plain and augmented ones alike."""
        return DetectionHead(
            self.detector, width, self.width, self.num_levels, self.num_classes, grid, image_px, self.dropout
        )

    def targets(self, images: PackedImages, rows: np.ndarray, crops: Crops, image_px: int) -> Targets:
        """Boxes and labels of each crop."""
        boxes, labels = self._known(images)
        chosen = rows.tolist()
        return cut_boxes([boxes[m] for m in chosen], [labels[m] for m in chosen], images.image_px, crops, image_px)

    def loss(self, prediction: RawBoxes, targets: Targets, smoothing: float = 0.0) -> Float[Tensor, ""]:
        """The sum of the detector's own losses."""
        return torch.stack(list(prediction.head.losses(prediction, targets).values())).sum()

    def consistency(self, prediction: RawBoxes, augmented: RawBoxes) -> Float[Tensor, ""]:
        """KL(augmented || plain) of class scores + smooth L1 of box deltas, at the same places.

        A place counts as much as the augmented prediction sees an object there: most places show none.
        """
        name, other = "cls_logits", "bbox_regression"
        sure = augmented.outputs[name].detach().sigmoid().amax(-1)  # (B, A)
        apart = binary_kl(prediction.outputs[name], augmented.outputs[name]).sum(-1)
        moved = F.smooth_l1_loss(prediction.outputs[other], augmented.outputs[other], reduction="none").sum(-1)
        return ((apart + moved) * sure).sum() / sure.sum()

    def decode(self, prediction: RawBoxes, image_px: int) -> list[Boxes]:
        """Boxes of each image, best first, in pixels of an image of this size."""
        scale = image_px / prediction.head.image_px
        return [
            Boxes(*(found[name].cpu().numpy() for name in ("boxes", "labels", "scores")))
            for found in ({**f, "boxes": f["boxes"] * scale} for f in prediction.head.detect(prediction))
        ]

    def score(self, decoded: Sequence[Boxes], images: PackedImages) -> Score:
        """COCO's mAP of all classes that occur, and of each; details give it at IoU 0.5 and 0.75."""
        with needs_extra("detection", "Mean average precision"):
            import pycocotools  # noqa: F401 - torchmetrics counts with it
            from torchmetrics.detection import MeanAveragePrecision

        metric = MeanAveragePrecision(class_metrics=True)
        known = self.truth(images)
        metric.update(
            [{"boxes": torch.tensor(b.boxes), "labels": torch.tensor(b.labels), "scores": torch.tensor(b.scores)}
             for b in decoded],
            [{"boxes": torch.tensor(b.boxes), "labels": torch.tensor(b.labels)} for b in known],
        )  # fmt: skip
        result = metric.compute()
        each = np.full(self.num_classes, np.nan)
        each[result["classes"].numpy()] = result["map_per_class"].numpy()
        each[each < 0] = np.nan  # COCO's word for a class without any object
        details = {"AP at IoU 0.5": result["map_50"], "AP at IoU 0.75": result["map_75"]}
        return Score(
            max(0.0, float(result["map"])), each, {name: max(0.0, float(value)) for name, value in details.items()}
        )

    def truth(self, images: PackedImages) -> list[Boxes]:
        """Boxes of each image."""
        return [
            Boxes(boxes, labels, np.ones(len(labels), np.float32))
            for boxes, labels in zip(*self._known(images), strict=True)
        ]

    def check(self, images: PackedImages) -> None:
        """Refuse images without boxes (no objects are an empty array), and labels outside the task.

        Raises:
            ValueError: names the image, the label and the range.
        """
        _, labels = self._known(images)
        for name, mine in zip(images.ids, labels, strict=True):
            wrong = mine[(mine < 0) | (mine >= self.num_classes)]
            if len(wrong):
                raise ValueError(
                    f"image {name!r} has a box of label {wrong[0]}, but the task has classes "
                    f"0..{self.num_classes - 1}; pass images without labels as unlabelled="
                )
        if not any(map(len, labels)):
            raise ValueError(f"{images!r} shows no object at all: a detector learns nothing from it")

    def _known(self, images: PackedImages) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
        if images.boxes is None or images.box_labels is None:
            raise ValueError(f"{images!r} has no boxes: Detection learns Sample.boxes and Sample.box_labels")
        return images.boxes, images.box_labels
