"""Seamless tiles of integer noise: clouds over the ground, fur, and the patterns of coats."""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from jaxtyping import UInt8

TILE = 256
"""Side of every tile; tiles repeat seamlessly."""


@cache
def noise_tile(cell: int, seed: int) -> UInt8[np.ndarray, "256 256"]:
    """Return seamless smooth noise whose bumps are about ``cell`` (a power of two) pixels wide."""
    n = TILE // cell
    grid = np.random.default_rng([77, cell, seed]).integers(0, 256, (n, n), dtype=np.int64)
    t = np.arange(cell)
    ease = 3 * t * t * cell - 2 * t * t * t  # smoothstep in whole numbers: 0..unit
    unit = cell * cell * cell

    def stretch(values: np.ndarray) -> np.ndarray:
        following = values[(np.arange(n) + 1) % n]
        mixed = values[:, None] * (unit - ease)[None, :, None] + following[:, None] * ease[None, :, None]
        return np.reshape(mixed // unit, (TILE, -1))

    return stretch(stretch(grid).T).T.astype(np.uint8)


@cache
def cloud_tile(seed: int) -> UInt8[np.ndarray, "256 256"]:
    """Return seamless noise of several scales, 0..255."""
    layers = [(4, 64), (3, 32), (2, 16), (2, 8), (2, 4), (1, 2)]
    total = sum((weight * (noise_tile(cell, seed).astype(np.int64) - 128) for weight, cell in layers), np.array(0))
    return np.clip(total * 2 // 14 + 128, 0, 255).astype(np.uint8)


@cache
def _nearest_two(cell: int) -> np.ndarray:
    """Return (2, 256, 256) distances from each pixel to the nearest two of randomly moved grid points."""
    n = TILE // cell
    points = np.random.default_rng([77, cell]).integers(0, cell, (n, n, 2))
    y, x = np.mgrid[0:TILE, 0:TILE]
    distances = []
    for dy, dx in np.ndindex(3, 3):  # the points of a pixel's own cell and of the eight around it
        row, column = y // cell + dy - 1, x // cell + dx - 1
        point = points[row % n, column % n]
        away_x, away_y = column * cell + point[..., 0] - x, row * cell + point[..., 1] - y
        distances.append(np.sqrt((away_x * away_x + away_y * away_y).astype(np.float64)))
    return np.sort(distances, axis=0)[:2]


_MARKED: dict[str, Callable[[], np.ndarray]] = {
    "plain": lambda: np.zeros((TILE, TILE)),
    "stripes": lambda: (
        (np.arange(TILE) * 11 + noise_tile(64, 1).astype(np.int64) * 2 + noise_tile(16, 2) // 2) & 255
        < 112 + noise_tile(32, 3) // 8
    ),
    "spots": lambda: _nearest_two(16)[0] < 4.6,
    "patches": lambda: noise_tile(64, 5).astype(np.int64) + noise_tile(16, 6) // 6 > 146,
    "net": lambda: np.diff(_nearest_two(16), axis=0)[0] < 3.0,
    "dapple": lambda: noise_tile(16, 7) > 168,
}
PATTERNS = tuple(_MARKED)
"""How a coat may be marked."""


@cache
def pattern_tile(pattern: str) -> UInt8[np.ndarray, "256 256"]:
    """Return where a coat pattern has its second colour: 1 there and 0 elsewhere."""
    return _MARKED[pattern]().astype(np.uint8)


def crop(tile: np.ndarray, at: Sequence[int], size: int, step: int = 256) -> np.ndarray:
    """Return a (size, size) window of a tile from ``at`` (x, y), ``step`` / 256 tile pixels apart."""
    along = np.arange(size) * step // 256
    return tile[(along + at[1]) % TILE][:, (along + at[0]) % TILE]
