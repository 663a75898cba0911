"""A teacher goes on learning, from images without labels: its patches are clustered across crops."""

import json
from collections.abc import Hashable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Int64
from torch import nn

from prockd._types import ImageDataset
from prockd.datasets import PackedImages, pack
from prockd.devices import on_device, random_state_kept, seed_global
from prockd.prototypes.bank import PrototypeBank
from prockd.prototypes.clustered import assign_by_cosine, cluster_tensors
from prockd.settings.method import ClusterConfig
from prockd.tasks import Classification
from prockd.teachers.teacher import Teacher
from prockd.training.clustering import PairSource, PatchClusters, start_clusters
from prockd.training.loop import Callback, History, Trainer
from prockd.training.processes import connect
from prockd.writing import write_file


@dataclass(frozen=True, eq=False)
class Adapted:
    """A teacher that knows one's own images better, and the prototypes that it learned with.

    Attributes:
        teacher: frozen again; its features are others than before, and so is its fingerprint.
        bank: prototypes of this teacher, whose assignment is softmax(cosine / temperature).
        history: of the training.
        card: what :meth:`save` writes beside the weights: how the teacher is built, and how it was adapted.
    """

    teacher: Teacher
    bank: PrototypeBank
    history: History
    card: Mapping[str, Any]

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write teacher, prototypes and card to one safetensors file: ``pk.Teacher(path)`` opens the teacher again.

        So does ``pk.Teacher(name, weights=path)``. :func:`prockd.prototypes.clustered.read_clusters` reads the bank.
        FileExistsError where a file is, unless ``overwrite`` says that it may go.
        """
        return write_teacher(path, self.teacher.backbone, self.bank, self.card, overwrite=overwrite)

    def __repr__(self) -> str:
        adapted = self.card["adapted"]
        groups = f" of {adapted['groups']} groups" if adapted["groups"] > 1 else ""
        cost = f"{self.history.step} steps in {adapted['seconds']:.0f} s"
        return f"Adapted({self.teacher.name!r} to {adapted['images']} images{groups}; {self.bank!r}; {cost})"


def adapt(
    teacher: Teacher,
    images: ImageDataset | PackedImages,
    *,
    groups: Sequence[Hashable] | None = None,
    config: ClusterConfig | None = None,
    run_dir: str | Path | None = None,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    cpu: bool = False,
    progress: bool = True,
) -> Adapted:
    """Let a teacher go on learning from one's own images, without any label.

    The same place of a picture, seen in two crops, comes to belong to the same prototype, while its features are held
    near what they were (``config.drift_weight``). With groups, such as videos or farms, all prototypes are used in each
    of them, so that a prototype is something that groups share.

    Args:
        teacher: any; it stays as it is.
        images: the images; labels, masks and boxes are not read.
        groups: (M,) names of the group of each image; None for ``images.groups`` where the data set knows them, else
            for one group. A group counts as much as another, however many images it has.
        config: every knob.
        run_dir: where metrics and checkpoints are written.
        resume: go on from the last checkpoint in ``run_dir``.
        callbacks: called at each logged step.
        cpu: stay on the CPU even where there is a GPU.
        progress: show progress bars.

    Raises:
        ValueError: another number of groups than images, images smaller than a crop, more prototypes than patches, or
            crops of a size that the teacher cannot see.
        DatasetError: there are no images, or one cannot be read.
        NonFiniteLossError: the loss is not finite.

    >>> import prockd as pk
    >>> images = pk.Farmyard("target", "unlabelled", 8)
    >>> config = pk.ClusterConfig(steps=2, batch_size=4, image_px=96, crop_px=64, num_prototypes=6)
    >>> adapted = pk.adapt(pk.Teacher("farmyard"), images, config=config, progress=False)
    >>> adapted.teacher.fingerprint == adapted.bank.teacher != pk.Teacher("farmyard").fingerprint
    True
    """
    config = config or ClusterConfig()
    packed = images if isinstance(images, PackedImages) else pack(images, config.image_px, progress=progress)
    groups = packed.groups if groups is None else groups
    learner, history = learn_clusters(
        teacher, packed, config.replace(species_weight=0.0), groups=groups, run_dir=run_dir, resume=resume,
        callbacks=callbacks, cpu=cpu, progress=progress,
    )  # fmt: skip
    adapted = deepcopy(teacher)
    adapted.backbone.load_state_dict(learner.backbone.state_dict())
    learner.bank.teacher = adapted.fingerprint
    card = {
        "architecture": teacher.architecture, "timm_kwargs": dict(teacher.timm_kwargs), "layers": teacher.layers,
        "image_px": teacher.image_px, "mean": teacher.mean.flatten().tolist(), "std": teacher.std.flatten().tolist(),
        "clustering": {"temperature": config.temperature},
        "adapted": {
            "teacher": teacher.name, "fingerprint": teacher.fingerprint, "images": len(packed),
            "data": packed.fingerprint, "groups": int(group_numbers(packed, groups).max()) + 1,
            "config": asdict(config), "seconds": history.rows[-1]["seconds"], "losses": history.rows[-1],
        },
    }  # fmt: skip
    return Adapted(adapted, learner.bank, history, card)


def learn_clusters(
    teacher: Teacher,
    images: PackedImages,
    config: ClusterConfig,
    *,
    groups: Sequence[Hashable] | None = None,
    num_classes: int = 0,
    bank: PrototypeBank | None = None,
    run_dir: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    cpu: bool = False,
    progress: bool = True,
    **how: Any,
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
        callbacks: called at each logged step.
        cpu: stay on the CPU even where there is a GPU.
        progress: show a progress bar.
        how: ``resume``, ``log_every`` and ``checkpoint_every`` of :func:`prockd.distill`.

    Returns:
        The trained network with its bank, whose assignment is that of the clusters, and what happened.

    Raises:
        ValueError: labels outside the classes, another number of groups, images smaller than a crop, more prototypes
            than patches, or images of a step that processes cannot share evenly.
    """
    processes = connect(cpu=cpu)
    if images.image_px < config.crop_px:
        raise ValueError(
            f"the images are {images.image_px} px, and crop_px={config.crop_px}: take larger images or smaller crops"
        )
    if config.batch_size % processes.count:
        raise ValueError(
            f"batch_size={config.batch_size} for {processes.count} processes: each needs as many images in a step"
        )
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
            how = {"resume": False, "log_every": 10, "checkpoint_every": 200} | how
            history = trainer.run(callbacks, progress=progress and processes.is_main, **how)
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


def write_teacher(
    path: str | Path, backbone: nn.Module, bank: PrototypeBank | None, card: Mapping[str, Any], *, overwrite: bool
) -> Path:
    """Write weights, W_c and prototypes, and the model card to one safetensors file, which a Teacher opens."""
    state = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in backbone.state_dict().items()}
    state |= cluster_tensors(bank) if bank else {}
    return write_file(path, safetensors.torch.save(state, {"prockd": json.dumps(card)}), overwrite=overwrite)
