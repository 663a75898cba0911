"""Every knob, once: frozen dataclasses of plain values, written to and read from TOML and shown in the panel.

Modules never take a config object; only :mod:`prockd.distill`, :mod:`prockd.discovery` and
:mod:`prockd.pipeline` unpack them. A knob's metadata holds its unit, its range and a sentence, so that widgets,
``--help`` and error messages say the same thing.
"""

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

K = TypeVar("K", bound="Knobs")


class ConfigError(ValueError):
    """A knob got a value outside its range, or does not exist."""


def knob(default: Any, low: float | int | None, high: float | int | None, about: str, unit: str = "") -> Any:
    """A dataclass field that knows its range, unit and meaning."""
    return field(default=default, metadata={"low": low, "high": high, "about": about, "unit": unit})


def choice(default: str, options: tuple[str, ...], about: str) -> Any:
    """A dataclass field that is one of a few words."""
    return field(default=default, metadata={"options": options, "about": about})


def said(default: Any, about: str) -> Any:
    """A dataclass field of text, or of True and False."""
    return field(default=default, metadata={"about": about})


def listed(of: type, about: str) -> Any:
    """A dataclass field that is a list of numbers, empty by default."""
    return field(default=(), metadata={"about": about, "of": of})


def table(about: str) -> Any:
    """A dataclass field of names and values, empty by default."""
    return field(default_factory=dict, metadata={"about": about, "table": True})


def as_tuples(value: Any) -> Any:
    """Lists as tuples, so that what is read from a file equals what is typed."""
    if isinstance(value, Mapping):
        return {k: as_tuples(v) for k, v in value.items()}
    return tuple(as_tuples(v) for v in value) if isinstance(value, list | tuple) else value


def checked(owner: str, f: "dataclasses.Field[Any]", value: Any) -> Any:
    """The value of a knob in its own type: a panel or a TOML file may well say ``lr = 1``, or a list for a tuple.

    Raises:
        ConfigError: another type, or a value out of range.
    """
    meta, where = f.metadata, f"{owner}.{f.name} = {value!r}"
    if "options" in meta and value not in meta["options"]:
        raise ConfigError(f"{where}: choose one of {', '.join(map(repr, meta['options']))}")
    if isinstance(f.default, bool) and not isinstance(value, bool):
        raise ConfigError(f"{where}: must be True or False")
    if isinstance(f.default, str) and not isinstance(value, str):
        raise ConfigError(f"{where}: must be text")
    if "table" in meta:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: must be a table of names and values")
        return as_tuples(value)
    if "of" in meta:
        items = value if isinstance(value, tuple | list) else [None]
        if not all(is_number(v, whole=meta["of"] is int) for v in items):
            raise ConfigError(f"{where}: must be a list of {'whole ' if meta['of'] is int else ''}numbers")
        return tuple(meta["of"](v) for v in items)
    low, high = meta.get("low"), meta.get("high")
    if low is None and high is None:
        return value
    whole = isinstance(f.default, int)
    if not is_number(value, whole=whole):
        raise ConfigError(f"{where}: must be a {'whole ' if whole else ''}number")
    if not ((low is None or value >= low) and (high is None or value <= high)):
        raise ConfigError(f"{where}: must lie in {low}..{'' if high is None else high} {meta['unit']}".rstrip())
    return value if whole else float(value)


def is_number(value: Any, *, whole: bool) -> bool:
    """Whether it is a number, and no True or False."""
    return not isinstance(value, bool) and isinstance(value, int if whole else int | float)


class Knobs:
    """Checks every field against its metadata on construction; ``replace`` gives a changed copy."""

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):  # type: ignore[arg-type]
            object.__setattr__(self, f.name, checked(type(self).__name__, f, getattr(self, f.name)))

    def replace(self: K, **changes: Any) -> K:
        """A copy with the named knobs changed.

        Raises:
            ConfigError: for an unknown name or a value out of range.
        """
        fields = {f.name: f for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        for name in changes:
            if name not in fields:
                near = difflib.get_close_matches(name, fields, n=1)
                meant = f"did you mean {near[0]!r}? It" if near else "it"
                raise ConfigError(f"{type(self).__name__} has no knob {name!r}; {meant} has {', '.join(fields)}")
        changes = {name: checked(type(self).__name__, fields[name], value) for name, value in changes.items()}
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]


@dataclass(frozen=True)
class DiscoverConfig(Knobs):
    """How prototypes are found (METHOD part 1)."""

    num_prototypes: int = knob(48, 1, 4096, "How many prototypes K to learn.")
    embed_dim: int = knob(96, 2, 4096, "Width E of the space that prototypes live in.")
    init: str = choice("kmeans", ("kmeans", "uniform"), "k-means on the teacher's patches, or random (ablation).")
    salient: bool = field(
        default=True,
        metadata={"about": "Weigh patches by how little they look like picture borders, so background gets fewer."},
    )
    sharpness: float = knob(8.0, 0.1, 1000, "Assignment inverse temperature at the start, on unit vectors.")
    steps: int = knob(150, 0, 100_000, "Training steps of the prototype learning module after k-means.", "steps")
    batch_size: int = knob(8, 1, 4096, "Images in a training step.", "images")
    lr: float = knob(3e-3, 0, 1, "AdamW learning rate of the module.")
    max_patches: int = knob(30_000, 1, 10_000_000, "Patches that k-means sees; more are subsampled.", "patches")
    seed: int = knob(0, 0, 2**31 - 1, "Seed of sampling, k-means and training.")


@dataclass(frozen=True)
class AugmentConfig(Knobs):
    """How prototypes are added to the student's features (METHOD part 2)."""

    content: str = choice(
        "prototypes",
        ("prototypes", "descriptor", "mlp", "none"),
        "What is added: attended prototypes, the residual descriptor, an equal-size MLP (control), or nothing.",
    )
    residual: str = choice(
        "gate", ("gate", "relu"), "f + gate * T([e; r]) with the gate starting at 0, or the paper's ReLU."
    )
    conditional: bool = field(
        default=True, metadata={"about": "Learn the task's own scale and shift of each prototype."}
    )
    scaled: bool = field(default=True, metadata={"about": "Divide attention scores by sqrt(E)."})
    detach: bool = field(default=True, metadata={"about": "Stop the augmented loss from reaching the backbone."})


@dataclass(frozen=True)
class DistillConfig(Knobs):
    """How the student is trained (METHOD part 3)."""

    steps: int = knob(900, 1, 10_000_000, "Optimiser steps.", "steps")
    batch_size: int = knob(48, 1, 65_536, "Labelled images in a step, over all processes.", "images")
    unlabelled_batch: int = knob(0, 0, 65_536, "Images added to each step for transfer only, label unseen.", "images")
    label_free_steps: int = knob(0, 0, 10_000_000, "First steps that use transfer alone, on all images.", "steps")
    lr: float = knob(4e-3, 0, 10, "Peak AdamW learning rate; warms up, then falls by a cosine to 0.")
    weight_decay: float = knob(0.05, 0, 10, "AdamW weight decay.")
    warmup: float = knob(0.05, 0, 1, "Part of the steps over which the learning rate rises.")
    min_crop: float = knob(0.5, 0.05, 1, "Smallest part of the image's area that a random crop keeps.")
    flip: bool = field(default=True, metadata={"about": "Mirror half of the images."})
    recoloured: float = knob(0.0, 0, 1, "Share of the images that the student sees in other colours.")
    label_smoothing: float = knob(0.0, 0, 0.9, "Label smoothing of the task loss.")
    augmented: float = knob(1.0, 0, 100, "w1: task loss on the augmented prediction.")
    teacher_branch: float = knob(
        0.0, 0, 100, "w2: task loss on the teacher's features, augmented if the student's are."
    )
    teacher_reads: str = choice("module", ("module", "patches"), "Teacher branch: g = T([u; v]) (paper), or u itself.")
    consistency: float = knob(0.0, 0, 100, "w3: agreement of plain and augmented predictions.")
    assignment: float = knob(10.0, 0, 100, "w4: prototype-assignment transfer.")
    feature: float = knob(30.0, 0, 100, "w4: cosine between student and teacher patches in the prototype space.")
    hint: float = knob(0.0, 0, 100, "FitNets hint (rival): squared error to the teacher's last map.")
    temperature: float = knob(0.1, 1e-3, 10, "Temperature of the assignments that are transferred.")
    train_bank: bool = field(default=False, metadata={"about": "Let the task losses move the prototypes too."})
    seed: int = knob(0, 0, 2**31 - 1, "Seed of the data order, the crops and the flips.")
    mixed_precision: str = choice("no", ("no", "bf16", "fp16"), "accelerate's mixed precision.")


def paper() -> tuple[DiscoverConfig, AugmentConfig, DistillConfig]:
    """The literal reading of the paper's description: K = 72, uniform start, no transfer term, teacher branch on."""
    return (
        DiscoverConfig(num_prototypes=72, init="uniform", salient=False, steps=0),
        AugmentConfig(content="prototypes", residual="relu", conditional=False, scaled=False, detach=False),
        DistillConfig(augmented=1.0, teacher_branch=0.5, consistency=1.0, assignment=0.0, feature=0.0, train_bank=True),
    )


def best() -> tuple[DiscoverConfig, AugmentConfig, DistillConfig]:
    """What measured best on the validation split of Farmyard (docs: README, results table)."""
    return DiscoverConfig(), AugmentConfig(), DistillConfig()
