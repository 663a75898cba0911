"""Exercises of notebook 06: tune it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from prockd.checks.verdict import Step, close, exercise, shape
from prockd.settings.method import DistillConfig


def standard_error(accuracy: float, num_images: int) -> float:
    """Of an accuracy that was counted on so many images."""
    return float((accuracy * (1 - accuracy) / num_images) ** 0.5)


def best_of_luck(num_tries: int, error: float) -> float:
    """By how much the best of so many equal tries looks better than it is, where each scatters by an error."""
    return float(error * np.random.default_rng(0).normal(size=(20_000, num_tries)).max(1).mean())


def diary() -> list[dict[str, Any]]:
    """Three tries that each change one knob; z as it would be measured."""
    return [
        {"changed": {"lr": 4e-3}, "expected": "lower: too few steps for a low rate", "z": 0.30},
        {"changed": {"soft_weight": 0.0}, "expected": "lower: nobody tells the unlabelled images", "z": 0.40},
        {"changed": {"seed": 1}, "expected": "the same: this is the noise", "z": 0.45},
    ]


@exercise(standard_error)
def check_standard_error(answer: Callable[[float, int], float]) -> Iterator[Step]:
    """``answer(accuracy, num_images)`` gives one standard error."""
    found = answer(0.8, 200)
    yield shape(found)
    yield not close(found, 0.16 / 200, 1e-5), "it has the unit of an accuracy", "take the root of the variance"
    yield close(answer(0.8, 800), found / 2), "four times the images halve it", "divide by the root of their number"
    yield close(answer(1.0, 200), 0), "who is always right has none", "accuracy (1 - accuracy), not a quarter always"
    yield close(found, 0.02828), "80 % of 200 images is known to 2.8 points", "root of p (1 - p) / n"


@exercise(best_of_luck)
def check_best_of_luck(answer: Callable[[int, float], float]) -> Iterator[Step]:
    """``answer(num_tries, error)`` gives how much luck alone adds to the best."""
    one, twenty = float(answer(1, 0.03)), float(answer(20, 0.03))
    yield abs(one) < 0.003, "one try is not flattered", "the mean over many repetitions: one draw is not enough"
    yield twenty > 0.03, "the best of twenty is flattered by more than one error", "the maximum of each row of draws"
    yield close(answer(20, 0.06), 2 * twenty, 0.005), "twice the error, twice the luck", "scale with the error"
    yield float(answer(100, 0.03)) < 2 * twenty, "luck grows slowly", "it is a maximum, not a sum"
    yield close(twenty, 1.867 * 0.03, 0.003), "of twenty it is 1.87 errors", "repeat more often, then take the mean"


@exercise(diary)
def check_diary(answer: Callable[[], Sequence[Mapping[str, Any]]]) -> Iterator[Step]:
    """``answer()`` gives tries: what was changed (one knob), what was expected, and z."""
    tries = answer()
    yield len(tries) >= 3, "there are three tries", "write down every try, the bad ones too"
    knobs = {field.name for field in fields(DistillConfig)}
    for number, one in enumerate(tries, 1):
        change = f"try {number} changes {', '.join(one['changed']) or 'nothing'}: which of them made the difference?"
        yield len(one["changed"]) == 1, f"try {number} changes one knob", change
        unknown = set(one["changed"]) - knobs
        yield not unknown, f"try {number} names a knob", f"{', '.join(unknown)} is none of DistillConfig"
    words = {str(one["expected"]).strip() for one in tries} - {""}
    yield len(words) == len(tries), "each has its expectation", "write what you expect before you press Run"
    change = "a share such as 0.41, not the text of a table: panel.wait().history.scores.plain"
    yield all(not isinstance(one["z"], str) and 0 <= one["z"] <= 1 for one in tries), "each has its z", change
    change = "let one try change the seed alone: without it no difference can be judged"
    yield any("seed" in one["changed"] for one in tries), "the noise was measured too", change
