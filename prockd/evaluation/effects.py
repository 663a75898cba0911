"""What does a prototype do? Take it out of the augmentation of a trained student, and score the answers again.

Nothing is trained anew and the backbone sees each image once: only the augmentation and the head run again for each
removal. The plain prediction z reads no prototypes, so all numbers are of z+. Attention sums to one, so what is removed
leaves its share to the prototypes that stay: compare with the removal of as many others before you call it a cause.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.stats import t
from torch import Tensor
from tqdm.auto import tqdm

from prockd._types import IGNORE
from prockd.datasets import PackedImages
from prockd.evaluation.scores import outputs
from prockd.prototypes.bank import PrototypeBank
from prockd.students.student import Student
from prockd.tasks import Classification, Segmentation
from prockd.tasks.task import Task

ALL = "all classes"
"""The column of the whole metric, beside those of the classes."""


@dataclass(frozen=True, eq=False)
class PrototypeEffects:
    """Change of the metric of z+ when prototypes are removed, with its 95 % interval over images.

    Attributes:
        metric: what is measured, such as ``"accuracy"``, 0..1.
        columns: ``"all classes"``, then the classes.
        removed: R names, one a removal: a prototype, or a group of them.
        prototypes: R tuples, which prototypes each removal took out.
        before: (1 + C,) the metric with every enabled prototype; NaN for a class without images.
        change: (R, 1 + C) metric after the removal minus before; negative where the prototype helped.
        low: (R, 1 + C) lower end of the interval of ``change``.
        high: (R, 1 + C) upper end.
        num_images: over which the interval is.
    """

    metric: str
    columns: tuple[str, ...]
    removed: tuple[str, ...]
    prototypes: tuple[tuple[int, ...], ...]
    before: np.ndarray
    change: np.ndarray
    low: np.ndarray
    high: np.ndarray
    num_images: int

    @property
    def clear(self) -> np.ndarray:
        """(R, 1 + C) True where the interval leaves out zero, as about 5 of 100 would by chance."""
        return (self.low > 0) | (self.high < 0)

    def order(self, column: int = 0) -> np.ndarray:
        """(R,) removals by their change in a column, the most harmful first."""
        return np.argsort(self.change[:, column], kind="stable")

    def rows(self) -> list[dict[str, object]]:
        """One row a removal, the most harmful first: change of the metric, and the classes that lose and gain most."""
        rows: list[dict[str, object]] = []
        for r in self.order():
            change = np.nan_to_num(self.change[r, 1:])
            worst, best = int(change.argmin()), int(change.argmax())
            rows.append({
                "removed": self.removed[r],
                f"change of {self.metric}": f"{100 * self.change[r, 0]:+.1f}",
                "95 % interval": f"{100 * self.low[r, 0]:+.1f}..{100 * self.high[r, 0]:+.1f}",
                "loses most": _told(self.columns[1 + worst], min(change[worst], 0.0)),
                "gains most": _told(self.columns[1 + best], max(change[best], 0.0)),
            })  # fmt: skip
        return rows

    def __str__(self) -> str:
        from prockd.evaluation.tables import format_table

        total = len(self.removed)
        return (
            f"{format_table(self.rows())}\n\nPoints of {self.metric} of z+ on {self.num_images} images, "
            f"{self.before[0]:.1%} before. {int(self.clear[:, 0].sum())} of {total} intervals leave out zero; about "
            f"{0.05 * total:.0f} at most would by chance."
        )

    def __repr__(self) -> str:
        first = self.order()[0]
        return (
            f"PrototypeEffects({len(self.removed)} removals, {self.num_images} images, {self.metric} "
            f"{self.before[0]:.1%}; most harmful: {self.removed[first]} {100 * self.change[first, 0]:+.1f} points)"
        )


@torch.no_grad()
def prototype_effects(
    student: Student,
    bank: PrototypeBank,
    images: PackedImages,
    *,
    groups: Mapping[str, Sequence[int]] | None = None,
    resamples: int = 2000,
    seed: int = 0,
    batch_size: int = 64,
    progress: bool = True,
) -> PrototypeEffects:
    """Remove each prototype from the augmentation of a trained student, one at a time, and measure what changes.

    Accuracy and IoU get a paired bootstrap over images. Average precision does not add up over images: it gets a
    jackknife over ten folds of them.

    Args:
        student: a trained student of any task that reads prototypes.
        bank: the bank it was trained with, whose names and switches are used; those of the student stay as they are.
        images: labelled images of the task, at best ones that were not trained on.
        groups: prototypes to be removed together, by a name of your own; None removes each enabled one alone.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        batch_size: images in a pass.
        progress: show a progress bar.

    Raises:
        ValueError: the student reads no prototypes, the bank is not its own, there is nothing to remove, or a removal
            leaves no prototype.
        IndexError: a group names a prototype that is not there.
    """
    own, task = checked_bank(student, bank), student.task
    task.check(images)
    removals: list[tuple[str, tuple[int, ...]]]
    if groups is None:
        removals = [(bank.names[k], (k,)) for k in torch.nonzero(bank.enabled).flatten().tolist()]
    else:
        removals = [(name, tuple(int(k) for k in members)) for name, members in groups.items()]
    if not removals:
        raise ValueError("there is nothing to remove: no prototype is enabled, or groups is empty")
    masks = [bank.enabled, *(without(bank.enabled, *removal) for removal in removals)]
    masks = [mask.to(own.enabled.device) for mask in masks]
    decoded: list[list[Any]] = [[] for _ in masks]
    truth, start, adds_up = task.truth(images), 0, counted(task)
    with switches_kept(own), tqdm(total=len(images), desc="effects", unit="image", disable=not progress) as bar:
        for output in outputs(student, images, batch_size=batch_size):
            stop = start + len(output.features)
            for told, mask in zip(decoded, masks, strict=True):
                own.enabled.copy_(mask)
                answers = task.decode(student.head(student.augmented(output.features)), images.image_px)
                told.extend(tally(task, answers, np.asarray(truth[start:stop])) if adds_up else answers)
            bar.update(stop - start)
            start = stop
    found = bootstrap(task, np.array(decoded), resamples, seed) if adds_up else jackknife(task, decoded, images)
    columns = (ALL, *(task.classes or [str(c) for c in range(task.num_classes)]))
    names, members = zip(*removals, strict=True)
    return PrototypeEffects(task.metric, columns, names, members, *found, len(images))


def checked_bank(student: Student, bank: PrototypeBank) -> PrototypeBank:
    """The student's own bank, which it reads.

    Raises:
        ValueError: the student reads no prototypes, or was trained with another bank.
    """
    own = student.bank
    if own is None or student.feature_augmentation is None or student.feature_augmentation.content == "mlp":
        raise ValueError(
            "this student reads no prototypes: build it with bank= and FeatureAugmentationConfig('prototypes')"
        )
    if (bank.num_prototypes, bank.teacher) != (own.num_prototypes, own.teacher):
        raise ValueError(
            f"the bank has {bank.num_prototypes} prototypes of teacher {bank.teacher[:8]}, the student's own has "
            f"{own.num_prototypes} of teacher {own.teacher[:8]}: pass the bank that it was trained with"
        )
    return own


def without(enabled: Bool[Tensor, " K"], name: str, members: Sequence[int]) -> Bool[Tensor, " K"]:
    """The switches with some prototypes off.

    Raises:
        IndexError: a prototype that is not there.
        ValueError: none would be left.
    """
    bad = [k for k in members if not 0 <= k < len(enabled)]
    if bad:
        raise IndexError(f"{name!r} removes prototype {bad[0]}: {len(enabled)} are numbered 0..{len(enabled) - 1}")
    left = enabled.clone()
    left[list(members)] = False
    if not left.any():
        raise ValueError(f"without {name!r} no prototype is left: the augmentation needs one at least")
    return left


@contextmanager
def switches_kept(bank: PrototypeBank) -> Iterator[None]:
    """Whatever happens inside, the same prototypes are enabled afterwards."""
    kept = bank.enabled.clone()
    try:
        yield
    finally:
        bank.enabled.copy_(kept)


def counted(task: Task) -> bool:
    """Whether the metric of many images follows from counts of each."""
    return isinstance(task, Segmentation) or (isinstance(task, Classification) and not task.multi_label)


def tally(task: Task, answers: Sequence[Any] | np.ndarray, truth: np.ndarray) -> Float[np.ndarray, "B C 3"]:
    """Of each image and class: found, found wrongly, missed; in images, or in pixels of a mask."""
    C, rows = task.num_classes, []
    for answer, true in zip(answers, truth, strict=True):
        told, known = np.ravel(answer).astype(int), np.ravel(true).astype(int)
        if isinstance(task, Segmentation):
            told, known = told[known != IGNORE], known[known != IGNORE]
        table = np.bincount(C * known + told, minlength=C * C).reshape(C, C)
        right = table.diagonal()
        rows.append(np.stack([right, table.sum(0) - right, table.sum(1) - right], axis=-1))
    return np.array(rows, float)


def metric_of(task: Task, counts: Float[np.ndarray, "... C 3"]) -> Float[np.ndarray, "... 1+C"]:
    """The task's metric of summed counts, of all classes and of each; NaN for a class that the images do not show."""
    right, true = counts[..., 0], counts[..., 0] + counts[..., 2]
    if isinstance(task, Segmentation):
        each = np.where(true > 0, _ratio(right, counts.sum(-1)), np.nan)
        shown = ~np.isnan(each)
        whole = _ratio(np.where(shown, each, 0).sum(-1, keepdims=True), shown.sum(-1, keepdims=True))
    else:
        each = _ratio(right, true)
        whole = _ratio(right.sum(-1, keepdims=True), true.sum(-1, keepdims=True))
    return np.concatenate([whole, each], axis=-1)


Found = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""(1 + C,) the metric without removal, and (R, 1 + C) its change by each, with the ends of the 95 % interval."""


def bootstrap(task: Task, counts: Float[np.ndarray, "G M C 3"], resamples: int, seed: int) -> Found:
    """Compare each removal with none (row 0) on the same resampled images, so that what they share cancels."""
    _, M, C, _ = counts.shape
    weights = np.random.default_rng(seed).multinomial(M, np.full(M, 1 / M), resamples).astype(float)  # (resamples, M)
    whole = metric_of(task, counts.sum(1))
    drawn = [metric_of(task, (weights @ row.reshape(M, -1)).reshape(-1, C, 3)) for row in counts]
    ends = np.full((2, *whole[1:].shape), np.nan)
    shown = ~np.isnan(whole[0])
    for row, other in enumerate(drawn[1:]):
        difference = np.round(other - drawn[0], 12)  # equal counts may differ in their last bit after a product
        ends[:, row, shown] = np.nanpercentile(difference[:, shown], (2.5, 97.5), axis=0)
    return whole[0], whole[1:] - whole[0], ends[0], ends[1]


def jackknife(task: Task, decoded: Sequence[Sequence[Any]], images: PackedImages, folds: int = 10) -> Found:
    """Score without one fold of the images after the other: what varies between these scores gives the interval."""

    def scored(told: Sequence[Any], rows: np.ndarray) -> np.ndarray:
        chosen = [told[i] for i in rows]
        one = task.score(np.array(chosen) if isinstance(chosen[0], np.ndarray) else chosen, images.select(rows))
        return np.array([one.value, *one.per_class])

    every = np.arange(len(images))
    folds = min(folds, len(images))
    kept = [every[every % folds != fold] for fold in range(folds)]
    whole = np.array([scored(told, every) for told in decoded])
    left = np.array([[scored(told, rows) for rows in kept] for told in decoded])  # (1 + R, folds, 1 + C)
    change = left[1:] - left[:1]
    half = t.ppf(0.975, folds - 1) * np.sqrt((folds - 1) * change.var(1))
    moved = whole[1:] - whole[0]
    return whole[0], moved, moved - half, moved + half


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    ratio: np.ndarray = np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)
    return ratio


def _told(name: str, change: float) -> str | None:
    return f"{name} {100 * change:+.1f}" if change else None
