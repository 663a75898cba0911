"""Commands that run the method: its stages, all of them in one run, contests of runs, the demo."""

import time
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from prockd.cli.options import (
    Config,
    Cpu,
    Data,
    Overwrite,
    Preset,
    Quiet,
    RandomTeacher,
    Set,
    TaskKind,
    TeacherName,
    TeacherWeights,
    changes_of,
    read_settings,
    taught,
)
from prockd.settings.knobs import ConfigError
from prockd.settings.toml import set_values
from prockd.untrusted import read_json
from prockd.writing import refuse_existing

app = typer.Typer()


@app.command(
    epilog="`prockd extract --data photos --teacher dinov2_small --teacher-weights dinov2.safetensors`\n\n"
    "`prockd extract --data photos --store embedded --bank bank.safetensors --shard 3/16`  (one job of 16)\n\n"
    "`torchrun --standalone --nproc_per_node 2 -m prockd extract --data photos`\n\n"
    "The same command again goes on where it was stopped."
)
def extract(
    store: Annotated[
        str, Option(help="compact: to find prototypes in. embedded (with --bank) or maps: what students learn from.")
    ] = "compact",
    bank: Annotated[Path | None, Option(help="Prototypes of prockd discover, in whose space patches are kept.")] = None,
    shard: Annotated[str | None, Option(help="Which share of the work, from 1/16 to 16/16; else all of it.")] = None,
    data: Data = None,
    task: TaskKind = None,
    teacher: TeacherName = None,
    teacher_weights: TeacherWeights = None,
    random_teacher: RandomTeacher = None,
    config: Config = None,
    preset: Preset = "best",
    set_: Set = None,
    cpu: Cpu = False,
    quiet: Quiet = False,
) -> None:
    """Pass images through the teacher, in shards that jobs may share; discover and distill then read the cache."""
    from prockd.prototypes.bank import PrototypeBank
    from prockd.runs.world import open_world
    from prockd.teachers.stored import MissingShardsError, Share
    from prockd.training.processes import connect

    if store not in (stores := ("compact", "embedded", "maps")):
        raise ConfigError(f"store = {store}: choose one of {', '.join(stores)}")
    if (store == "embedded") != (bank is not None):
        raise ConfigError("store = embedded needs the prototypes, --bank FILE, and no other store reads them")
    share = Share.parse(shard) if shard else None
    space = None if bank is None else PrototypeBank.load(bank)
    own = read_settings(
        config, preset, set_, data=data, task=task, teacher=teacher, teacher_weights=teacher_weights,
        random_teacher=random_teacher,
    )  # fmt: skip
    processes = connect(cpu=cpu)
    world = open_world(taught(own), cpu=cpu, progress=not quiet and processes.is_main)
    world.share = share

    def made(name: str) -> object:
        if space is not None:
            return world.embedded(name, space)
        return world.source if store == "compact" else world.features(name)

    for name in ("source",) if store == "compact" else ("train", "unlabelled"):
        with processes.main_first():
            world.images(name)
        try:
            told = repr(world.by_shares(processes, partial(made, name)))
        except MissingShardsError as missing:
            told = str(missing)
        if processes.is_main:
            typer.echo(told)


@app.command(
    epilog="`prockd discover --out bank.safetensors --num-prototypes 64`\n\n"
    "`prockd discover --data photos --teacher dinov2_small --teacher-weights dinov2.safetensors`\n\n"
    "`torchrun --standalone --nproc_per_node 2 -m prockd discover --data photos`"
)
def discover(
    out: Annotated[Path, Option(help="File to write; figures go beside it.")] = Path("runs/bank.safetensors"),
    num_prototypes: Annotated[int | None, Option(help="How many; 96 if not given.")] = None, data: Data = None,
    task: TaskKind = None, teacher: TeacherName = None, teacher_weights: TeacherWeights = None,
    random_teacher: RandomTeacher = None, config: Config = None, preset: Preset = "best", set_: Set = None,
    cpu: Cpu = False, overwrite: Overwrite = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Find prototypes in a teacher's features, without labels; write them and a gallery of their patches."""
    from prockd.runs.html import save_png
    from prockd.runs.report import prototype_section
    from prockd.runs.students import find_prototypes
    from prockd.runs.world import open_world
    from prockd.training.processes import connect

    refuse_existing(out, overwrite)
    refuse_existing(picture := out.with_suffix(".png"), overwrite)
    own = read_settings(
        config, preset, set_, data=data, task=task, teacher=teacher, teacher_weights=teacher_weights,
        random_teacher=random_teacher, num_prototypes=num_prototypes,
    )  # fmt: skip
    processes = connect(cpu=cpu)
    show = not quiet and processes.is_main
    with processes.main_first():
        world = open_world(taught(own), cpu=cpu, progress=show)
        world.images("source")
    bank = find_prototypes(world, progress=show, processes=processes)
    if not processes.is_main:
        return
    section = prototype_section(world, bank)
    bank.save(out, overwrite=overwrite)
    save_png(section.figures[0][0], picture, dpi=130)
    typer.echo(f"{bank!r}\n{section.text}\nwrote {out} and {picture}")


@app.command(
    epilog="`prockd distill`  (Farmyard, some minutes)\n\n"
    "`prockd distill --data photos --task detection --teacher convnext_tiny --teacher-weights convnext.safetensors "
    "--student mobilenetv3_small_050 --run-dir runs/photos`\n\n"
    "`prockd distill --config runs/photos/config.toml --set distill.steps=2000 --run-dir runs/longer`\n\n"
    "`prockd distill --run-dir runs/longer --resume`  (after a stop)\n\n"
    "`torchrun --standalone --nproc_per_node 2 -m prockd distill --run-dir runs/two`"
)
def distill(
    run_dir: Annotated[Path, Option(help="Folder of the run: settings, weights, report.")] = Path("runs/run"),
    data: Data = None,
    task: TaskKind = None,
    teacher: TeacherName = None,
    teacher_weights: TeacherWeights = None,
    random_teacher: RandomTeacher = None,
    student: Annotated[str | None, Option(help="Any timm name; a small resnet10t if not given.")] = None,
    student_weights: Annotated[Path | None, Option(help="Local weights the student starts from.")] = None,
    bank: Annotated[Path | None, Option(help="Prototypes of prockd discover, in place of finding them.")] = None,
    steps: Annotated[int | None, Option(help="Optimiser steps; of the preset if not given.")] = None,
    seed: Annotated[int | None, Option(help="Seed of weights, order and crops; 0 if not given.")] = None,
    config: Config = None,
    preset: Preset = "best",
    set_: Set = None,
    mixed_precision: Annotated[
        str | None, Option(help="no, bf16 or fp16; if not given bf16 on chips with units.")
    ] = None,
    resume: Annotated[bool, Option("--resume", help="Go on from the last checkpoint in the run's folder.")] = False,
    overwrite: Overwrite = False,
    checkpoint_every: Annotated[int, Option(min=1, help="Steps between checkpoints.")] = 100,
    baseline: Annotated[
        bool, Option("--baseline/--no-baseline", help="Train labels alone beside it: did the teacher help?")
    ] = True,
    profile: Annotated[
        bool, Option("--profile", help="Write where the time of 20 steps went: profile.txt, trace.json for Chrome.")
    ] = False,
    cpu: Cpu = False,
    quiet: Quiet = False,
) -> None:
    """Train a student with a teacher's help and one without, score both, and write a run folder with a report."""
    from prockd.evaluation.tables import format_table
    from prockd.runs.folder import run_config
    from prockd.runs.run import run_experiment
    from prockd.training.processes import connect

    options = {
        "data": data, "task": task, "teacher": teacher, "teacher_weights": teacher_weights,
        "random_teacher": random_teacher, "student": student, "student_weights": student_weights,
        "steps": steps, "seed": seed, "mixed_precision": mixed_precision,
    }  # fmt: skip
    unchanged = config is None and not set_ and all(value is None for value in options.values())
    if resume and config is None and (unchanged or (run_dir / "config.toml").is_file()):
        own = set_values(run_config(run_dir), changes_of(set_, **options))  # changes are refused by name
    else:
        own = read_settings(config, preset, set_, **options)
    run_experiment(
        own, run_dir, resume=resume, overwrite=overwrite, bank=bank, baseline=baseline, cpu=cpu,
        checkpoint_every=checkpoint_every, progress=not quiet, profile=profile,
    )  # fmt: skip
    if connect(cpu=cpu).is_main:
        told = read_json(run_dir / "results.json")
        typer.echo(f"{format_table(told['students'])}\n\n{told['verdict']['sentence']}")
        typer.echo(f"\n{run_dir}: student.safetensors, results.json; open {run_dir / 'report.html'}")


@app.command(
    epilog="`prockd compare -c benchmarks/compare/farmyard-classes.toml --jobs 2`\n\n"
    '`prockd compare -c contest.toml --only "labels alone,ours" --seeds 2 --run-dir runs/two`\n\n'
    "The same command again goes on where it was stopped; a second one, beside it, shares the work."
)
def compare(
    config: Annotated[Path, Option("--config", "-c", help="TOML file: settings, [compare] and own [arms.NAME].")],
    run_dir: Annotated[Path | None, Option(help="Folder of the contest; runs/NAME OF THE FILE if not given.")] = None,
    only: Annotated[str | None, Option(help="These arms alone, commas between them.")] = None,
    seeds: Annotated[int | None, Option(min=1, help="Runs of each arm; as in the file if not given.")] = None,
    jobs: Annotated[int, Option(min=1, help="Processes, one thread each.")] = 1,
    set_: Set = None,
    quick: Annotated[
        bool, Option("--quick", help="Two seeds, a third of the steps, no tuning; ends with JSON.")
    ] = False,
    report: Annotated[
        bool, Option("--report", help="Only write table and report, from the runs that are there.")
    ] = False,
    cpu: Cpu = False,
    quiet: Quiet = False,
) -> None:
    """Train students in many ways, equally tuned, and tell which are better: resumable, side by side, a line a run."""
    from prockd.evaluation.tables import format_table
    from prockd.runs.compare import run_contest
    from prockd.runs.compare_report import quick_line, write_contest
    from prockd.runs.contest import Contest
    from prockd.runs.plan import quick_changes, read_plan
    from prockd.writing import read_lines

    began = time.perf_counter()
    names = [name.strip() for name in (only or "").split(",") if name.strip()]
    plan = read_plan(config, set_ or (), only=names)
    changes = [f"compare.seeds={seeds}"] if seeds else []
    if quick:
        changes = quick_changes(plan) + changes
    plan = read_plan(config, [*(set_ or ()), *changes], only=names)
    folder = run_dir or Path("runs") / (config.stem + "-quick" * quick)
    if report:
        rows = read_lines(folder / "runs.jsonl")
    else:
        rows = run_contest(plan, folder, jobs=jobs, cpu=cpu, progress=not quiet)
    there = [row["arm"] for row in rows if row["kind"] != "reference"]  # with --only, what was done before is told too
    plan = read_plan(config, [*(set_ or ()), *changes], only=list(dict.fromkeys([*plan.arms, *there])))
    contest = Contest(plan.arms, rows, plan.budget)
    write_contest(contest, folder, title=f"prockd compare: {config.stem}", settings=plan)
    told = ["arm", "seeds", "z", "z⁺", "z − labels alone", "z − ours z", "best − ours z⁺", "lr", "weight"]
    typer.echo(format_table([{name: row.get(name) for name in told} for row in contest.table()]))
    typer.echo(
        "\n".join(["", *contest.sentences(), f"{folder}: runs.jsonl, results.json; open {folder / 'report.html'}"])
    )
    if quick:
        typer.echo(quick_line(contest, time.perf_counter() - began))


@app.command(epilog="`prockd demo --seeds 5 --run-dir runs/five`")
def demo(
    run_dir: Annotated[Path, Option(help="Where the report and the numbers go.")] = Path("runs/demo"),
    seeds: Annotated[int, Option(min=1, help="Students of each kind; more make the intervals narrower.")] = 2,
    overwrite: Overwrite = False, cpu: Cpu = False,
) -> None:  # fmt: skip
    """Run the whole pipeline on Farmyard: teacher, prototypes, students, a table and one HTML report."""
    from prockd.runs.demo import run_demo

    run_demo(run_dir, seeds=seeds, overwrite=overwrite, cpu=cpu)
