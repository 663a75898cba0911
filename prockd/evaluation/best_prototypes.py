"""Is there a tail? For each part the prototype whose strongest patches lie on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from prockd.datasets import PackedImages
from prockd.evaluation.controls import PIXELS, PLACE, SHUFFLED, pixel_clusters, pixel_strongest
from prockd.evaluation.parts import checked_parts
from prockd.evaluation.patches import TOUCH, lies_on

TOP = 50
"""Strongest patches of a prototype, one an image, that are asked whether they lie on a part."""


@dataclass(frozen=True, eq=False)
class PartPrototypes:
    """For each part the prototype whose strongest patches, one an image, lie on it most: is there a tail?

    Attributes:
        part_names: of all parts, background first.
        share: (P,) share of the strongest patches that lie on the part, 0..1; NaN for background and absent parts.
        prototype: (P,) number of that prototype, -1 for background and absent parts.
        image: (P, T) image of each of its strongest patches, best first.
        patch: (P, T) the patch, counted row by row of the grid.
        on: (P, T) whether it lies on the part.
        shares: (K, P) the share of every prototype on every part.
    """

    part_names: tuple[str, ...]
    share: Float[np.ndarray, " P"]
    prototype: Int[np.ndarray, " P"]
    image: Int[np.ndarray, "P T"]
    patch: Int[np.ndarray, "P T"]
    on: Bool[np.ndarray, "P T"]
    shares: Float[np.ndarray, "K P"]

    @property
    def top(self) -> int:
        """How many strongest patches were asked: 50, or as many as there are images."""
        return int(self.image.shape[1])

    @property
    def absent(self) -> tuple[str, ...]:
        """Parts on which no patch of these images lies."""
        return tuple(name for name, k in zip(self.part_names[1:], self.prototype[1:], strict=True) if k < 0)

    @property
    def gallery(self) -> list[int]:
        """The prototypes that a gallery shows: one a part, in the order of the parts, none twice."""
        return list(dict.fromkeys(self.prototype[self.prototype >= 0].tolist()))

    @property
    def part(self) -> Int[np.ndarray, " K"]:
        """(K,) what each prototype shows: the part that it shows best of all, else the one it shows most, 0 for none.

        It shows a part where at least a quarter of its strongest patches lie on it.
        """
        shares = np.where(np.arange(len(self.share)) > 0, self.shares, 0.0)
        most = np.where(shares.max(1) >= 0.25, shares.argmax(1), 0)
        best = np.where(self.prototype == np.arange(len(shares))[:, None], shares, 0.0)
        return np.where(best.any(1), best.argmax(1), most)

    def told(self, prototype: int) -> list[str]:
        """Words for what a prototype shows, such as "leg 92%": each part that it shows best of all, else its own."""
        parts = np.flatnonzero(self.prototype == prototype).tolist() or [int(self.part[prototype])]
        shares = self.shares[prototype]
        return [f"{self.part_names[p]} {shares[p]:.0%}" if p else self.part_names[0] for p in parts]

    def by_part(self) -> dict[str, float | None]:
        """The best share of each part; None where the part is absent."""
        shares = zip(self.part_names[1:], self.share[1:].tolist(), strict=True)
        return {name: None if np.isnan(share) else share for name, share in shares}

    def __repr__(self) -> str:
        shares = ", ".join(f"{name} {'-' if s is None else f'{s:.2f}'}" for name, s in self.by_part().items())
        return f"PartPrototypes(of the {self.top} strongest patches: {shares})"


def part_prototypes(
    assignments: Float[Tensor, "M N K"],
    images: PackedImages,
    grid: tuple[int, int],
    part_names: Sequence[str],
    *,
    top: int = TOP,
    touch: float = TOUCH,
) -> PartPrototypes:
    """For each part the prototype whose ``top`` strongest patches, one an image, lie on it most: the rule of galleries.

    The image's patch with the greatest assignment to the prototype stands for the image; the ``top`` images with the
    greatest ones are asked. Images that do not show the part count against it. Where two prototypes have the same
    share, the one with more of all the patches that prefer it on the part wins, then the lower number.

    >>> import torch
    >>> from prockd.datasets import PackedImages
    >>> masks = np.array([[[0, 1]] * 2, [[1, 0]] * 2], np.uint8)  # a tail to the right, one to the left
    >>> pixels, labels = np.zeros((2, 3, 2, 2), np.uint8), np.zeros(2, np.int64)
    >>> images = PackedImages(pixels, labels, ("a", "b"), ("cow",), "", parts=masks)
    >>> assignments = torch.tensor([[[0.9, 0.1], [0.2, 0.8]], [[0.1, 0.9], [0.7, 0.3]]])  # 2 images, 2 patches, K = 2
    >>> part_prototypes(assignments, images, (1, 2), ("background", "tail"))
    PartPrototypes(of the 2 strongest patches: tail 1.00)

    Raises:
        ValueError: as :func:`agreement_with_controls`.
    """
    return prototypes_on(assignments, _checked_on(images, grid, part_names, touch), part_names, top=top)


def prototypes_on(
    assignments: Float[Tensor, "M N K"], on: Bool[np.ndarray, "M N P"], part_names: Sequence[str], *, top: int = TOP
) -> PartPrototypes:
    """:func:`part_prototypes` where it is known which parts each patch lies on."""
    assigned, K = assignments.argmax(-1).cpu().numpy(), assignments.shape[2]
    preferring = np.bincount(assigned.ravel(), minlength=K)[:, None]
    lying = np.stack([np.bincount(assigned[on[..., p]], minlength=K) for p in range(on.shape[2])], 1)  # (K, P)
    return best_of_parts(*strongest(assignments), on, part_names, top=top, then=lying / np.maximum(preferring, 1))


def part_prototypes_with_controls(
    assignments: Float[Tensor, "M N K"],
    images: PackedImages,
    grid: tuple[int, int],
    part_names: Sequence[str],
    *,
    others: Mapping[str, Float[Tensor, "M N _"]] | None = None,
    top: int = TOP,
    touch: float = TOUCH,
    seed: int = 0,
) -> dict[str, PartPrototypes]:
    """:func:`part_prototypes` of the prototypes, of ``others``, and of what knows no parts.

    The controls: of ``"place in the image"`` every place of the grid is a prototype, the same patch in each of the
    first ``top`` images; of ``"raw pixels"`` every cluster of :func:`prockd.evaluation.controls.pixel_clusters`; of
    ``"shuffled"`` the prototypes, with the patches of all images in another order.
    """
    groups = {"prototypes": assignments} | dict(others or {})
    options: dict[str, Any] = {"top": top, "touch": touch}
    found = {name: part_prototypes(a, images, grid, part_names, **options) for name, a in groups.items()}
    on = _checked_on(images, grid, part_names, touch)
    M, N, _ = on.shape
    places = np.tile(np.arange(N), (M, 1)), np.ones((M, N))
    found[PLACE] = best_of_parts(*places, on, part_names, top=top)
    clusters = pixel_clusters(images, grid, assignments.shape[2], seed=seed)
    found[PIXELS] = best_of_parts(*pixel_strongest(clusters, images, grid), on, part_names, top=top)
    order = np.random.default_rng(seed).permutation(M * N)
    shuffled = on.reshape(M * N, -1)[order].reshape(on.shape)
    found[SHUFFLED] = best_of_parts(*strongest(assignments), shuffled, part_names, top=top)
    return found


def strongest(assignments: Float[Tensor, "M N K"]) -> tuple[Int[np.ndarray, "M K"], Float[np.ndarray, "M K"]]:
    """Of each image the patch with the greatest assignment to each prototype, and it; -inf where it is 0 (disabled)."""
    score, patch = assignments.max(1)
    return patch.cpu().numpy(), score.masked_fill(score == 0, float("-inf")).cpu().numpy()


def best_of_parts(
    patch: Int[np.ndarray, "M K"],
    score: Float[np.ndarray, "M K"],
    on: Bool[np.ndarray, "M N P"],
    part_names: Sequence[str],
    *,
    top: int = TOP,
    then: Float[np.ndarray, "K P"] | None = None,
) -> PartPrototypes:
    """The best prototype of each part, from one patch an image and prototype, its score, and which parts it lies on.

    ``then`` decides between prototypes of equal share.
    """
    P = len(part_names)
    image = np.argsort(-score, axis=0, kind="stable")[:top]  # (T, K)
    patch = np.take_along_axis(patch, image, 0)
    hit = on[image, patch] & np.isfinite(np.take_along_axis(score, image, 0))[..., None]  # (T, K, P)
    shares = hit.mean(0)  # (K, P)
    present = on.any((0, 1)) & (np.arange(P) > 0)
    ranks = (-shares,) if then is None else (-then, -shares)  # the last key counts first
    best = np.lexsort(tuple(rank.T for rank in ranks))[:, 0]  # (P,)
    share = np.where(present, shares[best, np.arange(P)], np.nan)
    on_best = hit[:, best, np.arange(P)].T
    prototype = np.where(present, best, -1)
    return PartPrototypes(tuple(part_names), share, prototype, image[:, best].T, patch[:, best].T, on_best, shares)


def _checked_on(
    images: PackedImages, grid: tuple[int, int], part_names: Sequence[str], touch: float
) -> Bool[np.ndarray, "M N P"]:
    checked_parts(images, grid, len(part_names))
    return lies_on(np.asarray(images.parts), grid, len(part_names), share=touch)
