"""Which families of timm can be a student: each trains a few steps, and is saved, loaded and asked again.

    python benchmarks/sweep.py                            # what results/sweep.jsonl lacks, then the counts
    python benchmarks/sweep.py --quick                    # six families anew, one line of JSON: two minutes
    python benchmarks/sweep.py --models repvgg_a0 test_vit     # these alone, printed

A family is a module of timm; its smallest member below 40 M parameters stands for it. Each runs in a process of its
own, since some once ended theirs. Weights are random, images are noise: this is about shapes, memory and files.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import timm
import torch

import prockd as pk

RESULTS = Path(__file__).parent / "results" / "sweep.jsonl"
LARGEST = 40e6
TIMEOUT_S = 600
QUICK = ("resnet", "vision_transformer", "mobilenetv3", "convnext", "swin_transformer", "efficientnet")


def smallest_member(family: str) -> tuple[str, int] | None:
    """The smallest network of a family and its parameters; None where all have too many."""
    sizes = {}
    for name in timm.list_models(module=family):
        try:
            with torch.device("meta"):
                sizes[name] = sum(p.numel() for p in timm.create_model(name, num_classes=0).parameters())
        except Exception as error:  # some cannot be made without numbers; a relative stands for them
            print(f"{name}: {type(error).__name__}", file=sys.stderr)
    name = min(sizes, key=lambda name: sizes[name], default=None)
    return None if name is None or sizes[name] > LARGEST else (name, sizes[name])


def try_student(name: str, image_px: int, steps: int) -> None:
    """Train a student with both predictions, save it, load it and compare.

    Raises:
        AssertionError: it predicts something else.
    """
    noise = np.random.default_rng(0).integers(0, 255, (8, 3, image_px, image_px), np.uint8)
    images = pk.PackedImages(noise, np.arange(8) % 2, tuple("abcdefgh"), ("even", "odd"), f"noise of {image_px} px")
    student = pk.Student(
        name, pk.tasks.Classification(2, images.classes), pk.PrototypeBank(4, feature_dim=8, embed_dim=16),
        feature_augmentation=pk.FeatureAugmentationConfig(), image_px=image_px,
    )  # fmt: skip
    config = pk.DistillConfig(steps=steps, batch_size=4, lr=1e-4)
    pk.distill(student, images, config=config, cpu=True, progress=False)
    with tempfile.TemporaryDirectory() as folder:
        loaded = pk.Student.load(student.save(Path(folder) / "student.safetensors"))
    batch = torch.from_numpy(noise).float() / 255
    with torch.no_grad():
        before, after = student.eval()(batch), loaded(batch)
    torch.testing.assert_close(after.logits, before.logits)
    torch.testing.assert_close(after.augmented_logits, before.augmented_logits)


def measure(name: str, steps: int) -> dict[str, object]:
    """One line of the results; a network that wants a size of its own is tried at that."""
    own_px = int(timm.models.get_pretrained_cfg(name).input_size[-1])
    row: dict[str, object] = {"model": name, "steps": steps}
    began = time.perf_counter()
    for image_px in dict.fromkeys((96, own_px)):
        row |= {"image_px": image_px, "ok": True, "error": ""}
        try:
            try_student(name, image_px, steps)
            break
        except Exception as error:
            row |= {
                "ok": False,
                "error": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
            }
    return row | {"seconds": round(time.perf_counter() - began, 1)}


def in_own_process(name: str, steps: int) -> dict[str, object]:
    """What :func:`measure` prints; a process that dies says so by its exit code."""
    command = [sys.executable, __file__, "--models", name, "--steps", str(steps)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return {"model": name, "ok": False, "error": f"more than {TIMEOUT_S} s"}
    if done.returncode:
        return {"model": name, "ok": False, "error": f"the process ended with {done.returncode}"}
    row: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=[], help="these alone, in this process")
    parser.add_argument("--quick", action="store_true", help="six families, nothing written")
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.models:
        warnings.simplefilter("ignore")
        for name in options.models:
            print(json.dumps(measure(name, options.steps)), flush=True)
        return
    if options.quick:
        began, members = time.perf_counter(), {family: smallest_member(family) for family in QUICK}
        tried = {family: in_own_process(one[0], options.steps) for family, one in members.items() if one}
        failed = {family: row["error"] for family, row in tried.items() if not row["ok"]}
        print(json.dumps({"tried": len(tried), "failed": failed, "seconds": round(time.perf_counter() - began)}))
        return
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    for family in sorted({timm.models.model_entrypoint(name).__module__.split(".")[-1] for name in timm.list_models()}):
        if family in {row["family"] for row in rows}:
            continue
        member = smallest_member(family)
        row = {"family": family, "model": None, "ok": None, "error": "too large"}
        if member is not None:
            row |= in_own_process(member[0], options.steps) | {"parameters": member[1]}
        rows.append(row)
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
    tried = [row for row in rows if row["ok"] is not None]
    print(f"{sum(row['ok'] for row in tried)} of {len(tried)} families; {len(rows) - len(tried)} are too large")


if __name__ == "__main__":
    main()
