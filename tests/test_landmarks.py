from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
import torch
from part_world import masked

from prockd.datasets import PointAnnotations
from prockd.datasets.keypoints import ImagePoints
from prockd.evaluation.landmarks import at_points, centroids, point_measure, points_of
from prockd.evaluation.points import PointPatches, point_patches
from prockd.farmyard import Farmyard
from prockd.farmyard.body import KEYPOINTS

GRID = (8, 8)


def world(num_images: int = 60):
    """Two points an image, at random places; prototypes 1 and 2 are bright where they are, 0 elsewhere."""
    rng, images = np.random.default_rng(0), masked(num_images=num_images)
    cells = np.stack([rng.permutation(64)[:2] for _ in range(num_images)])  # (M, 2)
    assignments = torch.full((num_images, 64, 3), 0.001)
    assignments[..., 0] = 0.5
    known = {}
    for m, pair in enumerate(cells):
        for part, patch in enumerate(pair):
            assignments[m, patch] = torch.eye(3)[part + 1]
        xy = np.stack([pair % 8 * 4 + 2, pair // 8 * 4 + 2], 1).astype(np.float32)
        known[images.ids[m]] = ImagePoints(xy, np.arange(2), np.ones(2, bool), np.arange(2))
    points = point_patches(PointAnnotations(("eye", "tail"), MappingProxyType(known)), images, GRID)
    return assignments, points, images


def test_prototypes_that_follow_points_tell_them_and_where_they_are():
    assignments, points, images = world()
    found = point_measure(assignments, points, images, GRID)
    assert (found.nmi, found.ari) == pytest.approx((1, 1))
    assert found.error < 5
    shuffled = assignments.flatten(0, 1)[torch.randperm(60 * 64, generator=torch.Generator().manual_seed(0))]
    lost = point_measure(shuffled.reshape(assignments.shape), points, images, GRID)
    assert lost.nmi < 0.2
    assert lost.error > 25, "no better than the middle"


def test_hard_groups_are_measured_too():
    assignments, points, images = world()
    assert point_measure(assignments.argmax(-1).numpy(), points, images, GRID).nmi == pytest.approx(1)


def test_distances_are_in_sides_of_the_animals_box():
    assignments, points, images = world()
    halved = replace(images, boxes=(np.array([[0, 0, 16, 32]], np.float32),) * len(images))
    lost = torch.rand(assignments.shape, generator=torch.Generator().manual_seed(0))
    whole, half = (point_measure(lost, points, each, GRID).error for each in (images, halved))
    assert half > 1.3 * whole, "a box half as wide: distances across count twice"


def test_two_animals_in_an_image_have_no_box_to_measure_in():
    assignments, points, images = world()
    two = replace(images, boxes=(np.zeros((2, 4), np.float32),) * len(images))
    with pytest.raises(ValueError, match="image '0' has 2 boxes"):
        point_measure(assignments, points, two, GRID)


def test_assignments_at_a_point_are_those_of_the_enlarged_map():
    assignments, rng = torch.rand(2, 64, 3), np.random.default_rng(0)
    pixel = rng.integers(0, 32, (20, 2))
    image, xy = rng.integers(0, 2, 20), (pixel + 0.5) / 32
    points = PointPatches(image, np.zeros(20, np.int64), np.zeros(20, np.int64), ("eye",), xy)
    maps = assignments.transpose(1, 2).reshape(2, 3, 8, 8)
    large = torch.nn.functional.interpolate(maps, (32, 32), mode="bilinear", align_corners=False).numpy()
    np.testing.assert_allclose(at_points(assignments, points, GRID), large[image, :, pixel[:, 1], pixel[:, 0]], 1e-4)


def test_a_centroid_is_the_mean_place_and_the_middle_where_there_is_none():
    a = torch.zeros(1, 4, 2)
    a[0, 1, 0] = a[0, 3, 0] = 0.5  # both patches to the right of a grid of 2 x 2
    np.testing.assert_allclose(centroids(a, (2, 2))[0], [[0.75, 0.5], [0.5, 0.5]])


def test_key_points_of_farmyard_lie_on_the_animal():
    dataset = Farmyard("target", "val", 4, image_px=64)
    annotations = points_of(dataset, KEYPOINTS)
    for m, known in enumerate(annotations.images.values()):
        column, row = np.floor(known.xy[known.visible]).astype(int).T
        assert (dataset[m].parts[row, column] > 0).all()
    with pytest.raises(ValueError, match="tells 17 key points an animal, not 1"):
        points_of(dataset, ("eye",))


def test_key_points_that_all_lie_outside_are_refused():
    known = {
        "0": ImagePoints(
            np.full((1, 2), 99, np.float32), np.zeros(1, np.int64), np.ones(1, bool), np.zeros(1, np.int64)
        )
    }
    annotations = PointAnnotations(("eye",), MappingProxyType(known))
    with pytest.raises(ValueError, match="none of 1 key points is visible inside its image"):
        point_patches(annotations, masked(), GRID)
