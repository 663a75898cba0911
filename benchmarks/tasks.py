"""Does a teacher help on other tasks, and on real photographs? Every task, every arm, five seeds, one command.

    python benchmarks/tasks.py                                   # what is missing, then the page
    python benchmarks/tasks.py --only farmyard-parts,camvid --seeds 3 --jobs 2
    python benchmarks/tasks.py --page                            # only results/tasks.md, from what is there

Each run is one line of results/tasks_*.jsonl. All arms of a task and seed share the start, the labelled images, the
steps, the images in a step and the data order; the number is the task's metric on the test images after the last step.
Settings were chosen on Farmyard's validation split and on parts of the training photographs (results/search.md). Real
sets and their teacher's weights are read from the folder that PROCKD_REAL_DATA names.
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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from ablation import interval_of, mean_of, teacher_of

HERE = Path(__file__).parent
RESULTS = HERE / "results"
CLAIMS = Path("runs/tasks/claims")
REAL = "PROCKD_REAL_DATA"
LARGEST_SHARE = 0.25
"""Of the teacher's parameters: a student that has more is refused."""


@dataclass(frozen=True)
class Arm:
    """One way to train a student.

    Attributes:
        name: as in the tables.
        teacher: "trained", "random" (the same network, random weights) or "none".
        distill: changes to the DistillConfig.
        bank: whether there are prototypes.
        augmented: whether z+ is trained too.
    """

    name: str
    teacher: str = "trained"
    distill: Mapping[str, Any] = field(default_factory=dict)
    bank: bool = True
    augmented: bool = False


ALONE = "labels alone"
ARMS = (
    Arm(ALONE, teacher="none", bank=False),
    Arm("transfer"),
    Arm("transfer + augmentation", augmented=True),
    Arm(
        "FitNets hint",
        distill={"assignment_weight": 0.0, "feature_weight": 0.0, "teacher_branch_weight": 0.0, "hint_weight": 3.0},
        bank=False,
    ),
    Arm("transfer, random teacher", teacher="random"),
)
FIRST = (ARMS[0], ARMS[2])
"""Trained first, for all seeds; z of the second is that of transfer alone, since its z+ leaves the backbone alone."""


@dataclass(frozen=True)
class Problem:
    """Images and what is to be learned of them.

    Attributes:
        name: for ``--only``.
        title: heading of its table.
        world: makes its World, and how labels alone are learned, from a kind of teacher ("trained" or "random") and a
            seed.
        real: whether it needs the folder of real photographs.
        salient: whether patches that look like the border of pictures count less when prototypes are found.
    """

    name: str
    title: str
    world: Callable[[str, int], Any]
    real: bool = True
    salient: bool = True


def farmyard(teacher: str, seed: int, *, task: str, per_class: int, num_unlabelled: int = 10) -> Any:
    """The drawn world; the seed draws the labelled images."""
    from prockd.runs import RECIPES, open_world

    recipe = RECIPES[task]
    world = open_world(
        task=task, teacher=teacher_of("farmyard" if teacher == "trained" else teacher, recipe.teacher_px),
        per_class=per_class, num_discover=400, num_unlabelled=num_unlabelled, num_val=10, num_test=500, seed=seed,
        progress=False,
    )  # fmt: skip
    return world, recipe.alone


@functools.cache
def imagenet_teacher(kind: str, image_px: int) -> Any:
    """MobileNetV2 with the weights of ImageNet, or with random ones."""
    import torch

    from prockd.teachers.teacher import Teacher

    torch.manual_seed(0)
    weights = real_data() / "teachers" / "mobilenetv2_100_imagenet.safetensors" if kind == "trained" else None
    return Teacher("mobilenetv2_tf", weights=weights, image_px=image_px)


def real_data() -> Path:
    """The folder of real photographs."""
    if REAL not in os.environ:
        raise SystemExit(f"{REAL} is not set: it names the folder of real photographs; {farmyard_only()} needs none")
    return Path(os.environ[REAL])


def farmyard_only() -> str:
    """The option that leaves the real sets out."""
    return "--only " + ",".join(p.name for p in PROBLEMS if not p.real)


def photographs(
    teacher: str,
    labelled: Any,
    test: Any,
    task: str,
    *,
    image_px: int,
    teacher_px: int,
    steps: int,
    batch_size: int,
    unlabelled: Any = None,
) -> Any:
    """A World of photographs, learned by Farmyard's recipe for the task, and how labels alone are learned.

    Prototypes are found in training images.
    """
    from prockd.datasets import pack
    from prockd.runs import RECIPES, World, task_settings
    from prockd.teachers import extract

    def features(images: Any, views: tuple[str, ...]) -> Any:
        small = pack(images, image_px, progress=False)
        return extract(imagenet_teacher(teacher, teacher_px), small, views=views, progress=False)

    config, recipe, mixed = task_settings(task), RECIPES[task], batch_size // 2 if unlabelled is not None else 0
    alone = recipe.alone.replace(steps=steps, batch_size=batch_size, lr=4e-3)
    distill = recipe.distill.replace(
        steps=steps, batch_size=batch_size - mixed, unlabelled_batch=mixed, lr=4e-3, teacher_branch_weight=0.0
    )  # Farmyard's own rates, dropout and teacher branch for boxes are newer than these runs
    small = (
        {"width": 32, "dropout": 0.0} if task == "detection" else {}
    )  # a larger one is more than a quarter of this teacher
    config = replace(
        config, student=config.student.replace(image_px=image_px), distill=distill, task=config.task.replace(**small)
    )
    every = ("plain", "mirrored", "recoloured")
    train = features(labelled, every)
    more = train if unlabelled is None else features(unlabelled, every)
    sets = {"source": more, "train": train, "unlabelled": more, "val": train, "test": features(test, ("plain",))}
    return World(config, sets), alone


def ants_bees(teacher: str, _: int) -> Any:
    """Two kinds of insects."""
    from prockd.datasets import ImageFolder

    sets = (ImageFolder(real_data() / "ants_bees" / split) for split in ("train", "val"))
    return photographs(teacher, *sets, "classification", image_px=128, teacher_px=224, steps=300, batch_size=32)


def cifar10(teacher: str, seed: int) -> Any:
    """50 labelled images a class, drawn by the seed; the first 2,000 training images serve as unlabelled ones."""
    from prockd.datasets import open_npz, pack, subset

    sets = open_npz(real_data() / "cifar10_small.npz")
    labelled = pack(sets["train"], 64, progress=False).per_class(50, seed=seed)
    return photographs(
        teacher, labelled, sets["test"], "classification", image_px=64, teacher_px=128, steps=400, batch_size=64,
        unlabelled=subset(sets["train"], range(2000)),
    )  # fmt: skip


def raccoon(teacher: str, _: int) -> Any:
    """One animal, framed; every third picture is for the test."""
    from prockd.datasets import VocFolder, subset

    pictures = VocFolder(real_data() / "raccoon")
    held = np.arange(len(pictures)) % 3 == 2
    return photographs(
        teacher, subset(pictures, ~held), subset(pictures, held), "detection", image_px=128, teacher_px=224, steps=300,
        batch_size=16,
    )  # fmt: skip


def animal_masks(teacher: str, _: int) -> Any:
    """Animal or background: two videos to learn from, every fourth frame with its mask, and a third for the test."""
    from prockd.datasets import MaskFolder, subset

    frames = MaskFolder(real_data() / "animals", images="frames", classes={0: "background", 255: "animal"})
    unseen = np.array([group == "goat" for group in frames.groups or ()])
    learned = np.flatnonzero(~unseen)
    return photographs(
        teacher, subset(frames, learned[::4]), subset(frames, unseen), "segmentation", image_px=128, teacher_px=224,
        steps=240, batch_size=16,
    )  # fmt: skip


def camvid(teacher: str, _: int) -> Any:
    """Street scenes of 11 classes."""
    from prockd.datasets import MaskFolder

    names = (
        "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "cyclist", "ignore"
    )  # fmt: skip
    sets = (MaskFolder(real_data() / "camvid", images=s, masks=f"{s}annot", classes=names) for s in ("train", "val"))
    return photographs(teacher, *sets, "segmentation", image_px=128, teacher_px=224, steps=300, batch_size=16)


PROBLEMS = (
    Problem(
        "farmyard-parts", "Farmyard: parts of animals, segmentation",
        functools.partial(farmyard, task="segmentation", per_class=5), real=False,
    ),
    Problem(
        "farmyard-boxes", "Farmyard: animals in scenes, detection",
        functools.partial(farmyard, task="detection", per_class=10, num_unlabelled=1000), real=False,
    ),
    Problem("ants-bees", "Photographs: ants or bees, classification", ants_bees),
    Problem("cifar10", "Photographs: CIFAR-10, classification", cifar10),
    Problem("raccoon", "Photographs: raccoons, detection", raccoon),
    Problem("animal-masks", "Photographs: animals in videos, segmentation, tested on an unseen video", animal_masks),
    Problem("camvid", "Photographs: CamVid street scenes, segmentation", camvid, salient=False),
)  # fmt: skip


@functools.lru_cache(maxsize=2)
def world_of(problem: Problem, teacher: str, seed: int) -> Any:
    """Images and features of one seed."""
    return problem.world(teacher, seed)


@functools.lru_cache(maxsize=4)
def bank_of(problem: Problem, teacher: str) -> Any:
    """Prototypes of images that need no labels, the same for all seeds."""
    from prockd.prototypes.discovery import discover
    from prockd.settings.method import DiscoverConfig

    config = DiscoverConfig(salient=problem.salient)
    return discover(world_of(problem, teacher, 0)[0].source, config=config, progress=False)


def run(problem: Problem, arm: Arm, seed: int, steps: int | None = None) -> dict[str, Any]:
    """Train one student and score it on the test images.

    Args:
        problem: what is learned.
        arm: how.
        seed: of the start and the data order, and of the labelled images where there are more to draw from.
        steps: fewer steps than the recipe's, to see that a run works.
    """
    import torch

    from prockd.runs import train_student
    from prockd.settings.method import FeatureAugmentationConfig

    torch.set_num_threads(1)
    taught = arm.teacher != "none"
    world, alone = world_of(problem, arm.teacher if taught else "trained", seed)
    config = (world.config.distill if taught else alone).replace(seed=seed, mixed_precision="bf16", **arm.distill)
    if steps is not None:
        config = config.replace(steps=steps, label_free_steps=min(config.label_free_steps, steps // 2))
    bank = copy.deepcopy(bank_of(problem, arm.teacher)) if arm.bank else None
    began = time.process_time()
    student, history = train_student(
        world, bank, FeatureAugmentationConfig() if arm.augmented else None, config, teacher=taught
    )
    scores = history.scores
    assert scores is not None
    teacher = imagenet_teacher("trained", 224) if problem.real else teacher_of("farmyard")
    teacher_size = sum(p.numel() for p in teacher.parameters())
    if student.plain_parameters > LARGEST_SHARE * teacher_size:
        raise ValueError(f"{problem.name}: {student!r} has more than {LARGEST_SHARE:.0%} of its teacher's parameters")
    return {
        "problem": problem.name, "arm": arm.name, "seed": seed, "metric": scores.metric, "z": scores.plain,
        "z_plus": scores.augmented, "details": dict(scores.details),
        "per_class": {name: float(v) for name, v in zip(world.task.classes, scores.per_class, strict=True)},
        "cpu_seconds": time.process_time() - began, "ms_per_step": history.seconds_per_step * 1e3,
        "steps": config.steps, "images_a_step": config.batch_size + config.unlabelled_batch, "lr": config.lr,
        "label_free_steps": config.label_free_steps, "parameters": student.plain_parameters,
        "extra_parameters": student.extra_parameters, "teacher_parameters": teacher_size,
        "labelled": len(world.images("train")),
        "unlabelled": len(world.images("unlabelled")) if config.unlabelled_batch else 0,
        "test": len(world.images("test")), "image_px": student.image_px,
        "final": {k: v for k, v in history.rows[-1].items() if k not in ("step", "seconds", "lr")},
    }  # fmt: skip


def done() -> list[dict[str, Any]]:
    """Finished runs."""
    return [
        json.loads(line) for path in sorted(RESULTS.glob("tasks_*.jsonl")) for line in path.read_text().splitlines()
    ]


def jobs(problems: list[Problem], seeds: int) -> list[tuple[Problem, Arm, int]]:
    """What is to be trained, seeds outermost so that an early stop still leaves whole rows; rivals come last."""
    parts = (FIRST, tuple(arm for arm in ARMS if arm not in FIRST))
    return [(problem, arm, seed) for arms in parts for seed in range(seeds) for problem in problems for arm in arms]


def claim(name: str) -> bool:
    """True for the one process that is first to ask for this run."""
    CLAIMS.mkdir(parents=True, exist_ok=True)
    try:
        (CLAIMS / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def work(share: int, problems: list[Problem], seeds: int) -> None:
    """Train this process's share of what is missing, one line of JSON a run."""
    finished = {(row["problem"], row["arm"], row["seed"]) for row in done()}
    for problem, arm, seed in jobs(problems, seeds):
        if (problem.name, arm.name, seed) in finished or not claim(f"{problem.name}-{arm.name}-{seed}"):
            continue
        row = run(problem, arm, seed)
        plus = "" if row["z_plus"] is None else f", z+ {row['z_plus']:.3f}"
        print(f"{problem.name}, {arm.name}, seed {seed}: {row['metric']} z {row['z']:.3f}{plus}", flush=True)
        with (RESULTS / f"tasks_{share}.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")


HEAD = """# Other tasks and real photographs, measured

Made by `python benchmarks/tasks.py`, one line a run in `tasks_*.jsonl`. bf16, one CPU thread a run; every number is of
the test images after the last step, 0 to 1. ± and brackets are 95 % intervals over seeds (Student's t); differences are
paired by seed. Settings were chosen on Farmyard's validation split and on held-out parts of the training photographs
([search.md](search.md)), for both ways of learning. The random teacher is the same network without its training.
A task with fewer than two seeds is left out.
"""
FACTS = """{task}: {labelled} labelled training images{unlabelled}, {test} test images, {image_px} px. The student has
{parameters:.2f} M parameters, its teacher {teacher:.2f} M. Every arm trains {steps} steps of {images} images.
"""
COLUMNS = (
    "student trained with", "seeds", "z", "z⁺", "z − labels alone", "z⁺ − labels alone", "z⁺ − z, same run",
    "CPU seconds a run", "ms a step", "parameters that z⁺ adds",
)  # fmt: skip


def page() -> None:
    """Write results/tasks.md from the finished runs and what results/tasks_notes.md says of them."""
    rows = {(r["problem"], r["arm"], r["seed"]): r for r in done()}
    tables, summary, verdicts = [], [], []
    for problem in PROBLEMS:
        seeds = sorted(seed for name, arm, seed in rows if (name, arm) == (problem.name, ALONE))
        if len(seeds) < 2:
            continue
        tables += [f"## {problem.title}", "", facts_of([r for r in rows.values() if r["problem"] == problem.name])]
        tables += ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
        gains = {}
        for arm in ARMS:
            mine = [rows[problem.name, arm.name, s] for s in seeds if (problem.name, arm.name, s) in rows]
            if len(mine) < 2:
                continue
            alone = np.array([rows[problem.name, ALONE, r["seed"]]["z"] for r in mine])
            z, plus = np.array([r["z"] for r in mine]), np.array([r["z_plus"] for r in mine], dtype=float)
            if arm.name != ALONE:
                gains[arm.name] = (plus if arm.augmented else z) - alone
            cells = [
                arm.name, str(len(mine)), mean_of(z), mean_of(plus) if arm.augmented else "",
                "" if arm.name == ALONE else interval_of(z - alone),
                interval_of(plus - alone) if arm.augmented else "", interval_of(plus - z) if arm.augmented else "",
                f"{np.mean([r['cpu_seconds'] for r in mine]):.0f}", f"{np.mean([r['ms_per_step'] for r in mine]):.0f}",
                f"{mine[0]['extra_parameters'] / 1e3:.0f} k" if arm.augmented else "",
            ]  # fmt: skip
            tables.append("| " + " | ".join(cells) + " |")
        tables.append("")
        metric = next(r["metric"] for r in rows.values() if r["problem"] == problem.name)
        base = mean_of(np.array([rows[problem.name, ALONE, s]["z"] for s in seeds]))
        told = [f"{interval_of(gains[a.name])}" if a.name in gains else "" for a in ARMS[1:]]
        summary.append("| " + " | ".join([problem.title, metric, base, *told]) + " |")
        verdicts.append((problem, {name: verdict(gain) for name, gain in gains.items()}))
    heading = ["task", "metric", ALONE, *(f"{a.name}{' (z⁺)' if a.augmented else ''}" for a in ARMS[1:])]
    text = [HEAD, "## In short", "", "The metric of labels alone, and how much is added by each other way.", ""]
    text += ["| " + " | ".join(heading) + " |", "|---" * len(heading) + "|", *summary, "", *in_words(verdicts), ""]
    text.append((RESULTS / "tasks_notes.md").read_text())
    (RESULTS / "tasks.md").write_text("\n".join([*text, *tables]))


def facts_of(rows: list[dict[str, Any]]) -> str:
    """What the runs of one problem have in common."""
    first, taught = rows[0], max(rows, key=lambda r: r["unlabelled"])
    more = f" and {taught['unlabelled']} unlabelled ones for transfer" if taught["unlabelled"] else ""
    return FACTS.format(
        task=first["metric"], labelled=first["labelled"], unlabelled=more, test=first["test"],
        image_px=first["image_px"], parameters=first["parameters"] / 1e6, teacher=first["teacher_parameters"] / 1e6,
        steps=first["steps"], images=first["images_a_step"],
    )  # fmt: skip


def verdict(gains: np.ndarray) -> int:
    """1 where the interval of the paired differences lies above zero, -1 below, 0 where zero is in it."""
    from prockd.evaluation.intervals import paired_interval

    _, low, high = paired_interval(gains)
    return int(low > 0) - int(high < 0)


def in_words(verdicts: list[tuple[Problem, dict[str, int]]]) -> list[str]:
    """How often each way is better than labels alone, counted."""
    lines = []
    for arm in ARMS[1:]:
        for real, where in ((False, "Farmyard tasks"), (True, "sets of photographs")):
            found = [signs[arm.name] for problem, signs in verdicts if problem.real == real and arm.name in signs]
            if found:
                z = " (z⁺)" if arm.augmented else ""
                lines.append(
                    f"- **{arm.name}**{z}: above labels alone, the interval clear of zero, on {found.count(1)} of "
                    f"{len(found)} {where}; not told apart on {found.count(0)}; below on {found.count(-1)}."
                )
    return lines


def main() -> None:
    """Train what is missing, then write the page."""
    names = [problem.name for problem in PROBLEMS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", action="store_true", help="only write the page")
    parser.add_argument("--only", default=",".join(names), help="tasks, with commas between; all: %(default)s")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each arm (default %(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes, one thread each")
    parser.add_argument("--share", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if unknown := set(args.only.split(",")) - set(names):
        parser.error(f"--only {','.join(sorted(unknown))}: there are {', '.join(names)}")
    problems = [problem for problem in PROBLEMS if problem.name in args.only.split(",")]
    if not args.page and any(problem.real for problem in problems):
        real_data()
    os.environ |= {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    if args.share is not None:
        work(args.share, problems, args.seeds)
        return
    if not args.page:
        shutil.rmtree(CLAIMS, ignore_errors=True)
        command = [sys.executable, __file__, "--only", args.only, "--seeds", str(args.seeds), "--share"]
        workers = [subprocess.Popen([*command, str(share)]) for share in range(args.jobs)]
        if any([worker.wait() for worker in workers]):
            sys.exit("a worker failed; run again to go on from what is finished")
    page()


if __name__ == "__main__":
    main()
