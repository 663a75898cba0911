"""Did the teacher help? A taught student beside one of labels alone, on the same test images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import bootstrap

from prockd.datasets import PackedImages
from prockd.evaluation.effects import jackknife
from prockd.evaluation.scores import Scores
from prockd.tasks.task import Decoded, Task, chosen

FEWEST = 10
"""Test images, or groups of them, that an interval needs at least: of fewer, chance alone makes one that is clear."""

CHANCE, ALONE = "chance: what other images show", "labels alone"


@dataclass(frozen=True)
class Change:
    """A prediction's metric, and how far it is above labels alone, with the 95 % interval; NaN where it is unknown."""

    prediction: str  # "z" or "z+"
    score: float
    change: float = np.nan
    low: float = np.nan
    high: float = np.nan

    @property
    def word(self) -> str:
        """The verdict: clear of zero to one side, or to none."""
        if np.isnan(self.change):
            return "not compared"
        return "the teacher helped" if self.low > 0 else "it hurt" if self.high < 0 else "not told apart"

    @property
    def interval(self) -> str:
        """In points, such as ``[+3.1, +9.0]``; empty where there is none."""
        return "" if np.isnan(self.low) else f"[{100 * self.low:+.1f}, {100 * self.high:+.1f}]"


@dataclass(frozen=True, eq=False)
class Verdict:
    """Whether a teacher helped: what it changed, beside what needs no teacher, and what needs no look at an image.

    Attributes:
        metric: what is measured, such as ``"accuracy"``, 0..1.
        changes: of z and, with augmentation, of z+.
        floors: the metric of chance and of the task's trivial answers, by name.
        over: what the intervals are over, such as ``"300 test images"``.
        alone: the metric of labels alone; None where nobody trained it.
        enough: whether there are enough of them for an interval.
        why_open: why there is nothing to compare with.
    """

    metric: str
    changes: tuple[Change, ...]
    floors: Mapping[str, float] = field(default_factory=dict)
    over: str = ""
    alone: float | None = None
    enough: bool = True
    why_open: str = ""

    @property
    def sentence(self) -> str:
        """The verdict of z and of z+ in words, and a warning where neither is above a trivial answer."""
        told = "; ".join(
            f"{c.prediction}: {c.word}: {100 * c.change:+.1f} points of {self.metric}{c.interval and ' '}{c.interval}"
            for c in self.changes
        )
        few = f" ({self.over} are too few for an interval: {FEWEST} are the least)" if not self.enough else ""
        sentence = self.why_open if self.alone is None else f"{told}{few}."
        name, floor = max(self.floors.items(), key=lambda item: item[1], default=("", -np.inf))
        if max(c.score for c in self.changes) <= floor:
            sentence += f" No student is above a trivial answer: {name} reaches {floor:.1%}."
        return sentence

    def rows(self) -> list[dict[str, object]]:
        """A row for each floor, labels alone and each prediction: the metric, and what the teacher changed."""
        rows: list[dict[str, object]] = [{"answer": name, self.metric: value} for name, value in self.floors.items()]
        if self.alone is None:
            return [*rows, *({"answer": f"student's {c.prediction}", self.metric: c.score} for c in self.changes)]
        rows.append({"answer": ALONE, self.metric: self.alone})
        for c in self.changes:
            told = {"points more": f"{100 * c.change:+.1f}", "95 % interval": c.interval or None, "verdict": c.word}
            rows.append({"answer": f"with the teacher, {c.prediction}", self.metric: c.score, **told})
        return rows

    def numbers(self) -> dict[str, Any]:
        """All of it for ``results.json``; None where it is unknown."""

        def known(value: float) -> float | None:
            return None if np.isnan(value) else float(value)

        students = {
            c.prediction: {
                self.metric: c.score, "change": known(c.change), "interval": [known(c.low), known(c.high)],
                "verdict": c.word,
            }
            for c in self.changes
        }  # fmt: skip
        told = {"sentence": self.sentence, "metric": self.metric, ALONE: self.alone, "students": students}
        return told | {"floors": dict(self.floors), "interval over": self.over}


def judge(
    task: Task, scores: Scores, test: PackedImages, train: PackedImages, *, alone: Scores | None = None,
    why_open: str = "", resamples: int = 2000, seed: int = 0,
) -> Verdict:  # fmt: skip
    """Compare a student with one that learned from labels alone, image by image, and with who never looks at one.

    The interval is over test images, drawn with replacement, the same for both students (paired), or over whole groups
    of them where groups are known; where the metric does not follow from counts, a jackknife over folds. It says
    nothing of another seed of training: that takes several runs.

    Args:
        task: what both learned.
        scores: of the student that had a teacher, on the test images.
        test: the test images.
        train: the labelled images, whose labels the trivial answers know.
        alone: scores of labels alone on the same images; None where nobody trained it.
        why_open: what the verdict says then.
        resamples: of the bootstrap.
        seed: of the bootstrap, and of which images chance draws.
    """
    pairs = [("z", scores.plain, scores.predictions), ("z+", scores.augmented, scores.augmented_predictions)]
    taught = [(name, score, decoded) for name, score, decoded in pairs if score is not None]
    floors = {CHANCE: chance(task, test, train, seed=seed)}
    floors |= {name: task.score(decoded, test).value for name, decoded in task.trivial(train, len(test)).items()}
    if alone is None:
        plain = tuple(Change(name, score) for name, score, _ in taught)
        return Verdict(task.metric, plain, floors, why_open=why_open)
    units, noun = units_of(test)
    count = int(units.max()) + 1
    decoded = [alone.predictions, *(predictions for *_, predictions in taught)]
    differences = [score - alone.plain for _, score, _ in taught]
    intervals = np.full((len(taught), 2), np.nan)
    if count >= FEWEST:
        intervals = paired_intervals(task, decoded, test, units, resamples=resamples, seed=seed)
    changes = [
        Change(name, score, difference, *map(float, interval))
        for (name, score, _), difference, interval in zip(taught, differences, intervals, strict=True)
    ]
    return Verdict(task.metric, tuple(changes), floors, f"{count} {noun}", alone.plain, count >= FEWEST)


def units_of(images: PackedImages) -> tuple[Int[np.ndarray, " M"], str]:
    """The unit that each image is drawn with, and what units are: groups of near copies, else single images."""
    if images.groups is None:
        return np.arange(len(images)), "test images"
    return np.unique(np.array(images.groups, dtype=str), return_inverse=True)[1], "groups of test images"


def paired_intervals(
    task: Task, decoded: Sequence[Decoded], images: PackedImages, units: Int[np.ndarray, " M"], *,
    resamples: int = 2000, seed: int = 0,
) -> Float[np.ndarray, "R 2"]:  # fmt: skip
    """95 % intervals of the metric of each prediction but the first, minus that of the first, on the same images."""
    counts = [counts_of(task, predictions, images) for predictions in decoded]
    known = [count for count in counts if count is not None]
    if len(known) < len(counts):
        _, _, low, high = jackknife(task, decoded, images)
        return np.stack([low[:, 0], high[:, 0]], 1)
    U = int(units.max()) + 1
    summed = np.zeros((len(known), U, known[0][0].size))
    for total, count in zip(summed, known, strict=True):
        np.add.at(total, units, count.reshape(len(count), -1))

    def metric(drawn: Float[np.ndarray, "n U"], of: int) -> Float[np.ndarray, " n"]:
        sums = (drawn @ summed[of]).reshape(-1, *known[0].shape[1:])
        whole: np.ndarray = task.score_counts(sums)[..., 0]
        return whole

    def change(numbers: Int[np.ndarray, "*n U"], of: int) -> Float[np.ndarray, "*n"]:
        rows = numbers.reshape(-1, U)
        # how often each unit is drawn says all: sums of counts are then one product of matrices
        drawn = np.bincount((rows + U * np.arange(len(rows))[:, None]).ravel(), minlength=rows.size)
        drawn = drawn.reshape(rows.shape).astype(float)
        # equal counts may differ in their last bit after a product
        difference: np.ndarray = np.round(metric(drawn, of) - metric(drawn, 0), 12)
        return difference.reshape(numbers.shape[:-1])

    intervals = []
    for of in range(1, len(known)):
        found = bootstrap(
            (np.arange(U),), lambda numbers, axis=-1: change(numbers, of), vectorized=True,  # noqa: B023
            n_resamples=resamples, batch=200, method="percentile", random_state=np.random.default_rng(seed),
        )  # fmt: skip
        intervals.append(tuple(found.confidence_interval))
    return np.array(intervals)


def counts_of(task: Task, decoded: Decoded, images: PackedImages) -> Float[np.ndarray, "M C 3"] | None:
    """The counts of every image; None where the metric does not follow from counts."""
    truth, parts = task.truth(images), []
    for m in range(0, len(images), 64):  # in parts, as of Task.score
        counts = task.counts(decoded[m : m + 64], truth[m : m + 64])
        if counts is None:
            return None
        parts.append(counts)
    return np.concatenate(parts)


def chance(task: Task, test: PackedImages, train: PackedImages, *, draws: int = 5, seed: int = 0) -> float:
    """The metric of one who answers with the truth of training images drawn at random: a mean over draws.

    One draw where the metric does not follow from counts: average precision takes seconds.
    """
    rng, truth = np.random.default_rng(seed), task.truth(train)
    draws = draws if counts_of(task, truth[:1], train.select([0])) is not None else 1
    drawn = [chosen(truth, rng.integers(len(train), size=len(test))) for _ in range(draws)]
    return float(np.mean([task.score(guess, test).value for guess in drawn]))
