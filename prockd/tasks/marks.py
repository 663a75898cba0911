"""What is drawn of one image: boxes, a mask or words, whatever task it belongs to."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torchvision.ops import nms


@dataclass(frozen=True, eq=False)
class Boxes:
    """The objects of one image, best first where they are predicted.

    Attributes:
        boxes: (n, 4) x0, y0, x1, y1 in pixels of the square image.
        labels: (n,) classes.
        scores: (n,) 0..1; 1 where they are the truth.
    """

    boxes: Float32[np.ndarray, "n 4"]
    labels: Int64[np.ndarray, " n"]
    scores: Float32[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, rows: np.ndarray) -> "Boxes":
        """Some of them, by index or by True and False."""
        return Boxes(self.boxes[rows], self.labels[rows], self.scores[rows])

    def above(self, score: float) -> "Boxes":
        """Those with at least this score."""
        return self.select(self.scores >= score)

    def distinct(self, iou: float = 0.5) -> "Boxes":
        """The best of each place, whatever its class: those that overlap no better one by more than this IoU."""
        return self.select(nms(torch.tensor(self.boxes), torch.tensor(self.scores), iou).numpy())


@dataclass(frozen=True, eq=False)
class Marks:
    """A decoded prediction, or the truth, of one image as a figure shows it: one of the three.

    Attributes:
        text: a line above the image; two equal lines agree.
        mask: (H, W) class of each pixel, ``IGNORE`` where nothing is drawn.
        boxes: frames of objects.
    """

    text: str = ""
    mask: UInt8[np.ndarray, "H W"] | None = None
    boxes: Boxes | None = None
