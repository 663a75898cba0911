"""A teacher learns clusters of patches: the same place of a picture, seen in two crops, belongs to one prototype.

Dense clustering with swapped assignments (SwAV, arXiv 2006.09882, of patches as in Leopart, arXiv 2204.13101): where
two random crops of a picture overlap, the patches of each predict the balanced assignments of the other. Patches count
by their saliency, so that prototypes are spent on what pictures show. A patch may also predict the assignment of the
nearest patch of another picture (NNCLR, arXiv 2104.14548): the same part of another animal is the same prototype.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from prockd.datasets import PackedImages
from prockd.datasets.transforms import Crops, cut_maps, random_crops, whole_images
from prockd.devices import full_precision
from prockd.prototypes.bank import PrototypeBank
from prockd.prototypes.discovery import balanced, start_from_pca
from prockd.prototypes.embedding import embedded_maps
from prockd.prototypes.kmeans import k_means
from prockd.prototypes.saliency import activity
from prockd.settings.method import ClusterConfig
from prockd.tasks.heads import PooledLinear
from prockd.teachers.features import fuse_layers, log_lengths
from prockd.teachers.teacher import Teacher, finest
from prockd.training.batches import Batch, Reader, Source, permutation
from prockd.training.distiller import recolour_some

MIN_OVERLAP = 0.15
"""Crops whose common part is narrower than this, in sides of the picture, are not compared."""
ZOOMED = 0.1, 0.4
"""Area of an enlarged second crop, as a part of the first."""
LEAST_WEIGHT = 0.15
"""Of a patch on the border of its picture; one in the middle half has 1."""
LEAST_SALIENCE = 0.02
"""To the power of the knob: background has prototypes too, and they are told apart."""
SEEKERS = 1024
"""Patches of a step that look for their nearest patch in other pictures."""
START_PATCHES = 64
"""Of an image and for a prototype, at least, where there are so many: W_c and prototypes start from them."""


@dataclass(frozen=True)
class Pairs:
    """Where the crops of a step lie: the first of each image, then the second of each."""

    regions: Float[Tensor, "B 4"]  # x0, y0, x1, y1 in 0..1 of the image as it is, whether the crop is mirrored or not
    mirrored: Bool[Tensor, " B"]
    pictured: Float[Tensor, "B 4"]  # the part of each image that shows its picture; beside it are bars
    groups: Int64[Tensor, " B"]
    labels: Int64[Tensor, " B"]

    @property
    def overlap(self) -> Float[Tensor, "b 4"]:
        """What both crops of an image show; not a box where they do not meet."""
        first, second = self.regions.chunk(2)
        return torch.cat([torch.maximum(first[:, :2], second[:, :2]), torch.minimum(first[:, 2:], second[:, 2:])], 1)


class PairSource(Source):
    """Two random crops of each image, the second mirrored or enlarged at random; no mask, no part, no box is read.

    Args:
        images: what is cropped.
        config: how.
        groups: (M,) a number of each image's group; assignments are balanced in each.
    """

    def __init__(self, images: PackedImages, config: ClusterConfig, groups: Int64[np.ndarray, " M"]) -> None:
        super().__init__(images, min_crop=config.min_crop, flip=config.flip)
        self.zoom, self.groups = config.zoom, torch.from_numpy(groups)
        self.members = [np.flatnonzero(groups == group) for group in np.unique(groups)]

    def rows(self, count: int, seed: int, step: int) -> Int64[np.ndarray, " B"]:
        """As many images of each group, which take turns, however many it has."""
        turns = (divmod(place, len(self.members)) for place in range(step * count, (step + 1) * count))
        drawn = []
        for turn, group in turns:
            epoch, place = divmod(turn, len(members := self.members[group]))
            drawn.append(members[permutation(len(members), seed, epoch)[place]])
        return np.array(drawn)

    def crops(self, rows: np.ndarray, generator: torch.Generator) -> Crops:
        """The first crops, then the second ones."""
        count = len(rows)
        first = random_crops(count, generator, min_area=self.min_crop, flip=False)
        second = random_crops(count, generator, min_area=self.min_crop, flip=self.flip)
        side = torch.empty(count, 1).uniform_(*ZOOMED, generator=generator).sqrt()
        low, size = first.regions[:, :2], first.regions[:, 2:] - first.regions[:, :2]
        low = low + torch.rand(count, 2, generator=generator) * (1 - side) * size
        inner = flip_some(torch.cat([low, low + side * size], 1), second.mirrored)
        enlarged = torch.rand(count, 1, generator=generator) < self.zoom
        regions = torch.cat([first.regions, torch.where(enlarged, inner, second.regions)])
        return Crops(regions, torch.cat([first.mirrored, second.mirrored]))

    def batch(
        self, rows: np.ndarray, crops: Crops, student: Reader, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> Batch:
        """The crops; all of them have targets, where they lie."""
        return replace(super().batch(rows, crops, student, device, dtype), labelled=len(rows))

    def targets(self, rows: np.ndarray, crops: Crops, student: Reader, device: torch.device) -> Pairs:
        """Where the crops lie, and what their images belong to."""
        regions, pictured = flip_some(crops.regions, crops.mirrored), torch.from_numpy(self.images.pictured[rows])
        labels = torch.from_numpy(np.asarray(self.images.labels)[rows])
        columns = (regions, crops.mirrored, pictured.to(regions), self.groups[rows], labels)
        return Pairs(*(column.to(device) for column in columns))


class PatchClusters(nn.Module):
    """A copy of a teacher's backbone that learns, with W_c and prototypes, to cluster its patches.

    Its patches are those of the bank: layers of unit length, joined on the finest grid, u = W_c t. Prototypes are
    compared with them by cosine over a temperature.

    Args:
        teacher: where it starts; the teacher stays as it is.
        bank: its ``fuse`` and ``prototypes`` learn.
        config: the knobs.
        num_classes: of the labels beside the clusters; 0 for none.

    Raises:
        ValueError: nothing is left to learn, or the teacher cannot see crops of this size.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, teacher: Teacher, bank: PrototypeBank, config: ClusterConfig, num_classes: int = 0) -> None:
        super().__init__()
        self.config, self.layers, self.image_px = config, teacher.layers, config.crop_px
        self.weights = {
            "clusters": 1.0, "neighbours": config.neighbour_weight, "species": config.species_weight,
            "drift": config.drift_weight,
        }  # fmt: skip
        self.register_buffer("mean", teacher.mean.clone(), persistent=False)
        self.register_buffer("std", teacher.std.clone(), persistent=False)
        self.backbone, self.bank = deepcopy(teacher.backbone), bank.requires_grad_(False)
        self.before = deepcopy(teacher.backbone) if config.drift_weight else None
        self.quick_parameters, self.quick_rate = [*bank.fuse.parameters(), bank.prototypes], config.head_rate
        for parameter in (*self.learned_parameters(), *self.quick_parameters):
            parameter.requires_grad_(True)
        try:
            with torch.no_grad():
                probe = self.maps(self.backbone, torch.zeros(1, 3, self.image_px, self.image_px).to(self.mean.device))
        except (AssertionError, RuntimeError) as error:
            raise ValueError(
                f"{teacher.name} cannot see crops of {self.image_px} px ({error}): set crop_px={teacher.image_px}"
            ) from error
        grids = [(m.shape[2], m.shape[3]) for m in probe]
        self.grid, self.last_grid = finest(grids), grids[-1]
        self.species = PooledLinear(probe[-1].shape[1], num_classes) if num_classes and config.species_weight else None

    @property
    def student(self) -> "PatchClusters":
        """What the loop reads the sizes of images and grids from."""
        return self

    def learned_parameters(self) -> list[nn.Parameter]:
        """Those of the backbone that lie behind its frozen layers."""
        frozen = self.config.frozen_layers
        if frozen >= len(self.layers):
            raise ValueError(
                f"frozen_layers={frozen} of {len(self.layers)} layers that are read: nothing is left to learn"
            )
        parts = list(self.backbone.named_modules())  # in the order in which they are passed
        last = self.backbone.feature_info[self.layers[frozen - 1]]["module"] if frozen else None
        stay = (
            0 if last is None else 1 + max(i for i, (name, _) in enumerate(parts) if f"{name}.".startswith(f"{last}."))
        )
        return [parameter for _, part in parts[stay:] for parameter in part.parameters(recurse=False)]

    def train(self, mode: bool = True) -> "PatchClusters":
        """Layers that do not learn stay in eval mode, with ``frozen_norms`` all of the backbone."""
        super().train(mode)
        for backbone in (self.backbone, self.before):
            for module in () if backbone is None else backbone.modules():
                if self.config.frozen_norms or not any(p.requires_grad for p in module.parameters()):
                    module.training = False
        return self

    def maps(self, backbone: Any, images: Float[Tensor, "B 3 S S"]) -> list[Tensor]:
        """The layers that the teacher reads, of RGB images in 0..1."""
        images = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        maps: list[Tensor] = backbone.forward_intermediates(
            images, indices=list(self.layers), output_fmt="NCHW", intermediates_only=True
        )
        return maps

    def fused(self, maps: Sequence[Tensor]) -> Float[Tensor, "B D h w"]:
        """Them joined, in full precision: directions differ by less than bf16 can tell."""
        with full_precision(maps[0].device):
            return fuse_layers([m.float() for m in maps], self.grid)

    def embedded(self, fused: Float[Tensor, "B D h w"]) -> Float[Tensor, "B E h w"]:
        """U as maps."""
        with full_precision(fused.device):
            return embedded_maps(self.bank, fused)

    def forward(self, batch: Batch) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Of each crop u, and where they are wanted class scores and how far its patches have drifted."""
        first, second = batch.images.chunk(2)
        maps = self.maps(self.backbone, torch.cat([first, recolour_some(second, self.config.recoloured)]))
        fused = self.fused(maps)
        predictions = {"u": self.embedded(fused)}
        if self.config.salience:
            predictions["saliency"] = activity(log_lengths(maps, self.grid))[:, None]
        if self.species is not None:
            predictions["species"] = self.species(maps[-1].flatten(2).transpose(1, 2))
        if self.before is not None:
            with torch.no_grad():
                before = self.fused(self.maps(self.before, first))
            drift = 1 - F.cosine_similarity(fused[: len(first)], before, dim=1).mean((1, 2))
            predictions["drift"] = drift.repeat(2)  # one a crop, as all predictions; second crops are not looked at
        return predictions, {}

    def terms(self, predictions: dict[str, Any], maps: dict[str, Tensor], targets: Any) -> dict[str, Tensor]:
        """Unweighted terms of the loss by name."""
        terms = self.clusters(predictions["u"], predictions.get("saliency"), targets)
        if "species" in predictions:
            smoothing = self.config.label_smoothing
            terms["species"] = F.cross_entropy(predictions["species"], targets.labels, label_smoothing=smoothing)
        if "drift" in predictions:
            terms["drift"] = predictions["drift"].mean()
        return terms

    def total(self, terms: dict[str, Tensor]) -> Float[Tensor, ""]:
        """The weighted sum."""
        return torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()

    def clusters(
        self, u: Float[Tensor, "B E h w"], saliency: Float[Tensor, "B 1 h w"] | None, pairs: Pairs
    ) -> dict[str, Tensor]:
        """How badly patches predict the assignments of the other crop, and of their nearest ones in other pictures.

        0 where no crops overlap.
        """
        config = self.config
        patches, weights, owners = aligned(u, pairs, config.aligned)
        if not len(weights):
            return {"clusters": u.sum() * 0}
        patches = F.normalize(patches, dim=-1)
        if saliency is not None:
            seen = aligned(saliency, pairs, config.aligned)[0].mean(0)[:, 0]
            weights = (weights > 0) * seen.pow(config.salience).clamp_min(LEAST_SALIENCE)  # in place of the middle's
        scores = patches @ F.normalize(self.bank.prototypes, dim=1).T  # (2, P, K)
        logs = (scores / config.temperature).log_softmax(-1)
        if config.rarity:
            weights = weights * rareness(logs.detach().exp(), weights, config.rarity)
        groups = pairs.groups[owners]
        targets = torch.stack([balanced_in(groups, s / config.balance, weights) for s in scores.detach()])
        each = -(targets.flip(0) * logs).sum(-1).mean(0)  # (P,)
        terms = {"clusters": (each * weights).sum() / weights.sum()}
        if config.neighbour_weight:
            seekers = torch.multinomial(weights.cpu(), min(SEEKERS, len(weights))).to(u.device)
            found = nearest_elsewhere(patches[0, seekers].detach(), patches[1].detach(), owners[seekers], owners)
            worth = weights[found] * (owners[found] != owners[seekers])  # seekers were drawn by their own weight
            each = -(targets[1, found] * logs[0, seekers]).sum(-1)
            terms["neighbours"] = (each * worth).sum() / worth.sum().clamp_min(1e-6)
        return terms


def nearest_elsewhere(
    seekers: Float[Tensor, "Q E"], patches: Float[Tensor, "P E"], own: Int64[Tensor, " Q"], owners: Int64[Tensor, " P"]
) -> Int64[Tensor, " Q"]:
    """The patch of another picture that has the greatest cosine to each; where there is no other picture, any."""
    cosines: Tensor = seekers @ patches.T
    return cosines.masked_fill_(own[:, None] == owners, -2).argmax(1)


def flip_some(regions: Float[Tensor, "B 4"], mirrored: Bool[Tensor, " B"]) -> Float[Tensor, "B 4"]:
    """Regions of mirrored images as regions of the images themselves, and the other way round."""
    x0, y0, x1, y1 = regions.unbind(1)
    return torch.where(mirrored[:, None], torch.stack([1 - x1, y0, 1 - x0, y1], 1), regions)


def aligned(
    u: Float[Tensor, "B E h w"], pairs: Pairs, side: int
) -> tuple[Float[Tensor, "2 P E"], Float[Tensor, " P"], Int64[Tensor, " P"]]:
    """Patches of both crops at the same ``side`` x ``side`` places of what both show, with weights and images."""
    overlap = pairs.overlap
    kept = (overlap[:, 2:] - overlap[:, :2]).min(1).values > MIN_OVERLAP
    both, overlap = kept.repeat(2), overlap[kept]
    regions, upright = pairs.regions[both], torch.where(pairs.mirrored[:, None, None, None], u.flip(3), u)[both]
    low, size = regions[:, None, :2], regions[:, None, 2:] - regions[:, None, :2]
    within = (overlap.repeat(2, 1).view(-1, 2, 2) - low) / size
    cut = cut_maps(upright, within.flatten(1).clamp(0, 1), (side, side))  # (2b, E, side, side)
    patches = cut.flatten(2).transpose(1, 2).reshape(2, -1, u.shape[1])  # (2, P, E)
    weights = middle_weights(overlap, pairs.pictured[: len(kept)][kept], (side, side)).flatten()
    owners, seen = torch.nonzero(kept).flatten().repeat_interleave(side**2), weights > 0
    return patches[:, seen], weights[seen], owners[seen]


def middle_weights(
    regions: Float[Tensor, "b 4"], pictured: Float[Tensor, "b 4"], grid: tuple[int, int]
) -> Float[Tensor, "b N"]:
    """How near the patches of a region lie to the middle of its picture: 1 in its middle half, 0 in bars beside it."""
    depth = depths(regions, pictured, grid).flatten(1)
    return (4 * depth).clamp(LEAST_WEIGHT, 1) * (depth >= 0)


def depths(
    regions: Float[Tensor, "b 4"], pictured: Float[Tensor, "b 4"], grid: tuple[int, int]
) -> Float[Tensor, "b h w"]:
    """How far the patches of a region lie from the border of its picture, in sides of it: 0 to 0.5, below 0 outside."""
    distances = []
    for low, high, count in ((1, 3, grid[0]), (0, 2, grid[1])):
        centre = (torch.arange(count, device=regions.device) + 0.5) / count
        at = regions[:, low, None] + centre * (regions[:, high] - regions[:, low])[:, None]  # (b, count)
        at = (at - pictured[:, low, None]) / (pictured[:, high] - pictured[:, low])[:, None]
        distances.append(0.5 - (at - 0.5).abs())
    return torch.minimum(distances[0][:, :, None], distances[1][:, None, :])


def balanced_in(
    groups: Int64[Tensor, " P"], scores: Float[Tensor, "P K"], weights: Float[Tensor, " P"]
) -> Float[Tensor, "P K"]:
    """Assignments of each patch that use all prototypes about equally in every group."""
    assigned = torch.empty_like(scores)
    for group in sorted(set(groups.tolist())):
        rows = groups == group
        assigned[rows] = balanced(scores[rows], weights[rows], max_rounds=3)
    return assigned


def rareness(assigned: Float[Tensor, "V P K"], weights: Float[Tensor, " P"], power: float) -> Float[Tensor, " P"]:
    """Weights of mean 1 of patches whose prototypes are rare: the mean of frequency^-power over their assignment."""
    frequency = (assigned.mean(0) * weights[:, None]).sum(0) / weights.sum()
    rare: Tensor = assigned.mean(0) @ frequency.clamp_min(1e-6) ** -power
    return rare / rare.mean()


@torch.no_grad()
def start_clusters(learner: PatchClusters, source: PairSource, *, fuse: bool = True, batch_size: int = 32) -> None:
    """W_c from a PCA of patches as they are, unless it is kept, and prototypes from their k-means; seeded.

    Patches come from ``start_images`` images, as evenly as can be from all groups, and weigh as in training.
    """
    config, bank, device = learner.config, learner.bank, learner.mean.device
    rng = np.random.default_rng(config.seed)
    taken = np.sort(evenly(source.groups.numpy(), config.start_images, rng))
    each = max(START_PATCHES, -(-START_PATCHES * config.num_prototypes // len(taken)))
    patches, weights = [], []
    for start in range(0, len(taken), batch_size):
        rows = taken[start : start + batch_size]
        whole = whole_images(len(rows))
        images = source.batch(rows, whole, learner, device).images
        maps = learner.maps(learner.backbone, images)
        t = learner.fused(maps).flatten(2).transpose(1, 2).cpu()  # (b, N, D)
        near = middle_weights(whole.regions, source.targets(rows, whole, learner, device).pictured.cpu(), learner.grid)
        if config.salience:
            salient = activity(log_lengths(maps, learner.grid)).pow(config.salience).clamp_min(LEAST_SALIENCE)
            near = (near > 0) * salient.flatten(1).cpu()
        few = torch.from_numpy(rng.permutation(t.shape[1])[:each])
        patches.append(t[:, few].flatten(0, 1))
        weights.append(near[:, few].flatten())
    sample, near = torch.cat(patches), torch.cat(weights)
    if (seen := int((near > 0).sum())) < config.num_prototypes:
        raise ValueError(
            f"num_prototypes={config.num_prototypes} is too many: {len(taken)} images at {config.crop_px} px have "
            f"{seen} patches to start from; give more images or fewer prototypes"
        )
    if fuse:
        start_from_pca(bank, sample, near)
    unit = F.normalize(bank.fuse(sample.to(device)), dim=1)
    centres, _ = k_means(unit, near.to(device), config.num_prototypes, seed=config.seed, max_rounds=30)
    bank.prototypes.copy_(F.normalize(centres, dim=1))


def evenly(groups: Int64[np.ndarray, " M"], count: int, rng: np.random.Generator) -> Int64[np.ndarray, " m"]:
    """Random rows, as equally many of each group as there are."""
    order = rng.permutation(len(groups))
    turns = np.zeros(len(groups), np.int64)
    for group in np.unique(groups):
        members = order[groups[order] == group]
        turns[members] = np.arange(len(members))
    return order[np.argsort(turns[order], kind="stable")][:count]
