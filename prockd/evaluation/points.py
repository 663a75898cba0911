"""Do prototypes agree with key points? For images whose parts are marked by points instead of masks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int64
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor

from prockd.datasets import PackedImages, PointAnnotations
from prockd.evaluation.parts import pixel_patches


@dataclass(frozen=True, eq=False)
class PointPatches:
    """Which patch of which image each key point lies in.

    Attributes:
        image: (Q,) image of each point.
        patch: (Q,) patch of the image, row by row of the grid.
        part: (Q,) index into ``parts``.
        parts: P part names.
    """

    image: Int64[np.ndarray, " Q"]
    patch: Int64[np.ndarray, " Q"]
    part: Int64[np.ndarray, " Q"]
    parts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.part)

    def of(self, images: Bool[np.ndarray, " M"]) -> "PointPatches":
        """The points of some images."""
        kept = images[self.image]
        return PointPatches(self.image[kept], self.patch[kept], self.part[kept], self.parts)

    def __repr__(self) -> str:
        counts = zip(self.parts, np.bincount(self.part, minlength=len(self.parts)), strict=True)
        told = ", ".join(f"{name} {count}" for name, count in counts)
        return f"PointPatches({len(self)} points on {len(np.unique(self.image))} images: {told})"


def point_patches(
    annotations: PointAnnotations, images: PackedImages, grid: tuple[int, int], *, hidden: bool = False
) -> PointPatches:
    """Find the patch of each key point; points outside the square that was packed are left out.

    Args:
        annotations: what :func:`prockd.datasets.read_keypoints` returned; a frame is the image whose id it is, or with
            whose id it ends after a slash.
        images: images packed with any fit.
        grid: rows and columns of patches.
        hidden: keep points behind something too.

    Raises:
        ValueError: a frame is none of the images, or the end of several ids (both are named).
    """
    (h, w), S = grid, images.image_px
    place = {name: m for m, name in enumerate(images.ids)}
    ends: dict[str, list[int]] = {}
    for name, m in place.items():
        ends.setdefault(name.rsplit("/", 1)[-1], []).append(m)
    found: list[tuple[np.ndarray, ...]] = []
    for frame, points in annotations.images.items():
        fits = [place[frame]] if frame in place else ends.get(frame, [])
        if len(fits) != 1:
            told = f"the end of {len(fits)} ids, such as {images.ids[fits[0]]!r}" if fits else "none of the images"
            raise ValueError(f"key points of {frame!r}, which is {told}: frames must be ids such as {images.ids[0]!r}")
        low, high = (np.zeros(2), np.full(2, S)) if images.frames is None else np.split(images.frames[fits[0]], 2)
        cell = np.floor((points.xy - low) / (high - low) * (w, h)).astype(int)  # column, row
        kept = (points.visible | hidden) & (cell >= 0).all(1) & (cell < (w, h)).all(1)
        found.append((np.full(kept.sum(), fits[0]), (cell[:, 1] * w + cell[:, 0])[kept], points.part[kept]))
    image, patch, part = (np.concatenate(column).astype(np.int64) for column in zip(*found, strict=True))
    return PointPatches(image, patch, part, annotations.parts)


@dataclass(frozen=True, eq=False)
class PointAgreement:
    """How often the prototype of a key point tells its part, on images that did not name the prototypes.

    Attributes:
        accuracy: share of test points whose prototype bears the name of their part, 0..1.
        balanced: mean of ``recall`` over the parts that were tested.
        recall: (P,) the same share of the points of each part; NaN for a part without points.
        chance: accuracy of always telling the part that is commonest on the training images.
        counts: (P,) points tested.
        named: (K,) part that each prototype tells; those without a training point tell the commonest.
        parts: P part names.
    """

    accuracy: float
    balanced: float
    recall: Float64[np.ndarray, " P"]
    chance: float
    counts: Int64[np.ndarray, " P"]
    named: Int64[np.ndarray, " K"]
    parts: tuple[str, ...]

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
    assigned: Int[np.ndarray, "M N"],
    points: PointPatches,
    train: Bool[np.ndarray, " M"],
    num_prototypes: int,
) -> PointAgreement:
    """Name each prototype by the commonest part among its points on ``train`` images, and test the names on the others.

    Frames of one video are near copies of each other: ``train`` must hold all frames of a video or none.

    Args:
        assigned: the strongest prototype of each patch.
        points: where the parts are.
        train: which images name the prototypes.
        num_prototypes: K.

    Raises:
        ValueError: there are no points to learn from, or none to test.
    """
    learned, tested = points.of(train), points.of(~train)
    for which, chosen in (("train", learned), ("test", tested)):
        if not len(chosen):
            raise ValueError(f"no key points on the {which} images: {points!r}, {train.sum()} of them for training")
    P = len(points.parts)
    table = np.zeros((num_prototypes, P), dtype=np.int64)
    np.add.at(table, (assigned[learned.image, learned.patch], learned.part), 1)
    commonest = int(table.sum(0).argmax())
    named = np.where(table.any(1), table.argmax(1), commonest)
    right = named[assigned[tested.image, tested.patch]] == tested.part
    counts = np.bincount(tested.part, minlength=P)
    recall = np.full(P, np.nan)
    np.divide(np.bincount(tested.part, right, minlength=P), counts, out=recall, where=counts > 0)
    return PointAgreement(
        float(right.mean()), float(np.nanmean(recall)), recall, float((tested.part == commonest).mean()),
        counts, named, points.parts,
    )  # fmt: skip


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

    The controls are k-means on the raw pixels of patches, the place in the image (legs are low in most pictures), and
    the same assignments in shuffled order. They are fitted to the ``train`` images, as the prototypes should be.
    """
    train = np.asarray(train, bool)
    assigned = assignments.argmax(-1).numpy()
    M, N = assigned.shape
    K, (h, w) = assignments.shape[2], grid
    pixels = pixel_patches(images, grid)
    flat = pixels[train].reshape(-1, pixels.shape[-1])
    clusters = MiniBatchKMeans(K, n_init=3, random_state=seed).fit(flat[:: max(1, len(flat) // 30_000)])
    by_pixels = clusters.predict(pixels.reshape(M * N, -1)).reshape(M, N).astype(np.int64)
    side = max(1, int(K**0.5))
    rows, columns = np.divmod(np.arange(N), w)
    by_place = np.tile(rows * side // h * side + columns * side // w, (M, 1))
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(assigned.ravel()).reshape(M, N)
    kinds = {"prototypes": assigned, "raw pixels": by_pixels, "place in the image": by_place, "shuffled": shuffled}
    return {name: point_agreement(each, points, train, K) for name, each in kinds.items()}
