"""How a picture of any shape becomes a square, and where its boxes go."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

FITS = ("crop", "pad", "stretch")
"""The middle square, the whole picture with bars beside it, or the whole picture with other proportions."""


@dataclass(frozen=True)
class Fit:
    """Which part of a picture goes to which part of a square; both are top, left, height, width in pixels.

    Attributes:
        taken: part of the picture.
        given: part of the square; the rest of it is bars.
        side_px: side of the square.
    """

    taken: tuple[int, int, int, int]
    given: tuple[int, int, int, int]
    side_px: int

    @property
    def frame(self) -> Float32[np.ndarray, "4"]:
        """x0, y0, x1, y1 of the whole square in pixels of the picture; beyond it where there are bars."""
        (top, left, height, width), (down, right, h, w) = self.taken, self.given
        x, y = width / w, height / h  # picture pixels in a square pixel
        x0, y0 = left - right * x, top - down * y
        return np.array([x0, y0, x0 + self.side_px * x, y0 + self.side_px * y], np.float32)

    def picture(
        self, image: UInt8[np.ndarray, "c H W"], how: InterpolationMode, bars: int
    ) -> UInt8[np.ndarray, "c S S"]:
        """The square; ``bars`` is the value of what the picture does not cover."""
        (top, left, height, width), (down, right, h, w) = self.taken, self.given
        part = torch.tensor(image[:, top : top + height, left : left + width])
        resized: torch.Tensor = transforms.resize(part, [h, w], interpolation=how, antialias=True)
        if (h, w) == (self.side_px, self.side_px):
            return resized.numpy()
        square = np.full((len(image), self.side_px, self.side_px), bars, np.uint8)
        square[:, down : down + h, right : right + w] = resized.numpy()
        return square


def fit_square(height: int, width: int, side_px: int, how: str) -> Fit:
    """Where a picture of this size goes in a square.

    Raises:
        ValueError: ``how`` is none of ``FITS``.
    """
    S = side_px
    if how == "crop":
        side = min(height, width)
        return Fit(((height - side) // 2, (width - side) // 2, side, side), (0, 0, S, S), S)
    if how == "stretch":
        return Fit((0, 0, height, width), (0, 0, S, S), S)
    if how == "pad":
        h, w = (max(1, round(S * side / max(height, width))) for side in (height, width))
        return Fit((0, 0, height, width), ((S - h) // 2, (S - w) // 2, h, w), S)
    raise ValueError(f"fit={how!r}: choose one of {', '.join(map(repr, FITS))}")


def into_square(
    boxes: Float[np.ndarray, "n 4"], frame: Float[np.ndarray, "4"], side_px: int
) -> Float32[np.ndarray, "n 4"]:
    """Boxes in pixels of a picture as boxes in pixels of its square, not clipped."""
    low, size = frame[:2], frame[2:] - frame[:2]
    moved = (boxes.reshape(-1, 2, 2) - low) * (side_px / size)
    return np.asarray(moved.reshape(-1, 4), np.float32)


def out_of_square(
    boxes: Float[np.ndarray, "n 4"], frame: Float[np.ndarray, "4"], side_px: int
) -> Float32[np.ndarray, "n 4"]:
    """Boxes in pixels of a square, such as a student's detections, as boxes in pixels of the picture it was made of."""
    low, size = frame[:2], frame[2:] - frame[:2]
    moved = boxes.reshape(-1, 2, 2) * (size / side_px) + low
    return np.asarray(moved.reshape(-1, 4), np.float32)
