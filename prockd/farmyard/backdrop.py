"""What is behind and in front of the animals: ground, sky, bushes, rocks, posts and grass, in several families."""

import math

import numpy as np

from prockd.farmyard.curves import smooth
from prockd.farmyard.paint import BLACK, RGB, WHITE, Layer, Uniform, hsv, mix, over, random_coat
from prockd.farmyard.texture import TILE, cloud_tile, crop

BACKGROUNDS = ("field", "snow", "night", "shifted")
"""Families of backgrounds: grass and sky of random hue (the usual one), snow, night, and shifted: walls of saturated
tiles and stripes with hard edges, which look like none of the others."""

_HUES = {
    "field": (((0.5, 0.65), (0.05, 0.5), (0.6, 1.0)), ((0.07, 0.36), (0.2, 0.7), (0.3, 0.85))),
    "odd field": (((0, 1), (0.05, 0.6), (0.4, 1.0)), ((0, 1), (0.1, 0.7), (0.25, 0.9))),
    "snow": (((0.5, 0.68), (0.05, 0.4), (0.7, 1.0)), ((0.5, 0.7), (0.0, 0.12), (0.85, 1.0))),
    "night": (((0.58, 0.75), (0.4, 0.9), (0.1, 0.35)), ((0.2, 0.7), (0.2, 0.6), (0.15, 0.45))),
}
"""Bounds of hue, saturation and value of sky and ground."""


def draw_backdrop(family: str, image_px: int, horizon: float, u: Uniform) -> np.ndarray:
    """Return (H, W, 3) uint16 pixels of a background with clutter; ``horizon`` is a share of the height, from above."""
    if family == "shifted":
        return _wall(image_px, u)
    hues = _HUES["odd field" if family == "field" and u(0, 1) < 0.35 else family]
    sky, ground = (hsv(u(*hue), u(*saturation), u(*value)) for hue, saturation, value in hues)
    line = 0 if u(0, 1) < 0.25 else int(horizon * image_px)
    fade = (np.arange(image_px, dtype=np.int64) * 256 // image_px)[:, None]
    far = mix(sky, ground, u(0.0, 0.5))
    near = _ramp(mix(ground, far, 0.25), ground, fade)
    rows = np.where(np.arange(image_px)[:, None] < line, _ramp(sky, far, fade), near)
    base = np.repeat(rows[:, None].astype(np.uint16), image_px, axis=1)
    layer = Layer(image_px)
    draw_things(layer, int(u(2, 8)), u, low=horizon, ground=ground)
    _grass(layer, int(u(0, 26)), horizon, ground, u)
    strength, step = int(u(30, 150)), int(u(100, 420)) * 96 // image_px
    cloud = crop(cloud_tile(int(u(0, 4))), (int(u(0, TILE)), int(u(0, TILE))), image_px, step).astype(np.int32)
    factor: np.ndarray = 256 - strength // 2 + cloud * strength // 256
    textured = over(base, *layer.flatten()).astype(np.int32) * factor[:, :, None] // 256
    return np.asarray(np.minimum(textured, 255), np.uint16)


def draw_things(layer: Layer, count: int, u: Uniform, *, low: float, ground: RGB | None = None) -> None:
    """Fill bushes, rocks and posts below ``low``, a share of the height, some in colours of coats or of the ground."""
    side = layer.image_px
    for _ in range(count):
        x, y, size = u(0, side), u(low - 0.05, 1.05) * side, u(0.05, 0.2) * side
        colour = random_coat(u) if ground is None or u(0, 1) < 0.5 else mix(ground, random_coat(u), u(0.1, 0.5))
        kind = u(0, 1)
        if kind < 0.25:  # a post, some with a rail across the picture
            half, height = u(0.012, 0.035) * side, u(1.0, 2.5) * size
            lean, top, rail = u(-0.3, 0.3) * half, y - height, y - 0.7 * height
            layer.fill(np.array([(x - half, y), (x - half + lean, top), (x + half + lean, top), (x + half, y)]), colour)
            if kind < 0.1:
                ends = [(0.0, rail), (side, rail + half), (side, rail + 2 * half), (0.0, rail + half)]
                layer.fill(np.array(ends), colour)
            continue
        n, flat = (11, 1.0) if kind < 0.65 else (7, 0.6)  # a bush or a rock
        turns = [2 * math.pi * i / n for i in range(n)]
        reach = [size * u(0.6, 1.25) for _ in turns]
        blob = smooth([(x + r * math.cos(t), y + r * flat * math.sin(t)) for r, t in zip(reach, turns, strict=True)], 3)
        layer.fill(blob, colour)
        if kind < 0.85:
            lit = mix(colour, WHITE, u(0.05, 0.3))
            layer.fill(blob * 0.6 + 0.4 * np.array([x - 0.2 * size, y - 0.5 * size]), lit)


def _grass(layer: Layer, count: int, horizon: float, ground: RGB, u: Uniform) -> None:
    side, blade = layer.image_px, mix(ground, random_coat(u), u(0.1, 0.6))
    for _ in range(count):
        x, y, size = u(0, side), u(horizon, 1.1) * side, u(0.02, 0.08) * side
        lean = u(-0.6, 0.6) * size
        shade = mix(blade, WHITE if u(0, 1) < 0.5 else BLACK, u(0, 0.3))
        layer.fill(np.array([(x, y), (x + lean, y - size), (x + 0.2 * size, y)]), shade)


def _wall(image_px: int, u: Uniform) -> np.ndarray:
    """Return tiles, bricks or diagonal stripes of saturated colours."""
    y, x = np.mgrid[0:image_px, 0:image_px]
    period, kind = max(2, int(u(0.08, 0.2) * image_px)), int(u(0, 3))
    which = [(x // period + y // period) % 2, ((x + y // period % 2 * period // 2) // period + y // period) % 3 % 2,
             (x + y) // period % 2][kind]  # fmt: skip
    hue = u(0, 1)
    pair = np.array([hsv(hue, u(0.6, 1), u(0.5, 1)), hsv(hue + u(0.3, 0.7), u(0.6, 1), u(0.5, 1))], dtype=np.uint16)
    return np.asarray(pair[which])


def _ramp(a: RGB, b: RGB, fade: np.ndarray) -> np.ndarray:
    return np.asarray((np.array(a) * (256 - fade) + np.array(b) * fade) // 256)
