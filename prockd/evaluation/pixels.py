"""Do prototypes agree with part masks, pixel by pixel and with the background, as part discovery is measured?"""

from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from prockd.datasets import PackedImages
from prockd.evaluation.parts import checked_parts, contingency, information

_CHUNK = 8  # images whose enlarged assignments lie in memory at a time


@dataclass(frozen=True)
class PixelAgreement:
    """Agreement of the prototype of each pixel with the mask; background is a part like the others.

    NMI and ARI over all pixels are what PDiscoNet (van der Klis et al., ICCV 2023) and PDiscoFormer (Aniraj et al.,
    ECCV 2024) report on PartImageNet.

    Attributes:
        nmi: normalised mutual information of prototypes and parts, background among them, 0..1.
        ari: adjusted Rand index of the same, 0 by chance.
        foreground_iou: intersection over union of the true foreground and the foreground that prototypes tell; a
            prototype is foreground where most of its pixels are, in the *other* half of the images. NaN for one image.
        background_iou: the same of the background.
    """

    nmi: float
    ari: float
    foreground_iou: float
    background_iou: float


def pixel_agreement(
    assignments: Float[Tensor, "M N K"] | Int[np.ndarray, "M N"],
    images: PackedImages,
    grid: tuple[int, int],
    num_parts: int,
    *,
    seed: int = 0,
) -> PixelAgreement:
    """Compare the prototype of each pixel with its part.

    Soft assignments are enlarged bilinearly and the strongest is the prototype of the pixel; groups that are hard, such
    as those of :func:`prockd.evaluation.controls.with_controls`, keep the edges of their patches.

    Raises:
        ValueError: as :func:`prockd.evaluation.parts.agreement_with_controls`.
    """
    checked_parts(images, grid, num_parts)
    assert images.parts is not None
    M, K = len(images), int(assignments.max()) + 1 if assignments.ndim == 2 else assignments.shape[2]
    half = np.random.default_rng(seed).permutation(M) % 2
    tables = np.zeros((2, K, num_parts), np.int64)
    for start in range(0, M, _CHUNK):
        rows = slice(start, start + _CHUNK)
        numbers, parts = prototype_of_pixels(assignments[rows], grid, images.image_px), np.array(images.parts[rows])
        for side in (0, 1):
            mine = half[rows] == side
            tables[side] += contingency(numbers[mine], parts[mine].astype(np.int64), K, num_parts)
    front = tables[::-1, :, 1:].sum(2) > tables[::-1, :, 0]  # (2, K), named by the other half
    told = np.stack([np.where(front[..., None], tables, 0), np.where(front[..., None], 0, tables)]).sum((1, 2))
    (right, missed), (wrong, empty) = told[:, 1:].sum(1), told[:, 0]  # pixels told to be foreground, and background
    nmi, ari = information(tables.sum(0))
    overlaps = (right / (right + missed + wrong), empty / max(1, empty + missed + wrong)) if M > 1 else (np.nan,) * 2
    return PixelAgreement(nmi, ari, *map(float, overlaps))


def prototype_of_pixels(
    assignments: Float[Tensor, "B N K"] | Int[np.ndarray, "B N"], grid: tuple[int, int], side_px: int
) -> Int[np.ndarray, "B S S"]:
    """The prototype of each pixel: the strongest of enlarged assignments, or the hard one of the patch around it."""
    if isinstance(assignments, Tensor):
        maps = assignments.cpu().transpose(1, 2).reshape(len(assignments), -1, *grid)  # (B, K, h, w)
        large = F.interpolate(maps, (side_px, side_px), mode="bilinear", align_corners=False)
        return large.argmax(1).numpy()
    rows, columns = (np.arange(side_px) * side // side_px for side in grid)
    return assignments.reshape(-1, *grid)[:, rows[:, None], columns]
