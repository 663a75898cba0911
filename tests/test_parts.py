from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_device import fake_device

from prockd.datasets import PackedImages
from prockd.evaluation.parts import agreement_with_controls, part_agreement, patch_parts, pixel_patches


def masked(num_images: int = 8, side_px: int = 32, num_parts: int = 4, patch_px: int = 4) -> PackedImages:
    """Images whose patches are each of one part, with pixels that tell nothing of it."""
    rng = np.random.default_rng(0)
    side = side_px // patch_px
    parts = rng.integers(0, num_parts, (num_images, side, side)).repeat(patch_px, 1).repeat(patch_px, 2)
    pixels = rng.integers(0, 256, (num_images, 3, side_px, side_px)).astype(np.uint8)
    ids = tuple(map(str, range(num_images)))
    return PackedImages(pixels, np.zeros(num_images, np.int64), ids, ("x",), "f", parts.astype(np.uint8))


def hard(assigned: np.ndarray, num_prototypes: int) -> torch.Tensor:
    """(M, N) prototype numbers as assignments of 0.9 and 0.1."""
    return torch.eye(num_prototypes)[torch.from_numpy(assigned)] * 0.8 + 0.1


# Parts of patches


def test_a_patch_has_the_commonest_part_where_half_of_it_is_foreground():
    mask = np.zeros((1, 4, 12), np.uint8)
    mask[0, :2, 0:4] = 3  # half foreground: part 3
    mask[0, :2, 4:8] = 3
    mask[0, 0, 4] = 0  # one pixel short of half: background
    mask[0, :, 8:12] = 1
    mask[0, :3, 8:12] = 2  # 12 pixels of part 2, 4 of part 1
    assert patch_parts(mask, (1, 3), 4).tolist() == [[3, 0, 2]]


def test_background_does_not_vote_against_parts_where_half_is_foreground():
    mask = np.zeros((1, 4, 4), np.uint8)
    mask[0, 0] = 1
    mask[0, 1] = 2
    mask[0, 1, 0] = 1  # 8 pixels of background, 5 of part 1, 3 of part 2
    assert patch_parts(mask, (1, 1), 3).tolist() == [[1]]


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_patches_are_counted_row_by_row(dtype):
    mask = np.arange(6).reshape(1, 2, 3).repeat(2, 1).repeat(4, 2).astype(dtype)
    assert patch_parts(mask, (2, 3), 6).tolist() == [[0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize("grid", [(64, 8), (8, 33)])
def test_a_grid_finer_than_the_mask_is_refused(grid):
    with pytest.raises(ValueError, match=f"a grid of {grid[0]}x{grid[1]} patches is finer than images of 32x32"):
        patch_parts(np.zeros((1, 32, 32), np.uint8), grid, 2)


# Agreement


def test_a_perfect_assignment_has_purity_and_information_one():
    parts = np.random.default_rng(0).integers(0, 4, (5, 20))
    agreement = part_agreement(5 - parts, parts, 6, 4)  # each part its own prototype
    assert agreement.purity == agreement.nmi == pytest.approx(1)
    assert agreement.table.sum() == 100
    assert agreement.table[5, 0] == (parts == 0).sum()
    assert agreement.table[2, 3] == (parts == 3).sum()


def test_one_prototype_for_all_has_the_purity_of_the_commonest_part_and_no_information():
    parts = np.array([[0, 0, 1, 1, 1, 2]])
    agreement = part_agreement(np.full((1, 6), 3), parts, 5, 3)
    assert agreement.purity == agreement.majority == pytest.approx(3 / 4)
    assert agreement.nmi == pytest.approx(0)


def test_purity_by_hand_counts_foreground_patches_only():
    assigned = np.array([[0, 0, 0, 1, 1, 1]])
    parts = np.array([[1, 1, 2, 2, 0, 0]])
    agreement = part_agreement(assigned, parts, 2, 3)
    assert agreement.purity == pytest.approx(3 / 4)
    assert agreement.majority == pytest.approx(2 / 4)
    assert agreement.table.tolist() == [[0, 2, 1], [2, 0, 1]]


def test_images_of_background_alone_give_zero_and_no_error():
    agreement = part_agreement(np.zeros((2, 3), np.int64), np.zeros((2, 3), np.int64), 2, 3)
    assert (agreement.purity, agreement.nmi, agreement.majority) == (0, 0, 0)


def test_controls_stand_beside_the_prototypes_and_know_nothing():
    images = masked(num_images=24)
    assigned = patch_parts(images.parts, (8, 8), 4)
    agreement = agreement_with_controls(hard(assigned, 4), images, (8, 8), 4)
    assert list(agreement) == ["prototypes", "place in the image", "raw pixels", "shuffled", "5 nearest places"]
    assert agreement["prototypes"].purity == pytest.approx(1)
    for control in ("shuffled", "raw pixels"):  # pixels are noise here
        assert agreement[control].purity == pytest.approx(agreement[control].majority, abs=0.08)
        assert agreement[control].nmi < 0.02


def test_shuffling_keeps_how_often_each_prototype_is_used():
    images = masked()
    assigned = np.random.default_rng(1).choice(3, (8, 64), p=[0.7, 0.2, 0.1])
    agreement = agreement_with_controls(hard(assigned, 3), images, (8, 8), 4)
    used = {name: agreement[name].table.sum(1).tolist() for name in ("prototypes", "shuffled")}
    assert used["prototypes"] == used["shuffled"] == np.bincount(assigned.ravel(), minlength=3).tolist()


def test_raw_pixels_are_a_real_rival_where_parts_have_a_colour():
    images = masked(num_images=24)
    colours = np.array([[10, 200, 90], [250, 20, 20], [20, 250, 20], [20, 20, 250]], np.uint8)
    painted = replace(images, pixels=colours[images.parts].transpose(0, 3, 1, 2))
    anything = np.zeros((24, 64), np.int64)
    assert agreement_with_controls(hard(anything, 8), painted, (8, 8), 4)["raw pixels"].purity > 0.95


def test_the_same_seed_gives_the_same_controls():
    images = masked()
    a = hard(patch_parts(images.parts, (8, 8), 4), 4)
    first, second = (agreement_with_controls(a, images, (8, 8), 4, seed=3) for _ in range(2))
    for name in first:
        np.testing.assert_array_equal(first[name].table, second[name].table)


def test_images_without_masks_are_refused():
    images = replace(masked(), parts=None)
    with pytest.raises(ValueError, match="no part masks"):
        agreement_with_controls(torch.zeros(8, 64, 3), images, (8, 8), 4)


def test_pixel_patches_are_cut_at_the_places_of_the_patches():
    images = masked(num_images=2)
    patches = pixel_patches(images, (8, 4))
    assert patches.shape == (2, 32, 3 * 4 * 8)
    cut = images.pixels[1, :, 5 * 4 : 6 * 4, 2 * 8 : 3 * 8]
    np.testing.assert_allclose(patches[1, 5 * 4 + 2], cut.ravel() / 255, rtol=1e-6)


def test_assignments_on_another_device_agree_as_those_on_the_cpu_do():
    images = masked()
    a = hard(patch_parts(images.parts, (8, 8), 4), 4)
    with fake_device() as device:
        there = agreement_with_controls(a.to(device), images, (8, 8), 4)
    for name, here in agreement_with_controls(a, images, (8, 8), 4).items():
        np.testing.assert_array_equal(there[name].table, here.table)
