"""Commands for teachers: which are known, how one is trained, how one gets used to your own images."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from prockd.cli.options import Cpu, Overwrite, Quiet, RandomTeacher, TeacherName, TeacherWeights
from prockd.settings.experiment import PRESETS
from prockd.settings.knobs import ConfigError
from prockd.settings.toml import set_knobs
from prockd.writing import refuse_existing

app = typer.Typer()


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
