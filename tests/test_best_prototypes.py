from dataclasses import replace

import numpy as np
import pytest
import torch
from part_world import hard, masked

from prockd.evaluation.best_prototypes import part_prototypes, part_prototypes_with_controls
from prockd.evaluation.patches import patch_parts

NAMES = ("background", "leg", "tail", "ear")
GRID = (8, 8)


def test_the_prototype_of_a_part_is_found_whatever_its_number():
    images = masked(num_images=60)
    parts = patch_parts(images.parts, GRID, 4)
    found = part_prototypes(hard(5 - parts, 6), images, GRID, NAMES)
    assert found.by_part() == {"leg": 1, "tail": 1, "ear": 1}
    assert found.prototype.tolist() == [-1, 4, 3, 2]
    assert found.gallery == [4, 3, 2]
    assert found.top == 50
    tails = parts[found.image[2], found.patch[2]]
    assert (tails == 2).all(), "its strongest patches lie on the part"
    assert len(set(found.image[2].tolist())) == 50, "one an image"


def test_the_strongest_patch_of_each_image_is_asked_strongest_images_first():
    images = replace(masked(num_images=3), parts=np.zeros((3, 32, 32), np.uint8))
    images.parts[0, :4, :4] = 1
    images.parts[1, :4, 4:8] = 1
    assignments = torch.zeros(3, 64, 2)
    assignments[0, 0, 0], assignments[1, 1, 0], assignments[2, 0, 0] = 0.5, 0.9, 0.7
    found = part_prototypes(assignments, images, GRID, NAMES[:2], top=2)
    assert found.image[1].tolist() == [1, 2]
    assert found.patch[1].tolist() == [1, 0]
    assert found.on[1].tolist() == [True, False]
    assert found.share[1] == 0.5


def test_images_that_do_not_show_a_part_count_against_its_prototype():
    images = masked(num_images=10)
    parts = images.parts.copy()
    parts[5:][parts[5:] == 2] = 0
    images = replace(images, parts=parts)
    found = part_prototypes(hard(patch_parts(parts, GRID, 4), 4), images, GRID, NAMES)
    assert found.by_part()["tail"] == 0.5
    assert found.top == 10, "it is said how many there were"


def test_of_two_prototypes_with_the_same_share_the_one_whose_other_patches_lie_on_the_part_is_chosen():
    images = masked(num_images=4)
    parts = patch_parts(images.parts, GRID, 4)
    assigned = np.where(parts == 1, 3, 0)  # prototype 0 has all the rest
    assignments = hard(assigned, 4)
    for m, image in enumerate(parts):
        assignments[m, np.flatnonzero(image == 1)[0]] = torch.tensor([0.95, 0, 0, 0.95])
    found = part_prototypes(assignments, images, GRID, NAMES)
    assert found.shares[0, 1] == found.shares[3, 1] == 1
    assert found.prototype[1] == 3


def test_a_disabled_prototype_is_no_parts():
    images = masked()
    assignments = hard(patch_parts(images.parts, GRID, 4), 5)
    assignments[..., 4] = 0
    found = part_prototypes(assignments, images, GRID, NAMES)
    assert (found.shares[4] == 0).all()


def test_a_part_that_never_occurs_is_named_and_nothing_breaks():
    images = masked()
    parts = np.where(images.parts == 3, 0, images.parts).astype(np.uint8)
    found = part_prototypes(torch.rand(8, 64, 5), replace(images, parts=parts), GRID, NAMES)
    assert found.absent == ("ear",)
    assert found.by_part()["ear"] is None
    assert "ear -" in repr(found)
    assert len(found.gallery) <= 2


def test_controls_know_the_part_as_often_as_chance_and_place_as_often_as_the_frame_tells():
    images = masked(num_images=60)
    told = hard(patch_parts(images.parts, GRID, 4), 4)
    found = part_prototypes_with_controls(told, images, GRID, NAMES)
    assert list(found) == ["prototypes", "place in the image", "raw pixels", "shuffled"]
    assert found["shuffled"].share[1:].max() < 0.55
    fixed = replace(images, parts=np.repeat(images.parts[:1], 60, 0))
    assert part_prototypes_with_controls(told, fixed, GRID, NAMES)["place in the image"].share[1:].min() == 1


def test_images_of_background_alone_are_refused():
    images = replace(masked(), parts=np.zeros((8, 32, 32), np.uint8))
    with pytest.raises(ValueError, match="all is background"):
        part_prototypes(torch.rand(8, 64, 5), images, GRID, NAMES)
