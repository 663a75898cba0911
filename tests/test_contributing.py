"""CONTRIBUTING adds a task, a loss and an image format, and draws the rooms: all as they stand there."""

import inspect
import json
import re
import sys
import types
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY, draw_stripes
from PIL import Image
from typer.testing import CliRunner

from prockd import tasks
from prockd.cli import app
from prockd.datasets import formats, open_data
from prockd.evaluation.effects import prototype_effects
from prockd.evaluation.scores import evaluate
from prockd.plots import plot_predictions
from prockd.settings.method import DistillConfig, FeatureAugmentationConfig, knob
from prockd.students import ExportError, Student, export_student
from prockd.tasks import Task
from prockd.training import losses
from prockd.training.loop import distill

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def code_for(file: str) -> str:
    """The block of the page that belongs in a file."""
    blocks = dict(re.findall(r"```python\n# (\S+?)(?:, in \w+)?\n(.*?)```", PAGE, re.DOTALL))
    return blocks[file]


def module_of(file: str, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A file of the page as the module that it would be."""
    module = types.ModuleType(file.removesuffix(".py").replace("/", "."))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(code_for(file), module.__dict__)
    return module


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> type[Task]:
    """The task of the page, entered in the table as there."""
    kind: type[Task] = module_of("prockd/tasks/counting.py", monkeypatch).Counting
    monkeypatch.setitem(tasks.TASKS, "counting", None)  # put back afterwards
    exec(code_for("prockd/tasks/__init__.py"), {"TASKS": tasks.TASKS, "Counting": kind})
    return kind


@pytest.fixture
def objects(packed):
    """One to three boxes on each striped image, of the class of its stripes."""
    boxes = tuple(np.array([[2, 2, 30, 30]] * (1 + m % 3), np.float32) for m in range(len(packed)))
    labels = tuple(np.full(len(b), packed.labels[m], np.int64) for m, b in enumerate(boxes))
    return replace(packed, boxes=boxes, box_labels=labels)


def test_the_task_of_the_page_lowers_its_loss_and_is_scored_saved_loaded_and_drawn(
    counting, packed, objects, features, bank, tmp_path
):
    task = counting.for_images(objects)
    student = Student(
        "resnet10t", task, bank, feature_augmentation=FeatureAugmentationConfig(), image_px=32, embed_dim=16, **TINY
    )
    config = DistillConfig(steps=40, batch_size=12, consistency_weight=0.1)
    seen = replace(features, images=objects)
    history = distill(
        student, objects, features=seen, config=config, val=objects, cpu=True, progress=False, log_every=1
    )
    values = history.curve("task")[1]
    assert np.mean(values[-5:]) < 0.6 * np.mean(values[:2])
    scores = history.scores
    assert scores is not None
    assert scores.augmented is not None
    assert (scores.metric, len(scores.per_class)) == ("share of right counts", 2)
    loaded = Student.load(student.save(tmp_path / "student.safetensors"))
    assert loaded.task == task
    assert evaluate(loaded, objects).plain == scores.plain
    lines = [text.get_text() for text in plot_predictions(scores, objects, task, count=1).axes[0].texts]
    assert "1 0" in lines  # the truth of the first image
    effects = prototype_effects(student, bank, objects, groups={"two": [0, 1]}, progress=False)
    assert effects.metric == task.metric
    with pytest.raises(ValueError, match="has no boxes: Counting learns"):
        evaluate(loaded, packed)
    with pytest.raises(ExportError, match="Counting is a task of your own"):
        export_student(student, tmp_path / "export")


@pytest.mark.filterwarnings("ignore:the teacher resnet10t knows nothing")
def test_the_task_of_the_page_is_trained_from_the_command_line(counting, tmp_path):
    stripes, labels = draw_stripes(12)
    names, images, annotations = ("upright", "level"), [], []
    (tmp_path / "data" / "images").mkdir(parents=True)
    for m, (pixels, label) in enumerate(zip(stripes, labels.tolist(), strict=True)):
        Image.fromarray(pixels).save(tmp_path / "data" / "images" / f"{m}.png")
        images.append({"id": m, "file_name": f"{m}.png", "width": 32, "height": 32})
        annotations += [
            {"id": 10 * m + n, "image_id": m, "category_id": label, "bbox": [2, 2, 26, 26], "iscrowd": 0, "area": 676}
            for n in range(1 + m % 3)
        ]
    categories = [{"id": c, "name": name} for c, name in enumerate(names)]
    (tmp_path / "data" / "annotations").mkdir()
    known = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "data" / "annotations" / "instances.json").write_text(json.dumps(known))
    changes = ["student.image_px=32", "student.options.channels=[8, 16, 24, 32]", "distill.steps=4",
               "distill.batch_size=4", "teacher.name=resnet10t", "teacher.random=true",
               "teacher.image_px=32", "teacher.layers=[1, 2]",
               "discover.num_prototypes=4", "discover.embed_dim=8", "discover.steps=2"]  # fmt: skip
    words = [
        "distill",
        "--task",
        "counting",
        "--data",
        str(tmp_path / "data"),
        "--run-dir",
        str(tmp_path / "run"),
        "--cpu",
        "-q",
    ]
    done = CliRunner().invoke(app, [*words, *(word for change in changes for word in ("--set", change))])
    assert done.exit_code == 0, done.output
    assert "share of right counts" in done.output
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["task"] == "counting"
    assert [row["class"] for row in results["classes"]] == list(names)


def test_the_loss_of_the_page_is_a_term_with_a_weight_and_a_curve(packed, features, bank, monkeypatch):
    monkeypatch.setattr(losses, "relation", None, raising=False)
    exec(code_for("prockd/training/losses.py"), losses.__dict__)
    space: dict[str, Any] = {"DistillConfig": DistillConfig, "dataclass": dataclass, "knob": knob}
    knobs = code_for("prockd/settings/method.py")
    exec(f"@dataclass(frozen=True)\nclass Config(DistillConfig):\n{knobs}", space)
    student = Student("resnet10t", tasks.Classification(2), bank, image_px=32, **TINY)
    shared = {"steps": 30, "batch_size": 12, "assignment_weight": 0.0, "feature_weight": 0.0}
    config = space["Config"](relation_weight=10.0, **shared)
    history = distill(student, packed, features=features, config=config, cpu=True, progress=False, log_every=1)
    values = history.curve("relation")[1]
    assert np.mean(values[-3:]) < 0.7 * values[0]
    f = torch.randn(2, 5, 4)
    assert losses.relation(f, 3 * f, None, 0.1).item() == pytest.approx(0, abs=1e-6)


def test_a_loss_of_the_page_costs_nothing_by_default():
    match = re.search(r"knob\(([\d.]+),", code_for("prockd/settings/method.py"))
    assert match is not None
    assert float(match[1]) == 0


def test_the_image_format_of_the_page_is_opened_by_its_looks(tmp_path, monkeypatch):
    module = module_of("prockd/datasets/named.py", monkeypatch)
    line = eval(code_for("prockd/datasets/formats.py"), {**vars(module), "Format": formats.Format})
    monkeypatch.setattr(formats, "FORMATS", (line, *formats.FORMATS))
    for m, pixels in enumerate(draw_stripes(8)[0]):
        place = tmp_path / ("train" if m < 4 else "test") / f"{('cat', 'dog')[m % 2]}_{m}.png"
        place.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(place)
    dataset = open_data(tmp_path, split="test")
    assert (dataset.classes, len(dataset), dataset[1].label) == (("cat", "dog"), 4, 0)
    checked = CliRunner().invoke(app, ["check-data", str(tmp_path)])
    assert checked.exit_code == 0, checked.output
    assert "named pictures" in checked.output
    assert "named pictures" in formats.format_list()


def test_the_files_that_the_page_names_are_there():
    page = PAGE.split("## Adding things")[1]
    named = set(re.findall(r"`((?:prockd|tests|data|notebooks)/[\w/.]+)`", page))
    examples = {"prockd/tasks/counting.py", "prockd/datasets/named.py"}
    assert {name for name in named - examples if "NAME" not in name and not (ROOT / name).exists()} == set()
    assert len(named) > 8
    members = {name for name, _ in inspect.getmembers(Task)}
    assert {"counts", "score_counts", "marks", "formats", "data", "metric"} <= members


def test_the_picture_of_the_rooms_names_every_module():
    rooms = PAGE.split("## Words")[0]
    modules = {p.name + "/" * p.is_dir() for p in (ROOT / "prockd").iterdir() if p.suffix == ".py" or p.is_dir()}
    private = {"__init__.py", "__main__.py", "_data_path.py", "__pycache__/", "_data/"}
    assert {name for name in modules - private if name not in rooms} == set()
