"""What a try is made of: its settings, and the code that makes them again."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from prockd.settings.knobs import Knobs
from prockd.settings.method import DiscoverConfig, DistillConfig, FeatureAugmentationConfig, best, paper

Configs = tuple[DiscoverConfig, FeatureAugmentationConfig, DistillConfig]

SILENT = {
    "augmented_weight": 0.0, "teacher_branch_weight": 0.0, "consistency_weight": 0.0,
    "assignment_weight": 0.0, "feature_weight": 0.0, "hint_weight": 0.0,
    "unlabelled_batch": 0, "label_free_steps": 0,
}  # fmt: skip
"""The knobs of everything that a student without a teacher does not have."""

BUDGET = frozenset({"steps", "label_free_steps", "seed"})
"""Knobs that are not part of a recipe."""


def plain() -> Configs:
    """Learning from labels alone: the steps and learning rate of ``best``, no teacher, no prototypes."""
    discover, _, distill = best()
    return discover, FeatureAugmentationConfig(content="none"), distill.replace(**SILENT)


PRESETS: Mapping[str, tuple[Callable[[], Configs], str]] = {
    "best": (best, "What measured best on validation images."),
    "paper": (paper, "The literal reading of the paper: no transfer term, the teacher's branch on."),
    "plain": (plain, "Labels alone: no teacher and no prototypes, what every gain is measured against."),
}
"""Name of a preset: the function that makes it, and a sentence."""


def differences(config: Knobs, other: Knobs) -> dict[str, object]:
    """The knobs of ``config`` that have another value in ``other``."""
    names = [field.name for field in dataclasses.fields(config)]  # type: ignore[arg-type]
    return {name: getattr(config, name) for name in names if getattr(config, name) != getattr(other, name)}


@dataclass(frozen=True)
class Settings:
    """Everything that a try depends on, besides the images.

    Attributes:
        preset: where it started from, a key of ``PRESETS``.
        discover: how the prototypes are found.
        feature_augmentation: how they are added.
        distill: how the student learns.
        labels_per_class: labelled images of each class.
    """

    preset: str
    discover: DiscoverConfig
    feature_augmentation: FeatureAugmentationConfig
    distill: DistillConfig
    labels_per_class: int

    @property
    def configs(self) -> Configs:
        """The three configurations."""
        return self.discover, self.feature_augmentation, self.distill

    def changes(self) -> dict[str, object]:
        """The knobs that are not as in the preset, the budget and the seed left out."""
        changed: dict[str, object] = {}
        for mine, other in zip(self.configs, PRESETS[self.preset][0](), strict=True):
            changed |= differences(mine, other)
        return {name: value for name, value in changed.items() if name not in BUDGET}

    def code(self) -> str:
        """Python that makes the same settings and, where there is a ``world``, repeats the try."""
        names = ("discover", "augmentation", "distill")
        start = "paper" if self.preset == "paper" else "best"
        lines = ["import prockd as pk", "from prockd.runs.world import train_student", ""]
        lines += [f"{', '.join(names)} = pk.{start}()"]
        for name, mine, other in zip(names, self.configs, PRESETS[start][0](), strict=True):
            changed = ", ".join(f"{knob}={value!r}" for knob, value in differences(mine, other).items())
            lines += [f"{name} = {name}.replace({changed})"] if changed else []
        lines += [
            "",
            "bank = pk.discover(world.source, config=discover)",
            "student, history = train_student(",
            f'    world.few({self.labels_per_class}), bank, augmentation, distill, on="val", progress=True',
            ")",
            "print(history.scores)",
        ]
        return "\n".join(lines)
