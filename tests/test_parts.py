from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from prockd.datasets import PackedImages
from prockd.evaluation.intervals import paired_interval
from prockd.evaluation.parts import agreement_with_controls, part_agreement, patch_parts, pixel_patches
from prockd.evaluation.probe import linear_probe, pooled


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


@pytest.mark.parametrize("grid", [(5, 8), (8, 5), (64, 8)])
def test_a_mask_that_cannot_be_cut_into_equal_patches_is_refused(grid):
    with pytest.raises(ValueError, match=f"32x32 pixels cannot be cut into {grid[0]}x{grid[1]}"):
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
    assert set(agreement) == {"prototypes", "shuffled", "raw pixels"}
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


# Probe


def clouds(count: int, *, apart: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    centres = np.random.default_rng(0).normal(size=(3, 10)) * apart
    return (centres[labels] + rng.normal(size=(count, 10))).astype(np.float64), labels


@pytest.mark.parametrize("per_class", [1, 2, 5, 30])
def test_a_linear_probe_tells_apart_what_lies_apart(per_class):
    train, test = clouds(3 * per_class, apart=6, seed=1), clouds(90, apart=6, seed=2)
    assert linear_probe(*train, *test) > 0.97


def test_a_linear_probe_finds_nothing_where_there_is_nothing():
    train, test = clouds(60, apart=0, seed=1), clouds(300, apart=0, seed=2)
    assert 0.2 < linear_probe(*train, *test) < 0.47


def test_a_linear_probe_does_not_mind_the_scale_of_a_feature():
    train, test = clouds(60, apart=1.5, seed=1), clouds(150, apart=1.5, seed=2)
    scale = np.geomspace(1e-4, 1e4, 10)
    assert linear_probe(train[0] * scale, train[1], test[0] * scale, test[1]) == pytest.approx(
        linear_probe(*train, *test)
    )


def test_the_strength_of_a_probe_is_chosen_on_its_training_images_alone():
    train, test = clouds(60, apart=1.5, seed=1), clouds(150, apart=1.5, seed=2)
    accuracy = linear_probe(*train, *test)
    first, second = test[0][:75], test[0][75:]
    halves = [linear_probe(*train, half, test[1][i : i + 75]) for half, i in ((first, 0), (second, 75))]
    assert np.mean(halves) == pytest.approx(accuracy)  # it would not be if the test images had a say


def test_pooled_joins_the_mean_of_every_layer(features):
    joined = pooled(features.maps, view=1)
    assert joined.shape == (12, 8 + 16 + 24)
    np.testing.assert_allclose(joined[3, 8:24], features.maps[1][3, 1].astype(np.float64).mean((1, 2)), rtol=1e-4)


# Intervals


def test_a_paired_interval_is_that_of_scipy():
    differences = [0.31, 0.28, 0.35, 0.22, 0.30]
    mean, low, high = paired_interval(differences)
    expected = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert mean == pytest.approx(np.mean(differences))
    assert (low, high) == pytest.approx((expected.low, expected.high))


def test_equal_differences_have_an_interval_of_no_width():
    assert paired_interval(np.full(4, 0.25)) == pytest.approx((0.25, 0.25, 0.25))


def test_an_interval_covers_the_truth_nineteen_times_in_twenty():
    rng = np.random.default_rng(0)
    intervals = [paired_interval(rng.normal(1, 2, 5)) for _ in range(1000)]
    assert 0.93 < np.mean([low < 1 < high for _, low, high in intervals]) < 0.97


@pytest.mark.parametrize("differences", [[], [0.3]])
def test_one_difference_makes_no_interval(differences):
    with pytest.raises(ValueError, match="at least 2"):
        paired_interval(differences)
