"""How a Farmyard teacher is made: source species labels and self-supervision, never a target species or a part label.

Two stages in the one training loop. First species alone. Then, on larger pictures and a finer grid, species and *dense
clustering*: the same place of a picture, seen in two crops, belongs to the same prototype
(:mod:`prockd.training.clustering`). Where a crop lies tells nothing, so prototypes are parts and not places.
"""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prockd.datasets import PackedImages, pack
from prockd.datasets.transforms import resize, to_unit
from prockd.farmyard import Farmyard
from prockd.prototypes.clustered import read_clusters
from prockd.settings.method import ClusterConfig, DistillConfig
from prockd.students.student import Student
from prockd.tasks import Classification
from prockd.teachers.teacher import Teacher
from prockd.teachers.weights import read_metadata
from prockd.training.adaptation import learn_clusters, write_teacher
from prockd.training.clustering import PatchClusters
from prockd.training.loop import distill
from prockd.writing import refuse_existing

ARCHITECTURE = "resnet18"
TIMM_KWARGS: dict[str, Any] = {"channels": (48, 96, 192, 320)}
OUTPUT_STRIDE = 8
"""Strides become dilations, so that small parts have patches of their own; the weights stay."""
SPECIES = DistillConfig(steps=2600, batch_size=64, lr=2e-3, weight_decay=0.05, min_crop=0.35, label_smoothing=0.1)
CLUSTERS = ClusterConfig(
    steps=5500, batch_size=64, image_px=160, crop_px=128, min_crop=0.3, recoloured=0.6, num_prototypes=192, aligned=14,
    salience=1.5, neighbour_weight=0.5, species_weight=0.5, drift_weight=0.0, frozen_layers=0, frozen_norms=False,
    lr=1e-3, head_rate=1.0, weight_decay=0.05, warmup=0.03,
)  # fmt: skip
SPECIES_PX = 96


def train_teacher(
    out: str | Path,
    *,
    images: int = 12_000,
    species: DistillConfig = SPECIES,
    clusters: ClusterConfig = CLUSTERS,
    start: str | Path | None = None,
    note: str = "",
    run_dir: str | Path = "runs/teacher",
    overwrite: bool = False,
    cpu: bool = False,
) -> dict[str, Any]:
    """Train the teacher in two stages and write its weights in half precision; returns what the model card says.

    An interrupted run goes on from its checkpoints in ``run_dir``.

    Args:
        out: the file; W_c and prototypes lie in it too, see :func:`prockd.prototypes.clustered.read_clusters`.
        images: source images to draw.
        species: of the first stage.
        clusters: of the second.
        start: another teacher's file in place of the first stage, such as what this function wrote; where its W_c and
            prototypes fit, they go on too.
        note: what the card should say of that file.
        run_dir: checkpoints and metrics, a folder a stage.
        overwrite: replace ``out`` where it is there.
        cpu: stay on the CPU even where there is a GPU.

    Raises:
        FileExistsError: ``out`` is there already.
        WeightsError: ``start`` is no teacher's file.
        ValueError: a checkpoint in ``run_dir`` was made with other settings.
    """
    refuse_existing(out, overwrite)
    run_dir, classes = Path(run_dir), tuple(Farmyard("source", "train", 1).classes)
    begun = Path(start) if start else run_dir / "species.safetensors"
    earlier = read_metadata(begun) if start else learn_species(begun, images, species, run_dir / "species", cpu=cpu)
    train, val = (
        Farmyard("source", split, count, image_px=clusters.image_px)
        for split, count in (("train", images), ("val", min(images, 1800)))
    )
    packed = pack(train, clusters.image_px)
    teacher = Teacher("farmyard", weights=begun, image_px=clusters.image_px, output_stride=OUTPUT_STRIDE)
    learner, history = learn_clusters(
        teacher, packed, clusters, num_classes=len(classes), bank=read_clusters(begun, teacher),
        run_dir=run_dir / "clusters", resume=True, checkpoint_every=100, cpu=cpu,
    )  # fmt: skip
    stage = {
        "config": dataclasses.asdict(clusters), "images": images, "data": train.fingerprint,
        "seconds": history.rows[-1]["seconds"], "losses": history.rows[-1],
        "val_accuracy": species_accuracy(learner, pack(val, clusters.image_px)),
    }  # fmt: skip
    card: dict[str, Any] = earlier | {
        "timm_kwargs": dict(earlier["timm_kwargs"]) | {"output_stride": OUTPUT_STRIDE}, "image_px": clusters.image_px,
        "layers": list(teacher.layers), "images": images, "data": train.fingerprint, "classes": classes,
        "clustering": {"temperature": clusters.temperature}, "stages": earlier.get("stages", {}) | {"clusters": stage},
    }  # fmt: skip
    if start:
        sha256 = hashlib.sha256(begun.read_bytes()).hexdigest()
        card["start"] = {"file": begun.name, "sha256": sha256, "note": note, "stages": earlier.get("stages", {})}
        card["start"] |= {"start": earlier["start"]} if "start" in earlier else {}
    write_teacher(out, learner.backbone.half(), learner.bank, card, overwrite=overwrite)
    return card


def learn_species(out: Path, images: int, config: DistillConfig, run_dir: Path, *, cpu: bool) -> dict[str, Any]:
    """The first stage; writes a teacher's file and returns its card."""
    train, val = Farmyard("source", "train", images), Farmyard("source", "val", min(images, 1800))
    task = Classification(len(train.classes), tuple(train.classes))
    model = Student(ARCHITECTURE, task, image_px=SPECIES_PX, seed=config.seed, **TIMM_KWARGS)
    history = distill(
        model, pack(train, SPECIES_PX), config=config, val=pack(val, SPECIES_PX), run_dir=run_dir, resume=True,
        checkpoint_every=100, cpu=cpu,
    )  # fmt: skip
    assert history.scores is not None
    stage = {
        "config": dataclasses.asdict(config), "images": images, "data": train.fingerprint,
        "seconds": history.rows[-1]["seconds"], "val_accuracy": history.scores.plain,
    }  # fmt: skip
    card = {
        "architecture": ARCHITECTURE, "timm_kwargs": TIMM_KWARGS, "layers": list(model.layers), "image_px": SPECIES_PX,
        "mean": model.mean.flatten().tolist(), "std": model.std.flatten().tolist(), "stages": {"species": stage},
    }  # fmt: skip
    write_teacher(out, model.backbone, None, card, overwrite=True)  # made anew of its checkpoint
    return card


@torch.no_grad()
def species_accuracy(learner: PatchClusters, images: PackedImages) -> float | None:
    """Share of whole images whose class is right; None without a head for classes."""
    if learner.species is None:
        return None
    right = 0
    for start in range(0, len(images), 64):
        pixels = torch.from_numpy(np.array(images.pixels[start : start + 64])).to(learner.mean.device)
        last = learner.maps(learner.backbone, resize(to_unit(pixels), learner.image_px))[-1]
        scores = learner.species(last.flatten(2).transpose(1, 2))
        right += int((scores.argmax(1).cpu().numpy() == images.labels[start : start + 64]).sum())
    return right / len(images)
