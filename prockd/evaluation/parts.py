"""Do prototypes agree with true parts? Purity, mutual information and a table, each with its controls."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Integer, Shaped
from sklearn.cluster import MiniBatchKMeans
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor

from prockd.datasets import PackedImages


def patch_parts(parts: Integer[np.ndarray, "M H W"], grid: tuple[int, int], num_parts: int) -> Int[np.ndarray, "M N"]:
    """The part of each patch: the commonest one where at least half of its pixels are foreground, else 0."""
    patches = cut(parts[:, None], grid)
    counts = np.stack([(patches == part).sum(-1) for part in range(num_parts)], axis=-1)  # (M, N, P)
    majority = counts[..., 1:].argmax(-1) + 1
    return np.where(2 * counts[..., 0] <= patches.shape[2], majority, 0)


@dataclass(frozen=True)
class PartAgreement:
    """Agreement of hard prototype assignments with parts, over foreground patches.

    Attributes:
        purity: share of foreground patches whose part is the commonest of their prototype, 0..1.
        nmi: normalised mutual information, 0..1.
        majority: purity that a single prototype would have (the commonest part's share).
        table: (K, P) foreground patches by prototype and part; column 0 holds background patches.
    """

    purity: float
    nmi: float
    majority: float
    table: np.ndarray

    def __repr__(self) -> str:
        return f"PartAgreement(purity {self.purity:.3f}, NMI {self.nmi:.3f}, commonest part {self.majority:.3f})"


def part_agreement(
    assigned: Int[np.ndarray, "M N"], parts: Int[np.ndarray, "M N"], num_prototypes: int, num_parts: int
) -> PartAgreement:
    """Compare the strongest prototype of each patch with its true part."""
    table = np.zeros((num_prototypes, num_parts), dtype=np.int64)
    np.add.at(table, (assigned.ravel(), parts.ravel()), 1)
    front = parts > 0
    total = max(1, int(front.sum()))
    nmi = normalized_mutual_info_score(parts[front], assigned[front]) if front.any() else 0.0
    purity, majority = table[:, 1:].max(1).sum() / total, table[:, 1:].sum(0).max() / total
    return PartAgreement(float(purity), float(nmi), float(majority), table)


def agreement_with_controls(
    assignments: Float[Tensor, "M N K"], images: PackedImages, grid: tuple[int, int], num_parts: int, *, seed: int = 0
) -> dict[str, PartAgreement]:
    """Part agreement of the prototypes, of shuffled assignments and of k-means on raw pixel patches with the same K.

    Returns:
        One agreement each for ``"prototypes"``, ``"shuffled"`` and ``"raw pixels"``.

    Raises:
        ValueError: the images have no part masks.
    """
    if images.parts is None:
        raise ValueError("these images have no part masks; part agreement needs Farmyard or your own masks")
    parts, K = patch_parts(np.asarray(images.parts), grid, num_parts), assignments.shape[2]
    groups = with_controls(assignments, images, grid, seed=seed)
    return {name: part_agreement(group, parts, K, num_parts) for name, group in groups.items()}


def with_controls(
    assignments: Float[Tensor, "M N K"],
    images: PackedImages,
    grid: tuple[int, int],
    *,
    train: Bool[np.ndarray, " M"] | None = None,
    seed: int = 0,
) -> dict[str, Int[np.ndarray, "M N"]]:
    """The strongest prototype of each patch; the same shuffled; and k-means on pixels, fitted to ``train`` or all."""
    assigned = assignments.argmax(-1).cpu().numpy()
    shuffled = np.random.default_rng(seed).permutation(assigned.ravel()).reshape(assigned.shape)
    pixels = pixel_patches(images, grid)
    fitted = (pixels if train is None else pixels[train]).reshape(-1, pixels.shape[2])
    clusters = MiniBatchKMeans(assignments.shape[2], n_init=3, random_state=seed)
    clusters.fit(fitted[:: max(1, len(fitted) // 30_000)])
    by_pixels = clusters.predict(pixels.reshape(-1, pixels.shape[2])).reshape(assigned.shape)
    return {"prototypes": assigned, "shuffled": shuffled, "raw pixels": by_pixels.astype(np.int64)}


def pixel_patches(images: PackedImages, grid: tuple[int, int]) -> Float[np.ndarray, "M N P"]:
    """Raw RGB values of each patch, 0..1: what a prototype would see without a teacher."""
    return cut(np.asarray(images.pixels), grid).astype(np.float32) / 255


def cut(images: Shaped[np.ndarray, "M C H W"], grid: tuple[int, int]) -> Shaped[np.ndarray, "M N P"]:
    """The values of each patch, row by row of the grid; ValueError where patches would not be equal."""
    (M, C, H, W), (h, w) = images.shape, grid
    if H % h or W % w:
        raise ValueError(f"images of {H}x{W} pixels cannot be cut into {h}x{w} equal patches")
    return images.reshape(M, C, h, H // h, w, W // w).transpose(0, 2, 4, 1, 3, 5).reshape(M, h * w, -1)
