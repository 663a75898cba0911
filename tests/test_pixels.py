from dataclasses import replace

import numpy as np
import pytest
import torch
from part_world import hard, masked
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from prockd.evaluation.patches import patch_parts
from prockd.evaluation.pixels import pixel_agreement, prototype_of_pixels


def test_a_perfect_assignment_agrees_in_every_pixel():
    images = masked()
    found = pixel_agreement(patch_parts(images.parts, (8, 8), 4), images, (8, 8), 4)
    assert (found.nmi, found.ari) == pytest.approx((1, 1))
    assert found.foreground_iou == found.background_iou == 1


def test_all_pixels_count_background_among_them_whatever_the_chunks():
    images, assignments = masked(num_images=19), torch.rand(19, 64, 5)
    found = pixel_agreement(assignments, images, (8, 8), 4)
    numbers = prototype_of_pixels(assignments, (8, 8), 32).ravel()
    assert found.nmi == pytest.approx(normalized_mutual_info_score(images.parts.ravel(), numbers))
    assert found.ari == pytest.approx(adjusted_rand_score(images.parts.ravel(), numbers))


def test_soft_assignments_are_enlarged_smoothly_and_hard_ones_keep_their_patches():
    soft = torch.tensor([[[0.9, 0.1], [0.0, 1.0]]])  # a row of two patches
    assert prototype_of_pixels(soft, (1, 2), 8)[0, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    soft = torch.tensor([[[0.6, 0.4], [0.0, 1.0]]])  # the second is surer: the border moves
    assert prototype_of_pixels(soft, (1, 2), 8)[0, 0].tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    assert prototype_of_pixels(np.array([[0, 1]]), (1, 2), 8)[0, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_the_foreground_is_named_by_the_other_half_of_the_images():
    images = masked(num_images=2)
    images.parts[:] = 0
    images.parts[:, :16] = 1
    upper = np.repeat([[0] * 32 + [1] * 32], 2, 0)
    assert pixel_agreement(upper, images, (8, 8), 2).foreground_iou == 1
    turned = np.stack([upper[0], 1 - upper[1]])  # what is foreground in one image is background in the other
    found = pixel_agreement(turned, images, (8, 8), 2)
    assert found.foreground_iou == found.background_iou == 0


def test_one_image_has_no_other_half_to_name_its_foreground():
    found = pixel_agreement(torch.rand(1, 64, 3), masked(num_images=1), (8, 8), 4)
    assert np.isnan(found.foreground_iou)
    assert found.nmi > 0


def test_a_grid_that_does_not_divide_the_side_is_measured():
    images = masked(num_images=4)
    assert 0 < pixel_agreement(hard(patch_parts(images.parts, (7, 7), 4), 4), images, (7, 7), 4).nmi < 1


def test_images_without_masks_are_refused():
    with pytest.raises(ValueError, match="no part masks"):
        pixel_agreement(torch.rand(8, 64, 3), replace(masked(), parts=None), (8, 8), 4)
