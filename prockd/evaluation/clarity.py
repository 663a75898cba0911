"""Are prototypes clear, different, and of one thing? Measures without labels, for anybody's images."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.cluster import KMeans
from torch import Tensor

from prockd.evaluation.best_prototypes import TOP, strongest
from prockd.evaluation.parts import contingency
from prockd.prototypes.bank import PrototypeBank
from prockd.teachers.embedded import EmbeddedFeatures
from prockd.teachers.features import PatchFeatures

LIVES = 0.8
"""Share of a prototype's patches in one image, or one group, above which it lives there."""


@dataclass(frozen=True)
class Clarity:
    """How alike the strongest patches of prototypes are, in the space of the bank; means over prototypes.

    SemanticLens' definitions (Dreyer et al. 2025, arXiv 2501.05398). There a foundation model embeds the examples of a
    unit; here the teacher itself does, so the numbers compare banks of one teacher and not with published ones.

    Attributes:
        clarity: mean cosine between the strongest patches of a prototype, -1..1; higher is clearer.
        redundancy: greatest cosine between a prototype's mean patch and another's, -1..1; higher is more alike.
        polysemanticity: 1 - cosine between the means of two clusters of a prototype's patches, 0..2; 0 is one thing.
    """

    clarity: float
    redundancy: float
    polysemanticity: float


def clarity_of(vectors: Float[np.ndarray, "K T E"], *, seed: int = 0) -> Clarity:
    """Clarity, redundancy and polysemanticity of the strongest patches of each prototype.

    ValueError for fewer than two prototypes or patches of each: there is nothing to compare.
    """
    K, T, _ = vectors.shape
    if K < 2 or T < 2:
        raise ValueError(f"{K} prototypes with {T} strongest patches each: clarity compares at least 2 of both")
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=2, keepdims=True), 1e-12)
    clear = mean_cosine(unit)
    means = unit.mean(1)
    means = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    cosines = means @ means.T
    np.fill_diagonal(cosines, -np.inf)
    doubt = np.empty(K)
    for k, mine in enumerate(unit):
        different = len(np.unique(mine, axis=0)) > 1
        label = KMeans(2, n_init=3, random_state=seed).fit_predict(mine) if different else np.arange(T) % 2
        centres = np.stack([mine[label == side].mean(0) for side in (0, 1)])
        doubt[k] = 1 - mean_cosine(centres[None] / np.linalg.norm(centres, axis=1, keepdims=True).clip(1e-12))[0]
    return Clarity(float(clear.mean()), float(cosines.max(1).mean()), float(doubt.mean()))


def mean_cosine(unit: Float[np.ndarray, "K T E"]) -> Float[np.ndarray, " K"]:
    """Mean cosine over pairs of different vectors: their mean's squared length, less what each has with itself."""
    T = unit.shape[1]
    cosines: np.ndarray = ((unit.mean(1) ** 2).sum(1) - 1 / T) * T / (T - 1)
    return cosines


def strongest_patches(
    assignments: Float[Tensor, "M N K"], *, top: int = TOP
) -> tuple[Int[np.ndarray, " U"], Int[np.ndarray, "U T"], Int[np.ndarray, "U T"]]:
    """The prototypes that some patch prefers, and image and patch of the strongest ones of each, one an image."""
    share, preferred = assignments.max(-1)
    used = np.unique(preferred[share > 0].cpu().numpy())
    patch, score = strongest(assignments)
    image = np.argsort(-score[:, used], axis=0, kind="stable")[:top]
    return used, image.T, np.take_along_axis(patch[:, used], image, 0).T


def strongest_vectors(
    bank: PrototypeBank,
    features: PatchFeatures | EmbeddedFeatures,
    assignments: Float[Tensor, "M N K"],
    *,
    top: int = TOP,
) -> Float[np.ndarray, "U T E"]:
    """The strongest patches (u), one an image, of each prototype that some patch prefers."""
    _, image, patch = strongest_patches(assignments, top=top)
    vectors = np.empty((*image.shape, bank.embed_dim), np.float32)
    for start in range(0, len(features), 64):
        rows = np.arange(start, min(start + 64, len(features)))
        u = bank.read(features, rows).detach().cpu().numpy()
        now = (image >= start) & (image <= rows[-1])
        vectors[now] = u[image[now] - start, patch[now]]
    return vectors


def lives_in_one(
    assigned: Int[np.ndarray, "M N"],
    owners: Sequence[Hashable] | np.ndarray,
    asked: Bool[np.ndarray, "M N"] | None = None,
    *,
    share: float = LIVES,
) -> float:
    """Share of the prototypes that some patch prefers with more than ``share`` of their patches in images of one owner.

    Owners are one an image: its number to ask for single images, or its group, such as the video that it is of. Only
    patches that are ``asked`` count. ValueError where all images have one owner.
    """
    names, numbers = np.unique([str(owner) for owner in owners], return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"all images are of one group, {str(names[0])!r}: every prototype lives in it")
    owner = np.repeat(numbers[:, None], assigned.shape[1], 1)
    asked = np.ones(assigned.shape, bool) if asked is None else asked
    table = contingency(assigned[asked], owner[asked], int(assigned.max()) + 1, len(names))
    table = table[table.any(1)]
    return float((table.max(1) > share * table.sum(1)).mean())
