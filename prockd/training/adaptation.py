"""A teacher goes on learning, from images without labels: its patches are clustered across crops."""

import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Int64
from torch import nn

from prockd.datasets import PackedImages
from prockd.devices import on_device, random_state_kept, seed_global
from prockd.prototypes.bank import PrototypeBank
from prockd.prototypes.clustered import assign_by_cosine, cluster_tensors
from prockd.settings.method import ClusterConfig
from prockd.tasks import Classification
from prockd.teachers.teacher import Teacher
from prockd.training.clustering import PairSource, PatchClusters, start_clusters
from prockd.training.loop import Callback, History, Trainer
from prockd.training.processes import connect


def learn_clusters(
    teacher: Teacher,
    images: PackedImages,
    config: ClusterConfig,
    *,
    groups: Sequence[Hashable] | None = None,
    num_classes: int = 0,
    bank: PrototypeBank | None = None,
    run_dir: str | Path | None = None,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    log_every: int = 10,
    checkpoint_every: int = 200,
    cpu: bool = False,
    progress: bool = True,
) -> tuple[PatchClusters, History]:
    """Train a copy of a teacher and a bank together; both start from the teacher's patches as they are.

    Args:
        teacher: where it starts.
        images: the images, of which only the pixels are read, and with ``config.species_weight`` the labels.
        config: every knob.
        groups: (M,) names; assignments use all prototypes in every group.
        num_classes: of the labels.
        bank: W_c and prototypes to start from, where their sizes are those of the knobs.
        run_dir: where metrics and checkpoints are written.
        resume: go on from the last checkpoint in ``run_dir``; ends in the same weights as an uninterrupted run.
        callbacks: called at each logged step.
        log_every: steps between rows of the history.
        checkpoint_every: steps between checkpoints.
        cpu: stay on the CPU even where there is a GPU.
        progress: show a progress bar.

    Returns:
        The trained network with its bank, whose assignment is that of the clusters, and what happened.

    Raises:
        ValueError: labels outside the classes, another number of groups, images smaller than a crop, more prototypes
            than patches, or images of a step that processes cannot share evenly.
    """
    processes = connect(cpu=cpu)
    check_images(images, config, processes.count)
    if num_classes and config.species_weight:
        Classification(num_classes).check(images)
    source = PairSource(images, config, group_numbers(images, groups))
    with random_state_kept(processes.device):
        seed_global(config.seed, processes.device)
        own = PrototypeBank(config.num_prototypes, sum(teacher.widths), config.embed_dim)
        learner = PatchClusters(teacher, own, config, num_classes)
        with on_device(processes.device, learner):
            start(learner, source, bank)
            trainer = Trainer(learner, source, config, processes, None if run_dir is None else Path(run_dir))
            history = trainer.run(
                callbacks, resume=resume, log_every=log_every, checkpoint_every=checkpoint_every,
                progress=progress and processes.is_main,
            )  # fmt: skip
    assign_by_cosine(learner.bank, config.temperature)
    return learner, history


@torch.no_grad()
def start(learner: PatchClusters, source: PairSource, bank: PrototypeBank | None) -> None:
    """Give a learner W_c and prototypes: those of a bank where they fit, else new ones from the teacher's patches."""
    own = learner.bank
    keeps_fuse = bank is not None and bank.fuse.weight.shape == own.fuse.weight.shape
    if bank is not None and keeps_fuse:
        own.fuse.load_state_dict(bank.fuse.state_dict())
    if bank is not None and keeps_fuse and bank.prototypes.shape == own.prototypes.shape:
        own.prototypes.copy_(bank.prototypes)
    else:
        start_clusters(learner, source, fuse=not keeps_fuse)


def group_numbers(images: PackedImages, groups: Sequence[Hashable] | None) -> Int64[np.ndarray, " M"]:
    """The number of each image's group, 0 where nobody says which."""
    if groups is None:
        return np.zeros(len(images), np.int64)
    if len(groups) != len(images):
        raise ValueError(f"{len(groups)} groups for {len(images)} images: give each image the name of its group")
    return np.unique([str(group) for group in groups], return_inverse=True)[1].astype(np.int64)


def check_images(images: PackedImages, config: ClusterConfig, num_processes: int) -> None:
    """Refuse what cannot be clustered."""
    B, C = config.batch_size, num_processes
    problems = {
        f"image_px={config.image_px} is smaller than crop_px={config.crop_px}: crops would only be enlarged":
            images.image_px < config.crop_px,
        f"batch_size={B} for {C} processes: each needs as many images in every step": B % C > 0,
    }  # fmt: skip
    for message, is_so in problems.items():
        if is_so:
            raise ValueError(message)


def write_teacher(path: Path, backbone: nn.Module, bank: PrototypeBank | None, card: Mapping[str, Any]) -> None:
    """Write weights, W_c and prototypes, and the model card to one safetensors file, which a Teacher opens."""
    state = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in backbone.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(state | (cluster_tensors(bank) if bank else {}), path, {"prockd": json.dumps(card)})
