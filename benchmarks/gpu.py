"""One script for one GPU, at most four minutes: steps over a bare loop, what waits, all four tasks, extraction.

    python benchmarks/gpu.py        # prints a table, what failed with its traceback, and one JSON object at the end

What fails does not stop the rest. Without a GPU it runs all the same, tiny, so that it can be tried anywhere.
"""

import json
import os
import statistics
import sys
import tempfile
import time
import traceback
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
HAS_GPU, BEGAN, SECONDS = torch.cuda.is_available(), time.perf_counter(), 240
if find_spec("tomlkit") is None:  # reads and writes settings, which nothing here does
    sys.modules["tomlkit"] = types.ModuleType("tomlkit")

from steps import RESNET18, Setting, bare, ours, trainer  # noqa: E402

import prockd as pk  # noqa: E402
from prockd.runs.recipes import task_settings  # noqa: E402
from prockd.runs.students import find_prototypes, train_student  # noqa: E402
from prockd.runs.world import open_world  # noqa: E402
from prockd.training.feeding import fed  # noqa: E402

RESULT: dict[str, Any] = {"failed": []}
SIZE = replace(RESNET18, device="cuda", images=1024) if HAS_GPU else Setting(images=64, batch=8)


def left() -> float:
    """Seconds of the script's own bound that are left."""
    return SECONDS - (time.perf_counter() - BEGAN)


def wait() -> None:
    if HAS_GPU:
        torch.cuda.synchronize()


@contextmanager
def part(name: str) -> Iterator[None]:
    """One part of the script: its time, and what went wrong in it."""
    began = time.perf_counter()
    print(f"\n== {name}", flush=True)
    try:
        yield
    except Exception:
        RESULT["failed"].append(name)
        traceback.print_exc(file=sys.stdout)
    print(f"   ({time.perf_counter() - began:.0f} s; {left():.0f} s left)", flush=True)


def vit() -> pk.Teacher:
    name, px = ("dinov2_small", 224) if HAS_GPU else ("test_vit", 160)
    return pk.Teacher(name, image_px=px, **({"dynamic_img_size": True} if not HAS_GPU else {})).to(SIZE.device)


def measure(works: dict[str, Callable[[int], None]], rounds: int = 7, count: int = 40) -> dict[str, list[float]]:
    """Milliseconds of a step of each kind, a number a round; the kinds take turns."""
    rounds, count = (rounds, count) if HAS_GPU else (2, 2)
    times: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work(15 if HAS_GPU else 1)
        wait()
    for _ in range(rounds):
        for name, work in works.items():
            wait()
            began = time.perf_counter()
            work(count)
            wait()
            times[name].append((time.perf_counter() - began) / count * 1e3)
    return times


def steps() -> None:
    """The table of steps: medians, and medians of ratios of rounds side by side."""
    makers: dict[str, Callable[[], Callable[[int], None]]] = {
        "bare loop": lambda: bare(SIZE, crops=False),
        "bare loop, a ViT-S/14 in each step": lambda: bare(SIZE, crops=False, teacher=vit()),
        "labels alone": lambda: ours("labels alone", SIZE),
        "transfer": lambda: ours("transfer", SIZE),
        "soft targets": lambda: ours("soft targets", SIZE),
        "attention": lambda: ours("attention", SIZE),
        "teacher in each step": lambda: ours("teacher in each step", SIZE, vit()),
    }
    works: dict[str, Callable[[int], None]] = {}
    for name, make in makers.items():
        with part(f"step: {name}"):
            work = make()
            work(2)
            wait()
            works[name] = work
    times = measure(works)
    print(
        "\n| a step of 64 images of 224 px, ResNet-18, bf16 | ms | min..max | over the bare loop |\n|---|---|---|---|"
    )
    for name, own in times.items():
        ratio = statistics.median(a / b for a, b in zip(own, times["bare loop"], strict=True))
        RESULT[name] = {"ms": round(statistics.median(own), 2), "of_bare": round(ratio, 3)}
        print(f"| {name} | {statistics.median(own):.2f} | {min(own):.2f}..{max(own):.2f} | {ratio:.2f} |", flush=True)


def where() -> None:
    """What a step of transfer takes: to launch it, on the GPU, to read it; and every wait by its line."""
    own = trainer("soft targets", SIZE)
    feeds = [own.feed(step) for step in range(12)]
    for step in range(4):
        own.step(step, feeds[step])
    wait()
    began = time.perf_counter()
    for step in range(4, 12):
        own.step(step, feeds[step])
    launched = (time.perf_counter() - began) / 8 * 1e3
    wait()
    done, began = (time.perf_counter() - began) / 8 * 1e3, time.perf_counter()
    for step in range(12, 20):
        own.feed(step)
    wait()
    reading = (time.perf_counter() - began) / 8 * 1e3
    print(f"   a step whose batch is there: launched {launched:.2f} ms, done {done:.2f}, reading it {reading:.2f}")
    if not HAS_GPU:
        return
    with torch.profiler.profile() as profile:
        for step in range(4):
            own.step(step, feeds[step])
        wait()
    table = profile.key_averages()
    busy = sum(event.self_device_time_total for event in table) / 4e3
    print(
        f"   the GPU is busy for {busy:.2f} ms of it\n{table.table(sort_by='self_device_time_total', row_limit=12)}"[
            :6000
        ]
    )
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        own.step(0, feeds[0])
    torch.cuda.set_sync_debug_mode("default")
    lines = sorted({f"{Path(w.filename).name}:{w.lineno}" for w in caught})
    RESULT.update(waits_in_a_step=len(caught), launched_ms=launched, busy_ms=busy)
    print(f"   {len(caught)} waits in a step: {', '.join(lines)}")


def same() -> None:
    """A fed run reads what steps one by one read, and a step that is not finite is told and changes nothing."""
    own = trainer("transfer", SIZE)
    device, apart = torch.device(SIZE.device), 0.0
    for step, feed in zip(range(12), fed(own.feed, range(12), device), strict=True):
        alone, scratch = own.feed(step), [torch.rand(2**22, device=device) for _ in range(4)]  # memory is taken again
        apart = max(apart, float((alone.batch.images.float() - feed.batch.images.float()).abs().max()))
        apart = max(apart, float((alone.batch.teacher.float() - feed.batch.teacher.float()).abs().max()))
        own.step(step, feed)
        del scratch
    own.look()
    print(f"   images and maps differ by {apart:.2g} at most (sums of weights in another order)")
    with torch.no_grad():
        own.learner.student.adapter[0].weight[0, 0] = float("nan")
    before = {n: p.detach().clone() for n, p in own.learner.named_parameters()}
    try:
        own.step(12)
        own.look()
        raise AssertionError("a loss of NaN was not told")
    except FloatingPointError as error:
        print(f"   {str(error)[:120]}")
    moved = [n for n, p in own.learner.named_parameters() if not torch.equal(p.nan_to_num(), before[n].nan_to_num())]
    assert not moved, f"a step that is not finite moved {moved[:3]}"
    losses = {}
    for device_name in {"cpu", SIZE.device}:
        small = trainer("soft targets", Setting(device=device_name, precision="no", batch=16, images=64))
        losses[device_name] = [float(small.step(step)["loss"]) for step in range(3)]
    print(f"   losses of three steps: {losses}")
    first, *others = losses.values()
    assert all(np.allclose(first, other, rtol=2e-2) for other in others), losses


def tasks() -> None:
    """A tiny run of every task as ``prockd distill`` makes it."""
    if find_spec("pycocotools") is None:
        sys.modules["pycocotools"] = types.ModuleType("pycocotools")
        pk.tasks.Detection.score = lambda self, decoded, images: pk.tasks.Score(  # type: ignore[method-assign]
            float(np.mean([len(one) for one in decoded])), np.zeros(self.num_classes)
        )
        print("   pycocotools is not there: boxes are counted, not scored")
    with tempfile.TemporaryDirectory() as folder, part("teacher"):
        teacher = pk.Teacher("farmyard")
        for kind in pk.tasks.TASKS:
            with part(f"task: {kind}"):
                config = task_settings(kind)
                distill = config.distill.replace(steps=12, soft_steps=4)
                discover = config.discover.replace(num_prototypes=16, steps=4, max_patches=4000)
                config = replace(config, distill=distill, discover=discover)
                world = open_world(
                    config, teacher=teacher if not config.teacher.image_px else None, per_class=3, num_discover=24,
                    num_unlabelled=24, num_test=16, num_val=4, progress=False,
                )  # fmt: skip
                bank = find_prototypes(world, progress=False)
                student, history = train_student(
                    world, bank, world.config.feature_augmentation, distill, run_dir=Path(folder) / kind
                )
                print(f"   {history}; student on {next(student.parameters()).device}")
                if history.scores is not None and history.scores.augmented is not None and kind != "detection":
                    print(f"   {pk.prototype_effects(student, bank, world.images('test'), progress=False)!r}")
                if kind == "classification":
                    small = pk.ClusterConfig(
                        steps=3, batch_size=4, image_px=128, crop_px=96, start_images=16, num_prototypes=8
                    )
                    print(f"   {pk.adapt(teacher, world.images('unlabelled'), config=small, progress=False)!r}")
                for more in ({"store": "none"}, {"rival": "cosine", "soft_weight": 0.0, "mixed_precision": "fp16"}):
                    if kind == "classification":
                        history = train_student(world, bank, None, distill.replace(steps=6, **more))[1]
                        print(f"   with {more}: {history}")


def compiling() -> None:
    """Gain of torch.compile."""
    base = statistics.median(measure({"": ours("labels alone", SIZE)}, 3)[""])
    for mode in ("default", "reduce-overhead") if HAS_GPU else ():
        if left() > 70:
            with part(f"compile: {mode}"):
                began = time.perf_counter()
                work = ours("labels alone", replace(SIZE, compile=mode))
                work(3)
                wait()
                spent = time.perf_counter() - began
                ms = statistics.median(measure({"": work}, 3)[""])
                RESULT[f"compile {mode}"] = {"ms": round(ms, 2), "of_labels_alone": round(ms / base, 3)}
                print(f"   {ms:.2f} ms in place of {base:.2f}; made in {spent:.0f} s")


def extraction() -> None:
    """What benchmarks/extraction.py has for a GPU."""
    from extraction import gpu_extraction

    RESULT["extraction"] = gpu_extraction()


def main() -> None:
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name() if HAS_GPU else 'no GPU'}")
    with tempfile.TemporaryDirectory() as cache:
        os.environ["PROCKD_CACHE"] = cache
        for work in (steps, where, same, tasks, extraction, compiling):
            if left() > 20:
                with part(work.__name__):
                    work()
    print(json.dumps(RESULT, default=str))


if __name__ == "__main__":
    main()
