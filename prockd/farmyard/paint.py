"""Colours and textures: integer noise tiles, coat patterns, random coats, and a layer to fill outlines on.

Pixels are made with integers only, so that they are the same on every machine.
"""

import colorsys
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from prockd.farmyard.curves import Points

SUPERSAMPLING = 3
"""Canvas pixels per image pixel and side; the middle one decides the label masks."""

TILE = 256
"""Side of every texture tile; tiles repeat seamlessly."""

RGB = tuple[int, int, int]
Uniform = Callable[[float, float], float]

_COATS: tuple[RGB, ...] = (
    (236, 230, 220), (205, 185, 150), (190, 140, 90), (150, 98, 56), (112, 72, 44), (76, 52, 38), (46, 40, 38),
    (128, 124, 120), (168, 166, 162), (196, 112, 56), (222, 170, 96), (98, 88, 76),
)  # fmt: skip


@cache
def noise_tile(cell: int, seed: int) -> UInt8[np.ndarray, "256 256"]:
    """Return seamless smooth noise whose bumps are about ``cell`` (a power of two) pixels wide."""
    n = TILE // cell
    grid = np.random.default_rng([77, cell, seed]).integers(0, 256, (n, n), dtype=np.int64)
    t = np.arange(cell)
    ease = 3 * t * t * cell - 2 * t * t * t
    unit = cell * cell * cell

    def stretch(values: np.ndarray) -> np.ndarray:
        following = values[(np.arange(n) + 1) % n]
        mixed: np.ndarray = values[:, None] * (unit - ease)[None, :, None] + following[:, None] * ease[None, :, None]
        return (mixed // unit).reshape(TILE, -1)

    return stretch(stretch(grid).T).T.astype(np.uint8)


@cache
def cloud_tile(seed: int) -> UInt8[np.ndarray, "256 256"]:
    """Return seamless noise of several scales, 0..255."""
    layers = [(4, 64), (3, 32), (2, 16), (2, 8), (2, 4), (1, 2)]
    total = sum((weight * noise_tile(cell, seed).astype(np.int64) for weight, cell in layers), np.array(-14 * 128))
    cloud: np.ndarray = np.clip(total * 2 // 14 + 128, 0, 255)
    return cloud.astype(np.uint8)


@cache
def pattern_tile(pattern: str) -> UInt8[np.ndarray, "256 256"]:
    """Return where a coat pattern has its second colour: 1 there and 0 elsewhere."""
    marked: np.ndarray = np.zeros((TILE, TILE), dtype=bool)
    if pattern == "stripes":
        wave = np.arange(TILE) * 11 + noise_tile(64, 1).astype(np.int64) * 2 + noise_tile(16, 2) // 2
        marked = (wave & 255) < 112 + noise_tile(32, 3) // 8
    elif pattern == "spots":
        marked = _cells(16)[0] < 4.6
    elif pattern == "patches":
        marked = noise_tile(64, 5).astype(np.int64) + noise_tile(16, 6) // 6 > 146
    elif pattern == "net":
        first, second = _cells(16)
        marked = second - first < 3.0
    elif pattern == "dapple":
        marked = noise_tile(16, 7) > 168
    return marked.astype(np.uint8)


@cache
def _cells(cell: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the distances from each pixel to the nearest and second nearest of randomly moved grid points."""
    n = TILE // cell
    points = np.random.default_rng([77, cell]).integers(0, cell, (n, n, 2))
    y, x = np.mgrid[0:TILE, 0:TILE]
    first = np.full((TILE, TILE), 1e9)
    second = first.copy()
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            row, column = y // cell + dy, x // cell + dx
            point = points[row % n, column % n]
            away_x, away_y = column * cell + point[..., 0] - x, row * cell + point[..., 1] - y
            distance = np.sqrt((away_x * away_x + away_y * away_y).astype(np.float64))
            second = np.minimum(second, np.maximum(first, distance))
            first = np.minimum(first, distance)
    return first, second


def crop(tile: np.ndarray, at: Sequence[int], size: int, step: int = 256) -> np.ndarray:
    """Return a (size, size) window of a tile from ``at`` (x, y), ``step`` / 256 tile pixels apart."""
    along = np.arange(size) * step // 256
    return tile[(along + at[1]) % TILE][:, (along + at[0]) % TILE]


def mix(a: RGB, b: RGB, share: float) -> RGB:
    """Return a colour ``share`` of the way from a to b."""
    return (int(a[0] + (b[0] - a[0]) * share), int(a[1] + (b[1] - a[1]) * share), int(a[2] + (b[2] - a[2]) * share))


def shaded(colour: RGB, shade: float) -> RGB:
    """Return a colour made darker (shade below 1) or whiter (above 1)."""
    return mix((0, 0, 0), colour, shade) if shade <= 1 else mix(colour, (255, 255, 255), shade - 1)


def hsv(hue: float, saturation: float, value: float) -> RGB:
    """Return a colour from hue (wraps at 1), saturation and value, 0..1."""
    r, g, b = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return int(255 * r), int(255 * g), int(255 * b)


def random_coat(u: Uniform) -> RGB:
    """Draw a coat colour, natural (3 in 5) or odd; the distribution is the same for every species."""
    if u(0, 1) < 0.6:
        base = mix(_COATS[int(u(0, len(_COATS)))], _COATS[int(u(0, len(_COATS)))], u(0, 0.5))
        return mix(base, hsv(u(0, 1), u(0, 1), u(0.2, 1)), u(0, 0.15))
    return hsv(u(0, 1), u(0.1, 0.85), u(0.25, 0.95))


def random_paints(u: Uniform) -> dict[str, RGB]:
    """Draw the colours of an animal: coat and marking, hair, hooves, horns, muzzle and so on."""
    coat = random_coat(u)
    bright = sum(coat) > 380
    marking = mix((22, 18, 16) if bright else (244, 240, 232), random_coat(u), u(0, 0.45))
    dark, pale = mix(coat, (16, 12, 12), u(0.45, 0.9)), mix(coat, (250, 246, 240), u(0.4, 0.8))
    hair = (dark, pale, mix(coat, (16, 12, 12), 0.3), random_coat(u))[int(u(0, 4))]
    horn = ((58, 52, 48), (226, 214, 186), (150, 132, 104), random_coat(u))[int(u(0, 4))]
    nose = (dark, pale, mix(coat, (222, 150, 140), 0.6), mix(coat, (16, 12, 12), 0.2))[int(u(0, 4))]
    return {
        "coat": coat,
        "marking": marking,
        "hair": hair,
        "hoof": mix((44, 38, 36), random_coat(u), u(0, 0.6)),
        "foot": mix(coat, (dark, pale)[int(u(0, 2))], u(0.1, 0.9)),
        "horn": mix(horn, coat, u(0, 0.3)),
        "muzzle": nose,
        "ear": coat,
        "inner_ear": mix(coat, ((40, 26, 26), (230, 170, 160))[int(u(0, 2))], 0.5),
        "dark": mix(coat, (10, 8, 8), 0.85),
        "eye": (14, 11, 10),
        "eye_ring": mix(coat, ((250, 246, 240), (10, 8, 8))[int(u(0, 2))], 0.55),
    }


class Layer:
    """A supersampled canvas of numbered fills; fill 0 is nothing."""

    def __init__(self, image_px: int) -> None:
        self._image = Image.new("L", (image_px * SUPERSAMPLING,) * 2)
        self._draw = ImageDraw.Draw(self._image)
        self.colours: list[RGB] = [(0, 0, 0)]

    def fill(self, outline: Points, colour: RGB) -> None:
        """Fill an outline given in image pixels; corners are rounded to canvas pixels."""
        corners = np.rint(np.rint(outline * 16) * SUPERSAMPLING / 16 - 0.5)
        self._draw.polygon(corners.ravel().tolist(), fill=len(self.colours))
        self.colours.append(colour)

    def fills(self) -> np.ndarray:
        """Return the fill number of every canvas pixel."""
        return np.asarray(self._image)

    def centres(self) -> np.ndarray:
        """Return the fill number in the middle of every image pixel."""
        return self.fills()[SUPERSAMPLING // 2 :: SUPERSAMPLING, SUPERSAMPLING // 2 :: SUPERSAMPLING]

    def flatten(
        self, fills: np.ndarray | None = None, colours: Sequence[RGB] | None = None
    ) -> tuple[np.ndarray, Image.Image]:
        """Return colour times coverage (H, W, 3) uint16 and the coverage as an image, 0..255."""
        image = self._image.copy() if fills is None else Image.fromarray(fills)
        covered = image.point([0] + [255] * 255).reduce(SUPERSAMPLING)
        image.putpalette(bytes(channel for colour in colours or self.colours for channel in colour))
        return np.asarray(image.convert("RGB").reduce(SUPERSAMPLING)).astype(np.uint16), covered


def over(below: np.ndarray, colour: np.ndarray, covered: Image.Image) -> np.ndarray:
    """Return ``below`` (H, W, 3) uint16 with a flattened layer in front."""
    clear = 255 - np.asarray(covered).astype(np.uint16)
    return np.minimum(colour + below * clear[:, :, None] // 255, 255)
