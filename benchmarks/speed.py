"""Ratios, each measured in one run: a distillation step over a plain step, extract() over the bare timm forward.

    python benchmarks/speed.py     # writes results/speed.md

Times are CPU time of one thread, so that other work on the machine does not count.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import prockd as pk
from prockd.datasets.transforms import to_unit
from prockd.runs import open_world, train_student

RESULTS = Path(__file__).parent / "results" / "speed.md"
SHORT, LONG = 5, 30
"""Steps of two runs: their difference leaves out what happens once, such as embedding the cache."""


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of a call."""
    began = time.process_time()
    work()
    return time.process_time() - began


def steps_of(rounds: int = 5) -> dict[str, float]:
    """Milliseconds of a step of each kind of student: medians of interleaved rounds."""
    teacher = pk.Teacher("farmyard")
    world = open_world(teacher=teacher, num_discover=200, num_unlabelled=10, num_val=10, num_test=10, progress=False)
    discovery, augment, best = pk.best()
    bank = pk.discover(world.source, config=discovery.replace(steps=10), progress=False)
    kinds: dict[str, dict[str, Any]] = {
        "labels alone": {"bank": None, "feature_augmentation": None, "teacher": False},
        "transfer": {"bank": bank, "feature_augmentation": None},
        "transfer + augmentation": {"bank": bank, "feature_augmentation": augment},
    }
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(rounds):
        for name, how in kinds.items():

            def train(steps: int, how: dict[str, Any] = how) -> object:
                return train_student(world, config=best.replace(steps=steps), **how)

            spent = cpu_seconds(lambda train=train: train(LONG)) - cpu_seconds(lambda train=train: train(SHORT))
            times[name].append(spent / (LONG - SHORT) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def extraction(count: int = 384, rounds: int = 3) -> tuple[float, float]:
    """Images a second of the bare backbone and of extract(), which also reads and writes; medians."""
    teacher = pk.Teacher("farmyard")
    images = pk.pack(pk.Farmyard("target", "test", count), 96, progress=False)
    batch = to_unit(torch.from_numpy(images.pixels[:64].copy()))

    def bare() -> None:
        with torch.no_grad():
            for _ in range(count // len(batch)):
                teacher.backbone.forward_intermediates(batch, indices=list(teacher.layers), intermediates_only=True)

    def whole() -> None:
        with tempfile.TemporaryDirectory() as folder:
            pk.extract(teacher, images, views=("plain",), root=Path(folder), progress=False)

    rates = [(count / cpu_seconds(bare), count / cpu_seconds(whole)) for _ in range(rounds)]
    return statistics.median(r for r, _ in rates), statistics.median(r for _, r in rates)


def main() -> None:
    """Measure, print and write the page."""
    torch.set_num_threads(1)
    steps = steps_of()
    plain = steps["labels alone"]
    bare, whole = extraction()
    lines = ["# Speed, as ratios", "", "Made by `python benchmarks/speed.py`: CPU time of one thread, one run.", ""]
    lines += ["| a step of 48 images, default student | ms | over labels alone (aim 1.25) |", "|---|---|---|"]
    lines += [f"| {name} | {ms:.0f} | {ms / plain:.2f} |" for name, ms in steps.items()]
    lines += ["", "| images through the teacher | images/s | over the bare forward (floor 0.90) |", "|---|---|---|"]
    lines += [f"| bare timm forward | {bare:.0f} | 1.00 |", f"| `extract()` | {whole:.0f} | {whole / bare:.2f} |", ""]
    RESULTS.write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
