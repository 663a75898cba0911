"""What a contest says, all from the lines of its runs: who is above whom, by paired differences, in rows and words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prockd.evaluation.intervals import paired_interval
from prockd.runs.arms import ALONE, OURS, Arm

Lines = Mapping[int, Mapping[str, Any]]
"""The last numbers of an arm by seed."""


@dataclass(frozen=True)
class Difference:
    """Paired by seed: mean and 95 % interval (Student's t), None where there are fewer than two pairs."""

    mean: float
    low: float | None = None
    high: float | None = None

    @property
    def sign(self) -> int:
        """1 clear of zero above it, -1 below, 0 not told apart, as differences that happen to be all alike are."""
        if self.low is None or self.high is None or self.high - self.low < 1e-9:
            return 0
        return int(self.low > 0) - int(self.high < 0)

    def __str__(self) -> str:
        interval = "" if self.low is None else f" [{self.low:+.3f}, {self.high:+.3f}]"
        return f"{self.mean:+.3f}{interval}"


def difference(first: Lines, key: str, second: Lines, other: str) -> Difference | None:
    """One number of the first arm minus one of the second, seed by seed; None where they share no seed."""
    pairs = [(first[s][key], second[s][other]) for s in sorted(set(first) & set(second))]
    values = [a - b for a, b in pairs if a is not None and b is not None]
    if not values:
        return None
    return Difference(*paired_interval(values)) if len(values) > 1 else Difference(float(values[0]))


@dataclass(frozen=True)
class Contest:
    """The lines of a contest, by arm and seed.

    Args:
        arms: by name, in the order of the table.
        rows: lines of ``runs.jsonl``.
        budget: tuning runs that each arm had.
    """

    arms: Mapping[str, Arm]
    rows: Sequence[Mapping[str, Any]]
    budget: int = 0

    def told(self, arm: str) -> dict[int, Mapping[str, Any]]:
        """The last numbers of an arm by seed."""
        return {row["seed"]: row for row in self.rows if row["kind"] == "told" and row["arm"] == arm}

    @property
    def there(self) -> list[str]:
        """Arms of which there is a run."""
        return [name for name in self.arms if self.told(name)]

    @property
    def metric(self) -> str:
        """What is measured, in words."""
        return str(next(iter(self.told(self.there[0]).values()))["metric"])

    def best_key(self, arm: str) -> str:
        """What an arm is judged by: z+ where it has one."""
        return "z_plus" if all(row["z_plus"] is not None for row in self.told(arm).values()) else "z"

    def versus(self, arm: str, key: str, other: str, other_key: str) -> Difference | None:
        """A number of an arm minus one of another; None for itself, or where one is missing."""
        if (arm, key) == (other, other_key):
            return None
        return difference(self.told(arm), key, self.told(other), other_key)

    def above_ours(self) -> list[tuple[str, str, Difference]]:
        """Arms of which a number is clearly above the same number of ours, with its name: "z" or "z⁺".

        An arm without z⁺ is judged by its z there too.
        """
        found: list[tuple[str, str, Difference]] = []
        for arm in self.there:
            for own, ours in (("z", "z"), (self.best_key(arm), self.best_key(OURS))):
                told = None if arm == OURS else self.versus(arm, own, OURS, ours)
                if (
                    told is not None
                    and told.sign > 0
                    and (ours == "z_plus" or (arm, "z") not in [f[:2] for f in found])
                ):
                    found.append((arm, {"z": "z", "z_plus": "z⁺"}[ours], told))
        return found

    def table(self) -> list[dict[str, object]]:
        """One row an arm: scores, paired differences, what was tuned, and what it costs."""
        marked = {arm for arm, _, _ in self.above_ours()}
        return self.reference_rows() + [self.row(arm, marked=arm in marked) for arm in self.there]

    def references(self) -> dict[str, dict[int, Mapping[str, Any]]]:
        """What needs no student, by name and seed."""
        found: dict[str, dict[int, Mapping[str, Any]]] = {}
        for row in self.rows:
            for one in row["rows"] if row["kind"] == "reference" else ():
                found.setdefault(one["arm"], {})[row["seed"]] = one
        return found

    def reference_rows(self) -> list[dict[str, object]]:
        """One row a trivial answer and a reading of the teacher."""
        rows: list[dict[str, object]] = []
        for name, runs in self.references().items():
            first, against = next(iter(runs.values())), difference(runs, "z", self.told(ALONE), "z")
            values = {"z": float(np.mean([run["z"] for run in runs.values()]))}
            told = None if against is None else str(against)
            rows.append({"arm": name, "group": first["group"], "seeds": len(runs), **values, "z − labels alone": told})
        return rows

    def row(self, arm: str, *, marked: bool = False) -> dict[str, object]:
        """The row of one arm; ``marked`` is clearly above ours."""
        runs = list(self.told(arm).values())
        first, has_plus = runs[0], self.best_key(arm) == "z_plus"

        def mean(key: str) -> float | None:
            values = [run[key] for run in runs if run.get(key) is not None]
            return float(np.mean(values)) if values else None

        def text(key: str, other: str, other_key: str) -> str | None:
            found = self.versus(arm, key, other, other_key)
            return None if found is None else str(found)

        ours = self.best_key(OURS) if self.told(OURS) else "z"
        return {
            "arm": arm + " ▲" * marked, "group": self.arms[arm].group, "seeds": len(runs), "z": mean("z"),
            "z⁺": mean("z_plus") if has_plus else None,
            "z − labels alone": text("z", ALONE, "z"),
            "z⁺ − labels alone": text("z_plus", ALONE, "z") if has_plus else None,
            "z − ours z": text("z", OURS, "z"),
            "best − ours z⁺": text("z_plus" if has_plus else "z", OURS, ours) if ours == "z_plus" else None,
            "z⁺ − z": text("z_plus", arm, "z") if has_plus else None,
            "lr": first["lr"], "weight": first["weight"], "tuning runs": self.budget,
        }  # fmt: skip

    def costs(self) -> list[dict[str, object]]:
        """One row an arm: what its training and its student cost; CPU time of steps alone, and of whole runs."""
        return [self.cost(arm) for arm in self.there]

    def cost(self, arm: str) -> dict[str, object]:
        """The costs of one arm."""
        runs = list(self.told(arm).values())
        first = runs[0]

        def middle(key: str) -> float | None:
            values = [run[key] for run in runs if run.get(key) is not None]
            return float(np.median(values)) if values else None

        return {
            "arm": arm, "on": "/".join(sorted({run.get("device", "CPU") for run in runs})),
            "images seen": first["steps"] * first["images_a_step"], "steps": first["steps"],
            "CPU ms a step": middle("cpu_ms_a_step"), "CPU s a run": middle("cpu_seconds"),
            "teacher passes": first["teacher_passes"], "cache MB": first["cache_bytes"] / 1e6,
            "parameters": first["parameters"], "z⁺ adds": first["extra_parameters"] or None,
            "ms an image": middle("ms_an_image"), "ms an image, z⁺": middle("ms_an_image_plus"),
        }  # fmt: skip

    def tuning(self) -> list[dict[str, object]]:
        """One row a setting that was tried: its score on validation images, and which one was taken."""
        found: dict[tuple[str, float, float | None], list[float]] = {}
        for row in self.rows:
            if row["kind"] == "tune" and row["arm"] in self.arms:
                found.setdefault((row["arm"], row["lr"], row["weight"]), []).append(row["z"])
        taken = {(arm, run["lr"], run["weight"]) for arm in self.there for run in self.told(arm).values()}
        order = sorted(found, key=lambda key: (list(self.arms).index(key[0]), key[1], key[2] or 0.0))
        return [
            {"arm": key[0], "lr": key[1], "weight": key[2], "z on validation images": float(np.mean(found[key])),
             "taken": "yes" if key in taken else None}
            for key in order
        ]  # fmt: skip

    def readings(self) -> list[dict[str, object]]:
        """What else was read of the finished students of ours, fitted alike: each beside z⁺, paired by seed."""
        runs, rows = self.told(OURS), []
        for name in dict.fromkeys(name for run in runs.values() for name in run.get("readings", {})):
            mine = {s: {"z": run["readings"][name]} for s, run in runs.items() if name in run.get("readings", {})}
            less = difference(runs, "z_plus", mine, "z")
            score, told = float(np.mean([run["z"] for run in mine.values()])), None if less is None else str(less)
            rows.append({"read of the same students": name, "seeds": len(mine), "score": score, "z⁺ − it": told})
        return rows

    def sentences(self) -> list[str]:
        """What the table says, counted: who is above labels alone, who is above ours, and what is not equal."""
        return [*self._setting(), *self._against_alone(), *self._against_ours(), *self._unequal()]

    def _setting(self) -> list[str]:
        counts = sorted({len(self.told(arm)) for arm in self.there})
        if not counts:
            return ["No run is finished yet."]
        first = next(iter(self.told(self.there[0]).values()))
        tuned = f"tuned by {self.budget} runs on validation images" if self.budget else "not tuned"
        seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        said = [
            f"The score is {self.metric} on {first['scored']} {first['on']} images after the last step; "
            f"every arm is {tuned}; {seeds} seed{'s' * (seeds != '1')} an arm, which share the start, the labelled "
            "images and the order; intervals are 95 % of paired differences (Student's t)."
        ]  # fmt: skip
        if counts[0] == 1:
            said.append("Some arm has one seed: there it has no intervals, and is not told apart from any other.")
        return said

    def _against_alone(self) -> list[str]:
        words: dict[int, list[str]] = {1: [], 0: [], -1: []}
        for arm in self.there:
            key = self.best_key(arm)
            found = self.versus(arm, key, ALONE, "z") if arm != ALONE else None
            if found is not None and found.low is not None:
                words[found.sign].append(f"{arm}{' (z⁺)' * (key == 'z_plus')} {found}")
        heads = {1: "Clearly above", 0: "Not told apart from", -1: "Clearly below"}
        return [f"{heads[sign]} {ALONE}: {'; '.join(arms)}." for sign, arms in words.items() if arms]

    def _against_ours(self) -> list[str]:
        others = [arm for arm in self.there if arm != OURS]
        if not self.told(OURS) or not others:
            return []
        if found := self.above_ours():
            names = "; ".join(f"{arm} ({self.arms[arm].group}) by {told} of {what}" for arm, what, told in found)
            return [f"Clearly above ours, marked ▲: {names}."]
        if any((d := self.versus(arm, "z", OURS, "z")) and d.low is not None for arm in others):
            return [f"No other arm is clearly above ours ({len(others)} compared)."]
        return []

    def _unequal(self) -> list[str]:
        if ALONE not in self.there:
            return []
        first = {arm: next(iter(self.told(arm).values())) for arm in self.there}
        seen = {arm: row["steps"] * row["images_a_step"] for arm, row in first.items()}
        other = [f"{arm} ({n:,})" for arm, n in seen.items() if n != seen[ALONE]]
        starts = {arm: {s: run["start"] for s, run in self.told(arm).items()} for arm in self.there}
        apart = [
            arm for arm, own in starts.items()
            if any(start != starts[ALONE].get(seed, start) for seed, start in own.items())
        ]  # fmt: skip
        again = [arm for arm, row in first.items() if row.get("labelled_again")]
        said = [f"No other images were there: labelled ones are the unlabelled ones of {', '.join(again)}."] * bool(
            again
        )
        said += [f"Arms see {seen[ALONE]:,} images in training, but for {', '.join(other)}."] if other else []
        return said + ([f"These begin with other weights than the rest: {', '.join(apart)}."] if apart else [])
