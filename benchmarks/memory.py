"""What explorers cost the kernel that are opened and dropped, as when a cell is run again and again.

    python benchmarks/memory.py [--explorers 20] [--patches 100000] [--quick] [--write]

The bar is 20 MB each: Jupyter keeps a widget as long as a page may show it. ``--write`` makes results/memory.md.
"""

import argparse
import gc
import json
from pathlib import Path

import numpy as np
import psutil
from prockd_widgets import PrototypeExplorer

from prockd import PackedImages, PatchFeatures, discover
from prockd.settings.method import DiscoverConfig

GRID, SIZE, WIDTH = 24, 96, 96
ABOUT = """# The memory of explorers

`python benchmarks/memory.py --write`: {patches:,} patches ({images} images, {width} numbers a patch, {K} prototypes),
an explorer on the same features and bank opened {explorers} times, each dropped and none closed, as when a cell is run
again. After the first one the process held {first:,.0f} MB, after the last one {last:,.0f} MB.

**{each:.1f} MB each** (the bar is 20).
"""


def resident_mb() -> float:
    """What the process holds."""
    gc.collect()
    return psutil.Process().memory_info().rss / 1e6


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--explorers", type=int, default=20)
    parser.add_argument("--patches", type=int, default=100_000)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--quick", action="store_true", help="5 explorers on new numbers, a last line of JSON")
    asked = parser.parse_args()
    count, rng = (5, np.random.default_rng()) if asked.quick else (asked.explorers, np.random.default_rng(0))
    images = asked.patches // GRID**2
    labels = np.arange(images) % 4
    pixels = rng.integers(0, 255, (images, 3, SIZE, SIZE), np.uint8)
    ids = tuple(f"image/{m}" for m in range(images))
    packed = PackedImages(pixels, labels, ids, ("a", "b", "c", "d"), "memory")
    values = rng.normal(size=(images, 1, WIDTH, GRID, GRID)).astype(np.float16)
    features = PatchFeatures((values,), packed, "teacher", (0,))
    config = DiscoverConfig(num_prototypes=48, embed_dim=WIDTH, steps=0, salient=False, max_patches=5_000)
    bank = discover(features, config=config, progress=False)

    def open_one() -> None:
        PrototypeExplorer(bank, features, projection="pca")

    open_one()
    first = resident_mb()
    for _ in range(count - 1):
        open_one()
    last = resident_mb()
    each = (last - first) / (count - 1)
    sizes = {"patches": images * GRID**2, "images": images, "width": WIDTH, "K": 48, "explorers": count}
    text = ABOUT.format(**sizes, first=first, last=last, each=each)
    print(text)
    if asked.quick:
        print(json.dumps({"MB each": round(each, 1)}))
    elif asked.write:
        (Path(__file__).parent / "results" / "memory.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
