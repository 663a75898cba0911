"""Segmentation: a class for each pixel."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TINY
from torch.nn import functional as F

from prockd._types import IGNORE
from prockd.datasets import PackedImages
from prockd.datasets.transforms import whole_images
from prockd.evaluation.scores import evaluate, predict
from prockd.farmyard import PARTS, Farmyard
from prockd.settings.method import DistillConfig, FeatureAugmentationConfig
from prockd.students.student import Student
from prockd.tasks import Segmentation, Task
from prockd.tasks.segmentation import dice_loss
from prockd.training.loop import distill

TASK = Segmentation(3, ("ground", "disc", "bar"), width=16)


def drawn(count: int = 12, side_px: int = 32) -> PackedImages:
    """Bright discs and dark bars on grey noise, with their masks; a frame of two pixels is not known."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side_px, :side_px]
    masks = np.zeros((count, side_px, side_px), np.uint8)
    for mask in masks:
        cx, cy, bar = rng.integers(8, 24, 3)
        mask[np.abs(x - bar) < 3] = 2
        mask[(x - cx) ** 2 + (y - cy) ** 2 < 36] = 1
    grey = np.array([128, 230, 30])[masks][:, None] + rng.normal(0, 12, (count, 3, side_px, side_px))
    masks[:, :2] = IGNORE
    ids = tuple(f"{i}.png" for i in range(count))
    labels = np.full(count, -1)
    return PackedImages(grey.clip(0, 255).astype(np.uint8), labels, ids, TASK.classes, "drawn", masks=masks)


@pytest.fixture(scope="module")
def images() -> PackedImages:
    return drawn()


def test_it_is_a_task_and_its_head_gives_a_score_for_each_pixel_of_any_grid():
    assert isinstance(TASK, Task)
    for grid in ((8, 8), (3, 5)):
        logits = TASK.head(16, grid, 32)(torch.randn(2, grid[0] * grid[1], 16))
        assert logits.shape == (2, 3, 32, 32)


def test_rows_and_columns_of_the_grid_stay_where_they_are():
    torch.manual_seed(1)  # of some heads the norm over all places moves the others nearly as much
    head = TASK.head(16, (4, 4), 32).eval()
    features = torch.zeros(1, 16, 16)
    still = head(features)
    features[0, 3] = 5.0  # first row, last column
    moved = (head(features) - still).abs().sum(1)[0]
    assert moved[:16, 16:].mean() > 2 * moved[16:, :16].mean()


def test_ignored_pixels_change_neither_the_loss_nor_the_score(images):
    logits = torch.randn(2, 3, 32, 32)
    targets = TASK.targets(images, np.array([0, 1]), whole_images(2), 32)
    assert (targets[:, :2] == IGNORE).all()
    other = logits.clone()
    other[:, :, :2] = 40 * torch.randn(2, 3, 2, 32)
    torch.testing.assert_close(TASK.loss(logits, targets), TASK.loss(other, targets))
    two = images.select([0, 1])
    assert TASK.score(TASK.decode(logits, 32), two).value == TASK.score(TASK.decode(other, 32), two).value
    nothing = torch.full((2, 32, 32), IGNORE)
    assert TASK.loss(logits.requires_grad_(), nothing).item() == 0


def test_the_loss_is_cross_entropy_and_dice():
    targets = torch.tensor([[[0, 0], [1, 1]]])
    logits = torch.zeros(1, 3, 2, 2)
    # each class is guessed with 1/3 everywhere: both = 2/3, all = 4/3 + 2, so Dice = (4/3 + 1) / (10/3 + 1)
    dice = 1 - (4 / 3 + 1) / (10 / 3 + 1)
    assert dice_loss(logits, targets).item() == pytest.approx(dice, abs=1e-6)
    assert TASK.loss(logits, targets).item() == pytest.approx(np.log(3) + dice, abs=1e-6)
    assert replace(TASK, dice_weight=0.0).loss(logits, targets).item() == pytest.approx(np.log(3), abs=1e-6)
    right = 50 * F.one_hot(targets, 3).movedim(-1, 1).float()
    assert TASK.loss(right, targets).item() == pytest.approx(0, abs=1e-3)


def test_weights_make_the_pixels_of_a_class_count_more():
    targets = torch.tensor([[[0, 1], [0, 1]]])
    logits = torch.tensor([3.0, 0.0, 0.0])[None, :, None, None].expand(1, 3, 2, 2)
    heavy = replace(TASK, dice_weight=0.0, class_weights=(1.0, 9.0, 1.0))
    assert heavy.loss(logits, targets) > 1.5 * replace(TASK, dice_weight=0.0).loss(logits, targets)


def test_consistency_is_the_divergence_of_each_pixel():
    plain, augmented = torch.randn(2, 2, 3, 4, 4)
    assert TASK.consistency(plain, plain + 1.0).item() == pytest.approx(0, abs=1e-6)
    p, q = augmented.softmax(1), plain.softmax(1)
    torch.testing.assert_close(TASK.consistency(plain, augmented), (p * (p / q).log()).sum(1).mean())


def test_the_score_is_the_mean_iou_over_all_images_worked_by_hand():
    masks = np.array([[[0, 0, 1, 1]] * 4, [[0, 0, 0, IGNORE]] * 4], np.uint8)
    guess = np.array([[[0, 1, 1, 1]] * 4, [[0, 0, 0, 2]] * 4], np.uint8)
    images = PackedImages(np.zeros((2, 3, 4, 4), np.uint8), np.full(2, -1), ("a", "b"), TASK.classes, "x", masks=masks)
    score = TASK.score(guess, images)
    assert score.per_class[:2] == pytest.approx([4 / 5, 2 / 3])  # 16 of 20 pixels, 8 of 12
    assert np.isnan(score.per_class[2])  # no image shows it
    assert score.value == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert score.details["pixel accuracy"] == pytest.approx(24 / 28)


def test_images_without_masks_and_masks_of_other_classes_are_refused(images, packed):
    with pytest.raises(ValueError, match=r"has no masks: Segmentation learns Sample\.mask"):
        TASK.check(packed)
    with pytest.raises(ValueError, match=r"mask of image '0\.png' holds \[2\], but the task has classes 0\.\.1"):
        Segmentation(2).check(images)
    with pytest.raises(ValueError, match=r"width=12: must be a multiple of 8"):
        Segmentation(3, width=12)


def test_a_student_learns_to_segment_with_both_predictions(images, bank):
    student = Student(
        "resnet10t", TASK, bank, feature_augmentation=FeatureAugmentationConfig(), image_px=32, grid=8, **TINY
    )
    config = DistillConfig(steps=60, batch_size=8, assignment_weight=0.0, feature_weight=0.0, consistency_weight=0.1)
    history = distill(student, images, config=config, val=images, cpu=True, progress=False, log_every=1)
    assert {"task", "augmented", "consistency"} < history.rows[-1].keys()
    assert "mean IoU: plain z" in repr(history.scores)
    assert history.scores.plain > 0.6
    assert history.scores.augmented > 0.6
    assert history.scores.predictions.shape == (12, 32, 32)
    assert history.scores.per_class.shape == (3,)


def test_masks_are_predicted_at_the_size_of_the_images(images):
    student = Student("resnet10t", TASK, image_px=32, embed_dim=16, **TINY)
    large = replace(
        images, pixels=images.pixels.repeat(2, 2).repeat(2, 3), masks=images.masks.repeat(2, 1).repeat(2, 2)
    )
    assert predict(student, large).shape == (12, 64, 64)
    assert evaluate(student, large).plain == pytest.approx(evaluate(student, images).plain, abs=0.05)


def test_farmyard_tells_its_parts_as_masks():
    parts, species = (Farmyard("target", "train", 4, image_px=32, labels=labels) for labels in ("parts", "species"))
    assert parts.classes == PARTS
    assert parts.fingerprint != species.fingerprint
    assert np.array_equal(parts[1].mask, species[1].parts)
    assert np.array_equal(parts[1].image, species[1].image)
    assert (parts[1].boxes, parts[1].label, species[1].mask) == (None, -1, None)
    assert "labels='parts'): 9 classes background" in repr(parts)


def test_trivial_answers_are_one_class_everywhere_and_the_mean_mask():
    images = drawn()
    found = TASK.trivial(images, 5)
    assert list(found) == ["all ground", "mean mask"]
    assert found["all ground"].shape == found["mean mask"].shape == (5, 32, 32)
    known = np.where(images.masks == IGNORE, 3, images.masks)
    expected = np.stack([(known == c).sum(0) for c in range(3)]).argmax(0)
    np.testing.assert_array_equal(found["mean mask"][4], expected)
    for decoded in TASK.trivial(images, len(images)).values():
        assert 0 < TASK.score(decoded, images).value < 1
