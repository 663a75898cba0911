from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from part_world import masked

from prockd.evaluation.crops import assign_images, assigner, crop_agreement, crop_images

COLOURS = np.array([[10, 200, 90], [250, 20, 20], [20, 250, 20], [20, 20, 250]], np.uint8)


def painted(num_images: int = 12):
    """Images whose parts keep their places and can be told by their colours."""
    images = masked(num_images=num_images)
    parts = np.repeat(images.parts[:1], num_images, 0)
    return replace(images, parts=parts, pixels=COLOURS[parts].transpose(0, 3, 1, 2).copy())


def by_colour(images: torch.Tensor) -> torch.Tensor:
    """Prototypes that are colours."""
    colours = F.avg_pool2d(images, 4).flatten(2).transpose(1, 2)
    return -torch.cdist(colours, torch.from_numpy(COLOURS / 255).float().expand(len(images), -1, -1))


def test_masks_are_cut_like_the_pixels():
    crops = crop_images(painted(), seed=1)
    seen = COLOURS[crops.parts].transpose(0, 3, 1, 2).astype(int)
    close = np.abs(seen - crops.pixels).max(1) < 60
    assert close.mean() > 0.8, "but for edges, where colours mix"
    assert not np.array_equal(crops.parts, painted().parts)
    assert crops.fingerprint != painted().fingerprint


def test_the_same_seed_cuts_the_same_crops_and_the_whole_image_stays_whole():
    images = painted()
    np.testing.assert_array_equal(crop_images(images, seed=2).pixels, crop_images(images, seed=2).pixels)
    np.testing.assert_array_equal(crop_images(images, min_area=1.0).parts, images.parts)


def test_on_crops_place_tells_less_and_looks_tell_as_much():
    images = painted(40)
    agreement = crop_agreement(by_colour, images, (8, 8), 4)
    assert agreement["prototypes"].purity > 0.9
    assert agreement["place in the image"].purity < 0.8
    whole = crop_agreement(by_colour, images, (8, 8), 4, min_area=1.0)
    assert whole["5 nearest places"].purity == pytest.approx(1)


def test_an_assigner_names_patches_as_the_bank_does_with_stored_features(bank, teacher, features):
    fresh = assign_images(assigner(teacher, bank, device="cpu"), features.images)
    torch.testing.assert_close(fresh, bank.assignments(features), atol=1e-2, rtol=0)
