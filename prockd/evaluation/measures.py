"""Everything that is measured of prototypes, at once; what cannot be measured is named."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool

from prockd.datasets import PointAnnotations
from prockd.evaluation.best_prototypes import TOP, PartPrototypes, part_prototypes_with_controls, strongest
from prockd.evaluation.clarity import clarity_of, lives_in_one, strongest_vectors
from prockd.evaluation.controls import (
    PIXELS,
    PLACE,
    SHUFFLED,
    pixel_clusters,
    pixel_names,
    pixel_strongest,
    place_names,
    with_controls,
)
from prockd.evaluation.crops import Assign, assigner, crop_agreement
from prockd.evaluation.landmarks import point_measure
from prockd.evaluation.part_table import PartReport
from prockd.evaluation.parts import PartAgreement, agreement_with_controls, checked_parts, contingency
from prockd.evaluation.pixels import pixel_agreement
from prockd.evaluation.points import point_patches
from prockd.evaluation.stability import consistency, kept_shares, matched_share, near_points
from prockd.prototypes.bank import PrototypeBank
from prockd.teachers.embedded import EmbeddedFeatures
from prockd.teachers.features import PatchFeatures
from prockd.teachers.teacher import Teacher


class Measured(NamedTuple):
    """Prototypes, what they are measured on, and their teacher, for what needs other pixels (crops, stability)."""

    bank: PrototypeBank
    features: PatchFeatures | EmbeddedFeatures
    teacher: Teacher | None = None


def part_report(
    bank: PrototypeBank,
    features: PatchFeatures | EmbeddedFeatures,
    part_names: Sequence[str] = (),
    *,
    teacher: Teacher | None = None,
    others: Mapping[str, Measured] | None = None,
    again: Sequence[PrototypeBank] = (),
    points: PointAnnotations | None = None,
    num_changed: int | None = None,
    seed: int = 0,
) -> PartReport:
    """Measure prototypes on images, which should not be those that they were found on, beside every control.

    Args:
        bank: the prototypes.
        features: what their teacher sees in the images. Without part masks only what needs no label is measured.
        part_names: of the masks, background first.
        teacher: their teacher; without it nothing is measured on random crops, shifted, mirrored or noisy images.
        others: other prototypes on the same images, by name, such as those of a random teacher.
        again: the same discovery with other seeds, for the share of patches that keep their prototype.
        points: key points of the images, for information at the points, their error, and consistency.
        num_changed: of how many images crops, shifted, mirrored and noisy ones are seen by the teacher; None is all.
        seed: of shuffling, halves, crops, noise and k-means on pixels.

    Raises:
        ValueError: masks of another size, or with numbers that are no part's; a grid finer than the image; images of
            background alone; more prototypes than patches on parts. What else cannot be measured is named in ``notes``.

    >>> import prockd as pk
    >>> from prockd.farmyard import PARTS
    >>> teacher, images = pk.Teacher("farmyard"), pk.Farmyard("target", "val", 12)
    >>> features = pk.extract(teacher, images, progress=False)
    >>> bank = pk.discover(features, num_prototypes=8, progress=False)
    >>> report = part_report(bank, features, PARTS)
    >>> sorted(report.values["purity"])
    ['5 nearest places', 'place in the image', 'prototypes', 'raw pixels', 'shuffled']
    """
    measuring = _Measuring({"prototypes": Measured(bank, features, teacher), **(others or {})}, part_names, seed)
    measuring.without_labels()
    if measuring.labelled:
        measuring.parts_of_patches()
        measuring.pixels()
    else:
        measuring.notes.append("these images have no part masks: only what needs no label is measured")
    measuring.other_pixels(num_changed)
    measuring.other_seeds(again)
    if points is not None:
        measuring.key_points(points)
    return PartReport(dict(measuring.values), measuring.parts, measuring.agreement, tuple(measuring.notes))


class _Measuring:
    """What is being measured, and what came out so far."""

    def __init__(self, measured: Mapping[str, Measured], part_names: Sequence[str], seed: int) -> None:
        self.measured, self.part_names, self.seed = measured, part_names, seed
        first = measured["prototypes"]
        self.images, self.grid, self.K = first.features.images, first.features.grid, first.bank.num_prototypes
        for name, each in measured.items():
            if each.features.grid != self.grid or each.features.images.ids != self.images.ids:
                raise ValueError(f"{name} must be measured on the images and the grid of the prototypes, {self.grid}")
        self.labelled = self.images.parts is not None and len(part_names) > 0
        self.soft = {name: each.bank.assignments(each.features) for name, each in measured.items()}
        self.hard = with_controls(self.soft["prototypes"], self.images, self.grid, seed=seed)
        self.hard |= {name: a.argmax(-1).cpu().numpy() for name, a in self.soft.items()}
        self.values: dict[str, dict[str, float]] = defaultdict(dict)
        self.parts: dict[str, PartPrototypes] = {}
        self.agreement: dict[str, PartAgreement] = {}
        self.notes: list[str] = []

    def keep(self, group: str, values: Mapping[str, float | None]) -> None:
        """Keep the numbers of a group of patches."""
        for key, value in values.items():
            if value is not None:
                self.values[key][group] = value

    def tried(self, measure: Callable[..., Any], *of: Any, **how: Any) -> Any:
        """What is measured; where nothing can be, None, and the sentence that says why among the notes, once."""
        try:
            return measure(*of, **how)
        except ValueError as error:
            if str(error) not in self.notes:
                self.notes.append(str(error))
            return None

    @property
    def front(self) -> Bool[np.ndarray, "M N"]:
        """Patches on parts; without masks all but bars beside padded pictures."""
        if not self.labelled:
            return self.images.in_picture(self.grid)
        return checked_parts(self.images, self.grid, len(self.part_names)) > 0

    def without_labels(self) -> None:
        """Clarity, and how many prototypes live in one image or one group; not of the bars beside padded pictures."""
        mine, soft, inside = self.measured["prototypes"], self.soft["prototypes"], self.images.in_picture(self.grid)
        order = torch.from_numpy(np.random.default_rng(self.seed).permutation(inside.size))
        shuffled = soft.flatten(0, 1)[order].reshape(soft.shape)
        asked = {name: (each, self.soft[name]) for name, each in self.measured.items()} | {SHUFFLED: (mine, shuffled)}
        for name, (each, a) in asked.items():
            a = a * torch.from_numpy(inside)[..., None]
            found = self.tried(clarity_of, strongest_vectors(each.bank, each.features, a))
            self.keep(name, asdict(found) if found else {})
        groups = self.images.groups
        for name, group in self.hard.items():
            self.keep(name, {"in_one_image": self.tried(lives_in_one, group, np.arange(len(group)), inside)})
            if groups is not None:
                self.keep(name, {"in_one_group": self.tried(lives_in_one, group, groups, inside)})

    def parts_of_patches(self) -> None:
        """Purity, information with parts and with place, the best prototype of each part."""
        others = {name: a for name, a in self.soft.items() if name != "prototypes"}
        options: dict[str, Any] = {"others": others, "seed": self.seed}
        where = (self.soft["prototypes"], self.images, self.grid)
        self.agreement = agreement_with_controls(*where, len(self.part_names), **options)
        self.parts = part_prototypes_with_controls(*where, self.part_names, **options)
        for name, each in self.agreement.items():
            told = {"purity": each.purity, "nmi_part": each.nmi, "nmi_place": each.nmi_place}
            self.keep(name, told | ({"background_share": each.background_share} if name in self.soft else {}))
        if absent := self.parts["prototypes"].absent:
            self.notes.append(f"no patch of these {len(self.images)} images lies on: {', '.join(absent)}")
        if (top := self.parts["prototypes"].top) < TOP:
            self.notes.append(f"there are {top} images: shares of parts are of {top} strongest patches, not of {TOP}")

    def pixels(self) -> None:
        """All pixels, background among the parts."""
        for name, each in (self.hard | self.soft).items():
            found = pixel_agreement(each, self.images, self.grid, len(self.part_names), seed=self.seed)
            self.keep(name, {f"pixel_{key}" if key in ("nmi", "ari") else key: v for key, v in asdict(found).items()})

    def other_pixels(self, count: int | None) -> None:
        """Random crops, and images that are shifted, mirrored or noisy: what needs the teacher again."""
        seeing = {name: each for name, each in self.measured.items() if each.teacher is not None}
        assigns: dict[str, Assign] = {
            n: assigner(each.teacher, each.bank) for n, each in seeing.items() if each.teacher
        }
        if "prototypes" not in assigns:
            self.notes.append("no teacher was given: nothing is measured on crops, shifted, mirrored or noisy images")
            return
        others = {name: assign for name, assign in assigns.items() if name != "prototypes"}
        some = np.linspace(0, len(self.images) - 1, min(count or len(self.images), len(self.images))).astype(int)
        images, front = self.images.select(some), self.front[some]
        where = (images, self.grid, len(self.part_names))
        if self.labelled:
            crops = self.tried(crop_agreement, assigns["prototypes"], *where, others=others, seed=self.seed)
            for name, agreement in (crops or {}).items():
                self.keep(name, {"crops_purity": agreement.purity})
        clusters = pixel_clusters(self.images, self.grid, self.K, seed=self.seed)
        assigns |= {PLACE: place_names(self.grid, self.K), PIXELS: pixel_names(clusters, self.grid)}
        for name, assign in assigns.items():
            kept = self.tried(kept_shares, assign, images, self.grid, front, seed=self.seed)
            if kept is None:
                continue
            chance = kept.pop("chance")
            kept["stability"] = kept.pop("shift")
            self.keep(name, kept)
            if name == "prototypes":
                self.keep(SHUFFLED, dict.fromkeys(kept, chance))

    def other_seeds(self, again: Sequence[PrototypeBank]) -> None:
        """The same discovery with other seeds; of shuffled prototypes what matching alone brings."""
        features = self.measured["prototypes"].features
        seconds = [bank.strongest(features)[1][..., 0].long().numpy() for bank in again]
        for name in ("prototypes", SHUFFLED) if seconds else ():
            shares = [matched_share(self.hard[name], second, self.front) for second in seconds]
            self.keep(name, {"reseeded": float(np.mean(shares))})

    def key_points(self, annotations: PointAnnotations) -> None:
        """Information at key points, their error, and consistency within a class."""
        points = point_patches(annotations, self.images, self.grid)
        for name, each in (self.hard | self.soft).items():
            found = point_measure(each, points, self.images, self.grid, seed=self.seed)
            self.keep(name, {f"point_{key}": value for key, value in asdict(found).items()})
        near, shown = near_points(points, len(self.images), self.grid)
        peaks = {name: strongest(a)[0] for name, a in self.soft.items()}
        clusters = pixel_clusters(self.images, self.grid, self.K, seed=self.seed)
        M, N = self.hard["prototypes"].shape
        peaks[PLACE] = np.tile(np.arange(N), (M, 1))
        peaks[PIXELS] = pixel_strongest(clusters, self.images, self.grid)[0]
        peaks[SHUFFLED] = np.random.default_rng(self.seed).integers(0, N, (M, self.K))
        for name, peak in peaks.items():
            group = peaks[PLACE] if name == PLACE else self.hard["prototypes" if name == SHUFFLED else name]
            table = contingency(group, self.front.astype(np.int64), peak.shape[1], 2)
            asked = table[:, 1] > table[:, 0]
            found_share = self.tried(consistency, peak, self.images.labels, near, shown, asked)
            self.keep(name, {"consistency": found_share})
