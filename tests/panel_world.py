"""A world so small that a student is trained in a moment: for tests of the panel."""

import numpy as np

from prockd import PackedImages, PatchFeatures
from prockd.runs.world import World

SIZE, CLASSES = 32, ("cow", "hen", "pig")


def images(count: int, name: str, seed: int) -> PackedImages:
    """Noise of a different colour for each class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(CLASSES)
    pixels = rng.integers(0, 128, (count, 3, SIZE, SIZE), np.uint8)
    pixels[np.arange(count), labels] += 120
    return PackedImages(pixels, labels, tuple(f"{name}/{i}" for i in range(count)), CLASSES, f"{name}-{seed}")


def features(count: int, name: str, seed: int) -> PatchFeatures:
    packed, rng = images(count, name, seed), np.random.default_rng(seed)
    maps = tuple(rng.normal(size=(count, 2, d, n, n)).astype(np.float16) for d, n in ((6, 4), (8, 2)))
    return PatchFeatures(maps, packed, "teacher", (2, 3))


def tiny_world() -> World:
    return World(*(features(n, name, i) for i, (n, name) in enumerate(
        [(12, "source"), (12, "train"), (9, "unlabelled"), (9, "val"), (6, "test")])))  # fmt: skip
