"""Do prototypes agree with true parts? Purity, mutual information and a table, each with its controls."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Integer
from sklearn.cluster import MiniBatchKMeans
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor

from prockd.datasets import PackedImages


def patch_parts(parts: Integer[np.ndarray, "M H W"], grid: tuple[int, int], num_parts: int) -> Int[np.ndarray, "M N"]:
    """The part of each patch: the commonest one where at least half of its pixels are foreground, else 0."""
    M, H, W = parts.shape
    h, w = grid
    if H % h or W % w:
        raise ValueError(f"a part mask of {H}x{W} pixels cannot be cut into {h}x{w} equal patches")
    blocks = parts.reshape(M, h, H // h, w, W // w).transpose(0, 1, 3, 2, 4).reshape(M, h * w, -1)
    counts = np.stack([(blocks == part).sum(-1) for part in range(num_parts)], axis=-1)  # (M, N, P)
    majority = counts[..., 1:].argmax(-1) + 1
    return np.where(2 * counts[..., 0] <= blocks.shape[-1], majority, 0)


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
    return PartAgreement(
        float(table[:, 1:].max(1).sum() / total),
        float(normalized_mutual_info_score(parts[front], assigned[front])) if front.any() else 0.0,
        float(table[:, 1:].sum(0).max() / total),
        table,
    )


def agreement_with_controls(
    assignments: Float[Tensor, "M N K"], images: PackedImages, grid: tuple[int, int], num_parts: int, *, seed: int = 0
) -> dict[str, PartAgreement]:
    """Part agreement of the prototypes, of shuffled assignments and of k-means on raw pixel patches with the same K.

    Raises:
        ValueError: the images have no part masks.
    """
    if images.parts is None:
        raise ValueError("these images have no part masks; part agreement needs Farmyard or your own masks")
    K = assignments.shape[-1]
    parts = patch_parts(np.asarray(images.parts), grid, num_parts)
    assigned = assignments.argmax(-1).numpy()
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(assigned.ravel()).reshape(assigned.shape)
    pixels = pixel_patches(images, grid)
    raw = MiniBatchKMeans(K, n_init=3, random_state=seed).fit(
        pixels.reshape(-1, pixels.shape[-1])[:: max(1, pixels.shape[0] * pixels.shape[1] // 30_000)]
    )
    by_pixels = raw.predict(pixels.reshape(-1, pixels.shape[-1])).reshape(assigned.shape)
    return {
        "prototypes": part_agreement(assigned, parts, K, num_parts),
        "shuffled": part_agreement(shuffled, parts, K, num_parts),
        "raw pixels": part_agreement(by_pixels, parts, K, num_parts),
    }


def pixel_patches(images: PackedImages, grid: tuple[int, int]) -> Float[np.ndarray, "M N P"]:
    """Raw RGB values of each patch, 0..1: what a prototype would see without a teacher."""
    M, _, S, _ = images.pixels.shape
    h, w = grid
    blocks = np.asarray(images.pixels).reshape(M, 3, h, S // h, w, S // w).transpose(0, 2, 4, 1, 3, 5)
    return blocks.reshape(M, h * w, -1).astype(np.float32) / 255
