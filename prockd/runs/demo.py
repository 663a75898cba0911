"""The whole story in one command: `prockd demo` prints a table and writes one self-contained report."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prockd import plots
from prockd.evaluation.embed import embed_2d
from prockd.evaluation.parts import PartAgreement, agreement_with_controls, patch_parts
from prockd.evaluation.tables import format_table
from prockd.farmyard import PARTS
from prockd.prototypes.bank import PrototypeBank
from prockd.prototypes.discovery import discover
from prockd.runs.html import Section, write_report
from prockd.runs.world import World, farmyard_world, train_student
from prockd.settings.method import DistillConfig, best
from prockd.students.student import Student
from prockd.teachers.teacher import Teacher
from prockd.training.loop import History


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Say what is going on and how long it took."""
    typer.secho(f"\n{name}", bold=True)
    began = time.perf_counter()
    yield
    typer.echo(f"  {time.perf_counter() - began:.0f} s")


def run_demo(run_dir: Path, *, seeds: int = 2, steps: int = 250, images: int = 600) -> Path:
    """Teacher, prototypes, plain and distilled students on Farmyard's target species; returns the report's path.

    Writes ``report.html``, ``results.json``, the bank and the last distilled student into ``run_dir``.

    Args:
        run_dir: made when missing; what it holds of an earlier demo is overwritten.
        seeds: students of each kind.
        steps: optimiser steps of each student.
        images: source images for discovery; half as many test images.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    discovery, augmentation, distillation = best()
    with stage("1. Teacher: every image passes once, and once mirrored"):
        teacher = Teacher("farmyard")
        typer.echo(f"  {teacher}")
        world = farmyard_world(teacher, num_source=images, num_unlabelled=1, num_val=1, num_test=images // 2)
    with stage("2. Prototypes: what local things does the teacher know?"):
        bank = discover(world.source, config=discovery)
        bank.save(run_dir / "prototypes.safetensors")
        agreement = agreement_with_controls(
            bank.assignments(world.test), world.test.images, world.test.grid, len(PARTS)
        )
        parts = [
            {"patches grouped by": name, "part purity": a.purity, "NMI": a.nmi, "commonest part": a.majority}
            for name, a in agreement.items()
        ]
        typer.echo(format_table(parts))
    histories: dict[str, list[History]] = {"labels alone": [], "labels + teacher": []}
    with stage(f"3. Students: {len(world.labelled)} labelled images, {steps} steps, {seeds} of each kind"):
        for seed in range(seeds):
            alone = DistillConfig(steps=steps, seed=seed)
            histories["labels alone"].append(train_student(world, None, None, alone, teacher=False, progress=True)[1])
            config = distillation.replace(steps=steps, seed=seed)
            student, history = train_student(world, bank, augmentation, config, progress=True)
            histories["labels + teacher"].append(history)
        student.save(run_dir / "student.safetensors")
    scores = score_rows(histories, world.probe())
    typer.echo(format_table(scores))
    (run_dir / "results.json").write_text(json.dumps({"parts": parts, "students": scores}, indent=2))
    with stage("4. Report"):
        sections = demo_sections(world, bank, student, agreement["prototypes"], parts, histories, scores)
        path = write_report(
            run_dir / "report.html", "prockd: a teacher's parts help a student with another task", sections
        )
    typer.echo(f"\nOpen {path}")
    return path


def score_rows(histories: Mapping[str, Sequence[History]], probe: float) -> list[dict[str, object]]:
    """One row a kind of student: mean test accuracy of z and z+ over seeds, and milliseconds a step."""
    rows: list[dict[str, object]] = []
    for name, runs in histories.items():
        scored = [h.scores for h in runs if h.scores is not None]
        plus = [s.augmented for s in scored if s.augmented is not None]
        rows.append(
            {
                "student learns from": name,
                "plain z": float(np.mean([s.plain for s in scored])),
                "augmented z+": float(np.mean(plus)) if plus else "-",
                "seeds": len(scored),
                "ms a step": round(float(np.mean([h.seconds_per_step for h in runs])) * 1e3),
            }
        )
    rows.append({"student learns from": "(linear probe on the teacher)", "plain z": probe, "augmented z+": "-"})
    return rows


def demo_sections(
    world: World,
    bank: PrototypeBank,
    student: Student,
    agreement: PartAgreement,
    parts: Sequence[Mapping[str, object]],
    histories: Mapping[str, Sequence[History]],
    scores: Sequence[Mapping[str, object]],
) -> list[Section]:
    """Text, figures and tables of the report, in the order of the data flow."""
    test = world.test
    assignments = bank.assignments(test)
    share = agreement.table[:, 1:].max(1) / np.maximum(1, agreement.table.sum(1))
    part = agreement.table[:, 1:].argmax(1)
    show = [int(max(np.flatnonzero(part == p), key=lambda k: share[k])) for p in np.unique(part)]
    shown = np.random.default_rng(0).permutation(len(test))[:30]
    vectors = bank.embed(test.fused(shown)).detach().flatten(0, 1)
    truth = patch_parts(np.asarray(test.images.parts), test.grid, len(PARTS))[shown].ravel()
    front = np.flatnonzero(truth > 0)
    embedding = embed_2d(vectors[front])
    labels = (truth[front] - 1)[embedding.indices]
    scatter = plots.plot_embedding(embedding, labels, names=PARTS[1:], title="Patches of unseen species, by part")
    return [
        Section(
            "What the teacher sees",
            f"{len(world.source)} images of the teacher's own species and {len(test)} of target species it never saw "
            "passed through it once. Below, its patch features as colours: like colours are like features.",
            [(plots.plot_teacher_maps(test, [0, 1, 2, 3, 4, 5]), "Images and PCA-coloured teacher maps")],
        ),
        Section(
            "Prototypes",
            f"{bank.num_prototypes} prototypes were found without any label. On species the teacher never saw they "
            "agree with true parts better than shuffled assignments or raw pixels do.",
            [
                (plots.plot_gallery(assignments, test.images, prototypes=show, part_names=PARTS), "Nearest patches"),
                (figure_of(scatter), "Map of patches coloured by part"),
                (figure_of(plots.plot_part_table(agreement, PARTS)), "Parts by prototype"),
            ],
            parts,
        ),
        Section(
            "Students",
            f"A student of {student.plain_parameters / 1e6:.2f} M parameters learns {len(world.task.classes)} other "
            f"species from {len(world.labelled)} labelled images: from the labels alone, and with the teacher as well.",
            [
                (figure_of(plots.plot_curves({k: v[-1] for k, v in histories.items()})), "Training curves"),
                (plots.plot_attention(student, test.images, 0), "What the augmentation attends to"),
            ],
            scores,
        ),
    ]


def figure_of(ax: Axes) -> Figure:
    """The figure that holds the axes."""
    figure = ax.figure
    assert isinstance(figure, Figure)
    return figure
