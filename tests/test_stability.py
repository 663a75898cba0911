import numpy as np
import pytest
import torch
import torch.nn.functional as F

from prockd.datasets import PackedImages
from prockd.evaluation.controls import place_names
from prockd.evaluation.points import PointPatches
from prockd.evaluation.stability import consistency, kept_shares, matched_share, near_points

GRID = (8, 8)
FRONT = np.ones((6, 64), bool)


def pictures(num_images: int = 6) -> PackedImages:
    """Images of 32 px whose patches are each of one of three grey levels."""
    level = np.random.default_rng(0).integers(0, 3, (num_images, 1, 8, 8)) * 100 + 20
    pixels = level.repeat(4, 2).repeat(4, 3).repeat(3, 1).astype(np.uint8)
    return PackedImages(pixels, np.zeros(num_images, np.int64), tuple(map(str, range(num_images))), ("x",), "f")


def by_level(images: torch.Tensor) -> torch.Tensor:
    """Prototypes that are grey levels: what a patch looks like and nothing else."""
    mean = F.avg_pool2d(images, 4).mean(1).flatten(1)
    return F.one_hot((mean * 2.55).long().clamp(0, 2), 3).float()


def test_prototypes_that_are_looks_stay_on_their_patches_and_those_that_are_places_do_not():
    looks = kept_shares(by_level, pictures(), GRID, FRONT, noise=0.02)
    assert looks["shift"] == looks["mirror"] == 1
    assert looks["noise"] > 0.95
    assert looks["chance"] == pytest.approx(1 / 3, abs=0.05)
    places = kept_shares(place_names(GRID, 64), pictures(), GRID, FRONT)
    assert places["shift"] == places["mirror"] == 0
    assert places["noise"] == 1


def test_only_the_patches_that_are_asked_and_stay_inside_count():
    calls = []

    def counts_calls(images):
        calls.append(len(images))
        return F.one_hot(torch.full((len(images), 64), min(len(calls) - 1, 3)), 4).float()

    front = np.zeros((6, 64), bool)
    front[0, 63] = True  # the last patch leaves the frame
    kept = kept_shares(counts_calls, pictures(), GRID, front)
    assert kept["noise"] == kept["mirror"] == 0
    assert np.isnan(kept["shift"])


@pytest.mark.parametrize("shift", [0, 8])
def test_a_shift_that_leaves_nothing_is_refused(shift):
    with pytest.raises(ValueError, match=f"shift={shift} patches of a grid of 8x8: from 1 to 7"):
        kept_shares(by_level, pictures(), GRID, FRONT, shift=shift)


def test_background_alone_is_refused():
    with pytest.raises(ValueError, match="no patch of these 6 images lies on a part"):
        kept_shares(by_level, pictures(), GRID, ~FRONT)


def test_other_numbers_for_the_same_prototypes_are_matched():
    first = np.random.default_rng(0).integers(0, 7, (6, 64))
    assert matched_share(first, np.array([3, 6, 0, 2, 1, 5, 4])[first], FRONT) == 1
    halved = np.where(np.arange(64) % 2, first, first + 7)  # each is split: one to one, half of them keep theirs
    assert matched_share(first, halved, FRONT) == pytest.approx(0.5, abs=0.1)


def points(images: list[int], parts: list[int], xy: list[tuple[float, float]]) -> PointPatches:
    place = np.array(xy, np.float64)
    cell = np.floor(place * 8).astype(np.int64)
    return PointPatches(np.array(images), cell[:, 1] * 8 + cell[:, 0], np.array(parts), ("eye", "tail"), place)


def test_a_prototype_is_consistent_where_the_same_point_is_in_its_box_in_four_of_five_images():
    known = points([0, 1, 2, 3, 4], [0] * 5, [(0.1, 0.1)] * 4 + [(0.9, 0.9)])
    near, shown = near_points(known, 5, GRID, box=0.3)
    labels, asked = np.zeros(5, np.int64), np.ones(2, bool)
    peaks = np.array([[0, 63]] * 5)  # the upper left and the lower right corner
    assert consistency(peaks, labels, near, shown, asked) == 0.5
    known = points([0, 1, 2, 3, 4], [0] * 5, [(0.1, 0.1)] * 3 + [(0.9, 0.9)] * 2)
    near, shown = near_points(known, 5, GRID, box=0.3)
    assert consistency(peaks, labels, near, shown, asked) == 0


def test_images_that_do_not_show_a_point_do_not_count_against_it():
    known = points([0, 1, 2], [1] * 3, [(0.1, 0.1)] * 3)
    near, shown = near_points(known, 9, GRID)
    peaks = np.zeros((9, 1), np.int64)
    assert consistency(peaks, np.zeros(9, np.int64), near, shown, np.ones(1, bool)) == 1


def test_classes_are_judged_apart_and_unlabelled_images_not_at_all():
    known = points([0, 1, 2, 3, 4, 5], [0] * 3 + [1] * 3, [(0.1, 0.1)] * 6)
    near, shown = near_points(known, 7, GRID)
    peaks, one = np.array([[0]] * 3 + [[63]] * 3 + [[0]]), np.ones(1, bool)
    assert consistency(peaks, np.array([0, 0, 0, 1, 1, 1, -1]), near, shown, one) == 0.5
    with pytest.raises(ValueError, match="consistency needs a class with 3 images that show the same key point"):
        consistency(peaks, np.full(7, -1), near, shown, one)
    with pytest.raises(ValueError, match="no prototype has most of its patches on parts"):
        consistency(peaks, np.zeros(7, np.int64), near, shown, ~one)
