"""Extraction beside bare timm, in images a second of one run: a ViT-S/14 at 224 px, to memory and to the disk.

python benchmarks/extraction.py       # at most 90 seconds on a GPU; prints one JSON object
"""

import json
import shutil
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch

import prockd as pk
from prockd.teachers.features import extract_pooled

VIT, SIDE = "vit_small_patch14_dinov2", 224


def random_images(count: int, side_px: int, different: int = 512) -> pk.PackedImages:
    """Images of noise; so many differ, which costs the same to read."""
    noise = np.random.default_rng(0).integers(0, 256, (min(count, different), 3, side_px, side_px), np.uint8)
    pixels = np.resize(noise, (count, 3, side_px, side_px))
    ids = tuple(map(str, range(count)))
    return pk.PackedImages(pixels, np.zeros(count, np.int64), ids, ("a",), f"noise {count} {side_px}")


def bare_rates(device: torch.device, batches: tuple[int, ...], seconds: float = 0.8) -> dict[str, dict[int, float]]:
    """Images a second of timm's model on images that lie on the device: in fp32, under autocast, and all bf16."""
    rates: dict[str, dict[int, float]] = {}
    for name in ("bare timm fp32", "bare timm bf16 (autocast)", "bare timm bf16 (weights too)"):
        model = timm.create_model(VIT, img_size=SIDE).eval().to(device)
        model = model.bfloat16() if "weights" in name else model
        cast = torch.autocast(device.type, torch.bfloat16) if "autocast" in name else nullcontext()
        rates[name] = {}
        for batch in batches:
            images = torch.rand(batch, 3, SIDE, SIDE, device=device, dtype=next(model.parameters()).dtype)
            with torch.inference_mode(), cast:
                for _ in range(3):
                    model.forward_features(images)
                synchronize(device)
                began, done = time.perf_counter(), 0
                while (spent := time.perf_counter() - began) < seconds:
                    model.forward_features(images)
                    done += batch
                    if done % (batch * 8) == 0:  # so that what is queued does not run ahead of the clock
                        synchronize(device)
                synchronize(device)
                spent = time.perf_counter() - began
            rates[name][batch] = done / spent
    return rates


def synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()


def gpu_extraction(count: int = 20_480, rounds: int = 3) -> dict[str, Any]:
    """The rows of a GPU: bare timm, and ours from images in memory to a cache that is whole, in images a second.

    Ours is wall clock of the whole call: reading, the passes, checksums and the rename, on ``/dev/shm`` and on the
    disk. ``nothing kept`` keeps one vector an image, which is the pipeline without its writing.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batches = (64, 128, 256, 512) if device.type == "cuda" else (16,)
    bare = bare_rates(device, batches)
    teacher = pk.Teacher(VIT, image_px=SIDE)
    last = pk.Teacher(VIT, image_px=SIDE, layers=(11,))
    images = random_images(count, SIDE)
    bank = pk.PrototypeBank(96, sum(teacher.widths), 128, teacher=teacher.fingerprint)
    how: dict[str, Any] = {"views": ("plain",), "device": device, "progress": False}
    kinds: dict[str, tuple[float, Callable[..., object]]] = {
        "nothing kept": (0, lambda some, root: extract_pooled(teacher, some, root=root, device=device, progress=False)),
        "maps of 3 layers": (590e3, lambda some, root: pk.extract(teacher, some, root=root, **how)),
        "maps of 1 layer": (197e3, lambda some, root: pk.extract(last, some, root=root, **how)),
        "embedded, E = 128": (66e3, lambda some, root: pk.embed_features(bank, teacher, some, root=root, **how)),
    }
    places = {"/dev/shm": Path("/dev/shm"), "disk": Path(tempfile.gettempdir())}
    ours: dict[str, list[float]] = {}
    failed: dict[str, str] = {}
    for name, (_, make) in kinds.items():  # libraries, pinned memory
        with tempfile.TemporaryDirectory() as folder:
            try:
                make(images.select(range(min(count, 1024))), Path(folder))
            except Exception:
                failed[name] = traceback.format_exc()
    began = time.perf_counter()
    for _ in range(rounds):
        for place, parent in places.items():
            for name, (size, make) in kinds.items():
                if not parent.is_dir() or time.perf_counter() - began > 50:
                    continue
                room = min(shutil.disk_usage(parent).free * 0.4, 3e9 if place == "disk" else 1e12)  # a slow disk too
                fitting = count if not size else min(count, int(room / size))
                if fitting < min(count, 2048):
                    continue
                some = images.select(range(fitting))
                with tempfile.TemporaryDirectory(dir=parent) as folder:
                    clock = time.perf_counter()
                    try:
                        make(some, Path(folder))
                    except Exception:  # the other rows are worth having
                        failed[f"{name}, {place}"] = traceback.format_exc()
                        continue
                    ours.setdefault(f"{name}, {place}", []).append(fitting / (time.perf_counter() - clock))
    best = {name: max(rates.values()) for name, rates in bare.items()}
    reference = best["bare timm bf16 (autocast)"]
    told = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu", "images": count,
        "bare": {name: {n: round(rate) for n, rate in rates.items()} for name, rates in bare.items()},
        "ours": {
            name: {"images/s": round(statistics.median(rates)), "least": round(min(rates)), "most": round(max(rates)),
                   "of bare bf16": round(statistics.median(rates) / reference, 3), "rounds": len(rates)}
            for name, rates in ours.items()
        },
        "failed": failed,
    }  # fmt: skip
    print(json.dumps(told, indent=2))
    return told


if __name__ == "__main__":
    gpu_extraction()
