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
def _neighbours(n: int) -> np.ndarray:
    return (np.arange(n)[:, None] + np.arange(-1, 3)) % n


@cache
def _catmull_rom(steps: int) -> list[np.ndarray]:
    t = np.arange(steps) / steps
    tt, ttt = t * t, t * t * t
    basis = (-t + 2 * tt - ttt, 2 - 5 * tt + 3 * ttt, t + 4 * tt - 3 * ttt, ttt - tt)
    return [(weight / 2)[None, :, None] for weight in basis]


def smooth(points: Pairs, steps: int = 4) -> Points:
    """Return a closed Catmull-Rom curve through ``points``, with ``steps`` points per span."""
    near = np.asarray(points, dtype=np.float64)[_neighbours(len(points))][:, :, None]
    a, b, c, d = _catmull_rom(steps)
    curve: np.ndarray = a * near[:, 0] + b * near[:, 1] + c * near[:, 2] + d * near[:, 3]
    return curve.reshape(-1, 2)


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


def ellipse(x: Real, y: Real, rx: Real, ry: Real, n: int = 12) -> Points:
    """Return the outline of an upright ellipse."""
    turns = [2 * math.pi * i / n for i in range(n)]
    return np.array([(x + rx * math.cos(t), y + ry * math.sin(t)) for t in turns])


class Frame:
    """A local coordinate system: origin, direction of its u axis in degrees, and the length of its axes."""

    def __init__(self, origin: Point, angle: Real, u: Real = 1.0, v: Real = 1.0) -> None:
        self.origin, self.angle = origin, angle
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        self._u, self._v = (cos * u, sin * u), (-sin * v, cos * v)

    def at(self, u: Real, v: Real) -> Point:
        """Return the world position of a local point."""
        return (
            self.origin[0] + u * self._u[0] + v * self._v[0],
            self.origin[1] + u * self._u[1] + v * self._v[1],
        )

    def all(self, points: Sequence[Point]) -> list[Point]:
        """Return the world positions of local points."""
        return [self.at(u, v) for u, v in points]
