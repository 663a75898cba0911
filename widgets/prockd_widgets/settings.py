"""What a try is made of: its settings, and the code that makes them again."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from prockd.runs.recipes import task_settings
from prockd.settings.experiment import NO_TEACHER
from prockd.settings.knobs import differences
from prockd.settings.method import DiscoverConfig, DistillConfig, FeatureAugmentationConfig

Configs = tuple[DiscoverConfig, FeatureAugmentationConfig, DistillConfig]

SILENT = {
    "augmented_weight": 0.0, "teacher_branch_weight": 0.0, "consistency_weight": 0.0,
    "assignment_weight": 0.0, "feature_weight": 0.0, "soft_weight": 0.0, "hint_weight": 0.0,
    "unlabelled_batch": 0, "label_free_steps": 0,
}  # fmt: skip
"""The knobs of everything that a student without a teacher does not have."""

BUDGET = frozenset({"steps", "label_free_steps", "seed"})
"""Knobs that are not part of a recipe."""

PRESETS: Mapping[str, str] = {
    "best": "What measured best on validation images.",
    "paper": "The literal reading of the paper: no transfer term, the teacher's branch on.",
    "plain": "Labels alone: no teacher and no prototypes, what every gain is measured against.",
}
"""A sentence for each preset."""


def preset_configs(preset: str, task: str = "classification") -> Configs:
    """The three configurations of a preset for a kind of task.

    Raises:
        ValueError: there is no such preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset {preset!r}: choose one of {', '.join(PRESETS)}")
    if preset == "plain":
        config = task_settings(task, teacher=NO_TEACHER)
        return config.discover, FeatureAugmentationConfig(content="none"), config.distill.replace(**SILENT)
    config = task_settings(task, preset=preset)
    return config.discover, config.feature_augmentation, config.distill


@dataclass(frozen=True)
class Settings:
    """Everything that a try depends on, besides the images.

    Attributes:
        preset: where it started from, a key of ``PRESETS``.
        discover: how the prototypes are found.
        feature_augmentation: how they are added.
        distill: how the student learns.
        labels_per_class: labelled images of each class.
        task: its kind.
    """

    preset: str
    discover: DiscoverConfig
    feature_augmentation: FeatureAugmentationConfig
    distill: DistillConfig
    labels_per_class: int
    task: str = "classification"

    @property
    def configs(self) -> Configs:
        """The three configurations."""
        return self.discover, self.feature_augmentation, self.distill

    def changes(self) -> dict[str, object]:
        """The knobs that are not as in the preset, the budget and the seed left out."""
        changed: dict[str, object] = {}
        for mine, usual in zip(self.configs, preset_configs(self.preset, self.task), strict=True):
            changed |= {name: value for name, (value, _) in differences(mine, usual).items()}
        return {name: value for name, value in changed.items() if name not in BUDGET}

    def code(self) -> str:
        """Python that makes the same settings and, where there is a ``world``, repeats the try."""
        names = [f.name for f in dataclasses.fields(self) if f.name in ("discover", "feature_augmentation", "distill")]
        preset = "paper" if self.preset == "paper" else "best"
        start = task_settings(self.task, preset=preset)
        lines = ["import prockd as pk", "from prockd.runs import task_settings, train_student", ""]
        lines += [f"config = task_settings({self.task!r}, preset={preset!r})"]
        for name, mine in zip(names, self.configs, strict=True):
            changed = differences(mine, getattr(start, name))
            values = ", ".join(f"{knob}={value!r}" for knob, (value, _) in changed.items())
            lines += [f"{name} = config.{name}" + (f".replace({values})" if values else "")]
        return "\n".join(
            [
                *lines,
                "",
                "bank = pk.discover(world.source, config=discover)",
                "student, history = train_student(",
                f'    world.few({self.labels_per_class}), bank, feature_augmentation, distill, on="val", progress=True',
                ")",
                "print(history.scores)",
            ]
        )
