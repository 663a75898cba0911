"""Did the teacher help? Paired intervals over test images, beside chance and trivial answers."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from prockd.datasets import PackedImages
from prockd.evaluation.scores import Scores
from prockd.evaluation.verdict import CHANCE, Verdict, judge
from prockd.tasks import Classification

TASK = Classification(4, ("cow", "pig", "ram", "hen"))


def images(labels: np.ndarray, groups: list[str] | None = None) -> PackedImages:
    """Blank images of these classes."""
    M = len(labels)
    blank = np.zeros((M, 3, 8, 8), np.uint8)
    ids = tuple(map(str, range(M)))
    return PackedImages(blank, labels, ids, TASK.classes, "blank", groups=None if groups is None else tuple(groups))


def scored(test: PackedImages, z: np.ndarray, z_plus: np.ndarray | None = None, task: Classification = TASK) -> Scores:
    """The scores of these predictions."""
    plus = None if z_plus is None else task.score(z_plus, test).value
    return Scores(task.score(z, test).value, plus, z, z_plus, task.truth(test), task.metric)


def right(test: PackedImages, share: float, seed: int) -> np.ndarray:
    """Predictions of which this share is right."""
    hit = np.random.default_rng(seed).random(len(test)) < share
    return np.where(hit, test.labels, (test.labels + 1) % 4)


LABELS = np.arange(400) % 4
TEST, TRAIN = images(LABELS), images(np.array([2, 2, 2, 0, 1, 3]))


def verdict(test: PackedImages, z: np.ndarray, alone: np.ndarray, z_plus: np.ndarray | None = None) -> Verdict:
    return judge(TASK, scored(test, z, z_plus), test, TRAIN, alone=scored(test, alone))


def test_a_clear_gain_a_clear_loss_and_a_tie_are_told_as_such():
    better, worse = right(TEST, 0.8, 0), right(TEST, 0.5, 1)
    up = verdict(TEST, better, worse, z_plus=worse)
    assert [c.word for c in up.changes] == ["the teacher helped", "not told apart"]
    assert up.changes[0].change == pytest.approx(np.mean(better == LABELS) - np.mean(worse == LABELS))
    assert (up.changes[1].low, up.changes[1].high) == (0, 0)
    gain, low, high = (100 * value for value in (up.changes[0].change, up.changes[0].low, up.changes[0].high))
    told = f"z: the teacher helped: {gain:+.1f} points of accuracy [{low:+.1f}, {high:+.1f}]; z+: not told apart: +0.0"
    assert up.sentence.startswith(told)
    assert "too few" not in up.sentence
    assert verdict(TEST, worse, better).changes[0].word == "it hurt"


def test_the_interval_is_paired_and_has_the_width_that_differences_of_images_give():
    alone = right(TEST, 0.6, 0)
    mended = np.where(np.arange(400) < 40, LABELS, alone)  # the same answers but for some of forty images
    (change,) = verdict(TEST, mended, alone).changes
    difference = (mended == LABELS).astype(float) - (alone == LABELS)
    half = 1.96 * difference.std() / np.sqrt(400)
    assert (change.low, change.high) == pytest.approx((difference.mean() - half, difference.mean() + half), abs=0.006)
    unpaired = 1.96 * np.sqrt(2 * 0.24 / 400)
    assert change.high - change.low < unpaired


def test_near_copies_are_drawn_as_one_and_widen_the_interval():
    rng = np.random.default_rng(3)
    alone = right(TEST, 0.5, 0)
    mended = np.where(np.repeat(rng.random(20) < 0.3, 20), LABELS, alone)  # whole videos became right
    videos = images(LABELS, [f"video {m // 20}" for m in range(400)])
    single, grouped = verdict(TEST, mended, alone), verdict(videos, mended, alone)
    assert single.changes[0].change == grouped.changes[0].change
    widths = [found.changes[0].high - found.changes[0].low for found in (single, grouped)]
    assert widths[1] > 1.5 * widths[0]
    assert (single.over, grouped.over) == ("400 test images", "20 groups of test images")


def test_a_few_images_are_no_evidence():
    few = TEST.select(np.arange(4))
    found = verdict(few, few.labels, (few.labels + 1) % 4)
    assert found.changes[0].word == "not told apart"
    assert "+100.0 points of accuracy (4 test images are too few for an interval: 10 are the least)" in found.sentence
    assert found.numbers()["students"]["z"]["interval"] == [None, None]


def test_a_metric_without_counts_gets_an_interval_too():
    """Average precision is no sum over images: a jackknife."""
    task = Classification(2, ("mud", "sky"), multi_label=True)
    rng = np.random.default_rng(0)
    tags = rng.integers(0, 2, (120, 2)).astype(np.uint8)
    test = replace(images(np.full(120, -1)), tags=tags, classes=task.classes)
    good, bad = (np.clip(tags + rng.normal(0, noise, tags.shape), 0, 1) for noise in (0.3, 2.0))
    found = judge(task, scored(test, good, task=task), test, test, alone=scored(test, bad, task=task))
    assert found.changes[0].word == "the teacher helped"
    assert 0 < found.changes[0].low < found.changes[0].change < found.changes[0].high
    assert found.floors["how common each tag is"] == pytest.approx(tags.mean(), abs=0.02)


def test_a_student_that_is_not_above_a_trivial_answer_is_told():
    found = verdict(TEST, np.zeros(400, np.int64), np.ones(400, np.int64))
    assert found.floors["always ram"] == 0.25, "the most common class of the labelled images"
    assert found.floors[CHANCE] == pytest.approx(0.25, abs=0.04)
    assert "No student is above a trivial answer" in found.sentence
    assert "No student" not in verdict(TEST, right(TEST, 0.8, 0), np.ones(400, np.int64)).sentence


def test_without_labels_alone_the_question_is_open_and_floors_are_told_all_the_same():
    found = judge(TASK, scored(TEST, LABELS, LABELS), TEST, TRAIN, why_open="Open whether the teacher helped.")
    assert found.sentence == "Open whether the teacher helped."
    assert [row["answer"] for row in found.rows()] == [CHANCE, "always ram", "student's z", "student's z+"]
    told = found.numbers()
    assert told["labels alone"] is None
    assert told["students"]["z"] == {
        "accuracy": 1.0, "change": None, "interval": [None, None], "verdict": "not compared"
    }  # fmt: skip


@dataclass(frozen=True)
class Own(Classification):
    """A task of one's own, which says nothing of trivial answers."""

    def trivial(self, train, count):
        return super(Classification, self).trivial(train, count)


def test_a_task_of_ones_own_has_chance_and_no_trivial_answer():
    own = Own(4, TASK.classes)
    assert list(judge(own, scored(TEST, LABELS), TEST, TRAIN, alone=scored(TEST, LABELS)).floors) == [CHANCE]


def test_the_same_run_gets_the_same_verdict_again():
    z, alone = right(TEST, 0.8, 0), right(TEST, 0.5, 1)
    assert verdict(TEST, z, alone).numbers() == verdict(TEST, z, alone).numbers()
