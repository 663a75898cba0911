"""What lies in each patch of the grid: parts, raw pixels, and where in the frame the patch is."""

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, Integer

from prockd.datasets import PackedImages

TOUCH = 0.15
"""Share of a patch that a part must cover for the patch to lie on it: thin parts rarely fill half a patch."""

_CHUNK = 16  # images in memory at a time


def patch_shares(
    parts: Integer[np.ndarray, "M H W"], grid: tuple[int, int], num_parts: int
) -> Float32[np.ndarray, "M N P"]:
    """The share of each patch that each part covers, 0..1; a pixel on an edge of patches counts in both by its area.

    Raises:
        ValueError: a grid finer than the masks, or a mask with a number that is no part's.
    """
    (M, H, W), (h, w) = parts.shape, grid
    check_grid((H, W), grid)
    if M and (highest := int(parts.max())) >= num_parts:
        raise ValueError(f"the masks hold part {highest}, but the {num_parts} parts are numbered from 0")
    down, across = (overlap(*sides).astype(np.float32) for sides in ((H, h), (W, w)))
    shares = np.empty((M, h * w, num_parts), np.float32)
    for start in range(0, M, _CHUNK):
        rows = slice(start, start + _CHUNK)
        each = (parts[rows, ..., None] == np.arange(num_parts)).astype(np.float32)  # (m, H, W, P)
        columns = (down @ each.reshape(len(each), H, -1)).reshape(len(each), h, W, num_parts)
        shares[rows] = (across @ columns).reshape(len(each), h * w, num_parts) / (H * W)
    return shares


def patch_parts(parts: Integer[np.ndarray, "M H W"], grid: tuple[int, int], num_parts: int) -> Int[np.ndarray, "M N"]:
    """The part of each patch: the commonest one where at least half of its area is foreground, else 0."""
    shares = patch_shares(parts, grid, num_parts)
    return np.where(shares[..., 0] <= 0.5, shares[..., 1:].argmax(-1) + 1, 0)


def lies_on(
    parts: Integer[np.ndarray, "M H W"], grid: tuple[int, int], num_parts: int, *, share: float = TOUCH
) -> Bool[np.ndarray, "M N P"]:
    """Whether each patch lies on each part: at least ``share`` of it is covered. A patch may lie on several."""
    return patch_shares(parts, grid, num_parts) >= share


def pixel_patches(images: PackedImages, grid: tuple[int, int]) -> Float32[np.ndarray, "M N V"]:
    """Raw RGB values of each patch, 0..1: what a prototype would see without a teacher.

    Where the grid does not divide the side, pixels are resampled by area to the next multiple of it.
    """
    chunks = (np.asarray(images.pixels[start : start + _CHUNK]) for start in range(0, len(images), _CHUNK))
    return np.concatenate([cut_patches(pixels.astype(np.float32) / 255, grid) for pixels in chunks])


def cut_patches(pixels: Float32[np.ndarray, "M C H W"], grid: tuple[int, int]) -> Float32[np.ndarray, "M N V"]:
    """The values of each patch, row by row of the grid."""
    (M, C, H, W), (h, w) = pixels.shape, grid
    check_grid((H, W), grid)
    p, q = -(-H // h), -(-W // w)  # rows and columns of pixels in a patch
    if H % h or W % w:
        pixels = (overlap(H, h * p) / H).astype(np.float32) @ pixels @ (overlap(W, w * q) / W).astype(np.float32).T
    return pixels.reshape(M, C, h, p, w, q).transpose(0, 2, 4, 1, 3, 5).reshape(M, h * w, -1)


def place_blocks(grid: tuple[int, int], count: int) -> Int[np.ndarray, " N"]:
    """Which of at most ``count`` equal blocks of the frame each patch lies in: what a prototype of places would say."""
    (h, w), side = grid, max(1, int(count**0.5))
    rows, columns = np.divmod(np.arange(h * w), w)
    blocks: np.ndarray = rows * side // h * side + columns * side // w
    return blocks


def nearest_places(grid: tuple[int, int]) -> Int[np.ndarray, "N N"]:
    """All patches of the frame by their distance from each, itself first."""
    (h, w), N = grid, grid[0] * grid[1]
    yx = np.stack(np.divmod(np.arange(N), w), 1) / (h, w)
    return np.argsort(((yx[:, None] - yx) ** 2).sum(-1), axis=1, kind="stable")


def overlap(length: int, count: int) -> Float64[np.ndarray, "count length"]:
    """How much of each pixel of a line lies in each of ``count`` equal pieces of it, in whole 1/count of a pixel."""
    pieces, pixels = np.arange(count + 1) * length, np.arange(length + 1) * count
    shared = np.minimum(pieces[1:, None], pixels[1:]) - np.maximum(pieces[:-1, None], pixels[:-1])
    clipped: np.ndarray = np.maximum(0.0, shared)
    return clipped


def check_grid(size: tuple[int, int], grid: tuple[int, int]) -> None:
    """Refuse a grid finer than the image with a ValueError."""
    if grid[0] > size[0] or grid[1] > size[1]:
        reason = f"a grid of {grid[0]}x{grid[1]} patches is finer than images of {size[0]}x{size[1]} pixels"
        raise ValueError(f"{reason}: give the images, and their masks, at the teacher's size")
