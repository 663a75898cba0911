"""Do prototypes stay where they are, and on what they are on: stability of patches, consistency within a class."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from prockd.datasets import PackedImages
from prockd.evaluation.crops import Assign, assign_images
from prockd.evaluation.parts import contingency
from prockd.evaluation.points import PointPatches

BOX = 72 / 224
"""Side of the box round a peak, in sides of the image: 72 of 224 pixels, as Huang et al."""

CONSISTENT = 0.8
"""Share of a class's images that must have the same part in the box."""

_FEWEST = 3  # images of a class that show a part, below which a share of them says nothing


def kept_shares(
    assign: Assign,
    images: PackedImages,
    grid: tuple[int, int],
    front: Bool[np.ndarray, "M N"],
    *,
    shift: int = 3,
    noise: float = 0.05,
    seed: int = 0,
) -> dict[str, float]:
    """Share of the ``front`` patches that keep their strongest prototype when the image changes, 0..1.

    After the stability score of Huang et al., ICCV 2023, which asks for the parts in a box instead, under noise.

    Args:
        assign: what names patches, see :func:`prockd.evaluation.crops.assigner`.
        images: at any size.
        grid: rows and columns of patches that ``assign`` returns.
        front: the patches that are asked, such as those on animals.
        shift: patches by which the content moves, right and down at once; its edge is repeated behind it. Patches that
            leave the frame are not asked.
        noise: standard deviation of Gaussian noise, where colours are 0..1.
        seed: of the noise.

    Returns:
        The shares under ``"noise"``, ``"mirror"`` and ``"shift"``, and ``"chance"``: of two patches drawn at random.

    Raises:
        ValueError: no patch is asked, or a shift that leaves none.
    """
    (h, w), S = grid, images.image_px
    if not 0 < shift < min(h, w):
        raise ValueError(f"shift={shift} patches of a grid of {h}x{w}: from 1 to {min(h, w) - 1}")
    if not front.any():
        raise ValueError(f"no patch of these {len(images)} images lies on a part: there is nothing to keep")
    generator, down, right = torch.Generator().manual_seed(seed), round(shift * S / h), round(shift * S / w)
    changes: dict[str, Callable[[Tensor], Tensor]] = {
        "plain": lambda x: x,
        "noise": lambda x: (x + noise * torch.randn(x.shape, generator=generator)).clamp(0, 1),
        "mirror": lambda x: x.flip(3),
        "shift": lambda x: F.pad(x, (right, 0, down, 0), mode="replicate")[..., :S, :S],
    }
    seen = {name: assign_images(assign, images, change).argmax(-1).numpy() for name, change in changes.items()}
    plain, noisy, mirrored, shifted = (group.reshape(-1, h, w) for group in seen.values())
    asked, stays = front.reshape(-1, h, w), (slice(None), slice(h - shift), slice(w - shift))
    kept = {
        "noise": (plain == noisy)[asked],
        "mirror": (plain == mirrored[..., ::-1])[asked],
        "shift": (plain[stays] == shifted[:, shift:, shift:])[asked[stays]],
    }
    usage = np.bincount(plain[asked]) / asked.sum()
    shares = {name: float(same.mean()) if len(same) else float("nan") for name, same in kept.items()}
    return shares | {"chance": float((usage**2).sum())}


def matched_share(
    first: Int[np.ndarray, "M N"], second: Int[np.ndarray, "M N"], front: Bool[np.ndarray, "M N"]
) -> float:
    """Share of the ``front`` patches that two discoveries put under the same prototype, 0..1.

    Prototypes of one are matched with those of the other, one to one, so that the share is greatest (Hungarian
    assignment, Kuhn 1955). ValueError where no patch is asked.
    """
    if not front.any():
        raise ValueError("no patch lies on a part: there is nothing to match")
    first, second = first[front], second[front]
    table = contingency(first, second, int(first.max()) + 1, int(second.max()) + 1)
    rows, columns = linear_sum_assignment(table, maximize=True)
    return float(table[rows, columns].sum() / len(first))


def consistency(
    peaks: Int[np.ndarray, "M K"],
    labels: Int[np.ndarray, " M"],
    near: Bool[np.ndarray, "M N P"],
    shown: Bool[np.ndarray, "M P"],
    asked: Bool[np.ndarray, " K"],
) -> float:
    """Share of prototypes, class by class, whose box round the peak holds the same point in 80 % of its images.

    Huang et al., "Evaluation and improvement of interpretability for self-explainable part-prototype networks", ICCV
    2023: images count for a point that show it. Their prototypes belong to one class each; these belong to
    none, so each pair of a prototype and a class is judged, and the mean over pairs returned.

    Args:
        peaks: the patch of each image with the greatest assignment to each prototype.
        labels: class of each image; images below 0 are not used.
        near: the key points in the box round each patch, from :func:`near_points`.
        shown: the key points that each image shows.
        asked: the prototypes that are judged, such as those most of whose patches lie on animals.

    Raises:
        ValueError: no class with three images that show one point, or no prototype to judge.
    """
    if not asked.any():
        raise ValueError("no prototype has most of its patches on parts: there is none whose consistency could be told")
    judged = []
    for label in np.unique(labels[labels >= 0]):
        rows = np.flatnonzero(labels == label)
        inside = np.take_along_axis(near[rows], peaks[rows][:, asked, None], 1)  # (m, k, P)
        counts = shown[rows].sum(0)  # (P,)
        if (told := counts >= _FEWEST).any():
            shares = (inside & shown[rows][:, None]).sum(0)[:, told] / counts[told]
            judged.append((shares >= CONSISTENT).any(1))
    if not judged:
        raise ValueError(f"consistency needs a class with {_FEWEST} images that show the same key point")
    return float(np.concatenate(judged).mean())


def near_points(
    points: PointPatches, num_images: int, grid: tuple[int, int], *, box: float = BOX
) -> tuple[Bool[np.ndarray, "M N P"], Bool[np.ndarray, "M P"]]:
    """Visible key points in the box round each patch, and those that each image shows.

    Key points, as the paper has them, and not masks: a box of a third of the image touches a torso wherever it is.
    """
    near = np.zeros((num_images, grid[0] * grid[1], len(points.parts)), bool)
    shown = np.zeros((num_images, len(points.parts)), bool)
    rows, columns = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    centres = np.stack([(columns + 0.5) / grid[1], (rows + 0.5) / grid[0]], 1)
    inside = (np.abs(centres[:, None] - points.xy) <= box / 2).all(-1)  # (N, Q)
    for image, part, there in zip(points.image, points.part, inside.T, strict=True):
        near[image, :, part] |= there
        shown[image, part] = True
    return near, shown
