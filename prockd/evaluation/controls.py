"""What knows no parts, beside every number: place in the frame, raw pixels, shuffled assignments."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Int
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor

from prockd.datasets import PackedImages
from prockd.evaluation.patches import cut_patches, nearest_places, pixel_patches, place_blocks

PLACE, NEAREST, PIXELS, SHUFFLED = "place in the image", "5 nearest places", "raw pixels", "shuffled"
"""Names of the controls in every table."""

MAX_FITTED = 30_000  # patches of raw pixels that k-means is fitted to
_CHUNK = 32  # images whose pixels lie in memory at a time


def with_controls(
    assignments: Float[Tensor, "M N K"],
    images: PackedImages,
    grid: tuple[int, int],
    *,
    train: Bool[np.ndarray, " M"] | None = None,
    seed: int = 0,
) -> dict[str, Int[np.ndarray, "M N"]]:
    """The strongest prototype of each patch, and groups of patches with at most as many names that know no parts.

    Returns:
        The group of each patch for ``"prototypes"``; for ``"place in the image"``, the blocks of a square grid over the
        frame; for ``"raw pixels"``, k-means on the pixels of patches, fitted to the ``train`` images or to all; and for
        ``"shuffled"``, the prototypes in another order.
    """
    assigned, K = assignments.argmax(-1).cpu().numpy(), assignments.shape[2]
    shuffled = np.random.default_rng(seed).permutation(assigned.ravel()).reshape(assigned.shape)
    place = np.tile(place_blocks(grid, K), (len(assigned), 1))
    clusters = pixel_clusters(images, grid, K, train=train, seed=seed)
    by_pixels = np.concatenate([clusters.predict(flat) for flat in _pixel_chunks(images, grid)]).astype(np.int64)
    return {"prototypes": assigned, PLACE: place, PIXELS: by_pixels.reshape(assigned.shape), SHUFFLED: shuffled}


def pixel_clusters(
    images: PackedImages,
    grid: tuple[int, int],
    count: int,
    *,
    train: Bool[np.ndarray, " M"] | None = None,
    seed: int = 0,
) -> MiniBatchKMeans:
    """K-means on the raw pixels of patches: of some of the images where all have too many patches.

    Raises:
        ValueError: fewer patches than clusters.
    """
    rows = np.arange(len(images)) if train is None else np.flatnonzero(train)
    rows = rows[:: max(1, len(rows) * grid[0] * grid[1] // MAX_FITTED)]
    fitted = pixel_patches(images.select(rows), grid)
    fitted = fitted.reshape(-1, fitted.shape[2])
    if len(fitted) < count:
        raise ValueError(f"{count} prototypes, but only {len(fitted)} patches: give more images or fewer prototypes")
    return MiniBatchKMeans(count, n_init=3, random_state=seed).fit(fitted)


def pixel_strongest(
    clusters: MiniBatchKMeans, images: PackedImages, grid: tuple[int, int]
) -> tuple[Int[np.ndarray, "M K"], Float[np.ndarray, "M K"]]:
    """Of each image the patch nearest to each cluster of raw pixels, and minus its distance."""
    patches, scores = [], []
    for flat in _pixel_chunks(images, grid):
        nearness = -clusters.transform(flat).reshape(-1, grid[0] * grid[1], clusters.n_clusters)
        patches.append(nearness.argmax(1))
        scores.append(nearness.max(1))
    return np.concatenate(patches), np.concatenate(scores)


def _pixel_chunks(images: PackedImages, grid: tuple[int, int]) -> Iterator[Float32[np.ndarray, "n V"]]:
    for start in range(0, len(images), _CHUNK):
        patches = pixel_patches(images.select(np.arange(start, min(start + _CHUNK, len(images)))), grid)
        yield patches.reshape(-1, patches.shape[2])


def pixel_names(
    clusters: MiniBatchKMeans, grid: tuple[int, int]
) -> Callable[[Float[Tensor, "B 3 S S"]], Float[Tensor, "B N K"]]:
    """How clusters of raw pixels name the patches of images in 0..1."""

    def assign(images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B N K"]:
        patches = cut_patches(images.contiguous().numpy(), grid)
        named = torch.from_numpy(clusters.predict(patches.reshape(-1, patches.shape[2]))).long()
        return F.one_hot(named, clusters.n_clusters).reshape(len(images), -1, clusters.n_clusters).half()

    return assign


def place_names(grid: tuple[int, int], count: int) -> Callable[[Float[Tensor, "B 3 S S"]], Float[Tensor, "B N K"]]:
    """How blocks of the frame name the patches of images: always the same."""
    named = F.one_hot(torch.from_numpy(place_blocks(grid, count)), count).half()
    return lambda images: named.expand(len(images), -1, -1)


def nearest_place_parts(
    parts: Int[np.ndarray, "M N"], grid: tuple[int, int], num_parts: int, *, count: int = 5, seed: int = 0
) -> Int[np.ndarray, "M N"]:
    """The part that place alone tells of each patch: 5 nearest neighbours on x and y, among the other half's patches.

    All images share one grid, so that many foreground patches are equally near, at the same place: they all vote. Where
    there are fewer than ``count``, the next places join until there are. ValueError for a single image, which has no
    other half.
    """
    M, N = parts.shape
    if M < 2:
        raise ValueError("one image has no other half to learn places from: give at least 2 images")
    half, near = np.random.default_rng(seed).permutation(M) % 2, nearest_places(grid)
    told = np.empty_like(parts)
    for side in (0, 1):
        votes = np.stack([(parts[half != side] == part).sum(0) for part in range(1, num_parts)], 1)  # (N, P - 1)
        voters = votes.sum(1)[near].cumsum(1)  # (N, N) as more and more places vote
        enough = (voters < min(count, voters[0, -1])).sum(1)  # the last place that is needed
        told[half == side] = votes[near].cumsum(1)[np.arange(N), enough].argmax(1) + 1
    return told
