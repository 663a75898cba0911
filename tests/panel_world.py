"""A world so small that a student is trained in a moment: for tests of the panel."""

import numpy as np

from prockd import PackedImages, PatchFeatures
from prockd.runs import World, task_settings
from prockd.settings import set_values

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
    return PatchFeatures(maps, packed, "teacher", (2, 3), ("plain", "mirrored"))


def tiny_world() -> World:
    names = {"source": 12, "train": 12, "unlabelled": 9, "val": 9, "test": 6}
    sets = {name: features(count, name, i) for i, (name, count) in enumerate(names.items())}
    return World(set_values(task_settings(), [f"student.image_px={SIZE}"]), sets)
