"""A picture: background, clutter, animals in their poses, what stands in front, light and sensor."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageFilter

from prockd.farmyard.animal import Body, Pose, build
from prockd.farmyard.backdrop import draw_backdrop, draw_things
from prockd.farmyard.paint import (
    RGB,
    SUPERSAMPLING,
    TILE,
    Layer,
    Uniform,
    crop,
    noise_tile,
    over,
    pattern_tile,
    random_paints,
    shaded,
)
from prockd.farmyard.parts import KEYPOINT_PARTS, KEYPOINTS
from prockd.farmyard.species import PATTERNS, Species

MAX_OCCLUSION = 0.25
"""Largest share of the animals' pixels that things in front may hide."""

_MIN_VISIBLE = 20
_MARKED = 128


@dataclass(frozen=True)
class Picture:
    """A rendered picture and everything known about it; see ``Sample`` for shapes."""

    image: UInt8[np.ndarray, "H W 3"]
    parts: UInt8[np.ndarray, "H W"]
    instances: UInt8[np.ndarray, "H W"]
    boxes: Float32[np.ndarray, "n 4"]
    species: tuple[Species, ...]
    keypoints: Float32[np.ndarray, "n J 3"]


@dataclass(frozen=True)
class Placed:
    """An animal in the picture: its body in image pixels, colours, and usual or unusual pattern."""

    body: Body
    paints: dict[str, RGB]
    pattern: str
    span: float


def uniform_of(rng: np.random.Generator) -> Uniform:
    """Return a function that draws a number between two bounds."""
    draw = rng.random
    return lambda low, high: low + (high - low) * draw()


def random_pose(u: Uniform) -> Pose:
    """Draw a pose: walking or standing, sometimes grazing, seen from slightly ahead or behind."""
    grazing = u(0, 1) < 0.15
    return Pose(
        phase=u(0, 1),
        stride=u(3, 24),
        neck=u(-60, -30) if grazing else u(-14, 12),
        head=u(-5, 15) if grazing else u(-10, 12),
        tail=u(-18, 30),
        tilt=u(-5, 5),
        squeeze=u(0.8, 1.0),
        left=u(0, 1) < 0.5,
    )


def place(body: Body, pose: Pose, span: float) -> tuple[Body, float, float]:
    """Turn a body to its pose and scale it so that its longer side is ``span`` pixels.

    Returns:
        The body with its bounding box at (0, 0), y down, and the width and height of that box.
    """
    angle = math.radians(pose.tilt)
    cos, sin = math.cos(angle), math.sin(angle)
    stretch = -pose.squeeze if pose.left else pose.squeeze
    ends = np.cumsum([len(outline) for outline in body.outlines])[:-1]
    points = np.concatenate([*body.outlines, list(body.points.values())])
    x, y = points[:, 0] * stretch, points[:, 1]
    turned = np.stack((x * cos - y * sin, -(x * sin + y * cos)), axis=1)
    low = turned.min(axis=0)
    size = turned.max(axis=0) - low
    scale = span / max(float(size[0]), float(size[1]))
    placed = (turned - low) * scale
    *outlines, last = np.split(placed, [*ends, ends[-1] + len(body.outlines[-1])])
    named = {name: (float(px), float(py)) for name, (px, py) in zip(body.points, last, strict=True)}
    return Body(outlines, body.paints, named), float(size[0]) * scale, float(size[1]) * scale


def moved(body: Body, dx: float, dy: float) -> Body:
    """Return a body moved by some pixels."""
    shift = np.array([dx, dy])
    points = {name: (x + dx, y + dy) for name, (x, y) in body.points.items()}
    return Body([outline + shift for outline in body.outlines], body.paints, points)


def paint_animal(
    placed: Placed, image_px: int, u: Uniform, light: tuple[float, float]
) -> tuple[np.ndarray, Image.Image, np.ndarray]:
    """Paint one animal: (H, W, 3) colour times coverage, coverage, and (H, W) part seen, 0 where there is none."""
    layer = Layer(image_px)
    patterned, parts = [0], [0]
    colours: list[RGB] = []
    for outline, (paint, part, shade) in zip(placed.body.outlines, placed.body.paints, strict=True):
        layer.fill(outline, shaded(placed.paints[paint], shade))
        patterned.append(_MARKED if paint == "coat" else 0)
        parts.append(part)
        colours.append(shaded(placed.paints["marking"], shade))
    seen = np.array(parts, dtype=np.uint8)[layer.centres()]
    if placed.pattern == "plain":
        colour, covered = layer.flatten()
    else:
        window = int(256 * TILE / (SUPERSAMPLING * placed.span))
        tile = crop(pattern_tile(placed.pattern), (int(u(0, TILE)), int(u(0, TILE))), image_px * SUPERSAMPLING, window)
        fills = layer.fills()
        palette = layer.colours + [(0, 0, 0)] * (_MARKED + 1 - len(layer.colours)) + colours
        colour, covered = layer.flatten(fills + tile * np.array(patterned, dtype=np.uint8)[fills], palette)

    reach = max(1, int(placed.span) // 20)
    soft = np.asarray(covered.filter(ImageFilter.BoxBlur(reach))).astype(np.int32)
    dx, dy = round(light[0] * reach), round(light[1] * reach)
    rounded = np.roll(soft, (dy, dx), (0, 1)) - np.roll(soft, (-dy, -dx), (0, 1))
    ramp = np.arange(image_px, dtype=np.int32) * 256 // image_px - 128
    at = (int(u(0, TILE)), int(u(0, TILE)))
    fur = crop(noise_tile(4, 8), at, image_px, 256 * 96 // image_px).astype(np.int32) - 128
    side = int(u(-60, 60))
    factor = 250 + rounded * 80 // 256 + (ramp * side // 256)[None, :] + fur * int(u(4, 26)) // 128
    lit = np.minimum(colour * factor[:, :, None].astype(np.uint32) // 256, np.asarray(covered)[:, :, None])
    return lit.astype(np.uint16), covered, seen


def render(
    herd: Sequence[Species],
    rng: np.random.Generator,
    *,
    image_px: int = 96,
    background: str = "field",
    single: bool = True,
) -> Picture:
    """Render animals into a picture; the same generator state gives the same pixels on every machine.

    Args:
        herd: the species of each animal, at most 255.
        rng: source of every random choice.
        image_px: width and height, 32..512.
        background: a family of ``BACKGROUNDS``.
        single: whether the (one) animal fills the picture, rather than standing somewhere in a scene.

    Returns:
        The picture; animals of which fewer than 20 pixels are seen are not among its instances.
    """
    u = uniform_of(rng)
    horizon = u(0.2, 0.75)
    canvas = draw_backdrop(background, image_px, horizon, u)
    light = (u(-1, 1), u(0.2, 1))
    spans = [u(0.75, 1.0)] if single else sorted(u(0.25, 0.7) for _ in herd)
    parts = np.zeros((image_px, image_px), dtype=np.uint8)
    owners = np.zeros((image_px, image_px), dtype=np.uint8)
    bodies = []
    for number, (species, share) in enumerate(zip(herd, spans, strict=True), start=1):
        pose = random_pose(u)
        body, width, height = place(build(species, pose), pose, share * image_px)
        if single:
            x, y = (_offset(u, image_px, side) for side in (width, height))
        else:
            x = u(-0.1 * width, image_px - 0.9 * width)
            y = min(image_px * (min(horizon, 0.5) + 0.1 + 0.75 * share + u(0, 0.1)), 1.05 * image_px) - height
        drawn = u(0, 1)
        pattern = "plain" if drawn < 0.15 else PATTERNS[int(u(0, len(PATTERNS)))] if drawn < 0.4 else species.pattern
        placed = Placed(moved(body, x, y), random_paints(u), pattern, share * image_px)
        colour, covered, seen = paint_animal(placed, image_px, u, light)
        canvas = over(canvas, colour, covered)
        parts[seen > 0] = seen[seen > 0]
        owners[seen > 0] = number
        bodies.append(placed.body)

    if u(0, 1) < 0.35:
        front = Layer(image_px)
        draw_things(front, image_px, int(u(1, 3)), u, low=0.55)
        hidden = front.centres() > 0
        if int((hidden & (owners > 0)).sum()) <= MAX_OCCLUSION * int((owners > 0).sum()):
            canvas = over(canvas, *front.flatten())
            parts[hidden] = owners[hidden] = 0
    return _labelled(_exposed(canvas, background, rng, u), parts, owners, bodies, herd)


def _offset(u: Uniform, image_px: int, side: float) -> float:
    """Return where an animal starts so that it is near the middle and loses at most 5 % of its side at an edge."""
    room = 0.5 * (image_px - side)
    reach = min(room + 0.05 * side, 0.1 * image_px)
    return room + u(-reach, reach)


def _exposed(canvas: np.ndarray, background: str, rng: np.random.Generator, u: Uniform) -> UInt8[np.ndarray, "H W 3"]:
    """Return the picture as a camera sees it: gain and tint, contrast, noise."""
    dim = 0.8 if background == "night" else 1.0
    gain = u(0.75, 1.2) * dim
    gains = np.array([int(256 * gain * u(0.92, 1.08)) for _ in range(3)], dtype=np.int32)
    contrast, lift = int(u(190, 290)), int(u(-14, 14))
    sensor = int(u(2, 22))
    noise = rng.integers(-128, 128, canvas.shape, dtype=np.int8).astype(np.int32) * sensor // 128
    exposed: np.ndarray = ((canvas.astype(np.int32) * gains // 256 - 118) * contrast // 256) + 118 + lift + noise
    clipped: np.ndarray = np.clip(exposed, 0, 255)
    return clipped.astype(np.uint8)


def _labelled(
    image: np.ndarray, parts: np.ndarray, owners: np.ndarray, bodies: list[Body], herd: Sequence[Species]
) -> Picture:
    """Number the animals that are seen, and find their boxes and key points."""
    instances = np.zeros_like(owners)
    boxes, kept, keypoints = [], [], []
    for number, (body, species) in enumerate(zip(bodies, herd, strict=True), start=1):
        mine = owners == number
        rows, columns = np.flatnonzero(mine.any(axis=1)), np.flatnonzero(mine.any(axis=0))
        if int(mine.sum()) < _MIN_VISIBLE:
            parts[mine] = 0
            continue
        boxes.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
        kept.append(species)
        instances[mine] = len(kept)
        keypoints.append([_keypoint(body, k, parts, mine) for k in range(len(KEYPOINTS))])
    return Picture(
        image,
        parts,
        instances,
        np.array(boxes, dtype=np.float32).reshape(-1, 4),
        tuple(kept),
        np.array(keypoints, dtype=np.float32).reshape(-1, len(KEYPOINTS), 3),
    )


def _keypoint(body: Body, k: int, parts: np.ndarray, mine: np.ndarray) -> tuple[float, float, float]:
    """Return x, y rounded to 1/16 pixel and whether one of the key point's parts is seen there; (0, 0, 0) if absent."""
    if KEYPOINTS[k] not in body.points:
        return 0.0, 0.0, 0.0
    x, y = (math.floor(16 * value + 0.5) / 16 for value in body.points[KEYPOINTS[k]])
    column, row = math.floor(x), math.floor(y)
    inside = 0 <= row < len(parts) and 0 <= column < len(parts)
    return x, y, float(inside and bool(mine[row, column]) and int(parts[row, column]) in KEYPOINT_PARTS[k])
