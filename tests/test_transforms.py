"""Crops: maps, masks and boxes are cut at the same place."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import roi_align

from prockd.datasets.transforms import (
    Crops,
    cut_boxes,
    cut_maps,
    cut_masks,
    cut_whole,
    random_crops,
    recolour,
    whole_images,
)


@pytest.mark.parametrize("size", [(96, 96), (12, 31), (5, 5), (1, 1)])
def test_crops_are_those_of_roi_align_and_mirrored_ones_are_crops_of_mirror_images(size):
    maps, crops = torch.rand(6, 3, 37, 53), random_crops(6, torch.Generator().manual_seed(0), min_area=0.1, flip=True)
    regions = crops.regions
    regions[0] = torch.tensor([0.9, 0.0, 1.0, 1.0])  # up to the edge, where samples lie beyond the last value
    upright = torch.where(crops.mirrored[:, None, None, None], maps.flip(3), maps)
    numbered = torch.cat([torch.arange(6.0)[:, None], regions * torch.tensor([53.0, 37.0, 53.0, 37.0])], 1)
    expected = roi_align(upright, numbered, size, aligned=True)
    assert crops.mirrored.any()
    torch.testing.assert_close(cut_maps(maps, regions, size, crops.mirrored), expected, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(cut_maps(upright, regions, size), expected, atol=2e-5, rtol=1e-4)


def test_a_whole_region_is_the_map_itself_and_half_a_region_its_half():
    maps = torch.rand(2, 3, 8, 8)
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(2, 4)
    torch.testing.assert_close(cut_maps(maps, whole, (8, 8)), maps)
    torch.testing.assert_close(cut_maps(maps, whole, (4, 4)), F.avg_pool2d(maps, 2))
    right = torch.tensor([[0.5, 0.0, 1.0, 1.0]]).expand(2, 4)
    torch.testing.assert_close(cut_maps(maps, right, (8, 4)), maps[..., 4:])
    lower = torch.tensor([[0.0, 0.5, 1.0, 1.0]]).expand(2, 4)
    torch.testing.assert_close(cut_maps(maps, lower, (4, 8)), maps[..., 4:, :])


def test_regions_lie_inside_the_image_and_keep_the_part_that_was_asked():
    crops = random_crops(2000, torch.Generator().manual_seed(0), min_area=0.3, flip=True)
    boxes, views = crops.regions, crops.mirrored
    assert boxes.min() >= 0
    assert boxes.max() <= 1 + 1e-6
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    area = width * height
    assert 0.3 - 1e-6 < area.min() < 0.31
    assert area.max() > 0.95
    assert (width / height).min() > 0.7
    assert (width / height).max() < 1.4
    assert views.float().mean().item() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("least", [0.05, 0.5, 0.9, 0.999, 1.0])
def test_a_crop_never_keeps_less_than_was_asked_and_with_1_it_keeps_the_whole_image(least):
    crops = random_crops(500, torch.Generator().manual_seed(0), min_area=least, flip=False)
    width, height = (crops.regions[:, 2:] - crops.regions[:, :2]).unbind(1)
    assert (width * height).min() > least - 1e-5
    if least == 1:
        torch.testing.assert_close(crops.regions, whole_images(500).regions)


def test_recolouring_keeps_shapes_and_depends_on_the_seed_of_each_image_alone():
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    again = recolour(images, range(6))
    assert torch.equal(again[[4, 1]], recolour(images[[4, 1]], [4, 1]))
    assert not torch.equal(again[:1], recolour(images[:1], [9]))
    assert again.min() >= 0
    assert again.max() <= 1
    flat = torch.full((4, 3, 16, 16), 0.5)
    flat[:, :, :8] = 0.2
    edges = recolour(flat, range(4)).diff(dim=2).abs().sum((1, 3))  # (4, 15): the only edge stays where it was
    assert (edges.argmax(1) == 7).all()


def drawn(box: list[int], side_px: int = 64) -> np.ndarray:
    """A mask that is 1 inside the box."""
    mask = np.zeros((side_px, side_px), np.uint8)
    x0, y0, x1, y1 = box
    mask[y0:y1, x0:x1] = 1
    return mask


def test_a_mask_and_a_box_of_one_object_stay_together_through_every_crop_and_flip():
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 32, (40, 2))
    boxes = np.concatenate([corners, corners + rng.integers(12, 32, (40, 2))], 1)
    masks = torch.from_numpy(np.stack([drawn(box) for box in boxes.tolist()]))
    crops = random_crops(40, torch.Generator().manual_seed(0), min_area=0.3, flip=True)
    assert 8 < crops.mirrored.sum() < 32
    cut = cut_masks(masks, crops, 128)
    found = cut_boxes(list(boxes[:, None].astype(np.float32)), [np.zeros(1, np.int64)] * 40, 64, crops, 128)
    pixels = cut_maps(
        torch.where(crops.mirrored[:, None, None], masks.flip(2), masks)[:, None].float(), crops.regions, (128, 128)
    )
    assert ((pixels[:, 0] > 0.5) != cut.bool()).float().mean() < 0.02
    seen = 0
    for mask, target in zip(cut, found, strict=True):
        for x0, y0, x1, y1 in target["boxes"].tolist():
            rows, columns = torch.nonzero(mask.any(1)).flatten(), torch.nonzero(mask.any(0)).flatten()
            extent = [columns[0].item(), rows[0].item(), columns[-1].item() + 1, rows[-1].item() + 1]
            assert np.abs(np.subtract(extent, [x0, y0, x1, y1])).max() <= 1.5
            seen += 1
    assert seen > 25


def test_a_mask_that_is_not_cropped_is_itself_and_a_flip_turns_it_round():
    masks = torch.from_numpy(np.random.default_rng(0).integers(0, 9, (3, 16, 16), dtype=np.uint8))
    crops = whole_images(3)
    assert torch.equal(cut_masks(masks, crops, 16), masks.long())
    turned = Crops(crops.regions, torch.tensor([True, False, True]))
    assert torch.equal(cut_masks(masks, turned, 16)[0], masks[0].flip(1).long())
    assert set(cut_masks(masks, turned, 7).unique().tolist()) <= set(range(9))  # no class is invented


def test_a_box_of_which_less_than_a_third_is_left_is_dropped_and_the_others_are_clipped():
    boxes = [np.array([[0, 0, 20, 10], [8, 0, 28, 10], [40, 40, 60, 60]], np.float32), np.zeros((0, 4), np.float32)]
    labels = [np.array([3, 4, 5]), np.zeros(0, np.int64)]
    crops = Crops(torch.tensor([[0.25, 0.0, 0.75, 0.5], [0.0, 0.0, 1.0, 1.0]]), torch.zeros(2, dtype=torch.bool))
    first, second = cut_boxes(boxes, labels, 64, crops, 64)
    assert first["labels"].tolist() == [4]
    assert first["boxes"].tolist() == [[0, 0, 24, 20]]
    assert second["boxes"].shape == (0, 4)


def test_a_box_in_a_mirrored_image_is_mirrored():
    crops = Crops(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([True]))
    (target,) = cut_boxes([np.array([[4, 8, 20, 30]], np.float32)], [np.array([0])], 64, crops, 32)
    assert target["boxes"].tolist() == [[22, 4, 30, 15]]


@pytest.mark.parametrize("side", [16, 20, 24, 32, 48])
def test_a_whole_image_is_resampled_as_a_crop_that_keeps_everything(side):
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    crops = random_crops(3, torch.Generator().manual_seed(0), min_area=1.0, flip=False)
    torch.testing.assert_close(cut_whole(images, side), cut_maps(images, crops.regions, (side, side)))
    assert cut_whole(images, 32) is images
