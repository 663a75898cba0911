import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TINY, draw_stripes
from torch.nn import functional as F

from prockd.datasets import PackedImages
from prockd.datasets.transforms import whole_images
from prockd.evaluation.scores import evaluate, predict
from prockd.settings.method import DistillConfig
from prockd.students.student import Student
from prockd.tasks import TASKS, Classification, Segmentation, Task
from prockd.training.loop import distill

CLASSES = ("cow", "dog", "elk", "fox")
TASK = Classification(4, CLASSES)
TAGS = Classification(4, CLASSES, multi_label=True)


def images_of(labels: list[int], tags: list[list[int]] | None = None) -> PackedImages:
    known = None if tags is None else np.array(tags, np.uint8)
    pixels, ids = np.zeros((len(labels), 3, 8, 8), np.uint8), tuple(f"{i}.png" for i in range(len(labels)))
    return PackedImages(pixels, np.array(labels), ids, CLASSES, "made up", tags=known)


def test_the_head_reads_the_mean_of_all_patches():
    torch.manual_seed(0)
    head, features = TASK.head(16, (2, 5), 32), torch.randn(3, 10, 16)
    logits = head(features)
    assert logits.shape == (3, 4)
    torch.testing.assert_close(head(features[:, torch.randperm(10)]), logits)
    torch.testing.assert_close(head(features.mean(1, keepdim=True)), logits)
    assert (head(torch.cat([features, torch.randn(3, 1, 16)], 1)) - logits).abs().max() > 1e-4


def test_the_loss_is_cross_entropy_and_smoothing_keeps_it_above_zero():
    logits, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 3])
    by_hand = -torch.stack([logits[i].log_softmax(0)[label] for i, label in enumerate(labels)]).mean()
    torch.testing.assert_close(TASK.loss(logits, labels), by_hand)
    sure = 50 * F.one_hot(labels, 4).float()
    assert TASK.loss(sure, labels) < 1e-6 < 1 < TASK.loss(sure, labels, 0.1)


def test_consistency_is_zero_for_equal_predictions_and_reaches_both():
    plain, augmented = torch.randn(2, 6, 4)
    assert TASK.consistency(plain, plain + 3.0).item() == pytest.approx(0, abs=1e-6)
    plain.requires_grad_()
    augmented.requires_grad_()
    value = TASK.consistency(plain, augmented)
    p, q = augmented.softmax(-1), plain.softmax(-1)
    torch.testing.assert_close(value, (p * (p / q).log()).sum(-1).mean())
    value.backward()
    assert plain.grad.abs().sum() > 0
    assert augmented.grad.abs().sum() > 0


@pytest.mark.parametrize("label", [-1, 4, 99])
def test_a_label_outside_the_task_is_refused_with_the_image_and_the_range(label):
    with pytest.raises(ValueError, match=rf"image '1\.png' has label {label}, but the task has classes 0\.\.3"):
        TASK.check(images_of([0, label, 3]))
    TASK.check(images_of([0, 1, 2, 3]))


def test_the_score_is_the_share_of_right_images_and_the_recall_of_each_class():
    score = TASK.score(np.array([0, 0, 1, 1]), images_of([0, 0, 0, 1]))
    assert score.value == 0.75
    assert score.per_class[:2] == pytest.approx([2 / 3, 1])
    assert np.isnan(score.per_class[2:]).all()  # no image shows them


def test_class_255_of_many_counts_like_every_other():
    many = Classification(300)
    score = many.score(np.array([255, 255, 3]), images_of([255, 7, 3]))
    assert score.value == pytest.approx(2 / 3)
    assert (score.per_class[[255, 7, 3]] == [1, 0, 1]).all()


def test_a_task_is_made_for_images_with_the_knobs_that_it_has():
    images = images_of([0] * 9 + [1, 2, 3])
    assert Classification.for_images(images) == TASK
    assert Classification.for_images(images, balanced=True) == TASK.balanced(images)
    assert Classification.for_images(images_of([-1], [[1, 0, 0, 1]])) == TAGS
    assert TASKS["segmentation"].for_images(images, width=16) == Segmentation(4, CLASSES, width=16)
    knobs = {kind: task.knobs() for kind, task in TASKS.items()}
    assert knobs == {
        "classification": {"multi_label", "class_weights", "balanced"},
        "segmentation": {"width", "dice_weight", "class_weights"},
        "detection": {"detector", "width", "num_levels", "dropout"},
        "keypoints": {"width", "spread", "place_weight"},
    }


def test_a_task_that_lacks_a_part_cannot_be_made_and_one_without_counts_must_score():
    class Half(Task):
        def head(self, embed_dim, grid, image_px):
            return torch.nn.Identity()

    with pytest.raises(TypeError, match="abstract class Half"):
        Half(2)

    class Unscored(Half):
        decode = loss = targets = None

        def truth(self, images):
            return images.labels

    with pytest.raises(NotImplementedError, match="Unscored has no counts: write counts and score_counts, or score"):
        Unscored(2).score(np.array([0]), images_of([0]))


# Many classes in an image


def test_tags_learn_a_yes_or_no_for_each_class():
    logits = torch.tensor([[2.0, -1.0, 0.0, 3.0]])
    truth = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
    p = logits.sigmoid()
    by_hand = -(truth * p.log() + (1 - truth) * (1 - p).log()).sum()
    torch.testing.assert_close(TAGS.loss(logits, truth), by_hand)
    known = images_of([-1, -1], [[1, 0, 0, 1], [0, 0, 0, 0]])
    targets = TAGS.targets(known, np.array([1, 0]), whole_images(2), 8)
    assert targets.tolist() == [[0, 0, 0, 0], [1, 0, 0, 1]]
    assert TAGS.decode(logits, 8)[0] == pytest.approx(p[0].numpy())


def test_consistency_of_tags_is_the_divergence_of_each_yes_and_no():
    plain, augmented = torch.randn(2, 6, 4)
    p, q = augmented.sigmoid(), plain.sigmoid()
    by_hand = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(1).mean()
    torch.testing.assert_close(TAGS.consistency(plain, augmented), by_hand)
    assert TAGS.consistency(plain, plain).item() == pytest.approx(0, abs=1e-6)


def test_tags_are_scored_by_average_precision_over_the_classes_that_occur():
    known = images_of([-1] * 4, [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]])
    guess = np.array([[0.9, 0.1, 0, 0], [0.8, 0.2, 0, 0], [0.1, 0.9, 0, 0], [0.2, 0.15, 0, 0]], np.float32)
    score = TAGS.score(guess, known)
    assert score.value == 1.0
    assert np.isnan(score.per_class[2:]).all()
    worse = TAGS.score(guess[::-1].copy(), known)
    assert worse.value < 0.75


def test_images_without_tags_or_with_those_of_other_classes_are_refused():
    with pytest.raises(ValueError, match=r"has no tags: Classification\(multi_label=True\)"):
        TAGS.check(images_of([0, 1]))
    with pytest.raises(ValueError, match="tags of 2 classes, but the task has 4"):
        TAGS.check(images_of([-1], [[1, 0]]))


def test_rare_classes_weigh_more():
    task = TASK.balanced(images_of([0] * 9 + [1] * 3))
    assert task.class_weights[:2] == pytest.approx([12 / 36, 1.0])
    logits = torch.zeros(2, 4, requires_grad=True)
    task.loss(logits, torch.tensor([0, 1])).backward()
    assert logits.grad[1].abs().sum() == pytest.approx(3 * logits.grad[0].abs().sum().item())
    yes = TAGS.balanced(images_of([-1] * 4, [[1, 0, 0, 1]] + [[0, 0, 0, 1]] * 3)).class_weights
    assert yes == pytest.approx([3, 3, 3, 0.25])
    with pytest.raises(ValueError, match="2 class_weights for 4 classes"):
        Classification(4, class_weights=(1.0, 2.0))


def test_one_class_is_nothing_to_tell_apart_and_one_tag_is():
    with pytest.raises(ValueError, match="there is one class, 'cat': classification needs two"):
        Classification(1, ("cat",))
    assert Classification(1, ("cat",), multi_label=True).num_classes == 1


def test_as_many_names_as_classes_are_needed():
    with pytest.raises(ValueError, match="num_classes=3, but 2 classes are named: cow, dog"):
        Classification(3, ("cow", "dog"))


def test_a_student_learns_tags_and_tells_both_scores():
    pixels, labels = draw_stripes(16)
    tags = np.stack([labels == 0, labels == 1], 1).astype(np.uint8)
    seen = PackedImages(pixels.transpose(0, 3, 1, 2), np.full(16, -1), tuple(map(str, range(16))), ("a", "b"), "x")
    seen = replace(seen, tags=tags)
    task = Classification(2, ("a", "b"), multi_label=True)
    assert isinstance(task, Task)
    student = Student("resnet10t", task, image_px=32, embed_dim=16, **TINY)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = DistillConfig(steps=30, batch_size=8)
        history = distill(student, seen, config=config, val=seen, cpu=True, progress=False)
    assert history.scores.metric == "mean AP"
    assert history.scores.plain > 0.9
    assert predict(student, seen).shape == (16, 2)
    assert np.array_equal(predict(student, seen), evaluate(student, seen).predictions)
    with pytest.raises(ValueError, match="has no augmentation"):
        predict(student, seen, augmented=True)
