"""What writes, for faults.py: killed, on a full disk and on one that is read-only; what must then be whole."""

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from faults_in import CONTEST, is_fault, make_teacher, picture, tiny_bank, tiny_student
from PIL import Image

import prockd as pk
from prockd import writing
from prockd.cache import cached_arrays
from prockd.runs.pictures import predict_pictures
from prockd.settings.experiment import ExperimentConfig
from prockd.settings.toml import read_config, set_values, write_config
from prockd.students.export import export_student
from prockd.students.student import Student
from prockd.training.checkpoint import save_checkpoint
from prockd.writing import append_line, write_file

FORK = multiprocessing.get_context("fork")
DISK = 160 << 20  # a checkpoint of a teacher, twice, and more


# Writers, called over and over: version n of their files into a folder


def versions_of(photos: Path) -> dict[str, Callable[[Path, int], object]]:
    student, bank, config = tiny_student(), tiny_bank(), ExperimentConfig()

    def numbered(n: int) -> Student:
        with torch.no_grad():
            student.head.linear.bias.fill_(n)
        return student

    def predicted(folder: Path, n: int) -> object:
        return predict_pictures(numbered(n), photos, folder / "told", overwrite=True, cpu=True, progress=False)

    return {
        "student": lambda folder, n: numbered(n).save(folder / "student.safetensors", overwrite=True),
        "bank": lambda folder, n: bank.save(folder / "bank.safetensors", overwrite=True),
        "settings": lambda folder, n: write_config(set_values(config, [f"distill.seed={n}"]), folder / "config.toml"),
        "checkpoint": lambda folder, n: save_checkpoint(
            folder, {"model": student}, {"steps": 9}, [{"step": float(m), "loss": 1.0} for m in range(n % 9 + 1)], n % 9
        ),
        "text": lambda folder, n: write_file(folder / "notes.txt", f"{n}\n" * 200_000),
        "JSON lines": lambda folder, n: append_line(folder / "lines.jsonl", {"n": "x" * 3000}),
        "exported student": lambda folder, n: export_student(numbered(n), folder / "export", overwrite=True),
        "predictions": predicted,
        "cache": lambda folder, n: cached_arrays("images", {"n": n}, filled, root=folder / "cache"),
    }


def filled(writer: Any) -> dict[str, object]:
    """An array whose every value is 7."""
    writer.create("x", (400_000,), np.float32)[:] = 7
    return {"of": 7}


WRITERS = (
    "student",
    "bank",
    "settings",
    "checkpoint",
    "text",
    "JSON lines",
    "exported student",
    "predictions",
    "cache",
)


# The command line


@dataclass(frozen=True)
class Command:
    """A command, what it leaves that is compared, and how often its like is killed."""

    words: str
    leaves: str  # a glob
    reads_only: bool = False


COMMANDS = {
    "distill": Command("distill -c settings.toml --run-dir run --checkpoint-every 2", "run/**/*.safetensors"),
    "compare": Command("compare -c contest.toml --run-dir contest", "contest/runs.jsonl"),
    "discover": Command("discover -c settings.toml --out found.safetensors", "found.safetensors"),
    "extract": Command("extract -c settings.toml", "cache/compact/*/*.npy"),
    "train-teacher": Command(
        "train-teacher --images 100 --species-steps 3 --steps 3 --batch-size 4 --out teacher.safetensors "
        "--run-dir teacher -s image_px=64 -s crop_px=64 -s num_prototypes=8", "teacher.safetensors",
    ),
    "adapt-teacher": Command(
        "adapt-teacher --data photos --teacher tiny.safetensors --steps 3 --out adapted.safetensors "
        "-s num_prototypes=8 -s batch_size=4 -s image_px=32 -s crop_px=32", "adapted*.safetensors",
    ),
    "evaluate": Command("evaluate done --json", "stdout", reads_only=True),
    "predict": Command("predict done photos --out told", "told/*.csv"),
    "export": Command("export done --out exported", "exported/*"),
    "check-data": Command("check-data photos --sheet sheet.png", "sheet.png"),
    "unpack": Command("unpack photos.zip unpacked", "unpacked/**/*.png"),
    "cache move": Command("cache move moved", "moved/*/*/*.npy"),
    "cache clear": Command("cache clear --all", "cache/*/*/*.npy"),
}  # fmt: skip


def make_place(folder: Path) -> None:
    """Photographs, settings, a finished run and a cache, for commands to work in."""
    for m in range(12):
        picture(folder / "photos" / "ab"[m % 2] / f"{m}.png", m, (32, 32))
    shutil.make_archive(str(folder / "photos"), "zip", folder / "photos")
    config = set_values(ExperimentConfig(), [
        "student.image_px=32", "student.options.channels=[8, 16, 24, 32]", "distill.steps=6", "distill.batch_size=4",
        "distill.unlabelled_batch=0", "teacher.name=resnet10t", "teacher.random=true", "teacher.image_px=32",
        "teacher.layers=[1, 2]", "teacher.options={channels = [8, 16, 24, 32], stem_width = 8}",
        "discover.num_prototypes=4", "discover.embed_dim=8", "discover.steps=2", "data.path=photos",
    ])  # fmt: skip
    write_config(config, folder / "settings.toml")
    write_config(set_values(config, ["data.val_part=0.4"]), folder / "contest.toml")
    arms = CONTEST.split("[teacher]")[0].replace('"labels alone"', '"labels alone", "ours"')
    with (folder / "contest.toml").open("a") as file:
        file.write(f"\n{arms}weights = [1.0]\n")
    make_teacher(folder).rename(folder / "tiny.safetensors")
    code, told = command("distill -c settings.toml --run-dir done --no-baseline", folder)
    if code:
        raise RuntimeError(told)


def command(words: str, folder: Path, killed_after_s: float | None = None) -> tuple[int, str]:
    """Run ``prockd ...`` in a process of its own: its exit code, -9 after a kill, and all that it said."""

    def work() -> None:
        os.chdir(folder)
        os.environ["PROCKD_CACHE"] = "cache"
        sys.argv = ["prockd", *words.split(), *(["--cpu"] if " ".join(words.split()[:1]) not in NO_CPU else [])]
        from prockd.cli import app

        app(sys.argv[1:])

    return in_child(work, killed_after_s)


NO_CPU = ("export", "check-data", "unpack", "cache")


def in_child(work: Callable[[], object], killed_after_s: float | None = None) -> tuple[int, str]:
    """Run something in a process of its own, perhaps killed after a time: its exit code or -9, and what it said."""
    said = Path(os.environ["FAULTS_HOME"]) / f"said-{os.getpid()}-{time.monotonic_ns()}"
    with said.open("w+") as out:

        def run() -> None:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
            sys.stdout, sys.stderr = (os.fdopen(n, "w", closefd=False) for n in (1, 2))
            code: Any = 0
            try:
                work()
            except SystemExit as end:
                code = end.code or 0
            except BaseException as error:
                code = 2
                print(("FAULT " if is_fault(error) else "") + f"{type(error).__name__}: {error}")
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

        process = FORK.Process(target=run)
        process.start()
        process.join(killed_after_s)
        if process.is_alive():
            os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        told = said.read_text(errors="replace")
        said.unlink()
    return process.exitcode or 0, told


def advised(words: str, told: str) -> str | None:
    """The command that a refusal tells to go on with."""
    for option in ("--resume", "--overwrite"):
        if option in told and option not in words:
            return f"{words.replace(' --resume', '')} {option}"
    return None


def to_the_end(words: str, folder: Path) -> tuple[int, str]:
    """The same command again, and what its refusals advise, until one ends well."""
    for _ in range(3):
        code, told = command(words, folder)
        if code != 2 or (next_words := advised(words, told)) is None:
            break
        words = next_words
    return code, told


def left(kind: str, folder: Path, told: str = "") -> dict[str, str]:
    """What a command leaves, told apart by content: tensors, and lines without times."""
    glob, found = COMMANDS[kind].leaves, {}
    if glob == "stdout":
        return {"stdout": told[told.find("{") :]}  # without bars
    for path in sorted(folder.glob(glob)):
        if path.suffix == ".safetensors":
            state = safetensors.torch.load_file(path)
            content = b"".join(name.encode() + state[name].numpy().tobytes() for name in sorted(state))
        elif path.suffix == ".jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            content = json.dumps(sorted([r["job"], r.get("z"), r.get("z_plus")] for r in rows)).encode()
        elif path.is_file():
            content = path.read_bytes()
        else:
            continue
        found[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return found


def wanted_of(kind: str, home: Path) -> tuple[float, dict[str, str]]:
    """How long a command takes that nobody kills, and what it leaves; made once for all processes."""
    kept, folder = home / f"wanted-{kind}.json", home / f"whole-{kind}-{os.getpid()}"
    if not kept.is_file():
        shutil.copytree(home / "place", folder, symlinks=True)
        began = time.monotonic()
        code, told = command(COMMANDS[kind].words, folder)
        if code:
            raise RuntimeError(f"{kind} itself fails: {told[-800:]}")
        write_file(kept, json.dumps([time.monotonic() - began, left(kind, folder, told)]))
        shutil.rmtree(folder)
    lasts_s, leaves = json.loads(kept.read_text())
    return lasts_s, leaves


# What must be whole


def check_whole(folder: Path) -> list[str]:
    """What is torn of the files in a folder."""
    torn = []
    checks: dict[str, Callable[[Path], object]] = {
        "bank.safetensors": pk.PrototypeBank.load, "config.toml": read_config,
        "checkpoint.pt": lambda path: torch.load(path, weights_only=True),
        "classes.csv": lambda path: same_lines(path), "notes.txt": lambda path: same_lines(path, 200_000),
        "report.html": lambda path: ends(path, "</html>"),
    }  # fmt: skip
    kinds: dict[str, Callable[[Path], object]] = {
        ".safetensors": safetensors.torch.load_file, ".json": lambda path: json.loads(path.read_text()),
        ".png": lambda path: Image.open(path).load(), ".jsonl": whole_lines,
    }  # fmt: skip
    for path in (path for path in folder.rglob("*") if path.is_file()):
        inside = path.relative_to(folder)
        if any(part.startswith((".prockd-", ".lock")) for part in inside.parts):
            continue
        if check := Student.load if path.name == "student.safetensors" and "export" not in str(inside) else (
            checks.get(path.name) or kinds.get(path.suffix)
        ):  # fmt: skip
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    check(path)
            except Exception as error:
                torn.append(f"torn: {inside}: {type(error).__name__} {str(error)[:120]}")
    return torn


def same_lines(path: Path, count: int | None = None) -> None:
    lines = path.read_text().splitlines()
    if not lines or (count and (len(lines) != count or len(set(lines)) != 1)) or not path.read_text().endswith("\n"):
        raise ValueError(f"{len(lines)} lines, {len(set(lines))} different")


def whole_lines(path: Path) -> None:
    """Every line is JSON; the last may be half, and is passed over by whoever reads."""
    for line in path.read_text().split("\n")[:-1]:
        with suppress(ValueError):
            json.loads(line)
            continue
        if "x" * 20 not in line and '"job"' not in line:
            raise ValueError(f"half a line: {line[:60]}")


def ends(path: Path, text: str) -> None:
    if not path.read_text().rstrip().endswith(text):
        raise ValueError("is cut")


# Kills


def kill_writer(kind: str, seed: int, home: Path) -> list[tuple[str, str]]:
    """Kill a writer while it writes version after version."""
    rng, folder = random.Random(f"kill {kind} {seed}"), home / f"kill-{kind}-{os.getpid()}"
    folder.mkdir(exist_ok=True)
    write = versions_of(home / "place" / "photos")[kind]

    def forever() -> None:
        for n in range(10**6):
            write(folder, n)

    code, told = in_child(forever, rng.uniform(0.05, 0.6))
    if code != -signal.SIGKILL:
        return [("other", f"{kind} ended by itself: {told[-300:]}")]
    torn = check_whole(folder)
    if kind == "cache":
        arrays, _ = cached_arrays("images", {"n": 0}, filled, root=folder / "cache")
        torn += [] if (arrays["x"] == 7).all() else ["torn: half an array is believed"]
    writing._swept.clear()  # as of a process that begins
    write(folder, 999)  # goes on, and sweeps
    if litter := [path.name for path in folder.rglob(".prockd-*")]:
        torn.append(f"litter stays: {litter}")
    shutil.rmtree(folder)
    return [("torn", one) for one in torn] or [("whole", "")]


def kill_command(kind: str, seed: int, home: Path) -> list[tuple[str, str]]:
    """Kill a command up to three times, then let it end: it leaves what it would have left."""
    rng, folder = random.Random(f"kill {kind} {seed}"), home / f"kill-{kind}-{os.getpid()}"
    lasts_s, wanted = wanted_of(kind, home)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(home / "place", folder, symlinks=True)
    done, words = list[tuple[str, str]](), COMMANDS[kind].words
    for _ in range(9):
        code, told = command(words, folder, rng.uniform(0.02, 1.0) * lasts_s)
        if code == -signal.SIGKILL:
            torn = check_whole(folder)
            done.append(("torn", "; ".join(torn)) if torn else ("whole", ""))
        elif code == 2 and (next_words := advised(words, told)):
            words = next_words
        elif code == 2 and "is not empty" in told:  # killed between its last act and its end: nothing is left to do
            break
        elif code:
            done.append(("other", f"{kind}: exit {code}: {told[-400:]}"))
            break
        if sum(outcome in ("whole", "torn") for outcome, _ in done) == 3:
            break
    code, told = to_the_end(words, folder)
    if code and "is not empty" not in told:
        done.append(("other", f"{kind} does not go on: exit {code}: {told[-500:]}"))
    elif (last := left(kind, folder, told)) != wanted and not ("finished" in told and not last):
        differ = [name for name in {**wanted, **last} if wanted.get(name) != last.get(name)]
        done.append(("other", f"{kind} leaves another {', '.join(differ)[:200]}"))
    if litter := [str(path) for path in folder.rglob("*") if path.name.startswith((".prockd-", ".lock"))]:
        done.append(("litter", f"{kind}: {litter[:3]}"))
    shutil.rmtree(folder)
    return done


# Disks


@contextmanager
def mounted(place: Path) -> Iterator[Path]:
    """A small file system in memory."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "faults", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def files_of(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and "cache" not in p.parts}


def on_disk(kind: str, seed: int, home: Path, *, full: bool) -> list[tuple[str, str]]:
    """A writer or a command on a full disk or a read-only one: a clear message, and what was there stays whole."""
    rng = random.Random(f"disk {kind} {seed}")
    with mounted(home / f"disk-{os.getpid()}") as disk:
        folder = disk / "work"
        is_writer = kind in WRITERS
        if is_writer:
            folder.mkdir()
            write = versions_of(home / "place" / "photos")[kind]
            if seed % 3:  # else nothing is there before
                write(folder, 1)
        else:
            wanted = wanted_of(kind, home)[1]
            shutil.copytree(home / "place", folder, symlinks=True)
            if seed % 2:
                shutil.rmtree(folder / "cache", ignore_errors=True)
        before = files_of(folder)
        if full:
            room = rng.choice((0, 4096, 65536, 300_000))
            with suppress(OSError):
                (disk / "others").write_bytes(bytes(max(0, shutil.disk_usage(disk).free - room)))
        else:
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        code, told = in_child(lambda: write(folder, 2)) if is_writer else command(COMMANDS[kind].words, folder)
        flaws = judged(kind, code, told, folder, before)
        if full:
            (disk / "others").unlink(missing_ok=True)
            if not is_writer and code and not flaws:  # with room it goes on
                code, told = to_the_end(COMMANDS[kind].words, folder)
                if code or left(kind, folder, told) != wanted:
                    flaws.append(("lost", f"{kind} does not go on with room: exit {code}: {told[-400:]}"))
    return flaws or [("clear" if code else "done", "")]


def judged(kind: str, code: int, told: str, folder: Path, before: Mapping[Path, bytes]) -> list[tuple[str, str]]:
    """What was not clear, and what was lost."""
    words, flaws = told.lower(), list[tuple[str, str]]()
    clear = any(said in words for said in ("disk full", "no space", "read-only", "not enough room"))
    if code and (not clear or code < 0 or "traceback" in words or "fault " in words):
        flaws.append(("unclear", f"{kind}: exit {code}: {told[-500:]}"))
    torn = check_whole(folder)
    flaws += [("lost", f"{kind}: {one}") for one in torn]
    for path, data in before.items():
        if not path.is_file():
            flaws.append(("lost", f"{kind}: {path.name} is gone"))
        elif code and path.read_bytes() != data and path.suffix == ".toml":
            flaws.append(("lost", f"{kind}: {path.name} is another"))
    return flaws
