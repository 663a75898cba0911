"""Ratios, each measured in one run: a distillation step over a plain step, extract() over the bare timm forward.

    python benchmarks/speed.py [teacher.safetensors]     # writes results/speed.md
    python benchmarks/speed.py --quick                   # at most five minutes; the last line is one JSON object

Times are CPU time of one thread, so that other work on the machine does not count; of two processes it is the wall's.
"""

import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from steps import RESNET18, Setting, bare, ours, trainer

import prockd as pk
from prockd.datasets.transforms import to_unit
from prockd.devices import autocast, fastest_precision
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


def quick() -> dict[str, float | None]:
    """Main figures of a fresh small measurement."""
    torch.set_num_threads(1)
    device = torch.device("cpu")
    chosen = fastest_precision(device)
    size = Setting(images=192, precision="no" if chosen == "fp32" else chosen)
    works = {"bare": bare(size)} | {k: ours(k, size) for k in ("labels alone", "transfer", "augmented", "soft targets")}
    step = rounds_of({name: partial(work, 2) for name, work in works.items()}, 9, seconds=100)
    told: dict[str, float | None] = {f"step_{name}": of(step[kind], step["bare"]) for name, kind in (
        ("labels_alone", "labels alone"), ("transfer", "transfer"), ("augmented", "augmented"),
        ("recipe", "soft targets"))}  # fmt: skip
    teacher, count = farmyard_teacher(), 64
    images = pk.pack(pk.Farmyard("target", "val", count, image_px=teacher.image_px), teacher.image_px, progress=False)
    batch = to_unit(torch.from_numpy(images.pixels[:16].copy()))

    def passes(precision: str) -> None:
        with torch.no_grad(), autocast(device, precision):
            for _ in range(count // len(batch)):
                teacher.backbone.forward_intermediates(batch, indices=list(teacher.layers), intermediates_only=True)

    def kept() -> None:
        with tempfile.TemporaryDirectory() as folder:
            pk.extract(teacher, images, views=("plain",), precision=chosen, root=Path(folder), progress=False)

    passed = {"fp32": partial(passes, "fp32"), "bare": partial(passes, chosen), "kept": kept}
    seen = rounds_of(passed, 5, seconds=40)
    told |= {"extract_of_bare": of(seen["bare"], seen["kept"]), "bf16_of_fp32": of(seen["bare"], seen["fp32"])}
    told["kmeans_of_faiss"] = kmeans_of_faiss()
    for size, steps in (("resnet18", 6), ("farmyard", 12)):  # of little work what each step costs anyway is more
        (wall, cpu), (wall_of_two, cpu_of_two) = (seconds_of_ranks(count, size, steps) for count in (1, 2))
        name = "two_ranks" if size == "resnet18" else f"two_ranks_{size}"
        told |= {name: wall / wall_of_two, f"{name}_cpu": cpu / cpu_of_two}
    begun = {"help": ["-m", "prockd", "--help"], "torch": ["-c", "import torch"]}
    own = rounds_of({name: partial(started, words) for name, words in begun.items()}, 3, seconds=30, children=True)
    return told | {"help_of_torch": of(own["help"], own["torch"])}


def rounds_of(
    works: dict[str, Callable[[], object]], rounds: int, *, seconds: float, children: bool = False
) -> dict[str, list[float]]:
    """CPU seconds of each work, a number a round, which take turns after one that does not count.

    On a machine that has other work too there are fewer rounds, as many as begin within so many seconds, or one.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    who, began = resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF, time.perf_counter()
    for turn in range(rounds + 1):
        if turn > 1 and time.perf_counter() - began > seconds:
            break
        for name, work in works.items():
            before = resource.getrusage(who)
            work()
            after = resource.getrusage(who)
            if turn:
                times[name].append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return times


def of(first: list[float], second: list[float]) -> float:
    """The median of ratios of rounds side by side."""
    return statistics.median(a / b for a, b in zip(first, second, strict=True))


def started(words: list[str]) -> None:
    """A new Python that does something."""
    subprocess.run([sys.executable, "-W", "ignore", *words], check=True, capture_output=True)


def kmeans_of_faiss(patches: int = 30_000, width: int = 128, clusters: int = 96) -> float | None:
    """CPU time of discovery's clustering over that of faiss, which stops at the first inertia that is no worse.

    None where there is no faiss: ``pip install faiss-cpu``, for this line alone.
    """
    try:
        import faiss
    except ImportError:
        return None
    from prockd.prototypes.kmeans import k_means

    rng = np.random.default_rng(0)
    middles = rng.standard_normal((3 * clusters, width), np.float32)
    sample = middles[rng.integers(len(middles), size=patches)] + rng.standard_normal((patches, width), np.float32)
    points, found = torch.from_numpy(sample), list[torch.Tensor]()
    mine = cpu_seconds(lambda: found.append(k_means(points, torch.ones(patches), clusters, seed=0)[0]))
    inertia = float(torch.cdist(points, found[0]).min(1).values.square().sum())
    faiss.omp_set_num_threads(1)
    for rounds in (5, 10, 20, 40):
        theirs = faiss.Kmeans(width, clusters, niter=rounds, seed=0, max_points_per_centroid=patches)
        spent = cpu_seconds(partial(theirs.train, sample))
        if theirs.index.search(sample, 1)[0].sum() <= inertia * 1.001:
            break
    return mine / spent


def seconds_of_ranks(count: int, size: str, steps: int) -> tuple[float, float]:
    """Wall and CPU time of a step of a whole batch that so many processes of one thread share, of the slowest.

    Other work on the machine lengthens the one, of several processes more than of one, and hardly the other.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    names = {"WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    words = [sys.executable, "-W", "ignore", __file__, "--rank", size, str(steps)]
    ranks = [
        subprocess.Popen(
            words, stdout=subprocess.PIPE, text=True,
            env=os.environ | {k: str(v) for k, v in (names | {"RANK": rank, "LOCAL_RANK": rank}).items()},
        )
        for rank in range(count)
    ]  # fmt: skip
    wall, cpu = np.array([process.communicate()[0].split()[-2:] for process in ranks], float).max(0)
    return float(wall), float(cpu)


def one_rank(size: str, steps: int) -> None:
    """What each process of :func:`seconds_of_ranks` does."""
    torch.set_num_threads(1)
    setting = Setting(images=192) if size == "farmyard" else replace(RESNET18, images=192)
    own = trainer("labels alone", setting)
    for step in range(2):
        own.step(step)
    spent = []
    for step in range(2, 2 + steps):
        began = time.perf_counter(), time.process_time()
        own.step(step)
        spent.append((time.perf_counter() - began[0], time.process_time() - began[1]))
    print(*np.min(spent, 0))


def main() -> None:
    """Measure, print and write the page."""
    if "--rank" in sys.argv:
        return one_rank(sys.argv[-2], int(sys.argv[-1]))
    if "--quick" in sys.argv:
        sys.argv = sys.argv[:1]
        return print(json.dumps({name: value and round(value, 3) for name, value in quick().items()}))
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
