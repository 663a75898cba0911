"""Smooth closed outlines: the curves every animal, bush and rock is drawn with.

Points are (n, 2) float64 arrays. Only ``+ - * /`` and ``sqrt`` touch arrays, which every CPU rounds alike; angles go
through Python's ``math``. Sums are written out: no reduction or BLAS whose order could differ between machines.
"""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from jaxtyping import Float64

Points = Float64[np.ndarray, "_ 2"]
Real = float | int
Point = tuple[Real, Real]
Pairs = Sequence[Point] | Points


@cache
def _catmull_rom(n: int, steps: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the four points that shape each of n spans, and the weights of those four at each step of a span."""
    t = np.arange(steps) / steps
    tt, ttt = t * t, t * t * t
    weights = (-t + 2 * tt - ttt, 2 - 5 * tt + 3 * ttt, t + 4 * tt - 3 * ttt, ttt - tt)
    return (np.arange(n)[:, None] + np.arange(-1, 3)) % n, [(weight / 2)[None, :, None] for weight in weights]


def smooth(points: Pairs, steps: int = 4) -> Points:
    """Return a closed Catmull-Rom curve through ``points``, with ``steps`` points per span."""
    neighbours, (a, b, c, d) = _catmull_rom(len(points), steps)
    near = np.asarray(points, dtype=np.float64)[neighbours][:, :, None]
    return np.reshape(a * near[:, 0] + b * near[:, 1] + c * near[:, 2] + d * near[:, 3], (-1, 2))


def ribbon(spine: Pairs, widths: Sequence[Real]) -> Points:
    """Return the smooth outline of a band along ``spine`` that is ``widths[i]`` wide at point i."""
    line = np.asarray(spine, dtype=np.float64)
    along = np.empty_like(line)
    along[1:-1] = line[2:] - line[:-2]
    along[0], along[-1] = line[1] - line[0], line[-1] - line[-2]
    length = np.sqrt(along[:, 0] * along[:, 0] + along[:, 1] * along[:, 1]) + 1e-9
    half = np.asarray(widths) / 2 / length
    across = np.stack((-along[:, 1] * half, along[:, 0] * half), axis=1)
    return smooth(np.concatenate((line + across, (line - across)[::-1])))


def arc(start: Point, angle: Real, length: Real, turn: Real, n: int = 6) -> list[Point]:
    """Return ``n`` points of a curve that leaves ``start`` at ``angle`` and turns by ``turn`` degrees on its way."""
    x, y = start
    points = [start]
    for i in range(n - 1):
        direction = math.radians(angle + turn * (i + 0.5) / (n - 1))
        x += length / (n - 1) * math.cos(direction)
        y += length / (n - 1) * math.sin(direction)
        points.append((x, y))
    return points


def ellipse(centre: Point, rx: Real, ry: Real | None = None, n: int = 12) -> Points:
    """Return the outline of an upright ellipse; one radius makes a circle."""
    ry = rx if ry is None else ry
    turns = [2 * math.pi * i / n for i in range(n)]
    return np.array([(centre[0] + rx * math.cos(t), centre[1] + ry * math.sin(t)) for t in turns])


class Frame:
    """A local coordinate system: origin, direction of its u axis in degrees, and the length of its axes."""

    def __init__(self, origin: Point, angle: Real, u: Real = 1.0, v: Real = 1.0) -> None:
        self.origin, self.angle = origin, angle
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        self._u, self._v = (cos * u, sin * u), (-sin * v, cos * v)

    def at(self, u: Real, v: Real) -> Point:
        """Return the world position of a local point."""
        (x, y), (ux, uy), (vx, vy) = self.origin, self._u, self._v
        return x + u * ux + v * vx, y + u * uy + v * vy

    def all(self, points: Sequence[Point]) -> list[Point]:
        """Return the world positions of local points."""
        return [self.at(u, v) for u, v in points]
