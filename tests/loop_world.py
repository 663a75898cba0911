"""What tests of the training loop share, and what two processes do, which import this file and not conftest.py."""

import os
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from prockd._types import IGNORE
from prockd.datasets import PackedImages
from prockd.evaluation.scores import evaluate
from prockd.prototypes.bank import PrototypeBank
from prockd.settings.method import DistillConfig, FeatureAugmentationConfig
from prockd.students.student import Student
from prockd.tasks import Classification, Detection, Segmentation
from prockd.teachers.features import PatchFeatures
from prockd.training import loop
from prockd.training.batches import Source
from prockd.training.loop import distill

TINY = {"channels": (8, 16, 24, 32), "stem_width": 8}
"""As in conftest.py."""
TASK = Classification(2, ("upright", "level"))
PLAIN = DistillConfig(
    steps=6, batch_size=4, unlabelled_batch=0, lr=4e-3, assignment_weight=0.0, feature_weight=0.0, soft_weight=0.0,
    mixed_precision="no",
)  # fmt: skip
BASE = PLAIN.replace(assignment_weight=10.0, feature_weight=30.0)
EVERYTHING = BASE.replace(
    teacher_branch_weight=0.5, consistency_weight=1.0, hint_weight=1.0, soft_weight=1.0, unlabelled_batch=3
)
TRAINED_BANK = EVERYTHING.replace(train_bank=True, soft_weight=0.0)
ATTENTION = FeatureAugmentationConfig("attention")
"""The augmentation that learns in the loop, through the student's own head."""


def made(bank: PrototypeBank | None = None, augment: FeatureAugmentationConfig | None = None, **changes) -> Student:
    options = {"image_px": 32, "embed_dim": 16, **TINY, **changes}
    backbone, task = options.pop("backbone", "resnet10t"), options.pop("task", TASK)
    if backbone != "resnet10t":
        options = {key: value for key, value in options.items() if key not in TINY}
    return Student(backbone, task, bank, feature_augmentation=augment, **options)


def run(student: Student, dataset, config: DistillConfig, **options):
    return distill(student, dataset, config=config, **{"cpu": True, "progress": False, "log_every": 1, **options})


def copy_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.detach().clone() for key, value in module.state_dict().items()}


def homes(*modules: torch.nn.Module) -> set[str]:
    """Kinds of the devices where modules are."""
    return {t.device.type for m in modules for t in (*m.parameters(), *m.buffers())}


def curves(history) -> list[dict[str, float]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history.rows]


def gradients(images: PackedImages, task: str, batch_size: int, **options) -> tuple[dict[str, torch.Tensor], dict]:
    """The gradient of one step of a student without batch norms, and its losses."""
    tasks = {"segmentation": Segmentation(2, width=8), "detection": Detection(2, width=32, dropout=0.0)}
    bank = PrototypeBank(6, 48, 16, teacher=options["features"].teacher) if "features" in options else None
    torch.manual_seed(0)
    if bank is not None:
        torch.nn.init.normal_(bank.prototypes)
    augment = ATTENTION.replace(residual="relu", detach=False)
    student = made(bank, augment, backbone="test_vit", task=tasks.get(task, TASK), patch_size=4)
    config = PLAIN if bank is None else TRAINED_BANK
    config = config.replace(steps=1, batch_size=batch_size, clip_grad_norm=0.0)
    history = run(student, images, config, **options)
    found = {name: p.grad.clone() for name, p in student.named_parameters() if p.grad is not None}
    return found, curves(history)[0]


def annotated(images: PackedImages) -> PackedImages:
    """The images with masks of which one is ignored but for a corner, and with boxes: three here, none there."""
    masks = (np.asarray(images.pixels).mean(1) > 128).astype(np.uint8)
    masks[::3, 4:, 4:] = IGNORE
    counts = np.arange(len(images)) % 4
    boxes = tuple(np.array([[2, 2, 12, 14], [10, 8, 30, 28], [16, 4, 28, 12]], np.float32)[:n] for n in counts)
    return replace(images, masks=masks, boxes=boxes, box_labels=tuple(np.arange(n) % 2 for n in counts))


EVERY_TERM = "classification with all terms"
CASES = [("classification", 3), ("segmentation", 3), ("segmentation", 4), ("detection", 3), (EVERY_TERM, 3)]


def cases(features: PatchFeatures, unlabelled: PatchFeatures) -> list:
    images, transfer = annotated(features.images), {"features": features, "unlabelled": unlabelled}
    return [gradients(images, task, size, **(transfer if task == EVERY_TERM else {})) for task, size in CASES]


def one_of_two(
    rank: int, port: int, folder: str, features: PatchFeatures, unlabelled: PatchFeatures, state: dict
) -> None:
    """What each of two processes does."""
    warnings.simplefilter("ignore")  # of torch, about the start of process groups
    torch.set_num_threads(1)
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in names.items()}
    bank = PrototypeBank(6, 48, 16, teacher=features.teacher)
    bank.load_state_dict(state)
    student = made(bank, ATTENTION)
    seen, scored, inner = [], [], Source.batch

    def batch(self, rows, *rest):
        seen.append(rows.tolist())
        return inner(self, rows, *rest)

    Source.batch = batch
    loop.evaluate = lambda *words, **options: scored.append(rank) or evaluate(*words, **options)
    for precision in ("no", "bf16"):  # the second run finds the processes connected
        config = TRAINED_BANK.replace(mixed_precision=precision, batch_size=6, unlabelled_batch=4)
        history = run(
            student, features.images, config, features=features, unlabelled=unlabelled, val=features.images,
            run_dir=f"{folder}/{precision}",
        )  # fmt: skip
    with pytest.raises(ValueError, match="batch_size=1 for 2 processes: each needs an image"):
        run(student, features.images, BASE.replace(batch_size=1), features=features)
    called = []

    def stop(step: int, row: dict[str, float]) -> bool:
        called.append(step)
        return step == 1

    stopped = run(student, features.images, BASE, features=features, callbacks=(stop,))
    result = {
        "weights": copy_of(student), "rows": curves(history), "predictions": history.scores.predictions.tolist(),
        "seen": seen[: 2 * EVERYTHING.steps], "scored": scored, "called": called, "stopped": stopped.step,
        "gradients": cases(features, unlabelled),
    }  # fmt: skip
    torch.save(result, f"{folder}/rank{rank}.pt")
    torch.distributed.destroy_process_group()
