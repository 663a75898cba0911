"""Do prototypes know where key points are? Information at the points, and the error of points read from prototypes."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from sklearn.linear_model import RidgeCV
from torch import Tensor

from prockd._types import ImageDataset
from prockd.datasets import PackedImages, PointAnnotations
from prockd.datasets.keypoints import ImagePoints
from prockd.evaluation.parts import contingency, information
from prockd.evaluation.points import PointPatches

STRENGTHS = tuple(np.logspace(-3, 3, 13))
"""Of the ridge, chosen by leaving one image out among those that are learned from."""

_FEWEST = 5  # images that show a point, in the half that is learned from


@dataclass(frozen=True)
class PointMeasure:
    """What prototypes tell of key points.

    Attributes:
        nmi: normalised mutual information of the prototype at each visible key point with which point it is, 0..1.
        ari: adjusted Rand index of the same, 0 by chance.
        error: mean distance of key points read from prototypes, in % of the animal's box; NaN where nothing is tested.
    """

    nmi: float
    ari: float
    error: float


def point_measure(
    assignments: Float[Tensor, "M N K"] | Int[np.ndarray, "M N"],
    points: PointPatches,
    images: PackedImages,
    grid: tuple[int, int],
    *,
    seed: int = 0,
) -> PointMeasure:
    """Measure prototypes at key points, the way that part discovery is measured on CUB-200.

    NMI and ARI (Choudhury et al., NeurIPS 2021): assignments are enlarged bilinearly, and the strongest at the point is
    its prototype. Error (SCOPS, Hung et al., CVPR 2019): the centroid of each prototype's soft assignment, in the
    animal's box, predicts each visible point by linear regression; one half of the images is read by what the other
    half teaches, and the L2 distance in sides of the box is averaged over points. Two coordinates of each of K
    prototypes are often more numbers than images: the regression is a ridge.

    Raises:
        ValueError: images with another number of boxes than one.
    """
    soft = assignments if isinstance(assignments, Tensor) else F.one_hot(torch.from_numpy(assignments)).half()
    prototypes, K = at_points(soft, points, grid).argmax(1), soft.shape[2]
    nmi, ari = information(contingency(prototypes, points.part, K, len(points.parts)))
    low, size = _boxes(images)
    centres = (centroids(soft, grid) - low[:, None]) / size[:, None]  # (M, K, 2)
    targets = (points.xy - low[points.image]) / size[points.image]
    half = np.random.default_rng(seed).permutation(len(images)) % 2
    distances = []
    for part in range(len(points.parts)):
        mine = points.part == part
        rows, truth = points.image[mine], targets[mine]
        for side in (0, 1):
            learned, tested = half[rows] != side, half[rows] == side
            if learned.sum() >= _FEWEST and tested.any():
                ridge = RidgeCV(STRENGTHS).fit(centres[rows[learned]].reshape(learned.sum(), -1), truth[learned])
                told = ridge.predict(centres[rows[tested]].reshape(tested.sum(), -1))
                distances.append(np.linalg.norm(told - truth[tested], axis=1))
    error = 100 * float(np.concatenate(distances).mean()) if distances else float("nan")
    return PointMeasure(nmi, ari, error)


def at_points(
    assignments: Float[Tensor, "M N K"], points: PointPatches, grid: tuple[int, int]
) -> Float[np.ndarray, "Q K"]:
    """Bilinearly enlarged assignments at each key point."""
    (h, w), values = grid, torch.zeros(len(points), assignments.shape[2])
    image = torch.from_numpy(points.image)
    corners = []
    for axis, side in ((1, h), (0, w)):
        place = np.clip(points.xy[:, axis] * side - 0.5, 0, side - 1)
        before = np.floor(place).astype(np.int64)
        corners.append(((before, 1 - place + before), (np.minimum(before + 1, side - 1), place - before)))
    for row, of_row in corners[0]:
        for column, of_column in corners[1]:
            weights = torch.from_numpy(of_row * of_column).float()[:, None]
            values += weights * assignments[image, torch.from_numpy(row * w + column)].float().cpu()
    return np.asarray(values)


def centroids(assignments: Float[Tensor, "M N K"], grid: tuple[int, int]) -> Float[np.ndarray, "M K 2"]:
    """Mean place of each prototype's soft assignment in each image, x and y in 0..1; the middle where it has none."""
    (h, w), N = grid, grid[0] * grid[1]
    patch = torch.arange(N)
    xy = torch.stack([(patch % w + 0.5) / w, (patch // w + 0.5) / h], 1)  # (N, 2)
    found = []
    for start in range(0, len(assignments), 32):
        a = assignments[start : start + 32].float().cpu()
        mass = a.sum(1)[..., None]  # (m, K, 1)
        sums = a.transpose(1, 2) @ xy
        found.append(torch.where(mass > 1e-6, sums / mass.clamp_min(1e-6), 0.5))
    return torch.cat(found).double().numpy()


def points_of(dataset: ImageDataset, names: Sequence[str]) -> PointAnnotations:
    """The key points of a data set that tells them with its samples, such as Farmyard; each name is a part of its own.

    >>> import prockd as pk
    >>> from prockd.farmyard.body import KEYPOINTS
    >>> points_of(pk.Farmyard("target", "val", 2), KEYPOINTS)
    PointAnnotations(34 points, 3 of them hidden, on 2 images; parts: withers, neck_base, head_top, eye, ...)

    Raises:
        ValueError: a sample without key points, or with another number of them than names.
    """
    images = {}
    for index in range(len(dataset)):
        sample = dataset[index]
        if sample.keypoints is None or sample.keypoints.shape[1] != len(names):
            count = "no" if sample.keypoints is None else str(sample.keypoints.shape[1])
            raise ValueError(f"image {sample.id!r} tells {count} key points an animal, not {len(names)}")
        flat = sample.keypoints.reshape(-1, 3)
        number = np.tile(np.arange(len(names)), len(sample.keypoints))
        images[sample.id] = ImagePoints(flat[:, :2].astype(np.float32), number, flat[:, 2] > 0, number)
    return PointAnnotations(tuple(names), MappingProxyType(images))


def _boxes(images: PackedImages) -> tuple[Float[np.ndarray, "M 2"], Float[np.ndarray, "M 2"]]:
    """Low corner and size of the one box of each image, in 0..1; the whole square where boxes are not known."""
    if images.boxes is None:
        return np.zeros((len(images), 2)), np.ones((len(images), 2))
    if any(len(box) != 1 for box in images.boxes):
        worst = next(m for m, box in enumerate(images.boxes) if len(box) != 1)
        raise ValueError(
            f"image {images.ids[worst]!r} has {len(images.boxes[worst])} boxes: key points are measured in the box of "
            "one animal an image"
        )
    box = np.concatenate(images.boxes).astype(float) / images.image_px
    return box[:, :2], box[:, 2:] - box[:, :2]
