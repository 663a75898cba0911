"""What is kept of a teacher once its bank is frozen: every patch in the space of the prototypes, and no raw map."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from prockd.datasets import PackedImages
from prockd.datasets.packed import row_numbers
from prockd.teachers.passes import number_of
from prockd.teachers.rows import Rows


@dataclass(frozen=True, eq=False)
class EmbeddedFeatures:
    """U of every patch of every image and view: what a frozen bank reads, on the disk, in half precision.

    A bank with other prototypes, assignment or switches reads them too, if its W_c is the same: ``space`` tells.

    Attributes:
        maps: (M', V, E, h, w) float16, memory-mapped; V in the order of views.
        rows: (M,) which rows of the maps the images are, so that a selection copies nothing.
        images: the images themselves, at one size.
        teacher: fingerprint of the teacher.
        space: ``PrototypeBank.space`` of the bank that embedded them.
        views: names out of ``VIEWS``.
        means: (M', D) each of the teacher's layers averaged over the patches of the plain view, all layers joined.
    """

    maps: Rows
    rows: Int64[np.ndarray, " M"]
    images: PackedImages
    teacher: str
    space: str
    views: tuple[str, ...]
    means: Rows

    def __len__(self) -> int:
        return len(self.images)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.maps.shape[3], self.maps.shape[4]

    @property
    def width(self) -> int:
        """E: values of a patch."""
        return int(self.maps.shape[2])

    def embedded(
        self, indices: Sequence[int] | np.ndarray, view: str | np.ndarray = "plain"
    ) -> Float[Tensor, "B E h w"]:
        """U of some images as maps; ``view`` is a name, or a number an image; ValueError for an unseen view."""
        v = number_of(view, self.views) if isinstance(view, str) else view
        return torch.from_numpy(np.asarray(self.maps[self.rows[indices], v])).float()

    def pooled(self) -> Float[np.ndarray, "M D"]:
        """What a linear probe on the teacher reads: the mean of each layer over its patches, all layers joined."""
        return np.array(self.means[self.rows])

    def select(self, indices: Sequence[int] | np.ndarray) -> "EmbeddedFeatures":
        """The same features for some of the images only."""
        rows = row_numbers(indices, len(self))
        return replace(self, rows=self.rows[rows], images=self.images.select(rows))

    def __repr__(self) -> str:
        h, w = self.grid
        patches = f"{h}x{w} patches of {self.width}; {self.maps[:1].nbytes * len(self) / 1e6:.0f} MB"
        return (
            f"EmbeddedFeatures({len(self)} images, {' + '.join(self.views)}; {patches}, "
            f"teacher {self.teacher[:8]}, space {self.space[:8]})"
        )
