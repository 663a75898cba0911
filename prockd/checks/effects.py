"""Exercises of notebook 09: what a prototype does."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from prockd.checks.verdict import Step, close, exercise, integers, shape, values


def made_usual(z_plus: np.ndarray, said: np.ndarray, away: Sequence[int]) -> np.ndarray:
    """Logits (M, C) in which some prototypes say of each image what they say of all on the whole.

    ``said`` is (M, K, C), what each prototype adds to the logits.
    """
    own = said[:, np.asarray(away)]
    return np.asarray(z_plus - (own - own.mean(0)).sum(1))


def random_groups(own: Sequence[int], num_prototypes: int, draws: int, seed: int) -> np.ndarray:
    """The control (draws, len(own)): as many other prototypes, each once in a draw."""
    rng, others = np.random.default_rng(seed), np.setdiff1d(np.arange(num_prototypes), own)
    return np.array([rng.choice(others, len(own), replace=False) for _ in range(draws)])


def paired_change(before: np.ndarray, after: np.ndarray, draws: int, seed: int) -> tuple[float, float]:
    """95 % interval of the change of accuracy: a bootstrap over images, before and after on the same ones."""
    change = after.astype(float) - before
    drawn = np.random.default_rng(seed).integers(0, len(change), (draws, len(change)))
    low, high = np.percentile(change[drawn].mean(1), (2.5, 97.5))
    return float(low), float(high)


@exercise(made_usual)
def check_made_usual(answer: Callable[[np.ndarray, np.ndarray, Sequence[int]], np.ndarray]) -> Iterator[Step]:
    """``answer(z_plus (M, C), said (M, K, C), away)`` gives logits (M, C)."""
    said = np.random.default_rng(0).normal(1, 1, (5, 4, 3))
    z_plus, away = said.sum(1), [0, 2]
    kept = said.copy()
    found = answer(z_plus, said, away)
    yield shape(found, 5, 3)
    yield np.array_equal(said, kept), "the shares given stay as they were", "do not write into said"
    hole = z_plus - said[:, away].sum(1)
    yield not close(found, hole), "it is no hole", "put the usual back: the mean over images of what they say"
    change = "the mean over images (axis 0) for each prototype and class, not over prototypes or classes"
    yield close(values(found).mean(0), z_plus.mean(0)), "on the whole nothing is lost", change
    truth = made_usual(z_plus, said, away)
    yield close(found, truth), "only the chosen ones are silenced", "the others stay as they are"


@exercise(random_groups)
def check_random_groups(answer: Callable[[Sequence[int], int, int, int], np.ndarray]) -> Iterator[Step]:
    """``answer(own, num_prototypes, draws, seed)`` gives groups of other prototypes (draws, len(own))."""
    own = [1, 5, 6, 9]
    found = values(answer(own, 14, 50, 0)).long().numpy()
    yield shape(found, 50, 4)
    yield found.min() >= 0 and found.max() < 14, "they are prototypes", "numbers from 0 to num_prototypes - 1"
    yield not np.isin(found, own).any(), "none is of the own group", "draw from the others alone: np.setdiff1d"
    once = all(len(set(row)) == 4 for row in found.tolist())
    yield once, "none is there twice in a draw", "replace=False: as many *different* ones"
    different = len({tuple(sorted(row)) for row in found.tolist()})
    yield different > 5, "draws differ", "make the generator once, before all draws"
    yield len(np.unique(found)) == 10, "each other prototype has its turn", "draw from all the others"


@exercise(paired_change)
def check_paired_change(answer: Callable[[np.ndarray, np.ndarray, int, int], tuple[float, float]]) -> Iterator[Step]:
    """``answer(before (M,), after (M,), draws, seed)`` gives low and high of the change of accuracy."""
    before = integers(0, 2, 400) > 0
    after = before.copy()
    after[np.flatnonzero(before)[:12]] = False  # 12 of 400 answers become wrong
    low, high = (float(x) for x in answer(before, after, 2000, 0))
    yield low <= high, "low comes before high", "the 2.5th and the 97.5th percentile, in this order"
    yield low < -0.03 < high, "the change itself lies inside", "after minus before: it became worse"
    change = "draw the images once and look at before and after of the same ones"
    yield high - low < 0.06, "images that keep their answer add no noise", change
    yield high - low > 0.025, "it is an interval of 95 %", "percentiles of the means, not their standard error"
    expected = paired_change(before, after, 2000, 0)
    yield close((low, high), expected, 0.004), "its ends are right", "a mean over as many images as there are"
