"""Commands for your own images: look through them for problems, unpack an archive of them."""

import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from prockd.cli.options import Quiet, Set, read_settings
from prockd.settings.experiment import class_names

app = typer.Typer()


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
        from prockd.runs.html import save_png

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the report has it all
            splits = open_splits(path, task=task, classes=names, **{**how, "on_bad": "skip"})
            save_png(plot_samples(next(iter(splits.values())), task), sheet, dpi=150)
        typer.echo(f"drew {sheet}: do masks, boxes and points lie where they belong?")
    if not report.ok:
        raise typer.Exit(1)


@app.command(epilog="`prockd unpack photos.zip photos`")
def unpack(
    archive: Annotated[Path, Argument(help="A ZIP or TAR file.")],
    folder: Annotated[Path, Argument(help="A new folder for its content.")], quiet: Quiet = False,
) -> None:  # fmt: skip
    """Unpack an archive that somebody else made: all of it, or nothing when a member would climb out of the folder."""
    from prockd.datasets import unpack as unpack_archive

    typer.echo(f"unpacked to {unpack_archive(archive, folder, progress=not quiet)}; next: prockd check-data {folder}")
