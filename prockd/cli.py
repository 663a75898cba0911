"""The command line: ``prockd demo``, ``prockd train-teacher``."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Prototype-guided Cross-task Knowledge Distillation, to run, to see and to teach.", no_args_is_help=True
)


@app.command()
def demo(
    run_dir: Annotated[Path, typer.Option(help="Where the report and the numbers go.")] = Path("runs/demo"),
    seeds: Annotated[int, typer.Option(min=1, help="Students of each kind; more make the intervals narrower.")] = 2,
) -> None:
    """Run the whole pipeline on Farmyard: teacher, prototypes, students, a table and one HTML report."""
    from prockd.demo import run_demo

    run_demo(run_dir, seeds=seeds)


@app.command()
def train_teacher(
    out: Annotated[Path, typer.Option(help="Weights file to write.")] = Path("data/farmyard/teacher.safetensors"),
    images: Annotated[int, typer.Option(min=100, help="Source images to render.")] = 24_000,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 2600,
    batch_size: Annotated[int, typer.Option(min=2, help="Images in a step.")] = 64,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 2e-3,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and crops.")] = 0,
    mixed_precision: Annotated[str, typer.Option(help="no, bf16 or fp16.")] = "no",
    run_dir: Annotated[Path, typer.Option(help="Checkpoints and metrics; run again to go on after a stop.")] = Path(
        "runs/teacher"
    ),
    cpu: Annotated[bool, typer.Option(help="Stay on the CPU.")] = False,
) -> None:
    """Train the Farmyard teacher on source species labels (never a target species, never a part label)."""
    from prockd.train_teacher import RECIPE, train_teacher

    config = RECIPE.replace(steps=steps, batch_size=batch_size, lr=lr, seed=seed, mixed_precision=mixed_precision)
    card = train_teacher(out, images=images, config=config, run_dir=run_dir, cpu=cpu)
    typer.echo(f"wrote {out}: {card['val_accuracy']:.1%} on source species, {card['seconds'] / 60:.0f} minutes")


if __name__ == "__main__":
    app()
