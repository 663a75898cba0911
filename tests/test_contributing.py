"""CONTRIBUTING shows a fourth task and draws the rooms: both are as they are told."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TINY

from prockd.datasets.transforms import cut_boxes
from prockd.evaluation.scores import evaluate
from prockd.settings.method import DistillConfig, FeatureAugmentationConfig
from prockd.students.student import Student
from prockd.tasks import Score, Task
from prockd.tasks.classification import PooledLinear
from prockd.training.loop import distill

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def counting() -> Task:
    """The task that the page shows."""
    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert code is not None
    names = {"F": F, "PooledLinear": PooledLinear, "Score": Score, "cut_boxes": cut_boxes, "dataclass": dataclass,
             "np": np, "torch": torch, "__name__": "counting"}  # fmt: skip
    exec(code[1], names)
    task = names["Counting"]()
    assert isinstance(task, Task)
    return task


def test_the_fourth_task_of_the_page_lowers_its_loss_and_is_scored_saved_and_loaded(packed, features, bank, tmp_path):
    boxes = tuple(np.array([[2, 2, 30, 30]] * (1 + m % 3), np.float32) for m in range(len(packed)))
    images = replace(packed, boxes=boxes, box_labels=tuple(np.zeros(len(b), np.int64) for b in boxes))
    task = counting()
    student = Student(
        "resnet10t", task, bank, feature_augmentation=FeatureAugmentationConfig(), image_px=32, embed_dim=16, **TINY
    )
    config = DistillConfig(steps=40, batch_size=12, consistency_weight=0.1)
    seen = replace(features, images=images)
    history = distill(student, images, features=seen, config=config, val=images, cpu=True, progress=False, log_every=1)
    values = history.curve("task")[1]
    assert np.mean(values[-5:]) < 0.6 * np.mean(values[:2])
    assert history.scores is not None
    assert history.scores.augmented is not None
    student.save(tmp_path / "student.safetensors")
    again = Student.load(tmp_path / "student.safetensors", task=task)
    assert evaluate(again, images).plain == history.scores.plain
    with pytest.raises(ValueError, match="no boxes to count"):
        evaluate(again, packed)


def test_the_picture_of_the_rooms_names_every_module():
    rooms = PAGE.split("## Words")[0]
    modules = {p.name + "/" * p.is_dir() for p in (ROOT / "prockd").iterdir() if p.suffix == ".py" or p.is_dir()}
    private = {"__init__.py", "__main__.py", "_data_path.py", "__pycache__/", "_data/"}
    assert {name for name in modules - private if name not in rooms} == set()
