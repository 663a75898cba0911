"""The student with timm and torch alone: its backbone, adapter and head, from the files beside this one.

backbone.safetensors has timm's own names; head.safetensors has the adapter (a 1x1 convolution a layer) and the head.
"""

import importlib
from functools import reduce
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from picture import FACTS
from safetensors.torch import load_file
from torch import nn


class PlainStudent(nn.Module):
    """Images (B, 3, S, S) in 0..1 -> class scores (B, C) or (B, C, S, S) of pixels, or what ``head.detect`` reads."""

    def __init__(self):
        super().__init__()
        self.backbone = make_backbone()
        if hasattr(self.backbone, "prune_intermediate_layers"):
            self.backbone.prune_intermediate_layers(FACTS["layers"], prune_norm=False, prune_head=True)
        self.adapter = nn.ModuleList(nn.Conv2d(width, FACTS["embed_dim"], 1) for width in FACTS["widths"])
        head = FACTS["head"]
        self.head = getattr(importlib.import_module(head["module"]), head["class"])(**head["arguments"])
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(FACTS[name]).view(1, 3, 1, 1), persistent=False)
        weights, heads = (load_file(Path(__file__).with_name(f"{name}.safetensors")) for name in ("backbone", "head"))
        self.load_state_dict({f"backbone.{name}": value for name, value in weights.items()} | heads)
        self.eval()

    def features(self, images):
        maps = self.backbone.forward_intermediates(
            (images - self.mean) / self.std, indices=FACTS["layers"], output_fmt="NCHW", intermediates_only=True
        )
        grid, projected = tuple(FACTS["grid"]), [conv(m) for conv, m in zip(self.adapter, maps, strict=True)]
        resized = [p if p.shape[2:] == grid else F.interpolate(p, grid, mode="bilinear") for p in projected]
        return reduce(torch.add, resized).flatten(2).transpose(1, 2)

    def forward(self, images):
        return self.head(self.features(images))


def make_backbone():
    """A transformer must know the size of its input, other networks refuse the option."""
    options = {"num_classes": 0, **FACTS["timm_kwargs"]}
    try:
        return timm.create_model(FACTS["backbone"], img_size=FACTS["image_px"], **options)
    except TypeError:
        return timm.create_model(FACTS["backbone"], **options)
