"""A small world whose patches are of five kinds, each a part in another place: for tests of the widgets."""

import numpy as np

from prockd import PackedImages, PatchFeatures, PrototypeBank, discover
from prockd.settings.method import DiscoverConfig

SIZE, GRID, CLASSES = 32, 4, ("cow", "hen", "pig")
PART_NAMES = ("background", "leg", "tail")


def world(count: int = 12, *, parts: bool = True, grid: int = GRID, seed: int = 0) -> PatchFeatures:
    """Patches of a prototype share a direction; odd rows of patches are part 1, the corner is part 2."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(CLASSES)
    kind = (np.arange(grid * grid)[None] + labels[:, None]) % 5  # (count, N)
    pixels = rng.integers(0, 90, (count, 3, SIZE, SIZE), np.uint8)
    blocks = np.kron(kind.reshape(count, grid, grid), np.ones((1, SIZE // grid, SIZE // grid), np.int64))
    pixels[:, 0] += (30 * blocks).astype(np.uint8)
    masks = np.zeros((count, SIZE, SIZE), np.uint8)
    masks[:, SIZE // 2 :], masks[:, : SIZE // grid, : SIZE // grid] = 1, 2
    ids = tuple(f"farm/{i:03d}" for i in range(count))
    images = PackedImages(pixels, labels, ids, CLASSES, f"world-{count}-{seed}", masks if parts else None)
    directions = np.random.default_rng(1).normal(size=(5, 12))
    values = directions[kind] + 0.15 * rng.normal(size=(count, grid * grid, 12))
    maps = values.transpose(0, 2, 1).reshape(count, 1, 12, grid, grid).astype(np.float16)
    return PatchFeatures((maps,), images, "teacher" + "0" * 13, (0,))


def discovered(features: PatchFeatures, num_prototypes: int = 5) -> PrototypeBank:
    """A bank of these features, without refinement."""
    config = DiscoverConfig(num_prototypes=num_prototypes, embed_dim=12, steps=0, salient=False)
    return discover(features, config=config, progress=False)
