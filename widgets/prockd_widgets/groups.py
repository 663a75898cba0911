"""Which knobs the panel shows, and under which heading."""

import dataclasses
from dataclasses import dataclass

from prockd.settings.knobs import Knobs, knob
from prockd.settings.method import DiscoverConfig, DistillConfig, FeatureAugmentationConfig
from prockd_widgets.knobs import Knob


@dataclass(frozen=True)
class _World(Knobs):
    labels_per_class: int = knob(30, 1, 1_000_000, "Labelled images of each class that the student gets.", "images")


GROUPS: tuple[tuple[str, tuple[tuple[type[Knobs], tuple[str, ...]], ...]], ...] = (
    ("Prototypes", (
        (DiscoverConfig, ("num_prototypes",)), (FeatureAugmentationConfig, ("content", "fit", "num_maps")),
    )),
    ("Weights of the loss", (
        (DistillConfig, ("feature_weight", "soft_weight", "assignment_weight", "augmented_weight", "consistency_weight",
                         "teacher_branch_weight", "hint_weight")),
    )),
    ("Soft targets and assignments", ((DistillConfig, ("soft_reads", "soft_steps", "temperature")),)),
    ("Training", ((_World, ("labels_per_class",)), (DistillConfig, ("lr", "steps", "unlabelled_batch", "seed")))),
)  # fmt: skip
"""The knobs shown, by heading and by the configuration they belong to."""


def make_knobs() -> dict[str, Knob]:
    """Every knob of ``GROUPS``, by name."""
    return {
        field.name: Knob(field)
        for _, parts in GROUPS
        for kind, names in parts
        for field in dataclasses.fields(kind)  # type: ignore[arg-type]
        if field.name in names
    }


def shown(kind: type[Knobs]) -> list[str]:
    """The knobs of one configuration that the panel shows; ``steps``, ``lr`` and ``seed`` are those of training."""
    return [name for _, parts in GROUPS for owner, names in parts if owner is kind for name in names]
