"""Slopes and a million images: memory and time of each verb as images grow, on one thread of a CPU.

    python benchmarks/scale.py            # writes results/scale.md: half an hour of a core, most of it 64,000 images
    python benchmarks/scale.py --quick    # 1,000 to 4,000 images and 100,000; the last line is one JSON object
    python benchmarks/scale.py --verbs "evaluate;bank.strongest" --rounds 3     # these alone, several times, told only

Each verb runs in a child of its own, and memory is what its allocator has given out and not got back, beyond that at
the start: Python's objects are given out by it too, and pages of mapped files are the disk's. Anonymous pages, told
beside it, hold freed memory as well, which the allocator keeps by chance: of `evaluate` of 64,000 images 18 or 92 MB,
of which 15 were in use. Images are of 32 px, their maps of 8 x 8 patches, from a network of eight channels: what costs
the same for each image is small, so that what grows shows. The million are no copies: their maps are shards of one
file, one behind the other as the shards of an extraction are, their pixels a sparse file.
"""

import argparse
import ctypes
import json
import os
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import prockd as pk
from prockd import Sample
from prockd.teachers.rows import joined
from prockd.teachers.stored import SHARD

RESULTS = Path(__file__).parent / "results" / "scale.md"
SIDE, GRID, WIDTH, SPACE, CLASSES = 32, 8, 128, 128, 10
TINY: dict[str, Any] = {"channels": (8, 8, 8, 8), "stem_width": 8}
VIEWS = ("plain", "mirrored", "recoloured")
ABOUT = """Images of 32 px, maps of 8 x 8 patches, a network of eight channels, so that what is the same for each image
costs little and what grows shows. Memory is what is in use; anonymous pages hold what was freed too, by chance of the
allocator. Pages of mapped files are in neither. Images, ids and labels are there before the start. Larger sets are
shards that are the same file of maps, one behind the other, and a sparse file of pixels, really read where a verb
reads them."""
HEAP = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")


class Noise:
    """Images that are drawn as they are asked for; 256 of them differ."""

    def __init__(self, count: int) -> None:
        self.count, self.classes, self.fingerprint = count, tuple(map(str, range(CLASSES))), f"noise {count}"
        self.block = np.random.default_rng(0).integers(0, 256, (256, SIDE, SIDE, 3), np.uint8)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, m: int) -> Sample:
        return Sample(self.block[m % 256], m % CLASSES, str(m))


def anonymous_bytes() -> int:
    """What this process holds that is no page of a file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


class Heap(ctypes.Structure):
    """What glibc's ``mallinfo2`` tells."""

    _fields_ = [(name, ctypes.c_size_t) for name in HEAP]


def bytes_in_use() -> int:
    """What was asked of the allocator and not given back, in all threads' arenas and in mappings."""
    told = ctypes.CDLL(None).mallinfo2
    told.restype = Heap
    heap = told()
    return int(heap.uordblks + heap.hblkhd)


def measured(work: Callable[[], object]) -> dict[str, float]:
    """CPU seconds, and the peak of bytes in use and of anonymous bytes, of a call in a child of its own."""
    read, write = os.pipe()
    if not (child := os.fork()):
        told, done = dict[str, float](), threading.Event()
        before = peak = np.array([bytes_in_use(), anonymous_bytes()])

        def watch() -> None:
            nonlocal peak
            while not done.wait(0.005):
                peak = np.maximum(peak, [bytes_in_use(), anonymous_bytes()])

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            wall, cpu = time.perf_counter(), time.process_time()
            extra = work()
            told = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
            told |= extra if isinstance(extra, dict) else {}
        except BaseException:
            traceback.print_exc()
        finally:
            done.set()
            watcher.join()
            in_use, pages = (peak - before).tolist()
            os.write(write, json.dumps(told | {"peak": in_use, "pages": pages}).encode())
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        told = json.loads(pipe.read() or "{}")
    os.waitpid(child, 0)
    if "cpu_s" not in told:
        raise RuntimeError("a measurement failed: see above")
    return told


def packed(count: int, folder: Path) -> pk.PackedImages:
    """Images in a sparse file, of which one in 64 is noise."""
    path = folder / f"pixels{count}.npy"
    if not path.exists():
        pixels = np.lib.format.open_memmap(path, "w+", np.uint8, (count, 3, SIDE, SIDE))
        pixels[::64] = np.random.default_rng(1).integers(0, 256, pixels[::64].shape, np.uint8)
    ids, classes = tuple(map(str, range(count))), tuple(map(str, range(CLASSES)))
    labels = np.arange(count) % CLASSES
    return pk.PackedImages(np.load(path, mmap_mode="r"), labels, ids, classes, f"sparse {count}")


def shards(name: str, count: int, folder: Path, shape: Sequence[int]) -> Any:
    """So many rows: shards that are the same file, one behind the other."""
    path = folder / f"{name}.npy"
    if not path.exists():
        rng = np.random.default_rng(2)
        np.save(path, rng.standard_normal((SHARD, *shape), np.float32).astype(np.float16))
    whole, rest = divmod(count, SHARD)
    parts = [np.load(path, mmap_mode="r") for _ in range(whole)]
    return joined([*parts, np.load(path, mmap_mode="r")[:rest]] if rest else parts, lambda part: None)


def stored_maps(images: pk.PackedImages, folder: Path) -> pk.PatchFeatures:
    """A teacher's maps in three views: 49 kB an image."""
    maps = shards("maps", len(images), folder, (3, WIDTH, GRID, GRID))
    return pk.PatchFeatures((maps,), images, "teacher", (0,), VIEWS)


def embedded(images: pk.PackedImages, bank: pk.PrototypeBank, folder: Path) -> pk.EmbeddedFeatures:
    """Patches in the space of a bank, in two views: 33 kB an image."""
    maps = shards("embedded", len(images), folder, (2, SPACE, GRID, GRID))
    means = np.zeros((1, WIDTH), np.float32)
    return pk.EmbeddedFeatures(maps, np.arange(len(images)), images, bank.teacher, bank.space, VIEWS[:2], means)


def made_bank(width: int = WIDTH, teacher: str = "teacher") -> pk.PrototypeBank:
    torch.manual_seed(0)
    bank = pk.PrototypeBank(96, width, SPACE, teacher=teacher)
    torch.nn.init.normal_(bank.prototypes)
    return bank


def verbs(count: int, folder: Path) -> dict[str, Callable[[], object]]:
    """Each verb on so many images; what it is given is there before it begins."""
    images, bank = packed(count, folder), made_bank()
    teacher = pk.Teacher("resnet10t", image_px=SIDE, layers=(1, 2), **TINY)
    own_bank = made_bank(sum(teacher.widths), teacher.fingerprint)
    few = packed(512, folder)
    task = pk.tasks.Classification.for_images(few)
    maps, near, unlabelled = stored_maps(images, folder), embedded(few, bank, folder), embedded(images, bank, folder)
    plain = pk.Student("resnet10t", task, bank, feature_augmentation={"content": "attention"}, image_px=SIDE, **TINY)

    def kept(work: Callable[[Path], object]) -> Callable[[], object]:
        def run() -> None:
            with tempfile.TemporaryDirectory(dir=folder) as root:
                work(Path(root))

        return run

    def effects() -> object:
        return pk.prototype_effects(plain, bank, images, groups={str(k): [k] for k in range(8)}, progress=False)

    return {
        "pack": kept(lambda root: pk.pack(Noise(count), SIDE, root=root, progress=False)),
        "extract (embedded)": kept(
            lambda root: pk.embed_features(own_bank, teacher, images, root=root, progress=False)
        ),
        "discover, 30,000 patches": lambda: pk.discover(maps, progress=False),
        "distill, 20 steps": partial(steps, 20, near, unlabelled),
        "bank.strongest": lambda: bank.strongest(unlabelled),
        "evaluate": lambda: pk.evaluate(plain, images),
        "effects of 8": effects,
    }


def steps(count: int, labelled: pk.EmbeddedFeatures, unlabelled: pk.EmbeddedFeatures) -> dict[str, float]:
    """Train a student on 512 labelled images and the others; CPU seconds until the first step, and of one step."""
    bank, seen = made_bank(), list[float]()
    task = pk.tasks.Classification.for_images(labelled.images)
    student = pk.Student("resnet10t", task, bank, feature_augmentation={}, image_px=SIDE, **TINY)
    began = time.process_time()
    pk.distill(
        student, labelled.images, features=labelled, unlabelled=unlabelled, config=pk.DistillConfig(steps=count),
        log_every=1, callbacks=[lambda step, row: seen.append(time.process_time())], progress=False,
    )  # fmt: skip
    return {"start_s": seen[0] - began, "step_s": (seen[-1] - seen[0]) / (count - 1)}


def million(count: int, folder: Path, patches: int = 1_000_000) -> dict[str, Any]:
    """Discovery in so many patches, and 200 steps, of so many images."""
    before = bytes_in_use()
    images, bank = packed(count, folder), made_bank()
    ids = bytes_in_use() - before
    maps, near, unlabelled = (
        stored_maps(images, folder), embedded(packed(512, folder), bank, folder), embedded(images, bank, folder)
    )  # fmt: skip
    config = pk.DiscoverConfig(max_patches=patches)
    found: dict[str, Any] = {
        "ids_bytes": ids,
        "discover": measured(lambda: pk.discover(maps, config=config, progress=False)),
    }
    print("discover", found["discover"], flush=True)
    found["distill"] = measured(partial(steps, 200, near, unlabelled))
    print("distill", found["distill"], flush=True)
    return found


def growth(rows: list[dict[str, float]], sizes: Sequence[int]) -> dict[str, float]:
    """Bytes an image that memory grows by between the last two sizes, and microseconds of a further image, twice."""
    sizes = sizes[: len(rows)]  # a verb that was not measured at the last ones
    memory = (rows[-1]["peak"] - rows[-2]["peak"]) / (sizes[-1] - sizes[-2])
    steps = range(1, len(sizes))
    spent = [1e6 * (rows[i]["cpu_s"] - rows[i - 1]["cpu_s"]) / (sizes[i] - sizes[i - 1]) for i in steps]
    return {"bytes": memory, "us_before": spent[-2] if len(spent) > 1 else spent[-1], "us": spent[-1]}


def page(told: dict[str, Any]) -> str:
    """The page of results, of what :func:`main` has measured."""
    sizes, many, found = told["sizes"], told["images"], told["discover"]
    lines = [
        "# Slopes, and a million images",
        "",
        "Made by `python benchmarks/scale.py`: one thread of a CPU, one run.",
    ]
    lines += [" ".join(ABOUT.split()), ""]
    for title, key in (("peak MB in use", "peak"), ("of the same, peak MB of anonymous pages", "pages")):
        more = " | bytes a further image" * (key == "peak")
        lines += [f"| {title} beyond the start | {' | '.join(f'{n:,}' for n in sizes)}{more} |"]
        lines += ["|---" * (len(sizes) + 1 + (key == "peak")) + "|"]
        for name, rows in told["slopes"].items():
            peaks = " | ".join([f"{row[key] / 1e6:.1f}" for row in rows] + ["–"] * (len(sizes) - len(rows)))
            grown = f" | {growth(rows, sizes)['bytes']:,.0f}" * (key == "peak")
            lines.append(f"| {name} | {peaks}{grown} |")
        lines.append("")
    lines += [
        f"| CPU seconds | {' | '.join(f'{n:,}' for n in sizes)} | µs a further image, before and at the end |",
    ]
    lines += ["|---" * (len(sizes) + 2) + "|"]
    for name, rows in told["slopes"].items():
        grown, spent = growth(rows, sizes), [f"{row['cpu_s']:.2f}" for row in rows]
        spent = " | ".join(spent + ["–"] * (len(sizes) - len(rows)))
        lines.append(f"| {name} | {spent} | {grown['us_before']:.0f}, {grown['us']:.0f} |")
    step = told["distill"]
    lines += ["", f"| {many:,} images | CPU s | peak MB in use beyond the start |", "|---|---|---|"]
    lines += [f"| `discover` in {many:,} patches | {found['cpu_s']:.1f} | {found['peak'] / 1e6:,.0f} |"]
    lines += [f"| `distill`, 200 steps of 48 images | {step['cpu_s']:.1f} | {step['peak'] / 1e6:,.0f} |"]
    lines += [f"| of it until the first step | {step['start_s']:.2f} | |"]
    lines += [f"| of it a step | {step['step_s']:.4f} | |"]
    return "\n".join([*lines, "", *larger(told), ""])


def larger(told: dict[str, Any]) -> list[str]:
    """What more images take: of a ViT-S/14 at 224 px on one GPU, and of Farmyard's teacher at 160 px on one core."""
    gpu, core = 7951, 97  # images/s of results/gpu.md and results/speed.md, embedded to the disk
    lines = ["| | 1,000,000 | 10,000,000 | 100,000,000 |", "|---|---|---|---|"]
    counts = (1e6, 1e7, 1e8)

    def row(name: str, values: Sequence[str], kinds: Sequence[str]) -> str:
        return f"| {name} | {' | '.join(f'{v} ({k})' for v, k in zip(values, kinds, strict=True))} |"

    thrice = ("extrapolated",) * 3
    measured = ("measured" if told["images"] == 1e6 else "extrapolated", "extrapolated", "extrapolated")
    lines.append(row("packed pixels, 224 px: 151 kB", [f"{151e3 * n / 1e12:.2f} TB" for n in counts], thrice))
    lines.append(
        row("embedded maps of 16 x 16 x 128: 66 kB a view", [f"{66e3 * n / 1e12:.2f} TB" for n in counts], thrice)
    )
    lines.append(row("raw maps of three layers: 590 kB a view", [f"{590e3 * n / 1e12:.1f} TB" for n in counts], thrice))
    lines.append(row("teacher, one H200, a view", [f"{n / gpu / 3600:.2f} h" for n in counts], thrice))
    lines.append(row("teacher, one CPU core, a view", [f"{n / core / 3600:,.0f} h" for n in counts], thrice))
    spent = told["discover"]["cpu_s"]
    lines.append(row("`discover`, 1,000,000 patches, one core", [f"{spent:.0f} s"] * 3, measured))
    starts = [told["distill"]["start_s"] * n / told["images"] for n in counts]
    lines.append(row("`distill` until its first step, at most", [f"{s:.1f} s" for s in starts], measured))
    held = told["ids_bytes"] / told["images"]
    lines.append(row("ids and labels in memory, each process", [f"{held * n / 1e9:.1f} GB" for n in counts], measured))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--most", type=int, default=64_000)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--verbs", default="", help="these alone, with ; between them; no page is written")
    parser.add_argument("--rounds", type=int, default=1, help="of --verbs")
    asked = parser.parse_args()
    if os.environ.get("PYTHONMALLOC") != "malloc":  # Python's own arenas are not told by the allocator
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONMALLOC": "malloc"})
    torch.set_num_threads(1)
    sizes = [n for n in (1000, 4000, 16_000, 64_000) if n <= (4000 if asked.quick else asked.most)]
    many = 100_000 if asked.quick else asked.images
    with tempfile.TemporaryDirectory() as root:
        few = asked.verbs.split(";") if asked.verbs else list(verbs(64, Path(root)))
        for name in few:  # what is loaded or made once is here before anything is measured
            verbs(64, Path(root))[name]()
        if asked.verbs:
            for count in sizes:
                for name in few * asked.rounds:
                    print(f"{name}, {count:,}: {measured(verbs(count, Path(root))[name])}", flush=True)
            return
        large = million(many, Path(root), patches=many)
        told: dict[str, Any] = {"sizes": [], "slopes": {}, "images": many, **large}
        for count in sizes:
            told["sizes"].append(count)
            for name, work in verbs(count, Path(root)).items():
                told["slopes"].setdefault(name, []).append(row := measured(work))
                print(f"{name}, {count:,}: {row}", flush=True)
            if not asked.quick and len(told["sizes"]) > 1:  # so far
                RESULTS.write_text(page(told), encoding="utf-8")
    if asked.quick:
        told["slopes"] = {
            name: {k: round(v) for k, v in growth(rows, sizes).items()} for name, rows in told["slopes"].items()
        }
        return print(json.dumps(told))


if __name__ == "__main__":
    main()
