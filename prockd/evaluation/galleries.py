"""Which prototypes a gallery shows, and what parts are called: one rule for every figure, report and widget."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from prockd.datasets import PackedImages
from prockd.evaluation.best_prototypes import part_prototypes
from prockd.evaluation.clarity import mean_cosine, strongest_patches, strongest_vectors
from prockd.farmyard import PARTS
from prockd.prototypes.bank import PrototypeBank
from prockd.prototypes.saliency import INNER, OUTER, zones
from prockd.teachers.embedded import EmbeddedFeatures
from prockd.teachers.features import PatchFeatures


def gallery_prototypes(
    bank: PrototypeBank,
    features: PatchFeatures | EmbeddedFeatures,
    assignments: Float[Tensor, "M N K"],
    *,
    part_names: Sequence[str] | None = None,
    count: int = 10,
) -> list[int]:
    """The prototypes to look at: the clearest one of each part where parts are known, else the ``count`` clearest.

    Args:
        bank: the prototypes.
        features: a teacher's features.
        assignments: of these features, 0 in the bars beside padded pictures.
        part_names: by part index; None where parts are not known.
        count: prototypes, where parts are not known.

    Raises:
        ValueError: as :func:`prockd.evaluation.best_prototypes.part_prototypes`, where parts are known.
    """
    if part_names and features.images.parts is not None:
        return part_prototypes(assignments, features.images, features.grid, part_names).gallery
    vectors = strongest_vectors(bank, features, assignments)
    return clearest_prototypes(vectors, assignments, features.images, features.grid, count=count)


def clearest_prototypes(
    vectors: Float[np.ndarray, "U T E"],
    assignments: Float[Tensor, "M N K"],
    images: PackedImages,
    grid: tuple[int, int],
    *,
    count: int = 10,
) -> list[int]:
    """Without any label: the prototypes whose strongest patches, one an image, are most alike, background last.

    Alike is the mean cosine, which SemanticLens calls clarity (arXiv 2501.05398). Sky and grass are the clearest of
    all, so prototypes come first that at least twice as many patches prefer in the middle of pictures as along their
    border, by the border prior (Wei et al., ECCV 2012).

    Args:
        vectors: the strongest patches of each of the U prototypes that some patch prefers.
        assignments: of all patches.
        images: the images, in the same order.
        grid: rows and columns of patches.
        count: prototypes, at most.
    """
    used = strongest_patches(assignments)[0]
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=2, keepdims=True), 1e-12)
    clarity = mean_cosine(unit) if unit.shape[1] > 1 else np.zeros(len(used))
    zone, preferred = zones(images.pictured, grid), assignments.argmax(-1).cpu().numpy()
    counts = [np.bincount(preferred[zone == side], minlength=assignments.shape[2])[used] for side in (INNER, OUTER)]
    inner, outer = (number / max(1, (zone == side).sum()) for number, side in zip(counts, (INNER, OUTER), strict=True))
    order = np.lexsort((-clarity, inner < 2 * outer))[:count]
    return [int(k) for k in used[order]]


def part_names_of(images: PackedImages, names: Sequence[str] | None = None) -> list[str]:
    """What the parts of the masks are called: by the caller, as Farmyard's for its images, else by numbers.

    None without masks. ValueError where the masks have a part that has no name.
    """
    if images.parts is None:
        return []
    most = int(np.asarray(images.parts).max(initial=0))
    if names is None:
        farmyard = images.ids[0].startswith("farmyard/") and most < len(PARTS)
        names = PARTS if farmyard else ["background", *(f"part {i}" for i in range(1, most + 1))]
    if most >= len(names):
        raise ValueError(f"{len(names)} part names, but the masks have part {most}")
    return list(names)
