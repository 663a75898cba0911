"""Exercises of notebook 05: train a student on another task."""

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from prockd.checks.verdict import Step, close, exercise, noise, shape, values
from prockd.evaluation.intervals import paired_interval
from prockd.training.losses import feature

Loss = Callable[[Tensor, Tensor], Tensor]


def soft_loss(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """KL(teacher || student) of answers (B, C), a mean over images; no gradient to the teacher."""
    target = teacher_logits.detach().softmax(-1)
    return F.kl_div(student_logits.log_softmax(-1), target, reduction="batchmean")


def soft_targets(known: Tensor, labels: Tensor, asked: Tensor, num_classes: int) -> Tensor:
    """The teacher's opinion (m, C) of unlabelled images asked (m, D), by a ridge on known (n, D) and labels (n,)."""
    Y, mean = F.one_hot(labels, num_classes).to(known) - 1 / num_classes, known.mean(0)
    X = known - mean
    D = torch.linalg.solve(X.T @ X + torch.eye(X.shape[1]).to(X), X.T @ Y)
    opinion: Tensor = 10 * (asked - mean) @ D
    return opinion.softmax(-1)


def clearly_above(rows: Sequence[tuple[str, float, float]]) -> list[str]:
    """The arms (name, low, high) whose interval of gain lies wholly above zero."""
    return [name for name, low, _ in rows if low > 0]


def reaches(loss: Loss, *sizes: int) -> tuple[bool, bool]:
    """Whether the gradient of a loss reaches its first and its second argument."""
    student, teacher = (noise(*sizes, seed=seed).requires_grad_() for seed in (3, 4))
    grads = torch.autograd.grad(loss(student, teacher), (student, teacher), allow_unused=True)
    to_student, to_teacher = (grad is not None and bool(grad.any()) for grad in grads)
    return to_student, to_teacher


@exercise(feature)
def check_feature_loss(answer: Loss) -> Iterator[Step]:
    """``answer(student (B, N, E), teacher (B, N, E))`` gives the loss, a number with a gradient."""
    student, teacher = noise(2, 5, 6), noise(2, 5, 6, seed=1)
    found = answer(student, teacher)
    yield shape(found)
    change = "normalise both sides along the last axis"
    yield close(answer(3 * student, teacher), found), "only directions count", change
    yield close(answer(teacher, teacher), 0), "equal patches cost nothing", "1 - cosine, a mean over patches"
    yield close(found, feature(student, teacher)), "it is a mean over all patches", "not a sum, not over one image"
    to_student, to_teacher = reaches(answer, 2, 5, 6)
    yield to_student, "its gradient reaches the student", "the student's side must not be detached"
    yield not to_teacher, "no gradient reaches the teacher", "teacher.detach(): the teacher is frozen"


@exercise(soft_loss)
def check_soft_loss(answer: Loss) -> Iterator[Step]:
    """``answer(student_logits (B, C), teacher_logits (B, C))`` gives the loss, a number with a gradient."""
    student, teacher = noise(4, 5), 2 * noise(4, 5, seed=1)
    found = answer(student, teacher)
    yield shape(found)
    yield close(answer(student + 7, teacher), found), "a constant in all logits changes nothing", "take (log_)softmax"
    yield close(answer(teacher, teacher), 0), "equal answers cost nothing", "log of the student's, not of both or none"
    change = "that is KL(student || teacher): the teacher's shares must weigh the difference of logarithms"
    yield not close(found, soft_loss(teacher, student)), "it asks from the teacher's side", change
    yield close(found, soft_loss(student, teacher)), "it is a mean over images", "reduction='batchmean'"
    to_student, to_teacher = reaches(answer, 4, 5)
    yield to_student, "its gradient reaches the student", "the student's side must not be detached"
    yield not to_teacher, "no gradient reaches the teacher", "teacher_logits.detach()"


@exercise(soft_targets)
def check_soft_targets(answer: Callable[[Tensor, Tensor, Tensor, int], Tensor]) -> Iterator[Step]:
    """``answer(known (n, D), labels (n,), asked (m, D), num_classes)`` gives opinions (m, C)."""
    labels = torch.arange(60) % 3
    known, asked = (4 * torch.eye(3, 5)[labels] + noise(60, 5, seed=s) for s in (0, 1))
    asked[1] = known[labels == 0].mean(0) / 2 + known[labels == 1].mean(0) / 2  # between two classes
    found = values(answer(known, labels, asked[:20], 3))
    yield shape(found, 20, 3)
    yield found.min() >= 0 and close(found.sum(-1), torch.ones(20)), "opinions are shares of 1", "end with a softmax"
    right = (found.argmax(-1) == labels[:20]).double()[2:].mean()
    change = "fit on known and its labels, then read asked; column c is class c"
    yield right > 0.8, "most opinions are right", change
    yield found[1].max() < 0.95, "an image between two classes is doubted", "keep the doubts: no argmax, no one-hot"
    change = "each image is asked by itself: take means and scales of the known ones"
    yield close(answer(known, labels, asked[:5], 3), found[:5]), "an opinion does not hang on who else is asked", change


@exercise(paired_interval)
def check_interval(answer: Callable[[Sequence[float]], tuple[float, float, float]]) -> Iterator[Step]:
    """``answer(gains)`` gives mean, low and high of the 95 % interval."""
    gains = [0.02, 0.05, 0.03, 0.08]
    mean, low, high = (float(x) for x in answer(gains))
    yield close(mean, 0.045), "the mean is right", "the mean of the differences, in the order mean, low, high"
    yield close(high - mean, mean - low), "the interval lies evenly about it", "mean - half, mean + half"
    truth, n = paired_interval(gains), len(gains)
    deviation = torch.tensor(gains).double().std()
    change = "1.96 is for many seeds; t.ppf(0.975, n - 1) is 3.18 for four"
    yield not close(high - mean, 1.96 * deviation / n**0.5, 0.002), "few seeds make it wide", change
    yield high - mean < 2.5 * deviation, "it is of the mean, not of one seed", "divide by the root of n"
    yield close(high, truth[2]), "its ends are right", "the deviation divides by n - 1 (ddof=1)"


@exercise(clearly_above)
def check_clearly_above(answer: Callable[[Sequence[tuple[str, float, float]]], Sequence[str]]) -> Iterator[Step]:
    """``answer(rows of (name, low, high))`` gives the names whose gain is clear of zero, upwards."""
    rows = [("ours", 0.01, 0.05), ("rival", 0.03, 0.06), ("lucky", -0.01, 0.07), ("worse", -0.08, -0.02)]
    found = set(answer(rows))
    yield "lucky" not in found, "an interval that holds zero is no gain", "the mean is not enough: low must be above 0"
    yield "worse" not in found, "a clear loss is no gain", "clear of zero is not enough: low must be above 0"
    yield "rival" in found, "a rival that wins is named", "keep every arm that wins, whoever it is"
    yield found == {"ours", "rival"}, "and nobody is left out", "names of the rows with low > 0"
