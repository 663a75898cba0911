import numpy as np
import pytest
import torch
from fake_device import fake_device

from prockd.evaluation.probe import linear_probe


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


def test_features_and_labels_may_be_tensors_of_another_device():
    train, test = clouds(60, apart=1.5, seed=1), clouds(150, apart=1.5, seed=2)
    with fake_device() as device:
        tensors = [torch.from_numpy(x).to(device, torch.float32 if x.dtype == float else None) for x in (*train, *test)]
        assert linear_probe(*tensors) == linear_probe(*train, *test)
