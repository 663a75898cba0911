"""The body of one animal: a species and a pose become a stack of filled outlines, each with its part and its paint.

Body coordinates: x forward, y up, in body lengths; the ground is y = 0.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from prockd.farmyard.curves import Frame, Pairs, Point, Points, arc, ellipse, ribbon, smooth
from prockd.farmyard.head import draw_ear, draw_head, draw_horns
from prockd.farmyard.parts import FAR_SHADE, FOOT, LEG, NECK, TAIL, TORSO
from prockd.farmyard.species import Species


@dataclass(frozen=True)
class Pose:
    """How an animal stands; angles in degrees.

    Attributes:
        phase: position in the walking cycle, 0..1.
        stride: swing of the legs.
        neck: added to the neck's elevation.
        head: added to the head's downward angle.
        tail: swing of the tail.
        tilt: rotation of the whole body.
        squeeze: foreshortening, width seen / width, 0.8..1.
        left: whether the animal faces left.
    """

    phase: float = 0.84
    stride: float = 15.0
    neck: float = 0.0
    head: float = 0.0
    tail: float = 0.0
    tilt: float = 0.0
    squeeze: float = 1.0
    left: bool = False


@dataclass
class Body:
    """Filled outlines from back to front, and named points.

    Attributes:
        outlines: closed curves in body coordinates.
        paints: for each, the name of its paint, its part and its brightness.
        points: positions by name, see ``KEYPOINTS``.
    """

    outlines: list[Points] = field(default_factory=list)
    paints: list[tuple[str, int, float]] = field(default_factory=list)
    points: dict[str, Point] = field(default_factory=dict)

    def add(self, outline: Pairs, part: int, paint: str = "coat", shade: float = 1.0) -> None:
        """Put an outline in front of those there are."""
        self.outlines.append(np.asarray(outline, dtype=np.float64))
        self.paints.append((paint, part, shade))


def build(species: Species, pose: Pose) -> Body:
    """Return the body of ``species`` in ``pose``, facing right and untilted (the scene turns it)."""
    s, body = species, Body()
    withers, rump = s.leg + s.chest, s.leg + s.chest - s.slope
    neck = Frame((0.33, withers - 0.38 * s.chest), s.neck_angle + pose.neck)
    poll = neck.at(s.neck + 0.08, 0.0)
    head = Frame(poll, 0.55 * pose.neck - s.head_angle - pose.head, s.head, s.head_depth)
    body.points |= {"withers": (0.22, withers - 0.04), "neck_base": neck.at(0.1 + 0.3 * s.neck, 0.0)}

    if s.horn != "nose":
        draw_horns(body, s, head, far=True)
    draw_ear(body, s, head, far=True)
    _leg(body, s, pose, hind=True, far=True)
    _leg(body, s, pose, hind=False, far=True)
    _tail(body, s, pose, rump)
    if s.neck_angle + pose.neck < 5.0:
        _neck(body, s, neck, head)
    _torso(body, s, withers, rump)
    if s.neck_angle + pose.neck >= 5.0:
        _neck(body, s, neck, head)
    _mane(body, s, neck, head)
    draw_head(body, s, head)
    _forelock(body, s, head)
    draw_ear(body, s, head, far=False)
    draw_horns(body, s, head, far=False)
    _leg(body, s, pose, hind=True, far=False)
    _leg(body, s, pose, hind=False, far=False)
    return body


def _torso(body: Body, s: Species, withers: float, rump: float) -> None:
    chest, flank = withers - s.chest, rump - s.flank
    belly = 0.5 * (chest + flank) - s.sag
    back = 0.55 * rump + 0.45 * withers - 0.025
    outline = smooth(
        [
            (-0.50, rump - 0.24 * s.flank), (-0.45, rump - 0.06 * s.flank), (-0.30, rump), (-0.04, back),
            (0.20, withers), (0.37, withers - 0.12 * s.chest), (0.48, withers - 0.42 * s.chest),
            (0.47, withers - 0.74 * s.chest), (0.33, chest + 0.01), (0.02, belly), (-0.26, flank),
            (-0.44, rump - 0.8 * s.flank), (-0.505, rump - 0.5 * s.flank),
        ]
    )  # fmt: skip
    size = s.hump_size
    if s.hump == "shoulder":
        body.add(smooth([(-0.22, back - 0.04), (0.02, back + 0.6 * size), (0.17, withers + size),
                         (0.32, withers + 0.6 * size), (0.44, withers - 0.2), (0.1, back - 0.2)]), TORSO)  # fmt: skip
    for x in {"one": [-0.06], "two": [-0.24, 0.12]}.get(s.hump, []):
        body.add(smooth([(x - 0.18, back - 0.03), (x - 0.09, back + 0.7 * size), (x, back + size),
                         (x + 0.1, back + 0.72 * size), (x + 0.17, back - 0.03), (x, back - 0.12)]), TORSO)  # fmt: skip
    if s.wool:
        for x, y in outline[::2]:
            body.add(ellipse(x, y, s.wool, s.wool, 9), TORSO)
    if s.udder:
        body.add(ellipse(-0.17, flank - 0.1 * s.udder, 1.1 * s.udder, s.udder), TORSO, "muzzle", 0.95)
    body.add(outline, TORSO)


def _neck(body: Body, s: Species, neck: Frame, head: Frame) -> None:
    withers, end, middle = s.leg + s.chest, s.neck + 0.08, 0.5 * s.neck_base
    outline = [
        (0.1, withers - 0.05), (0.21, withers + 0.004), neck.at(0.42 * end, 0.92 * middle),
        neck.at(0.78 * end, 0.25 * middle + 0.4 * s.neck_top), head.at(0.0, 0.42), head.at(0.25, 0.0),
        head.at(0.1, -0.42), neck.at(0.72 * end, -0.25 * middle - 0.33 * s.neck_top), neck.at(0.36 * end, -middle),
        (0.475, withers - 0.64 * s.chest), (0.4, withers - 0.78 * s.chest), (0.24, withers - 0.46 * s.chest),
    ]  # fmt: skip
    body.add(smooth(outline), NECK)
    if s.wool:
        for i in range(1, 6):
            u, half = i / 6 * end, middle * (1 - i / 6) + 0.5 * s.neck_top * i / 6
            body.add(ellipse(*neck.at(u, 0.75 * half), s.wool, s.wool, 9), NECK)
            body.add(ellipse(*neck.at(u, -0.75 * half), s.wool, s.wool, 9), NECK)


def _mane(body: Body, s: Species, neck: Frame, head: Frame) -> None:
    end, middle, size = s.neck + 0.08, 0.5 * s.neck_base, s.mane_size
    crest = [(0.12, 0.99 * middle + 0.02), (0.42, 0.92 * middle), (0.78, 0.25 * middle + 0.4 * s.neck_top)]
    if s.mane == "stiff":
        top = [neck.at(u * end, v + size) for u, v in crest]
        base = [neck.at(u * end, v - 0.03) for u, v in crest]
        body.add(smooth([(0.1, s.leg + s.chest - 0.02), *top, head.at(0.03, 0.5 + 0.6 * size / s.head_depth),
                         head.at(0.02, 0.3), *base[::-1]]), NECK, "hair")  # fmt: skip
    elif s.mane == "hanging":
        top = [neck.at(u * end, v + 0.035) for u, v in crest]
        locks = [neck.at(end * (0.86 - 0.17 * i), 0.25 * middle - size * (0.25, 0.9)[i % 2]) for i in range(5)]
        body.add(smooth([*top, head.at(0.04, 0.6), head.at(0.06, 0.2), *locks]), NECK, "hair")
    elif s.mane == "ruff":
        x, y = neck.at(0.62 * end, -0.05)
        radii = [0.24 + size * (0.55, 0.85)[i % 2] for i in range(18)]
        angles = [2 * math.pi * i / 18 for i in range(18)]
        tufts = [(0.82 * r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]
        body.add(smooth([(x + dx - 0.02, y + dy - 0.04) for dx, dy in tufts]), NECK, "hair")
    elif s.mane == "shag":
        withers = s.leg + s.chest
        fringe = [(0.36 - 0.09 * i, withers - s.chest - size * (0.6, 0.15)[i % 2]) for i in range(4)]
        lift = s.hump_size if s.hump == "shoulder" else 0.0
        shag = [(0.13, withers - 0.45 * s.chest), (0.07, withers - 0.02), (0.11, withers + 0.8 * lift),
                (0.2, withers + 1.02 * lift + 0.01), (0.33, withers + 0.62 * lift), head.at(-0.05, 0.62),
                head.at(0.2, 0.55), head.at(0.2, -0.5), (0.5, withers - 0.9 * s.chest), *fringe]  # fmt: skip
        body.add(smooth(shag), NECK, "hair")


def _forelock(body: Body, s: Species, head: Frame) -> None:
    if s.mane == "hanging":
        body.add(smooth(head.all([(-0.05, 0.55), (0.1, 0.62), (0.36, 0.34), (0.16, 0.28)])), NECK, "hair")


def _leg(body: Body, s: Species, pose: Pose, *, hind: bool, far: bool) -> None:
    """Add a leg: its joints swing with the gait; hind legs bend backwards at the hock, forelegs at the knee."""
    cycle = 2 * math.pi * (pose.phase + (0.0 if hind else 0.25) + (0.5 if far else 0.0))
    swing, lift = pose.stride * math.sin(cycle), max(0.0, math.cos(cycle)) * pose.stride
    ankle = 0.7 * s.foot_size
    knee = max(0.5 * s.leg, ankle + 0.03)
    x, y = (-0.33, s.leg + s.chest - s.slope - 0.42 * s.flank) if hind else (0.31, s.leg + 0.42 * s.chest)
    x, y = (x + 0.07, y + 0.03) if far else (x, y)
    if hind:
        stifle = 0.95 * s.leg + 0.02
        rest = (24 * s.hock, -34 * s.hock, 5 * s.hock)
        angles = [rest[0] + 0.7 * swing, rest[1] + swing - 0.6 * lift, rest[2] + 0.9 * swing - 0.5 * lift]
        drops = (y - stifle, stifle - knee, knee - ankle)
        lengths = [drop / math.cos(math.radians(angle)) for drop, angle in zip(drops, rest, strict=True)]
        widths = [s.thigh, s.thigh * 0.92, s.leg_width * 1.3, s.leg_width]
    else:
        elbow = s.leg + 0.05 * s.chest
        angles = [0.6 * swing - 4, 0.9 * swing + 0.4 * lift + 3, 0.9 * swing - 1.2 * lift]
        lengths = [y - elbow, elbow - knee, knee - ankle]
        widths = [s.thigh * 0.8, s.thigh * 0.66, s.leg_width * 1.15, s.leg_width]
    joints: list[Point] = [(x, y)]
    for angle, length in zip(angles, lengths, strict=True):
        direction = math.radians(angle)
        x, y = x + length * math.sin(direction), y - length * math.cos(direction)
        joints.append((x, y))
    shade = FAR_SHADE if far else 0.97
    (jx, jy), (kx, ky), (fx, fy) = joints[-3:]
    joints[-1:] = [(0.45 * kx + 0.55 * fx, 0.45 * ky + 0.55 * fy), (fx, fy)]
    joints[-3:-3] = [(0.5 * jx + 0.5 * kx, 0.5 * jy + 0.5 * ky)]
    widths[-1:] = [s.leg_width * 0.9, s.leg_width * 1.05]
    widths.insert(2, 0.4 * widths[1] + 0.6 * widths[2])
    body.add(ribbon(joints, widths), LEG, "coat", shade)
    _foot(body, s, Frame((fx, fy), 0.6 * angles[-1], s.foot_size, s.foot_size), shade)
    side = "far" if far else "near"
    limb = "hind" if hind else "front"
    body.points[f"{limb}_foot_{side}"] = (fx + 0.1 * s.foot_size, fy - 0.25 * s.foot_size)
    body.points[f"{'hock' if hind else 'front_knee'}_{side}"] = (kx, ky)


def _foot(body: Body, s: Species, frame: Frame, shade: float) -> None:
    wide = max(1.0, 1.1 * s.leg_width / s.foot_size)
    if s.foot == "hoof":
        hoof = [(-0.34 * wide, 0.34), (0.32 * wide, 0.34), (0.62 * wide, -0.5), (0.62 * wide, -0.7), (-0.46, -0.7),
                (-0.42, -0.1)]  # fmt: skip
        body.add(frame.all(hoof), FOOT, "hoof", shade)
    elif s.foot == "paw":
        paw = [(-0.38, 0.36), (0.3, 0.36), (0.72, 0.02), (0.9, -0.4), (0.72, -0.7), (0.2, -0.72), (-0.38, -0.7),
               (-0.46, -0.2)]  # fmt: skip
        body.add(smooth(frame.all(paw)), FOOT, "foot", shade)
        for u in (0.45, 0.66):
            body.add(frame.all([(u, -0.35), (u + 0.05, -0.35), (u + 0.07, -0.7), (u, -0.7)]), FOOT, "dark", shade)
    else:
        pad = [(-0.5, 0.36), (0.48, 0.36), (0.66, -0.4), (0.62, -0.7), (-0.54, -0.7), (-0.58, -0.4)]
        body.add(smooth(frame.all(pad)), FOOT, "foot", shade)
        for u in (0.18, 0.46):
            body.add(ellipse(*frame.at(u, -0.56), 0.13 * s.foot_size, 0.14 * s.foot_size, 8), FOOT, "hoof", shade)


def _tail(body: Body, s: Species, pose: Pose, rump: float) -> None:
    root = (-0.46, rump - 0.14 * s.flank)
    starts = {"bushy": (205.0, 50.0), "stub": (215.0, 30.0), "curl": (165.0, -430.0)}
    start, turn = starts.get(s.tail, (200.0, 66.0))
    if s.tail == "thin":
        start, turn = 212.0, 84.0 + 2 * pose.tail
    n = 11 if s.tail == "curl" else 6
    spine = arc(root, start - pose.tail, s.tail_length, turn, n)
    wide, thin = s.tail_width, 0.3 * s.tail_width + 0.035
    widths: Sequence[float] = {
        "tuft": [1.6 * thin, thin, 0.8 * thin, 0.7 * thin, 0.7 * thin, 0.6 * thin],
        "hair": [0.5 * wide, 0.75 * wide, wide, 1.1 * wide, 0.9 * wide, 0.25 * wide],
        "bushy": [0.4 * wide, 0.75 * wide, wide, wide, 0.75 * wide, 0.15 * wide],
        "thin": [1.2 * wide, wide, 0.85 * wide, 0.75 * wide, 0.7 * wide, 0.6 * wide],
        "stub": [wide, wide, wide, 0.9 * wide, 0.8 * wide, 0.4 * wide],
        "curl": [s.tail_width * (1.3 - 0.08 * i) for i in range(11)],
    }[s.tail]
    body.add(ribbon(spine, widths), TAIL, "hair" if s.tail == "hair" else "coat", 0.93)
    if s.tail == "tuft":
        (ax, ay), (bx, by) = spine[-3], spine[-1]
        tuft = [(0.5 * (ax + bx), 0.5 * (ay + by)), (bx, by), (bx + 0.35 * (bx - ax), by + 0.35 * (by - ay))]
        body.add(ribbon(tuft, [0.4 * wide, wide, 0.2 * wide]), TAIL, "hair")
    body.points |= {"tail_base": spine[1], "tail_tip": spine[-1]}
