"""What a try is made of: its settings, and the code, command or file that makes them again."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace

import tomlkit

from prockd.runs.arms import ALONE, ARMS, OURS, Arm, read_of_a_teacher
from prockd.runs.recipes import fallback, task_settings
from prockd.settings.experiment import NO_TEACHER, ExperimentConfig
from prockd.settings.knobs import differences
from prockd.settings.method import DiscoverConfig, DistillConfig, FeatureAugmentationConfig
from prockd.settings.toml import in_line, to_toml

Configs = tuple[DiscoverConfig, FeatureAugmentationConfig, DistillConfig]
METHOD = ("discover", "feature_augmentation", "distill")
"""The sections that a try has of its own; the others are the world's."""

BUDGET = frozenset({"steps", "label_free_steps", "seed"})
"""Knobs that are not part of a recipe."""

PRESETS: Mapping[str, str] = {
    "best": "What measured best on validation images.",
    "paper": "The literal reading of the paper: no transfer term, the teacher's branch on.",
    "plain": "Labels alone: no teacher and no prototypes, what every gain is measured against.",
}
"""A sentence for each preset."""

STARTS: Mapping[str, str] = {**PRESETS} | {
    name: f"{arm.told}{f' {arm.paper}.' if arm.paper else ''}"
    for name, arm in ARMS.items()
    if name not in (ALONE, OURS)
}
"""Where the knobs may start: the presets, and the rivals and controls of ``prockd compare``, with a sentence each."""


def arm_of(start: str) -> Arm:
    """The arm of a contest that a start is."""
    return ARMS[{"best": OURS, "paper": OURS, "plain": ALONE}.get(start, start)]


def start_config(start: str, task: str = "classification", *, unlabelled: bool = True) -> ExperimentConfig:
    """The settings of a start for a kind of task; without unlabelled images a step takes as many more labelled ones.

    Raises:
        ValueError: there is no such start.
    """
    if start not in STARTS:
        raise ValueError(f"preset {start!r}: choose one of {', '.join(STARTS)}")
    arm = arm_of(start)
    if start == "plain":
        config = arm.settings(task_settings(task, teacher=NO_TEACHER))
    else:
        base = task_settings(task, preset="paper" if start == "paper" else "best")
        config = arm.settings(base if unlabelled else fallback(base))
    if arm.augmented:
        return config
    distill = config.distill.replace(augmented_weight=0.0, consistency_weight=0.0)
    return replace(config, feature_augmentation=FeatureAugmentationConfig(content="none"), distill=distill)


def method_of(config: ExperimentConfig) -> Configs:
    """The three configurations that a try has of its own."""
    return config.discover, config.feature_augmentation, config.distill


@dataclass(frozen=True)
class Settings:
    """Everything that a try depends on, besides the images.

    Attributes:
        preset: where it started from, a key of ``STARTS``.
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

    @property
    def arm(self) -> Arm:
        """How it is trained: where it started from, but that the knobs decide what is augmented and who is read."""
        arm = arm_of(self.preset)
        if arm.teacher == "none" and read_of_a_teacher(self.distill):
            arm = replace(arm, teacher="trained")
        return replace(arm, augmented=arm.augmented or self.feature_augmentation.content != "none")

    @property
    def start(self) -> ExperimentConfig:
        """The settings that it started from."""
        usual = start_config(self.preset, self.task)
        without = start_config(self.preset, self.task, unlabelled=False)
        batch = (self.distill.batch_size, self.distill.unlabelled_batch)
        return without if batch == (without.distill.batch_size, 0) else usual

    def changes(self) -> dict[str, object]:
        """The knobs that are not as in the preset, the budget and the seed left out."""
        return {
            name: value
            for mine, usual in zip(self.configs, method_of(self.start), strict=True)
            for name, (value, _) in differences(mine, usual).items()
            if name not in BUDGET
        }

    def experiment(self, world: ExperimentConfig) -> ExperimentConfig:
        """All settings: the try's own, and for the rest those of a world."""
        config = replace(world, data=world.data.replace(per_class=self.labels_per_class))
        if self.arm.teacher == "none":
            config = replace(config, teacher=config.teacher.replace(name=NO_TEACHER))
        found, augment, training = self.configs
        return replace(config, discover=found, feature_augmentation=augment, distill=training)

    def code(self) -> str:
        """Python that makes the same settings and, where there is a ``world``, repeats the try."""
        arm, shipped = self.arm, arm_of(self.preset)
        differ = [name for name in ("teacher", "augmented") if getattr(arm, name) != getattr(shipped, name)]
        changed = "".join(f", {name}={getattr(arm, name)!r}" for name in differ)
        teacher = f", teacher={NO_TEACHER!r}" if self.preset == "plain" else ""
        start = task_settings(self.task, preset="paper" if self.preset == "paper" else "best",
                              teacher=NO_TEACHER if teacher else "farmyard")  # fmt: skip
        settings = f"task_settings({self.task!r}, preset={'paper' if self.preset == 'paper' else 'best'!r}{teacher})"
        given = changes_of(method_of(start), self.configs)
        lines = [
            *(["from dataclasses import replace", ""] if changed else []),
            "from prockd.runs import arm_world, find_bank, task_settings, train_arm",
            "from prockd.runs.arms import ARMS",
            "from prockd.settings import set_values",
            "",
            f"arm = {f'replace(ARMS[{shipped.name!r}]{changed})' if changed else f'ARMS[{shipped.name!r}]'}",
            f"config = {settings}",
            *(["config = set_values(config, [", *(f"    {one!r}," for one in given), "])"] if given else []),
            "own = arm_world(world, arm)",
            "bank = find_bank(own, arm.bank, config.discover) if own.is_taught else None",
            "student, history = train_arm(",
            f'    own.few({self.labels_per_class}), arm, config, bank, on="val", progress=True',
            ")",
            "print(history.scores)",
        ]
        return "\n".join(lines)

    def command(self, world: ExperimentConfig) -> str:
        """The command line that trains the same student and scores it on the test images."""
        if self.preset not in PRESETS:
            return "# with the text under TOML saved as try.toml\nprockd compare -c try.toml --run-dir runs/try"
        mine, preset = self.experiment(world), "paper" if self.preset == "paper" else "best"
        base = task_settings(self.task, preset=preset, teacher=mine.teacher.name)
        base = replace(base, teacher=base.teacher.replace(name=mine.teacher.name))
        given = [
            f"{section}.{name}={in_line(value)}"
            for section, knobs in mine.sections().items() if section != "export"
            for name, (value, _) in differences(knobs, base.sections()[section]).items()
        ]  # fmt: skip
        words = ["prockd", "distill", "--run-dir", "runs/try", "--task", self.task, "--preset", preset]
        words += ["--teacher", mine.teacher.name]
        return " \\\n    ".join([shlex.join(words), *(f"--set {shlex.quote(one)}" for one in given)])

    def toml(self, world: ExperimentConfig) -> str:
        """The file of settings: for ``prockd distill -c``, and of a rival or control for ``prockd compare -c``."""
        mine = self.experiment(world)
        if self.preset in PRESETS:
            return to_toml(mine)
        usual, arm = self.start, arm_of(self.preset)
        base = task_settings(self.task)
        distill = (base if usual.distill.unlabelled_batch else fallback(base)).distill.replace(
            lr=self.distill.lr, steps=max(1, round(self.distill.steps / arm.longer))
        )
        base = replace(mine, teacher=world.teacher, discover=base.discover, distill=distill,
                       feature_augmentation=base.feature_augmentation)  # fmt: skip
        name = f"{self.preset}, tried"
        own: dict[str, object] = {"like": self.preset, "teacher": self.arm.teacher, "augmented": self.arm.augmented}
        for section, before, after in zip(METHOD, method_of(arm.settings(base)), self.configs, strict=True):
            own |= {f"{section}.{knob}": value for knob, (value, _) in differences(after, before).items()}
        own.pop("distill.seed", None)  # a contest draws its own
        contest = {"arms": [name], "seeds": 1, "rates": [], "weights": [], "references": False, "on": "val"}
        return f"{to_toml(base)}\n{tomlkit.dumps({'compare': contest, 'arms': {name: own}})}"


def changes_of(before: Configs, after: Configs) -> list[str]:
    """What :func:`prockd.settings.set_values` takes to make the second of the first."""
    return [
        f"{section}.{name}={in_line(value)}"
        for section, old, new in zip(METHOD, before, after, strict=True)
        for name, (value, _) in differences(new, old).items()
    ]
