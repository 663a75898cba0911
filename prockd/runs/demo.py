"""The whole story in one command: `prockd demo` prints a table and writes one self-contained report."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import typer

from prockd import plots
from prockd.evaluation.embed import embed_2d
from prockd.evaluation.part_table import PartReport
from prockd.evaluation.patches import patch_parts
from prockd.evaluation.tables import format_table
from prockd.farmyard import PARTS
from prockd.prototypes.bank import PrototypeBank
from prockd.runs.html import Section, write_report
from prockd.runs.measured import measure_prototypes, measure_sections
from prockd.runs.report import augmentation_figures, figure_of, teacher_section
from prockd.runs.students import find_prototypes, train_student
from prockd.runs.world import World, open_world
from prockd.students.student import Student
from prockd.training.loop import History
from prockd.writing import refuse_existing, write_json


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Say what is going on and how long it took."""
    typer.secho(f"\n{name}", bold=True)
    began = time.perf_counter()
    yield
    typer.echo(f"  {time.perf_counter() - began:.0f} s")


def run_demo(
    run_dir: Path, *, seeds: int = 2, steps: int = 250, images: int = 600, overwrite: bool = False, cpu: bool = False
) -> Path:
    """Teacher, prototypes, plain and distilled students on Farmyard's target species; returns the report's path.

    Writes ``report.html``, ``results.json``, the bank and the last distilled student into ``run_dir``, over files of
    the same names only if ``overwrite`` says so. ``images`` of the source are for discovery; half as many are test
    images.
    """
    for name in ("report.html", "results.json", "prototypes.safetensors", "student.safetensors"):
        refuse_existing(run_dir / name, overwrite)
    with stage("1. Teacher: every image passes once, and once mirrored"):
        world = open_world(num_discover=images, num_test=images // 2, cpu=cpu)
        typer.echo(f"  {world.teacher}\n  {world.source}")
    with stage("2. Prototypes: what local things does the teacher know?"):
        bank = find_prototypes(world)
        bank.save(run_dir / "prototypes.safetensors", overwrite=overwrite)
        measured = measure_prototypes(world, bank, "test")
        typer.echo(f"{format_table(measured.rows)}\n\n{format_table(measured.part_rows)}")
    histories: dict[str, list[History]] = {"labels alone": [], "labels + teacher": []}
    with stage(f"3. Students: {len(world.images('train'))} labelled images, {steps} steps, {seeds} of each kind"):
        config, augmentation = world.config.distill.replace(steps=steps), world.config.feature_augmentation
        for seed in range(seeds):
            for name, own in zip(histories, (None, bank), strict=True):
                student, history = train_student(
                    world, own, augmentation, config.replace(seed=seed), teacher=own is not None, progress=True
                )
                histories[name].append(history)
        student.save(run_dir / "student.safetensors", overwrite=overwrite)
    scores = score_rows(histories, world.probe())
    typer.echo(format_table(scores))
    write_json(run_dir / "results.json", {"prototypes": measured.numbers(), "students": scores})
    with stage("4. Report"):
        sections = demo_sections(world, bank, student, measured, histories, scores)
        title = "prockd: a teacher's parts help a student with another task"
        path = write_report(run_dir / "report.html", title, sections)
    typer.echo(f"\nOpen {path}")
    return path


def score_rows(histories: Mapping[str, Sequence[History]], probe: float) -> list[dict[str, object]]:
    """One row a kind of student: mean test accuracy of z and z+ over seeds, and milliseconds a step."""
    rows: list[dict[str, object]] = []
    for name, runs in histories.items():
        scored = [h.scores for h in runs if h.scores is not None]
        plus = [s.augmented for s in scored if s.augmented is not None]
        row: dict[str, object] = {"student learns from": name, "plain z": float(np.mean([s.plain for s in scored]))}
        row |= {"augmented z+": float(np.mean(plus)) if plus else None, "seeds": len(scored)}
        rows.append(row | {"ms a step": round(float(np.mean([h.seconds_per_step for h in runs])) * 1e3)})
    return [*rows, {"student learns from": "(linear probe on the teacher)", "plain z": probe}]


def demo_sections(
    world: World,
    bank: PrototypeBank,
    student: Student,
    measured: PartReport,
    histories: Mapping[str, Sequence[History]],
    scores: Sequence[Mapping[str, object]],
) -> list[Section]:
    """Text, figures and tables of the report, in the order of the data flow."""
    test = world.embedded("test", bank)
    assignments = bank.assignments(test)
    some = np.random.default_rng(0).permutation(len(test))[:30]
    vectors = bank.read(test, some).flatten(0, 1)
    truth = patch_parts(np.asarray(test.images.parts), test.grid, len(PARTS))[some].ravel()
    front = np.flatnonzero(truth > 0)
    embedding = embed_2d(vectors[front], method="umap" if find_spec("umap") else "pca")
    labels = (truth[front] - 1)[embedding.indices]
    scatter = plots.plot_embedding(embedding, labels, names=PARTS[1:], title="Patches of unseen species, by part")
    of_teacher = (
        f"{len(world.source)} images of the teacher's own species and {len(test)} of target species it never saw "
        "passed through it once."
    )
    of_bank = (
        f"{bank.num_prototypes} prototypes were found without any label; here they are on species that the teacher "
        "never saw."
    )
    of_students = (
        f"A student of {student.plain_parameters / 1e6:.2f} M parameters learns {len(world.task.classes)} other "
        f"species from {len(world.images('train'))} labelled images: from labels alone, and with the teacher as well."
    )
    gallery = plots.plot_gallery(assignments, test.images, part_names=PARTS)
    whole = plots.plot_part_maps(assignments, test.images, range(min(5, len(test))), part_names=PARTS)
    table = plots.plot_part_table(measured.agreement["prototypes"], PARTS)
    curves = plots.plot_curves({name: runs[-1] for name, runs in histories.items()})
    bank_figures = [(gallery, "The clearest prototype of each part"), (whole, "What each patch's prototype stands for")]
    bank_figures += [(figure_of(scatter), "Map of patches coloured by part"), (figure_of(table), "Parts by prototype")]
    student_figures = [(figure_of(curves), "Training curves"), *augmentation_figures(student, test.images)]
    return [
        teacher_section(world, "test", of_teacher),
        Section("Prototypes", of_bank, bank_figures),
        *measure_sections(measured, "species that the teacher never saw; part labels measure and nothing else"),
        Section("Students", of_students, student_figures, scores),
    ]
