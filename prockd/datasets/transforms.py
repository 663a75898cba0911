"""Random crops and mirror images, and the same cut of maps, masks, boxes and points."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

MIN_KEPT = 0.3  # a box that keeps a smaller share of its area is dropped: what is left shows too little of the object


@dataclass(frozen=True)
class Crops:
    """What is cut out of each image of a batch."""

    regions: Float[Tensor, "B 4"]  # x0, y0, x1, y1 in 0..1 of the image, after it was mirrored where it is
    mirrored: Bool[Tensor, " B"]  # whether the image is mirrored left-right first

    def __len__(self) -> int:
        return len(self.mirrored)

    def __getitem__(self, rows: slice | np.ndarray) -> "Crops":
        return Crops(self.regions[rows], self.mirrored[rows])


def random_crops(count: int, generator: torch.Generator, *, min_area: float, flip: bool) -> Crops:
    """Draw crops that keep at least ``min_area`` of the image, up to a third wider or higher, half of them mirrored."""
    area = torch.empty(count).uniform_(min_area, 1, generator=generator)
    # A crop of nearly everything can hardly be wide: its sides end at the image's, so 1.0 keeps the whole image.
    most = (-area.log()).clamp(max=math.log(4 / 3))
    ratio = (torch.empty(count).uniform_(-1, 1, generator=generator) * most).exp()
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    x, y = torch.rand(2, count, generator=generator)
    x, y = x * (1 - width), y * (1 - height)
    mirrored = (torch.rand(count, generator=generator) < 0.5) & flip
    return Crops(torch.stack([x, y, x + width, y + height], 1), mirrored)


def whole_images(count: int, *, mirrored: bool = False) -> Crops:
    """Crops that leave every image as it is, or only mirror it."""
    return Crops(torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(count, 1), torch.full((count,), mirrored))


def cut_maps(
    maps: Float[Tensor, "B C H W"], regions: Float[Tensor, "B 4"], size: tuple[int, int], mirrored: Tensor | None = None
) -> Float[Tensor, "B C h w"]:
    """Cut the region (0..1) out of each map, mirrored first where it is said, and resample it to ``size``.

    Where a region shrinks, several samples are averaged. It is torchvision's ``roi_align(..., aligned=True)``, which is
    a product of rows and columns: two products of matrices give the same numbers in half of the time on a CPU, in a
    seventh with maps of bf16, and a mirror image is one with its columns in the other order. Many channels come last in
    memory. Regions of the CPU are read without waiting for the device of the maps.
    """
    B, C, H, W = maps.shape
    if H == W and size[0] == size[1]:
        both = averages(torch.cat([regions[:, 1::2], regions[:, 0::2]]), H, size[0], maps.device)
        down, across = both.chunk(2)
    else:
        down = averages(regions[:, 1::2], H, size[0], maps.device)
        across = averages(regions[:, 0::2], W, size[1], maps.device)
    if mirrored is not None:
        backwards = mirrored.to(maps.device, non_blocking=True)[:, None, None]
        across = torch.where(backwards, across.flip(2), across)
    rows = maps.reshape(B, C * H, W) @ across.to(maps.dtype).mT  # (B, C * H, w)
    rows = rows.view(B, C, H, size[1]).transpose(1, 2)  # (B, H, C, w)
    if C > 4:  # patches; to reorder the three colours in place of whole rows would take longer than the products
        cut = down.to(maps.dtype) @ rows.transpose(2, 3).reshape(B, H, size[1] * C)
        return cut.view(B, *size, C).permute(0, 3, 1, 2)
    cut = down.to(maps.dtype) @ rows.reshape(B, H, C * size[1])
    return cut.view(B, size[0], C, size[1]).transpose(1, 2)


def averages(
    sides: Float[Tensor, "B 2"], length: int, count: int, device: torch.device | None = None
) -> Float[Tensor, "B n L"]:
    """How much each of ``length`` values counts for each of ``count`` parts of an interval (0..1) of them.

    A part is the mean of evenly spaced samples, at most one value apart, each read between its two neighbours.
    """
    low, high = (sides * length).unbind(1)
    part = (high - low) / count  # (B,) values in a part
    samples = part.ceil().clamp_min(1)
    steps = torch.arange(max(map(int, samples.tolist()), default=1), device=device)
    # from here on at the maps: to read the greatest number of samples there would be to wait for them
    low, part, samples = torch.stack([low, part, samples]).to(device, non_blocking=True)
    places = torch.arange(count, device=device)[:, None] + (steps + 0.5) / samples[:, None, None]  # (B, n, s)
    places = (low[:, None, None] - 0.5 + part[:, None, None] * places).clamp(0, length - 1)
    share = ((steps < samples[:, None]).float() / samples[:, None])[:, None]  # (B, 1, s) 0 for those it does not have
    first = places.floor()
    beyond = places - first
    second = (first + 1).clamp_max(length - 1)
    found = torch.zeros(len(low), count, length, device=device)
    found.scatter_add_(2, first.long(), (1 - beyond) * share)
    return found.scatter_add_(2, second.long(), beyond * share)


def cut_whole(images: Float[Tensor, "B 3 H W"], side_px: int) -> Float[Tensor, "B 3 S S"]:
    """Whole square images, resampled as crops are: a student is scored on the pixels that it was trained on."""
    if images.shape[-1] == side_px:
        return images
    cut: Tensor = cut_maps(images, whole_images(len(images)).regions, (side_px, side_px))
    return cut


def cut_masks(masks: UInt8[Tensor, "B H W"], crops: Crops, side_px: int) -> Int64[Tensor, "B S S"]:
    """The class of the nearest pixel of each mask, at every pixel of its crop."""
    B, H, W = masks.shape
    middle = (torch.arange(side_px) + 0.5) / side_px
    x0, y0, x1, y1 = crops.regions.unbind(1)
    x = (x0[:, None] + middle * (x1 - x0)[:, None]).mul(W).long().clamp(0, W - 1)  # (B, S)
    y = (y0[:, None] + middle * (y1 - y0)[:, None]).mul(H).long().clamp(0, H - 1)
    x = torch.where(crops.mirrored[:, None], W - 1 - x, x)
    return masks[torch.arange(B)[:, None, None], y[:, :, None], x[:, None, :]].long()


def cut_boxes(
    boxes: Sequence[np.ndarray], labels: Sequence[np.ndarray], image_px: int, crops: Crops, side_px: int
) -> list[dict[str, Tensor]]:
    """Boxes (n, 4) of each image of ``image_px``, clipped to its crop or dropped, as torchvision's targets."""
    counts = list(map(len, boxes))
    row = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts, dtype=torch.long))
    box = torch.from_numpy(np.concatenate([np.zeros((0, 4), np.float32), *boxes])).float() / image_px
    label = torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *labels]))
    x0, y0, x1, y1 = box.unbind(1)
    box = torch.where(crops.mirrored[row][:, None], torch.stack([1 - x1, y0, 1 - x0, y1], 1), box)
    region = crops.regions[row]
    low, size = region[:, :2], region[:, 2:] - region[:, :2]
    moved = (box.view(-1, 2, 2) - low[:, None]) / size[:, None] * side_px
    clipped = moved.clamp(0, side_px)
    sides, before = clipped[:, 1] - clipped[:, 0], (moved[:, 1] - moved[:, 0]).prod(1)
    kept = (sides.prod(1) >= MIN_KEPT * before) & (sides.min(1).values >= 1)
    box, label, row = clipped.flatten(1)[kept], label[kept], row[kept]
    shares = torch.bincount(row, minlength=len(counts)).tolist()
    return [
        {"boxes": b, "labels": c} for b, c in zip(torch.split(box, shares), torch.split(label, shares), strict=True)
    ]


def cut_points(points: Float[Tensor, "B J 3"], image_px: int, crops: Crops) -> Float[Tensor, "B J 3"]:
    """Points of images of ``image_px`` with their visibility: x, y in 0..1 of the crop; 0 visible outside of it."""
    x, y = (points[..., :2] / image_px).unbind(-1)
    x = torch.where(crops.mirrored[:, None], 1 - x, x)
    low, size = crops.regions[:, None, :2], crops.regions[:, None, 2:] - crops.regions[:, None, :2]
    moved = (torch.stack([x, y], -1) - low) / size
    inside = ((moved >= 0) & (moved <= 1)).all(-1)
    return torch.cat([moved, ((points[..., 2] > 0) & inside)[..., None].to(moved)], -1)


def recolour(images: Float[Tensor, "B 3 H W"], seeds: Sequence[int]) -> Float[Tensor, "B 3 H W"]:
    """RGB in 0..1 with channels in another order, some negatives, other contrast and brightness."""
    # The seed of an image alone decides what is done to it, whatever else is in the batch.
    generators = [np.random.default_rng(seed) for seed in seeds]
    drawn = [(g.permutation(3), g.random((3, 1, 1, 1), np.float32)) for g in generators]
    order = torch.from_numpy(np.stack([o for o, _ in drawn])).to(images.device, non_blocking=True)
    draw = torch.from_numpy(np.stack([d for _, d in drawn], 1)).to(images.device, non_blocking=True)
    images = images.gather(1, order[:, :, None, None].expand_as(images))
    images = torch.where(draw[0] < 0.3, 1 - images, images)
    return ((images - 0.5) * (0.5 + draw[1]) + 0.25 + 0.5 * draw[2]).clamp(0, 1)


def to_unit(pixels: Tensor) -> Float[Tensor, "B 3 H W"]:
    """Pixels 0..255 as floats 0..1, in channels-last memory, which most convolutions on a CPU prefer."""
    return pixels.contiguous(memory_format=torch.channels_last) / 255  # reordered while a value is one byte


def resize(images: Float[Tensor, "B 3 H W"], side_px: int) -> Float[Tensor, "B 3 S S"]:
    """Square images of another size, antialiased; those that have it come back as they are."""
    if images.shape[-1] == side_px:
        return images
    resized: Tensor = F.interpolate(images, (side_px, side_px), mode="bilinear", antialias=True, align_corners=False)
    return resized
