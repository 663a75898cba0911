"""What is best read of a finished student's patches? Part maps, their controls, and what else was tried.

    python benchmarks/readings.py                      # 5 and 30 labels, 3 students each; about an hour of one core
    python benchmarks/readings.py --labels 5 --seeds 1
    python benchmarks/readings.py --page               # only results/readings.md, from what is there
    python benchmarks/readings.py --quick              # one student of 5 labels, a fresh seed, one line of JSON

Students are trained by the recipe; every reading is fitted to them in the same closed form, with the same labels and
the same soft targets, and told on validation images: the test split is not touched. One line a student in
results/readings.jsonl.
"""

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.cluster import MiniBatchKMeans

from prockd.evaluation.intervals import paired_interval
from prockd.prototypes.part_maps import belonging, part_descriptor
from prockd.runs import open_world, train_student
from prockd.runs.students import find_prototypes
from prockd.training.controls import Read, control_readings, readings_of

RESULTS = Path(__file__).parent / "results"
LINES = RESULTS / "readings.jsonl"
OURS = "part maps"


def all_readings(prototypes: torch.Tensor, drawn: torch.Tensor, seed: int) -> Mapping[str, Read]:
    """The controls that every contest has, and what else was tried."""
    generator = torch.Generator().manual_seed(seed + 1)
    every = F.normalize(drawn.flatten(0, 1), dim=-1)
    some = every[torch.randperm(len(every), generator=generator)[:20_000]]

    def residuals(centres: torch.Tensor, temperature: float = 0.1) -> Read:
        return lambda f: part_descriptor(f, centres, temperature=temperature).flatten(1)

    def kmeans(count: int) -> torch.Tensor:
        found = MiniBatchKMeans(count, random_state=seed, n_init=1, batch_size=4096).fit(some.numpy())
        return torch.from_numpy(found.cluster_centers_).float()

    def memory(count: int, temperature: float) -> Read:
        kept = some[:count]

        def read(f: torch.Tensor) -> torch.Tensor:
            h = F.normalize(f, dim=-1)
            return torch.cat([h, (h @ kept.T / temperature).softmax(-1) @ kept], -1).mean(1)

        return read

    more: dict[str, Read] = {
        "temperature .05": residuals(prototypes, 0.05),
        "temperature .2": residuals(prototypes, 0.2),
        "24 centres of k-means": residuals(kmeans(24)),
        "96 centres of k-means": residuals(kmeans(96)),
        "24 random patches": residuals(some[:24]),
        "192 random patches": residuals(some[:192]),
        "how often each prototype occurs": lambda f: belonging(f, prototypes)[1].mean(1),
        "memory of 2,000 patches, attention .1": memory(2000, 0.1),
        "memory of 2,000 patches, attention .03": memory(2000, 0.03),
    }
    return readings_of(prototypes, drawn, seed) | more


def measure(labels: int, seed: int, form: str) -> dict[str, object]:
    """One student, and every reading of it."""
    torch.set_num_threads(1)
    world = open_world(per_class=labels, seed=seed, form=form, num_test=1, progress=False)
    bank = find_prototypes(world, progress=False)
    config = world.config.distill.replace(seed=seed, mixed_precision="bf16")
    student, history = train_student(world, bank, world.config.feature_augmentation, config, on="val")
    assert history.scores is not None
    found = control_readings(
        student, world.embedded("train", bank), world.embedded("unlabelled", bank), world.images("val"), seed=seed,
        readings=all_readings,
    )  # fmt: skip
    probes = {"probe": world.probe("val"), "part_probe": world.part_probe(bank, "val")}
    own = {"form": form, "labels": labels, "seed": seed, "z": history.scores.plain, "z_plus": history.scores.augmented}
    return own | probes | {"readings": found}


def page(rows: list[dict[str, object]]) -> str:
    """The table: means over students, and the paired difference of part maps from each reading."""
    text = [
        "# What is best read of a finished student's patches",
        "",
        "Made by `python benchmarks/readings.py`, a line a student in `readings.jsonl`. Validation images, Farmyard's "
        "target species; every reading is fitted to the same students in the same closed form with the same labels and "
        "soft targets. In brackets: part maps minus the reading, mean and 95 % interval over students (Student's t); "
        "bold where it is clear of zero.",
        "",
    ]
    groups = sorted({(str(r["form"]), int(str(r["labels"]))) for r in rows})
    for form, labels in groups:
        own = [r for r in rows if (r["form"], r["labels"]) == (form, labels)]
        means = {k: np.mean([float(str(r[k])) for r in own]) for k in ("z", "z_plus", "probe", "part_probe")}
        text += [
            f"## {form} form, {labels} labels a class, "
            + (f"{len(own)} students" if len(own) > 1 else "one student: no interval, so nothing is told apart"),
            "",
            f"z {means['z']:.3f}, z⁺ {means['z_plus']:.3f}; the teacher's own probe {means['probe']:.3f}, read by part "
            f"maps {means['part_probe']:.3f}.",
            "",
            "| reading | accuracy | part maps better by |",
            "|---|---|---|",
        ]
        table = [r["readings"] for r in own]
        assert all(isinstance(t, dict) for t in table)
        for name in table[0]:  # type: ignore[index,union-attr]
            values = np.array([t[name] for t in table])  # type: ignore[index]
            apart = np.array([t[OURS] for t in table]) - values  # type: ignore[index]
            told = f"{apart.mean():+.3f}"
            if len(own) > 1 and name != OURS:
                mean, low, high = paired_interval(apart)
                told = f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"
                told = f"**{told}**" if low > 0 or high < 0 else told
            text.append(f"| {name} | {values.mean():.3f} | {'' if name == OURS else told} |")
        text.append("")
    return "\n".join(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, nargs="*", default=[5, 30])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--form", choices=("framed", "varied"), default="framed")
    parser.add_argument("--page", action="store_true")
    parser.add_argument("--quick", action="store_true", help="one student, on images of a seed that nobody chose")
    args = parser.parse_args()
    if args.quick:
        began, fresh = time.perf_counter(), time.time_ns() // 10**6 % 10**6
        print(json.dumps(measure(args.labels[0], fresh, args.form) | {"seconds": round(time.perf_counter() - began)}))
        raise SystemExit
    rows = [json.loads(line) for line in LINES.read_text().splitlines()] if LINES.is_file() else []
    for seed in range(0 if args.page else args.seeds):
        for labels in args.labels:
            if any((r["form"], r["labels"], r["seed"]) == (args.form, labels, seed) for r in rows):
                continue
            rows.append(measure(labels, seed, args.form))
            with LINES.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(json.dumps(rows[-1]), flush=True)
    (RESULTS / "readings.md").write_text(page(rows), encoding="utf-8")
