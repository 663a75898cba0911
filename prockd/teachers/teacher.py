"""The frozen teacher: any timm backbone that turns images into maps of patch features, several layers at once."""

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from prockd._data_path import data_path
from prockd.teachers.presets import TEACHER_PRESETS
from prockd.teachers.weights import (
    WeightsError,
    at_size,
    check_architecture,
    check_edge,
    check_size,
    choose_layers,
    create_backbone,
    load_weights,
    read_metadata,
    read_weights,
)
from prockd.untrusted import TABLE, fields, list_of, number, reading, text, whole

FILE_FIELDS = {
    "architecture": text(200, least=1), "timm_kwargs": TABLE, "layers": list_of(whole(0, 1000), 64, least=1),
    "image_px": whole(8, 4096), "mean": list_of(number(-100, 100), 3, 3), "std": list_of(number(1e-6, 100), 3, 3),
}  # fmt: skip
"""What a teacher's file must say of it; what else it says is the history of its training, and decides nothing."""


class Teacher(nn.Module):
    """A frozen timm backbone, always in eval mode.

    >>> import torch, prockd as pk
    >>> teacher = pk.Teacher("resnet10t", image_px=64, layers=(2, 3))  # no weights are passed, so they are random
    >>> teacher
    Teacher('resnet10t', 4.9 M parameters, frozen, 64 px; layer 2: 8x8 patches of 128, layer 3: 4x4 patches of 256)
    >>> [tuple(m.shape) for m in teacher(torch.rand(5, 3, 64, 64))]
    [(5, 128, 8, 8), (5, 256, 4, 4)]

    Args:
        name: ``"farmyard"`` (the teacher that ships with prockd), a known-good recipe such as ``"dinov2_small"`` (see
            :mod:`prockd.teachers.presets`), any timm model name, or the path of a file that ``prockd train-teacher`` or
            ``prockd adapt-teacher`` wrote.
        weights: local state dict (safetensors preferred; ``.pth`` is read with ``weights_only=True``).
        pretrained: fetch timm's weights from the hub (needs a network or a filled hub cache).
        layers: indices of timm's intermediate features, in any order; the default is the last three stages of a
            pyramid, or three blocks spread over the second half of a transformer.
        image_px: side of the square input; the default is the model's own.
        mean: of the RGB channels of images in 0..1, where the weights want another normalisation than timm's.
        std: standard deviation of the same.
        timm_kwargs: passed on to ``timm.create_model``.

    Raises:
        WeightsError: unknown name, unreachable hub, unreadable file, or keys and shapes that do not match, or a
            side that the model cannot read or whose edge its patches would not see.
        ValueError: layers outside the model or named twice, or a mean or std that is not three numbers.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str = "farmyard",
        *,
        weights: str | Path | None = None,
        pretrained: bool = False,
        layers: Sequence[int] | None = None,
        image_px: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        **timm_kwargs: Any,
    ) -> None:
        super().__init__()
        self.name = name
        defaults: dict[str, Any] = {}
        if (preset := TEACHER_PRESETS.get(name)) is not None:
            defaults = {"architecture": preset.model, "layers": preset.layers, "image_px": preset.image_px}
            defaults |= {"mean": preset.normalisation[0], "std": preset.normalisation[1]}
            timm_kwargs = {**preset.timm_kwargs, **timm_kwargs}
        if name == "farmyard" or is_file(name):
            weights = Path(weights or (name if is_file(name) else data_path("farmyard", "teacher.safetensors")))
            defaults = described_teacher(weights)
            timm_kwargs = defaults["timm_kwargs"] | timm_kwargs
        architecture = defaults.get("architecture", name)
        image_px = image_px or defaults.get("image_px")
        self.backbone: Any = create_backbone(architecture, pretrained=pretrained, image_px=image_px, **timm_kwargs)
        self.architecture, self.timm_kwargs = architecture, timm_kwargs
        if weights is not None:
            load_weights(self.backbone, Path(weights))
        config = self.backbone.pretrained_cfg
        for key, given in (("mean", mean), ("std", std)):
            values = tuple(given or defaults.get(key, config[key]))
            if len(values) != 3 or (key == "std" and min(values) <= 0):
                raise ValueError(f"{key}={values}: give three numbers, one a colour channel, of images in 0..1")
            self.register_buffer(key, torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)
        self.image_px = int(image_px or config["input_size"][-1])
        self.layers = choose_layers(self.backbone, layers if layers is not None else defaults.get("layers"))
        self.requires_grad_(False)
        # most convolutions are faster with the channels last; the one of a transformer is not
        convolutional = sum(isinstance(part, nn.Conv2d) for part in self.backbone.modules()) > 4
        self.layout = torch.channels_last if convolutional else torch.contiguous_format
        self.to(memory_format=self.layout)
        self.eval()
        with at_size(architecture, self.image_px):
            check_edge(self, self.backbone, self.image_px)
            probe = self(torch.zeros(1, 3, self.image_px, self.image_px))
        self.widths = tuple(m.shape[1] for m in probe)
        self.grids = tuple((m.shape[2], m.shape[3]) for m in probe)
        self.grid = finest(self.grids)

    def train(self, mode: bool = True) -> "Teacher":
        """A teacher stays in eval mode, whatever is asked."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        """Patch features of every layer, class and register tokens left out.

        Args:
            images: RGB in 0..1; the model's own normalisation is applied here.

        Returns:
            One (B, D_l, h_l, w_l) map a layer, first layers first.
        """
        images = (images - self.mean).div_(self.std).contiguous(memory_format=self.layout)
        maps: list[Tensor] = self.backbone.forward_intermediates(
            images, indices=list(self.layers), output_fmt="NCHW", intermediates_only=True
        )
        return maps

    @property
    def fingerprint(self) -> str:
        """Digest of the weights and of all that decides what they compute; features of another teacher never match it.

        timm's options count too: the same weights with another padding or activation give other features.
        """
        recipe = json.dumps([self.architecture, self.timm_kwargs], sort_keys=True, default=repr)
        facts = (recipe, self.layers, self.image_px, self.mean.tolist(), self.std.tolist())
        digest = hashlib.sha256(repr(facts).encode())
        for key, value in self.backbone.state_dict().items():
            digest.update(key.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:20]

    def __repr__(self) -> str:
        millions = sum(p.numel() for p in self.parameters()) / 1e6
        maps = ", ".join(
            f"layer {layer}: {h}x{w} patches of {width}"
            for layer, (h, w), width in zip(self.layers, self.grids, self.widths, strict=True)
        )
        return f"Teacher({self.name!r}, {millions:.1f} M parameters, frozen, {self.image_px} px; {maps})"


def described_teacher(path: Path) -> dict[str, Any]:
    """What a teacher's file says of it, beside the history of its training.

    Raises:
        WeightsError: the file holds no teacher, or says of it what no teacher is.
    """
    metadata = read_metadata(path)
    if "architecture" not in metadata:
        raise WeightsError(f"{path} holds no teacher: open what train-teacher or adapt-teacher wrote")
    with reading(path, "a teacher", WeightsError, "make it again with train-teacher or adapt-teacher"):
        told = fields({name: value for name, value in metadata.items() if name in FILE_FIELDS}, FILE_FIELDS)
        check_architecture(told["architecture"], told["timm_kwargs"])
        make = partial(create_backbone, told["architecture"], image_px=told["image_px"], **told["timm_kwargs"])
        check_size(make, read_weights(path), times=2)
    return told


def is_file(name: str) -> bool:
    """Whether a teacher's name is the path of a file of weights, which says the rest."""
    return name.endswith(".safetensors")


def finest(grids: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Rows and columns of the grid with the most patches."""
    return max(grids, key=lambda grid: grid[0] * grid[1])
