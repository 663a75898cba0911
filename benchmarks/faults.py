"""What prockd does with damaged files, kills and full disks: nothing silent, nothing torn, nothing lost.

    python benchmarks/faults.py [--quick] [--seed N] [--only mutations|kills|disks] [--jobs 2]

Each reader gets damaged files and has to refuse them in words that name the file, or to read what keeps the rules
of its format; each writer and each command is killed and runs out of room, and what was there has to be whole. Every
outcome is a line, of damaged files and with --quick in runs/faults/SEED.jsonl, of kills and disks in
results/faults.jsonl, and the same command goes on where it was stopped. Damaged files that failed are kept in
runs/faults/SEED. The last line printed is one JSON object. Mounting needs root on Linux.
"""

import argparse
import faulthandler
import json
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

os.environ.update({"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"})

import psutil
import torch
from faults_in import DAMAGES, READERS, damage_of, damaged, read_damaged
from faults_out import COMMANDS, FORK, WRITERS, in_child, kill_command, kill_writer, make_place, on_disk
from tqdm import tqdm

from prockd.writing import append_line, read_lines, write_file

RESULTS = Path(__file__).parent / "results" / "faults.md"
NOTES, KEPT = RESULTS.with_name("faults_notes.md"), RESULTS.with_suffix(".jsonl")
HANG_S = {"mutations": 20, "kills": 400, "full": 400, "read-only": 400}
QUICK_S = 720
"""After which --quick begins nothing new: the rest of its 15 minutes is for what is under way."""
MEMORY = 24 << 30
GOOD = ("read", "refused", "whole", "clear", "done")


class Job(NamedTuple):
    """One damaged file, one kill of a writer or three of a command, one disk."""

    part: str
    kind: str
    number: int


def all_jobs(quick: bool, only: str | None, seed: int) -> list[Job]:
    """Of all counts, or a tenth: mutations a reader, kills, disks."""
    part = 10 if quick else 1
    jobs = [Job("mutations", kind, n) for n in range(500 // part) for kind in READERS]
    kills = [Job("kills", kind, n) for n in range(4) for kind in COMMANDS]  # at most three kills each
    kills += [Job("kills", kind, n) for n in range(14) for kind in WRITERS]
    disks = [Job("full", kind, n) for n in range(3) for kind in (*WRITERS, *COMMANDS)]
    disks += [Job("read-only", kind, 1) for kind in (*WRITERS, *COMMANDS)]
    if quick:  # a tenth: two kills of each writer, three commands and eight disks by the seed
        draw = random.Random(seed)
        kills = [Job("kills", kind, 0) for kind in draw.sample(list(COMMANDS), 3)]
        kills += [Job("kills", kind, n) for n in range(2) for kind in WRITERS]
        disks = draw.sample(disks, 8)
    if sys.platform != "linux" or os.geteuid():
        disks = []
    parts = {"mutations": jobs, "kills": kills, "disks": disks}
    return [job for name, some in parts.items() if only in (None, name) for job in some]


def do(job: Job, seed: int, home: Path, made: dict[str, tuple[Path, Path]]) -> list[tuple[str, str]]:
    """What came of a job: outcomes, and what was said."""
    number = seed * 1000 + job.number
    try:
        if job.part == "kills":
            return (kill_writer if job.kind in WRITERS else kill_command)(job.kind, number, home)
        if job.part in ("full", "read-only"):
            return on_disk(job.kind, number, home, full=job.part == "full")
        if job.kind not in made:
            root = Path(tempfile.mkdtemp(dir=home)) / "data"
            root.mkdir()
            path = READERS[job.kind].make(root)
            good = root.parent / f"good{path.suffix}"
            shutil.copyfile(path, good)
            made[job.kind] = good, path
        return [read_damaged(job.kind, job.number, seed, *made[job.kind])]
    except Exception as error:  # of this script
        return [("other", f"{type(error).__name__}: {error}"[:800])]


def worker(connection: Connection, home: Path, seed: int) -> NoReturn:
    """Try what it is told, until it is told nothing more; its memory is bounded, and it tells where it hangs."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.RLIM_INFINITY))
    made: dict[str, tuple[Path, Path]] = {}
    told = (home / f"stack-{os.getpid()}").open("w")
    os.dup2(told.fileno(), 2)
    faulthandler.enable(told)
    faulthandler.register(signal.SIGUSR1, told, all_threads=True)
    while (job := connection.recv()) is not None:
        connection.send(do(job, seed, home, made))
    os._exit(0)


@dataclass
class Slot:
    """A worker process, and what it is at."""

    process: Any
    connection: Connection
    job: Job | None = None
    since: float = 0.0
    cpu_s: float = 0.0


def slot(home: Path, seed: int) -> Slot:
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=worker, args=(theirs, home, seed))
    process.start()
    theirs.close()
    return Slot(process, ours)


def cpu_seconds(one: Slot) -> float:
    with suppress(psutil.Error):
        times = psutil.Process(one.process.pid).cpu_times()
        return times.user + times.system
    return one.cpu_s


def stack_of(one: Slot, home: Path) -> str:
    """Where a worker is."""
    with suppress(OSError):
        os.kill(one.process.pid, signal.SIGUSR1)
        time.sleep(0.5)
    with suppress(OSError):
        return (home / f"stack-{one.process.pid}").read_text()[:3000]
    return ""


def tried(
    jobs: list[Job], workers: int, home: Path, seed: int, lasts_s: float
) -> Iterator[tuple[Job, list[tuple[str, str]]]]:
    """Each job that is begun in this time, with what came of it; a worker that hangs or dies is replaced.

    It hangs when it computes for so long, or does nothing for six times as long: other work may share the machine.
    """
    slots, waiting, end = [slot(home, seed) for _ in range(workers)], list(reversed(jobs)), time.monotonic() + lasts_s
    while waiting or any(one.job for one in slots):
        if time.monotonic() > end:
            waiting.clear()
        for n, one in enumerate(slots):
            if one.job is None and waiting:
                one.job, one.since, one.cpu_s = waiting.pop(), time.monotonic(), cpu_seconds(one)
                one.connection.send(one.job)
            if one.job is None:
                continue
            answer: list[tuple[str, str]] | None = None
            with suppress(EOFError, ConnectionError):
                if one.connection.poll(0.01):
                    answer = one.connection.recv()
            limit_s, alive = HANG_S[one.job.part], one.process.is_alive()
            waited_s = time.monotonic() - one.since
            if answer is None and alive and (
                waited_s < limit_s or (waited_s < 6 * limit_s and cpu_seconds(one) - one.cpu_s < limit_s)
            ):  # fmt: skip
                continue
            job, one.job = one.job, None
            if answer is None:
                used = f"{waited_s:.0f} s, {cpu_seconds(one) - one.cpu_s:.0f} of them computing" if alive else "died"
                answer = [("hang" if alive else "traceback", f"{used}: {stack_of(one, home)}")]
                one.process.kill()
                slots[n] = slot(home, seed)
            yield job, answer
    for one in slots:
        one.connection.send(None)
        one.process.join(2)
        one.process.kill()


def keep(job: Job, seed: int, home: Path, folder: Path) -> None:
    """A damaged file that failed, to be looked at."""
    root = Path(tempfile.mkdtemp(dir=home))
    path = READERS[job.kind].make(root)
    data = damaged(path.read_bytes(), job.number, random.Random(f"{job.kind} {job.number} {seed}"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{job.kind.replace(' ', '-').replace(':', '')}-{job.number}{path.suffix}").write_bytes(data)
    shutil.rmtree(root)


def read_rows(lines: dict[str, Path], seed: int) -> list[dict[str, Any]]:
    """What has been tried with this seed."""
    rows = [row for path in dict.fromkeys(lines.values()) for row in read_lines(path)]
    return [row for row in rows if row["seed"] == seed]


def counted(rows: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """The last line: counts of all outcomes."""
    of = {part: Counter(row["outcome"] for row in rows if row["part"] == part) for part in HANG_S}
    read, kills, disks = of["mutations"], of["kills"], of["full"] + of["read-only"]
    return {
        "tried": read.total(), "tracebacks": read["traceback"], "silent": read["silent"], "hangs": read["hang"],
        "nameless": read["nameless"] + read["other"], "kills": kills["whole"] + kills["torn"],
        "torn": kills.total() - kills["whole"], "disks": disks.total() - disks["other"],
        "lost": disks["lost"], "unclear": disks.total() - disks["lost"] - disks["clear"] - disks["done"], "seed": seed,
    }  # fmt: skip


def page(rows: list[dict[str, Any]], line: dict[str, Any], how: str) -> str:
    """The tables, the last line, and what failed."""
    notes = NOTES.read_text() if NOTES.is_file() else ""
    read, text = [row for row in rows if row["part"] == "mutations"], [f"# Faults\n\nMade by `{how}`.\n\n{notes}"]
    outcomes = ("refused", "read", "traceback", "silent", "hang", "nameless")
    text += [f"| reader | mutations | of each damage | {' | '.join(outcomes)} |", f"|---|{'---:|' * 8}"]
    for kind in READERS:
        own = [row for row in read if row["kind"] == kind]
        least = min(Counter(damage_of(row["number"]) for row in own).get(damage, 0) for damage in DAMAGES)
        count = Counter(row["outcome"] for row in own)
        text.append(f"| {kind} | {len(own)} | {least} | {' | '.join(str(count[o]) for o in outcomes)} |")
    text.append(f"\nDamages: {', '.join(DAMAGES)}.\n")
    text += ["| writer or command | kills | torn or other ends | full disks | read-only disks | unclear or lost |"]
    text += [f"|---|{'---:|' * 5}"]
    for kind in (*WRITERS, *COMMANDS):
        of = {part: [row for row in rows if row["part"] == part and row["kind"] == kind] for part in HANG_S}
        killed = sum(row["outcome"] in ("whole", "torn") for row in of["kills"])
        bad = [sum(row["outcome"] not in GOOD for row in some) for some in (of["kills"], of["full"] + of["read-only"])]
        name = kind if kind in WRITERS else f"`prockd {kind}`"
        text.append(f"| {name} | {killed} | {bad[0]} | {len(of['full'])} | {len(of['read-only'])} | {bad[1]} |")
    failed = [f"- {r['part']}, {r['kind']}, {r['number']}: {r['outcome']}" for r in rows if r["outcome"] not in GOOD]
    text += ["", "```json", json.dumps(line), "```", "\n## What failed\n", "\n".join(failed[:60]) or "Nothing.", ""]
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the counts, at most 15 minutes")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000, help="fresh if not given")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="processes")
    parser.add_argument("--only", choices=("mutations", "kills", "disks"))
    parser.add_argument("--page", action="store_true", help="only write the page, of the lines that are there")
    args, began = parser.parse_args(), time.monotonic()
    torch.set_num_threads(1)
    # tqdm's own lock is shared by forked processes: one that is killed while it holds it stops the others for ever,
    # wherever a bar is closed, in the collector of garbage too
    tqdm.set_lock(threading.RLock())
    folder = Path("runs/faults").resolve()
    name = f"{args.seed}{'-quick' * args.quick}"
    lines = dict.fromkeys(HANG_S, folder / f"{name}.jsonl")
    if not args.quick:  # of hours, so that a later checkout goes on too
        lines |= dict.fromkeys(("kills", "full", "read-only"), KEPT)
    jobs, rows = all_jobs(args.quick, args.only, args.seed), read_rows(lines, args.seed)
    done = {(row["part"], row["kind"], row["number"]) for row in rows}
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as made:
        home = Path(made)
        os.environ |= {"PROCKD_CACHE": str(home / "cache"), "FAULTS_HOME": made, "MPLCONFIGDIR": str(home / "mpl")}
        left = [job for job in jobs if job not in done] if not args.page else []
        if any(job.part != "mutations" for job in left):
            code, told = in_child(lambda: make_place(home / "place"))
            if code:
                sys.exit(f"the place for commands cannot be made: {told}")
        lasts_s = began + QUICK_S - time.monotonic() if args.quick else math.inf
        for job, answer in tried(left, args.jobs, home, args.seed, lasts_s):
            for outcome, told in answer:
                row = {**job._asdict(), "outcome": outcome, "seed": args.seed}
                append_line(lines[job.part], row | ({} if outcome in GOOD else {"told": told}))
                if outcome not in GOOD:
                    print(*job, outcome, told, flush=True)
                    if job.part == "mutations":
                        keep(job, args.seed, home, folder / name)
    rows = read_rows(lines, args.seed)
    line = counted(rows, args.seed)
    if args.only is None and not args.quick:
        write_file(RESULTS, page(rows, line, f"python benchmarks/faults.py --seed {args.seed}"))
    print(json.dumps(line))


if __name__ == "__main__":
    main()
