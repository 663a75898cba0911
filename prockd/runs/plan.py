"""What a contest consists of: its arms, its runs, and which settings each arm tries on validation images."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from prockd.runs.arms import Arm, chosen_arms
from prockd.runs.recipes import task_settings
from prockd.settings.compare import CompareConfig
from prockd.settings.experiment import ExperimentConfig
from prockd.settings.knobs import ConfigError, as_tuples
from prockd.settings.method import DistillConfig
from prockd.settings.toml import changed, read_tables, set_knobs, set_values

TUNE_SEED = 1000
"""The first seed of tuning: those of the last numbers count from 0, and never meet it."""

PATHS = {"data": ("path", "test", "unlabelled"), "teacher": ("name", "weights"), "student": ("weights",)}
"""Settings that may begin with a variable of the environment, such as ``$PROCKD_REAL_DATA/raccoon``."""


@dataclass(frozen=True)
class Job:
    """One run: an arm, a seed and what is tuned.

    Attributes:
        kind: "tune", scored on validation images, "told", or "reference": what needs no student, all of a seed.
        arm: its name.
        seed: of the start, the order, the crops, and of which images are labelled.
        lr: peak learning rate.
        weight: of the arm's own term; None where it has none.
    """

    kind: str
    arm: str
    seed: int
    lr: float
    weight: float | None = None

    @property
    def key(self) -> str:
        """The same for the same run, in every process."""
        weight = "" if self.weight is None else f" weight {self.weight:.6g}"
        return f"{self.kind} {self.arm} seed {self.seed} lr {self.lr:.6g}{weight}"


@dataclass(frozen=True)
class Plan:
    """A whole contest.

    Attributes:
        config: settings that all arms share.
        compare: the contest's own.
        arms: by name, in the order of the table.
    """

    config: ExperimentConfig
    compare: CompareConfig
    arms: Mapping[str, Arm]

    def settings(self, job: Job) -> ExperimentConfig:
        """Those of one run."""
        arm = self.arms[job.arm]
        config = arm.settings(self.config)
        distill = config.distill.replace(lr=job.lr, seed=job.seed)
        if job.weight is not None:
            distill = distill.replace(**{arm.weight.partition(".")[2]: job.weight})
        return replace(config, distill=distill)

    def weight(self, arm: str) -> float | None:
        """The usual value of the weight that an arm tunes; None where it has none."""
        section, _, name = self.arms[arm].weight.partition(".")
        value = getattr(self.arms[arm].settings(self.config).sections()[section], name) if name else 0.0
        return float(value) or None

    @property
    def budget(self) -> int:
        """Tuning runs of every arm."""
        compare = self.compare
        settings = len(compare.rates) + len(compare.weights)
        return settings * compare.tune_seeds if settings > 1 else 0

    def first_jobs(self, arm: str) -> list[Job]:
        """Tuning, first round: each learning rate."""
        rates, weight = self.compare.rates or (self.config.distill.lr,), self.weight(arm)
        return [Job("tune", arm, TUNE_SEED + s, lr, weight) for lr in rates for s in range(self.compare.tune_seeds)]

    def second_jobs(self, arm: str, best: float) -> list[Job]:
        """Tuning, second round: as many more settings for every arm, of its weight or else of its learning rate."""
        weight, factors = self.weight(arm), self.compare.weights
        more = [(best, v) for v in weights_near(self.arms[arm], weight, factors)] if weight else [
            (lr, None) for lr in rates_near(best, self.compare.rates or (best,), len(factors))
        ]  # fmt: skip
        return [Job("tune", arm, TUNE_SEED + s, *one) for one in more for s in range(self.compare.tune_seeds)]

    def pending(self, rows: Sequence[Mapping[str, Any]]) -> tuple[list[Job], bool]:
        """Runs that can begin, in the order in which they should, and whether others follow from them.

        Tuning comes first; the last numbers go seed by seed, so that an early stop leaves whole seeds.
        """
        scores = {row["job"]: row.get("z", 0.0) for row in rows}
        tuning: list[Job] = []
        told: list[Job] = []
        for arm in self.arms:
            jobs = self.tuning_of(arm, scores)
            if missing := [job for job in jobs if job.key not in scores]:
                tuning += missing
            else:
                lr, weight = self.best(arm, scores)
                told += [Job("told", arm, seed, lr, weight) for seed in range(self.compare.seeds)]
        if self.compare.references:
            told += [Job("reference", "no student", seed, 0.0) for seed in range(self.compare.seeds)]
        left = sorted((job for job in told if job.key not in scores), key=lambda job: job.seed)
        return sorted(tuning, key=lambda job: job.seed) + left, bool(tuning)

    def tuning_of(self, arm: str, scores: Mapping[str, float]) -> list[Job]:
        """The tuning runs of an arm that are known by now: all of the first round, then those of the second too."""
        if not self.budget:
            return []
        first = self.first_jobs(arm)
        if any(job.key not in scores for job in first):
            return first
        return first + self.second_jobs(arm, best_of(first, scores)[0])

    def best(self, arm: str, scores: Mapping[str, float]) -> tuple[float, float | None]:
        """The learning rate and the weight that are best on validation images."""
        if not self.budget:
            return (*self.compare.rates, self.config.distill.lr)[0], self.weight(arm)
        return best_of(self.tuning_of(arm, scores), scores)

    def facts(self) -> dict[str, Any]:
        """All that decides what the lines of a folder mean, by name; seeds and arms may be added later."""
        shared = {
            f"{section}.{name}": value
            for section, knobs in self.config.sections().items() if section != "export"
            for name, value in vars(knobs).items()
        }  # fmt: skip
        shared |= {f"compare.{k}": v for k, v in asdict(self.compare).items() if k not in ("arms", "seeds")}
        words = ("told", "group", "paper")
        arms = {f"arm {n}": {k: v for k, v in asdict(a).items() if k not in words} for n, a in self.arms.items()}
        return dict(json.loads(json.dumps(shared | arms)))


def best_of(jobs: Sequence[Job], scores: Mapping[str, float]) -> tuple[float, float | None]:
    """The setting whose mean score over the tuning seeds is best; of equals the one that was tried first."""
    found: dict[tuple[float, float | None], list[float]] = {}
    for job in jobs:
        found.setdefault((job.lr, job.weight), []).append(scores[job.key])
    return max(found, key=lambda setting: float(np.mean(found[setting])))


def weights_near(arm: Arm, weight: float, factors: Sequence[float]) -> list[float]:
    """Other values of an arm's weight, inside the range of its knob."""
    name = arm.weight.partition(".")[2]
    high = next(f.metadata["high"] for f in DistillConfig.__dataclass_fields__.values() if f.name == name)
    return [float(f"{min(high, weight * factor):.4g}") for factor in factors]


def rates_near(best: float, rates: Sequence[float], count: int) -> list[float]:
    """More learning rates: beyond the best one if it is at the end of the grid, else between it and its neighbours."""
    grid = sorted(rates)
    step = (grid[-1] / grid[0]) ** (1 / (len(grid) - 1)) if len(grid) > 1 else 2.0
    if len(grid) > 1 and best in (grid[0], grid[-1]):
        more = [best * (step if best == grid[-1] else 1 / step) ** n for n in range(1, count + 1)]
    else:
        more = [best * step ** ((-1) ** n / (2 + n // 2)) for n in range(count)]
    return [float(f"{min(rate, 10.0):.4g}") for rate in more]


def read_plan(path: str | Path, changes: Sequence[str] = (), *, only: Sequence[str] = ()) -> Plan:
    """The contest of a TOML file: the usual sections, ``[compare]``, and a table ``[arms.NAME]`` for each own arm.

    What the file does not set is what is best for its task; texts such as ``data.path`` may begin with a variable of
    the environment.

    Args:
        path: the file.
        changes: ``section.name=value``, as of ``--set``.
        only: names of arms, in place of the file's.

    Raises:
        ConfigError: as :func:`prockd.settings.read_config`, or an arm that is not there.
    """
    tables = read_tables(path)
    own, contest = tables.pop("arms", {}), tables.pop("compare", {})
    for section, names in PATHS.items():
        for name in names:
            if isinstance(text := tables.get(section, {}).get(name), str) and text.startswith("$"):
                tables[section][name] = expanded(text, f"{path}: {section}.{name}")
    mine = [change.removeprefix("compare.") for change in changes if change.startswith("compare.")]
    others = [change for change in changes if not change.startswith("compare.")]

    def apply(base: ExperimentConfig) -> ExperimentConfig:
        return set_values(changed(base, tables, str(path)), others)

    asked = apply(ExperimentConfig())
    config = apply(task_settings(asked.task.kind, teacher=asked.teacher.name))
    if unknown := [name for name, table in own.items() if not isinstance(table, Mapping)]:
        raise ConfigError(f"{path}: arms.{unknown[0]} is an arm: write [arms.{unknown[0]}] above its settings")
    try:
        compare = set_knobs(CompareConfig().replace(**as_tuples(contest)), mine)
        if only:
            compare = compare.replace(arms=tuple(only))
        return Plan(config, compare, chosen_arms(compare.arms, own, config))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def quick_changes(plan: Plan) -> list[str]:
    """A small measurement of the same arms: two seeds, a third of the steps, no tuning."""
    steps = max(1, plan.config.distill.steps // 3)
    return ["compare.seeds=2", "compare.rates=[]", "compare.weights=[]", f"distill.steps={steps}"]


def expanded(text: str, where: str) -> str:
    """A path with its variable of the environment; ConfigError where it is not set."""
    full = os.path.expandvars(text)
    if full.startswith("$"):
        variable = text.partition("/")[0]
        raise ConfigError(f"{where} = {text!r}: {variable} is not set: it names the folder where the images lie")
    return full
