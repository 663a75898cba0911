"""Heads of one tensor. An export copies this file as it is, so it imports nothing but torch and torchvision."""

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation


class PooledLinear(nn.Module):
    """Mean over patches, LayerNorm, linear: (B, N, E) -> (B, C)."""

    def __init__(self, embed_dim: int, num_classes: int) -> None:
        super().__init__()
        self.arguments = {"embed_dim": embed_dim, "num_classes": num_classes}
        self.norm = nn.LayerNorm(embed_dim)
        self.linear = nn.Linear(embed_dim, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Class scores of each image."""
        logits: Tensor = self.linear(self.norm(features.mean(1)))
        return logits


class ConvHead(nn.Module):
    """Convolutions on the grid, then class scores, enlarged to the image: (B, N, E) -> (B, C, S, S).

    Without ``image_px`` the scores stay on the grid, (B, C, h, w).
    Group norms keep no running statistics, so plain and augmented features do not disturb each other.
    """

    def __init__(self, embed_dim: int, width: int, num_classes: int, grid: tuple[int, int], image_px: int = 0) -> None:
        super().__init__()
        self.arguments = {"embed_dim": embed_dim, "width": width, "num_classes": num_classes, "grid": grid,
                          "image_px": image_px}  # fmt: skip
        self.grid, self.image_px = grid, image_px
        conv = partial(Conv2dNormActivation, norm_layer=partial(nn.GroupNorm, 8), inplace=None)
        self.convs = nn.Sequential(conv(embed_dim, width), conv(width, width))
        self.classify = nn.Conv2d(width, num_classes, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Class scores of each pixel, or of each patch."""
        B, _, E = features.shape
        coarse: Tensor = self.classify(self.convs(features.transpose(1, 2).reshape(B, E, *self.grid)))
        if not self.image_px:
            return coarse
        return F.interpolate(coarse, (self.image_px, self.image_px), mode="bilinear", align_corners=False)
