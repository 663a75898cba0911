"""The one glossary: axis letters used in every shape of this package, and the sample every data set yields.

Axis letters (METHOD: re-derived from arXiv 2212.13180):

===== ==========================================================================
B     images in a batch
M     images in a data set
V     cached views of an image: 0 as is, 1 mirrored left-right
h w   patch grid; N = h * w patches (class and register tokens are not patches)
D     teacher width
E     embedding width: prototypes, and features projected to meet them
F     student width
K     prototypes
C     classes of the student's task
H W   pixels
===== ==========================================================================
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8

UNLABELLED = -1
"""Label of an image whose class is not known; it can be used for transfer, never for a task loss."""

IGNORE = 255
"""Value of mask pixels that belong to no class: no loss and no metric counts them."""


@dataclass(frozen=True)
class Sample:
    """One image and whatever is known about it; what is not known is None.

    Attributes:
        image: (H, W, 3) RGB pixels, 0..255.
        label: class index, or ``UNLABELLED``.
        id: unique name of the image within its data set.
        parts: (H, W) part index of each pixel, 0 is background.
        instances: (H, W) instance number of each pixel, 0 is background, i is row i - 1 of ``boxes``.
        boxes: (n, 4) x0, y0, x1, y1 in pixels, of the visible pixels of each instance.
        box_labels: (n,) class index of each box.
        keypoints: (n, J, 3) x, y in pixels and 1 visible / 0 hidden, per instance.
        mask: (H, W) class index of each pixel, or ``IGNORE``: what segmentation learns, in the label space of the task.
        tags: (C,) 1 for each class that the image shows, else 0: what multi-label classification learns.
        joints: (C, 3) x, y in pixels of each class, a joint of the one animal, and 1 visible / 0 hidden or not known:
            what key points learn.
    """

    image: UInt8[np.ndarray, "H W 3"]
    label: int
    id: str
    parts: UInt8[np.ndarray, "H W"] | None = None
    instances: UInt8[np.ndarray, "H W"] | None = None
    boxes: Float32[np.ndarray, "n 4"] | None = None
    box_labels: np.ndarray | None = None
    keypoints: Float32[np.ndarray, "n J 3"] | None = None
    mask: UInt8[np.ndarray, "H W"] | None = None
    tags: UInt8[np.ndarray, " C"] | None = None
    joints: Float32[np.ndarray, "C 3"] | None = None


@runtime_checkable
class ImageDataset(Protocol):
    """What every data set offers; anything with these four members can be extracted, discovered and distilled."""

    @property
    def classes(self) -> Sequence[str]:
        """Class names in label order."""
        ...

    @property
    def fingerprint(self) -> str:
        """Text that changes when any image or label would change; the feature cache is keyed by it."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...
