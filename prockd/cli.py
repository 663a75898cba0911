"""The command line: every command is the same few calls as in a notebook (:mod:`prockd.runs`).

Whatever is slow to import is imported inside the command that needs it, so that ``prockd --help`` answers at once.
"""

import io
import json
import os
import shlex
import sys
import time
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option
from typer.core import TyperGroup

import prockd
from prockd.interrupts import Terminated, terminable
from prockd.settings.experiment import NO_TEACHER, PRESETS, ExperimentConfig, class_names
from prockd.settings.knobs import ConfigError
from prockd.settings.toml import read_config, set_knobs, set_values
from prockd.writing import refuse_existing


class OneLineErrors(TyperGroup):
    """Commands whose errors are one clear line and exit code 2; ``prockd --debug`` shows where they came from.

    Ctrl-C and SIGTERM are one line too, with what is kept and the command to go on, and exit codes 130 and 143.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep the words as they were typed."""
        ctx.meta["words"] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        debug = ctx.params.get("debug")
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # cp1252 and others have no letter for all that is said
                stream.reconfigure(errors="replace")
        if not sys.stderr.isatty():  # where a bar cannot move, each of its moves is a line
            os.environ.update(
                {f"TQDM_{name}INTERVAL": os.environ.get(f"TQDM_{name}INTERVAL", "60") for name in ("MIN", "MAX")}
            )
        try:
            # of several processes that wait for one another each ends by itself
            with terminable(int(os.environ.get("WORLD_SIZE", 1)) == 1), warnings.catch_warnings():
                if not debug:
                    warnings.showwarning = show_warning
                    # they are what a command has to say: PYTHONWARNINGS=ignore is meant for others
                    warnings.filterwarnings("default", category=UserWarning, module=r"prockd\.")
                return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            if debug:
                raise
            told = f"stopped: {told_of(stop)}; go on with: {again(ctx.meta['words'], stop)}"
            typer.secho(f"prockd: {told}", fg="yellow", err=True)
            raise typer.Exit(143 if isinstance(stop, Terminated) else 130) from None
        except (ImportError, OSError, ValueError, RuntimeError, FloatingPointError) as error:
            # prockd has RuntimeErrors of its own, others are faults. Told by the module's name, since importing those
            # classes would load PyTorch for ``prockd distill --help``.
            fault = isinstance(error, RuntimeError | FloatingPointError) and type(error).__module__[:7] != "prockd."
            if debug or fault:
                raise
            remedy = f"; {told_of(error)}; go on with: {again(ctx.meta['words'], error)}" if has_notes(error) else ""
            typer.secho(f"prockd: {error}{remedy}", fg="red", err=True)
            raise typer.Exit(2) from error


def has_notes(stop: BaseException) -> bool:
    """Whether a run has noted what it keeps."""
    return bool(getattr(stop, "__notes__", ()))


def told_of(stop: BaseException) -> str:
    """What is kept, as a run noted it; else what is true of every command."""
    usual = ["no file is left half written, and what was finished before is in the cache"]
    return "; ".join(getattr(stop, "__notes__", usual))


def again(words: list[str], stop: BaseException) -> str:
    """The command that goes on: a run that was begun is resumed."""
    if words[:1] == ["distill"] and has_notes(stop):
        words = [*(word for word in words if word not in ("--overwrite", "--resume")), "--resume"]
    return shlex.join(["prockd", *words])


def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning as one line, without the place in the code that gave it."""
    typer.secho(f"prockd: {' '.join(str(message).split())}", fg="yellow", err=True)


app = typer.Typer(
    cls=OneLineErrors, no_args_is_help=True, rich_markup_mode="markdown", pretty_exceptions_enable=False,
    add_completion=False, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Prototype-guided Cross-task Knowledge Distillation, to run, to see and to teach.",
    epilog="First steps: `prockd demo`, then `prockd distill --help`. Your own images: `prockd check-data FOLDER`.",
)  # fmt: skip

KNOBS = {
    "data": "data.path", "task": "task.kind", "teacher": "teacher.name", "teacher_weights": "teacher.weights",
    "num_prototypes": "discover.num_prototypes", "student": "student.backbone", "student_weights": "student.weights",
    "steps": "distill.steps", "seed": "distill.seed", "random_teacher": "teacher.random",
    "mixed_precision": "distill.mixed_precision",
}  # fmt: skip
"""Options that are the short names of settings."""

Data = Annotated[str | None, Option(help="A folder or file of your own images; Farmyard if not given.")]
TaskKind = Annotated[
    str | None, Option(help="classification (if not given), segmentation, detection, keypoints or your own.")
]
TeacherName = Annotated[
    str | None, Option(help="farmyard (if not given), one of prockd presets, any timm name, a file.")
]
TeacherWeights = Annotated[Path | None, Option(help="Local weights of the teacher: safetensors or .pth.")]
RandomTeacher = Annotated[
    bool | None, Option("--random-teacher", help="Random weights, where the teacher has none: it knows nothing.")
]
Config = Annotated[Path | None, Option("--config", "-c", help="TOML file of settings.", rich_help_panel="Settings")]
Preset = Annotated[str, Option(help=f"Settings to begin with: {', '.join(PRESETS)}.", rich_help_panel="Settings")]
Set = Annotated[
    list[str] | None,
    Option("--set", "-s", metavar="SECTION.NAME=VALUE", help="Change one setting; may be repeated.",
           rich_help_panel="Settings"),
]  # fmt: skip
RunDir = Annotated[Path, Argument(help="Folder of a finished run.")]
Overwrite = Annotated[bool, Option("--overwrite", help="Replace what is there.")]
Cpu = Annotated[bool, Option("--cpu", help="Stay on the CPU.")]
Quiet = Annotated[bool, Option("--quiet", "-q", help="No progress bars.")]


def read_settings(config: Path | None, preset: str, changes: list[str] | None, **options: object) -> ExperimentConfig:
    """Preset, then file, then ``--set``, then those of the options in ``KNOBS`` that are not None."""
    from prockd.runs.recipes import task_settings

    def apply(base: ExperimentConfig) -> ExperimentConfig:
        return set_values(read_config(config, base=base) if config else base, changes_of(changes, **options))

    asked = apply(ExperimentConfig.preset(preset))  # which task and teacher it is for decides what it begins with
    return apply(task_settings(asked.task.kind, preset=preset, teacher=asked.teacher.name))


def changes_of(changes: list[str] | None, **options: object) -> list[str]:
    """What ``--set`` and those of the options in ``KNOBS`` that are not None change."""
    given = {KNOBS[name]: value for name, value in options.items() if value is not None}
    return [*(changes or ()), *(f"{k}={json.dumps(v, default=str, ensure_ascii=False)}" for k, v in given.items())]


def taught(config: ExperimentConfig) -> ExperimentConfig:
    """Refuse to go on without a teacher, before any image is read."""
    if config.teacher.name == NO_TEACHER:
        raise ConfigError(f"teacher.name = {NO_TEACHER}: there is nothing to extract or to find prototypes in")
    return config


def print_version(wanted: bool) -> bool:
    """The version, and nothing else."""
    if wanted:
        typer.echo(f"prockd {prockd.__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def main(
    debug: Annotated[bool, Option("--debug", help="Show the whole traceback of an error.")] = False,
    version: Annotated[
        bool, Option("--version", help="Show the version.", callback=print_version, is_eager=True)
    ] = False,
) -> None:
    """Prototype-guided Cross-task Knowledge Distillation, to run, to see and to teach."""


@app.command(epilog="`prockd extract --data photos --teacher dinov2_small --teacher-weights dinov2.safetensors`")
def extract(
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
    """Pass the images that prototypes are found on through the teacher; discover and distill then read the cache."""
    from prockd.runs.world import open_world

    teaching = {"teacher": teacher, "teacher_weights": teacher_weights, "random_teacher": random_teacher}
    own = read_settings(config, preset, set_, data=data, task=task, **teaching)
    world = open_world(taught(own), cpu=cpu, progress=not quiet)
    typer.echo(repr(world.source))


@app.command(
    epilog="`prockd discover --out bank.safetensors --num-prototypes 64`\n\n"
    "`prockd discover --data photos --teacher dinov2_small --teacher-weights dinov2.safetensors`"
)
def discover(
    out: Annotated[Path, Option(help="File to write; figures go beside it.")] = Path("runs/bank.safetensors"),
    num_prototypes: Annotated[int | None, Option(help="How many; 96 if not given.")] = None,
    data: Data = None,
    task: TaskKind = None,
    teacher: TeacherName = None,
    teacher_weights: TeacherWeights = None,
    random_teacher: RandomTeacher = None,
    config: Config = None,
    preset: Preset = "best",
    set_: Set = None,
    cpu: Cpu = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Find prototypes in a teacher's features, without labels; write them and a gallery of their patches."""
    from prockd.runs.html import save_png
    from prockd.runs.report import prototype_section
    from prockd.runs.students import find_prototypes
    from prockd.runs.world import open_world

    refuse_existing(out, overwrite)
    refuse_existing(picture := out.with_suffix(".png"), overwrite)
    teaching = {"teacher": teacher, "teacher_weights": teacher_weights, "random_teacher": random_teacher}
    own = read_settings(config, preset, set_, data=data, task=task, num_prototypes=num_prototypes, **teaching)
    world = open_world(taught(own), cpu=cpu, progress=not quiet)
    bank = find_prototypes(world, progress=not quiet)
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
    mixed_precision: Annotated[str | None, Option(help="no (if not given), bf16 or fp16.")] = None,
    resume: Annotated[bool, Option("--resume", help="Go on from the last checkpoint in the run's folder.")] = False,
    overwrite: Overwrite = False,
    checkpoint_every: Annotated[int, Option(min=1, help="Steps between checkpoints.")] = 100,
    baseline: Annotated[
        bool, Option("--baseline/--no-baseline", help="Train labels alone beside it: did the teacher help?")
    ] = True,
    cpu: Cpu = False,
    quiet: Quiet = False,
) -> None:
    """Train a student with a teacher's help and one without, score both, and write a run folder with a report."""
    from prockd.evaluation.tables import format_table
    from prockd.runs.folder import run_config
    from prockd.runs.run import run_experiment
    from prockd.training.processes import connect

    options = {
        "data": data, "task": task, "teacher": teacher, "teacher_weights": teacher_weights, "student": student,
        "random_teacher": random_teacher,
        "student_weights": student_weights, "steps": steps, "seed": seed, "mixed_precision": mixed_precision,
    }  # fmt: skip
    unchanged = config is None and not set_ and all(value is None for value in options.values())
    if resume and config is None and (unchanged or (run_dir / "config.toml").is_file()):
        own = set_values(run_config(run_dir), changes_of(set_, **options))  # changes are refused by name
    else:
        own = read_settings(config, preset, set_, **options)
    run_experiment(
        own, run_dir, resume=resume, overwrite=overwrite, bank=bank, baseline=baseline, cpu=cpu,
        checkpoint_every=checkpoint_every, progress=not quiet,
    )  # fmt: skip
    if connect(cpu=cpu).is_main:
        told = json.loads((run_dir / "results.json").read_text(encoding="utf-8"))
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
    contest = Contest(plan.arms, rows, plan.budget)
    write_contest(contest, folder, title=f"prockd compare: {config.stem}", settings=plan)
    told = ["arm", "seeds", "z", "z⁺", "z − labels alone", "z − ours z", "best − ours z⁺", "lr", "weight"]
    typer.echo(format_table([{name: row.get(name) for name in told} for row in contest.table()]))
    typer.echo(
        "\n".join(["", *contest.sentences(), f"{folder}: runs.jsonl, results.json; open {folder / 'report.html'}"])
    )
    if quick:
        typer.echo(quick_line(contest, time.perf_counter() - began))


@app.command(epilog="`prockd evaluate runs/run`\n\n`prockd evaluate runs/run --data other_photos --json`")
def evaluate(
    run_dir: RunDir,
    data: Annotated[str | None, Option(help="Other images to score on, in place of the run's own.")] = None,
    classes: Annotated[bool, Option("--classes", help="A row for each class too.")] = False,
    as_json: Annotated[bool, Option("--json", help="Print JSON.")] = False,
    cpu: Cpu = False,
    quiet: Quiet = False,
) -> None:
    """Score a run's student, plain and augmented, on its test images or on others."""
    from prockd.evaluation.tables import format_table
    from prockd.runs.report import class_rows, student_rows
    from prockd.runs.run import scored

    student, scores = scored(run_dir, data, cpu=cpu, progress=not quiet)
    rows, each = student_rows(student, scores), class_rows(scores, student.task.classes)
    if as_json:
        typer.echo(json.dumps({"students": rows, "classes": each}, indent=2))
        return
    typer.echo(f"{scores!r}\n{format_table(rows)}")
    if classes:
        typer.echo(f"\n{format_table(each)}")


@app.command(
    epilog="`prockd predict runs/run photos`\n\n`prockd predict student.safetensors photos --plain --out answers`"
)
def predict(
    run_dir: Annotated[Path, Argument(metavar="RUN", help="Folder of a finished run, or a student.safetensors.")],
    folder: Annotated[Path, Argument(help="Pictures, at any depth, or one picture.")],
    out: Annotated[Path | None, Option(help="Folder to write; RUN/predictions/FOLDER if not given.")] = None,
    augmented: Annotated[
        bool | None, Option("--augmented/--plain", help="z⁺ or z; z⁺ where there is one if not given.")
    ] = None,
    fit: Annotated[
        str | None, Option(help="crop, pad or stretch to a square; as in the run, or as suits the task, if not given.")
    ] = None,
    sure: Annotated[
        float | None,
        Option(min=0, max=1, help="Boxes and joints below this score are left out; 0.3, and of joints 0.1."),
    ] = None,
    overwrite: Overwrite = False,
    cpu: Cpu = False,
    quiet: Quiet = False,
) -> None:
    """Tell what pictures show: classes, masks, boxes or key points in files, and a sheet to look at."""
    from prockd.runs.pictures import predict_pictures

    done = predict_pictures(
        run_dir, folder, out, augmented=augmented, fit=fit, sure=sure, overwrite=overwrite, cpu=cpu, progress=not quiet
    )
    bad = f"; {len(done.skipped)} skipped, since they cannot be read" if done.skipped else ""
    typer.echo(
        f"{done.count} of {done.count + len(done.skipped)} pictures{bad}\nwrote {', '.join(map(str, done.files))}"
    )


@app.command(
    epilog="`prockd export runs/run`  (timm's names)\n\n`prockd export runs/run --format onnx --out student_onnx`"
)
def export(
    run_dir: Annotated[Path, Argument(help="Folder of a finished run, or a student.safetensors.")],
    format: Annotated[str | None, Option(help="timm (if not given), torchvision (detection) or onnx.")] = None,
    out: Annotated[Path | None, Option(help="Folder to write; RUN/export/FORMAT if not given.")] = None,
    augmented: Annotated[bool, Option("--augmented", help="Write z⁺ too, which reads prototypes.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Write the plain student so that it runs without prockd, with an example that loads it."""
    from prockd.runs.folder import run_config, student_file
    from prockd.students.export import export_student
    from prockd.students.student import Student

    is_file = run_dir.is_file()
    config = ExperimentConfig() if is_file else run_config(run_dir)
    fit, opset, format = config.data.fit, config.export.opset, format or config.export.format
    student = Student.load(run_dir if is_file else student_file(run_dir))
    folder = out or (run_dir.parent if is_file else run_dir) / "export" / format
    how: dict[str, Any] = {"opset": opset, "fit": None if fit == "auto" else fit, "augmented": augmented}
    how |= {"white": config.data.white, "exif": config.data.exif, "overwrite": overwrite}
    for path in export_student(student, folder, format=format, **how):
        typer.echo(f"{path.stat().st_size / 1e6:8.2f} MB  {path}")


@app.command(epilog="`prockd check-data photos`\n\n`prockd check-data scans --task segmentation --all`")
def check_data(
    path: Annotated[Path, Argument(help="A folder or file of your own images.")],
    task: Annotated[str | None, Option(help="What it is for; guessed from its looks if not given.")] = None,
    classes: Annotated[str | None, Option(help="Class names, commas between them, as in data.classes.")] = None,
    all_: Annotated[bool, Option("--all", help="Every problem, however many.")] = False,
    sheet: Annotated[
        Path | None, Option(help="Draw ten images with their labels into this file (PNG); an earlier one is replaced.")
    ] = None,
    set_: Set = None,
    quiet: Quiet = False,
) -> None:
    """Read everything once and tell every problem in one table; exit code 1 when there is an error."""
    from prockd.datasets import check_data as check
    from prockd.evaluation.tables import format_table

    data = read_settings(None, "best", set_).data
    how: dict[str, Any] = {"group": data.group or None, "white": data.white, "exif": data.exif}
    names = class_names(data.classes if classes is None else classes) or None
    report = check(path, task=task, classes=names, progress=not quiet, **how)
    typer.echo(repr(report).split("\n  ")[0] if all_ else repr(report))
    if all_ and report.problems:
        typer.echo(format_table(report.rows()))
    if sheet and report.counts:
        from prockd.datasets import open_splits
        from prockd.plots import plot_samples

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the report has it all
            splits = open_splits(path, task=task, classes=names, **{**how, "on_bad": "skip"})
            plot_samples(next(iter(splits.values())), task).savefig(sheet, dpi=150)
        typer.echo(f"drew {sheet}: do masks, boxes and points lie where they belong?")
    if not report.ok:
        raise typer.Exit(1)


class ListFirst(TyperGroup):
    """Commands of which ``list`` is meant where none is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The words of the command line."""
        return super().parse_args(ctx, args or ["list"])


cache = typer.Typer(
    cls=ListFirst, help="Look through what is kept of images and teachers, clear it, or move it to another disk."
)
app.add_typer(cache, name="cache", epilog="`prockd cache`\n\n`prockd cache clear --kind features --older-than 30d`")
Kind = Annotated[list[str] | None, Option("--kind", help="Of this kind alone; may be repeated.")]
OlderThan = Annotated[str, Option(help="Built at least so long ago: 90m, 12h, 30d, 2w.")]


@cache.command("list")
def list_cache() -> None:
    """Tell what the cache keeps: kind by kind, how many entries, how large, how old."""
    from prockd.cache import cache_root
    from prockd.evaluation.tables import format_table
    from prockd.kept import entries

    found, rows = entries(), []
    for kind in dict.fromkeys(entry.kind for entry in found):
        own = [entry for entry in found if entry.kind == kind]
        days = [entry.age_s / (24 * 3600) for entry in own]
        rows.append({
            "kind": kind, "entries": len(own), "MB": f"{sum(entry.bytes for entry in own) / 1e6:,.1f}",
            "newest, days": f"{min(days):.1f}", "oldest, days": f"{max(days):.1f}",
        })  # fmt: skip
    total = f"{len(found)} entries, {sum(entry.bytes for entry in found) / 1e6:,.1f} MB in {cache_root()}"
    typer.echo(f"{format_table(rows)}\n\n{total}" if rows else total)


@cache.command(epilog="`prockd cache clear --kind features --older-than 30d`\n\n`prockd cache clear --all`")
def clear(
    kind: Kind = None,
    older_than: OlderThan = "0m",
    all_: Annotated[bool, Option("--all", help="Everything, where neither kind nor age is said.")] = False,
) -> None:
    """Remove entries by kind, age or both; what is needed again is built again, and a build that runs is left alone."""
    from prockd.kept import chosen, entries, remove, seconds

    age = seconds(older_than)
    if not (kind or age or all_):
        raise ConfigError("say what to clear: --kind, --older-than, or --all")
    remove(found := chosen(entries(), kind or (), age))
    typer.echo(f"removed {len(found)} entries, {sum(entry.bytes for entry in found) / 1e6:,.1f} MB")


@cache.command(epilog="`prockd cache move /data/prockd`, then `export PROCKD_CACHE=/data/prockd`")
def move(
    folder: Annotated[Path, Argument(help="A folder, which may be on another disk.")],
    kind: Kind = None,
    older_than: OlderThan = "0m",
) -> None:
    """Move entries to another folder, each of them whole; a build that runs stays where it is."""
    from prockd.cache import cache_root
    from prockd.kept import chosen, entries, seconds
    from prockd.kept import move as move_entries

    if folder.resolve() == cache_root().resolve():
        raise ConfigError(f"{folder} is the cache already")
    count = move_entries(chosen(entries(), kind or (), seconds(older_than)), folder)
    typer.echo(f"moved {count} entries to {folder}; to use them: export PROCKD_CACHE={folder}")


@app.command(epilog="`prockd unpack photos.zip photos`")
def unpack(
    archive: Annotated[Path, Argument(help="A ZIP or TAR file.")],
    folder: Annotated[Path, Argument(help="A new folder for its content.")],
    quiet: Quiet = False,
) -> None:
    """Unpack an archive that somebody else made: all of it, or nothing when a member would climb out of the folder."""
    from prockd.datasets import unpack as unpack_archive

    typer.echo(f"unpacked to {unpack_archive(archive, folder, progress=not quiet)}; next: prockd check-data {folder}")


@app.command()
def presets() -> None:
    """Tell the teachers that are known to fit, and the presets of settings."""
    from prockd.evaluation.tables import format_table
    from prockd.teachers.presets import preset_rows
    from prockd.teachers.teacher import Teacher

    own = Teacher("farmyard")
    first = {
        "name": "farmyard", "timm model": "(ships with prockd)", "input": f"{own.image_px} px",
        "layers": " ".join(map(str, own.layers)), "patches": " ".join(dict.fromkeys(f"{h}x{w}" for h, w in own.grids)),
        "mean": "own", "description": "Knows drawn animals; needs no download.",
    }  # fmt: skip
    typer.echo(format_table([first, *preset_rows()]))
    typer.echo(
        "\nUse one with --teacher NAME --teacher-weights FILE, or with --set teacher.pretrained=true where there is a "
        f"network.\nSettings (--preset): {', '.join(PRESETS)}."
    )


@app.command(epilog="`prockd demo --seeds 5 --run-dir runs/five`")
def demo(
    run_dir: Annotated[Path, Option(help="Where the report and the numbers go.")] = Path("runs/demo"),
    seeds: Annotated[int, Option(min=1, help="Students of each kind; more make the intervals narrower.")] = 2,
    overwrite: Overwrite = False,
    cpu: Cpu = False,
) -> None:
    """Run the whole pipeline on Farmyard: teacher, prototypes, students, a table and one HTML report."""
    from prockd.runs.demo import run_demo

    run_demo(run_dir, seeds=seeds, overwrite=overwrite, cpu=cpu)


@app.command(
    epilog="`prockd train-teacher --out teacher.safetensors --mixed-precision bf16`\n\n"
    "`prockd train-teacher --start teacher.safetensors --set zoom=0.3 --set rarity=0.5`  (the second stage goes on)"
)
def train_teacher(
    out: Annotated[Path, Option(help="Weights file to write.")] = Path("runs/teacher.safetensors"),
    images: Annotated[int, Option(min=100, help="Source images to draw.")] = 12_000,
    species_steps: Annotated[int, Option(min=1, help="Steps of the first stage: species.")] = 2600,
    steps: Annotated[int, Option(min=1, help="Steps of the second: species and clusters of patches.")] = 5500,
    batch_size: Annotated[int, Option(min=2, help="Images in a step.")] = 64,
    seed: Annotated[int, Option(help="Seed of weights, order and crops.")] = 0,
    mixed_precision: Annotated[str, Option(help="no, bf16 or fp16.")] = "no",
    set_: Annotated[
        list[str] | None, Option("--set", "-s", metavar="NAME=VALUE", help="Change a ClusterConfig knob of stage 2.")
    ] = None,
    start: Annotated[Path | None, Option(help="A teacher's file in place of the first stage.")] = None,
    note: Annotated[str, Option(help="What the model card says of that file.")] = "",
    run_dir: Annotated[Path, Option(help="Checkpoints and metrics; run again to go on.")] = Path("runs/teacher"),
    overwrite: Overwrite = False,
    cpu: Cpu = False,
) -> None:
    """Train a Farmyard teacher on source species labels and self-supervision (no target species, no part label)."""
    from prockd.runs.teacher_training import CLUSTERS, SPECIES, train_teacher

    same: dict[str, Any] = {"batch_size": batch_size, "seed": seed, "mixed_precision": mixed_precision}
    clusters = set_knobs(CLUSTERS.replace(steps=steps, **same), set_)
    card = train_teacher(
        out, images=images, species=SPECIES.replace(steps=species_steps, **same), clusters=clusters, start=start,
        note=note, run_dir=run_dir, overwrite=overwrite, cpu=cpu,
    )  # fmt: skip
    stage = card["stages"]["clusters"]
    share = "" if stage["val_accuracy"] is None else f"{stage['val_accuracy']:.1%} on source species, "
    typer.echo(f"wrote {out}: {share}{stage['seconds'] / 60:.0f} minutes of the second stage")


@app.command(
    epilog="`prockd adapt-teacher --data photos --teacher mobilenetv2_tf --teacher-weights weights.safetensors`\n\n"
    '`prockd adapt-teacher --data videos --group "^[^/]+" --steps 400`  (a folder a video)\n\n'
    "`prockd distill --data photos --teacher adapted.safetensors`  (then)"
)
def adapt_teacher(
    data: Annotated[str, Option(help="A folder or file of your own images; labels are not read.")],
    teacher: TeacherName = None,
    teacher_weights: TeacherWeights = None,
    random_teacher: RandomTeacher = None,
    out: Annotated[Path, Option(help="File to write, for --teacher; its prototypes go beside it, for --bank.")] = Path(
        "runs/adapted.safetensors"
    ),
    group: Annotated[
        str | None, Option(help="Regular expression that finds the group (video, farm) of an image in its id.")
    ] = None,
    steps: Annotated[int, Option(min=1, help="Optimiser steps.")] = 200,
    seed: Annotated[int, Option(help="Seed of the start, the order and the crops.")] = 0,
    mixed_precision: Annotated[str, Option(help="no, bf16 or fp16.")] = "no",
    set_: Annotated[
        list[str] | None, Option("--set", "-s", metavar="NAME=VALUE", help="Change a ClusterConfig knob.")
    ] = None,
    overwrite: Overwrite = False,
    cpu: Cpu = False,
    quiet: Quiet = False,
) -> None:
    """Let a teacher go on learning from your own images, without labels: the same place in two crops, one prototype."""
    from prockd.datasets import checked, open_splits
    from prockd.runs.world import make_teacher
    from prockd.settings.experiment import TeacherConfig
    from prockd.settings.method import ClusterConfig
    from prockd.training.adaptation import adapt

    refuse_existing(out, overwrite)
    refuse_existing(bank := out.with_stem(f"{out.stem}_bank"), overwrite)
    config = set_knobs(ClusterConfig(steps=steps, seed=seed, mixed_precision=mixed_precision), set_)
    splits = open_splits(data, group=group, on_bad="skip")
    images = splits.get("train", next(iter(splits.values())))
    images = checked({"images": images}, on_bad="skip", progress=not quiet)["images"]
    weights = str(teacher_weights) if teacher_weights else None
    names = {"name": teacher, "weights": weights, "random": random_teacher}
    begun = make_teacher(TeacherConfig().replace(**{name: value for name, value in names.items() if value}))
    if begun is None:
        raise ConfigError(f"--teacher {teacher}: there is nothing to adapt")
    adapted = adapt(begun, images, config=config, cpu=cpu, progress=not quiet)
    adapted.save(out, overwrite=overwrite)
    adapted.bank.save(bank, overwrite=overwrite)
    typer.echo(f"{adapted!r}\nwrote {out} and {bank}; next: prockd distill --data {data} --teacher {out} --bank {bank}")
