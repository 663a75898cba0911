"""What a prototype is like, for the explorer's table: clear, repeated, tied to a place or to one picture, of effect."""

from collections.abc import Hashable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from prockd.datasets import PackedImages
from prockd.evaluation.clarity import mean_cosine, strongest_patches
from prockd.evaluation.effects import PrototypeEffects
from prockd.evaluation.scores import decode_all
from prockd.prototypes.saliency import INNER, OUTER, zones
from prockd.students.student import Student
from prockd.tasks import Classification

Column = list[float | None]


def quality_columns(
    unit: Float[torch.Tensor, "M N E"],
    soft: Float[torch.Tensor, "M N K"],
    label: Int[np.ndarray, "M N"],
    groups: Sequence[Hashable] | None,
) -> dict[str, Column]:
    """Columns of K values each, None where there is nothing to say.

    ``clarity``: mean cosine between its strongest patches, one an image. ``redundancy``: greatest cosine between their
    mean and another prototype's. ``place``: of its patches, how often the same place of another image is its too, 0..1.
    ``owner``: share of its patches in one image, or one group where groups are known.
    """
    K = soft.shape[2]
    used, image, patch = strongest_patches(soft)
    vectors = unit[image, patch].float().numpy()
    columns: dict[str, Column] = {name: [None] * K for name in ("clarity", "redundancy", "place", "owner")}
    if len(used) > 1 and vectors.shape[1] > 1:
        means = vectors.mean(1)
        means /= np.linalg.norm(means, axis=1, keepdims=True).clip(1e-12)
        cosines = means @ means.T
        np.fill_diagonal(cosines, -1)
        for k, clear, near in zip(used, mean_cosine(vectors), cosines.max(1), strict=True):
            columns["clarity"][k], columns["redundancy"][k] = round(float(clear), 3), round(float(near), 3)
    owner = np.unique([str(g) for g in groups], return_inverse=True)[1] if groups else np.arange(len(label))
    for k in range(K):
        mine = label == k
        if not (size := int(mine.sum())):
            continue
        again = mine.sum(0)
        if len(label) > 1:
            columns["place"][k] = round(float((again * (again - 1)).sum() / (size * (len(label) - 1))), 3)
        if owner.max():
            columns["owner"][k] = round(float(np.bincount(owner, mine.sum(1)).max() / size), 3)
    return columns


def in_front(
    label: Int[np.ndarray, "M N"], pictured: Float[np.ndarray, "M 4"], grid: tuple[int, int], K: int
) -> Bool[np.ndarray, " K"]:
    """Whether each prototype is preferred at least twice as often inside of pictures as along their border."""
    zone = zones(pictured, grid)
    rates = [
        np.bincount(label[on][label[on] >= 0], minlength=K) / max(1, on.sum()) for on in (zone == INNER, zone == OUTER)
    ]
    return np.asarray((rates[0] >= 2 * rates[1]) & (rates[0] > 0))


def effect_column(effects: PrototypeEffects, K: int) -> Column:
    """What the student's metric loses (negative) or gains without each prototype alone, in points."""
    alone = {members[0]: row for row, members in enumerate(effects.prototypes) if len(members) == 1}
    return [round(100 * float(effects.change[alone[k], 0]), 2) if k in alone else None for k in range(K)]


def answers(source: object, images: PackedImages) -> list[int] | None:
    """The class that a student of classification sees in each image, by z+ where it has one; None for all others."""
    if not isinstance(source, Student) or not isinstance(source.task, Classification):
        return None
    return [int(answer) for answer in decode_all(source, images)[-1]]
