"""Do prototypes agree with key points? For images whose parts are marked by points instead of masks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int64
from sklearn.metrics import recall_score
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from prockd.datasets import PackedImages, PointAnnotations
from prockd.evaluation.controls import NEAREST, with_controls


@dataclass(frozen=True, eq=False)
class PointPatches:
    """Which patch of which image each key point lies in; patches are counted row by row of the grid."""

    image: Int64[np.ndarray, " Q"]
    patch: Int64[np.ndarray, " Q"]
    part: Int64[np.ndarray, " Q"]  # index into parts
    parts: tuple[str, ...]
    xy: Float[np.ndarray, "Q 2"]  # to the right and down, 0..1 of the square

    def __len__(self) -> int:
        return len(self.part)

    def select(self, images: Bool[np.ndarray, " M"]) -> "PointPatches":
        """The points of some images."""
        kept = images[self.image]
        return PointPatches(self.image[kept], self.patch[kept], self.part[kept], self.parts, self.xy[kept])

    def __repr__(self) -> str:
        counts = zip(self.parts, np.bincount(self.part, minlength=len(self.parts)), strict=True)
        parts = ", ".join(f"{name} {count}" for name, count in counts)
        return f"PointPatches({len(self)} points on {len(np.unique(self.image))} images: {parts})"


def point_patches(
    annotations: PointAnnotations, images: PackedImages, grid: tuple[int, int], *, hidden: bool = False
) -> PointPatches:
    """Find the patch of each key point in the square that was packed; ``hidden`` keeps points behind something too.

    A frame is the image whose id it is or, after a slash, ends with; ValueError where that is none or several.
    """
    (h, w), S = grid, images.image_px
    row_of = {name: m for m, name in enumerate(images.ids)}
    rows_ending: dict[str, list[int]] = {}
    for name, m in row_of.items():
        rows_ending.setdefault(name.rsplit("/", 1)[-1], []).append(m)
    columns: list[tuple[np.ndarray, ...]] = []
    for frame, points in annotations.images.items():
        rows = [row_of[frame]] if frame in row_of else rows_ending.get(frame, [])
        if len(rows) != 1:
            fault = f"the end of {len(rows)} ids, such as {images.ids[rows[0]]!r}" if rows else "none of the images"
            raise ValueError(f"key points of {frame!r}, which is {fault}: frames must be ids such as {images.ids[0]!r}")
        low, high = (np.zeros(2), np.full(2, S)) if images.frames is None else np.split(images.frames[rows[0]], 2)
        place = (points.xy - low) / (high - low)
        cell = np.floor(place * (w, h)).astype(int)  # column, row
        kept = (points.visible | hidden) & (cell >= 0).all(1) & (cell < (w, h)).all(1)
        patch = cell[:, 1] * w + cell[:, 0]
        columns.append((np.full(kept.sum(), rows[0]), patch[kept], points.part[kept], place[kept]))
    if not sum(len(column[0]) for column in columns):
        count = sum(map(len, annotations.images.values()))
        raise ValueError(f"none of {count} key points is visible inside its image: are they in pixels of the picture?")
    image, patch, part, xy = (np.concatenate(column) for column in zip(*columns, strict=True))
    image, patch, part = (column.astype(np.int64) for column in (image, patch, part))
    return PointPatches(image, patch, part, annotations.parts, xy.astype(np.float64))


@dataclass(frozen=True, eq=False)
class PointAgreement:
    """How often the prototype of a key point tells its part, on images that did not name the prototypes; all 0..1."""

    accuracy: float  # share of test points whose prototype bears the name of their part
    balanced: float  # mean of recall over the parts that were tested
    recall: Float64[np.ndarray, " P"]  # share of the points of each part; NaN for a part without points
    chance: float  # accuracy of always telling the part that is commonest on the training images
    counts: Int64[np.ndarray, " P"]  # points tested
    named: Int64[np.ndarray, " K"]  # part that each prototype tells; without a training point the commonest
    parts: tuple[str, ...]
    right: Bool[np.ndarray, " T"]  # whether each tested point was told, in the order of the points

    def row(self) -> dict[str, object]:
        """The agreement as a row of a table; per cent."""
        shares = {name: None if np.isnan(r) else f"{r:.0%}" for name, r in zip(self.parts, self.recall, strict=True)}
        return {"accuracy": f"{self.accuracy:.1%}", "mean over parts": f"{self.balanced:.1%}", **shares}

    def __repr__(self) -> str:
        return (
            f"PointAgreement(accuracy {self.accuracy:.1%}, mean over parts {self.balanced:.1%}, "
            f"chance {self.chance:.1%}, {self.counts.sum()} points)"
        )


def point_agreement(
    assigned: Int[np.ndarray, "M N"], points: PointPatches, train: Bool[np.ndarray, " M"], num_prototypes: int
) -> PointAgreement:
    """Name each prototype by the commonest part among its points on ``train`` images, and test the names on the others.

    Frames of one video are near copies of each other: ``train`` must hold all frames of a video or none. ValueError
    where there are no points to learn from, or none to test.
    """
    learned, tested = _sides(points, train)
    P = len(points.parts)
    table = np.zeros((num_prototypes, P), dtype=np.int64)
    np.add.at(table, (assigned[learned.image, learned.patch], learned.part), 1)
    commonest = int(table.sum(0).argmax())
    named = np.where(table.any(1), table.argmax(1), commonest)
    return _agreement(named[assigned[tested.image, tested.patch]], learned, tested, named)


def nearest_agreement(
    points: PointPatches,
    train: Bool[np.ndarray, " M"],
    values: Float[np.ndarray, "Q V"] | None = None,
    *,
    count: int = 5,
) -> PointAgreement:
    """What nearness alone tells: the part of the nearest ``count`` points of ``train`` images.

    It needs no names. Points are near by x and y in the square, or by ``values``, such as the teacher's features there;
    ValueError as of :func:`point_agreement`.
    """
    learned, tested = _sides(points, train)
    values, known = points.xy if values is None else values, train[points.image]
    neighbours = KNeighborsClassifier(min(count, len(learned))).fit(values[known], learned.part)
    return _agreement(neighbours.predict(values[~known]), learned, tested, np.zeros(0, np.int64))


def _sides(points: PointPatches, train: Bool[np.ndarray, " M"]) -> tuple[PointPatches, PointPatches]:
    """The points that are learned from, and those that are tested."""
    sides = points.select(train), points.select(~train)
    for name, side in zip(("train", "test"), sides, strict=True):
        if not len(side):
            raise ValueError(f"no key points on the {name} images: {points!r}, {train.sum()} of them for training")
    return sides


def _agreement(
    predicted: Int[np.ndarray, " T"], learned: PointPatches, tested: PointPatches, named: Int64[np.ndarray, " K"]
) -> PointAgreement:
    P = len(tested.parts)
    commonest = np.bincount(learned.part, minlength=P).argmax()
    recall = recall_score(tested.part, predicted, labels=np.arange(P), average=None, zero_division=np.nan)
    right, chance = predicted == tested.part, float((tested.part == commonest).mean())
    counts = np.bincount(tested.part, minlength=P)
    balanced = float(np.nanmean(recall))
    return PointAgreement(float(right.mean()), balanced, recall, chance, counts, named, tested.parts, right)


def point_agreement_with_controls(
    assignments: Float[Tensor, "M N K"],
    points: PointPatches,
    images: PackedImages,
    grid: tuple[int, int],
    train: Bool[np.ndarray, " M"] | Sequence[bool],
    *,
    seed: int = 0,
) -> dict[str, PointAgreement]:
    """Agreement of the prototypes, and of what knows no parts: with as many names, learned from the same points.

    The controls are those of :func:`prockd.evaluation.controls.with_controls`, fitted to the ``train`` images as the
    prototypes should be, and :func:`nearest_agreement`, which no grid makes coarse.
    """
    train = np.asarray(train, bool)
    groups = with_controls(assignments, images, grid, train=train, seed=seed)
    found = {name: point_agreement(group, points, train, assignments.shape[2]) for name, group in groups.items()}
    return found | {NEAREST: nearest_agreement(points, train)}
