"""Detection: torchvision's detectors on a student's map."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TINY
from torchmetrics.detection import MeanAveragePrecision

from prockd.datasets import PackedImages
from prockd.datasets.transforms import whole_images
from prockd.evaluation.scores import evaluate, predict
from prockd.settings.method import DistillConfig, FeatureAugmentationConfig
from prockd.students.student import Student
from prockd.tasks import Boxes, Detection, Task
from prockd.tasks.detectors import DETECTORS
from prockd.training.loop import distill

TASK = Detection(2, ("bright", "dark"), width=32, num_levels=2)


def drawn(count: int = 12, side_px: int = 32) -> PackedImages:
    """One bright or dark square on noise; the last image shows none."""
    rng = np.random.default_rng(0)
    pixels = rng.normal(128, 10, (count, 3, side_px, side_px))
    boxes, labels = [], []
    for m in range(count):
        x, y, side = (*rng.integers(0, 14, 2).tolist(), int(rng.integers(10, 17)))
        shown = m < count - 1
        if shown:
            pixels[m, :, y : y + side, x : x + side] += 90 if m % 2 == 0 else -90
        boxes.append(np.array([[x, y, x + side, y + side]] * shown, np.float32).reshape(-1, 4))
        labels.append(np.array([m % 2] * shown, np.int64))
    ids = tuple(f"{i}.png" for i in range(count))
    return PackedImages(
        pixels.clip(0, 255).astype(np.uint8), np.full(count, -1), ids, TASK.classes, "drawn",
        boxes=tuple(boxes), box_labels=tuple(labels),
    )  # fmt: skip


@pytest.fixture(scope="module")
def images() -> PackedImages:
    return drawn()


def of(kind: str) -> Detection:
    return replace(TASK, detector=kind)


def test_it_is_a_task_with_a_detector_that_exists():
    assert isinstance(TASK, Task)
    with pytest.raises(ValueError, match=r"detector='yolo': choose one of 'fcos', 'retinanet', 'fasterrcnn'"):
        of("yolo")
    with pytest.raises(ValueError, match="width=40: must be a multiple of 32"):
        Detection(2, width=40)
    with pytest.raises(ValueError, match=r"dropout=1\.0: must be at least 0 and less than 1"):
        Detection(2, dropout=1.0)


@pytest.mark.parametrize("kind", DETECTORS)
def test_every_detector_learns_with_both_predictions_from_images_with_and_without_objects(images, bank, kind):
    student = Student(
        "resnet10t", of(kind), bank, feature_augmentation=FeatureAugmentationConfig(), image_px=32, grid=8, **TINY
    )
    steps = 40 if kind == "fcos" else 12
    config = DistillConfig(
        steps=steps, batch_size=8, assignment_weight=0.0, feature_weight=0.0, consistency_weight=0.1, min_crop=0.8
    )
    history = distill(student, images, config=config, val=images, cpu=True, progress=False, log_every=1)
    losses = history.curve("task")[1]
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])
    assert {"task", "augmented", "consistency"} < history.rows[-1].keys()
    assert "mAP: plain z" in repr(history.scores)
    assert history.scores.details["AP at IoU 0.5"] > 0.1 or kind != "fcos"
    assert len(history.scores.predictions) == len(history.scores.augmented_predictions) == 12


@pytest.mark.parametrize("kind", DETECTORS)
def test_the_gradient_of_both_losses_reaches_every_part_of_the_head(images, kind):
    head = of(kind).head(16, (8, 8), 32)
    features = torch.randn(4, 64, 16, requires_grad=True)
    targets = of(kind).targets(images, np.arange(4), whole_images(4), 32)
    raw, other = head(features), head(features + 0.1 * torch.randn(4, 64, 16))
    (of(kind).loss(raw, targets) + of(kind).consistency(raw, other)).backward()
    assert features.grad.abs().sum() > 0
    assert [name for name, p in head.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@pytest.mark.parametrize("kind", DETECTORS)
def test_a_batch_without_any_object_has_a_finite_loss(images, kind):
    head = of(kind).head(16, (8, 8), 32)
    targets = of(kind).targets(images, np.array([11, 11]), whole_images(2), 32)
    assert [len(t["labels"]) for t in targets] == [0, 0]
    loss = of(kind).loss(head(torch.randn(2, 64, 16)), targets)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in head.parameters())


@pytest.mark.parametrize("grid", [(8, 8), (7, 7)])
def test_a_place_stands_where_it_is_in_the_image(grid):
    head = TASK.head(16, grid, 56)
    raw = head(torch.randn(1, grid[0] * grid[1], 16))
    anchors, (first, second) = head.anchors(raw)[0], head.counts(raw)
    assert len(anchors) == first + second == raw.outputs["cls_logits"].shape[1]
    centres = (anchors[:first, :2] + anchors[:first, 2:]) / 2
    stride = 56 / grid[0]
    assert centres[1].tolist() == pytest.approx([stride, 0], abs=1)
    assert centres[grid[1]].tolist() == pytest.approx([0, stride], abs=1)


@pytest.mark.parametrize("seed", range(5))
def test_no_distance_of_a_new_fcos_starts_dead_behind_its_relu(seed):
    torch.manual_seed(seed)
    distances = TASK.head(16, (8, 8), 32)(torch.randn(4, 64, 16)).outputs["bbox_regression"]
    assert (distances > 0).float().mean() > 0.99


@pytest.mark.parametrize("kind", DETECTORS)
def test_whole_channels_are_left_out_in_training_and_none_afterwards(kind):
    head, features = of(kind).head(16, (8, 8), 32), torch.randn(2, 64, 16)
    read = []
    head.pyramid.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].detach()))
    head(features)
    kept = (read[0] != 0).float()  # (2, 64, 16)
    assert torch.equal(kept, kept[:, :1].expand_as(kept))
    assert 0 < kept.mean() < 1
    head.eval()(features)
    assert torch.equal(read[1], features)
    without = replace(of(kind), dropout=0.0).head(16, (8, 8), 32)
    without.pyramid.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].detach()))
    without(features)
    assert torch.equal(read[2], features)


def test_consistency_is_zero_for_equal_predictions_and_counts_places_that_show_something():
    head = TASK.head(16, (8, 8), 32).eval()
    features = torch.randn(2, 64, 16)
    raw = head(features)
    assert TASK.consistency(raw, head(features)).item() == pytest.approx(0, abs=1e-6)
    sure, unsure = (head(features) for _ in range(2))
    for other, logit in ((sure, 3.0), (unsure, -9.0)):
        other.outputs["cls_logits"][:, 0, 0] = logit
        other.outputs["bbox_regression"][:, 0] += 1
    apart = TASK.consistency(raw, sure).item()
    assert apart > 10 * TASK.consistency(raw, unsure).item() > 0


def test_decoded_boxes_lie_in_the_image_best_first_at_the_size_that_is_asked_for(images):
    student = Student("resnet10t", TASK, image_px=32, grid=8, embed_dim=16, **TINY)
    large = replace(images, pixels=images.pixels.repeat(2, 2).repeat(2, 3), boxes=tuple(2 * b for b in images.boxes))
    for found, twice in zip(predict(student, images), predict(student, large), strict=True):
        assert (np.diff(found.scores) <= 0).all()
        assert found.boxes.min() >= 0
        assert found.boxes.max() <= 32
        assert set(found.labels) <= {0, 1}
        assert 32 < twice.boxes.max() <= 64
    kept = found.above(float(found.scores[0]))
    assert 1 <= len(kept) < len(found)


def test_the_score_is_coco_map_and_that_of_each_class(images):
    truth = TASK.truth(images)
    perfect = TASK.score(truth, images)
    assert perfect.value == pytest.approx(1)
    assert perfect.per_class == pytest.approx([1, 1])
    swapped = [replace(b, labels=1 - b.labels) for b in truth]
    assert TASK.score(swapped, images).value == 0
    nothing = [Boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32))] * 12
    assert TASK.score(nothing, images).value == 0
    moved = [replace(b, boxes=b.boxes + np.float32(2)) for b in truth]
    score = TASK.score(moved, images)
    assert 0.1 < score.value < 0.9
    assert score.details["AP at IoU 0.5"] > score.details["AP at IoU 0.75"]
    bright = TASK.score([b for b, known in zip(truth, truth, strict=True) if 0 in known.labels], images.select(
        [m for m, known in enumerate(truth) if 0 in known.labels]
    ))  # fmt: skip
    assert bright.per_class[0] == pytest.approx(1)
    assert np.isnan(bright.per_class[1])


def test_boxes_are_matched_once_and_any_of_the_images_score_as_torchmetrics_has_it(images, monkeypatch):
    rng, truth = np.random.default_rng(0), TASK.truth(images)
    found = [
        Boxes(b.boxes + rng.normal(0, 2, b.boxes.shape).astype(np.float32), b.labels, rng.random(len(b), np.float32))
        for b in truth
    ]
    chosen = (np.arange(len(images)), np.array([1, 4, 5, 9]), np.array([2]))
    known, exact = [], {"rec_thresholds": np.linspace(0, 1, 101).tolist()}  # its own are rounded to single precision
    exact["iou_thresholds"] = np.linspace(0.5, 0.95, 10).tolist()
    for rows in chosen:
        reference = MeanAveragePrecision(class_metrics=True, **exact)
        reference.update(*([{k: torch.tensor(v) for k, v in vars(s[m]).items()} for m in rows] for s in (found, truth)))
        known.append(reference.compute())
    scored = TASK.scorer(found, images)
    monkeypatch.setattr("pycocotools.cocoeval.COCOeval.evaluate", None)
    for rows, told in zip(chosen, known, strict=True):
        score = scored(rows)
        assert score.value == pytest.approx(float(told["map"]), abs=1e-6)
        assert score.details["AP at IoU 0.75"] == pytest.approx(float(told["map_75"]), abs=1e-6)
        np.testing.assert_allclose(score.per_class[told["classes"]], told["map_per_class"], atol=1e-6)


def test_images_without_boxes_labels_outside_the_task_and_no_object_at_all_are_refused(images, packed):
    with pytest.raises(ValueError, match=r"has no boxes: Detection learns Sample\.boxes"):
        TASK.check(packed)
    with pytest.raises(ValueError, match=r"image '1\.png' has a box of label 1, but the task has classes 0\.\.0"):
        Detection(1).check(images)
    with pytest.raises(ValueError, match="shows no object at all"):
        TASK.check(images.select([11]))
    unknown = replace(images, box_labels=tuple(np.full_like(b, -1) for b in images.box_labels))
    with pytest.raises(ValueError, match=r"image '0\.png' has a box of label -1.*as unlabelled="):
        TASK.check(unknown)


def test_scores_do_not_depend_on_the_batch_size(images):
    student = Student("resnet10t", TASK, image_px=32, grid=8, embed_dim=16, **TINY)
    together, alone = evaluate(student, images), evaluate(student, images, batch_size=5)
    for a, b in zip(together.predictions, alone.predictions, strict=True):
        assert a.labels[:5].tolist() == b.labels[:5].tolist()
        assert a.boxes[:5] == pytest.approx(b.boxes[:5], abs=1e-2)


def test_the_trivial_answer_is_the_mean_box_of_each_class_that_is_shown():
    images = drawn()
    (found,) = TASK.trivial(images, 3).values()
    assert len(found) == 3
    boxes, labels = np.concatenate(images.boxes), np.concatenate(images.box_labels)
    for box, label, score in zip(found[0].boxes, found[0].labels, found[0].scores, strict=True):
        np.testing.assert_allclose(box, boxes[labels == label].mean(0), rtol=1e-5)
        assert score == pytest.approx((labels == label).sum() / len(images))
    assert found[0].scores.tolist() == sorted(found[0].scores.tolist(), reverse=True)
    one = replace(images, box_labels=tuple(np.zeros_like(labels) for labels in images.box_labels))
    assert TASK.trivial(one, 1)["mean boxes"][0].labels.tolist() == [0]
