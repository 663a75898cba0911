"""Key points: where each joint of the one animal is; a heat-map a joint, read by its mean; PCK."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor, nn

from prockd.datasets import PackedImages
from prockd.datasets.transforms import Crops, cut_points, whole_images
from prockd.tasks.heads import ConvHead
from prockd.tasks.task import Answer, Marks, Score, Task, kl, recall_of_counts, write_table

PCK_SHARE = 0.1
"""Largest error of a right joint, in longer sides of the animal's box (PCK, Yang and Ramanan, TPAMI 2013)."""

MIN_JOINTS = 0.5  # a crop that keeps a smaller share of the visible joints is replaced by the whole image

_OTHER_SIDE = {"left": "right", "Left": "Right", "LEFT": "RIGHT", "l": "r", "L": "R"}
_OTHER_SIDE |= {right: left for left, right in _OTHER_SIDE.items()}
_SIDE = re.compile(r"left|right|Left|Right|LEFT|RIGHT|(?<![A-Za-z])[lrLR](?![a-z])|(?<=[a-z])[LR](?![A-Za-z])")


@dataclass(frozen=True)
class KeyPoints(Task):
    """Where each joint of the one animal of an image is (its pose).

    Only visible joints are learned and scored: those that are hidden, outside of the square or not annotated cost
    nothing. Where names tell left and right, mirrored images exchange them.

    Args:
        num_classes: J, the joints.
        classes: their names.
        width: channels of the head, a multiple of 8.
        spread: standard deviation of the Gaussian that a heat-map is to be, in sides of the square.
        place_weight: weight of the error of the place that is read from the heat-map, beside its cross-entropy.
    """

    width: int = 64
    spread: float = 0.04
    place_weight: float = 10.0
    data = "keypoints"
    sure = 0.1
    stride = 4
    metric = "PCK at 0.1"
    class_metric = "PCK"
    formats = ("timm", "onnx")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width < 8 or self.width % 8:
            raise ValueError(f"KeyPoints.width={self.width}: must be a multiple of 8")
        if not 0 < self.spread < 1:
            raise ValueError(f"KeyPoints.spread={self.spread}: must lie between 0 and 1, in sides of the square")

    @property
    def mirror(self) -> list[int]:
        """J numbers: the joint that each becomes in a mirrored image."""
        numbers = {name: j for j, name in enumerate(self.classes)}
        others = [_SIDE.sub(lambda side: _OTHER_SIDE[side[0]], name) for name in self.names]
        return [numbers.get(other, j) for j, other in enumerate(others)]

    def head(self, embed_dim: int, grid: tuple[int, int], image_px: int) -> nn.Module:
        """Two convolutions, and a heat-map a joint on the grid."""
        return ConvHead(embed_dim, self.width, self.num_classes, grid)

    def fit_crops(self, images: PackedImages, rows: np.ndarray, crops: Crops) -> Crops:
        """The whole image in place of a crop that keeps less than half of its visible joints."""
        before = self.targets(images, rows, replace(crops, regions=whole_images(len(rows)).regions), images.image_px)
        after = self.targets(images, rows, crops, images.image_px)
        few = after[..., 2].sum(1) < MIN_JOINTS * before[..., 2].sum(1)
        return replace(crops, regions=torch.where(few[:, None], whole_images(len(rows)).regions, crops.regions))

    def targets(self, images: PackedImages, rows: np.ndarray, crops: Crops, image_px: int) -> Float[Tensor, "B J 3"]:
        """x, y in 0..1 of the crop, and 1 where the joint is visible in it."""
        super().check(images)
        assert images.joints is not None
        joints = torch.from_numpy(images.joints[rows])
        exchanged = torch.where(crops.mirrored[:, None, None], joints[:, self.mirror], joints)
        return cut_points(exchanged, images.image_px, crops)

    def loss(
        self, prediction: Float[Tensor, "B J h w"], targets: Float[Tensor, "B J 3"], smoothing: float = 0.0
    ) -> Float[Tensor, ""]:
        """Cross-entropy of each heat-map with a Gaussian + smooth L1 of the place; a mean over visible joints.

        Both as in integral regression with heat-maps (Sun et al., ECCV 2018).
        """
        logits, xy = prediction.flatten(0, 1), targets[..., :2].flatten(0, 1)  # (n, h, w), (n, 2)
        wanted = gaussians(xy, (logits.shape[1], logits.shape[2]), self.spread).flatten(1)
        wanted = wanted * (1 - smoothing) + smoothing / wanted.shape[1]
        places = mean_place(logits.flatten(1).softmax(1).view_as(logits))
        away = F.smooth_l1_loss(places, xy, beta=self.spread, reduction="none").mean(1)
        each = F.cross_entropy(logits.flatten(1), wanted, reduction="none") + self.place_weight * away
        # all are computed and only visible ones count: to pick these is to wait for the device
        counted = targets[..., 2].flatten() > 0
        mean: Tensor = each.where(counted, 0).sum() / counted.sum().clamp_min(1)
        return mean

    def consistency(
        self, prediction: Float[Tensor, "B J h w"], augmented: Float[Tensor, "B J h w"]
    ) -> Float[Tensor, ""]:
        """KL(augmented || plain) of the heat-maps, a mean over images and joints, in nats."""
        return kl(prediction.flatten(2).mT, augmented.flatten(2).mT)

    def decode(self, prediction: Float[Tensor, "B J h w"], image_px: int) -> Float32[np.ndarray, "B J 3"]:
        """x, y in pixels of the square, and how sure each joint is: the largest mass of 3 x 3 patches, 0..1."""
        read = read_points(prediction.detach().float()).cpu().numpy()
        return np.asarray(read * np.array([image_px, image_px, 1], np.float32))

    def write(self, answers: Iterable[Answer], folder: Path, sure: float) -> list[Path]:
        """``keypoints.csv``, a line a joint, as :func:`prockd.datasets.read_keypoints` reads it; unsure ones hidden."""
        rows = []
        for answer in answers:
            for name, (x, y), share in zip(
                self.names, answer.to_picture(answer.told[:, :2]).tolist(), answer.told[:, 2].tolist(), strict=True
            ):
                place = {"frame": answer.name, "part": name, "x_px": f"{x:.2f}", "y_px": f"{y:.2f}"}
                rows.append(place | {"visible": int(share >= sure), "sure": f"{share:.4f}"})
        return [write_table(folder / "keypoints.csv", rows)]

    def truth(self, images: PackedImages) -> Float32[np.ndarray, "M J 4"]:
        """x, y in pixels of the square, 1 for visible, and the longer side of the animal's box in pixels.

        Where the box is not known, it is that of the visible joints.
        """
        super().check(images)
        assert images.joints is not None
        sides = np.array([longer_side(images, m) for m in range(len(images))], np.float32)
        return np.concatenate([images.joints, np.broadcast_to(sides[:, None, None], (*images.joints.shape[:2], 1))], -1)

    def check(self, images: PackedImages) -> None:
        """Refuse images without joints, with another number of them, and sets in which no joint is visible."""
        truth = self.truth(images)
        if truth.shape[1] != self.num_classes:
            raise ValueError(f"{images!r} tells {truth.shape[1]} joints, but the task has {self.num_classes}")
        if not (truth[..., 2] > 0).any():
            raise ValueError(f"{images!r} shows no visible joint at all: there is nothing to learn or score")

    def counts(self, decoded: np.ndarray, truth: np.ndarray) -> Float[np.ndarray, "B J 3"]:
        """In visible joints: near enough, and not."""
        seen = truth[..., 2] > 0
        right = seen & (errors(decoded, truth) <= PCK_SHARE)
        return np.stack([right, np.zeros_like(right), seen & ~right], -1).astype(float)

    def score_counts(self, counts: Float[np.ndarray, "... J 3"]) -> Float[np.ndarray, "... 1+J"]:
        """Share of the visible joints that are near enough, of all and of each joint."""
        return recall_of_counts(counts)

    def score(self, decoded: np.ndarray, images: PackedImages) -> Score:
        """PCK of all visible joints; details give the mean error in % of the longer side of the box."""
        truth = self.truth(images)
        away = errors(np.asarray(decoded), truth)[truth[..., 2] > 0]
        details = {"error, % of box": 100 * float(away.mean())} if len(away) else {}
        return replace(super().score(decoded, images), details=details)

    def trivial(self, train: PackedImages, count: int) -> dict[str, Float32[np.ndarray, "M J 3"]]:
        """Each joint where it is on average in the labelled images that show it, or else in the middle."""
        truth = self.truth(train)
        xy, seen = truth[..., :2], truth[..., 2:3] > 0
        middle = np.where(seen.any(0), (xy * seen).sum(0) / np.maximum(1, seen.sum(0)), train.image_px / 2)  # (J, 2)
        pose = np.concatenate([middle, np.ones((len(middle), 1))], 1).astype(np.float32)
        return {"mean pose": np.tile(pose, (count, 1, 1))}

    def marks(self, decoded: np.ndarray) -> Marks:
        """A dot a joint; of the truth those that are visible."""
        return Marks(points=np.asarray(decoded[:, :3], np.float32))


def gaussians(xy: Float[Tensor, "n 2"], grid: tuple[int, int], spread: float) -> Float[Tensor, "n h w"]:
    """Gaussians around places in 0..1, each with the sum 1."""
    x, y = ((torch.arange(side, device=xy.device) + 0.5) / side for side in grid[::-1])
    across, down = (-(((axis - xy[:, k, None]) / spread) ** 2) / 2 for k, axis in enumerate((x, y)))
    return down.softmax(1)[:, :, None] * across.softmax(1)[:, None, :]


def mean_place(heat: Float[Tensor, "*B h w"]) -> Float[Tensor, "*B 2"]:
    """Soft-argmax: the mean x, y in 0..1 of heat-maps with the sum 1."""
    h, w = heat.shape[-2:]
    x, y = ((torch.arange(side, device=heat.device) + 0.5) / side for side in (w, h))
    return torch.stack([heat.sum(-2) @ x, heat.sum(-1) @ y], -1)


def read_points(logits: Float[Tensor, "B J h w"], reach: int = 2) -> Float[Tensor, "B J 3"]:
    """x, y in 0..1 of each joint, and the largest mass of 3 x 3 patches.

    The mean is taken of the patches up to ``reach`` from the middle of that mass: that of two far places is neither.
    """
    h, w = logits.shape[-2:]
    heat = logits.flatten(2).softmax(2).view_as(logits)
    mass = 9 * F.avg_pool2d(heat, 3, 1, 1)
    sure, peak = mass.flatten(2).max(2)
    row, column = (peak // w)[..., None], (peak % w)[..., None]
    down, across = ((torch.arange(n, device=heat.device) - k).abs() <= reach for n, k in ((h, row), (w, column)))
    near = heat * (down[..., :, None] & across[..., None, :])
    return torch.cat([mean_place(near / near.sum((-2, -1), keepdim=True)), sure[..., None].clamp(max=1)], -1)


def errors(decoded: Float[np.ndarray, "... J d"], truth: Float[np.ndarray, "... J 4"]) -> Float[np.ndarray, "... J"]:
    """Distance of each joint from its truth, in longer sides of the animal's box."""
    away: np.ndarray = np.linalg.norm(decoded[..., :2] - truth[..., :2], axis=-1) / truth[..., 3]
    return away


def longer_side(images: PackedImages, index: int) -> float:
    """The longer side in pixels of the one box of an image, or else of its visible joints; at least one pixel."""
    assert images.joints is not None
    if images.boxes is not None and len(images.boxes[index]) == 1:
        low, high = images.boxes[index].reshape(2, 2)
    elif len(seen := images.joints[index, images.joints[index, :, 2] > 0, :2]):
        low, high = seen.min(0), seen.max(0)
    else:
        return 1.0
    return max(1.0, float((high - low).max()))
