"""Every measure of prototypes beside every control, as rows of a table and as numbers."""

from dataclasses import dataclass, field

import numpy as np

from prockd.evaluation.best_prototypes import PartPrototypes
from prockd.evaluation.controls import NEAREST, PIXELS, PLACE, SHUFFLED
from prockd.evaluation.parts import PartAgreement

MEASURES = {
    "purity": "part purity of patches on animals",
    "crops_purity": "part purity on random crops",
    "nmi_part": "NMI with parts",
    "nmi_place": "NMI with place in the frame",
    "background_share": "share of prototypes that are background",
    "pixel_nmi": "NMI of all pixels, with background",
    "pixel_ari": "ARI of all pixels, with background",
    "foreground_iou": "foreground IoU",
    "background_iou": "background IoU",
    "point_nmi": "NMI at visible key points",
    "point_ari": "ARI at visible key points",
    "point_error": "key-point error, % of the box",
    "consistency": "consistency, box of a third of the side",
    "stability": "patches that keep their prototype: shift",
    "mirror": "patches that keep their prototype: mirror",
    "noise": "patches that keep their prototype: noise",
    "reseeded": "patches that keep their prototype: other seed",
    "clarity": "clarity",
    "redundancy": "redundancy",
    "polysemanticity": "polysemanticity",
    "in_one_image": "share of prototypes in one image",
    "in_one_group": "share of prototypes in one group",
}
"""What each number is called in tables; defined where it is measured, in :mod:`prockd.evaluation`."""


@dataclass(frozen=True, eq=False)
class PartReport:
    """Every number beside its controls.

    Attributes:
        values: by measure (a key of ``MEASURES``) and group of patches ("prototypes", other teachers, controls).
        parts: the best prototype of each part, by group; see :func:`prockd.evaluation.best_prototypes.part_prototypes`.
        agreement: tables of prototypes by parts, by group.
        notes: a sentence for each thing that could not be measured.
    """

    values: dict[str, dict[str, float]] = field(default_factory=dict)
    parts: dict[str, PartPrototypes] = field(default_factory=dict)
    agreement: dict[str, PartAgreement] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> list[dict[str, object]]:
        """A row a measure, a column a group; None where it was not measured."""
        groups = list(dict.fromkeys(group for values in self.values.values() for group in values))
        groups.sort(key=lambda group: _ORDER.get(group, 1))
        measured = [(words, self.values[key]) for key, words in MEASURES.items() if key in self.values]
        return [
            {"measure": words, **{group: _number(values.get(group)) for group in groups}} for words, values in measured
        ]

    @property
    def part_rows(self) -> list[dict[str, object]]:
        """A row a part: the best share of a prototype's strongest patches on it, and which prototype that is."""
        if not self.parts:
            return []
        mine = self.parts["prototypes"]
        return [
            {"part": name, **{group: found.by_part()[name] for group, found in self.parts.items()},
             "prototype": None if k < 0 else str(k)}
            for name, k in zip(mine.part_names[1:], mine.prototype[1:].tolist(), strict=True)
        ]  # fmt: skip

    def numbers(self) -> dict[str, object]:
        """The prototypes' numbers, with place beside purity, as JSON holds them."""
        told: dict[str, object] = {key: _number(values.get("prototypes")) for key, values in self.values.items()}
        for key, place in (("purity", "place"), ("crops_purity", "crops_place")):
            if key in self.values:
                told[place] = _number(self.values[key].get(PLACE))
        return told | ({"parts": self.parts["prototypes"].by_part()} if self.parts else {})

    def __repr__(self) -> str:
        told = ", ".join(
            f"{key} {value:.3f}" for key, value in self.numbers().items() if isinstance(value, float) and key in _SHORT
        )
        return f"PartReport({told or 'nothing measured'}; {len(self.notes)} notes)"


_ORDER = {"prototypes": 0, PLACE: 2, NEAREST: 3, PIXELS: 4, SHUFFLED: 5}  # other teachers stand beside the prototypes
_SHORT = ("purity", "place", "crops_purity", "crops_place", "nmi_part", "nmi_place", "stability", "clarity")


def _number(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else float(value)
