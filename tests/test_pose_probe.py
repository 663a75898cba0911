"""A ridge on patches tells where joints are."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_key_points import TASK, drawn

from prockd.evaluation.pose_probe import PatchRidge, ridge_pose, surrounded
from prockd.prototypes.embedding import embed_features


def colours(images, grid=(16, 16)):
    pixels = torch.from_numpy(np.array(images.pixels)).float() / 255

    def of(rows: np.ndarray) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(pixels[rows], grid).flatten(2).mT

    return of


def test_a_ridge_on_patches_finds_joints_on_images_that_it_has_not_seen():
    images = drawn(40)
    train, test = images.select(np.arange(30)), images.select(np.arange(30, 40))
    ridge = PatchRidge(TASK, (16, 16)).fit(colours(train), train)
    told = ridge.predict(colours(test), np.arange(10), test.image_px)
    assert TASK.score(told, test).value > TASK.score(TASK.trivial(train, 10)["mean pose"], test).value + 0.4
    blind = PatchRidge(TASK, (16, 16)).fit(lambda rows: torch.zeros(len(rows), 256, 1), train)
    told = blind.predict(lambda rows: torch.zeros(len(rows), 256, 1), np.arange(10), test.image_px)
    assert TASK.score(told, test).value < 0.5


def test_a_patch_is_read_with_the_means_of_what_is_around_it():
    grid = (8, 12)
    values = torch.arange(96.0).view(1, 96, 1)
    read = surrounded(values, grid)
    assert read.shape == (1, 96, 4)
    assert torch.equal(read[..., :1], values)
    assert read[0, 2 * 12 + 5, 1].item() == values.view(*grid)[2, 4:7].mean().item()  # a quarter of the grid, made odd
    assert read[0, 0, 2].item() == values.view(*grid)[:3, :3].mean().item()  # half of it, as far as it goes


def test_hidden_joints_and_batches_do_not_change_what_the_ridge_learns():
    images = drawn(12)
    wild = images.joints.copy()
    wild[0, 2] = [20, 20, 0]
    weights = [
        PatchRidge(TASK, (16, 16)).fit(colours(images), some, batch_size=size).weights
        for some, size in ((images, 16), (replace(images, joints=wild), 16), (images, 5))
    ]
    torch.testing.assert_close(weights[0], weights[1])
    torch.testing.assert_close(weights[0], weights[2], rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="needs 3 images at least"):
        PatchRidge(TASK, (16, 16)).fit(colours(images), images.select([0, 1]))


def test_a_teachers_patches_are_read_as_they_are_or_as_something_else(features, bank):
    seen = replace(features, images=replace(drawn(12), ids=features.images.ids))
    embedded = embed_features(bank, seen)
    told = ridge_pose(TASK, embedded, embedded.select(np.arange(5)))
    assert told.shape == (5, 3, 3)
    nothing = ridge_pose(TASK, embedded, embedded.select(np.arange(5)), read=lambda values: values[..., :1] * 0)
    assert np.allclose(nothing, nothing[:1])  # the same pose for all
    assert not np.allclose(told, told[:1])
