"""Do prototypes agree with true parts? Purity and mutual information, beside what knows no parts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int, Integer
from scipy.stats import entropy
from sklearn.metrics import mutual_info_score
from torch import Tensor

from prockd.datasets import PackedImages
from prockd.evaluation.controls import NEAREST, nearest_place_parts, with_controls
from prockd.evaluation.patches import patch_parts as patch_parts
from prockd.evaluation.patches import pixel_patches as pixel_patches
from prockd.evaluation.patches import place_blocks


@dataclass(frozen=True)
class PartAgreement:
    """Agreement of hard prototype assignments with parts, over foreground patches.

    Attributes:
        purity: share of foreground patches whose part is the commonest of their prototype, 0..1.
        nmi: normalised mutual information with parts, 0..1 (arithmetic mean of the entropies, as scikit-learn's).
        majority: purity that a single prototype would have (the commonest part's share).
        table: (K, P) foreground patches by prototype and part; column 0 holds background patches.
        nmi_place: the same information with blocks of the frame, at most K of them; None where no grid was given.
    """

    purity: float
    nmi: float
    majority: float
    table: np.ndarray
    nmi_place: float | None = None

    @property
    def background_share(self) -> float:
        """Share of the prototypes that some patch prefers most of whose patches are background; NaN without patches."""
        used = self.table[self.table.any(1)]
        return float((used[:, 0] > used[:, 1:].sum(1)).mean()) if len(used) else float("nan")

    def __repr__(self) -> str:
        place = "" if self.nmi_place is None else f" and with place {self.nmi_place:.3f}"
        return f"PartAgreement(purity {self.purity:.3f}, NMI {self.nmi:.3f}{place}, commonest part {self.majority:.3f})"


def part_agreement(
    assigned: Int[np.ndarray, "M N"],
    parts: Int[np.ndarray, "M N"],
    num_prototypes: int,
    num_parts: int,
    *,
    grid: tuple[int, int] | None = None,
) -> PartAgreement:
    """Compare the strongest prototype of each patch with its true part, and with ``grid`` with its place in the frame.

    Purity: Manning, Raghavan and Schütze, Introduction to Information Retrieval (2008), 16.3. It rises with K.
    """
    table, front = contingency(assigned, parts, num_prototypes, num_parts), parts > 0
    total = max(1, int(front.sum()))
    purity, majority = table[:, 1:].max(1).sum() / total, table[:, 1:].sum(0).max() / total
    place = None
    if grid is not None:
        blocks = np.tile(place_blocks(grid, num_prototypes), (len(parts), 1))[front]
        place = information(contingency(assigned[front], blocks, num_prototypes, num_prototypes))[0]
    return PartAgreement(float(purity), information(table[:, 1:])[0], float(majority), table, place)


def contingency(
    rows: Int[np.ndarray, "*S"], columns: Int[np.ndarray, "*S"], num_rows: int, num_columns: int
) -> Int[np.ndarray, "num_rows num_columns"]:
    """How often each pair of numbers occurs."""
    counts = np.bincount((rows * num_columns + columns).ravel(), minlength=num_rows * num_columns)
    return counts.reshape(num_rows, num_columns)


def information(table: Integer[np.ndarray, "R C"]) -> tuple[float, float]:
    """Normalised mutual information (0..1) and adjusted Rand index (Hubert and Arabie 1985; 0 by chance) of counts.

    The numbers of scikit-learn for the same labels, from counts that are added up while pixels pass by. Both are 0
    where there is nothing to agree on.
    """
    table = table[table.any(1)][:, table.any(0)].astype(float)
    if min(table.shape, default=0) == 0:
        return 0.0, 0.0
    mean = (entropy(table.sum(1)) + entropy(table.sum(0))) / 2
    nmi = mutual_info_score(None, None, contingency=table) / mean if mean > 0 else 0.0
    both, rows, columns, every = (float((n * (n - 1)).sum()) for n in (table, table.sum(1), table.sum(0), table.sum()))
    chance, most = rows * columns / max(every, 1.0), (rows + columns) / 2
    return float(min(1.0, max(0.0, nmi))), (both - chance) / (most - chance) if most > chance else 0.0


def agreement_with_controls(
    assignments: Float[Tensor, "M N K"],
    images: PackedImages,
    grid: tuple[int, int],
    num_parts: int,
    *,
    others: Mapping[str, Float[Tensor, "M N _"]] | None = None,
    seed: int = 0,
) -> dict[str, PartAgreement]:
    """Part agreement of the prototypes, and beside it of what knows no parts, with the same K.

    Returns:
        One agreement each for ``"prototypes"``, for ``others`` by their names (such as the assignments of a random
        teacher), and for the controls of :func:`prockd.evaluation.controls.with_controls`; last ``"5 nearest places"``,
        whose purity is the share of foreground patches whose part it tells (absent where there is one image alone).

    Raises:
        ValueError: no part masks, masks of another size, a grid finer than the image, images of background alone, or
            more prototypes than foreground patches.
    """
    parts, K = checked_parts(images, grid, num_parts, assignments.shape[2]), assignments.shape[2]
    groups = with_controls(assignments, images, grid, seed=seed)
    agreement = {"prototypes": part_agreement(groups.pop("prototypes"), parts, K, num_parts, grid=grid)}
    for name, other in (others or {}).items():
        assigned = other.argmax(-1).cpu().numpy()
        agreement[name] = part_agreement(assigned, parts, other.shape[2], num_parts, grid=grid)
    for name, group in groups.items():
        agreement[name] = part_agreement(group, parts, K, num_parts, grid=grid)
    if len(images) > 1:
        told = nearest_place_parts(parts, grid, num_parts, seed=seed)
        right = float((told == parts)[parts > 0].mean())
        agreement[NEAREST] = replace(part_agreement(told, parts, num_parts, num_parts), purity=right)
    return agreement


def checked_parts(
    images: PackedImages, grid: tuple[int, int], num_parts: int, num_prototypes: int = 0
) -> Int[np.ndarray, "M N"]:
    """The part of each patch; ValueError where nothing, or nothing that means anything, can be measured."""
    if images.parts is None:
        raise ValueError("these images have no part masks; part agreement needs Farmyard or your own masks")
    if images.parts.shape[1:] != images.pixels.shape[2:]:
        sizes = ("x".join(map(str, shape)) for shape in (images.parts.shape[1:], images.pixels.shape[2:]))
        raise ValueError("part masks of {} pixels, but images of {}: give both at one size".format(*sizes))
    parts = patch_parts(np.asarray(images.parts), grid, num_parts)
    front = int((parts > 0).sum())
    if not front:
        raise ValueError(f"no patch of these {len(images)} images lies on a part: all is background")
    if num_prototypes > front:
        raise ValueError(
            f"{num_prototypes} prototypes, but only {front} patches lie on parts: purity would mean nothing; "
            "give more images or fewer prototypes"
        )
    return parts
