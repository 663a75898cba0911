"""The command line: every command is the same few calls as in a notebook (:mod:`prockd.runs.run`)."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from prockd.settings.experiment import NO_TEACHER, PRESETS, ExperimentConfig
from prockd.settings.knobs import ConfigError

RUN_DIR = Path("runs/run")


class Told(TyperGroup):
    """Commands whose errors are one clear line and exit code 2; ``prockd --debug`` shows where they came from."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        import warnings

        from prockd.cache import CacheError
        from prockd.teachers.weights import WeightsError
        from prockd.training.loop import NonFiniteLossError

        try:
            with warnings.catch_warnings():
                if not ctx.params.get("debug"):
                    warnings.showwarning = told_of
                return super().invoke(ctx)
        except (CacheError, NonFiniteLossError, WeightsError, ImportError, OSError, ValueError) as error:
            if ctx.params.get("debug"):
                raise
            typer.secho(f"prockd: {error}", fg="red", err=True)
            raise typer.Exit(2) from error


def told_of(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: str | None = None,
) -> None:
    """A warning as one line, without the place in the code that gave it."""
    typer.secho(f"prockd: {' '.join(str(message).split())}", fg="yellow", err=True)


app = typer.Typer(
    cls=Told, no_args_is_help=True, rich_markup_mode="markdown", pretty_exceptions_enable=False, add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Prototype-guided Cross-task Knowledge Distillation, to run, to see and to teach.",
    epilog="First steps: `prockd demo`, then `prockd distill --help`. Your own images: `prockd check-data FOLDER`.",
)  # fmt: skip

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="TOML file of settings.", rich_help_panel="Settings")
]
Preset = Annotated[str, typer.Option(help=f"Settings to begin with: {', '.join(PRESETS)}.", rich_help_panel="Settings")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="SECTION.NAME=VALUE", help="Change one setting; may be repeated.",
                 rich_help_panel="Settings"),
]  # fmt: skip
Data = Annotated[str | None, typer.Option(help="A folder or file of your own images; Farmyard if not given.")]
TaskName = Annotated[
    str | None, typer.Option("--task", help="classification (if not given), segmentation or detection.")
]
TeacherName = Annotated[
    str | None,
    typer.Option("--teacher", help="farmyard (if not given), one of prockd presets, any timm name, or none."),
]
TeacherWeights = Annotated[Path | None, typer.Option(help="Local weights of the teacher: safetensors or .pth.")]
Cpu = Annotated[bool, typer.Option("--cpu", help="Stay on the CPU.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]


def settings(config: Path | None, preset: str, changes: list[str] | None, **named: object) -> ExperimentConfig:
    """Preset, then file, then ``--set``, then the options with a name of their own, such as ``data__path``."""
    from prockd.runs.experiment import task_preset
    from prockd.settings.toml import read_config, set_values

    given = {key.replace("__", "."): value for key, value in named.items() if value is not None}
    told = [f"{key}={json.dumps(v, default=str, ensure_ascii=False)}" for key, v in given.items()]
    asked = set_values(read_config(config) if config else ExperimentConfig.preset(preset), [*(changes or ()), *told])
    base = task_preset(preset, asked.task.kind, asked.teacher.name)
    return set_values(read_config(config, base=base) if config else base, [*(changes or ()), *told])


def wants_teacher(config: ExperimentConfig) -> None:
    """Refuse to go on without a teacher, before any image is read."""
    if config.teacher.name == NO_TEACHER:
        raise ConfigError(f"teacher.name = {NO_TEACHER}: there is nothing to extract or to find prototypes in")


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")] = False,
) -> None:
    """Prototype-guided Cross-task Knowledge Distillation, to run, to see and to teach."""


@app.command(epilog="`prockd extract --data photos --teacher dinov2_small --teacher-weights dinov2.safetensors`")
def extract(
    data: Data = None,
    task: TaskName = None,
    teacher: TeacherName = None,
    teacher_weights: TeacherWeights = None,
    config: Config = None,
    preset: Preset = "best",
    set_: Set = None,
    cpu: Cpu = False,
    quiet: Quiet = False,
) -> None:
    """Pass every image through the teacher once; discover and distill then read the cache."""
    from prockd.runs.experiment import extracted

    chosen = settings(
        config, preset, set_, data__path=data, task__kind=task, teacher__name=teacher, teacher__weights=teacher_weights
    )
    wants_teacher(chosen)
    run = extracted(chosen, cpu=cpu, progress=not quiet)
    for what, features in (("prototypes", run.source), ("labelled", run.train), ("unlabelled", run.unlabelled)):
        if features is not None:
            typer.echo(f"{what:<11} {features!r}")


@app.command(
    epilog="`prockd discover --out bank.safetensors --num-prototypes 64`\n\n"
    "`prockd discover --data photos --teacher dinov2_small --teacher-weights dinov2.safetensors`"
)
def discover(
    out: Annotated[Path, typer.Option(help="File to write; figures go beside it.")] = Path("runs/bank.safetensors"),
    num_prototypes: Annotated[int | None, typer.Option(help="How many; 48 if not given.")] = None,
    data: Data = None,
    task: TaskName = None,
    teacher: TeacherName = None,
    teacher_weights: TeacherWeights = None,
    config: Config = None,
    preset: Preset = "best",
    set_: Set = None,
    cpu: Cpu = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file when it is there.")] = False,
    quiet: Quiet = False,
) -> None:
    """Find prototypes in a teacher's features, without labels; write them and a gallery of their patches."""
    from prockd.runs.experiment import discovered, extracted
    from prockd.runs.html import save_png
    from prockd.runs.report import prototype_section

    if out.exists() and not overwrite:
        raise ConfigError(f"{out} is there already: choose another --out, or --overwrite it")
    chosen = settings(
        config, preset, set_, data__path=data, task__kind=task, teacher__name=teacher, teacher__weights=teacher_weights,
        discover__num_prototypes=num_prototypes,
    )  # fmt: skip
    wants_teacher(chosen)
    run = discovered(extracted(chosen, cpu=cpu, progress=not quiet), progress=not quiet)
    assert run.bank is not None
    section = prototype_section(run)
    run.bank.save(out)
    figure = out.with_suffix(".png")
    save_png(section.figures[0][0], figure, dpi=130)
    typer.echo(f"{run.bank!r}\n{section.text}\nwrote {out} and {figure}")


@app.command(
    epilog="`prockd distill`  (Farmyard, about three minutes)\n\n"
    "`prockd distill --data photos --task detection --teacher convnext_tiny --teacher-weights convnext.safetensors "
    "--student mobilenetv3_small_050 --run-dir runs/photos`\n\n"
    "`prockd distill --config runs/photos/config.toml --set distill.steps=2000 --run-dir runs/longer`\n\n"
    "`prockd distill --run-dir runs/longer --resume`  (after a stop)\n\n"
    "`accelerate launch --num_processes 2 -m prockd distill --run-dir runs/two`"
)
def distill(
    run_dir: Annotated[Path, typer.Option(help="Folder of the run: settings, weights, report.")] = RUN_DIR,
    data: Data = None,
    task: TaskName = None,
    teacher: TeacherName = None,
    teacher_weights: TeacherWeights = None,
    student: Annotated[str | None, typer.Option(help="Any timm name; a small resnet10t if not given.")] = None,
    student_weights: Annotated[Path | None, typer.Option(help="Local weights the student starts from.")] = None,
    bank: Annotated[Path | None, typer.Option(help="Prototypes of prockd discover, in place of finding them.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps; of the preset if not given.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, order and crops; 0 if not given.")] = None,
    config: Config = None,
    preset: Preset = "best",
    set_: Set = None,
    mixed_precision: Annotated[str | None, typer.Option(help="no (if not given), bf16 or fp16.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in the run's folder.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that is in the folder.")] = False,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 100,
    cpu: Cpu = False,
    quiet: Quiet = False,
) -> None:
    """Train a student with a teacher's help, score it, and write a run folder with a report."""
    from prockd.evaluation.tables import format_table
    from prockd.runs.folder import run_config
    from prockd.runs.report import results
    from prockd.runs.run import run_experiment

    named = {
        "data__path": data, "task__kind": task, "teacher__name": teacher, "teacher__weights": teacher_weights,
        "student__backbone": student, "student__weights": student_weights, "distill__steps": steps,
        "distill__seed": seed, "distill__mixed_precision": mixed_precision,
    }  # fmt: skip
    plain = config is None and not set_ and all(value is None for value in named.values())
    chosen = run_config(run_dir) if resume and plain else settings(config, preset, set_, **named)
    run = run_experiment(
        chosen, run_dir, resume=resume, overwrite=overwrite, bank=bank, cpu=cpu, checkpoint_every=checkpoint_every,
        progress=not quiet,
    )  # fmt: skip
    typer.echo(format_table(results(run)["students"]))
    typer.echo(f"\n{run_dir}: student.safetensors, results.json; open {run_dir / 'report.html'}")


@app.command(epilog="`prockd evaluate runs/run`\n\n`prockd evaluate runs/run --data other_photos --json`")
def evaluate(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    data: Annotated[str | None, typer.Option(help="Other images to score on, in place of the run's own.")] = None,
    classes: Annotated[bool, typer.Option("--classes", help="A row for each class too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    cpu: Cpu = False,
    quiet: Quiet = False,
) -> None:
    """Score a run's student, plain and augmented, on its test images or on others."""
    from prockd.evaluation.tables import format_table
    from prockd.runs.experiment import scored
    from prockd.runs.report import class_rows, student_rows

    student, scores = scored(run_dir, data, cpu=cpu, progress=not quiet)
    rows, each = student_rows(student, scores), class_rows(scores, student.task.classes)
    if as_json:
        typer.echo(json.dumps({"students": rows, "classes": each}, indent=2))
        return
    typer.echo(f"{scores!r}\n{format_table(rows)}")
    if classes:
        typer.echo(f"\n{format_table(each)}")


@app.command(
    epilog="`prockd export runs/run`  (timm's names)\n\n`prockd export runs/run --format onnx --out student_onnx`"
)
def export(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a finished run, or a student.safetensors.")],
    format: Annotated[str | None, typer.Option(help="timm (if not given), torchvision (detection) or onnx.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write; RUN/export/FORMAT if not given.")] = None,
) -> None:
    """Write the plain student so that it runs without prockd, with an example that loads it."""
    from prockd.runs.folder import run_config, student_file
    from prockd.settings.experiment import ExportConfig
    from prockd.students.export import export_student
    from prockd.students.student import Student

    is_file = run_dir.is_file()
    config = None if is_file else run_config(run_dir)
    chosen = ExportConfig() if config is None else config.export
    fit = None if config is None or config.data.fit == "auto" else config.data.fit
    chosen = chosen if format is None else chosen.replace(format=format)
    student = Student.load(run_dir if is_file else student_file(run_dir))
    folder = out or (run_dir.parent if is_file else run_dir) / "export" / chosen.format
    written = export_student(student, folder, format=chosen.format, opset=chosen.opset, fit=fit)
    for path in written:
        typer.echo(f"{path.stat().st_size / 1e6:8.2f} MB  {path}")


@app.command(epilog="`prockd check-data photos`\n\n`prockd check-data scans --task segmentation --all`")
def check_data(
    path: Annotated[Path, typer.Argument(help="A folder or file of your own images.")],
    task: Annotated[str | None, typer.Option(help="What it is for; guessed from its looks if not given.")] = None,
    classes: Annotated[str | None, typer.Option(help="Class names, commas between them, as in data.classes.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every problem, however many.")] = False,
    quiet: Quiet = False,
) -> None:
    """Read everything once and tell every problem in one table; exit code 1 when there is an error."""
    from prockd.datasets import check_data as check
    from prockd.evaluation.tables import format_table
    from prockd.settings.experiment import class_names

    report = check(path, task=task, classes=class_names(classes or "") or None, progress=not quiet)
    typer.echo(repr(report).split("\n  ")[0] if all_ else repr(report))
    if all_ and report.problems:
        typer.echo(format_table(report.rows()))
    if not report.ok:
        raise typer.Exit(1)


@app.command(epilog="`prockd unpack photos.zip photos`")
def unpack(
    archive: Annotated[Path, typer.Argument(help="A ZIP or TAR file.")],
    folder: Annotated[Path, typer.Argument(help="A new folder for its content.")],
    quiet: Quiet = False,
) -> None:
    """Unpack an archive that somebody else made: all of it, or nothing when a member would climb out of the folder."""
    from prockd.datasets import unpack as unpacked

    typer.echo(f"unpacked to {unpacked(archive, folder, progress=not quiet)}; next: prockd check-data {folder}")


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
        "mean": "own", "about": "Knows drawn animals; needs no download.",
    }  # fmt: skip
    typer.echo(format_table([first, *preset_rows()]))
    typer.echo(
        "\nUse one with --teacher NAME --teacher-weights FILE, or with --set teacher.pretrained=true where there is a "
        f"network.\nSettings (--preset): {', '.join(PRESETS)}."
    )


@app.command(epilog="`prockd demo --seeds 5 --run-dir runs/five`")
def demo(
    run_dir: Annotated[Path, typer.Option(help="Where the report and the numbers go.")] = Path("runs/demo"),
    seeds: Annotated[int, typer.Option(min=1, help="Students of each kind; more make the intervals narrower.")] = 2,
) -> None:
    """Run the whole pipeline on Farmyard: teacher, prototypes, students, a table and one HTML report."""
    from prockd.runs.demo import run_demo

    run_demo(run_dir, seeds=seeds)


@app.command(epilog="`prockd train-teacher --out teacher.safetensors --steps 4000 --mixed-precision bf16`")
def train_teacher(
    out: Annotated[Path, typer.Option(help="Weights file to write.")] = Path("data/farmyard/teacher.safetensors"),
    images: Annotated[int, typer.Option(min=100, help="Source images to render.")] = 24_000,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the first stage: species.")] = 2600,
    place_steps: Annotated[int, typer.Option(min=1, help="Steps of the second: species and places.")] = 2000,
    batch_size: Annotated[int, typer.Option(min=2, help="Images in a step.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and crops.")] = 0,
    mixed_precision: Annotated[str, typer.Option(help="no, bf16 or fp16.")] = "no",
    start: Annotated[
        Path | None, typer.Option(help="What this command wrote before: only the second stage is trained, from there.")
    ] = None,
    run_dir: Annotated[Path, typer.Option(help="Checkpoints and metrics; run again to go on after a stop.")] = Path(
        "runs/teacher"
    ),
    cpu: Cpu = False,
) -> None:
    """Train a Farmyard teacher on source species labels and self-supervision (no target species, no part label)."""
    from prockd.runs.teacher_training import PLACES, SPECIES, train_teacher

    same: dict[str, Any] = {"batch_size": batch_size, "seed": seed, "mixed_precision": mixed_precision}
    card = train_teacher(
        out, images=images, species=SPECIES.replace(steps=steps, **same),
        places=PLACES.replace(steps=place_steps, **same), start=start, run_dir=run_dir, cpu=cpu,
    )  # fmt: skip
    minutes = sum(stage["seconds"] for stage in card["stages"].values()) / 60
    typer.echo(f"wrote {out}: {card['stages']['places']['val_accuracy']:.1%} on source species, {minutes:.0f} minutes")
