"""Colours, random coats, and a layer to fill outlines on.

Pixels are made with integers only, so that they are the same on every machine.
"""

import colorsys
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from prockd.farmyard.curves import Points

SUPERSAMPLING = 3
"""Canvas pixels per image pixel and side; the middle one decides the label masks."""

RGB = tuple[int, int, int]
Uniform = Callable[[float, float], float]
"""Draws a number between two bounds."""

BLACK, WHITE = (0, 0, 0), (255, 255, 255)
_SOOT, _CHALK = (16, 12, 12), (250, 246, 240)
_COATS: tuple[RGB, ...] = (
    (236, 230, 220), (205, 185, 150), (190, 140, 90), (150, 98, 56), (112, 72, 44), (76, 52, 38), (46, 40, 38),
    (128, 124, 120), (168, 166, 162), (196, 112, 56), (222, 170, 96), (98, 88, 76),
)  # fmt: skip


def uniform_of(rng: np.random.Generator) -> Uniform:
    """Return a function that draws a number between two bounds."""
    draw = rng.random
    return lambda low, high: low + (high - low) * draw()


def mix(a: RGB, b: RGB, share: float) -> RGB:
    """Return a colour ``share`` of the way from a to b."""
    return (int(a[0] + (b[0] - a[0]) * share), int(a[1] + (b[1] - a[1]) * share), int(a[2] + (b[2] - a[2]) * share))


def shaded(colour: RGB, shade: float) -> RGB:
    """Return a colour made darker (shade below 1) or whiter (above 1)."""
    return mix(BLACK, colour, shade) if shade <= 1 else mix(colour, WHITE, shade - 1)


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
    dark, pale = mix(coat, _SOOT, u(0.45, 0.9)), mix(coat, _CHALK, u(0.4, 0.8))
    hair = (dark, pale, mix(coat, _SOOT, 0.3), random_coat(u))[int(u(0, 4))]
    horn = ((58, 52, 48), (226, 214, 186), (150, 132, 104), random_coat(u))[int(u(0, 4))]
    nose = (dark, pale, mix(coat, (222, 150, 140), 0.6), mix(coat, _SOOT, 0.2))[int(u(0, 4))]
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
        "eye_ring": mix(coat, (_CHALK, (10, 8, 8))[int(u(0, 2))], 0.55),
    }


class Layer:
    """A supersampled canvas of numbered fills; fill 0 is nothing."""

    def __init__(self, image_px: int) -> None:
        self.image_px = image_px
        self._image = Image.new("L", (image_px * SUPERSAMPLING,) * 2)
        self._draw = ImageDraw.Draw(self._image)
        self.colours: list[RGB] = [BLACK]

    def fill(self, outline: Points, colour: RGB) -> None:
        """Fill an outline given in image pixels; corners are rounded to canvas pixels."""
        # To 1/16 pixel first: a last bit that two machines round apart can't move a corner unless it sits on a tie.
        corners = np.rint(np.rint(outline * 16) * SUPERSAMPLING / 16 - 0.5)
        self._draw.polygon(corners.ravel().tolist(), fill=len(self.colours))
        self.colours.append(colour)

    def fills(self) -> np.ndarray:
        """Return the fill number of every canvas pixel."""
        return np.asarray(self._image)

    def centres(self) -> np.ndarray:
        """Return the fill number in the middle of every image pixel."""
        return self.fills()[SUPERSAMPLING // 2 :: SUPERSAMPLING, SUPERSAMPLING // 2 :: SUPERSAMPLING]

    def flatten(self, fills: np.ndarray | None = None) -> tuple[np.ndarray, Image.Image]:
        """Return colour times coverage (H, W, 3) uint16 and the coverage as an image, 0..255; of other fills too."""
        image = Image.fromarray(self.fills() if fills is None else fills)
        covered = image.point([0] + [255] * 255).reduce(SUPERSAMPLING)
        # Fill numbers become colours through a palette, then means of 3 x 3: both in integers, inside Pillow. Fill 0 is
        # black, so what is not covered adds nothing and the mean is already colour times coverage.
        image.putpalette(bytes(channel for colour in self.colours for channel in colour))
        return np.asarray(image.convert("RGB").reduce(SUPERSAMPLING)).astype(np.uint16), covered


def over(below: np.ndarray, colour: np.ndarray, covered: Image.Image) -> np.ndarray:
    """Return ``below`` (H, W, 3) uint16 with a flattened layer in front."""
    clear = 255 - np.asarray(covered).astype(np.uint16)
    return np.minimum(colour + below * clear[:, :, None] // 255, 255)
