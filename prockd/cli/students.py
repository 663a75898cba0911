"""Commands for a trained student: score it, show it pictures, write it for others."""

import json
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from prockd.cli.options import Cpu, Overwrite, Quiet, RunDir
from prockd.settings.experiment import ExperimentConfig

app = typer.Typer()


@app.command(epilog="`prockd evaluate runs/run`\n\n`prockd evaluate runs/run --data other_photos --json`")
def evaluate(
    run_dir: RunDir,
    data: Annotated[str | None, Option(help="Other images to score on, in place of the run's own.")] = None,
    classes: Annotated[bool, Option("--classes", help="A row for each class too.")] = False,
    as_json: Annotated[bool, Option("--json", help="Print JSON.")] = False, cpu: Cpu = False, quiet: Quiet = False,
) -> None:  # fmt: skip
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
) -> None:  # fmt: skip
    """Write the plain student so that it runs without prockd, with an example that loads it."""
    from prockd.runs.folder import run_config, student_file
    from prockd.students.export import export_student
    from prockd.students.student import Student
    from prockd.untrusted import read_json

    is_file = run_dir.is_file()
    config = ExperimentConfig() if is_file else run_config(run_dir)
    format = format or config.export.format
    student = Student.load(run_dir if is_file else student_file(run_dir))
    folder = out or (run_dir.parent if is_file else run_dir) / "export" / format
    written = export_student(
        student, folder, format=format, opset=config.export.opset, fit=config.data.asked_fit, augmented=augmented,
        white=config.data.white, exif=config.data.exif, overwrite=overwrite,
    )  # fmt: skip
    for path in written:
        typer.echo(f"{path.stat().st_size / 1e6:8.2f} MB  {path}")
    if spent := read_json(folder / "student.json").get("milliseconds_of_one_image"):
        typer.echo(f"one image: {spent['onnx']:.2f} ms by ONNX Runtime, {spent['pytorch']:.2f} ms by PyTorch")
