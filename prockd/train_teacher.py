"""How the Farmyard teacher was made: source species labels only, never a target species, never a part label."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import safetensors.torch

from prockd.config import DistillConfig
from prockd.datasets import pack
from prockd.distill import distill
from prockd.farmyard import Farmyard
from prockd.student import Student
from prockd.tasks import Classification

ARCHITECTURE = "resnet18"
RECIPE = DistillConfig(steps=2600, batch_size=64, lr=2e-3, weight_decay=0.05, min_crop=0.35, label_smoothing=0.1)
TIMM_KWARGS: dict[str, Any] = {"channels": (48, 96, 192, 320)}


DENSE: dict[str, Any] = {"output_stride": 8}
"""After training, strides of the last two stages become dilations: the same weights, read at every eighth pixel."""


def train_teacher(
    out: str | Path,
    *,
    images: int = 24_000,
    config: DistillConfig | None = None,
    run_dir: str | Path = "runs/teacher",
    resume: bool = True,
    cpu: bool = False,
) -> dict[str, Any]:
    """Train the teacher and write its weights in half precision; returns what the model card says.

    Args:
        out: the safetensors file to write.
        images: how many source images are rendered and packed.
        config: steps, batch size, learning rate, seed and precision.
        run_dir: checkpoints and metrics; an interrupted run goes on from there.
        resume: go on from a checkpoint in ``run_dir`` when there is one.
        cpu: stay on the CPU even where there is a GPU.
    """
    config = config or RECIPE
    train = Farmyard("source", "train", images)
    val = Farmyard("source", "val", min(images, 1800))
    classes = tuple(train.classes)
    model = Student(ARCHITECTURE, Classification(len(classes), classes), seed=config.seed, **TIMM_KWARGS)
    began = time.perf_counter()
    history = distill(
        model,
        pack(train, 96),
        config=config,
        val=pack(val, 96),
        run_dir=run_dir,
        resume=resume,
        checkpoint_every=100,
        cpu=cpu,
    )
    assert history.scores is not None
    card = {
        "architecture": ARCHITECTURE,
        "timm_kwargs": TIMM_KWARGS | DENSE,
        "layers": list(model.layers),
        "image_px": 96,
        "mean": model.mean.flatten().tolist(),
        "std": model.std.flatten().tolist(),
        "classes": classes,
        "images": images,
        "config": dataclasses.asdict(config),
        "seconds": history.rows[-1]["seconds"],
        "session_seconds": time.perf_counter() - began,
        "val_accuracy": history.scores.plain,
        "data": train.fingerprint,
    }
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    state = {
        k: (v.half() if v.is_floating_point() else v).contiguous().cpu() for k, v in model.backbone.state_dict().items()
    }
    safetensors.torch.save_file(state, out, {"prockd": json.dumps(card)})
    return card
