"""A pose, and the filled outlines, parts and named points that an animal is made of.

Body coordinates: x forward, y up, in body lengths; the ground is y = 0.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from prockd.farmyard.curves import Pairs, Point, Points
from prockd.farmyard.paint import Uniform

PARTS = ("background", "torso", "head", "neck", "ear", "horn", "leg", "foot", "tail")
"""Part names by their number in ``Sample.parts``.

Muzzle, eye, beard and trunk are head; a mane is neck; a hump is torso; antlers and tusks are horn; a foot is the hoof
or paw with its fetlock.
"""

BACKGROUND, TORSO, HEAD, NECK, EAR, HORN, LEG, FOOT, TAIL = range(9)

KEYPOINT_PARTS = {
    "withers": (TORSO, NECK, LEG), "neck_base": (NECK, TORSO), "head_top": (HEAD, EAR, HORN, NECK), "eye": (HEAD,),
    "muzzle": (HEAD,), "ear_tip": (EAR,), "horn_tip": (HORN,), "tail_base": (TAIL, TORSO), "tail_tip": (TAIL,),
    "front_knee_near": (LEG, FOOT), "front_knee_far": (LEG, FOOT), "hock_near": (LEG, FOOT), "hock_far": (LEG, FOOT),
    "front_foot_near": (FOOT,), "front_foot_far": (FOOT,), "hind_foot_near": (FOOT,), "hind_foot_far": (FOOT,),
}  # fmt: skip
"""For each key point, the parts one of which is seen there when it is visible."""

KEYPOINTS = tuple(KEYPOINT_PARTS)
"""Names of the rows of ``Sample.keypoints``; near is the side turned to the camera."""

FAR_SHADE = 0.7
"""Brightness of what is on the far side of the animal."""


@dataclass(frozen=True)
class Pose:
    """How an animal stands; angles in degrees."""

    phase: float = 0.84  # position in the walking cycle, 0..1
    stride: float = 15.0  # swing of the legs
    neck: float = 0.0  # added to the neck's elevation
    head: float = 0.0  # added to the head's downward angle
    tail: float = 0.0  # swing of the tail
    tilt: float = 0.0  # rotation of the whole body
    squeeze: float = 1.0  # foreshortening, width seen / width, 0.8..1
    left: bool = False  # whether the animal faces left


def random_pose(u: Uniform, tilt: float = 5.0) -> Pose:
    """Draw a pose: walking or standing, sometimes grazing, seen from ahead or behind, tilted by up to ``tilt``."""
    neck, head = ((-60, -30), (-5, 15)) if u(0, 1) < 0.15 else ((-14, 12), (-10, 12))
    return Pose(u(0, 1), u(3, 24), u(*neck), u(*head), u(-18, 30), u(-tilt, tilt), u(0.8, 1.0), u(0, 1) < 0.5)


@dataclass
class Body:
    """Filled outlines from back to front, and named points."""

    outlines: list[Points] = field(default_factory=list)
    paints: list[tuple[str, int, float]] = field(default_factory=list)  # of each: name of its paint, part, brightness
    points: dict[str, Point] = field(default_factory=dict)  # by name, see KEYPOINTS

    def add(self, outline: Pairs, part: int, paint: str = "coat", shade: float = 1.0) -> None:
        """Put an outline in front of those there are."""
        self.outlines.append(np.asarray(outline, dtype=np.float64))
        self.paints.append((paint, part, shade))

    def mapped(self, change: Callable[[np.ndarray], np.ndarray]) -> "Body":
        """Return a body whose outlines and points went through ``change``, as one (n, 2) array."""
        ends = np.cumsum([len(outline) for outline in self.outlines])
        *outlines, points = np.split(change(np.concatenate([*self.outlines, list(self.points.values())])), ends)
        named = {name: (x, y) for name, (x, y) in zip(self.points, points.tolist(), strict=True)}
        return Body(outlines, self.paints, named)

    def posed(self, pose: Pose, span: float) -> "Body":
        """Return the body turned to its pose, its longer side ``span`` and its bounding box from (0, 0), y down."""
        cos, sin = math.cos(math.radians(pose.tilt)), math.sin(math.radians(pose.tilt))
        stretch = -pose.squeeze if pose.left else pose.squeeze

        def turn(points: np.ndarray) -> np.ndarray:
            x, y = points[:, 0] * stretch, points[:, 1]
            turned = np.stack((x * cos - y * sin, -(x * sin + y * cos)), axis=1)
            low = turned.min(axis=0)
            return np.asarray((turned - low) * (span / float((turned.max(axis=0) - low).max())))

        return self.mapped(turn)

    def size(self) -> tuple[float, float]:
        """Return the right and the lower end of all outlines and points: width and height where they begin at 0."""
        width, height = np.concatenate([*self.outlines, list(self.points.values())]).max(axis=0).tolist()
        return width, height

    def moved(self, dx: float, dy: float) -> "Body":
        """Return the body moved."""
        return self.mapped(lambda points: points + np.array([dx, dy]))
