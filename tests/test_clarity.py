import numpy as np
import pytest
import torch

from prockd.evaluation.clarity import clarity_of, lives_in_one, strongest_vectors


def test_prototypes_of_one_thing_each_are_clear_different_and_single():
    vectors = np.eye(4, 6)[:, None].repeat(10, 1) + 0
    found = clarity_of(vectors)
    assert (found.clarity, found.redundancy, found.polysemanticity) == pytest.approx((1, 0, 0))


def test_a_prototype_of_two_things_is_polysemantic_and_half_clear():
    two = np.eye(2, 6).repeat(5, 0)
    found = clarity_of(np.stack([two, two]))
    assert found.polysemanticity == pytest.approx(1)
    assert found.clarity == pytest.approx(4 / 9)  # of 45 pairs 20 are alike
    assert found.redundancy == pytest.approx(1)


def test_clarity_is_the_mean_cosine_of_pairs():
    vectors = np.random.default_rng(0).normal(size=(2, 5, 7))
    unit = vectors / np.linalg.norm(vectors, axis=2, keepdims=True)
    pairs = [unit[k] @ unit[k].T for k in range(2)]
    expected = np.mean([p[~np.eye(5, dtype=bool)].mean() for p in pairs])
    assert clarity_of(vectors).clarity == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(1, 9, 3), (9, 1, 3)])
def test_one_prototype_or_one_patch_has_nothing_to_be_compared_with(shape):
    with pytest.raises(ValueError, match="clarity compares at least 2 of both"):
        clarity_of(np.ones(shape))


def test_the_strongest_vectors_are_those_of_the_strongest_patches(bank, features):
    a = bank.assignments(features)
    vectors = strongest_vectors(bank, features, a, top=3)
    used = a.argmax(-1).flatten().bincount(minlength=6).nonzero().flatten()
    assert vectors.shape == (len(used), 3, 16)
    k = int(used[0])
    image = int(a[:, :, k].max(1).values.argmax())
    u = bank.embed(features.fused([image]))[0, int(a[image, :, k].argmax())]
    torch.testing.assert_close(torch.from_numpy(vectors[0, 0]), u.detach())


def test_prototypes_that_live_in_one_group_are_counted():
    assigned = np.array([[0, 0, 1], [0, 0, 1], [0, 3, 1], [3, 0, 1]])
    assert lives_in_one(assigned, ["cow", "cow", "goat", "goat"]) == pytest.approx(1 / 3)  # prototype 3; 2 is unused
    assert lives_in_one(assigned, np.arange(4)) == 0
    with pytest.raises(ValueError, match="all images are of one group, 'cow'"):
        lives_in_one(assigned, ["cow"] * 4)


def test_only_the_patches_that_are_asked_count():
    assigned, asked = np.array([[0, 1], [0, 1]]), np.array([[True, False], [True, True]])
    assert lives_in_one(assigned, ["cow", "goat"], asked) == 0.5
