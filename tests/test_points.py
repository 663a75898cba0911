import numpy as np
import pytest
import torch
from fake_device import fake_device

from prockd.datasets import PackedImages, PointAnnotations
from prockd.datasets.keypoints import ImagePoints
from prockd.evaluation.points import (
    nearest_agreement,
    point_agreement,
    point_agreement_with_controls,
    point_patches,
)

PARTS = ("ear", "leg", "tail")
GRID = (2, 4)


def points_at(*places: tuple[float, float, int], hidden: int = 0) -> ImagePoints:
    xy = np.array([place[:2] for place in places], np.float32)
    visible = np.arange(len(places)) >= hidden
    return ImagePoints(xy, np.array([p[2] for p in places]), visible, np.full(len(places), -1))


def packed(ids: tuple[str, ...], frames: np.ndarray | None = None, side: int = 16) -> PackedImages:
    M = len(ids)
    pixels = np.random.default_rng(0).integers(0, 256, (M, 3, side, side), np.uint8)
    return PackedImages(pixels, np.full(M, -1), ids, (), "x", frames=frames)


def test_a_point_lies_in_the_patch_that_covers_it():
    annotations = PointAnnotations(PARTS, {"a.jpg": points_at((0, 0, 0), (15.9, 0, 1), (4, 8, 2), (3.9, 7.9, 1))})
    points = point_patches(annotations, packed(("a.jpg",)), GRID)
    assert points.patch.tolist() == [0, 3, 5, 0]
    assert points.part.tolist() == [0, 1, 2, 1]


def test_points_move_with_the_square_that_was_cut_and_those_outside_are_left_out():
    frames = np.array([[100, 0, 180, 40]], np.float32)  # 80 x 40 pixels of a larger picture, stretched
    annotations = PointAnnotations(PARTS, {"a.jpg": points_at((100, 0, 0), (179, 39, 1), (99, 5, 2), (181, 5, 2))})
    points = point_patches(annotations, packed(("a.jpg",), frames), GRID)
    assert points.patch.tolist() == [0, 7]


def test_hidden_points_are_left_out_unless_asked_for():
    annotations = PointAnnotations(PARTS, {"a.jpg": points_at((0, 0, 0), (9, 9, 1), hidden=1)})
    assert point_patches(annotations, packed(("a.jpg",)), GRID).part.tolist() == [1]
    assert point_patches(annotations, packed(("a.jpg",)), GRID, hidden=True).part.tolist() == [0, 1]


def test_a_frame_is_found_by_the_end_of_an_id_and_doubt_is_refused():
    annotations = PointAnnotations(PARTS, {"a.jpg": points_at((0, 0, 0))})
    assert point_patches(annotations, packed(("cow/b.jpg", "cow/a.jpg")), GRID).image.tolist() == [1]
    with pytest.raises(ValueError, match=r"'a\.jpg', which is the end of 2 ids, such as 'cow/a\.jpg'"):
        point_patches(annotations, packed(("cow/a.jpg", "goat/a.jpg")), GRID)
    with pytest.raises(ValueError, match=r"'a\.jpg', which is none of the images: frames must be ids such as 'b\.jpg'"):
        point_patches(annotations, packed(("b.jpg",)), GRID)


def world(noise: float = 0.0) -> tuple[torch.Tensor, PointAnnotations, PackedImages, np.ndarray]:
    """Ten images of two videos; part p is where prototype p + 1 is, at a place that changes from image to image."""
    rng = np.random.default_rng(3)
    ids = tuple(f"{'ab'[m // 5]}/{m}.jpg" for m in range(10))
    a, annotations = torch.zeros(10, 8, 4), {}
    a[..., 0] = 1
    for m, name in enumerate(ids):
        places = rng.permutation(8)[: len(PARTS)]
        for part, patch in enumerate(places):
            a[m, patch] = torch.eye(4)[part + 1 if rng.random() >= noise else 0]
        annotations[name] = points_at(
            *((patch % 4 * 4 + 1.0, patch // 4 * 8 + 1.0, p) for p, patch in enumerate(places))
        )
    return a, PointAnnotations(PARTS, annotations), packed(ids), np.arange(10) < 5


def test_prototypes_that_are_parts_agree_in_full_and_what_knows_no_parts_does_not():
    assignments, annotations, images, train = world()
    agreement = point_agreement_with_controls(
        assignments, point_patches(annotations, images, GRID), images, GRID, train
    )
    assert agreement["prototypes"].accuracy == 1
    assert agreement["prototypes"].named[1:].tolist() == [0, 1, 2]
    assert agreement["prototypes"].chance == pytest.approx(1 / 3)
    assert agreement["prototypes"].row() == {
        "accuracy": "100.0%", "mean over parts": "100.0%", "ear": "100%", "leg": "100%", "tail": "100%",
    }  # fmt: skip
    for control in ("raw pixels", "place in the image", "shuffled", "5 nearest places"):
        assert agreement[control].accuracy < 0.7, control


def test_names_come_from_the_training_images_alone():
    assignments, annotations, images, train = world()
    swapped = assignments.clone()
    swapped[5:, :, [1, 2]] = assignments[5:, :, [2, 1]]  # in the other video ear and leg change their prototypes
    assigned = swapped.argmax(-1).numpy()
    agreement = point_agreement(assigned, point_patches(annotations, images, GRID), train, 4)
    np.testing.assert_array_equal(agreement.recall, [0, 0, 1])
    assert agreement.accuracy == pytest.approx(1 / 3)
    assert agreement.balanced == pytest.approx(1 / 3)


def test_a_prototype_without_a_training_point_tells_the_commonest_part_and_an_absent_part_is_not_counted():
    annotations = PointAnnotations(
        PARTS, {"a": points_at((0, 0, 1), (0, 8, 1), (9, 9, 0)), "b": points_at((0, 0, 1), (9, 9, 0))}
    )
    points = point_patches(annotations, packed(("a", "b")), GRID)
    assigned = np.array([[0] * 4 + [0, 0, 1, 1], [2] * 4 + [0, 0, 1, 1]])
    agreement = point_agreement(assigned, points, np.array([True, False]), 3)
    assert agreement.named.tolist() == [1, 0, 1]
    assert agreement.accuracy == 1
    assert agreement.counts.tolist() == [1, 1, 0]
    assert np.isnan(agreement.recall[2])
    assert agreement.row()["tail"] is None


def test_the_nearest_places_tell_parts_that_keep_their_place_however_near_they_are():
    ids = tuple(f"{m}.jpg" for m in range(12))
    near = points_at((3.0, 3.0, 0), (3.6, 3.0, 1), (12.0, 12.0, 2))  # an ear and a leg in one patch
    annotations = PointAnnotations(PARTS, dict.fromkeys(ids, near))
    images, train = packed(ids), np.arange(12) < 6
    agreement = point_agreement_with_controls(
        torch.rand(12, 8, 4), point_patches(annotations, images, GRID), images, GRID, train
    )
    assert agreement["5 nearest places"].accuracy == 1
    assert agreement["place in the image"].accuracy < 1


def test_without_points_on_one_side_there_is_nothing_to_measure():
    assignments, annotations, images, _ = world()
    points, assigned = point_patches(annotations, images, GRID), assignments.argmax(-1).numpy()
    with pytest.raises(ValueError, match="no key points on the test images"):
        point_agreement(assigned, points, np.ones(10, bool), 4)
    with pytest.raises(ValueError, match="no key points on the train images"):
        point_agreement(assigned, points, np.zeros(10, bool), 4)


def test_assignments_on_another_device_agree_as_those_on_the_cpu_do():
    assignments, annotations, images, train = world(noise=0.3)
    points = point_patches(annotations, images, GRID)
    with fake_device() as device:
        there = point_agreement_with_controls(assignments.to(device), points, images, GRID, train)
    for name, here in point_agreement_with_controls(assignments, points, images, GRID, train).items():
        np.testing.assert_array_equal(there[name].recall, here.recall)


def test_points_are_near_by_place_or_by_values_that_know_parts():
    assignments, annotations, images, train = world(noise=0.3)
    points = point_patches(annotations, images, GRID)
    by_values = nearest_agreement(points, train, np.eye(len(PARTS))[points.part])
    assert by_values.accuracy == by_values.right.mean() == 1
    by_place = nearest_agreement(points, train)
    assert by_place.accuracy == by_place.right.mean() < 1, "parts move from image to image"
    agreement = point_agreement(assignments.argmax(-1).numpy(), points, train, assignments.shape[2])
    assert len(agreement.right) == (~train[points.image]).sum()
    assert agreement.accuracy == agreement.right.mean()
