"""Head, ears, horns, antlers and tusks of an animal."""

from prockd.farmyard.body import EAR, FAR_SHADE, HEAD, HORN, Body
from prockd.farmyard.curves import Frame, Point, Real, arc, ellipse, ribbon, smooth
from prockd.farmyard.species import Species

_EARS: dict[str, tuple[float, float, Point, list[Point]]] = {
    "pointed": (100.0, 0.6, (0.0, 0.4),
                [(-0.15, -0.34), (0.4, -0.32), (1.0, 0.0), (1.0, 0.03), (0.4, 0.32), (-0.15, 0.34)]),
    "round": (95.0, 1.0, (0.0, 0.4), [(-0.4, -0.6), (0.3, -0.85), (0.9, -0.5), (1.0, 0.2), (0.6, 0.8), (-0.3, 0.65)]),
    "leaf": (118.0, 0.6, (0.0, 0.4),
             [(-0.1, -0.1), (0.3, -0.24), (0.75, -0.2), (1.0, 0.0), (0.7, 0.18), (0.3, 0.2), (-0.1, 0.1)]),
    "floppy": (205.0, 0.5, (0.02, 0.36),
               [(-0.1, -0.2), (0.3, -0.3), (0.75, -0.26), (1.0, 0.05), (0.8, 0.26), (0.35, 0.3), (-0.1, 0.2)]),
    "fan": (210.0, 1.0, (0.0, 0.2), [(-0.15, 0.1), (-0.1, -0.5), (0.3, -0.75), (0.75, -0.55), (0.95, 0.1), (0.8, 0.75),
                                     (0.45, 0.9), (0.15, 0.5)]),
}  # fmt: skip
"""Angle of a level head's ear, share of the head's angle added to it, root (u, v) on the head, and outline."""

_HORNS: dict[str, list[tuple[float, float, float, float, float, float, float, int]]] = {
    "straight": [(0.14, 0.42, 152, 1, 10, 0.035, 0.05, 6)],
    "curved": [(0.14, 0.42, 112, 1, 135, 0.05, 0.08, 6)],
    "spiral": [(0.14, 0.42, 150, 0.25 * (i + 1), (60, -60)[i % 2], 0.035, 0.05, 6) for i in range(4)],
    "cow": [(0.14, 0.42, 66, 1, 78, 0.05, 0.1, 6)],
    "bison": [(0.06, 0.36, 50, 1, 130, 0.06, 0.1, 6)],
    "ram": [(0.1, 0.34, 125, 1, 400, 0.1, 0.05, 12)],
    "antler": [(0.14, 0.42, 150, 1, -75, 0.035, 0.05, 7)],
    "tusk": [(0.66, -0.28, -18, 1, 62, 0.05, 0.06, 6)],
    "snout's tusk": [(0.78, -0.28, 70, 1, 40, 0.05, 0.06, 6)],
    "knob": [(0.14, 0.42, 108, 1, 0, 0.06, 0.0, 6)],
}
"""Root (u, v) on the head, angle to it, length and turn, width and what each length of horn adds to it, points."""


def draw_head(body: Body, s: Species, head: Frame) -> None:
    """Add skull, muzzle, eye, nostril, mouth and beard; ``head`` has u from poll to nose, v up, of the head's size."""
    start, deep = 1.0 - min(s.muzzle_length, 0.6), s.muzzle_depth
    centre = -0.14 if s.muzzle in ("blunt", "pointed", "snout") else -0.08
    top, low = centre + 0.5 * deep, centre - 0.5 * deep
    if s.muzzle == "trunk":
        _trunk(body, s, head)
    if s.beard:
        u = 0.66 if s.horn == "curved" else 0.4
        (x0, y0), (x1, y1) = head.at(u + 0.02, -0.45), head.at(u - 0.05, -0.4)
        chin = [head.at(u - 0.15, -0.3), head.at(u + 0.15, -0.3)]
        body.add(smooth([*chin, (x0, y0 - 0.6 * s.beard), (x1, y1 - s.beard)]), HEAD, "hair")
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
    heavy = s.muzzle in ("square", "bulb", "broad")
    forehead = (0.6 * start + 0.04, 0.4 if heavy else 0.5)
    bridge = (start + 0.08, 0.45 * top + 0.22) if heavy else (start + 0.06, 0.8 * top + 0.09)
    skull = [(-0.1, 0.12), (0.0, 0.42), (0.16, 0.52), forehead, bridge, *front,
             (start + 0.04, 0.6 * low - 0.18), (0.3, -0.5), (0.08, -0.44), (-0.08, -0.18)]  # fmt: skip
    body.add(smooth(head.all(skull)), HEAD, "coat", 1.04)
    if s.muzzle not in ("pointed", "trunk"):
        cut = 0.92 if s.muzzle == "snout" else 0.5 * start + 0.5
        body.add(smooth(head.all([(cut, 0.9 * top), *front, (cut, low)])), HEAD, "muzzle")
    if s.muzzle != "trunk":
        corner, lips = 0.4 * start + 0.6, centre - 0.24 * deep
        mouth = [(0.98, lips), (0.5 * corner + 0.48, lips), (corner - 0.06, lips + 0.08 * deep)]
        body.add(ribbon(head.all(mouth), [0.05 * s.head_depth] * 3), HEAD, "dark")
        if s.muzzle in ("blunt", "pointed"):
            nose = head.at(0.98, centre + 0.28 * deep)
            body.add(ellipse(nose, 0.055 * s.head + 0.008, 0.045 * s.head + 0.008), HEAD, "dark")
        else:
            body.add(ellipse(head.at(0.94, centre + 0.16 * deep), 0.03 * s.head, 0.04 * s.head, 8), HEAD, "dark")
    eye = head.at(0.34, 0.2) if s.muzzle != "trunk" else head.at(0.46, 0.08)
    size = 0.035 * s.head + 0.011
    body.add(ellipse(eye, 1.25 * size, n=10), HEAD, "eye_ring")
    body.add(ellipse(eye, size, n=10), HEAD, "eye")
    body.points |= {"head_top": head.at(0.08, 0.36), "eye": eye, "muzzle": head.at(0.85, centre)}


def _trunk(body: Body, s: Species, head: Frame) -> None:
    length, width = s.muzzle_length * s.head, s.muzzle_depth * s.head_depth
    spine = arc(head.at(0.62, -0.02), head.angle - 12, length, -70, 6)
    spine += arc(spine[-1], head.angle - 60, 0.22 * length, 90, 3)[1:]
    body.add(ribbon(spine, [width * share for share in (1.35, 1.0, 0.8, 0.66, 0.54, 0.46, 0.42, 0.4)]), HEAD)


def draw_ear(body: Body, s: Species, head: Frame, *, far: bool) -> None:
    """Add the ear of one side."""
    angle, share, (u, v), outline = _EARS[s.ear]
    root = head.at(u + 0.1 if far else u, v)
    ear = Frame(root, share * head.angle + angle - (14 if far else 0), s.ear_size, s.ear_size)
    body.add(smooth(ear.all(outline)), EAR, "ear", FAR_SHADE if far else 0.9)
    if not far:
        if s.ear_inside or s.ear in ("pointed", "leaf", "round"):
            body.add(smooth(ear.all([(0.2 + 0.6 * u, 0.55 * v) for u, v in outline])), EAR, "inner_ear")
        body.points["ear_tip"] = ear.at(0.75, 0.05)


def draw_horns(body: Body, s: Species, head: Frame, *, far: bool) -> None:
    """Add the horns, antlers or tusks of one side (those of nose and ram once, with the near side)."""
    if s.horn == "none" or (far and s.horn in ("ram", "nose")):
        return
    shade, up, size = FAR_SHADE if far else 1.0, head.angle - (13.0 if far else 0.0), s.horn_length
    thick = (0.035 + 0.05 * size) * s.horn_width
    root = head.at(0.24 if far else 0.14, 0.42)

    def stroke(start: Point, angle: Real, length: Real, turn: Real, width: Real, n: int = 6) -> list[Point]:
        spine = arc(start, angle, length, turn, n)
        body.add(ribbon(spine, [width * (1 - 0.8 * i / (n - 1)) for i in range(n)]), HORN, "horn", shade)
        if not far:
            body.points.setdefault("horn_tip", spine[-2])
        return spine

    kind = "snout's tusk" if s.horn == "tusk" and s.muzzle == "snout" else s.horn
    for u, v, angle, length, turn, width, more, n in _HORNS.get(kind, []):
        start = head.at(u + 0.1 if far and v > 0 else u, v)
        spine = stroke(start, up + angle, length * size, turn, (width + more * size) * s.horn_width, n)
    if s.horn == "lyre":
        bend = arc(root, up + 135, 0.5 * size, 40, 4)
        body.add(ribbon(bend, [thick, thick, 0.9 * thick, 0.8 * thick]), HORN, "horn", shade)
        stroke(bend[-2], up + 178, 0.6 * size, -95, 0.9 * thick)
    elif s.horn == "antler":
        for i, reach in ((1, 0.34), (3, 0.36), (4, 0.34), (5, 0.2)):
            stroke(spine[i], up + 70 - 2 * i + (0 if i < 5 else 70), reach * size, 30, 0.6 * thick, 4)
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
    elif s.horn == "knob":
        body.add(ellipse(spine[-1], 0.036 * s.horn_width, n=9), HORN, "hair", shade)
