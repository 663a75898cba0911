"""The command line: every command is the same few calls as in a notebook (:mod:`prockd.runs`).

Whatever is slow to import is imported inside the command that needs it, so that ``prockd --help`` answers at once.
"""

from typing import Annotated

import typer
from typer import Option

import prockd
from prockd.cli import cached, images, kit, method, students, teachers
from prockd.cli.errors import OneLineErrors

app = typer.Typer(
    cls=OneLineErrors, no_args_is_help=True, rich_markup_mode="markdown", pretty_exceptions_enable=False,
    add_completion=False, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Prototype-guided Cross-task Knowledge Distillation, to run, to see and to teach.",
    epilog="First steps: `prockd demo`, then `prockd distill --help`. Your own images: `prockd check-data FOLDER`.",
)  # fmt: skip
for room in (method, students, images, teachers, kit):
    app.add_typer(room.app)
app.add_typer(
    cached.app, name="cache", epilog="`prockd cache`\n\n`prockd cache clear --kind features --older-than 30d`"
)


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
