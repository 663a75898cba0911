"""Object detection: FCOS, RetinaNet or Faster R-CNN on the student's map, COCO's mean average precision."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from prockd._extras import needs_extra
from prockd.datasets import PackedImages
from prockd.datasets.transforms import Crops, cut_boxes
from prockd.tasks.classification import binary_kl
from prockd.tasks.detectors import DETECTORS, DetectionHead, RawBoxes, Targets
from prockd.tasks.task import Answer, Boxes, ExportError, Marks, Score, Task
from prockd.writing import write_json


@dataclass(frozen=True)
class Detection(Task):
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

    detector: str = "fcos"
    width: int = 64
    num_levels: int = 3
    dropout: float = 0.3
    data = "detection"
    sure = 0.3
    metric = "mAP"
    class_metric = "AP"
    formats = ("timm", "torchvision", "onnx")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.detector not in DETECTORS:
            raise ValueError(f"Detection.detector={self.detector!r}: choose one of {', '.join(map(repr, DETECTORS))}")
        if self.width < 32 or self.width % 32:
            raise ValueError(f"Detection.width={self.width}: must be a multiple of 32")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"Detection.dropout={self.dropout}: must be at least 0 and less than 1")

    def head(self, embed_dim: int, grid: tuple[int, int], image_px: int) -> nn.Module:
        """A pyramid of maps and a detector of torchvision."""
        return DetectionHead(
            self.detector, embed_dim, self.width, self.num_levels, self.num_classes, grid, image_px, self.dropout
        )

    def targets(self, images: PackedImages, rows: np.ndarray, crops: Crops, image_px: int) -> Targets:
        """Boxes and labels of each crop."""
        boxes, labels = self.annotations(images)
        return cut_boxes([boxes[m] for m in rows], [labels[m] for m in rows], images.image_px, crops, image_px)

    def loss(self, prediction: RawBoxes, targets: Targets, smoothing: float = 0.0) -> Float[Tensor, ""]:
        """The sum of the detector's own losses."""
        return torch.stack(list(prediction.head.losses(prediction, targets).values())).sum()

    def consistency(self, prediction: RawBoxes, augmented: RawBoxes) -> Float[Tensor, ""]:
        """KL(augmented || plain) of class scores + smooth L1 of box deltas, at the same places."""
        name, other = "cls_logits", "bbox_regression"
        # (B, A) a place counts as much as the augmented prediction sees an object there: most places show none
        sure = augmented.outputs[name].detach().sigmoid().amax(-1)
        apart = binary_kl(prediction.outputs[name], augmented.outputs[name]).sum(-1)
        moved = F.smooth_l1_loss(prediction.outputs[other], augmented.outputs[other], reduction="none").sum(-1)
        return ((apart + moved) * sure).sum() / sure.sum()

    def decode(self, prediction: RawBoxes, image_px: int) -> list[Boxes]:
        """Boxes of each image, best first, in pixels of an image of this size."""
        scale = image_px / prediction.head.image_px
        return [
            Boxes((one["boxes"] * scale).cpu().numpy(), one["labels"].cpu().numpy(), one["scores"].cpu().numpy())
            for one in prediction.head.detect(prediction)
        ]

    def write(self, answers: Iterable[Answer], folder: Path, sure: float) -> list[Path]:
        """``instances.json`` as COCO has it: pictures, categories, and boxes with their scores."""
        images, annotations = list[dict[str, object]](), list[dict[str, object]]()
        for answer in answers:
            H, W = answer.size
            images.append({"id": len(images) + 1, "file_name": answer.name, "width": W, "height": H})
            told: Boxes = answer.told.above(sure)
            corners = answer.to_picture(told.boxes.reshape(-1, 2, 2)).reshape(-1, 4)
            for (x0, y0, x1, y1), label, score in zip(
                corners.tolist(), told.labels.tolist(), told.scores.tolist(), strict=True
            ):
                if x1 > x0 and y1 > y0:  # else it lies in the bars beside the picture
                    box = [round(value, 2) for value in (x0, y0, x1 - x0, y1 - y0)]
                    annotations.append({
                        "id": len(annotations) + 1, "image_id": len(images), "category_id": label + 1, "bbox": box,
                        "area": round((x1 - x0) * (y1 - y0), 2), "iscrowd": 0, "score": round(score, 4),
                    })  # fmt: skip
        categories = [{"id": label + 1, "name": name} for label, name in enumerate(self.names)]
        content = {"images": images, "categories": categories, "annotations": annotations}
        return [write_json(folder / "instances.json", content)]

    def score(self, decoded: Sequence[Boxes], images: PackedImages) -> Score:
        """COCO's mAP of all classes that occur, and of each; details give it at IoU 0.5 and 0.75."""
        return self.scorer(decoded, images)(np.arange(len(images)))

    def scorer(self, decoded: Any, images: PackedImages) -> Callable[[np.ndarray], Score]:
        """As :meth:`Task.scorer`: boxes are matched once, and precisions are accumulated over the images asked for."""
        from pycocotools.cocoeval import COCOeval

        with redirect_stdout(None):
            coco = COCOeval(self._coco(self.truth(images)), self._coco(decoded), "bbox")
            coco.params.maxDets, coco.params.areaRng, coco.params.areaRngLbl = [100], [[0, 1e10]], ["all"]
            coco.evaluate()
        matches = np.array(coco.evalImgs, object).reshape(self.num_classes, len(images))

        def scored(rows: np.ndarray) -> Score:
            coco.evalImgs = matches[:, rows].ravel().tolist()
            coco.params.imgIds = coco._paramsEval.imgIds = list(range(len(rows)))
            with redirect_stdout(None):
                coco.accumulate()
            found = coco.eval["precision"][..., 0, 0]  # (IoU, recall, C); -1 for a class without any object
            found = np.where(found < 0, np.nan, found).mean(1)
            shown = found[:, ~np.isnan(found[0])]
            value, half, strict = (float(shown[at].mean()) if shown.size else 0.0 for at in (slice(None), 0, 5))
            return Score(value, found.mean(0), {"AP at IoU 0.5": half, "AP at IoU 0.75": strict})

        return scored

    def _coco(self, images: Sequence[Boxes]) -> Any:
        """Boxes as pycocotools takes them; numbers begin at 1, since 0 is its word for no match."""
        from pycocotools.coco import COCO

        told, annotations = COCO(), list[dict[str, Any]]()
        for m, one in enumerate(images):
            corners = one.boxes.astype(float)
            sizes = corners[:, 2:] - corners[:, :2]
            for xy, wh, label, score in zip(corners[:, :2], sizes, one.labels, one.scores, strict=True):
                annotations.append({
                    "id": len(annotations) + 1, "image_id": m, "category_id": int(label), "bbox": [*xy, *wh],
                    "area": wh.prod(), "iscrowd": 0, "score": float(score),
                })  # fmt: skip
        categories = [{"id": label} for label in range(self.num_classes)]
        told.dataset = {
            "images": [{"id": m} for m in range(len(images))], "categories": categories, "annotations": annotations,
        }  # fmt: skip
        told.createIndex()
        return told

    def truth(self, images: PackedImages) -> list[Boxes]:
        """Boxes of each image."""
        pairs = zip(*self.annotations(images), strict=True)
        return [Boxes(boxes, labels, np.ones(len(labels), np.float32)) for boxes, labels in pairs]

    def trivial(self, train: PackedImages, count: int) -> dict[str, list[Boxes]]:
        """The mean box of each class, as likely as images show one."""
        boxes, labels = (np.concatenate(list(each)) for each in self.annotations(train))
        shown = [c for c in range(self.num_classes) if (labels == c).any()]
        likely = [np.mean([(one == c).any() for one in self.annotations(train)[1]]) for c in shown]
        order = np.argsort(likely)[::-1]
        means = np.array([boxes[labels == c].mean(0) for c in shown], np.float32).reshape(-1, 4)
        mean = Boxes(means[order], np.array(shown, np.int64)[order], np.array(likely, np.float32)[order])
        return {"mean boxes": [mean] * count}

    def check(self, images: PackedImages) -> None:
        """Refuse images without boxes (no objects are an empty array), labels outside the task and a missing extra."""
        # what counts the score is needed before a night of training, not after it
        with needs_extra("detection", "Mean average precision"):
            import pycocotools  # noqa: F401
        labels = self.annotations(images)[1]
        for name, mine in zip(images.ids, labels, strict=True):
            if len(wrong := mine[(mine < 0) | (mine >= self.num_classes)]):
                raise ValueError(
                    f"image {name!r} has a box of label {wrong[0]}, but the task has classes "
                    f"0..{self.num_classes - 1}; pass images without labels as unlabelled="
                )
        if not any(map(len, labels)):
            raise ValueError(f"{images!r} shows no object at all: a detector learns nothing from it")

    def annotations(self, images: PackedImages) -> tuple[Sequence[np.ndarray], Sequence[np.ndarray]]:
        """Boxes (n, 4) and labels (n,) of each image; refused where there are none."""
        super().check(images)
        assert images.boxes is not None
        assert images.box_labels is not None
        return images.boxes, images.box_labels

    def marks(self, decoded: Boxes) -> Marks:
        """A frame around each object."""
        return Marks(boxes=decoded)

    def check_format(self, format: str) -> None:
        """Refuse a graph of Faster R-CNN."""
        if format == "onnx" and self.detector == "fasterrcnn":
            raise ExportError(
                "Faster R-CNN looks twice, which no plain graph does: export it as torchvision, or train fcos"
            )
        super().check_format(format)

    def graph_outputs(self, prediction: RawBoxes) -> dict[str, Tensor]:
        """Class scores, box deltas and, for FCOS, centredness at every place."""
        return prediction.outputs

    def graph_constants(self, prediction: RawBoxes) -> dict[str, Tensor]:
        """(A, 4) anchors."""
        return {"anchors": prediction.head.anchors(prediction)[0]}
