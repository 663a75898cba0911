"""Two ratios, each measured in one run.

A distillation step over a plain step, and extract() over the bare timm forward.

    python benchmarks/speed.py
"""

import tempfile
import time
from pathlib import Path

import torch

import prockd as pk
from prockd.features import to_unit
from prockd.pipeline import farmyard_world, train_student


def step_ratio(rounds: int = 3, steps: int = 15) -> tuple[float, float]:
    """Milliseconds of a plain and of a distillation step, the medians of interleaved rounds."""
    teacher = pk.Teacher("farmyard")
    world = farmyard_world(teacher, num_source=200, num_unlabelled=10, num_val=10, num_test=10)
    discovery, augment, best = pk.best()
    bank = pk.discover(world.source, config=discovery.replace(steps=10), progress=False)
    plain, distilled = [], []
    for _ in range(rounds):
        config = best.replace(steps=steps)
        plain.append(train_student(world, None, None, config, teacher=False)[1].seconds_per_step)
        distilled.append(train_student(world, bank, augment, config)[1].seconds_per_step)
    middle = rounds // 2
    return sorted(plain)[middle] * 1e3, sorted(distilled)[middle] * 1e3


def extract_ratio(count: int = 384) -> tuple[float, float]:
    """Images a second of the bare backbone and of extract(), which also reads and writes; medians of three."""
    teacher = pk.Teacher("farmyard")
    images = pk.pack(pk.Farmyard("target", "test", count), 96, progress=False)
    batch = to_unit(torch.from_numpy(images.pixels[:64].copy()))
    bare, whole = [], []
    for _ in range(3):
        began = time.perf_counter()
        with torch.no_grad():
            for _ in range(count // 64):
                teacher.backbone.forward_intermediates(batch, indices=list(teacher.layers), intermediates_only=True)
        bare.append(count / (time.perf_counter() - began))
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            pk.extract(teacher, images, views=1, root=Path(folder), progress=False)
            whole.append(count / (time.perf_counter() - began))
    return sorted(bare)[1], sorted(whole)[1]


if __name__ == "__main__":
    plain, distilled = step_ratio()
    print(f"step: plain {plain:.0f} ms, distillation {distilled:.0f} ms, ratio {distilled / plain:.2f} (aim: 1.25)")
    bare, whole = extract_ratio()
    print(f"extract: bare {bare:.0f} images/s, extract {whole:.0f} images/s, ratio {whole / bare:.2f} (floor: 0.9)")
