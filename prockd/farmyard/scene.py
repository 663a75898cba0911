"""A picture: background, clutter, animals in their poses, what stands in front, light and sensor."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from numpy.random import Generator
from PIL import ImageFilter

from prockd._types import UNLABELLED, Sample
from prockd.farmyard.animal import build
from prockd.farmyard.backdrop import draw_backdrop, draw_things
from prockd.farmyard.body import KEYPOINT_PARTS, Body, random_pose
from prockd.farmyard.paint import BLACK, SUPERSAMPLING, Layer, Uniform, over, random_paints, shaded, uniform_of
from prockd.farmyard.species import Species
from prockd.farmyard.texture import PATTERNS, TILE, crop, noise_tile, pattern_tile

MAX_OCCLUSION = 0.25
"""Largest share of the animals' pixels that things in front may hide."""

FORMS = ("framed", "varied")
"""Of single animals: framed ones fill the picture, upright, so that their place there half tells the part; varied ones
are anywhere, of many sizes, turned, cut off by the edge, and drawn bold."""

_MAX_CUT = 0.1
"""Largest share of a varied animal's width and of its height that lies beyond an edge."""

_MIN_VISIBLE = 20
_MARKED = 128
"""What is added to a fill's number where the coat's pattern marks it; an animal has fewer outlines than this."""


def paint_animal(
    canvas: np.ndarray, body: Body, pattern: str, span: float, u: Uniform, light: tuple[float, float]
) -> tuple[np.ndarray, UInt8[np.ndarray, "H W"]]:
    """Return the (H, W, 3) uint16 canvas with an animal ``span`` pixels long, and its part in each pixel, 0 for none.

    ``light`` (x to the right, y down, -1..1) is where light comes from.
    """
    image_px, paints = len(canvas), random_paints(u)
    layer = Layer(image_px)
    for outline, (paint, _, shade) in zip(body.outlines, body.paints, strict=True):
        layer.fill(outline, shaded(paints[paint], shade))
    fills, seen = layer.fills(), np.array([0, *(part for _, part, _ in body.paints)], dtype=np.uint8)[layer.centres()]
    if pattern != "plain":
        window = int(256 * TILE / (SUPERSAMPLING * span))
        tile = crop(pattern_tile(pattern), (int(u(0, TILE)), int(u(0, TILE))), image_px * SUPERSAMPLING, window)
        patterned = [0, *(_MARKED * (paint == "coat") for paint, _, _ in body.paints)]
        fills = fills + tile * np.array(patterned, dtype=np.uint8)[fills]
        marked = [shaded(paints["marking"], shade) for _, _, shade in body.paints]
        layer.colours += [BLACK] * (_MARKED + 1 - len(layer.colours)) + marked
    colour, covered = layer.flatten(fills)
    # Light: the blurred outline moved towards the light, minus the same moved away, is bright on the lit side of every
    # limb and dark on the other, as if they were round. A slope over the whole picture and fur come on top.
    reach = max(1, int(span) // 20)
    soft = np.asarray(covered.filter(ImageFilter.BoxBlur(reach))).astype(np.int32)
    dx, dy = round(light[0] * reach), round(light[1] * reach)
    rounded = np.roll(soft, (dy, dx), (0, 1)) - np.roll(soft, (-dy, -dx), (0, 1))
    ramp = np.arange(image_px, dtype=np.int32) * 256 // image_px - 128
    at = (int(u(0, TILE)), int(u(0, TILE)))
    fur = crop(noise_tile(4, 8), at, image_px, 256 * 96 // image_px).astype(np.int32) - 128
    side = int(u(-60, 60))
    factor = 250 + rounded * 80 // 256 + (ramp * side // 256)[None, :] + fur * int(u(4, 26)) // 128
    lit = np.minimum(colour * factor[:, :, None].astype(np.uint32) // 256, np.asarray(covered)[:, :, None])
    return over(canvas, lit.astype(np.uint16), covered), seen


def render(
    herd: Sequence[Species],
    rng: Generator,
    *,
    image_px: int = 96,
    background: str = "field",
    single: bool = True,
    form: str = "framed",
) -> Sample:
    """Render animals into a picture; the same generator state gives the same pixels on every machine.

    Args:
        herd: the species of each animal, at most 255.
        rng: source of every random choice.
        image_px: width and height, 32..512.
        background: a family of ``BACKGROUNDS``.
        single: whether the (one) animal is the picture's subject, rather than standing somewhere in a scene.
        form: one of ``FORMS``.

    Returns:
        The picture with all that is known of it; box labels are positions in ``herd``. Animals of which fewer than 20
        pixels are seen are not among its instances.
    """
    u = uniform_of(rng)
    horizon = u(0.2, 0.75)
    canvas = draw_backdrop(background, image_px, horizon, u)
    light = (u(-1, 1), u(0.2, 1))
    varied = form == "varied"
    least = 0.45 if varied else 0.75
    shares = [u(least, 1.0)] if single else sorted(u(0.25, 0.7) for _ in herd)  # small ones are far and painted first
    parts, owners = np.zeros((2, image_px, image_px), dtype=np.uint8)
    bodies = []
    for number, (species, share) in enumerate(zip(herd, shares, strict=True), start=1):
        pose = random_pose(u, tilt=15.0 if varied else 5.0)
        body = build(species.bold() if varied else species, pose).posed(pose, share * image_px)
        width, height = body.size()
        if single and varied:
            x, y = (u(-_MAX_CUT * side, image_px - (1 - _MAX_CUT) * side) for side in (width, height))
        elif single:  # near the middle, at most 5 % of a side beyond an edge
            rooms = [(side, 0.5 * (image_px - side)) for side in (width, height)]
            reaches = [(room, min(room + 0.05 * side, 0.1 * image_px)) for side, room in rooms]
            x, y = (room + u(-reach, reach) for room, reach in reaches)
        else:
            x = u(-0.1 * width, image_px - 0.9 * width)
            y = min(image_px * (min(horizon, 0.5) + 0.1 + 0.75 * share + u(0, 0.1)), 1.05 * image_px) - height
        odds = u(0, 1)
        pattern = "plain" if odds < 0.15 else PATTERNS[int(u(0, len(PATTERNS)))] if odds < 0.4 else species.pattern
        bodies.append(body.moved(x, y))
        canvas, seen = paint_animal(canvas, bodies[-1], pattern, share * image_px, u, light)
        parts[seen > 0] = seen[seen > 0]
        owners[seen > 0] = number
    if u(0, 1) < 0.35:
        front = Layer(image_px)
        draw_things(front, int(u(1, 3)), u, low=0.55)
        hidden = front.centres() > 0
        if int((hidden & (owners > 0)).sum()) <= MAX_OCCLUSION * int((owners > 0).sum()):
            canvas = over(canvas, *front.flatten())
            parts[hidden] = owners[hidden] = 0
    return _labelled(_exposed(canvas, background, rng, u), parts, owners, bodies)


def _exposed(canvas: np.ndarray, background: str, rng: Generator, u: Uniform) -> UInt8[np.ndarray, "H W 3"]:
    """Return the picture as a camera sees it: gain and tint, contrast, noise."""
    gain = u(0.75, 1.2) * (0.8 if background == "night" else 1.0)
    gains = np.array([int(256 * gain * u(0.92, 1.08)) for _ in range(3)], dtype=np.int32)
    contrast, lift, sensor = int(u(190, 290)), int(u(-14, 14)), int(u(2, 22))
    noise = rng.integers(-128, 128, canvas.shape, dtype=np.int8).astype(np.int32) * sensor // 128
    exposed = ((canvas.astype(np.int32) * gains // 256 - 118) * contrast // 256) + 118 + lift + noise
    return np.asarray(np.clip(exposed, 0, 255), np.uint8)


def _labelled(image: np.ndarray, parts: np.ndarray, owners: np.ndarray, bodies: list[Body]) -> Sample:
    """Number the animals that are seen, and find their boxes and key points."""
    instances = np.zeros_like(owners)
    boxes, seen, keypoints = [], [], []
    for k, body in enumerate(bodies):
        mine = owners == k + 1
        if int(mine.sum()) < _MIN_VISIBLE:
            parts[mine] = 0
            continue
        rows, columns = np.flatnonzero(mine.any(axis=1)), np.flatnonzero(mine.any(axis=0))
        boxes.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
        seen.append(k)
        instances[mine] = len(seen)
        keypoints.append([(0.0, 0.0, 0.0)] * len(KEYPOINT_PARTS))  # where the animal has no such point
        for number, (name, there) in enumerate(KEYPOINT_PARTS.items()):
            if name in body.points:
                x, y = (math.floor(16 * value + 0.5) / 16 for value in body.points[name])  # rounded to 1/16 pixel
                row, column = math.floor(y), math.floor(x)
                inside = 0 <= row < len(parts) and 0 <= column < len(parts)
                visible = inside and bool(mine[row, column]) and int(parts[row, column]) in there
                keypoints[-1][number] = (x, y, float(visible))
    return Sample(
        image, UNLABELLED, "", parts, instances,
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        box_labels=np.array(seen, dtype=np.int64),
        keypoints=np.array(keypoints, dtype=np.float32).reshape(-1, len(KEYPOINT_PARTS), 3),
    )  # fmt: skip
