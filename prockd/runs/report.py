"""What a run shows: its rows of numbers, its figures, and the sections of its report."""

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prockd import plots
from prockd.datasets import PackedImages
from prockd.evaluation.galleries import part_names_of
from prockd.evaluation.part_table import PartReport
from prockd.evaluation.scores import Scores
from prockd.evaluation.verdict import Verdict, judge
from prockd.prototypes.bank import PrototypeBank, bank_health
from prockd.prototypes.part_maps import PartMaps
from prockd.runs.html import Section, save_png, write_report
from prockd.runs.measured import measure_prototypes, measure_sections
from prockd.runs.recipes import alone_beside
from prockd.runs.students import Run
from prockd.runs.world import World
from prockd.settings.knobs import differences
from prockd.settings.toml import in_line
from prockd.students.student import Student
from prockd.training.readings import fitted_rows
from prockd.writing import write_json


def finish_run(run: Run, folder: Path) -> None:
    """Write figures, the report, and last the results."""
    config = run.world.config
    measured = None if run.bank is None else measure_prototypes(run.world, run.bank, "train")
    assert run.scores is not None
    # each number is measured here, once: the terminal reads it from the results
    rows, verdict = student_rows(run.student, run.scores, run.history.seconds_per_step), run_verdict(run)
    sections = report_sections(run, rows, verdict, measured)
    for section in sections:
        name = re.sub(r"\W+", "_", section.title.lower()).strip("_")
        for number, (figure, _) in enumerate(section.figures, 1):
            save_png(figure, folder / "figures" / f"{name}_{number}.png", dpi=130)
    write_report(folder / "report.html", f"prockd: {config.task.kind} by {config.student.backbone}", sections)
    for figure in (figure for section in sections for figure, _ in section.figures):
        plt.close(figure)  # else many runs in one process fill the memory
    told = results(run, rows, verdict) | ({"prototypes": measured.numbers()} if measured else {})
    write_json(folder / "results.json", told)


def run_verdict(run: Run) -> Verdict:
    """Whether the teacher of a finished run helped, or why that is open."""
    assert run.scores is not None
    world, alone = run.world, None if run.alone is None else run.alone.scores
    why_open = "There was no teacher: the student learned from labels alone."
    if world.is_taught:
        why_open = "Open whether the teacher helped: labels alone were not trained beside it (--no-baseline)."
    return judge(world.task, run.scores, world.images("test"), world.images("train"), alone=alone, why_open=why_open)


def results(run: Run, rows: Sequence[Mapping[str, object]], verdict: Verdict) -> dict[str, Any]:
    """All numbers of a finished run, as ``results.json`` keeps them."""
    assert run.scores is not None
    world, config = run.world, run.world.config
    return {
        "task": config.task.kind,
        "seed": config.distill.seed,
        "images": {name: len(world.images(name)) for name in ("train", "test", "source")},
        "steps": run.history.step,
        "seconds": run.history.rows[-1]["seconds"],
        "teacher_parameters": 0 if world.teacher is None else sum(p.numel() for p in world.teacher.parameters()),
        "students": list(rows),
        "verdict": verdict.numbers() | ({} if run.alone is None else {"labels alone were": alone_budget(run)}),
        "unlabelled": world.unlabelled_note or f"{config.distill.unlabelled_batch} images a step",
        "classes": class_rows(run.scores, world.task.classes),
    }


def alone_budget(run: Run) -> str:
    """How labels alone were trained beside a run, in words."""
    assert run.alone is not None
    config = alone_beside(run.world.config.task.kind, run.world.config.distill)
    return (
        f"trained from the same start, on the same images at {run.world.image_px} px in the same order, for as many "
        f"steps ({run.alone.step}) of as many images ({config.batch_size}, all labelled), with the learning rate that "
        f"is best for them in this task's recipe ({config.lr:g}), in {run.alone.rows[-1]['seconds']:.0f} s"
    )


def student_rows(student: Student, scores: Scores, seconds_per_step: float | None = None) -> list[dict[str, object]]:
    """One row for z and one for z+: score and parameters; of a run also the milliseconds an image and a step."""
    kinds = [("plain z", scores.plain, scores.details, 0)]
    if scores.augmented is not None:
        kinds.append(("augmented z+", scores.augmented, scores.augmented_details, student.extra_parameters))
    costs: Sequence[dict[str, object]] = [{}, {}]
    if seconds_per_step is not None:
        costs = [{"ms an image": ms, "ms a step": round(seconds_per_step * 1e3, 1)} for ms in milliseconds(student)]
    return [
        {"prediction": name, scores.metric: score, **details, "parameters": student.plain_parameters + extra, **cost}
        for (name, score, details, extra), cost in zip(kinds, costs, strict=False)
    ]


@torch.no_grad()
def milliseconds(student: Student, *, batch_size: int = 16, repeats: int = 3) -> tuple[float, float]:
    """The least time an image of z alone and of z with z+, in batches of 16 on the device of the student."""
    device, augmentation = next(student.parameters()).device, student.feature_augmentation
    images = torch.rand(batch_size, 3, student.image_px, student.image_px, device=device)
    wait = torch.get_device_module(device).synchronize  # a GPU answers before it is done
    times = []
    try:
        for each in (None, augmentation):
            student.feature_augmentation, spent = each, []
            for _ in range(repeats):
                wait()
                began = time.perf_counter()
                student(images)
                wait()
                spent.append(time.perf_counter() - began)
            times.append(round(min(spent) / batch_size * 1e3, 3))
    finally:
        student.feature_augmentation = augmentation
    return times[0], times[1]


def class_rows(scores: Scores, classes: Sequence[str]) -> list[dict[str, object]]:
    """One row a class: the metric of z and z+, and None where the images show none of it."""
    columns = {"plain z": scores.per_class, "augmented z+": scores.augmented_per_class}
    return [
        {"class": name}
        | {kind: None if np.isnan(each[c]) else float(each[c]) for kind, each in columns.items() if each is not None}
        for c, name in enumerate(classes)
    ]


def report_sections(
    run: Run, rows: Sequence[Mapping[str, object]], verdict: Verdict, measured: PartReport | None = None
) -> list[Section]:
    """Text, tables and figures: what came out, then the order in which data flow."""
    sections = [_numbers(run, rows), verdict_section(run, verdict), _data(run.world, run.bank)]
    if run.world.teacher is not None:
        sections.append(teacher_section(run.world, "source", f"{run.world.teacher!r}."))
    if run.bank is not None:
        sections.append(prototype_section(run.world, run.bank))
    if measured is not None:
        sections += measure_sections(measured, "the labelled images, whose parts no training has seen")
    curves = (figure_of(plots.plot_curves({"student": run.history})), "Terms of the loss, before their weights")
    sections.append(Section("Training", "The terms of the loss. metrics.jsonl has them all.", [curves]))
    return [*sections, _predictions(run), _settings(run.world)]


def teacher_section(world: World, name: str, text: str) -> Section:
    """Some images of a set as the teacher sees them."""
    features = world.look(name)
    figure = (
        plots.plot_teacher_maps(features, range(len(features))),
        "Images, and each layer of the teacher as colours",
    )
    return Section("What the teacher sees", f"{text} Like colours are like features.", [figure])


def prototype_section(world: World, bank: PrototypeBank) -> Section:
    """The health of the prototypes, the clearest of them, and what they stand for on whole images."""
    source = world.source
    assignments, images = bank.assignments(source), source.images
    shown = torch.from_numpy(images.in_picture(source.grid))
    health = bank_health(bank, assignments[shown][None])
    dead, pairs = len(health.dead), len(health.duplicates)
    used = f"No patch prefers {dead} of them" if dead else "Each is preferred by some patch"
    alike = f"{pairs} pair{' is' if pairs == 1 else 's are'} alike" if pairs else "no two are alike"
    text = (
        f"{bank.num_prototypes} prototypes from {len(source)} images, without any label. {used}; {alike}. Shown are "
        + ("the clearest one of each part." if images.parts is not None else "the ones whose patches are most alike.")
    )
    names, some = part_names_of(images) or None, np.linspace(0, len(images) - 1, min(5, len(images))).astype(int)
    gallery = plots.plot_gallery(assignments, images, part_names=names, bank=bank, features=source)
    maps = plots.plot_part_maps(assignments, images, np.unique(some), part_names=names, names=bank.names)
    figures = [(gallery, "The patches that belong most to each prototype"), (maps, "What each patch's prototype is")]
    return Section("Prototypes", text, figures)


def verdict_section(run: Run, verdict: Verdict) -> Section:
    """The verdict, beside labels alone, trivial answers and chance, and how it was reached."""
    text = verdict.sentence
    if run.alone is not None:
        text += f"\n\nLabels alone were {alone_budget(run)}."
        if verdict.enough:
            text += (
                f"\n\nThe 95 % intervals are over {verdict.over}, the same for both students. They say nothing of "
                "another seed of training: --seed trains one."
            )
    text += (
        "\n\nChance answers with what training images show that are drawn at random. Trivial answers know the labelled "
        "images and look at no other; a task of your own may have none."
    )
    return Section("Did the teacher help?", text, table=verdict.rows())


def _numbers(run: Run, rows: Sequence[Mapping[str, object]]) -> Section:
    assert run.scores is not None
    world, scores, student = run.world, run.scores, run.student
    plus = f"; augmented by prototypes (z+) it reaches {scores.augmented:.1%}" if scores.augmented else ""
    source = "labels alone" if world.teacher is None else f"labels and from {world.config.teacher.name}"
    others = len(world.images("unlabelled")) if _reads_unlabelled(world) else 0
    more = f" and {others} unlabelled ones" if others else ""
    text = (
        f"{student.name}, {student.plain_parameters / 1e6:.2f} M parameters, learned {world.config.task.kind} from "
        f"{source}: {len(world.images('train'))} labelled images{more}, {run.history.step} steps, "
        f"{run.history.rows[-1]['seconds']:.0f} s. On {len(world.images('test'))} other images its {scores.metric} is "
        f"{scores.plain:.1%}{plus}."
    )
    return Section("Result", text, table=rows)


def _reads_unlabelled(world: World) -> bool:
    return "unlabelled" in world.sets and world.config.distill.unlabelled_batch > 0


def _data(world: World, bank: PrototypeBank | None) -> Section:
    names = {"labelled": "train", "scored on": "test", "for prototypes": "source"}
    if _reads_unlabelled(world):
        names["unlabelled"] = "unlabelled"
    sets = {what: world.images(name) for what, name in names.items()}
    rows = [{"images": what, "count": len(s), "side, px": s.image_px, "first": s.ids[0]} for what, s in sets.items()]
    text = f"Classes: {', '.join(world.task.classes)}.\n\n{world.unlabelled_note}"
    train = world.images("train")
    if bank is not None and world.task.pooled and (count := len(fitted_rows(train, bank))) < len(train):
        fitted = f"{count:,} of the labelled images, drawn at random"
        text += f"\n\nReadings of part maps, {bank.prototypes.numel():,} values an image, are fitted to {fitted}."
    return Section("Images and classes", text, table=rows)


def _predictions(run: Run) -> Section:
    assert run.scores is not None
    scores, task, images = run.scores, run.world.task, run.world.images("test")
    figures = [(plots.plot_predictions(scores, images, task), "Truth and predictions on test images")]
    one_an_image = isinstance(scores.labels, np.ndarray) and scores.labels.ndim == 1
    if one_an_image and len(task.classes) in range(2, 31):  # a larger matrix cannot be read
        figures.append((figure_of(plots.plot_confusion(scores, task.classes)), "True by predicted classes"))
    figures += augmentation_figures(run.student, images)
    text = f"Of each class: {scores.class_metric} (a dash: no test image shows it)."
    return Section("Predictions", text, figures, class_rows(scores, task.classes)[:40])  # results.json has all


def augmentation_figures(student: Student, images: PackedImages) -> list[tuple[Figure, str]]:
    """What the augmentation does to the first image, where it can be seen: the evidence of part maps, or attention."""
    augmentation = student.feature_augmentation
    if isinstance(augmentation, PartMaps) and augmentation.num_outputs and augmentation.fitted:
        return [(plots.plot_evidence(student, images, 0), "Which parts speak for a class, and where")]
    if augmentation is not None and augmentation.content == "attention":
        return [(plots.plot_attention(student, images, 0), "What the augmentation attends to")]
    return []


def _settings(world: World) -> Section:
    rows = [
        {"section": section, "setting": name, "value": in_line(value), "usual": in_line(usual)}
        for section, knobs in world.config.sections().items()
        for name, (value, usual) in differences(knobs, type(knobs)()).items()
    ]
    text = "What differs from the usual settings; config.toml has all of them."
    return Section("Settings", text if rows else "All settings are the usual ones; config.toml has them.", table=rows)


def figure_of(ax: Axes) -> Figure:
    """The figure that holds the axes."""
    assert isinstance(ax.figure, Figure)
    return ax.figure
