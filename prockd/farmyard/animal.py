"""The animal: a species and a pose become a stack of filled outlines, each with its part and its paint."""

import math

from prockd.farmyard.body import FAR_SHADE, FOOT, LEG, NECK, TAIL, TORSO, Body, Pose
from prockd.farmyard.curves import Frame, Point, arc, ellipse, ribbon, smooth
from prockd.farmyard.head import draw_ear, draw_head, draw_horns
from prockd.farmyard.species import Species

_TAILS = {
    "tuft": (200.0, 66.0, (1.6, 1.0, 0.8, 0.7, 0.7, 0.6)),
    "hair": (200.0, 66.0, (0.5, 0.75, 1.0, 1.1, 0.9, 0.25)),
    "bushy": (205.0, 50.0, (0.4, 0.75, 1.0, 1.0, 0.75, 0.15)),
    "thin": (212.0, 84.0, (1.2, 1.0, 0.85, 0.75, 0.7, 0.6)),
    "stub": (215.0, 30.0, (1.0, 1.0, 1.0, 0.9, 0.8, 0.4)),
    "curl": (165.0, -430.0, tuple(1.3 - 0.08 * i for i in range(11))),
}
"""Direction at the root, turn on the way to the tip, and widths along it, as shares of the tail's width."""


def build(species: Species, pose: Pose) -> Body:
    """Return the body of ``species`` in ``pose``, facing right and untilted (:meth:`Body.posed` turns it)."""
    s, body = species, Body()
    withers = s.leg + s.chest
    neck = Frame((0.33, withers - 0.38 * s.chest), s.neck_angle + pose.neck)
    head = Frame(neck.at(s.neck + 0.08, 0.0), 0.55 * pose.neck - s.head_angle - pose.head, s.head, s.head_depth)
    body.points |= {"withers": (0.22, withers - 0.04), "neck_base": neck.at(0.1 + 0.3 * s.neck, 0.0)}
    draw_horns(body, s, head, far=True)
    draw_ear(body, s, head, far=True)
    _leg(body, s, pose, hind=True, far=True)
    _leg(body, s, pose, hind=False, far=True)
    _tail(body, s, pose)
    # A lowered neck comes out from behind the chest.
    for draw in [_torso, _neck] if neck.angle >= 5.0 else [_neck, _torso]:
        draw(body, s, neck, head)
    _mane(body, s, neck, head)
    draw_head(body, s, head)
    if s.mane == "hanging":
        body.add(smooth(head.all([(-0.05, 0.55), (0.1, 0.62), (0.36, 0.34), (0.16, 0.28)])), NECK, "hair")
    draw_ear(body, s, head, far=False)
    draw_horns(body, s, head, far=False)
    _leg(body, s, pose, hind=True, far=False)
    _leg(body, s, pose, hind=False, far=False)
    return body


def _torso(body: Body, s: Species, neck: Frame, head: Frame) -> None:
    withers, rump = s.leg + s.chest, s.leg + s.chest - s.slope
    flank, back = rump - s.flank, 0.55 * rump + 0.45 * withers - 0.025
    outline = smooth([
        (-0.50, rump - 0.24 * s.flank), (-0.45, rump - 0.06 * s.flank), (-0.30, rump), (-0.04, back),
        (0.20, withers), (0.37, withers - 0.12 * s.chest), (0.48, withers - 0.42 * s.chest),
        (0.47, withers - 0.74 * s.chest), (0.33, s.leg + 0.01), (0.02, 0.5 * (s.leg + flank) - s.sag), (-0.26, flank),
        (-0.44, rump - 0.8 * s.flank), (-0.505, rump - 0.5 * s.flank),
    ])  # fmt: skip
    size = s.hump_size
    if s.hump == "shoulder":
        body.add(smooth([(-0.22, back - 0.04), (0.02, back + 0.6 * size), (0.17, withers + size),
                         (0.32, withers + 0.6 * size), (0.44, withers - 0.2), (0.1, back - 0.2)]), TORSO)  # fmt: skip
    for x in {"one": [-0.06], "two": [-0.24, 0.12]}.get(s.hump, []):
        body.add(smooth([(x - 0.18, back - 0.03), (x - 0.09, back + 0.7 * size), (x, back + size),
                         (x + 0.1, back + 0.72 * size), (x + 0.17, back - 0.03), (x, back - 0.12)]), TORSO)  # fmt: skip
    if s.wool:
        for x, y in outline[::2].tolist():
            body.add(ellipse((x, y), s.wool, n=9), TORSO)
    if s.udder:
        body.add(ellipse((-0.17, flank - 0.1 * s.udder), 1.1 * s.udder, s.udder), TORSO, "muzzle", 0.95)
    body.add(outline, TORSO)


def _neck(body: Body, s: Species, neck: Frame, head: Frame) -> None:
    withers, end, middle = s.leg + s.chest, s.neck + 0.08, 0.5 * s.neck_base
    body.add(smooth([
        (0.1, withers - 0.05), (0.21, withers + 0.004), neck.at(0.42 * end, 0.92 * middle),
        neck.at(0.78 * end, 0.25 * middle + 0.4 * s.neck_top), head.at(0.0, 0.42), head.at(0.25, 0.0),
        head.at(0.1, -0.42), neck.at(0.72 * end, -0.25 * middle - 0.33 * s.neck_top), neck.at(0.36 * end, -middle),
        (0.475, withers - 0.64 * s.chest), (0.4, withers - 0.78 * s.chest), (0.24, withers - 0.46 * s.chest),
    ]), NECK)  # fmt: skip
    for i in range(1, 6) if s.wool else ():
        half = middle * (1 - i / 6) + 0.5 * s.neck_top * i / 6
        for side in (0.75, -0.75):
            body.add(ellipse(neck.at(i / 6 * end, side * half), s.wool, n=9), NECK)


def _mane(body: Body, s: Species, neck: Frame, head: Frame) -> None:
    withers, end, middle, size = s.leg + s.chest, s.neck + 0.08, 0.5 * s.neck_base, s.mane_size
    crest = [(0.12, 0.99 * middle + 0.02), (0.42, 0.92 * middle), (0.78, 0.25 * middle + 0.4 * s.neck_top)]

    def along_crest(off: float) -> list[Point]:
        return [neck.at(u * end, v + off) for u, v in crest]

    if s.mane == "none":
        return
    if s.mane == "stiff":
        outline = [(0.1, withers - 0.02), *along_crest(size), head.at(0.03, 0.5 + 0.6 * size / s.head_depth),
                   head.at(0.02, 0.3), *along_crest(-0.03)[::-1]]  # fmt: skip
    elif s.mane == "hanging":
        locks = [neck.at(end * (0.86 - 0.17 * i), 0.25 * middle - size * (0.25, 0.9)[i % 2]) for i in range(5)]
        outline = [*along_crest(0.035), head.at(0.04, 0.6), head.at(0.06, 0.2), *locks]
    elif s.mane == "ruff":
        x, y = neck.at(0.62 * end, -0.05)
        turns = [(2 * math.pi * i / 18, 0.24 + size * (0.55, 0.85)[i % 2]) for i in range(18)]
        outline = [(x + 0.82 * r * math.cos(t) - 0.02, y + r * math.sin(t) - 0.04) for t, r in turns]
    else:  # shag: over the shoulders down to a fringe below the chest
        fringe = [(0.36 - 0.09 * i, withers - s.chest - size * (0.6, 0.15)[i % 2]) for i in range(4)]
        lift = s.hump_size if s.hump == "shoulder" else 0.0
        outline = [(0.13, withers - 0.45 * s.chest), (0.07, withers - 0.02), (0.11, withers + 0.8 * lift),
                   (0.2, withers + 1.02 * lift + 0.01), (0.33, withers + 0.62 * lift), head.at(-0.05, 0.62),
                   head.at(0.2, 0.55), head.at(0.2, -0.5), (0.5, withers - 0.9 * s.chest), *fringe]  # fmt: skip
    body.add(smooth(outline), NECK, "hair")


def _leg(body: Body, s: Species, pose: Pose, *, hind: bool, far: bool) -> None:
    """Add a leg: its joints swing with the gait; hind legs bend backwards at the hock, forelegs at the knee."""
    cycle = 2 * math.pi * (pose.phase + (0.0 if hind else 0.25) + (0.5 if far else 0.0))
    swing, lift = pose.stride * math.sin(cycle), max(0.0, math.cos(cycle)) * pose.stride
    ankle = 0.7 * s.foot_size
    knee = max(0.5 * s.leg, ankle + 0.03)
    if hind:
        x, y, joint, bent = -0.33, s.leg + s.chest - s.slope - 0.42 * s.flank, 0.95 * s.leg + 0.02, s.hock
        rest = (24 * bent, -34 * bent, 5 * bent)
        angles = [rest[0] + 0.7 * swing, rest[1] + swing - 0.6 * lift, rest[2] + 0.9 * swing - 0.5 * lift]
        thigh, shin = (s.thigh, s.thigh * 0.92), s.leg_width * 1.3
    else:
        x, y, joint, rest = 0.31, s.leg + 0.42 * s.chest, s.leg + 0.05 * s.chest, (0.0, 0.0, 0.0)
        angles = [0.6 * swing - 4, 0.9 * swing + 0.4 * lift + 3, 0.9 * swing - 1.2 * lift]
        thigh, shin = (s.thigh * 0.8, s.thigh * 0.66), s.leg_width * 1.15
    x, y = (x + 0.07, y + 0.03) if far else (x, y)
    joints: list[Point] = [(x, y)]
    for angle, bend, drop in zip(angles, rest, (y - joint, joint - knee, knee - ankle), strict=True):
        length = drop / math.cos(math.radians(bend))  # at rest a bent leg must reach the ground too
        x, y = x + length * math.sin(math.radians(angle)), y - length * math.cos(math.radians(angle))
        joints.append((x, y))
    hip, (jx, jy), (kx, ky), (fx, fy) = joints
    # Two more points, in the middle of the upper and of the lower leg, keep the smooth outline from bulging there.
    spine = [hip, (jx, jy), (0.5 * jx + 0.5 * kx, 0.5 * jy + 0.5 * ky), (kx, ky),
             (0.45 * kx + 0.55 * fx, 0.45 * ky + 0.55 * fy), (fx, fy)]  # fmt: skip
    widths = [*thigh, 0.4 * thigh[1] + 0.6 * shin, shin, s.leg_width * 0.9, s.leg_width * 1.05]
    shade = FAR_SHADE if far else 0.97
    body.add(ribbon(spine, widths), LEG, "coat", shade)
    _foot(body, s, Frame((fx, fy), 0.6 * angles[-1], s.foot_size, s.foot_size), shade)
    side = "far" if far else "near"
    body.points[f"{'hind' if hind else 'front'}_foot_{side}"] = (fx + 0.1 * s.foot_size, fy - 0.25 * s.foot_size)
    body.points[f"{'hock' if hind else 'front_knee'}_{side}"] = (kx, ky)


def _foot(body: Body, s: Species, foot: Frame, shade: float) -> None:
    if s.foot == "hoof":
        wide = max(1.0, 1.1 * s.leg_width / s.foot_size)
        hoof = [(-0.34 * wide, 0.34), (0.32 * wide, 0.34), (0.62 * wide, -0.5), (0.62 * wide, -0.7), (-0.46, -0.7),
                (-0.42, -0.1)]  # fmt: skip
        body.add(foot.all(hoof), FOOT, "hoof", shade)
    elif s.foot == "paw":
        paw = [(-0.38, 0.36), (0.3, 0.36), (0.72, 0.02), (0.9, -0.4), (0.72, -0.7), (0.2, -0.72), (-0.38, -0.7),
               (-0.46, -0.2)]  # fmt: skip
        body.add(smooth(foot.all(paw)), FOOT, "foot", shade)
        for u in (0.45, 0.66):
            body.add(foot.all([(u, -0.35), (u + 0.05, -0.35), (u + 0.07, -0.7), (u, -0.7)]), FOOT, "dark", shade)
    else:
        pad = [(-0.5, 0.36), (0.48, 0.36), (0.66, -0.4), (0.62, -0.7), (-0.54, -0.7), (-0.58, -0.4)]
        body.add(smooth(foot.all(pad)), FOOT, "foot", shade)
        for u in (0.18, 0.46):
            body.add(ellipse(foot.at(u, -0.56), 0.13 * s.foot_size, 0.14 * s.foot_size, 8), FOOT, "hoof", shade)


def _tail(body: Body, s: Species, pose: Pose) -> None:
    start, turn, shares = _TAILS[s.tail]
    root, wide = (-0.46, s.leg + s.chest - s.slope - 0.14 * s.flank), s.tail_width
    turn += 2 * pose.tail if s.tail == "thin" else 0
    width = 0.3 * wide + 0.035 if s.tail == "tuft" else wide
    spine = arc(root, start - pose.tail, s.tail_length, turn, len(shares))
    body.add(ribbon(spine, [share * width for share in shares]), TAIL, "hair" if s.tail == "hair" else "coat", 0.93)
    if s.tail == "tuft":
        (ax, ay), (bx, by) = spine[-3], spine[-1]
        tuft = [(0.5 * (ax + bx), 0.5 * (ay + by)), (bx, by), (bx + 0.35 * (bx - ax), by + 0.35 * (by - ay))]
        body.add(ribbon(tuft, [0.4 * wide, wide, 0.2 * wide]), TAIL, "hair")
    body.points |= {"tail_base": spine[1], "tail_tip": spine[-1]}
