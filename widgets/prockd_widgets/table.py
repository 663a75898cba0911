"""The rows of the explorer's table: what is counted, nearest and clearest of each prototype."""

from collections.abc import Hashable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from prockd.evaluation.best_prototypes import PartPrototypes
from prockd.prototypes.bank import groups_in_turn
from prockd_widgets.patches import Patches

_CHUNK = 1 << 16
"""Patches that are taken to float at a time: a million at once would take gigabytes."""


@torch.no_grad()
def statistics(
    patches: Patches,
    assignments: Float[Tensor, "P K"],
    per_image: int,
    groups: Sequence[Hashable] | None = None,
    count: int = 12,
) -> list[dict[str, object]]:
    """One row a prototype: entropy of its patches (0 sure .. 1 undecided), nearest other prototype, nearest patches.

    ``group`` numbers up to eight groups of prototypes that point the same way; ``beside`` are the most similar others.
    Nearest patches are ``[patch, distance]``, at most one an image, by 1 - cosine to the prototype; the groups of the
    images, where known, take turns.
    """
    bank = patches.bank
    on: Bool[np.ndarray, " K"] = bank.enabled.cpu().numpy()
    label = patches.label(assignments)
    entropy = torch.cat([torch.special.entr(some).sum(1) for some in torch.split(assignments, _CHUNK)])
    spread = entropy.numpy() / np.log(max(on.sum(), 2))
    centres = F.normalize(bank.prototypes.detach(), dim=-1).cpu()
    best, where = _best_of_each(patches.unit, centres, per_image)
    order = best.argsort(stable=True, dim=0, descending=True).numpy()
    alike = (centres @ centres.T).fill_diagonal_(-2.0)
    groups_of = prototype_groups(centres.numpy())
    alike[:, ~bank.enabled.cpu()] = -2.0
    beside = alike.argsort(dim=1, descending=True)[:, : min(7, int(on.sum()) - 1)].tolist()
    rows: list[dict[str, object]] = []
    for k in range(len(centres)):
        mine = spread[label == k]
        other = int(alike[k].argmax())
        rows.append(
            {
                "group": groups_of[k],
                "beside": beside[k],
                "entropy": round(float(mine.mean()), 3) if len(mine) else None,
                "near": [
                    [int(m * per_image + where[m, k]), round(1 - float(best[m, k]), 3)]
                    for m in groups_in_turn(order[:, k], groups)[:count]
                ],
                "other": other if alike[k, other] > -2 else -1,
                "alike": round(float(alike[k, other]), 3) if alike[k, other] > -2 else 0.0,
            }
        )
    return rows


def _best_of_each(
    unit: Float[Tensor, "P E"], centres: Float[Tensor, "K E"], per_image: int
) -> tuple[Float[Tensor, "m K"], Int[Tensor, "m K"]]:
    """Of each image the greatest cosine to each centre, and the patch that has it; -2 where it is all bars."""
    found = []
    for some in torch.split(unit, max(1, _CHUNK // per_image) * per_image):
        cosine = some.float() @ centres.T
        cosine[~some.any(1)] = -2.0
        found.append(cosine.reshape(-1, per_image, len(centres)).max(1))
    return torch.cat([best for best, _ in found]), torch.cat([where for _, where in found])


def prototype_groups(centres: Float[np.ndarray, "K E"], count: int = 8) -> list[int]:
    """The group of each prototype, 0..count - 1: those that point the same way, by average linkage of cosines."""
    from scipy.cluster.hierarchy import fcluster, linkage

    if len(centres) <= count:
        return list(range(len(centres)))
    return [int(group) - 1 for group in fcluster(linkage(centres, "average", "cosine"), count, "maxclust")]


def part_columns(found: PartPrototypes) -> list[dict[str, object]]:
    """One row a prototype: the part it shows, the share of its strongest patches there, the parts it shows best."""
    rows: list[dict[str, object]] = []
    for k, part in enumerate(found.part.tolist()):
        share = round(float(found.shares[k, part]), 3) if part else None
        clearest = np.flatnonzero((found.prototype == k) & (np.nan_to_num(found.share) > 0))  # none is clear with 0 %
        rows.append({"part": part, "share": share, "clearest": clearest.tolist()})
    return rows


def match(first: Int[np.ndarray, " P"], second: Int[np.ndarray, " P"], K: int, L: int) -> list[int]:
    """For each of L prototypes of a second bank, the one of the first that it shares most patches with, one to one.

    Labels of -1, in the bars beside a picture, are left out.
    """
    from scipy.optimize import linear_sum_assignment

    table, shown = np.zeros((K, L), np.int64), first >= 0
    np.add.at(table, (first[shown], second[shown]), 1)
    partners = [-1] * L
    for k, other in zip(*linear_sum_assignment(-table), strict=True):
        partners[int(other)] = int(k)
    return partners
