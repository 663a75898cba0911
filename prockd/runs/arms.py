"""The arms of a contest: ways to train a student, by name; an own one is a table ``[arms.NAME]`` of the config file."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from prockd.settings.experiment import NO_TEACHER, ExperimentConfig
from prockd.settings.knobs import ConfigError
from prockd.settings.method import DistillConfig
from prockd.settings.toml import changed
from prockd.training.inputs import term_weights

ALONE, OURS = "labels alone", "ours"
"""Every difference is taken to these two."""

GROUPS = ("baseline", "rival", "control", "ours", "own")
TEACHERS = ("trained", "random", "none")
BANKS = ("prototypes", "random patches", "random vectors", "none")
FIXED = ("data", "task", "teacher", "export")
"""Sections that no arm may change: all arms see the same images, and learn the same of them."""


@dataclass(frozen=True)
class Arm:
    """One way to train a student; what it does not say is as in the config file, so that "ours" says nothing.

    Attributes:
        name: as in tables.
        told: what it is, in one sentence.
        group: one of ``GROUPS``.
        paper: where it comes from.
        terms: terms of the loss that read a teacher and stay, by the names of their knobs without ``_weight``; the
            others become 0. None keeps them all.
        changes: knobs by ``section.name``, after that.
        teacher: "trained", "random" (the same network, its weights drawn anew) or "none".
        bank: "prototypes", "random patches" (real ones of the teacher in the prototypes' place), "random vectors" or
            "none".
        augmented: whether z+ is trained or fitted too.
        weight: the knob that is tuned beside the learning rate; without one more learning rates are tried.
        longer: its steps in units of the others'.
        pseudo: labels alone for half of the steps, then the rest on labelled images and on unlabelled ones with the
            labels that it gave them (Lee 2013), half of each batch each: the same steps and images in all.
        is_teacher: the student is the teacher's own network and begins with its weights.
    """

    name: str
    told: str
    group: str = "own"
    paper: str = ""
    terms: tuple[str, ...] | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    teacher: str = "trained"
    bank: str = "prototypes"
    augmented: bool = False
    weight: str = ""
    longer: float = 1.0
    pseudo: bool = False
    is_teacher: bool = False

    def settings(self, base: ExperimentConfig) -> ExperimentConfig:
        """The file's settings with the arm's changes; each step has as many images as the file says, in all.

        Raises:
            ConfigError: a knob that is not there or may not differ, or a teacher's term without a teacher.
        """
        where, distill = f"arm {self.name!r}", base.distill
        if self.terms is not None:
            off: dict[str, Any] = {f"{term}_weight": 0.0 for term in teacher_terms() if term not in self.terms}
            distill = distill.replace(**off, **({"rival": "none"} if hasattr(distill, "rival") else {}))
        tables: dict[str, dict[str, Any]] = {}
        for key, value in self.changes.items():
            section, _, name = key.partition(".")
            if section in FIXED:
                raise ConfigError(f"{where}: {key} is the same for all arms; set it for all, in another --run-dir")
            tables.setdefault(section, {})[name] = value
        if self.teacher == "none":
            tables.setdefault("distill", {}).update(unlabelled_batch=0, label_free_steps=0)
        config = changed(replace(base, distill=distill), tables, where, merge=True)
        distill = config.distill
        if "batch_size" not in tables.get("distill", {}):
            images = base.distill.batch_size + base.distill.unlabelled_batch
            distill = distill.replace(batch_size=max(1, images - distill.unlabelled_batch))
        distill = distill.replace(steps=max(1, round(distill.steps * self.longer)))
        if self.teacher == "none" and (read := read_of_a_teacher(distill)):
            names = ", ".join(f"distill.{term}_weight" for term in read)
            raise ConfigError(
                f"{where} has teacher = 'none', and {names} above 0 needs one: set terms = [], or another teacher"
            )
        return replace(config, distill=distill)


def teacher_terms() -> list[str]:
    """Terms of the loss that read a teacher, by the names of their knobs without ``_weight``."""
    own = ("augmented", "consistency")
    names = [f.name.removesuffix("_weight") for f in fields(DistillConfig) if f.name.endswith("_weight")]
    return [name for name in names if name not in own]


def read_of_a_teacher(config: DistillConfig) -> list[str]:
    """Those that a run has: the weight of a rival counts where there is one."""
    weights = term_weights(config)
    return [name for name in teacher_terms() if weights[name] > 0]


def bare(name: str, told: str, group: str, **options: Any) -> Arm:
    """An arm without any term that reads a teacher, but for those it names."""
    return Arm(name, told, group, **{"terms": ()} | options)


def rival(name: str, told: str, paper: str, word: str, **changes: Any) -> Arm:
    """A term of another method in place of ours, its weight tuned; ``word`` is its ``distill.rival``."""
    knobs = {"distill.rival": word, "distill.rival_weight": 10.0} | {f"distill.{k}": v for k, v in changes.items()}
    return bare(name, told, "rival", paper=paper, changes=knobs, weight="distill.rival_weight")


def variant(name: str, told: str, **options: Any) -> Arm:
    """A control: ours, but for what it names."""
    usual: dict[str, Any] = {"augmented": True, "weight": "distill.feature_weight"}
    return Arm(name, told, "control", **usual | options)


SHIPPED = (
    bare(ALONE, "The labelled images and nothing else.", "baseline", teacher="none"),
    bare("longer labels alone", "Labels alone for twice the steps.", "baseline", teacher="none", longer=2.0),
    bare(
        "pseudo-labels", "Labels alone, then its own answers as labels of the unlabelled images; no teacher.",
        "baseline", paper="Lee 2013, Pseudo-Label", teacher="none", pseudo=True,
    ),
    bare(
        "fine-tuned teacher", "The teacher's own network and weights as the student: what anyone tries first.",
        "baseline", teacher="none", is_teacher=True,
    ),
    bare(
        "hint", "Squared error to the teacher's last map.", "rival", paper="FitNets, arXiv 1412.6550",
        changes={"distill.hint_weight": 3.0}, weight="distill.hint_weight",
    ),
    rival("MSE", "Squared error of projected patches.", "FitNets, arXiv 1412.6550, at the patches", "mse"),
    rival("cosine", "Cosine of projected patches to the teacher's own.", "common practice", "cosine"),
    rival("cosine, standardised", "The same, each of the teacher's values at one scale.", "common practice", "cosine",
          standardise="mean_std"),
    rival("cosine, PHI-S", "The same, the teacher's values rotated to one scale.", "PHI-S, arXiv 2410.01680", "cosine",
          standardise="phi_s"),
    rival("VkD", "Squared error under an orthogonal projector.", "VkD, arXiv 2403.06213", "orthogonal"),
    rival("inverted projection", "The teacher's patches projected to the student's.", "arXiv 2403.14494", "inverted"),
    rival("attention transfer", "Where patches are strong.", "AT, arXiv 1612.03928", "at"),
    rival("SP", "Similarity of the images of a batch.", "arXiv 1907.09682", "sp"),
    rival("PKT", "The same as probabilities.", "arXiv 1803.10837", "pkt"),
    rival("RKD", "Distances and angles between images.", "arXiv 1904.05068", "rkd"),
    rival("intra-image relational", "Similarity of the patches of an image.", "lightly-train, local term",
          "intra_image"),
    rival("queue", "Similarity to a queue of past teacher embeddings.", "lightly-train, global term", "queue"),
    bare(
        "probed-teacher KD", "Soft targets of what is read of the teacher's patches, and no patches.", "rival",
        paper="Hinton et al., arXiv 1503.02531, on a probe", terms=("soft",), changes={"distill.soft_weight": 3.0},
        weight="distill.soft_weight",
    ),
    bare(
        "assignment alone", "Prototype assignments and nothing else.", "control",
        changes={"distill.assignment_weight": 10.0}, weight="distill.assignment_weight",
    ),
    bare("cosine of patches alone", "The patches' cosine in the prototypes' space alone.", "control",
         terms=("feature",), weight="distill.feature_weight"),
    variant("no unlabelled images", "Ours on the labelled images alone.", changes={"distill.unlabelled_batch": 0}),
    variant("random teacher", "Ours by a teacher of random weights.", teacher="random"),
    variant("random patches", "Ours with random patches of the teacher in the prototypes' place.",
            bank="random patches"),
    variant("random vectors", "Ours with random vectors in the prototypes' place.", bank="random vectors"),
    variant("attention", "Ours, augmented by attended prototypes.",
            changes={"feature_augmentation.content": "attention"}),
    variant("equal-size MLP", "Ours, augmented by an MLP that knows no prototype.",
            changes={"feature_augmentation.content": "mlp"}),
    variant("gradient share", "Ours, the weight of the teacher's terms by rule: half of the gradient.",
            changes={"distill.gradient_share": 0.5}, weight=""),
    Arm(OURS, "The settings of the file, all on.", "ours", augmented=True, weight="distill.feature_weight"),
)  # fmt: skip

ARMS: Mapping[str, Arm] = {arm.name: arm for arm in SHIPPED}
"""The arms that ship, by name."""


def own_arm(name: str, table: Mapping[str, Any]) -> Arm:
    """An arm of the config file: fields of :class:`Arm` and knobs, on top of the arm that it is ``like`` ("ours").

    Raises:
        ConfigError: a key or value that no arm has.
    """
    keys = dict(table)
    start = keys.pop("like", OURS)
    if start not in ARMS:
        raise ConfigError(f"[arms.{name}] like = {start!r}: there are {', '.join(ARMS)}")
    options: dict[str, Any] = {"told": f"{start}, changed", "group": "own"}
    changes = dict(ARMS[start].changes)
    allowed = {f.name for f in fields(Arm)} - {"name", "changes"}
    for key, value in keys.items():
        if key in allowed:
            options[key] = checked(name, key, value)
        elif isinstance(value, Mapping):
            changes |= {f"{key}.{knob}": v for knob, v in value.items()}
        elif "." in key:
            changes[key] = value
        else:
            raise ConfigError(f"[arms.{name}] has no {key}; it has like, {', '.join(sorted(allowed))} and section.knob")
    return replace(ARMS[start], name=name, changes=changes, **options)


def checked(name: str, key: str, value: Any) -> Any:
    """A field of an own arm in its own type."""
    where, usual = f"[arms.{name}] {key} = {value!r}", getattr(ARMS[OURS], key)
    if key == "bank" and isinstance(value, bool):
        return "prototypes" if value else "none"
    if words := {"teacher": TEACHERS, "bank": BANKS, "group": GROUPS}.get(key):
        if value not in words:
            raise ConfigError(f"{where}: choose one of {', '.join(map(repr, words))}")
        return value
    if key == "terms":
        if not isinstance(value, list) or (unknown := set(value).difference(teacher_terms())):
            there = ", ".join(teacher_terms())
            raise ConfigError(f"{where}: must be a list of {there}" + (f", not {unknown}" if value else ""))
        return tuple(value)
    if key == "longer":
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 100:
            raise ConfigError(f"{where}: must be a number in 0..100")
        return float(value)
    if not isinstance(value, type(usual)):
        raise ConfigError(f"{where}: must be {'true or false' if isinstance(usual, bool) else 'text'}")
    return value


def chosen_arms(names: tuple[str, ...], own: Mapping[str, Any], base: ExperimentConfig) -> dict[str, Arm]:
    """The arms of these names with their settings proven; own ones first, then those that ship.

    Raises:
        ConfigError: an arm that is not there (names those that are), or settings that it may not have.
    """
    known = {**ARMS, **{name: own_arm(name, table) for name, table in own.items()}}
    chosen = {}
    for name in names:
        if name not in known:
            near = "".join(f" Did you mean {n!r}?" for n in difflib.get_close_matches(name, known, n=1))
            raise ConfigError(f"there is no arm {name!r}.{near} There are {', '.join(known)}")
        arm = known[name]
        arm.settings(base)
        if base.teacher.name == NO_TEACHER and (arm.teacher != "none" or arm.is_teacher):
            raise ConfigError(f"arm {name!r} learns from a teacher, and teacher.name = {NO_TEACHER!r}")
        chosen[name] = arm
    return chosen
