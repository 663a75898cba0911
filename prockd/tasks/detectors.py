"""torchvision's detectors on one feature map, with a small pyramid: their anchors, matching, losses and decoding.

torchvision's own ``forward`` goes from images to losses or boxes in one go. A student stops in between, at
:class:`RawBoxes`, where consistency compares both predictions and an ONNX graph ends; so the parts of the detectors are
called one by one. An export copies this file as it is, so it imports nothing but torch and torchvision.
"""

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import faster_rcnn, fcos, retinanet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops import Conv2dNormActivation, MultiScaleRoIAlign

LIMITS = {"score_thresh": 0.02, "detections_per_img": 100, "topk_candidates": 200}
"""Weak boxes are kept, for the precision-recall curve; a picture asks for its own threshold."""

Targets = list[dict[str, Tensor]]


@dataclass(frozen=True, eq=False)
class RawBoxes:
    """The output of a detector at every place of its pyramid, before boxes are picked.

    Attributes:
        head: whose output it is; it holds the anchors and the second stage, where there is one.
        levels: maps of the pyramid, (B, width, h, w), finest first.
        outputs: torchvision's names: ``cls_logits`` (B, A, C) (one objectness for Faster R-CNN), ``bbox_regression``
            (B, A, 4) and for FCOS ``bbox_ctrness`` (B, A, 1).
    """

    head: "DetectionHead"
    levels: list[Tensor]
    outputs: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.levels[0])


class Pyramid(nn.Module):
    """(B, N, E) -> [(B, width, h, w), ...], each half as fine as the one before; of one map (arXiv 2203.16527)."""

    def __init__(self, embed_dim: int, width: int, num_levels: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid, self.out_channels = grid, width
        conv = partial(Conv2dNormActivation, norm_layer=partial(nn.GroupNorm, 8), inplace=None)
        self.levels = nn.ModuleList(
            [conv(embed_dim, width), *(conv(width, width, stride=2) for _ in range(1, num_levels))]
        )

    def forward(self, features: Tensor) -> list[Tensor]:
        """Maps, finest first."""
        B, _, E = features.shape
        maps = [features.transpose(1, 2).reshape(B, E, *self.grid)]
        for level in self.levels:
            maps.append(level(maps[-1]))
        return maps[1:]


class DetectionHead(nn.Module):
    """Pyramid + one of torchvision's detectors; reads plain and augmented features, on this grid, alike."""

    def __init__(
        self, kind: str, embed_dim: int, width: int, num_levels: int, num_classes: int, grid: tuple[int, int],
        image_px: int, dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.arguments = {"kind": kind, "embed_dim": embed_dim, "width": width, "num_levels": num_levels,
                          "num_classes": num_classes, "grid": grid, "image_px": image_px}  # fmt: skip
        self.dropout = nn.Dropout1d(dropout)
        self.kind, self.num_classes, self.image_px = kind, num_classes, image_px
        self.pyramid = Pyramid(embed_dim, width, num_levels, grid)
        strides = [image_px / min(grid) * 2**level for level in range(num_levels)]
        self.detector: Any = DETECTORS[kind](self.pyramid, num_classes, strides)
        self.detector.backbone = nn.Identity()  # the pyramid is this module's own

    def forward(self, features: Tensor) -> RawBoxes:
        """Scores and box deltas of every place."""
        levels = self.pyramid(self.dropout(features.transpose(1, 2)).transpose(1, 2))
        if self.kind != "fasterrcnn":
            outputs = self.detector.head(levels)
        else:
            logits, deltas = concat_box_prediction_layers(*self.detector.rpn.head(levels))
            B = len(features)
            outputs = {"cls_logits": logits.view(B, -1, 1), "bbox_regression": deltas.view(B, -1, 4)}
        # with mixed precision boxes would be rounded to whole pixels
        return RawBoxes(self, [m.float() for m in levels], {name: value.float() for name, value in outputs.items()})

    def images(self, raw: RawBoxes) -> ImageList:
        """Images without channels: torchvision's parts read their size and number alone."""
        side = self.image_px
        return ImageList(raw.levels[0].new_empty(len(raw), 0, side, side), [(side, side)] * len(raw))

    def anchors(self, raw: RawBoxes) -> list[Tensor]:
        """(A, 4) anchors of each image, level after level."""
        generator = self.detector.rpn.anchor_generator if self.kind == "fasterrcnn" else self.detector.anchor_generator
        anchors: list[Tensor] = generator(self.images(raw), raw.levels)
        return anchors

    def counts(self, raw: RawBoxes) -> list[int]:
        """Anchors in each level."""
        places = [m.shape[2] * m.shape[3] for m in raw.levels]
        return [n * raw.outputs["cls_logits"].shape[1] // sum(places) for n in places]

    def losses(self, raw: RawBoxes, targets: Targets) -> dict[str, Tensor]:
        """The detector's own losses."""
        if self.kind == "fasterrcnn":
            return self.second_stage(raw, targets)[1]
        counts = [self.counts(raw)] if self.kind == "fcos" else []
        losses: dict[str, Tensor] = self.detector.compute_loss(targets, raw.outputs, self.anchors(raw), *counts)
        return losses

    @torch.no_grad()
    def detect(self, raw: RawBoxes) -> Targets:
        """Boxes in pixels of the image, with ``labels`` and ``scores``, best first."""
        if self.kind == "fasterrcnn":
            return [{**one, "labels": one["labels"] - 1} for one in self.second_stage(raw)[0]]
        counts, sizes = self.counts(raw), self.images(raw).image_sizes
        outputs = {name: list(torch.split(value, counts, 1)) for name, value in raw.outputs.items()}
        anchors = [list(torch.split(a, counts)) for a in self.anchors(raw)]
        detections: Targets = self.detector.postprocess_detections(outputs, anchors, sizes)
        return detections

    def second_stage(self, raw: RawBoxes, targets: Targets | None = None) -> tuple[Targets, dict[str, Tensor]]:
        """Faster R-CNN on the pyramid: boxes, or with targets the losses of both stages; its class 0 is background."""
        rpn, heads, images = self.detector.rpn, self.detector.roi_heads, self.images(raw)
        rpn.training = heads.training = targets is not None  # what they give, in whatever mode the student is
        shifted = None if targets is None else [{**t, "labels": t["labels"] + 1} for t in targets]
        maps = OrderedDict((str(i), level) for i, level in enumerate(raw.levels))
        with torch.autocast(raw.levels[0].device.type, enabled=False):  # boxes would be rounded to whole pixels
            proposals, losses = rpn(images, maps, shifted)
            boxes, more = heads(maps, proposals, images.image_sizes, shifted)
        return boxes, losses | more


def make_fcos(pyramid: Pyramid, num_classes: int, strides: list[float]) -> Any:
    """FCOS: every place inside an object says how far its edges are (arXiv 1904.01355)."""
    anchors = AnchorGenerator(tuple((s,) for s in strides), ((1.0,),) * len(strides))
    head = fcos.FCOSHead(pyramid.out_channels, 1, num_classes, num_convs=2)
    # distances pass through a ReLU: from the bias 0 half of them start dead, and with some seeds all of them stay so
    nn.init.ones_(head.regression_head.bbox_reg.bias)
    return fcos.FCOS(pyramid, num_classes, anchor_generator=anchors, head=head, **LIMITS)


def make_retinanet(pyramid: Pyramid, num_classes: int, strides: list[float]) -> Any:
    """RetinaNet: nine anchors at every place (arXiv 1708.02002)."""
    sizes = tuple((4 * s, 4 * s * 2 ** (1 / 3), 4 * s * 2 ** (2 / 3)) for s in strides)
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(strides))
    norm = partial(nn.GroupNorm, 32)
    head = retinanet.RetinaNetHead(pyramid.out_channels, anchors.num_anchors_per_location()[0], num_classes, norm)
    return retinanet.RetinaNet(pyramid, num_classes, anchor_generator=anchors, head=head, **LIMITS)


def make_fasterrcnn(pyramid: Pyramid, num_classes: int, strides: list[float]) -> Any:
    """Faster R-CNN: places first, then a closer look at each (arXiv 1506.01497)."""
    anchors = AnchorGenerator(tuple((4 * s,) for s in strides), ((0.5, 1.0, 2.0),) * len(strides))
    pool = MultiScaleRoIAlign([str(i) for i in range(len(strides))], output_size=5, sampling_ratio=2)
    box_head = faster_rcnn.TwoMLPHead(pyramid.out_channels * 25, 2 * pyramid.out_channels)
    return faster_rcnn.FasterRCNN(
        pyramid, rpn_anchor_generator=anchors, box_roi_pool=pool, box_head=box_head,
        box_predictor=faster_rcnn.FastRCNNPredictor(2 * pyramid.out_channels, num_classes + 1),
        rpn_post_nms_top_n_train=100, rpn_post_nms_top_n_test=100,
        rpn_pre_nms_top_n_train=200, rpn_pre_nms_top_n_test=200,
        box_batch_size_per_image=64, box_score_thresh=LIMITS["score_thresh"],
        box_detections_per_img=LIMITS["detections_per_img"],
    )  # fmt: skip


DETECTORS = {"fcos": make_fcos, "retinanet": make_retinanet, "fasterrcnn": make_fasterrcnn}
