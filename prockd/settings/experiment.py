"""Everything that decides a run, section by section, as the command line and its TOML files call it."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prockd.settings.knobs import ConfigError, Knobs, choice, knob, numbers, plain, table
from prockd.settings.method import DiscoverConfig, DistillConfig, FeatureAugmentationConfig, best, paper

FARMYARD = "farmyard"
NO_TEACHER = "none"
SMALL_STUDENT = ("resnet10t", {"channels": (16, 40, 80, 128), "stem_width": 8})
"""A residual network of 0.39 M parameters: timm's name and options."""


def class_names(text: str) -> list[str]:
    """The names of ``data.classes``, which stand between commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


@dataclass(frozen=True)
class TeacherConfig(Knobs):
    """Who teaches (:class:`prockd.Teacher`)."""

    name: str = plain(FARMYARD, "farmyard, a preset (see prockd presets), any timm name, a teacher's file, or none.")
    weights: str = plain("", "Local state dict; empty for none.")
    pretrained: bool = plain(False, "Fetch timm's weights, which needs a network or a filled cache.")
    random: bool = plain(False, "Take random weights where none are given: a teacher that knows nothing.")
    layers: tuple[int, ...] = numbers(int, "Layers that are read; empty for the usual ones.")
    image_px: int = knob(0, 0, 4096, "Side of the square input; 0 for the model's own.", "pixels")
    mean: tuple[float, ...] = numbers(float, "Mean of the input's channels, 0..1; empty for the model's own.")
    std: tuple[float, ...] = numbers(float, "Standard deviation of the same; empty for the model's own.")
    precision: str = choice(
        "auto", ("auto", "fp32", "bf16", "fp16"), "What it computes in; auto is bf16 on a CPU that can, else fp32."
    )
    options: Mapping[str, Any] = table('More for timm.create_model, such as pad_type = "same".')


@dataclass(frozen=True)
class DataConfig(Knobs):
    """What is learned from (:func:`prockd.datasets.open_splits`)."""

    path: str = plain(FARMYARD, "farmyard, or a folder or file of your own images.")
    test: str = plain("", "Images to score on; empty for test or val of the folder, or else a part of it.")
    test_part: float = knob(0.25, 0.01, 0.9, "Part that is set aside for scoring where the folder has none.")
    unlabelled: str = plain(
        "",
        "More images without labels, for discovery and distill.unlabelled_batch; empty for unlabelled/ of the folder.",
    )
    classes: str = plain(
        "", "Class names in label order, commas between them (of masks: from value 0, ignore for what is not scored); "
        "empty for classes.txt of the folder, or what is found.",
    )  # fmt: skip
    group: str = plain("", "Regular expression that finds an image's group (video, farm) in its name; never divided.")
    fit: str = choice("auto", ("auto", "crop", "pad", "stretch"), "How pictures become squares.")
    on_bad: str = choice("refuse", ("refuse", "skip"), "What to do with images that cannot be used.")
    white: int = knob(0, 0, 2**31 - 1, "White of pictures of 16 or 32 bits, 4095 of 12-bit cameras; 0 for their range.")
    exif: bool = plain(True, "Turn pictures as their EXIF says; false where boxes or masks fit them as stored.")
    per_class: int = knob(
        0, 0, 1_000_000, "Labelled images used of each class; 0 for all, on Farmyard for what suits the task.", "images"
    )  # fmt: skip
    val_part: float = knob(0.0, 0, 0.9, "Part of the labelled images that is set aside for tuning where none is.")
    num_discover: int = knob(1500, 1, 1_000_000, "Images to find prototypes on, at most.", "images")
    num_unlabelled: int = knob(1000, 1, 10_000_000, "Unlabelled images, at most.", "images")
    num_val: int = knob(500, 1, 1_000_000, "Images to tune on, at most.", "images")
    num_test: int = knob(1000, 1, 1_000_000, "Images to score on, at most.", "images")
    form: str = choice(
        "framed", ("framed", "varied"), "Farmyard: animals fill the picture, or are of any place and many sizes, bold."
    )  # fmt: skip
    background: str = plain("field", "Farmyard: what is behind the animals of the test images.")
    seed: int = knob(0, 0, 2**31 - 1, "Seed of which images are set aside and which are labelled.")

    @property
    def asked_fit(self) -> str | None:
        """How pictures become squares; None where the task decides."""
        return None if self.fit == "auto" else self.fit

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            re.compile(self.group)
        except re.error as error:
            raise ConfigError(f"data.group = {self.group!r}: is no regular expression ({error})") from error


@dataclass(frozen=True)
class TaskConfig(Knobs):
    """What the student predicts (:mod:`prockd.tasks`)."""

    kind: str = plain(
        "classification", "classification, segmentation, detection, keypoints, or another of prockd.tasks.TASKS."
    )
    balanced: bool = plain(False, "Classification: let rare classes count more.")
    width: int = knob(64, 32, 1024, "Segmentation, detection, key points: channels of the head, a multiple of 32.")
    dice_weight: float = knob(1.0, 0, 100, "Segmentation: weight of the Dice loss beside the cross-entropy.")
    detector: str = choice("fcos", ("fcos", "retinanet", "fasterrcnn"), "Detection: torchvision's detector.")
    dropout: float = knob(0.3, 0, 0.9, "Detection: share of the features' channels left out in a training step.")
    options: Mapping[str, Any] = table("More for a task of your own, by the names of its fields.")


@dataclass(frozen=True)
class StudentConfig(Knobs):
    """Who learns (:class:`prockd.Student`)."""

    backbone: str = plain(SMALL_STUDENT[0], "Any timm name.")
    weights: str = plain("", "Local state dict to start from; empty for random weights.")
    layers: tuple[int, ...] = numbers(int, "Layers that are joined; empty for those that suit the task.")
    grid: int = knob(0, 0, 512, "Rows and columns of patches; 0 for those of the finest layer.", "patches")
    image_px: int = knob(96, 16, 4096, "Side of the square input.", "pixels")
    options: Mapping[str, Any] = table("More for timm.create_model; the small student has its own.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backbone == SMALL_STUDENT[0] and not self.options:
            object.__setattr__(self, "options", dict(SMALL_STUDENT[1]))
        elif self.backbone != SMALL_STUDENT[0] and self.options == SMALL_STUDENT[1]:
            object.__setattr__(self, "options", {})  # another backbone does not inherit them


@dataclass(frozen=True)
class ExportConfig(Knobs):
    """What `prockd export` writes (:mod:`prockd.students.export`)."""

    format: str = choice("timm", ("timm", "torchvision", "onnx"), "timm's names, a torchvision detector, or ONNX.")
    opset: int = knob(18, 18, 23, "ONNX operator set.")


@dataclass(frozen=True)
class ExperimentConfig:
    """All sections of a run, in the order in which data flow."""

    data: DataConfig = field(default_factory=DataConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    student: StudentConfig = field(default_factory=StudentConfig)
    discover: DiscoverConfig = field(default_factory=DiscoverConfig)
    feature_augmentation: FeatureAugmentationConfig = field(default_factory=FeatureAugmentationConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    export: ExportConfig = field(default_factory=ExportConfig)

    @classmethod
    def preset(cls, name: str) -> "ExperimentConfig":
        """``"best"``, what measured best here, or ``"paper"``, the literal reading of the paper.

        Raises:
            ConfigError: there is no such preset.
        """
        if name not in PRESETS:
            raise ConfigError(f"there is no preset {name!r}; there are {', '.join(PRESETS)}")
        discover, augmentation, distill = PRESETS[name]()
        return cls(discover=discover, feature_augmentation=augmentation, distill=distill)

    def sections(self) -> dict[str, Knobs]:
        """Each section by its name."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}


PRESETS = {"best": best, "paper": paper}
"""Known-good settings of discovery, augmentation and training, by name."""
