"""The student: a small timm backbone, an adapter into the prototypes' space, the augmentation and a task head."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from prockd.config import AugmentConfig
from prockd.datasets import PackedImages
from prockd.feature_augment import FeatureAugment
from prockd.features import to_unit
from prockd.prototypes import PrototypeBank
from prockd.tasks import Classification
from prockd.teacher import choose_layers, create_backbone, load_weights


@dataclass(frozen=True)
class StudentOutput:
    """What one forward pass gives.

    Attributes:
        features: f, (B, N, E) patches in the prototypes' space.
        logits: z, the plain prediction.
        augmented_logits: z+, the prediction from augmented features; None without augmentation.
        last: the backbone's last map, (B, F, h, w).
    """

    features: Tensor
    logits: Tensor
    augmented_logits: Tensor | None
    last: Tensor


class Student(nn.Module):
    """Small backbone + adapter + head, and beside it the prototype augmentation that the same head can read.

    The plain prediction z = head(f) never touches the prototypes and costs nothing extra; z+ = head(augment(f)).

    Args:
        backbone: any timm model name.
        task: label space and head.
        bank: prototypes; needed for augmentation and for the prototype terms of the loss.
        augment: how features are augmented; ``None`` or content ``"none"`` leaves the augmentation out.
        embed_dim: E, when there is no bank.
        layers: which of timm's intermediate features are joined; default as in :class:`prockd.Teacher`.
        image_px: side of the square input.
        weights: local state dict of the backbone to start from.
        seed: seed of the initial weights; backbone, adapter and head start the same with and without a bank.
        timm_kwargs: passed on to ``timm.create_model``.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: str,
        task: Classification,
        bank: PrototypeBank | None = None,
        *,
        augment: AugmentConfig | None = None,
        embed_dim: int = 96,
        layers: Sequence[int] | None = None,
        image_px: int = 96,
        weights: str | Path | None = None,
        seed: int = 0,
        **timm_kwargs: Any,
    ) -> None:
        super().__init__()
        self.name, self.task, self.image_px = backbone, task, image_px
        self.embed_dim = bank.embed_dim if bank else embed_dim
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.backbone: Any = create_backbone(backbone, image_px=image_px, **timm_kwargs)
            if weights is not None:
                load_weights(self.backbone, Path(weights))
            self.layers = choose_layers(self.backbone, layers)
            config = self.backbone.pretrained_cfg
            self.register_buffer("mean", torch.tensor(config["mean"]).view(1, 3, 1, 1), persistent=False)
            self.register_buffer("std", torch.tensor(config["std"]).view(1, 3, 1, 1), persistent=False)
            self.backbone.eval()  # a look at the sizes of the maps must not count as a step of its batch norms
            with torch.no_grad():
                maps = self._maps(torch.zeros(1, 3, image_px, image_px))
            self.backbone.train()
            self.grid = max(((m.shape[2], m.shape[3]) for m in maps), key=lambda g: g[0] * g[1])
            self.last_width, self.last_grid = maps[-1].shape[1], (maps[-1].shape[2], maps[-1].shape[3])
            self.adapter = nn.ModuleList(nn.Conv2d(m.shape[1], self.embed_dim, 1) for m in maps)
            self.head = task.head(self.embed_dim)
            prune(self.backbone, self.layers)
            torch.manual_seed(seed + 1)
            self.augment: FeatureAugment | None = None
            if bank is not None and augment is not None and augment.content != "none":
                self.augment = FeatureAugment(self.embed_dim, bank.num_prototypes, **asdict(augment))
        self.bank = bank
        self.to(memory_format=torch.channels_last)

    def _maps(self, images: Tensor) -> list[Tensor]:
        images = (images - self.mean) / self.std
        maps: list[Tensor] = self.backbone.forward_intermediates(
            images, indices=list(self.layers), output_fmt="NCHW", intermediates_only=True
        )
        return maps

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> StudentOutput:
        """Features, plain and augmented predictions of RGB images in 0..1."""
        maps = self._maps(images)
        projected = [conv(m) for conv, m in zip(self.adapter, maps, strict=True)]
        joined = reduce(
            torch.add,
            [p if p.shape[2:] == self.grid else F.interpolate(p, self.grid, mode="bilinear") for p in projected],
        )
        features = joined.flatten(2).transpose(1, 2)  # (B, N, E)
        augmented = self.augmented(features)
        return StudentOutput(
            features, self.head(features), None if augmented is None else self.head(augmented), maps[-1]
        )

    def augmented(self, features: Float[Tensor, "B N E"]) -> Float[Tensor, "B N E"] | None:
        """f+: features with what the enabled prototypes add; None without augmentation."""
        if self.augment is None or self.bank is None:
            return None
        descriptor = self.bank.describe(features) if self.augment.content == "descriptor" else None
        f_plus: Tensor = self.augment(features, self.bank.prototypes, enabled=self.bank.enabled, descriptor=descriptor)
        return f_plus

    @property
    def plain_parameters(self) -> int:
        """Parameters that the plain prediction needs."""
        modules: list[nn.Module] = [self.backbone, self.adapter, self.head]
        return sum(p.numel() for m in modules for p in m.parameters())

    @property
    def extra_parameters(self) -> int:
        """Parameters that the augmented prediction needs besides."""
        if self.augment is None or self.bank is None:
            return 0
        own = sum(p.numel() for p in self.augment.parameters() if p.requires_grad)
        used = {"prototypes": [self.bank.prototypes], "mlp": []}.get(self.augment.content)
        return own + sum(p.numel() for p in (self.bank.parameters() if used is None else used))

    def save(self, path: str | Path) -> Path:
        """Write all weights (safetensors) with a note of what they belong to."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        about = {"backbone": self.name, "layers": self.layers, "image_px": self.image_px, "classes": self.task.classes}
        safetensors.torch.save_file(
            {k: v.contiguous() for k, v in self.state_dict().items()}, path, {"prockd_student": json.dumps(about)}
        )
        return path

    def __repr__(self) -> str:
        extra = f" + {self.extra_parameters / 1e3:.0f} k for {self.augment.content}" if self.augment else ""
        return (
            f"Student({self.name!r}, {self.plain_parameters / 1e3:.0f} k parameters{extra}, "
            f"{self.grid[0]}x{self.grid[1]} patches of {self.embed_dim}, {self.task.num_classes} classes)"
        )


def prune(backbone: Any, layers: Sequence[int]) -> None:
    """Drop what lies behind the last layer that is read, when timm knows how."""
    if hasattr(backbone, "prune_intermediate_layers"):
        backbone.prune_intermediate_layers(list(layers), prune_norm=False, prune_head=True)


@dataclass(frozen=True, eq=False)
class Scores:
    """Accuracy of the plain (z) and the augmented (z+) student on some labelled images, 0..1.

    Attributes:
        plain: accuracy of z.
        augmented: accuracy of z+; None without augmentation.
        predictions: (M,) classes predicted by z.
        augmented_predictions: (M,) classes predicted by z+.
        labels: (M,) true classes.
    """

    plain: float
    augmented: float | None
    predictions: np.ndarray
    augmented_predictions: np.ndarray | None
    labels: np.ndarray

    def __repr__(self) -> str:
        plus = "" if self.augmented is None else f", augmented z+ {self.augmented:.1%}"
        return f"Scores(plain z {self.plain:.1%}{plus}, {len(self.labels)} images)"


@torch.no_grad()
def evaluate(student: Student, images: PackedImages, *, batch_size: int = 128) -> Scores:
    """Accuracy of both predictions on labelled images.

    Raises:
        ValueError: a label outside the task's classes.
    """
    labels = torch.from_numpy(np.array(images.labels))
    student.task.check(labels, images.ids)
    was_training, device = student.training, next(student.parameters()).device
    student.eval()
    plain, augmented = [], []
    for start in range(0, len(images), batch_size):
        batch = to_unit(torch.from_numpy(np.array(images.pixels[start : start + batch_size])).to(device))
        if images.image_px != student.image_px:
            size = (student.image_px, student.image_px)
            batch = F.interpolate(batch, size, mode="bilinear", antialias=True, align_corners=False)
        output = student(batch)
        plain.append(output.logits.argmax(-1).cpu())
        if output.augmented_logits is not None:
            augmented.append(output.augmented_logits.argmax(-1).cpu())
    student.train(was_training)
    z, z_plus = torch.cat(plain).numpy(), torch.cat(augmented).numpy() if augmented else None
    truth = labels.numpy()
    return Scores(
        float((z == truth).mean()), None if z_plus is None else float((z_plus == truth).mean()), z, z_plus, truth
    )
