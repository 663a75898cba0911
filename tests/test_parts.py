from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_device import fake_device
from part_world import hard, masked
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from prockd.evaluation.parts import agreement_with_controls, information, part_agreement
from prockd.evaluation.patches import patch_parts


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


def test_assignments_on_another_device_agree_as_those_on_the_cpu_do():
    images = masked()
    a = hard(patch_parts(images.parts, (8, 8), 4), 4)
    with fake_device() as device:
        there = agreement_with_controls(a.to(device), images, (8, 8), 4)
    for name, here in agreement_with_controls(a, images, (8, 8), 4).items():
        np.testing.assert_array_equal(there[name].table, here.table)


def test_place_stands_beside_every_purity_and_wins_where_parts_keep_their_place():
    images = masked(num_images=24)
    fixed = replace(images, parts=np.repeat(images.parts[:1], 24, 0))
    never = hard(np.zeros((24, 64), np.int64), 81)
    agreement = agreement_with_controls(never, fixed, (8, 8), 4)
    assert agreement["place in the image"].purity == agreement["5 nearest places"].purity == 1
    anywhere = agreement_with_controls(never, images, (8, 8), 4)
    assert anywhere["5 nearest places"].purity == pytest.approx(1 / 3, abs=0.07)


def test_information_with_place_is_one_for_prototypes_that_are_places_and_small_for_those_that_are_not():
    images = masked(num_images=24)
    place = np.tile(np.arange(64), (24, 1))
    told = agreement_with_controls(hard(place, 64), images, (8, 8), 4)["prototypes"]
    assert told.nmi_place == pytest.approx(1)
    told = agreement_with_controls(hard(patch_parts(images.parts, (8, 8), 4), 64), images, (8, 8), 4)["prototypes"]
    assert told.nmi_place < 0.2


def test_information_of_counts_is_that_of_the_labels():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, 400), rng.integers(0, 7, 400)
    b[:200] = a[:200]
    table = np.zeros((6, 8), np.int64)
    np.add.at(table, (a, b), 1)
    expected = normalized_mutual_info_score(a, b), adjusted_rand_score(a, b)
    assert information(table) == pytest.approx(expected)
    assert information(np.zeros((3, 4), np.int64)) == (0, 0)
    assert information(np.eye(1, dtype=np.int64)) == (0, 0)


def test_the_share_of_background_counts_prototypes_that_some_patch_prefers():
    assigned, parts = np.array([[0, 0, 0, 1, 1, 1]]), np.array([[0, 0, 1, 0, 2, 2]])
    assert part_agreement(assigned, parts, 5, 3).background_share == 0.5


def test_another_teacher_stands_beside_the_prototypes():
    images = masked()
    told = hard(patch_parts(images.parts, (8, 8), 4), 4)
    agreement = agreement_with_controls(told, images, (8, 8), 4, others={"random teacher": torch.rand(8, 64, 7)})
    assert list(agreement)[:2] == ["prototypes", "random teacher"]
    assert agreement["random teacher"].table.shape == (7, 4)


def test_one_image_is_measured_without_the_control_that_needs_another_half():
    images = masked(num_images=1)
    assert "5 nearest places" not in agreement_with_controls(torch.rand(1, 64, 3), images, (8, 8), 4)


def test_what_would_mean_nothing_is_refused_in_a_sentence():
    images = masked()
    empty = replace(images, parts=np.zeros_like(images.parts))
    with pytest.raises(ValueError, match="no patch of these 8 images lies on a part: all is background"):
        agreement_with_controls(torch.rand(8, 64, 3), empty, (8, 8), 4)
    one = np.zeros_like(images.parts)
    one[0, :8, :8] = 1
    with pytest.raises(ValueError, match="9 prototypes, but only 4 patches lie on parts: purity would mean nothing"):
        agreement_with_controls(torch.rand(8, 64, 9), replace(images, parts=one), (8, 8), 4)
    object.__setattr__(images, "parts", images.parts[:, :16, :16])
    with pytest.raises(ValueError, match="part masks of 16x16 pixels, but images of 32x32"):
        agreement_with_controls(torch.rand(8, 64, 3), images, (8, 8), 4)
