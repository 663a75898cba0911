import copy
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_device import fake_device

from prockd.datasets import PackedImages
from prockd.evaluation.effects import Resampled, jackknife, prototype_effects
from prockd.evaluation.scores import evaluate, outputs
from prockd.prototypes.bank import PrototypeBank
from prockd.prototypes.part_maps import PartMaps
from prockd.settings.method import FeatureAugmentationConfig
from prockd.students.student import Student
from prockd.tasks import Classification, Detection, Segmentation

TINY = {"channels": (8, 16, 24, 32), "stem_width": 8}
M, S, K = 24, 32, 4
CLASSES = ("horned", "hornless", "both")


@pytest.fixture(scope="module")
def images() -> PackedImages:
    rng = np.random.default_rng(0)
    labels = np.arange(M) % len(CLASSES)
    pixels = rng.integers(0, 128, (M, 3, S, S), np.uint8)
    pixels[np.arange(M), labels] += 100
    return PackedImages(pixels, labels, tuple(f"{m}" for m in range(M)), CLASSES, "colours")


def made(content: str = "attention") -> tuple[Student, PrototypeBank]:
    torch.manual_seed(0)
    bank = PrototypeBank(K, 6, 8, teacher="t")
    task = Classification(len(CLASSES), CLASSES)
    student = Student(
        "resnet10t", task, bank, feature_augmentation=FeatureAugmentationConfig(content=content), image_px=S, **TINY
    )
    assert student.feature_augmentation is not None
    torch.nn.init.ones_(student.feature_augmentation.gate)
    return student.eval(), bank


@pytest.fixture
def student() -> Student:
    return made()[0]


def with_part_maps(images: PackedImages) -> tuple[Student, PrototypeBank]:
    """Maps of random numbers, and a bias that lets every class be told."""
    torch.manual_seed(0)
    bank, task = PrototypeBank(K, 6, 8, teacher="t"), Classification(len(CLASSES), CLASSES)
    student = Student("resnet10t", task, bank, feature_augmentation=FeatureAugmentationConfig(), image_px=S, **TINY)
    maps = student.eval().feature_augmentation
    maps.set_reading(torch.randn(K * 8, 3), torch.zeros(3))
    (output,) = outputs(student, images)
    with torch.no_grad():
        maps.bias.copy_(-output.augmented_logits.mean(0))
    return student, bank


@pytest.fixture
def one_sided(student: Student) -> Student:
    """z+ tells "horned" exactly because of prototype 1: all attention goes to it, and the head reads what it brings."""
    with torch.no_grad():
        augment, bank = student.feature_augmentation, student.bank
        augment.encode.weight.copy_(torch.eye(8))
        augment.encode.bias.copy_(torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 0]))
        bank.prototypes.copy_(torch.zeros(K, 8))
        bank.prototypes[1] = torch.tensor([900.0, 0, 0, 0, 0, 0, 0, 50])
        augment.transform.weight.zero_()
        augment.transform.bias.zero_()
        augment.transform.weight[7, 15] = 10.0  # r's last number becomes f+'s last
        for conv in student.adapter:  # features are 0 but for a first number that is the same everywhere
            conv.weight.zero_()
            conv.bias.zero_()
        student.adapter[0].bias[0] = 1.0
        student.head.norm = torch.nn.Identity()
        student.head.linear.weight.zero_()
        student.head.linear.weight[0, 7] = 1.0
        student.head.linear.bias.copy_(torch.tensor([0.0, 1.0, 0.0]))
    return student


def test_removing_the_prototype_that_a_class_stands_on_costs_that_class(one_sided, images):
    effects = prototype_effects(one_sided, one_sided.bank, images, resamples=200, progress=False)
    assert effects.removed == ("p00", "p01", "p02", "p03")
    np.testing.assert_allclose(effects.before, [1 / 3, 1, 0, 0])
    np.testing.assert_allclose(effects.change[1], [0, -1, 1, 0], atol=1e-9)
    np.testing.assert_allclose(effects.change[[0, 2, 3]], 0)
    np.testing.assert_array_equal(effects.clear, np.array([[0] * 4, [0, 1, 1, 0], [0] * 4, [0] * 4], bool))
    assert effects.low[1, 0] < 0 < effects.high[1, 0]


def test_removals_measure_what_evaluate_measures_with_the_prototype_disabled(student, images):
    effects = prototype_effects(student, student.bank, images, batch_size=7, progress=False)
    assert effects.before[0] == pytest.approx(evaluate(student, images).augmented)
    for k in range(K):
        student.bank.enabled[k] = False
        assert effects.before[0] + effects.change[k, 0] == pytest.approx(evaluate(student, images).augmented)
        student.bank.enabled[k] = True


def test_effects_do_not_depend_on_the_batch_size(one_sided, images):
    whole, small = (
        prototype_effects(one_sided, one_sided.bank, images, groups={"horn": [1]}, batch_size=size, progress=False)
        for size in (64, 7)
    )
    np.testing.assert_array_equal(small.before, whole.before)
    np.testing.assert_array_equal(small.change, whole.change)


def test_the_backbone_sees_each_image_once_however_many_prototypes_there_are(student, images):
    seen = []
    student.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    through = student.backbone.forward_intermediates
    student.backbone.forward_intermediates = lambda x, **kwargs: seen.append(len(x)) or through(x, **kwargs)
    prototype_effects(student, student.bank, images, progress=False)
    assert sum(seen) == M


def test_the_student_is_left_as_it_was_even_after_an_error(student, images, monkeypatch):
    student.bank.enabled[2] = False
    student.train()
    prototype_effects(student, student.bank, images, progress=False)
    assert student.bank.enabled.tolist() == [True, True, False, True]
    assert student.training
    monkeypatch.setattr("prockd.tasks.classification.class_counts", None)
    with pytest.raises(TypeError):
        prototype_effects(student, student.bank, images, progress=False)
    assert student.bank.enabled.tolist() == [True, True, False, True]


def test_effects_are_the_same_on_another_device_and_the_student_stays_where_it_is(student, images):
    bank, wanted = copy.deepcopy(student.bank), prototype_effects(student, student.bank, images, progress=False)
    student.train()
    with fake_device() as device:
        effects = prototype_effects(student, bank, images, device=device, progress=False)
        np.testing.assert_allclose(effects.change, wanted.change)
        assert {t.device.type for t in student.state_dict().values()} == {"cpu"}
        student.to(device)
        again = prototype_effects(student, bank, images, progress=False)
        np.testing.assert_allclose(again.change, wanted.change)
        assert {t.device for t in student.state_dict().values()} == {device}
        assert student.training


def test_after_an_error_on_another_device_the_student_is_back_at_once(student, images, monkeypatch):
    monkeypatch.setattr("prockd.tasks.classification.class_counts", None)
    student.bank.enabled[2] = False
    student.train()
    with fake_device() as device:
        with pytest.raises(TypeError) as error:
            prototype_effects(student, student.bank, images, device=device, progress=False)
        assert error.value.__traceback__ is not None  # which keeps all frames alive
        assert {t.device.type for t in student.state_dict().values()} == {"cpu"}
        assert student.training
        assert student.bank.enabled.tolist() == [True, True, False, True]


def test_names_and_switches_are_those_of_the_bank(student, images):
    _, bank = made()
    bank.names = ["leg", "horn", "off", "horn"]
    bank.enabled[2] = False
    effects = prototype_effects(student, bank, images, progress=False)
    assert effects.removed == ("leg", "horn", "horn")
    assert effects.prototypes == ((0,), (1,), (3,))


def test_a_group_is_removed_at_once(one_sided, images):
    effects = prototype_effects(
        one_sided, one_sided.bank, images, groups={"horns": [1, 2], "rest": [3]}, progress=False
    )
    assert effects.removed == ("horns", "rest")
    np.testing.assert_allclose(effects.change[:, 1], [-1, 0])


def test_the_descriptor_is_augmentation_too(images):
    student, bank = made("descriptor")
    effects = prototype_effects(student, bank, images, progress=False)
    assert effects.change.shape == (K, 1 + len(CLASSES))


def test_rows_begin_with_the_most_harmful_removal_and_name_the_classes(one_sided, images):
    effects = prototype_effects(
        one_sided, one_sided.bank, images.select(np.flatnonzero(images.labels != 1)), progress=False
    )
    row = effects.rows()[0]
    assert row["removed"] == "p01"
    assert row["change of accuracy"] == "-50.0"
    assert row["loses most"] == "horned -100.0"
    assert row["gains most"] is None
    assert np.isnan(effects.before[2]), "a class without images has no accuracy"
    assert "1 of 4 intervals leave out zero" in str(effects)
    assert "most harmful: p01 -50.0 points" in repr(effects)


def halves(rights: np.ndarray) -> np.ndarray:
    """Counts of a task of two classes whose images are all of class 0."""
    return TWO.counts(np.where(rights, 0, 1), np.zeros(len(rights), int))


TWO = Classification(2)


def bootstrapped(task, counts, resamples, seed):
    resampled = Resampled(counts.shape[1], resamples, seed)
    for start in range(0, counts.shape[1], 64):
        resampled.add(counts[:, start : start + 64])
    return resampled.measured(task)


def test_the_interval_is_that_of_the_paired_difference():
    rng = np.random.default_rng(0)
    before, after = rng.random(400) < 0.6, rng.random(400) < 0.5
    _, change, low, high = bootstrapped(TWO, np.stack([halves(before), halves(after)]), 4000, 0)
    difference = after.astype(float) - before
    half = 1.96 * difference.std() / 20
    assert change[0, 0] == pytest.approx(difference.mean())
    assert low[0, 0] == pytest.approx(difference.mean() - half, abs=0.008)
    assert high[0, 0] == pytest.approx(difference.mean() + half, abs=0.008)


def test_the_jackknife_agrees_with_the_bootstrap_where_both_can_be_used():
    rng = np.random.default_rng(1)
    masks = rng.integers(0, 2, (200, 4, 4)).astype(np.uint8)
    before, after = (np.where(rng.random(masks.shape) < p, masks, 1 - masks) for p in (0.8, 0.7))
    task, ids = Segmentation(2, width=8), tuple(map(str, range(200)))
    images = PackedImages(np.zeros((200, 3, 4, 4), np.uint8), np.full(200, -1), ids, ("a", "b"), "x", masks=masks)
    counts = np.stack([task.counts(predicted, masks) for predicted in (before, after)])
    one, two = bootstrapped(task, counts, 2000, 0), jackknife(task, [list(before), list(after)], images, folds=50)
    np.testing.assert_allclose(one[0], two[0], atol=1e-6)
    for mine, theirs in zip(one[1:], two[1:], strict=True):
        np.testing.assert_allclose(mine, theirs, atol=0.01)


def test_a_removal_that_changes_nothing_has_an_interval_of_no_width():
    rng = np.random.default_rng(0)
    counts = np.repeat(halves(rng.random(301) < 0.7)[None], 9, axis=0)
    for found in bootstrapped(TWO, counts, 500, 0)[1:]:
        np.testing.assert_array_equal(found[:, :2], 0)


def test_counts_of_masks_give_the_mean_iou_of_the_task_and_leave_out_ignored_pixels():
    rng = np.random.default_rng(2)
    task = Segmentation(4, width=8)
    masks = rng.integers(0, 3, (5, 8, 8)).astype(np.uint8)
    masks[0, :4] = 255
    told = np.where(rng.random(masks.shape) < 0.5, masks, 3) % 4
    images = PackedImages(
        np.zeros((5, 3, 8, 8), np.uint8), np.full(5, -1), tuple("abcde"), tuple("wxyz"), "m", masks=masks
    )
    score = task.score(told, images)
    measured = task.score_counts(task.counts(told, masks).sum(0))
    np.testing.assert_allclose(measured, [score.value, *score.per_class], atol=1e-6)


@pytest.mark.parametrize("task", [Segmentation(3, CLASSES, width=8), Detection(3, CLASSES, width=32, num_levels=1)])
def test_every_task_has_effects_measured_by_its_own_metric(images, task):
    torch.manual_seed(0)
    bank = PrototypeBank(K, 6, 8, teacher="t")
    student = Student(
        "resnet10t", task, bank, feature_augmentation=FeatureAugmentationConfig("attention"), image_px=S, **TINY
    ).eval()
    torch.nn.init.ones_(student.feature_augmentation.gate)
    few = images.select(np.arange(6))
    masks = np.broadcast_to(few.labels[:, None, None], (6, S, S)).astype(np.uint8)
    box = np.array([[4, 4, 28, 28]], np.float32)
    known = replace(few, masks=masks, boxes=(box,) * 6, box_labels=tuple(few.labels[:, None]))
    effects = prototype_effects(student, bank, known, groups={"half": [0, 1]}, resamples=50, progress=False)
    assert effects.metric == task.metric
    scores = evaluate(student, known)
    np.testing.assert_allclose(effects.before, [scores.augmented, *scores.augmented_per_class], atol=1e-6)
    assert effects.change.shape == (1, 4)


@pytest.mark.parametrize(
    ("groups", "error", "message"),
    [
        ({"all": range(K)}, ValueError, "without 'all' no prototype is left"),
        ({"far": [9]}, IndexError, r"'far' removes prototype 9: 4 are numbered 0\.\.3"),
        ({}, ValueError, "nothing to remove"),
    ],
)
def test_removals_that_cannot_be_are_refused(student, images, groups, error, message):
    with pytest.raises(error, match=message):
        prototype_effects(student, student.bank, images, groups=groups, progress=False)


def test_a_student_or_bank_that_does_not_fit_is_refused(student, images):
    plain, bank = made("mlp")
    with pytest.raises(ValueError, match="reads no prototypes"):
        prototype_effects(plain, bank, images, progress=False)
    with pytest.raises(ValueError, match="5 prototypes of teacher other, the student's own has 4 of teacher t"):
        prototype_effects(student, PrototypeBank(5, 6, 8, teacher="other"), images, progress=False)
    single = PrototypeBank(K, 6, 8, teacher="t")
    single.enabled[1:] = False
    with pytest.raises(ValueError, match="no prototype is left"):
        prototype_effects(student, single, images, progress=False)


@pytest.mark.slow
def test_importing_effects_does_not_import_matplotlib():
    code = "import sys, prockd.evaluation.effects; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_near_copies_lie_in_one_fold_of_the_jackknife():
    rng = np.random.default_rng(1)
    labels, ids = rng.integers(0, 2, 200), tuple(map(str, range(200)))
    before = [1 - label if rng.random() < 0.4 else label for label in labels]
    mended = np.repeat(rng.random(20) < 0.5, 10)  # whole videos become right
    after = np.where(mended, labels, before)
    images = PackedImages(np.zeros((200, 3, 4, 4), np.uint8), labels, ids, ("a", "b"), "x")
    videos = replace(images, groups=tuple(m // 10 for m in range(200)))
    alone = replace(images, groups=("one video",) * 200)
    decoded = [np.array(before), after]
    widths = [
        (high - low)[0, 0]
        for folds, some in ((50, images), (50, videos), (50, alone))
        for _, _, low, high in [jackknife(TWO, decoded, some, folds=folds)]
    ]
    assert widths[1] > 1.3 * widths[0], "frames of a video are near copies, not evidence of their own"
    assert widths[2] == widths[0], "one video cannot be divided: its frames are"


# Part maps


@pytest.mark.parametrize("changed", [False, True], ids=["all there", "merged and disabled"])
def test_removing_a_prototype_of_part_maps_takes_its_share_away_and_each_is_read_once(images, changed, monkeypatch):
    student, bank = with_part_maps(images)
    if changed:
        bank.merge(0, 1)
        bank.disable(2)
    effects = prototype_effects(student, bank, images, groups={"one": [3], "two": [0, 3]} if not changed else None)
    on, whole = bank.enabled.clone(), evaluate(student, images).augmented
    assert effects.before[0] == pytest.approx(whole)
    for members, change in zip(effects.prototypes, effects.change[:, 0], strict=True):
        bank.enabled[list(members)] = False
        assert change == pytest.approx(evaluate(student, images).augmented - whole)
        bank.enabled.copy_(on)
    if not changed:
        assert np.abs(effects.change).max() > 0  # answers do change
    reads, inner = [], PartMaps.shares
    monkeypatch.setattr(PartMaps, "forward", lambda *_: pytest.fail("read again"))
    monkeypatch.setattr(PartMaps, "shares", lambda self, *words, **more: reads.append(1) or inner(self, *words, **more))
    monkeypatch.setattr(Student, "forward", only_features(Student.forward))
    prototype_effects(student, bank, images)
    assert len(reads) == 1


def only_features(forward):
    return lambda self, pixels, predicted=None, **_: forward(self, pixels, 0)


def test_part_maps_that_are_not_fitted_yet_have_no_effects(images):
    student, bank = with_part_maps(images)
    student.feature_augmentation.fitted.fill_(False)
    with pytest.raises(ValueError, match="not fitted yet: train it first"):
        prototype_effects(student, bank, images)


def test_trained_part_maps_of_a_dense_task_have_effects_too(images):
    torch.manual_seed(0)
    bank, config = PrototypeBank(K, 6, 8, teacher="t"), FeatureAugmentationConfig(fit="trained", num_maps=4)
    task = Segmentation(2, width=8)
    student = Student("resnet10t", task, bank, feature_augmentation=config, image_px=S, **TINY).eval()
    torch.nn.init.normal_(student.feature_augmentation.spread.weight, std=30)
    masks = (np.asarray(images.pixels).mean(1) > 80).astype(np.uint8)
    some = replace(images, masks=masks).select(np.arange(6))
    effects = prototype_effects(student, bank, some)
    assert np.abs(effects.change).max() > 0
    assert bank.enabled.all()
