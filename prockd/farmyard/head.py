"""Head, ears, horns, antlers and tusks of an animal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prockd.farmyard.curves import Frame, Pairs, Point, Real, arc, ellipse, ribbon, smooth
from prockd.farmyard.parts import EAR, FAR_SHADE, HEAD, HORN
from prockd.farmyard.species import Species

if TYPE_CHECKING:
    from prockd.farmyard.animal import Body


def draw_head(body: Body, s: Species, head: Frame) -> None:
    """Add skull, muzzle, eye, nostril, mouth and beard; ``head`` has u from poll to nose, v up, of the head's size."""
    start, deep = 1.0 - min(s.muzzle_length, 0.6), s.muzzle_depth
    centre = -0.14 if s.muzzle in ("blunt", "pointed", "snout") else -0.08
    top, low = centre + 0.5 * deep, centre - 0.5 * deep
    if s.muzzle == "trunk":
        _trunk(body, s, head)
    if s.beard:
        u = 0.66 if s.horn == "curved" else 0.4
        w = 0.15
        body.add(
            smooth([head.at(u - w, -0.3), head.at(u + w, -0.3), _below(head.at(u + 0.02, -0.45), 0.6 * s.beard),
                    _below(head.at(u - 0.05, -0.4), s.beard)]), HEAD, "hair")  # fmt: skip
    front = {
        "square": [(0.97, 0.8 * top), (1.02, centre), (0.96, 0.95 * low), (0.8, low)],
        "bulb": [(0.86, 1.05 * top), (1.02, 0.8 * top), (1.06, centre), (1.0, 1.1 * low), (0.84, 1.05 * low)],
        "broad": [(0.8, 1.05 * top), (1.0, 0.95 * top), (1.06, centre), (1.0, 1.05 * low), (0.8, 1.1 * low)],
        "blunt": [(0.9, top), (1.0, 0.7 * top), (1.0, centre), (0.94, low), (0.78, 1.05 * low)],
        "pointed": [(0.96, 0.7 * top), (1.04, 0.3 * top + 0.7 * centre), (1.0, 0.6 * low), (0.8, low)],
        "snout": [(0.91, 0.9 * top), (0.95, top + 0.09), (1.02, top + 0.08), (1.05, centre), (1.02, low - 0.05),
                  (0.95, low - 0.07), (0.91, 0.95 * low)],
        "trunk": [(0.8, 0.3), (0.9, 0.0), (0.8, -0.3)],
    }[s.muzzle]  # fmt: skip
    stop = 0.4 if s.muzzle in ("square", "bulb", "broad") else 0.5
    bridge = (start + 0.08, 0.45 * top + 0.55 * 0.4) if stop == 0.4 else (start + 0.06, 0.8 * top + 0.2 * 0.45)
    skull = [(-0.1, 0.12), (0.0, 0.42), (0.16, 0.52), (0.6 * start + 0.04, stop), bridge, *front,
             (start + 0.04, 0.6 * low - 0.18), (0.3, -0.5), (0.08, -0.44), (-0.08, -0.18)]  # fmt: skip
    body.add(smooth(head.all(skull)), HEAD, "coat", 1.04)
    if s.muzzle in ("square", "bulb", "broad", "blunt", "snout"):
        cut = 0.5 * start + 0.5 if s.muzzle != "snout" else 0.92
        tip = [(cut, 0.9 * top), *front, (cut, low)]
        body.add(smooth(head.all(tip)), HEAD, "muzzle")
    if s.muzzle != "trunk":
        corner, lips = 0.4 * start + 0.6, centre - 0.24 * deep
        mouth = [(0.98, lips), (0.5 * corner + 0.48, lips), (corner - 0.06, lips + 0.08 * deep)]
        body.add(ribbon(head.all(mouth), [0.05 * s.head_depth] * 3), HEAD, "dark")
        if s.muzzle in ("blunt", "pointed"):
            nose = head.at(0.98, centre + 0.28 * deep)
            body.add(ellipse(*nose, 0.055 * s.head + 0.008, 0.045 * s.head + 0.008), HEAD, "dark")
        else:
            body.add(ellipse(*head.at(0.94, centre + 0.16 * deep), 0.03 * s.head, 0.04 * s.head, 8), HEAD, "dark")
    eye = head.at(0.34, 0.2) if s.muzzle != "trunk" else head.at(0.46, 0.08)
    size = 0.035 * s.head + 0.011
    body.add(ellipse(*eye, 1.25 * size, 1.25 * size, 10), HEAD, "eye_ring")
    body.add(ellipse(*eye, size, size, 10), HEAD, "eye")
    body.points |= {"head_top": head.at(0.08, 0.36), "eye": eye, "muzzle": head.at(0.85, centre)}


def _below(point: Point, drop: Real) -> Point:
    return point[0], point[1] - drop


def _trunk(body: Body, s: Species, head: Frame) -> None:
    length, width = s.muzzle_length * s.head, s.muzzle_depth * s.head_depth
    spine = arc(head.at(0.62, -0.02), head.angle - 12, length, -70, 6)
    spine += arc(spine[-1], head.angle - 60, 0.22 * length, 90, 3)[1:]
    body.add(ribbon(spine, [width * (1.35, 1.0, 0.8, 0.66, 0.54, 0.46, 0.42, 0.4)[i] for i in range(8)]), HEAD)


def draw_ear(body: Body, s: Species, head: Frame, *, far: bool) -> None:
    """Add the ear of one side."""
    size, shade = s.ear_size, FAR_SHADE if far else 0.9
    root = head.at(0.1 if far else 0.0, 0.4 if s.ear != "fan" else 0.2)
    tilt = {"pointed": 100.0, "round": 95.0, "leaf": 118.0, "floppy": 205.0, "fan": 210.0}[s.ear] - (14 if far else 0)
    if s.ear == "floppy":
        root = head.at(0.12 if far else 0.02, 0.36)
        tilt += -head.angle * 0.5
    ear = Frame(root, head.angle * (0.6 if s.ear in ("leaf", "pointed") else 1.0) + tilt, size, size)
    shapes: dict[str, list[Point]] = {
        "pointed": [(-0.15, -0.34), (0.4, -0.32), (1.0, 0.0), (1.0, 0.03), (0.4, 0.32), (-0.15, 0.34)],
        "round": [(-0.4, -0.6), (0.3, -0.85), (0.9, -0.5), (1.0, 0.2), (0.6, 0.8), (-0.3, 0.65)],
        "leaf": [(-0.1, -0.1), (0.3, -0.24), (0.75, -0.2), (1.0, 0.0), (0.7, 0.18), (0.3, 0.2), (-0.1, 0.1)],
        "floppy": [(-0.1, -0.2), (0.3, -0.3), (0.75, -0.26), (1.0, 0.05), (0.8, 0.26), (0.35, 0.3), (-0.1, 0.2)],
        "fan": [(-0.15, 0.1), (-0.1, -0.5), (0.3, -0.75), (0.75, -0.55), (0.95, 0.1), (0.8, 0.75), (0.45, 0.9),
                (0.15, 0.5)],
    }  # fmt: skip
    outline: Pairs = smooth(ear.all(shapes[s.ear]))
    body.add(outline, EAR, "ear", shade)
    if not far:
        inner = [(0.2 + 0.6 * u, 0.55 * v) for u, v in shapes[s.ear]]
        if s.ear in ("pointed", "leaf", "round"):
            body.add(smooth(ear.all(inner)), EAR, "inner_ear")
        body.points["ear_tip"] = ear.at(0.75, 0.05)


def draw_horns(body: Body, s: Species, head: Frame, *, far: bool) -> None:
    """Add the horns, antlers or tusks of one side (nose horns once, with the near side)."""
    if s.horn == "none" or (far and s.horn == "ram"):
        return
    shade, spread = (FAR_SHADE, -13.0) if far else (1.0, 0.0)
    size = s.horn_length
    root = head.at(0.24 if far else 0.14, 0.42)
    up = head.angle + spread

    def stroke(start: Point, angle: Real, length: Real, turn: Real, width: Real, n: int = 6) -> None:
        spine = arc(start, angle, length, turn, n)
        widths = [width * (1 - 0.8 * i / (n - 1)) for i in range(n)]
        body.add(ribbon(spine, widths), HORN, "horn", shade)
        if not far and "horn_tip" not in body.points:
            body.points["horn_tip"] = spine[-2]

    thick = 0.035 + 0.05 * size
    if s.horn == "straight":
        stroke(root, up + 152, size, 10, thick)
    elif s.horn == "curved":
        stroke(root, up + 112, size, 135, 0.05 + 0.08 * size)
    elif s.horn == "lyre":
        bend = arc(root, up + 135, 0.5 * size, 40, 4)
        body.add(ribbon(bend, [thick, thick, 0.9 * thick, 0.8 * thick]), HORN, "horn", shade)
        stroke(bend[-2], up + 178, 0.6 * size, -95, 0.9 * thick)
    elif s.horn == "spiral":
        for i in range(4):
            stroke(root, up + 150, 0.25 * size * (i + 1), (60, -60)[i % 2], thick)
    elif s.horn == "cow":
        stroke(root, up + 66, size, 78, 0.05 + 0.1 * size)
    elif s.horn == "bison":
        stroke(head.at(0.16 if far else 0.06, 0.36), up + 50, size, 130, 0.06 + 0.1 * size)
    elif s.horn == "ram":
        stroke(head.at(0.1, 0.34), up + 125, size, 400, 0.1 + 0.05 * size, 12)
    elif s.horn == "antler":
        beam = arc(root, up + 150, size, -75, 7)
        stroke(root, up + 150, size, -75, thick, 7)
        for i, reach in ((1, 0.34), (3, 0.36), (4, 0.34), (5, 0.2)):
            stroke(beam[i], up + 70 - 2 * i + (0 if i < 5 else 70), reach * size, 30, 0.6 * thick, 4)
    elif s.horn == "palmate":
        palm = Frame(root, up + (120 if far else 132), size, size)
        body.add(smooth(palm.all([(0.0, -0.07), (0.25, -0.1), (0.5, -0.3), (0.85, -0.22), (0.95, 0.1), (0.7, 0.28),
                                  (0.4, 0.2), (0.2, 0.06), (0.0, 0.06)])), HORN, "horn", shade)  # fmt: skip
        tines = ((0.25, -0.08, -72), (0.5, -0.25, -66), (0.7, -0.25, -46), (0.86, -0.14, -24), (0.9, 0.08, 4))
        for u, v, angle in tines:
            stroke(palm.at(u, v), palm.angle + angle, 0.36 * size, 22, 0.13 * size, 4)
    elif s.horn == "nose":
        stroke(head.at(0.9, 0.12), up + 78, size, 42, 0.17 * s.head + 0.12 * size)
        stroke(head.at(0.64, 0.25), up + 84, 0.5 * size, 35, 0.14 * s.head + 0.06 * size)
    elif s.horn == "tusk":
        stroke(head.at(0.78 if s.muzzle == "snout" else 0.66, -0.28), up + (70 if s.muzzle == "snout" else -18),
               size, 40 if s.muzzle == "snout" else 62, 0.05 + 0.06 * size)  # fmt: skip
    else:
        stroke(root, up + 108, size, 0, 0.06)
        body.add(ellipse(*arc(root, up + 108, size, 0, 2)[-1], 0.036, 0.036, 9), HORN, "hair", shade)
