"""Some of the packed images: by number, by class, or at random."""

from dataclasses import replace

import numpy as np
import pytest

from prockd._types import UNLABELLED
from prockd.datasets import Arrays, DatasetError, PackedImages, pack
from prockd.prototypes.saliency import BARS, zones


def noise(num_images: int, H: int, W: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num_images, H, W, 3), np.uint8)


@pytest.fixture
def packed(tmp_path) -> PackedImages:
    """20 images of class a, 10 of b, 2 unlabelled."""
    labels = [0] * 20 + [1] * 10 + [UNLABELLED] * 2
    return pack(Arrays(noise(32, 8, 8), labels, "ab"), 8, root=tmp_path)


def test_a_selection_holds_those_images_and_a_run_of_neighbours_stays_on_the_disk(packed):
    chosen = packed.select([3, 1, -1])
    assert chosen.ids == ("3", "1", "31")
    assert np.array_equal(chosen.pixels, packed.pixels[[3, 1, 31]])
    assert chosen.labels.tolist() == [0, 0, UNLABELLED]
    assert np.shares_memory(packed.select(range(4, 9)).pixels, packed.pixels)
    assert packed.select(packed.labels == 1).ids == tuple(map(str, range(20, 30)))
    assert len({packed.fingerprint, chosen.fingerprint, packed.select([1, 3, -1]).fingerprint}) == 3
    assert packed.select(range(32)) is packed
    assert len(packed.select([])) == 0
    with pytest.raises(IndexError):
        packed.select([32])


def test_per_class_takes_as_many_of_each_class_and_more_contain_fewer(packed):
    three, five = packed.per_class(3), packed.per_class(5)
    assert np.bincount(five.labels).tolist() == [5, 5]
    assert set(three.ids) < set(five.ids)
    assert packed.per_class(5, seed=1).ids != five.ids
    with pytest.raises(DatasetError, match="11 images a class are asked for, and b has 10"):
        packed.per_class(11)


def test_a_sample_is_at_most_so_many_images_whatever_their_labels(packed):
    few, more = packed.sample(8), packed.sample(20)
    assert (len(few), len(more)) == (8, 20)
    assert set(few.ids) < set(more.ids)
    assert list(few.ids) == sorted(few.ids, key=int)
    assert packed.sample(8, seed=1).ids != few.ids
    assert UNLABELLED in packed.sample(31).labels
    assert packed.sample(32) is packed
    assert packed.sample(1000) is packed


def test_a_patch_is_in_the_picture_where_its_centre_is_as_discovery_sees_it():
    frames = np.array([[0, 0, 8, 8], [0, -2, 8, 6], [-1, 0, 7, 8], [-3, 0, 13, 16]], np.float32)
    images = PackedImages(
        np.zeros((4, 3, 8, 8), np.uint8), np.zeros(4, np.int64), tuple("abcd"), ("x",), "", frames=frames
    )
    inside = images.in_picture((4, 4))
    assert inside.sum(1).tolist() == [16, 8, 16, 8]
    assert inside[1].reshape(4, 4).all(1).tolist() == [False, True, True, False]
    for grid in ((4, 4), (3, 5), (8, 1)):
        assert (images.in_picture(grid) == (zones(images.pictured, grid) != BARS)).all()
    assert replace(images, frames=None).in_picture((2, 3)).all()


def test_other_pixels_or_labels_are_other_images_and_the_same_ones_are_not(packed):
    other = replace(packed, pixels=255 - np.array(packed.pixels))
    assert other.fingerprint != packed.fingerprint
    assert other.fingerprint == replace(packed, pixels=255 - np.array(packed.pixels)).fingerprint
    assert replace(packed, labels=1 - packed.labels).fingerprint not in (packed.fingerprint, other.fingerprint)
    assert replace(packed, classes=("a", "b")).fingerprint == packed.fingerprint
    assert packed.select([1, 0]).fingerprint == packed.select([1, 0]).fingerprint
