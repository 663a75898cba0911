"""Images whose patches are each of one part."""

import numpy as np
import torch

from prockd.datasets import PackedImages


def masked(num_images: int = 8, side_px: int = 32, num_parts: int = 4, patch_px: int = 4) -> PackedImages:
    """Images whose patches are each of one part, with pixels that tell nothing of it."""
    rng = np.random.default_rng(0)
    side = side_px // patch_px
    parts = rng.integers(0, num_parts, (num_images, side, side)).repeat(patch_px, 1).repeat(patch_px, 2)
    pixels = rng.integers(0, 256, (num_images, 3, side_px, side_px)).astype(np.uint8)
    ids = tuple(map(str, range(num_images)))
    return PackedImages(pixels, np.zeros(num_images, np.int64), ids, ("x",), "f", parts.astype(np.uint8))


def hard(assigned: np.ndarray, num_prototypes: int) -> torch.Tensor:
    """(M, N) prototype numbers as assignments of 0.9 and 0.1."""
    return torch.eye(num_prototypes)[torch.from_numpy(assigned)] * 0.8 + 0.1
