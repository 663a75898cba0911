"""Which part of the method helps? Every arm, every label count, five seeds, one command.

    python benchmarks/ablation.py            # trains what is missing in results/ablation.jsonl, then writes the page
    python benchmarks/ablation.py --page     # only results/README.md and its figure, from what is there

Neighbours of one seed share the start, the labelled images, the number of steps, the images in a step and the data
order; the seed also draws which images are labelled. The number is accuracy on the test split after the last step.
Settings were chosen on the validation split (results/search.md).
"""

import argparse
import copy
import functools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
RESULTS = HERE / "results"
RUNS = Path("runs/ablation")
LABELS = (30, 10, 5)
SEEDS = range(5)
STEPS, FIRST_STEPS, BATCH = 450, 320, 48
FIRST_LR, SECOND_LR = 4e-3, 8e-3
FEW = 10
"""With so few labelled images a class and unlabelled ones beside them, the first steps are for transfer alone."""


@dataclass(frozen=True)
class Arm:
    """One way to train a student.

    Attributes:
        name: as in the table.
        distill: changes to the best preset's DistillConfig.
        feature_augmentation: changes to its FeatureAugmentationConfig; None trains no augmentation.
        teacher: "farmyard", "random" (same network, random weights) or "none".
        bank: "learned", "kmeans" (not refined), "paper" (its whole preset) or "none".
        unlabelled: unlabelled target images are mixed into every step; with few labels, after a label-free first stage.
        background: of the test images.
    """

    name: str
    distill: Mapping[str, Any] = field(default_factory=dict)
    feature_augmentation: Mapping[str, Any] | None = None
    teacher: str = "farmyard"
    bank: str = "learned"
    unlabelled: bool = False
    background: str = "field"
    labels: tuple[int, ...] = (30,)


ARMS = (
    Arm("labels alone", teacher="none", labels=LABELS),
    Arm("FitNets hint", {"assignment_weight": 0.0, "feature_weight": 0.0, "hint_weight": 3.0}, bank="none"),
    Arm("transfer, random teacher", teacher="random"),
    Arm("transfer"),
    Arm("transfer + augmentation", feature_augmentation={}),
    Arm("transfer + MLP instead", feature_augmentation={"content": "mlp"}),
    Arm("unlabelled + transfer", unlabelled=True, labels=LABELS),
    Arm("unlabelled + transfer + augmentation", feature_augmentation={}, unlabelled=True, labels=LABELS),
    Arm("unlabelled + transfer + MLP instead", feature_augmentation={"content": "mlp"}, unlabelled=True, labels=LABELS),
    Arm("transfer + augmentation, shifted", feature_augmentation={}, background="shifted"),
    Arm("transfer, assignment only", {"feature_weight": 0.0}),
    Arm("transfer, feature only", {"assignment_weight": 0.0}),
    Arm("transfer, k-means prototypes", bank="kmeans"),
    Arm("transfer + descriptor", feature_augmentation={"content": "descriptor"}),
    Arm("paper's literal reading", bank="paper", feature_augmentation={"content": "prototypes"}),
)
EXTRA = ARMS[9:]
"""Arms that are trained last: the page is whole without them."""


def settings(arm: Arm, labels: int, seed: int) -> tuple[Any, Any]:
    """The arm's FeatureAugmentationConfig (or None) and DistillConfig."""
    from prockd.settings.method import best, paper

    _, augmentation, distillation = paper() if arm.bank == "paper" else best()
    changes: dict[str, Any] = {"steps": STEPS, "batch_size": BATCH, "seed": seed, "mixed_precision": "bf16"}
    if arm.unlabelled:
        changes |= {"batch_size": BATCH // 2, "unlabelled_batch": BATCH // 2}
    if arm.unlabelled and labels <= FEW:
        changes |= {"batch_size": BATCH // 3, "unlabelled_batch": BATCH - BATCH // 3}
        changes |= {"steps": STEPS - FIRST_STEPS, "lr": SECOND_LR}
    changes |= arm.distill
    config = distillation.replace(**changes)
    return None if arm.feature_augmentation is None else augmentation.replace(**arm.feature_augmentation), config


def run(arm: Arm, labels: int, seed: int) -> dict[str, Any]:
    """Train one student and score it on the test split."""
    import torch

    from prockd.runs import train_student

    torch.set_num_threads(1)
    world = world_of("farmyard" if arm.teacher == "none" else arm.teacher, seed, arm.background).few(labels)
    augmentation, config = settings(arm, labels, seed)
    bank = None if arm.bank == "none" or arm.teacher == "none" else copy.deepcopy(banks(arm.teacher, arm.bank))
    start = first_stage(arm, seed) if arm.unlabelled and labels <= FEW else None
    began = time.perf_counter()
    student, history = train_student(
        world, bank, augmentation, config, teacher=arm.teacher != "none", on="test", start=start
    )
    assert history.scores is not None
    return {
        "arm": arm.name, "labels": labels, "seed": seed, "z": history.scores.plain, "z_plus": history.scores.augmented,
        "seconds": time.perf_counter() - began, "ms_per_step": history.seconds_per_step * 1e3, "steps": STEPS,
        "parameters": student.plain_parameters, "extra_parameters": student.extra_parameters,
        "final": {k: v for k, v in history.rows[-1].items() if k not in ("step", "seconds", "lr")},
    }  # fmt: skip


@functools.cache
def teacher_of(kind: str, image_px: int = 0) -> Any:
    """The Farmyard teacher at its own size or another one, or the same network with random weights."""
    import torch

    from prockd.teachers.teacher import Teacher

    teacher = Teacher("farmyard", image_px=image_px or None)
    if kind == "random":
        torch.manual_seed(0)
        for module in teacher.backbone.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        teacher.requires_grad_(False)
    return teacher


@functools.lru_cache(maxsize=2)
def world_of(teacher: str, seed: int, background: str = "field") -> Any:
    """Images and features; what an arm does not use is left small."""
    from prockd.runs import open_world

    return open_world(
        teacher=teacher_of(teacher), num_discover=800, num_unlabelled=1500 if teacher == "farmyard" else 10, num_val=10,
        num_test=1000, seed=seed, background=background, progress=False,
    )  # fmt: skip


@functools.cache
def banks(teacher: str, kind: str) -> Any:
    """Prototypes of the teacher's own species."""
    from prockd.prototypes.discovery import discover
    from prockd.settings.method import best, paper

    discovery = paper()[0] if kind == "paper" else best()[0]
    if kind == "kmeans":
        discovery = discovery.replace(steps=0)
    return discover(world_of(teacher, 0).source, config=discovery, progress=False)


def first_stage(arm: Arm, seed: int) -> Mapping[str, Any]:
    """Weights after the label-free first stage of this seed, trained once and kept in runs/ablation."""
    import safetensors.torch

    from prockd.runs import train_student

    path = RUNS / f"first_stage_seed{seed}.safetensors"
    if not path.exists() and claim(path.name):
        _, config = settings(arm, FEW, seed)
        config = config.replace(steps=FIRST_STEPS, label_free_steps=FIRST_STEPS, lr=FIRST_LR)
        bank = copy.deepcopy(banks(arm.teacher, arm.bank))
        student, _ = train_student(world_of(arm.teacher, seed), bank, None, config)
        student.save(path.with_suffix(".new")).rename(path)
    while not path.exists():
        time.sleep(1)
    return safetensors.torch.load_file(path)


def jobs() -> list[tuple[Arm, int, int]]:
    """Everything the table needs, most labels first, then seeds, so that an early stop still leaves whole rows."""
    main = [(arm, n, seed) for n in LABELS for seed in SEEDS for arm in ARMS if arm not in EXTRA and n in arm.labels]
    return main + [(arm, labels, seed) for seed in SEEDS for arm in EXTRA for labels in arm.labels]


def done() -> list[dict[str, Any]]:
    """Finished runs."""
    return [
        json.loads(line) for path in sorted(RESULTS.glob("ablation*.jsonl")) for line in path.read_text().splitlines()
    ]


def claim(name: str) -> bool:
    """True for the one process that is first to ask for this piece of work."""
    folder = RUNS / "claims"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        (folder / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def work(share: int) -> None:
    """Train this process's share of what is missing, one line of JSON a run."""
    RESULTS.mkdir(exist_ok=True)
    finished = {(row["arm"], row["labels"], row["seed"]) for row in done()}
    for arm, labels, seed in jobs():
        if (arm.name, labels, seed) in finished or not claim(f"{arm.name}-{labels}-{seed}"):
            continue
        row = run(arm, labels, seed)
        print(f"{arm.name}, {labels} a class, seed {seed}: z {row['z']:.3f}, z+ {row['z_plus']}", flush=True)
        with (RESULTS / f"ablation_{share}.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")


HEAD = """# What helps, measured

Made by `python benchmarks/ablation.py`, one line a run in `ablation_*.jsonl`. Farmyard, 10 target species, 96 px, a
student of {parameters:.2f} M parameters, {steps} steps of {batch} images, bf16, one CPU thread a run; accuracy on 1,000
test images after the last step. "Unlabelled" arms mix 1,500 unlabelled target images into the same number of images a
step: half of them at 30 labels a class, two thirds at 10 and 5, where the first {first} steps are for transfer alone.
± and brackets are 95 % intervals over seeds (Student's t); differences are paired. The rows of "labels alone", which
read no teacher, are from an earlier session's machine; two of them, run again, came within 0.006.
"""
COLUMNS = (
    "student trained with", "seeds", "z", "z⁺", "z − labels alone", "z⁺ − z, same run", "gap to probe closed",
    "ms a step", "parameters that z⁺ adds",
)  # fmt: skip
ALONE = "labels alone"


def page() -> None:
    """Write results/README.md and results/ablation.png from the finished runs."""
    from prockd import plots

    rows = done()
    scores = {(r["arm"], r["labels"], r["seed"]): r for r in rows}
    facts = {"parameters": rows[0]["parameters"] / 1e6, "steps": STEPS, "batch": BATCH, "first": FIRST_STEPS}
    text, drawn = [HEAD.format(**facts)], []
    for labels in LABELS:
        probe = np.mean([probe_of(labels, seed) for seed in SEEDS])
        text += [f"## {labels} labelled images a class", "", f"Linear probe on the teacher (ceiling): {probe:.3f}", ""]
        text += ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
        for arm in ARMS:
            mine = [scores[arm.name, labels, seed] for seed in SEEDS if (arm.name, labels, seed) in scores]
            if len(mine) < 2:
                continue
            z, plus = np.array([r["z"] for r in mine]), np.array([r["z_plus"] for r in mine], dtype=float)
            alone = np.array([scores[ALONE, labels, r["seed"]]["z"] for r in mine])
            rival, augmented = arm.name != ALONE, arm.feature_augmentation is not None
            cells = [
                arm.name,
                str(len(mine)),
                mean_of(z),
                mean_of(plus) if augmented else "",
                interval_of(z - alone) if rival else "",
                interval_of(plus - z) if augmented else "",
                f"{np.mean((z - alone) / (probe - alone)):.0%}" if rival else "",
                f"{np.mean([r['ms_per_step'] for r in mine]):.0f}",
                f"{mine[0]['extra_parameters'] / 1e3:.0f} k" if augmented else "",
            ]
            text.append("| " + " | ".join(cells) + " |")
            values = {"values": z.tolist(), "augmented": plus.tolist() if augmented else None}
            drawn.append({"name": arm.name, "labels_per_class": labels} | values)
        text.append("")
    text += ["## Does the augmentation help?", "", "Paired by seed and labels.", ""]
    text += ["| labels a class | unlabelled images | z⁺ − z of the run without it | z⁺ − z⁺ with an equal-size MLP |"]
    text += ["|---|---|---|---|"]
    for labels in LABELS:
        for kind in ("transfer", "unlabelled + transfer"):
            pairs = [difference(scores, labels, f"{kind} + augmentation", kind, "z")]
            pairs += [difference(scores, labels, f"{kind} + augmentation", f"{kind} + MLP instead", "z_plus")]
            if all(len(pair) > 1 for pair in pairs):
                yes = "yes" if kind != "transfer" else "no"
                text.append(f"| {labels} | {yes} | {interval_of(pairs[0])} | {interval_of(pairs[1])} |")
    text += ["", "## Do prototypes agree with true parts?", "", PARTS_HEAD]
    text += ["| patches grouped by | part purity | NMI |", "|---|---|---|"]
    text += [f"| {name} | {purity:.3f} | {nmi:.3f} |" for name, (purity, nmi) in parts_told().items()]
    plots.plot_scores(drawn).figure.savefig(RESULTS / "ablation.png", dpi=110, bbox_inches="tight")
    text += ["", "![Every seed of every arm](ablation.png)", ""]
    notes = RESULTS / "notes.md"
    (RESULTS / "README.md").write_text("\n".join(text) + (notes.read_text() if notes.exists() else ""))


def difference(scores: Mapping[Any, Any], labels: int, arm: str, other: str, key: str) -> np.ndarray:
    """z+ of an arm minus z or z+ of another, seed by seed."""
    seeds = [s for s in SEEDS if (arm, labels, s) in scores and (other, labels, s) in scores]
    return np.array([scores[arm, labels, s]["z_plus"] - scores[other, labels, s][key] for s in seeds])


def probe_of(labels: int, seed: int) -> float:
    """Test accuracy of the teacher's linear probe, computed once."""
    path = RUNS / f"probe_{labels}_{seed}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(world_of("farmyard", seed).few(labels).probe()))
    return float(json.loads(path.read_text()))


PARTS_HEAD = (
    "Patches of animals on the 1,000 test images: species that the teacher never saw; K = 48, one run of `discover`.\n"
)


def parts_told() -> dict[str, tuple[float, float]]:
    """Purity and NMI of prototypes and of the controls, computed once."""
    from prockd.evaluation.parts import agreement_with_controls
    from prockd.farmyard import PARTS

    path = RUNS / "parts.json"
    if not path.exists():
        world = world_of("farmyard", 0)
        bank = banks("farmyard", "learned")
        test = world.embedded("test", bank)
        found = agreement_with_controls(bank.assignments(test), test.images, test.grid, len(PARTS))
        rows = {name: (a.purity, a.nmi) for name, a in found.items()}
        rows["always the commonest part"] = (found["prototypes"].majority, 0.0)
        path.write_text(json.dumps(rows))
    return {name: (float(purity), float(nmi)) for name, (purity, nmi) in json.loads(path.read_text()).items()}


def mean_of(values: np.ndarray) -> str:
    """Mean and half-width of its interval."""
    from scipy.stats import t

    return f"{values.mean():.3f} ± {t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5:.3f}"


def interval_of(differences: np.ndarray) -> str:
    """Mean of paired differences and its interval."""
    from prockd.evaluation.intervals import paired_interval

    mean, low, high = paired_interval(differences)
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def main() -> None:
    """Train what is missing on two processes, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", action="store_true", help="only write the page")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes, one thread each")
    parser.add_argument("--share", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"
    if args.share is not None:
        work(args.share)
        return
    if not args.page:
        shutil.rmtree(RUNS / "claims", ignore_errors=True)
        command = [sys.executable, __file__, "--jobs", str(args.jobs), "--share"]
        workers = [subprocess.Popen([*command, str(share)]) for share in range(args.jobs)]
        if any([worker.wait() for worker in workers]):
            sys.exit("a worker failed; run again to go on from what is finished")
    page()


if __name__ == "__main__":
    main()
