"""A pose, and the filled outlines and named points that an animal is made of.

Body coordinates: x forward, y up, in body lengths; the ground is y = 0.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from prockd.farmyard.curves import Pairs, Point, Points
from prockd.farmyard.paint import Uniform

FAR_SHADE = 0.7
"""Brightness of what is on the far side of the animal."""


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


def random_pose(u: Uniform) -> Pose:
    """Draw a pose: walking or standing, sometimes grazing, seen from slightly ahead or behind."""
    neck, head = ((-60, -30), (-5, 15)) if u(0, 1) < 0.15 else ((-14, 12), (-10, 12))
    return Pose(u(0, 1), u(3, 24), u(*neck), u(*head), u(-18, 30), u(-5, 5), u(0.8, 1.0), u(0, 1) < 0.5)


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

    def mapped(self, change: Callable[[np.ndarray], np.ndarray]) -> "Body":
        """Return a body whose outlines and points went through ``change``, as one (n, 2) array."""
        ends = np.cumsum([len(outline) for outline in self.outlines])
        *outlines, points = np.split(change(np.concatenate([*self.outlines, list(self.points.values())])), ends)
        named = {name: (x, y) for name, (x, y) in zip(self.points, points.tolist(), strict=True)}
        return Body(outlines, self.paints, named)

    def posed(self, pose: Pose, span: float) -> "Body":
        """Return the body turned to its pose and scaled so that its longer side is ``span``.

        Its bounding box begins at (0, 0), and y points down.
        """
        cos, sin = math.cos(math.radians(pose.tilt)), math.sin(math.radians(pose.tilt))
        stretch = -pose.squeeze if pose.left else pose.squeeze

        def turn(points: np.ndarray) -> np.ndarray:
            x, y = points[:, 0] * stretch, points[:, 1]
            turned = np.stack((x * cos - y * sin, -(x * sin + y * cos)), axis=1)
            low = turned.min(axis=0)
            scaled: np.ndarray = (turned - low) * (span / float((turned.max(axis=0) - low).max()))
            return scaled

        return self.mapped(turn)

    def size(self) -> tuple[float, float]:
        """Return the right and the lower end of all outlines and points: width and height where they begin at 0."""
        width, height = np.concatenate([*self.outlines, list(self.points.values())]).max(axis=0).tolist()
        return width, height

    def moved(self, dx: float, dy: float) -> "Body":
        """Return the body moved."""
        return self.mapped(lambda points: points + np.array([dx, dy]))
