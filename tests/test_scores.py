"""What a student predicts of any images, and how good that is, on any device."""

import numpy as np
import pytest
import torch
from fake_device import accelerator, fake_device
from loop_world import TASK, annotated, homes, made

from prockd.datasets import Arrays, pack
from prockd.datasets.transforms import whole_images
from prockd.evaluation.scores import evaluate, outputs, predict
from prockd.settings.method import FeatureAugmentationConfig
from prockd.tasks import Segmentation
from prockd.training.batches import Source


def test_images_that_are_not_packed_are_packed_at_the_students_size(stripes, packed):
    student = made(image_px=48)
    large = pack(stripes, 48, progress=False)
    assert predict(student, stripes).tolist() == predict(student, large).tolist()
    assert evaluate(student, stripes).plain == evaluate(student, large).plain
    assert len(predict(student, packed)) == 12  # packed ones are taken as they are, at any size


def test_images_without_labels_are_predicted_and_not_scored(stripes):
    unlabelled = Arrays(stripes.images, [-1] * 12, stripes.classes)
    assert predict(made(), unlabelled).tolist() == predict(made(), stripes).tolist()
    with pytest.raises(ValueError, match="has label -1"):
        evaluate(made(), unlabelled)


@pytest.mark.parametrize("dense", [False, True])
def test_a_student_is_moved_to_predict_and_comes_back_in_the_mode_it_was_in(packed, bank, dense):
    task, images = (Segmentation(2, width=8), annotated(packed)) if dense else (TASK, packed)
    student = made(bank, FeatureAugmentationConfig("attention"), task=task).train()
    here = [predict(student, images, augmented=plus) for plus in (False, True)]
    with fake_device() as away, accelerator(away):
        there = [predict(student, images, augmented=plus) for plus in (False, True)]
        scores = evaluate(student, images)
        assert homes(student, bank) == {"cpu"}
        assert student.training
    for a, b in zip(here, there, strict=True):
        assert np.array_equal(a, b)
    assert scores.plain == evaluate(student, images).plain


def test_a_student_comes_back_after_an_exception_and_stays_where_it_was_put(packed, monkeypatch):
    student = made()
    with fake_device() as away, accelerator(away):
        with monkeypatch.context() as patch:
            patch.setattr(type(TASK), "decode", lambda *_: pytest.fail(f"on {homes(student)}"))
            with pytest.raises(pytest.fail.Exception, match="meta"):
                predict(student, packed)
        assert homes(student) == {"cpu"}
        predict(student.to(away), packed)
        assert homes(student) == {"meta"}


def test_a_device_that_is_named_is_the_one_that_is_used(packed, monkeypatch):
    student, where = made(), []
    inner = type(TASK).decode
    monkeypatch.setattr(type(TASK), "decode", lambda *words: where.append(homes(student)) or inner(*words))
    with fake_device() as away, accelerator(away):
        predict(student, packed, device="cpu")
        predict(student, packed)
    assert where == [{"cpu"}, {"meta"}]


@pytest.mark.parametrize("packed_px", [32, 40, 53, 64])
def test_a_student_is_scored_on_the_pixels_that_a_training_step_shows_it(stripes, monkeypatch, packed_px):
    student, images, seen = made(), pack(stripes, packed_px, progress=False), []
    monkeypatch.setattr(type(student), "forward", lambda self, pixels, **_: seen.append(pixels) or pixels)
    list(outputs(student, images, device="cpu"))
    batch = Source(images, task=TASK).batch(np.arange(12), whole_images(12), student, torch.device("cpu"))
    torch.testing.assert_close(seen[0], batch.images)
