"""Options that several commands share, and the settings of an experiment that they make."""

import json
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from prockd.settings.experiment import NO_TEACHER, PRESETS, ExperimentConfig
from prockd.settings.knobs import ConfigError
from prockd.settings.toml import read_config, set_values

KNOBS = {
    "data": "data.path", "task": "task.kind", "teacher": "teacher.name", "teacher_weights": "teacher.weights",
    "num_prototypes": "discover.num_prototypes", "student": "student.backbone", "student_weights": "student.weights",
    "steps": "distill.steps", "seed": "distill.seed", "random_teacher": "teacher.random",
    "mixed_precision": "distill.mixed_precision",
}  # fmt: skip
"""Options that are the short names of settings."""

Data = Annotated[str | None, Option(help="A folder or file of your own images; Farmyard if not given.")]
TaskKind = Annotated[
    str | None, Option(help="classification (if not given), segmentation, detection, keypoints or your own.")
]
TeacherName = Annotated[
    str | None, Option(help="farmyard (if not given), one of prockd presets, any timm name, a file.")
]
TeacherWeights = Annotated[Path | None, Option(help="Local weights of the teacher: safetensors or .pth.")]
RandomTeacher = Annotated[
    bool | None, Option("--random-teacher", help="Random weights, where the teacher has none: it knows nothing.")
]
Config = Annotated[Path | None, Option("--config", "-c", help="TOML file of settings.", rich_help_panel="Settings")]
Preset = Annotated[str, Option(help=f"Settings to begin with: {', '.join(PRESETS)}.", rich_help_panel="Settings")]
Set = Annotated[
    list[str] | None,
    Option("--set", "-s", metavar="SECTION.NAME=VALUE", help="Change one setting; may be repeated.",
           rich_help_panel="Settings"),
]  # fmt: skip
RunDir = Annotated[Path, Argument(help="Folder of a finished run.")]
Overwrite = Annotated[bool, Option("--overwrite", help="Replace what is there.")]
Cpu = Annotated[bool, Option("--cpu", help="Stay on the CPU.")]
Quiet = Annotated[bool, Option("--quiet", "-q", help="No progress bars.")]


def read_settings(config: Path | None, preset: str, changes: list[str] | None, **options: object) -> ExperimentConfig:
    """Preset, then file, then ``--set``, then those of the options in ``KNOBS`` that are not None."""
    from prockd.runs.recipes import task_settings

    def apply(base: ExperimentConfig) -> ExperimentConfig:
        return set_values(read_config(config, base=base) if config else base, changes_of(changes, **options))

    asked = apply(ExperimentConfig.preset(preset))  # which task and teacher it is for decides what it begins with
    return apply(task_settings(asked.task.kind, preset=preset, teacher=asked.teacher.name))


def changes_of(changes: list[str] | None, **options: object) -> list[str]:
    """What ``--set`` and those of the options in ``KNOBS`` that are not None change."""
    given = {KNOBS[name]: value for name, value in options.items() if value is not None}
    return [*(changes or ()), *(f"{k}={json.dumps(v, default=str, ensure_ascii=False)}" for k, v in given.items())]


def taught(config: ExperimentConfig) -> ExperimentConfig:
    """Refuse to go on without a teacher, before any image is read."""
    if config.teacher.name == NO_TEACHER:
        raise ConfigError(f"teacher.name = {NO_TEACHER}: there is nothing to extract or to find prototypes in")
    return config
