"""What a run shows: its rows of numbers, its figures, and the sections of its report."""

import dataclasses
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prockd import plots
from prockd.evaluation.scores import Scores
from prockd.plots.predictions import plot_predictions
from prockd.prototypes.bank import report as bank_report
from prockd.runs.experiment import Run
from prockd.runs.html import Section, save_png
from prockd.settings.knobs import Knobs
from prockd.settings.toml import in_line
from prockd.students.student import Student
from prockd.tasks import Classification


def results(run: Run) -> dict[str, Any]:
    """All numbers of a finished run, as ``results.json`` keeps them."""
    assert run.student is not None
    assert run.history is not None
    assert run.scores is not None
    return {
        "task": run.config.task.kind,
        "seed": run.config.distill.seed,
        "images": {"train": len(run.images.train), "test": len(run.images.test), "source": len(run.images.source)},
        "steps": run.history.step,
        "seconds": run.history.rows[-1]["seconds"],
        "teacher_parameters": 0 if run.teacher is None else sum(p.numel() for p in run.teacher.parameters()),
        "students": student_rows(run.student, run.scores, run.history.seconds_per_step),
        "classes": class_rows(run.scores, run.task.classes),
    }


def student_rows(student: Student, scores: Scores, seconds_per_step: float | None = None) -> list[dict[str, object]]:
    """One row for z and one for z+: score, parameters, and milliseconds an image."""
    kinds = [("plain z", scores.plain, scores.details, 0)]
    if scores.augmented is not None:
        kinds.append(("augmented z+", scores.augmented, scores.augmented_details, student.extra_parameters))
    plain, both = milliseconds(student)
    rows = []
    for (name, score, details, extra), cost in zip(kinds, (plain, both), strict=False):
        row: dict[str, object] = {"prediction": name, scores.metric: score, **details}
        row |= {"parameters": student.plain_parameters + extra, "ms an image": cost}
        rows.append(row | ({} if seconds_per_step is None else {"ms a step": round(seconds_per_step * 1e3, 1)}))
    return rows


@torch.no_grad()
def milliseconds(student: Student, *, batch_size: int = 16, repeats: int = 3) -> tuple[float, float]:
    """The least time an image of z alone and of z with z+, in batches of 16 on the device of the student."""
    device, augmentation = next(student.parameters()).device, student.feature_augmentation
    images = torch.rand(batch_size, 3, student.image_px, student.image_px, device=device)
    times = []
    try:
        for kept in (None, augmentation):
            student.feature_augmentation = kept
            spent = []
            for _ in range(repeats):
                began = time.perf_counter()
                student(images)
                if device.type == "cuda":
                    torch.cuda.synchronize()
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


def report_sections(run: Run) -> list[Section]:
    """Text, tables and figures in the order in which data flow."""
    sections = [_numbers(run), _data(run)]
    if run.source is not None:
        some = np.linspace(0, len(run.source) - 1, min(6, len(run.source))).astype(int)
        figure = plots.plot_teacher_maps(run.source, some.tolist())
        text = f"{run.teacher!r}. Each image passes through it once; like colours are like features."
        sections.append(
            Section("What the teacher sees", text, [(figure, "Images, and each layer of the teacher as colours")])
        )
    if run.bank is not None:
        sections.append(prototype_section(run))
    return [*sections, _training(run), _predictions(run), _settings(run)]


def prototype_section(run: Run) -> Section:
    """The health of the prototypes, and the patches of those that most patches prefer."""
    assert run.bank is not None
    assert run.source is not None
    assignments = run.bank.assignments(run.source)
    health = bank_report(run.bank, assignments)
    dead, pairs = len(health.dead), len(health.duplicates)
    used = f"No patch prefers {dead} of them" if dead else "Each is preferred by some patch"
    alike = f"{pairs} pair{' is' if pairs == 1 else 's are'} alike" if pairs else "no two are alike"
    text = (
        f"{run.bank.num_prototypes} prototypes from {len(run.source)} images, without any label. {used}; {alike}. "
        "Shown are the commonest."
    )
    gallery = plots.plot_gallery(assignments, run.source.images, prototypes=_commonest(health.usage))
    return Section("Prototypes", text, [(gallery, "The patches that belong most to each prototype")])


def _numbers(run: Run) -> Section:
    assert run.student is not None
    assert run.history is not None
    assert run.scores is not None
    scores, seconds = run.scores, run.history.rows[-1]["seconds"]
    gained = (
        "" if scores.augmented is None else f"; with prototypes added to its features it reaches {scores.augmented:.1%}"
    )
    learned = "from labels alone" if run.teacher is None else f"from labels and from {run.config.teacher.name}"
    text = (
        f"{run.config.student.backbone}, {run.student.plain_parameters / 1e6:.2f} M parameters, learned "
        f"{run.config.task.kind} {learned}: {len(run.images.train)} labelled images, {run.history.step} steps, "
        f"{seconds:.0f} s. On "
        f"{len(run.images.test)} other images its {scores.metric} is {scores.plain:.1%}{gained}."
    )
    rows = student_rows(run.student, scores, run.history.seconds_per_step)
    return Section("Result", text, table=rows)


def _data(run: Run) -> Section:
    sets = {"labelled": run.images.train, "scored on": run.images.test, "for prototypes": run.images.source}
    if run.images.unlabelled is not None:
        sets["unlabelled"] = run.images.unlabelled
    rows = [{"images": name, "count": len(s), "side, px": s.image_px, "first": s.ids[0]} for name, s in sets.items()]
    return Section("Images and classes", f"Classes: {', '.join(run.task.classes)}.", table=rows)


def _training(run: Run) -> Section:
    assert run.history is not None
    figures = [(_figure(plots.plot_curves({"student": run.history})), "Terms of the loss, before their weights")]
    text = "The terms of the loss. metrics.jsonl has them all."
    return Section("Training", text, figures)


def _predictions(run: Run) -> Section:
    assert run.student is not None
    assert run.scores is not None
    figures = [(plot_predictions(run.scores, run.images.test, run.task), "Truth and predictions on test images")]
    task = run.task
    if isinstance(task, Classification) and not task.multi_label and task.num_classes <= 30:
        figures.append((_figure(plots.plot_confusion(run.scores, task.classes)), "True by predicted classes"))
    if run.student.feature_augmentation is not None and run.student.feature_augmentation.content == "prototypes":
        figures.append((plots.plot_attention(run.student, run.images.test, 0), "What the augmentation attends to"))
    rows = class_rows(run.scores, task.classes)[:40]
    measured = {"accuracy": "recall", "mAP": "AP"}.get(run.scores.metric, run.scores.metric.removeprefix("mean "))
    return Section("Predictions", f"Of each class: {measured} (a dash: no test image shows it).", figures, rows)


def _settings(run: Run) -> Section:
    rows = [
        {"section": section, "setting": f.name, "value": in_line(value), "usual": in_line(usual)}
        for section, knobs in run.config.sections().items()
        for f, value, usual in _changed(knobs)
    ]
    text = "What differs from the usual settings; config.toml has all of them."
    return Section("Settings", text if rows else "All settings are the usual ones; config.toml has them.", table=rows)


def _changed(knobs: Knobs) -> list[tuple[Any, Any, Any]]:
    usual = type(knobs)()
    fields = dataclasses.fields(knobs)  # type: ignore[arg-type]
    told = [(f, getattr(knobs, f.name), getattr(usual, f.name)) for f in fields]
    return [(f, value, other) for f, value, other in told if value != other]


def _commonest(usage: np.ndarray, count: int = 10) -> list[int]:
    order: list[int] = np.argsort(-usage)[:count].tolist()
    return order


def save_figures(sections: Sequence[Section], folder: Path) -> None:
    """Every figure as a PNG file, named after its section."""
    folder.mkdir(parents=True, exist_ok=True)
    for section in sections:
        for number, (figure, _) in enumerate(section.figures, 1):
            name = re.sub(r"\W+", "_", section.title.lower()).strip("_")
            save_png(figure, folder / f"{name}_{number}.png", dpi=130)


def _figure(ax: Axes) -> Figure:
    figure = ax.figure
    assert isinstance(figure, Figure)
    return figure
