"""Parts of a data set, and divisions."""

import numpy as np
import pytest

from prockd._types import UNLABELLED, Sample
from prockd.datasets import Arrays, DatasetError, PackedImages, labels_of, pack, subset, train_test_split


def noise(num_images: int, H: int, W: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num_images, H, W, 3), np.uint8)


@pytest.fixture
def packed(tmp_path) -> PackedImages:
    """20 images of class a, 10 of b, 2 unlabelled."""
    labels = [0] * 20 + [1] * 10 + [UNLABELLED] * 2
    return pack(Arrays(noise(32, 8, 8), labels, "ab"), 8, root=tmp_path)


def test_a_subset_is_a_data_set_and_packed_images_stay_packed(packed):
    whole = Arrays(noise(4, 8, 8), [0, 1, 0, 1], "ab")
    part = subset(whole, [2, 1])
    assert [s.id for s in part] == ["2", "1"]
    assert labels_of(part).tolist() == [0, 1]
    assert (len(part), part.classes) == (2, ("a", "b"))
    assert part.fingerprint not in {whole.fingerprint, subset(whole, [1, 2]).fingerprint}
    assert "2 of Arrays" in repr(part)
    assert isinstance(subset(packed, [0]), PackedImages)
    with pytest.raises(IndexError):
        subset(whole, [4])


@pytest.mark.parametrize("seed", range(3))
def test_a_split_divides_every_class_alike(packed, seed):
    rest, first = train_test_split(packed, 0.7, seed)
    assert np.bincount(labels_of(first) + 1).tolist() == [1, 14, 7]
    ids = [s.id for s in first] + [s.id for s in rest]
    assert sorted(ids) == sorted(packed.ids)
    assert train_test_split(packed, 0.7, seed)[1].fingerprint == first.fingerprint
    assert train_test_split(packed, 0.7, seed + 1)[1].fingerprint != first.fingerprint


@pytest.mark.parametrize("seed", range(5))
def test_a_group_is_never_on_both_sides(seed):
    videos = ["cow"] * 9 + ["goat"] * 5 + ["horse"] * 4 + ["dog"] * 2
    dataset = Arrays(noise(20, 8, 8), [0] * 20, "a")
    rest, first = train_test_split(dataset, 0.5, seed, groups=videos)
    sides = [{videos[int(s.id)] for s in side} for side in (first, rest)]
    assert not sides[0] & sides[1]
    assert sum(len(side) for side in (first, rest)) == 20
    assert min(len(first), len(rest)) >= 5


def test_what_cannot_be_divided_is_refused():
    dataset = Arrays(noise(3, 8, 8), [0, 0, 0], "a")
    with pytest.raises(ValueError, match=r"test_size=1\.0"):
        train_test_split(dataset, 1.0, 0)
    with pytest.raises(DatasetError, match="cannot be divided"):
        train_test_split(dataset, 0.5, 0, groups=["one"] * 3)
    with pytest.raises(DatasetError, match="2 groups for 3 samples"):
        train_test_split(dataset, 0.5, 0, groups=["one", "two"])
    with pytest.raises(DatasetError, match="cannot be divided"):
        train_test_split(subset(dataset, [0]), 0.5, 0)


def test_labels_are_read_from_the_samples_where_the_data_set_has_no_list():
    class World:
        """What every data set offers, and no more."""

        classes = ("a", "b")
        fingerprint = "world"

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Sample:
            return Sample(np.zeros((8, 8, 3), np.uint8), 1 - index, str(index))

    assert labels_of(World()).tolist() == [1, 0]
    assert labels_of(subset(World(), [1])).tolist() == [0]
