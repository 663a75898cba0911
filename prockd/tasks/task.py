"""What every task offers; the training loop, the student and the scores know no more of a task than this."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from prockd.datasets import PackedImages
from prockd.datasets.transforms import Crops

Decoded = Sequence[Any] | np.ndarray
"""Predictions that people read, one an image: (M,) classes, (M, C) probabilities of tags, (M, S, S) masks, or a list of
:class:`prockd.tasks.detection.Boxes`."""


@dataclass(frozen=True, eq=False)
class Score:
    """How good predictions are.

    Attributes:
        value: the task's metric, 0..1.
        per_class: (C,) the same for each class; NaN where the images show none of it.
        details: other numbers worth a look, by name.
    """

    value: float
    per_class: np.ndarray
    details: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable
class Task(Protocol):
    """A label space and everything that depends on it.

    A *prediction* is what the head returns for a batch, *targets* are what the loss compares it with, *decoded*
    predictions are what people read: classes, masks or boxes, in numpy.
    """

    @property
    def num_classes(self) -> int:
        """C."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        ...

    @property
    def metric(self) -> str:
        """What :meth:`score` measures, in words."""
        ...

    @property
    def stride(self) -> int:
        """Image pixels in a cell of the finest map that the task would like to read."""
        ...

    def head(self, width: int, grid: tuple[int, int], image_px: int) -> nn.Module:
        """A new head; it maps features (B, N, E) on this grid, plain or augmented, to a prediction."""
        ...

    def targets(self, images: PackedImages, rows: np.ndarray, crops: Crops, image_px: int) -> Any:
        """What is to be learned of some images, cut like them, at this size; ``len`` is the number of images."""
        ...

    def loss(self, prediction: Any, targets: Any, smoothing: float = 0.0) -> Float[Tensor, ""]:
        """The task loss, a mean over images."""
        ...

    def consistency(self, prediction: Any, augmented: Any) -> Float[Tensor, ""]:
        """How far the augmented prediction is from the plain one of the same images (METHOD part 3, w3)."""
        ...

    def decode(self, prediction: Any, image_px: int) -> Decoded:
        """One decoded prediction an image, for images of this size."""
        ...

    def score(self, decoded: Any, images: PackedImages) -> Score:
        """Compare decoded predictions with the truth."""
        ...

    def truth(self, images: PackedImages) -> Decoded:
        """The truth in the form of a decoded prediction."""
        ...

    def check(self, images: PackedImages) -> None:
        """Refuse images that the task cannot learn from.

        Raises:
            ValueError: names the image, what is wrong with it and what to do.
        """
        ...


def to_device(targets: Any, device: torch.device) -> Any:
    """Targets of any task on a device: a tensor, or a list of dictionaries of tensors."""
    if isinstance(targets, Tensor):
        return targets.to(device)
    return [{name: value.to(device) for name, value in target.items()} for target in targets]


def check_classes(classes: tuple[str, ...], num_classes: int) -> None:
    """Refuse a list of names of another length.

    Raises:
        ValueError: says both numbers.
    """
    if num_classes < 1 or (classes and len(classes) != num_classes):
        raise ValueError(f"num_classes={num_classes}, but {len(classes)} classes are named: {', '.join(classes)}")
