"""What prockd does with damaged files, kills and full disks: nothing silent, nothing torn, nothing lost.

    python benchmarks/faults.py [--quick] [--seed N] [--only mutations|kills|disks] [--keep FOLDER]

Each reader gets mutated files and has to refuse them in words that name the file, or to read what keeps the rules
of its format; each writer is killed and runs out of room, and what was there has to be whole. The last line is one
JSON object. Failures are kept as small files, with the seed that makes them again. Mounting needs root on Linux.
"""

import argparse
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

os.environ.update({"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"})

import numpy as np
import torch
from PIL import Image

import prockd as pk
from prockd.cache import cached_arrays
from prockd.datasets import open_splits, unpack
from prockd.datasets.problems import sample_problems
from prockd.runs import run_experiment
from prockd.runs.pictures import predict_pictures
from prockd.settings.experiment import ExperimentConfig
from prockd.settings.toml import read_config, set_values, write_config
from prockd.students.export import export_student
from prockd.students.student import Student
from prockd.training.checkpoint import load_checkpoint, save_checkpoint
from prockd.writing import write_file

RESULTS = Path(__file__).parent / "results" / "faults.md"
HANG_S = 20
TINY: dict[str, Any] = {"channels": (8, 16, 24, 32), "stem_width": 8}
NUMBERS = ("-1", "0", "1e309", "NaN", "99999999999999999999", "1099511627776", "null", "[]", '""', "true", "2.5")
CONTEXT = multiprocessing.get_context("fork")
ENTRY = {"faults": 1}


# What is read


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (24, 32)) -> None:
    """A small picture of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).save(path)


def make_pictures(root: Path, suffix: str) -> Path:
    for m in range(4):
        picture(root / "ab"[m % 2] / f"{m}{suffix}", m)
    return root / "a" / f"0{suffix}"


def make_masks(root: Path) -> Path:
    for m in range(3):
        picture(root / "images" / f"{m}.png", m)
        mask = Image.fromarray(np.random.default_rng(m).integers(0, 3, (24, 32)).astype(np.uint8))
        (root / "masks").mkdir(exist_ok=True)
        mask.save(root / "masks" / f"{m}.png")
    (root / "classes.txt").write_text("ground\nanimal\nsky\n")
    return root / "masks" / "0.png"


def make_coco(root: Path, points: bool = False) -> Path:
    images, annotations = [], []
    for m in range(3):
        picture(root / f"{m}.png", m)
        images.append({"id": m, "file_name": f"{m}.png", "width": 32, "height": 24})
        annotations.append({"id": m, "image_id": m, "category_id": 1, "bbox": [2, 3, 10, 12], "area": 120, "iscrowd": 0}
                           | ({"keypoints": [3, 4, 2, 9, 8, 1], "num_keypoints": 2} if points else {}))  # fmt: skip
    cow = {"id": 1, "name": "cow"} | ({"keypoints": ["eye", "tail"]} if points else {})
    path = root / ("person_keypoints.json" if points else "instances.json")
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": [cow]}))
    return path


def make_voc(root: Path) -> Path:
    for m in range(3):
        picture(root / "images" / f"{m}.png", m)
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"{m}.xml").write_text(
            f"<annotation><filename>{m}.png</filename><size><width>32</width><height>24</height><depth>3</depth></size>"
            "<object><name>cow</name><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>12</xmax><ymax>15</ymax></bndbox>"
            "</object></annotation>"
        )
    return root / "annotations" / "0.xml"


def make_table(root: Path, name: str, text: str) -> Path:
    for m in range(3):
        picture(root / f"{m}.png", m)
    (root / name).write_text(text)
    return root / name


def make_npz(root: Path) -> Path:
    np.savez(root / "data.npz", images=np.zeros((4, 24, 32, 3), np.uint8), labels=[0, 1, 0, 1], class_names=["a", "b"])
    return root / "data.npz"


def make_archive(root: Path, form: str) -> Path:
    make_pictures(root / "photos", ".png")
    path = shutil.make_archive(str(root / "photos"), form, root / "photos")
    shutil.rmtree(root / "photos")
    return Path(path)


def make_student(root: Path, kind: str = "classification") -> Path:
    return tiny_student(kind).save(root / "student.safetensors")


def tiny_bank() -> pk.PrototypeBank:
    torch.manual_seed(0)
    teacher = pk.Teacher("resnet10t", image_px=32, layers=(1, 2), **TINY)
    arrays = pk.Arrays(np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8), [0, 1] * 3, ("a", "b"))
    config = pk.DiscoverConfig(num_prototypes=4, embed_dim=8, steps=2)
    return pk.discover(pk.extract(teacher, arrays, progress=False), config=config, progress=False)


def tiny_student(kind: str = "classification") -> Student:
    task = {"classification": pk.tasks.Classification(2, ("a", "b")), "keypoints": pk.tasks.KeyPoints(2, width=8),
            "segmentation": pk.tasks.Segmentation(2, width=8)}[kind]  # fmt: skip
    plus = pk.FeatureAugmentationConfig(content="attention")
    return Student("resnet10t", task, tiny_bank(), feature_augmentation=plus, image_px=32, **TINY)


def make_checkpoint(root: Path) -> Path:
    parts = {"model": torch.nn.Linear(4, 3)}
    save_checkpoint(root, parts, {"steps": 9}, [{"step": 0, "loss": 1.0}], 1)
    return root / "checkpoint.pt"


def make_entry(root: Path, name: str) -> Path:
    def build(writer: Any) -> dict[str, object]:
        writer.create("pixels", (50, 3, 8, 8), np.uint8)[:] = np.arange(192).reshape(3, 8, 8) % 251
        return {"made": "by faults"}

    cached_arrays("images", ENTRY, build, root=root)
    return next(root.glob(f"*/*/{name}"))


def read_entry(path: Path) -> None:
    def again(writer: Any) -> dict[str, object]:
        writer.create("pixels", (50, 3, 8, 8), np.uint8)[:] = np.arange(192).reshape(3, 8, 8) % 251
        return {"made": "by faults"}

    arrays, meta = cached_arrays("images", ENTRY, again, root=path.parent.parent.parent)
    if meta != {"made": "by faults"} or not (arrays["pixels"] == np.arange(192).reshape(3, 8, 8) % 251).all():
        raise SilentError("a damaged cache entry is believed")


def read_data(path: Path, task: str | None = None) -> None:
    """Open as a person would, read every sample, and see that each keeps the rules."""
    for dataset in open_splits(path, task=task).values():
        for m in range(len(dataset)):
            sample = dataset[m]
            if problem := next(sample_problems(sample, len(dataset.classes), sample.id), None):
                raise SilentError(str(problem))


def finite(module: torch.nn.Module) -> None:
    if not all(value.isfinite().all() for value in module.state_dict().values() if value.is_floating_point()):
        raise SilentError("values that are not finite are believed")


def read_student(path: Path) -> None:
    student = Student.load(path)
    finite(student)
    with torch.no_grad():
        student(torch.rand(1, 3, student.image_px, student.image_px))


def read_bank(path: Path) -> None:
    bank = pk.PrototypeBank.load(path)
    finite(bank)
    if not bank.enabled.any() or not ((bank.merged >= 0) & (bank.merged < bank.num_prototypes)).all():
        raise SilentError("prototypes all disabled, or merged into none")


def read_checkpoint(path: Path) -> None:
    model = torch.nn.Linear(4, 3)
    _, step = load_checkpoint(path.parent, {"model": model}, {"steps": 9})
    finite(model)
    if not 0 <= step <= 9:
        raise SilentError(f"step {step} of 9 is believed")


def read_archive(path: Path) -> None:
    folder = unpack(path, path.parent / "out", progress=False)
    for inside in folder.rglob("*"):
        if not inside.resolve().is_relative_to(folder.resolve()):
            raise SilentError(f"{inside} is outside of the folder")


class SilentError(Exception):
    """A broken rule was believed."""


@dataclass(frozen=True)
class Reader:
    """A kind of file: how a good one is made, and how it is read."""

    make: Callable[[Path], Path]  # the file to be damaged
    read: Callable[[Path], object]
    whole: bool = False  # the folder is read, not the file


def data_reader(make: Callable[[Path], Path], task: str | None = None, *, whole: bool = True) -> Reader:
    return Reader(make, lambda path: read_data(path, task), whole)


LABELS = "path,label,group\n0.png,a,x\n1.png,b,y\n2.png,a,x\n"
TAGS = "path,labels\n0.png,a|b\n1.png,\n2.png,a\n"
POINTS = "frame,joint_id,part,x_px,y_px,visible\n0.png,1,eye,3,4,1\n1.png,1,eye,5,6,0\n2.png,1,eye,7,8,1\n"
LABCUT = "scorer,a,a\nbodyparts,eye,eye\ncoords,x,y\n0.png,3,4\n1.png,5,6\n2.png,7,8\n"
READERS = {
    "picture png": data_reader(lambda root: make_pictures(root, ".png")),
    "picture jpg": data_reader(lambda root: make_pictures(root, ".jpg")),
    "picture webp": data_reader(lambda root: make_pictures(root, ".webp")),
    "picture tif": data_reader(lambda root: make_pictures(root, ".tif")),
    "picture bmp": data_reader(lambda root: make_pictures(root, ".bmp")),
    "mask": data_reader(make_masks, "segmentation"),
    "COCO": data_reader(make_coco, "detection", whole=False),
    "COCO key points": data_reader(lambda root: make_coco(root, points=True), "keypoints", whole=False),
    "VOC": data_reader(make_voc, "detection"),
    "image list": data_reader(lambda root: make_table(root, "labels.csv", LABELS), whole=False),
    "tags": data_reader(lambda root: make_table(root, "labels.csv", TAGS), whole=False),
    "key points": data_reader(lambda root: make_table(root, "parts.csv", POINTS), "keypoints", whole=False),
    "DeepLabCut": data_reader(lambda root: make_table(root, "CollectedData_a.csv", LABCUT), "keypoints", whole=False),
    "NPZ": data_reader(make_npz, whole=False),
    "ZIP": Reader(lambda root: make_archive(root, "zip"), read_archive),
    "TAR": Reader(lambda root: make_archive(root, "gztar"), read_archive),
    "settings": Reader(lambda root: (write_config(ExperimentConfig(), root / "config.toml"), root / "config.toml")[1],
                       read_config),
    "student": Reader(make_student, read_student),
    "student of masks": Reader(lambda root: make_student(root, "segmentation"), read_student),
    "bank": Reader(lambda root: (tiny_bank().save(root / "bank.safetensors"), root / "bank.safetensors")[1], read_bank),
    "checkpoint": Reader(make_checkpoint, read_checkpoint),
    "cache: array": Reader(lambda root: make_entry(root, "pixels.npy"), read_entry),
    "cache: meta.json": Reader(lambda root: make_entry(root, "meta.json"), read_entry),
}  # fmt: skip


def mutated(data: bytes, rng: random.Random) -> bytes:
    """One to three damages: bits, bytes, blocks, a cut, a number of text in place of another, deep brackets."""
    for _ in range(rng.randint(1, 3)):
        place, size = rng.randrange(len(data) + 1), rng.choice((1, 4, 64, 1024))
        way = rng.randrange(8)
        if way == 0 and data:
            place %= len(data)
            data = data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]
        elif way == 1:
            data = data[:place] + rng.randbytes(size) + data[place + size :]
        elif way == 2:
            data = data[:place]
        elif way == 3:
            data = data[:place] + data[place + size :]
        elif way == 4:
            other = rng.randrange(len(data) + 1)
            data = data[:place] + data[other : other + size] + data[place:]
        elif way == 5:
            data = data[:place] + bytes(size) + data[place + size :]
        elif way == 6:
            data = (
                data[:place]
                + rng.choice((b"[" * 3000, b"{" * 3000, b'"', b"\xff", b",", b"../../", b"\r\n"))
                + data[place:]
            )
        else:  # one of the first numbers of text, which also headers of safetensors and npz hold
            starts = [
                m for m in range(min(len(data), 4000)) if data[m : m + 1].isdigit() and not data[m - 1 : m].isdigit()
            ]
            if starts:
                begin = end = rng.choice(starts)
                while data[end : end + 1].isdigit():
                    end += 1
                data = data[:begin] + rng.choice(NUMBERS).encode() + data[end:]
    return data


def is_fault(error: BaseException) -> bool:
    """Whether the command line would show a traceback."""
    if isinstance(error, RuntimeError | FloatingPointError) and type(error).__module__[:7] != "prockd.":
        return True
    return not isinstance(error, ImportError | OSError | ValueError | RuntimeError | FloatingPointError)


def try_one(kind: str, seed: int, good: Path, path: Path, root: Path) -> tuple[str, str]:
    """Damage a file, read it, and put it back: what came of it, and the error."""
    reader, rng = READERS[kind], random.Random(f"{kind} {seed}")
    data = good.read_bytes()
    damaged = mutated(data, rng)
    path.write_bytes(damaged)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read(root if reader.whole else path)
        return "read", ""
    except SilentError as error:
        return "silent", str(error)
    except (Exception, RecursionError) as error:
        told = f"{type(error).__name__}: {error}"
        if is_fault(error):
            return "traceback", told
        named = path.name in str(error) or path.stem in str(error) or path.parent.name in str(error)
        return "refused" if named else "nameless", told
    finally:
        shutil.rmtree(path.parent / "out", ignore_errors=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def worker(connection: Connection, home: Path) -> NoReturn:
    """Try what it is told, until it is told nothing more; its memory is bounded."""
    resource.setrlimit(resource.RLIMIT_AS, (24 << 30, resource.RLIM_INFINITY))
    made: dict[str, tuple[Path, Path]] = {}
    with open(os.devnull, "w") as nothing:  # noqa: PTH123 - a worker says nothing
        os.dup2(nothing.fileno(), 2)
        while (job := connection.recv()) is not None:
            kind, seed = job
            if kind not in made:
                root = Path(tempfile.mkdtemp(dir=home)) / "data"
                root.mkdir()
                path = READERS[kind].make(root)
                good = root.parent / f"good{path.suffix}"
                shutil.copyfile(path, good)
                made[kind] = good, path
            good, path = made[kind]
            connection.send((*job, *try_one(kind, seed, good, path, good.parent / "data")))
    os._exit(0)


@dataclass
class Slot:
    """A worker process, and what it is at."""

    process: Any
    connection: Connection
    job: tuple[str, int] | None = None
    since: float = 0.0


def slot(home: Path) -> Slot:
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=worker, args=(theirs, home), daemon=True)
    process.start()
    theirs.close()
    return Slot(process, ours)


def tried(jobs: list[tuple[str, int]], workers: int, home: Path) -> Iterator[tuple[str, int, str, str]]:
    """Each job with what came of it; a worker that hangs or dies is replaced."""
    slots, waiting, open_jobs = [slot(home) for _ in range(workers)], list(reversed(jobs)), len(jobs)
    made: set[tuple[int, str]] = set()
    while open_jobs:
        for n, one in enumerate(slots):
            if one.job is None and waiting:
                one.job, one.since = waiting.pop(), time.monotonic()
                one.connection.send(one.job)
            if one.job is None:
                continue
            first = (n, one.job[0]) not in made  # makes its files too
            answer: tuple[str, int, str, str] | None = None
            with suppress(EOFError, ConnectionError):
                if one.connection.poll(0.002):
                    answer = one.connection.recv()
            if (
                answer is None
                and one.process.is_alive()
                and time.monotonic() - one.since < HANG_S * (4 if first else 1)
            ):
                continue
            if answer is None:
                died = not one.process.is_alive()
                answer = (*one.job, "traceback" if died else "hang", "the process died" if died else f"over {HANG_S} s")
                one.process.kill()
                slots[n] = slot(home)
                made = {pair for pair in made if pair[0] != n}
            else:
                made.add((n, one.job[0]))
            slots[n].job = None
            open_jobs -= 1
            yield answer
    for one in slots:
        one.connection.send(None)
        one.process.join(2)
        one.process.kill()


# What is written


def versions_of(root: Path) -> dict[str, Callable[[Path, int], object]]:
    """Writers: each writes version n of its files into a folder."""
    student, bank = tiny_student(), tiny_bank()
    picture(root / "photos" / "0.png")
    config = ExperimentConfig()

    def numbered(n: int) -> Student:
        with torch.no_grad():
            student.head.linear.bias.fill_(n)
        return student

    def predicted(folder: Path, n: int) -> object:
        return predict_pictures(numbered(n), root / "photos", folder / "told", overwrite=True, cpu=True, progress=False)

    return {
        "student": lambda folder, n: numbered(n).save(folder / "student.safetensors", overwrite=True),
        "bank": lambda folder, n: bank.save(folder / "bank.safetensors", overwrite=True),
        "settings": lambda folder, n: write_config(set_values(config, [f"distill.seed={n}"]), folder / "config.toml"),
        "checkpoint": lambda folder, n: save_checkpoint(
            folder, {"model": student}, {"steps": 9}, [{"step": m, "loss": 1.0} for m in range(n % 9 + 1)], n % 9
        ),
        "text": lambda folder, n: write_file(folder / "notes.txt", f"{n}\n" * 200_000),
        "export": lambda folder, n: export_student(numbered(n), folder / "export", overwrite=True),
        "predictions": predicted,
        "cache": lambda folder, n: cached_arrays("images", {"n": n}, filled, root=folder / "cache"),
    }


def filled(writer: Any) -> dict[str, object]:
    """An array whose every value is 7."""
    writer.create("x", (400_000,), np.float32)[:] = 7
    return {"of": 7}


def check_whole(folder: Path) -> list[str]:
    """What is torn of the files in a folder."""
    torn = []
    checks: dict[str, Callable[[Path], object]] = {
        "student.safetensors": Student.load, "bank.safetensors": pk.PrototypeBank.load, "config.toml": read_config,
        "checkpoint.pt": lambda path: torch.load(path, weights_only=True),
        "sheet.png": lambda path: Image.open(path).load(),
        "classes.csv": lambda path: _same_lines(path, 2), "notes.txt": lambda path: _same_lines(path, 200_000),
        "student.json": lambda path: json.loads(path.read_text()), "report.html": lambda path: _ends(path, "</html>"),
        "results.json": lambda path: json.loads(path.read_text()),
    }  # fmt: skip
    for path in (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".prockd-")):
        check = checks.get(path.name)
        if check is None and path.suffix == ".safetensors":
            from safetensors.torch import load_file as check
        if check is None or ".tmp-" in str(path):
            continue
        try:
            check(path)
        except Exception as error:
            torn.append(f"{path.name}: {type(error).__name__} {str(error)[:120]}")
    return torn


def _same_lines(path: Path, count: int) -> None:
    lines = path.read_text().splitlines()
    if len(lines) != count or (count > 2 and len(set(lines)) != 1):
        raise ValueError(f"{len(lines)} lines, {len(set(lines))} different")


def _ends(path: Path, text: str) -> None:
    if not path.read_text().rstrip().endswith(text):
        raise ValueError("is cut")


def in_child(work: Callable[[], object], killed_after_s: float | None = None) -> tuple[int, str]:
    """Run something in a process of its own, perhaps killed after a time: its signal or 0, and its error."""
    ours, theirs = CONTEXT.Pipe()

    def run() -> None:
        with open(os.devnull, "w") as nothing:  # noqa: PTH123
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    work()
                theirs.send("")
            except BaseException as error:
                theirs.send(("FAULT " if is_fault(error) else "") + f"{type(error).__name__}: {error}")

    process = CONTEXT.Process(target=run)
    process.start()
    theirs.close()
    process.join(killed_after_s)
    if process.is_alive():
        os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    told = ""
    with suppress(EOFError):
        told = ours.recv() if ours.poll() else ""
    return -(process.exitcode or 0), told


def run_settings(root: Path) -> ExperimentConfig:
    for m in range(12):
        picture(root / "ab"[m % 2] / f"{m}.png", m, (32, 32))
    return set_values(ExperimentConfig(), [
        "student.image_px=32", "student.options.channels=[8, 16, 24, 32]", "distill.steps=12", "distill.batch_size=4",
        "distill.unlabelled_batch=0", "teacher.name=resnet10t", "teacher.random=true", "teacher.image_px=32",
        "teacher.layers=[1, 2]", "teacher.options={channels = [8, 16, 24, 32], stem_width = 8}",
        "discover.num_prototypes=4", "discover.embed_dim=8", "discover.steps=2", f"data.path={root}",
    ])  # fmt: skip


def kill_runs(count: int, home: Path, rng: random.Random) -> tuple[int, list[str]]:
    """Kill a run again and again, and resume it until it ends: bit-equal to one that nobody killed."""
    config = run_settings(home / "photos")
    how: dict[str, Any] = {"cpu": True, "progress": False, "checkpoint_every": 2}
    began = time.monotonic()
    _, told = in_child(lambda: run_experiment(config, home / "whole", **how))
    lasts_s, flaws, kills, number = time.monotonic() - began, [], 0, 0
    if not (home / "whole" / "student.safetensors").is_file():
        return 0, [f"the run itself fails: {told}"]
    wanted = (home / "whole" / "student.safetensors").read_bytes()
    while kills < count and number < 4 * count:
        folder, number = home / f"run{number}", number + 1
        for attempt in range(40):
            resume = (folder / "config.toml").is_file()
            limit = rng.uniform(0.02, 1.0) * lasts_s if kills < count and attempt < 30 else None
            signalled, told = in_child(
                lambda folder=folder, resume=resume: run_experiment(config, folder, resume=resume, **how), limit
            )
            kills += signalled == signal.SIGKILL
            flaws += [f"after a kill of a run: {torn}" for torn in check_whole(folder)]
            if signalled != signal.SIGKILL:
                break
        if told:
            flaws.append(f"a killed run does not go on: {told[:200]}")
        elif (folder / "student.safetensors").read_bytes() != wanted:
            flaws.append("a killed run ends in other weights")
        shutil.rmtree(folder, ignore_errors=True)
    return kills, flaws


def kill_writers(count: int, home: Path, rng: random.Random) -> tuple[int, list[str]]:
    """Kill writers while they write version after version: what lies there is whole."""
    writers, kills, flaws = versions_of(home), 0, []
    for number in range(count):
        name = list(writers)[number % len(writers)]
        folder = home / f"kill-{name}"
        folder.mkdir(exist_ok=True)

        def forever(name: str = name, folder: Path = folder) -> None:
            for n in range(10**6):
                writers[name](folder, n)

        signalled, told = in_child(forever, rng.uniform(0.05, 0.6))
        kills += signalled == signal.SIGKILL
        flaws += [f"{name}: {torn}" for torn in check_whole(folder)] + ([f"{name}: {told[:200]}"] if told else [])
        if name == "cache":
            arrays, _ = cached_arrays("images", {"n": 0}, filled, root=folder / "cache")
            flaws += [] if (arrays["x"] == 7).all() else ["cache: half an array is believed"]
    return kills, flaws


@contextmanager
def mounted(place: Path, size: int) -> Iterator[Path]:
    """A file system of so many bytes in memory."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "faults", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def fill_disks(full: int, read_only: int, home: Path, rng: random.Random) -> tuple[int, int, list[str]]:
    """Writers on a full disk and on one that is read-only: a clear message, and what was there is whole.

    How many disks were tried, how many of them lost something, and the flaws.
    """
    writers, disks, lost, flaws = versions_of(home), 0, 0, []
    for number in range(full + read_only):
        name = list(writers)[number % len(writers)]
        with mounted(home / "disk", 64 << 20) as disk:
            folder = disk / "work"
            folder.mkdir()
            if number % 3:  # else nothing is there before
                writers[name](folder, 1)
            before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
            if number < full:
                room = rng.choice((0, 4096, 65536))
                with suppress(OSError):
                    (disk / "others").write_bytes(bytes(max(0, shutil.disk_usage(disk).free - room)))
            else:
                subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
            _, told = in_child(lambda name=name, folder=folder: writers[name](folder, 2))
            disks += 1
            words = told.lower()
            clear = "disk full" in words or "no space" in words or "read-only" in words or "not enough room" in words
            if (told and not (clear and str(disk) in told)) or told.startswith("FAULT"):
                flaws.append(f"{name}: {told[:300]}")
            gone = [path for path, data in before.items() if not path.is_file() or (told and not same(path, data))]
            torn = check_whole(folder)
            lost += bool(gone or torn)
            flaws += [f"{name}: lost {path.name}" for path in gone] + [f"{name}: {one}" for one in torn]
    return disks, lost, flaws


def same(path: Path, data: bytes) -> bool:
    """Whether a file is as before; one that the writer had replaced before the disk was full is whole too."""
    return path.read_bytes() == data or not check_whole(path.parent)


# The whole


def mutations(args: argparse.Namespace, home: Path, keep: Path) -> tuple[dict[str, Counter[str]], list[str]]:
    """All mutations; failures are kept."""
    each = args.each or (50 if args.quick else 500)
    jobs = [(kind, args.seed * 1_000_000 + n) for kind in READERS for n in range(each)]
    counts, flaws = {kind: Counter[str]() for kind in READERS}, list[str]()
    for kind, seed, outcome, told in tried(jobs, args.jobs, home):
        counts[kind][outcome] += 1
        if outcome not in ("read", "refused"):
            flaws.append(f"{kind}, seed {seed}: {outcome}: {told[:200]}")
            keep.mkdir(parents=True, exist_ok=True)
            root = Path(tempfile.mkdtemp(dir=home))
            data = mutated(READERS[kind].make(root).read_bytes(), random.Random(f"{kind} {seed}"))
            (keep / f"{kind.replace(' ', '-').replace(':', '')}-{seed}-{outcome}").write_bytes(data)
            shutil.rmtree(root)
    return counts, flaws


def page(args: argparse.Namespace, counts: dict[str, Counter[str]], line: dict[str, Any], flaws: list[str]) -> str:
    """The table, the last line in words, and what failed."""
    outcomes = ("refused", "read", "traceback", "silent", "hang", "nameless")
    how = f"`python benchmarks/faults.py{' --quick' * args.quick} --seed {args.seed}`"
    rows = [f"| reader | mutations | {' | '.join(outcomes)} |", f"|---|{'---:|' * (len(outcomes) + 1)}"]
    rows += [
        f"| {kind} | {sum(c.values())} | {' | '.join(str(c[o]) for o in outcomes)} |" for kind, c in counts.items()
    ]
    told = (
        f"{line['kills']} SIGKILLs of writers and of whole runs left {line['torn']} torn files or other endings; "
        f"{line['disks']} full and read-only disks lost {line['lost']} earlier files, "
        f"and {line['unclear']} errors there were not clear."
    )
    failed = "\n".join(f"- {flaw}" for flaw in flaws[:60]) or "None."
    return f"# Faults\n\nMade by {how}.\n\n" + "\n".join(rows) + f"\n\n{told}\n\n## What failed\n\n{failed}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the counts, at most 15 minutes")
    parser.add_argument(
        "--seed", type=int, default=int(time.time()) % 100_000, help="of all mutations and kills; fresh if not given"
    )
    parser.add_argument("--each", type=int, help="mutations a reader")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--only", choices=("mutations", "kills", "disks"))
    parser.add_argument("--keep", type=Path, default=Path("runs/faults"), help="where failures go")
    args = parser.parse_args()
    torch.set_num_threads(1)
    part = 10 if args.quick else 1
    counts, line, flaws = dict[str, Counter[str]](), dict[str, Any](), list[str]()
    with tempfile.TemporaryDirectory(prefix="faults-") as made:
        home, rng = Path(made), random.Random(args.seed)
        os.environ["PROCKD_CACHE"] = str(home / "cache")
        if args.only in (None, "mutations"):
            counts, flaws = mutations(args, home, args.keep)
        total = sum(counts.values(), Counter[str]())
        line = {"tried": total.total(), "tracebacks": total["traceback"], "silent": total["silent"],
                "hangs": total["hang"], "nameless": total["nameless"], "kills": 0, "torn": 0, "disks": 0, "lost": 0,
                "unclear": 0}  # fmt: skip
        if args.only in (None, "kills"):
            kills, torn = kill_writers(140 // part, home, rng)
            more, other = kill_runs(80 // part, home, rng)
            line |= {"kills": kills + more, "torn": len(torn) + len(other)}
            flaws += torn + other
        if args.only in (None, "disks"):
            if sys.platform == "linux" and os.geteuid() == 0:
                disks, lost, bad = fill_disks(56 // part, 24 // part, home, rng)
                line |= {"disks": disks, "lost": lost, "unclear": len(bad) - lost}
                flaws += bad
            else:
                flaws.append("disks: mounting needs root on Linux, so none were tried")
    if args.only is None:
        write_file(RESULTS, page(args, counts, line, flaws))
    print(*flaws, sep="\n")
    print(json.dumps(line | {"seed": args.seed}))


if __name__ == "__main__":
    main()
