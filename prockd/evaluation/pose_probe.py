"""What a teacher itself tells of key points: a ridge on its patches, in closed form."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor

from prockd.datasets import PackedImages
from prockd.tasks.key_points import PCK_SHARE, KeyPoints, errors, gaussians, read_points
from prockd.teachers.embedded import EmbeddedFeatures

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Of the ridge, in mean squares of its values; chosen by leaving folds of images out."""

SHARPNESS = (4.0, 8.0, 16.0, 32.0)
"""By which the ridge's heat (0..1) becomes the logits of a heat-map; chosen alike."""

WINDOWS = (0.25, 0.5, 0.95)
"""Sides of the squares around a patch whose means are read with it, in sides of the grid: a patch alone does not tell a
leg from the next one. On 300 of Farmyard's validation images PCK is .81 without them and .93 with them."""

_FOLDS = 3

Patches = Callable[[np.ndarray], Float[Tensor, "B N F"]]
"""Gives the values of the patches of some images, by their rows."""


class PatchRidge:
    """A linear reading of patches, and of their place, as heat-maps of joints: the ceiling of a teacher.

    Each joint is a ridge on all patches of the images in which it is visible; its target is 1 at the joint and falls
    off as a Gaussian. Only the normal equations are kept, J (F + 6)^2 numbers a fold, whatever the number of images.

    Args:
        task: the joints, and how wide their Gaussians are.
        grid: rows and columns of patches.
    """

    def __init__(self, task: KeyPoints, grid: tuple[int, int]) -> None:
        self.task, self.grid = task, grid
        (h, w), place = grid, torch.arange(grid[0] * grid[1])
        x, y = (place % w + 0.5) / w - 0.5, (place // w + 0.5) / h - 0.5
        self.places = torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y], 1)  # (N, 6)
        self.weights = torch.zeros(0)  # (J, F + 6, 1), once fitted
        self.strength = self.sharpness = 0.0

    def fit(self, patches: Patches, images: PackedImages, *, batch_size: int = 16) -> "PatchRidge":
        """Learn from images with joints; strength and sharpness are those with the best PCK on folds left out.

        Raises:
            ValueError: fewer images than folds, or images without joints.
        """
        M, truth = len(images), self.task.truth(images)
        if M < _FOLDS:
            raise ValueError(f"{images!r}: a ridge on patches needs {_FOLDS} images at least")
        fold = np.arange(M) % _FOLDS
        sums = [
            self._sums(patches, truth, np.flatnonzero(fold == k), images.image_px, batch_size) for k in range(_FOLDS)
        ]
        squares, products = (torch.stack(parts).sum(0) for parts in zip(*sums, strict=True))
        right = np.zeros((len(STRENGTHS), len(SHARPNESS)))
        for k, part in enumerate(sums):
            rows = np.flatnonzero(fold == k)
            for s, strength in enumerate(STRENGTHS):
                self.weights = solved(squares - part[0], products - part[1], strength)
                for place, sharpness in enumerate(SHARPNESS):
                    self.sharpness = sharpness
                    told = self.predict(patches, rows, images.image_px, batch_size=batch_size)
                    away = errors(told, truth[rows])
                    right[s, place] += ((away <= PCK_SHARE) & (truth[rows, :, 2] > 0)).sum()
        best = np.unravel_index(right.argmax(), right.shape)
        self.strength, self.sharpness = STRENGTHS[best[0]], SHARPNESS[best[1]]
        self.weights = solved(squares, products, self.strength)
        return self

    def predict(
        self, patches: Patches, rows: Sequence[int] | np.ndarray, image_px: int, *, batch_size: int = 64
    ) -> Float32[np.ndarray, "M J 3"]:
        """Decoded predictions of :class:`prockd.tasks.KeyPoints` for some images of this size."""
        rows, told = np.asarray(rows), []
        for start in range(0, len(rows), batch_size):
            values = self._values(patches(rows[start : start + batch_size]))
            heat = torch.einsum("bnf,jf->bjn", values, self.weights)
            points = read_points(self.sharpness * heat.reshape(*heat.shape[:2], *self.grid)).numpy()
            told.append(np.asarray(points * np.array([image_px, image_px, 1]), np.float32))
        return np.concatenate(told)

    def _values(self, patches: Float[Tensor, "B N F"]) -> Float[Tensor, "B N G"]:
        places = self.places.expand(len(patches), -1, -1)
        return torch.cat([patches.float().cpu(), places], 2)

    def _sums(
        self, patches: Patches, truth: np.ndarray, rows: np.ndarray, image_px: int, batch_size: int
    ) -> tuple[Float[Tensor, "J G G"], Float[Tensor, "J G"]]:
        """The normal equations of each joint over the images that show it."""
        G, J = self.places.shape[1] + patches(rows[:1]).shape[2], truth.shape[1]
        squares, products = torch.zeros(J, G, G), torch.zeros(J, G)
        for start in range(0, len(rows), batch_size):
            some = rows[start : start + batch_size]
            values = self._values(patches(some))
            joints = torch.from_numpy(truth[some]).float()
            seen = (joints[..., 2] > 0).float()  # (B, J)
            heat = gaussians(joints[..., :2].flatten(0, 1) / image_px, self.grid, self.task.spread).flatten(1)
            heat = (heat / heat.amax(1, keepdim=True)).view(*seen.shape, -1)  # (B, J, N)
            each = values.mT @ values  # (B, G, G)
            squares += torch.einsum("bfg,bj->jfg", each, seen)
            products += torch.einsum("bnf,bjn,bj->jf", values, heat, seen)
        return squares, products


def surrounded(values: Float[Tensor, "B N F"], grid: tuple[int, int]) -> Float[Tensor, "B N F2"]:
    """Each patch with the means of what is around it, F values for itself and for each of ``WINDOWS``."""
    maps = values.mT.reshape(len(values), -1, *grid)
    sizes = [[2 * round((share * side - 1) / 2) + 1 for side in grid] for share in WINDOWS]  # odd
    means = [F.avg_pool2d(maps, size, 1, [side // 2 for side in size], count_include_pad=False) for size in sizes]
    return torch.cat([values, *(mean.flatten(2).mT for mean in means)], 2)


def solved(squares: Float[Tensor, "J G G"], products: Float[Tensor, "J G"], strength: float) -> Float[Tensor, "J G"]:
    """The weights of a ridge from its normal equations; ``strength`` is in mean squares of the values."""
    squares = squares.double()
    mean = squares.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-9)  # (J,); a joint that nobody shows has weights 0
    ridge = strength * mean[:, None, None] * torch.eye(squares.shape[1], dtype=torch.float64)
    weights: Tensor = torch.linalg.solve(squares + ridge, products.double()).float()
    return weights


def ridge_pose(
    task: KeyPoints,
    train: EmbeddedFeatures,
    test: EmbeddedFeatures,
    *,
    read: Callable[[Float[Tensor, "B N E"]], Float[Tensor, "B N F"]] | None = None,
) -> Float32[np.ndarray, "M J 3"]:
    """What a ridge on a teacher's patches, each with its surroundings, tells of the joints of ``test``: the ceiling.

    Args:
        task: the joints.
        train: features of images with joints, which it learns from.
        test: features of the same teacher and bank.
        read: what is read of the embedded patches, such as their part maps; None for the patches themselves.
    """

    def patches(features: EmbeddedFeatures) -> Patches:
        def of(rows: np.ndarray) -> Tensor:
            values = features.embedded(rows).flatten(2).mT
            return surrounded(values if read is None else read(values), features.grid)

        return of

    ridge = PatchRidge(task, train.grid).fit(patches(train), train.images)
    return ridge.predict(patches(test), np.arange(len(test)), test.images.image_px)
