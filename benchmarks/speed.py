"""Ratios, each measured in one run: a distillation step over a plain step, extract() over the bare timm forward.

    python benchmarks/speed.py [teacher.safetensors]     # writes results/speed.md

Times are CPU time of one thread, so that other work on the machine does not count.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

import prockd as pk
from prockd.datasets.transforms import to_unit
from prockd.runs import open_world, train_student
from prockd.runs.recipes import recipe_of

RESULTS = Path(__file__).parent / "results" / "speed.md"
SHORT, LONG = 5, 30
"""Steps of two runs: their difference leaves out what happens once, such as embedding the cache."""


def farmyard_teacher() -> pk.Teacher:
    """The one that ships, or that of a file."""
    return pk.Teacher("farmyard", weights=sys.argv[1] if sys.argv[1:] else None)


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of a call."""
    began = time.process_time()
    work()
    return time.process_time() - began


def steps_of(rounds: int = 5) -> dict[str, float]:
    """Milliseconds of a step of each kind of student: medians of interleaved rounds."""
    teacher = farmyard_teacher()
    world = open_world(teacher=teacher, num_discover=200, num_unlabelled=100, num_val=10, num_test=10, progress=False)
    discovery, augment, best = pk.best()
    alone = recipe_of("classification").alone  # as many images a step
    bank = pk.discover(world.source, config=discovery.replace(steps=10), progress=False)
    kinds: dict[str, dict[str, Any]] = {
        "labels alone": {"bank": None, "feature_augmentation": None, "teacher": False, "config": alone},
        "transfer": {"bank": bank, "feature_augmentation": None, "config": best.replace(soft_weight=0.0)},
        "transfer + soft targets (z⁺ is fitted afterwards)": {
            "bank": bank, "feature_augmentation": None, "config": best,
        },
        "transfer + soft targets + attention": {
            "bank": bank, "feature_augmentation": augment.replace(content="attention"), "config": best,
        },
    }  # fmt: skip
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(rounds):
        for name, how in kinds.items():

            def train(steps: int, how: dict[str, Any] = how) -> object:
                return train_student(world, **how | {"config": how["config"].replace(steps=steps)})

            spent = cpu_seconds(lambda train=train: train(LONG)) - cpu_seconds(lambda train=train: train(SHORT))
            times[name].append(spent / (LONG - SHORT) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def extraction(count: int = 192, rounds: int = 3) -> dict[str, float]:
    """Images a second of the bare backbone and of what keeps features, in one view; medians of interleaved rounds."""
    teacher = farmyard_teacher()
    images = pk.pack(pk.Farmyard("target", "val", count, image_px=teacher.image_px), teacher.image_px, progress=False)
    batch = to_unit(torch.from_numpy(images.pixels[:16].copy())).contiguous(memory_format=torch.channels_last)
    bank = pk.PrototypeBank(48, sum(teacher.widths), 96)

    def bare() -> None:
        with torch.no_grad():
            for _ in range(count // len(batch)):
                teacher.backbone.forward_intermediates(batch, indices=list(teacher.layers), intermediates_only=True)

    def kept(keep: Callable[..., object], **how: Any) -> Callable[[], object]:
        def run() -> None:
            with tempfile.TemporaryDirectory() as folder:
                keep(teacher, images, views=("plain",), root=Path(folder), progress=False, **how)

        return run

    works = {"bare timm forward, fp32, 16 a batch": bare}
    works |= {f"`extract()`, {p}, {n} a batch": kept(pk.extract, precision=p, batch_size=n)
              for p, n in (("fp32", 64), ("fp32", 16), ("bf16", 64), ("bf16", 16))}  # fmt: skip
    works["`extract_compact()`, bf16"] = kept(pk.extract_compact, precision="bf16")
    works["`embed_features()`, bf16"] = kept(partial(pk.embed_features, bank), precision="bf16")
    rates: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            rates[name].append(count / cpu_seconds(work))
    return {name: statistics.median(values) for name, values in rates.items()}


def main() -> None:
    """Measure, print and write the page."""
    torch.set_num_threads(1)
    steps = steps_of()
    plain = steps["labels alone"]
    rates = extraction()
    bare = next(iter(rates.values()))
    lines = ["# Speed, as ratios", "", "Made by `python benchmarks/speed.py`: CPU time of one thread, one run."]
    lines += [f"{farmyard_teacher()}.", ""]
    lines += ["| a step of 48 images, default student | ms | over labels alone (aim 1.15) |", "|---|---|---|"]
    lines += [f"| {name} | {ms:.0f} | {ms / plain:.2f} |" for name, ms in steps.items()]
    lines += ["", "| images through the teacher | images/s | over the bare forward (floor 0.90) |", "|---|---|---|"]
    lines += [f"| {name} | {rate:.0f} | {rate / bare:.2f} |" for name, rate in rates.items()]
    lines += ["", "`extract_compact()` passes 48 images twice, which here is a quarter of them.", ""]
    RESULTS.write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
