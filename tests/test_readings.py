"""What the teacher's side says: from labelled images alone, to the student alone, never of the teacher's classes."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from loop_world import BASE, PLAIN, TASK, annotated, copy_of, curves, made, run
from torch.nn import functional as F

from prockd._types import UNLABELLED
from prockd.evaluation.scores import evaluate
from prockd.prototypes.embedding import embed_features
from prockd.prototypes.part_maps import part_descriptor
from prockd.settings.method import FeatureAugmentationConfig
from prockd.tasks import Classification, Detection, Segmentation
from prockd.teachers.features import PatchFeatures
from prockd.training import controls, readings
from prockd.training.batches import Source, patches_of
from prockd.training.loop import make_distiller, read_teacher
from prockd.training.processes import connect
from prockd.training.readings import fit_part_maps, fit_reading, pooled, targets_of, teacher_probe, whole

SOFT = PLAIN.replace(soft_weight=3.0, unlabelled_batch=3)
CLOSED = FeatureAugmentationConfig()


@pytest.fixture(scope="module")
def few(features: PatchFeatures) -> PatchFeatures:
    """Eight labelled images."""
    return features.select(np.arange(8))


@pytest.fixture(scope="module")
def more(features: PatchFeatures) -> PatchFeatures:
    """Four others, whose labels are nobody's business."""
    return labelled_as(features.select(np.arange(8, 12)), np.full(4, UNLABELLED))


def labelled_as(features: PatchFeatures, labels: np.ndarray) -> PatchFeatures:
    return replace(features, images=replace(features.images, labels=labels))


def source(features: PatchFeatures, bank, task=TASK) -> Source:
    return Source(features.images, features, bank, task=task)


def same(first: dict, second: dict) -> bool:
    return all(torch.equal(first[key], second[key]) for key in first)


def test_labels_of_unlabelled_images_are_never_used(few, more, bank):
    ends = []
    for labels in (np.full(4, UNLABELLED), np.arange(4) % 2, np.full(4, 999)):
        student = made(bank, CLOSED)
        history = run(student, few.images, SOFT, features=few, unlabelled=labelled_as(more, labels))
        ends.append((copy_of(student), curves(history)))
    for state, rows in ends[1:]:
        assert same(ends[0][0], state)
        assert rows == ends[0][1]
    assert "soft" in ends[0][1][0]


def test_the_labels_of_labelled_images_are(few, more, bank):
    ends = []
    for labels in (few.images.labels, few.images.labels[::-1].copy()):
        told = labelled_as(few, labels)
        student = made(bank, CLOSED)
        run(student, told.images, SOFT, features=told, unlabelled=more)
        ends.append(copy_of(student))
    assert not same(*ends)


@pytest.mark.parametrize("kind", ["part_maps", "mean"])
def test_a_reading_is_fitted_to_whole_labelled_images_plain_and_mirrored_and_to_no_other(few, more, bank, kind):
    student, seen, inner = made(bank), [], Source.batch

    def batch(self, rows, crops, *rest):
        seen.append(
            (self.images is few.images, rows.tolist(), crops.mirrored.tolist(), crops.regions.unique().tolist())
        )
        return inner(self, rows, crops, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Source, "batch", batch)
        reading = fit_reading(student, source(few, bank), kind)
    assert [rows for _, rows, *_ in seen] == [list(range(8))] * 2
    assert [set(mirrored) for *_, mirrored, _ in seen] == [{False}, {True}]
    assert all(is_few for is_few, *_ in seen)
    (plain,) = whole(source(few, bank), np.arange(8), student, mirrored=False)
    u = patches_of(plain)
    read = part_descriptor(u, bank.prototypes).flatten(1) if kind == "part_maps" else F.normalize(u, dim=-1).mean(1)
    torch.testing.assert_close(reading(u), read @ reading.weight.T + reading.bias)
    assert reading(u).argmax(1).tolist() == few.images.labels.tolist()
    assert not any(p.requires_grad for p in reading.ridge.__dict__.values() if torch.is_tensor(p))


def test_soft_targets_never_read_the_teachers_own_classes(teacher, few, more, bank, monkeypatch):
    assert teacher.backbone.num_classes == 0  # it has no classifier to read
    monkeypatch.setattr(type(teacher), "forward", lambda *_: pytest.fail("the teacher ran"))
    run(made(bank, CLOSED), few.images, SOFT.replace(steps=2), features=few, unlabelled=more)


@pytest.mark.parametrize("task", [TASK, Segmentation(2, width=8)], ids=["classes", "pixels"])
def test_the_gradient_of_soft_targets_reaches_the_student_and_never_the_reading(few, more, bank, task):
    images = annotated(few.images)
    few = replace(few, images=images)
    student, config = made(bank, task=task), SOFT.replace(soft_steps=3)
    sources = Source(images, few, bank, task=task), Source(more.images, more, bank)
    reading = read_teacher(student, sources[0], config, connect(cpu=True))
    reading.zero_grad()
    before = copy_of(reading)
    distiller = make_distiller(student, config, reading=reading)
    own = {id(p) for p in reading.parameters()} - {id(p) for p in bank.parameters()}
    assert own
    assert not own & {id(p) for p in distiller.parameters()}
    cpu, generator = torch.device("cpu"), torch.Generator().manual_seed(0)
    rows = np.arange(4)
    crops = sources[0].crops(rows, generator)
    first, other = (s.batch(rows, crops, student, cpu) for s in sources)
    batch = first.joined(other)
    batch.teacher.requires_grad_()
    distiller.terms(*distiller(batch), sources[0].targets(rows, crops, student, cpu))["soft"].backward()
    assert batch.teacher.grad is None
    assert all(p.grad is None for p in [*reading.parameters(), *bank.parameters()])
    assert student.backbone.conv1[0].weight.grad.abs().sum() > 0
    assert same(before, copy_of(reading))


def test_the_soft_term_is_the_kl_divergence_of_z_from_the_reading_over_all_images_of_the_step(few, more, bank):
    student = made(bank).eval()
    sources = source(few, bank), Source(more.images, more, bank)
    distiller = make_distiller(student, SOFT, reading=fit_reading(student, sources[0]))
    cpu, generator = torch.device("cpu"), torch.Generator().manual_seed(0)
    numbers = zip(sources, (np.arange(4), np.arange(2)), strict=True)
    pair = [s.batch(rows, s.crops(rows, generator), student, cpu) for s, rows in numbers]
    batch = pair[0].joined(pair[1])
    predictions, maps = distiller(batch)
    term = distiller.terms(predictions, maps, torch.from_numpy(few.images.labels[:4]))["soft"]
    z, z_t = student(batch.images).logits.log_softmax(1), distiller.reading[0](patches_of(batch)).log_softmax(1)
    torch.testing.assert_close(term, (z_t.exp() * (z_t - z)).sum(1).mean())


@pytest.mark.parametrize(
    "task",
    [Segmentation(2, width=8), Detection(2, width=32, num_levels=2), Detection(2, detector="fasterrcnn", width=32)],
    ids=["segmentation", "fcos", "fasterrcnn"],
)
def test_tasks_of_places_have_soft_targets_of_a_head_like_the_students_own(few, more, bank, task):
    few = replace(few, images=annotated(few.images))
    student = made(bank, CLOSED, task=task)
    history = run(student, few.images, SOFT.replace(steps=3, soft_steps=3), features=few, unlabelled=more)
    assert all(np.isfinite(row["soft"]) for row in history.rows)


def test_tags_have_soft_targets_and_part_maps_of_their_own(few, more, bank):
    tags = np.stack([few.images.labels == 0, np.ones(8), few.images.labels == 1], 1).astype(np.uint8)
    few = replace(few, images=replace(few.images, tags=tags, classes=("upright", "striped", "level")))
    task = Classification(3, ("upright", "striped", "level"), multi_label=True)
    assert targets_of(task, few.images, np.arange(len(few))).tolist() == tags.tolist()
    student = made(bank, CLOSED, task=task)
    run(student, few.images, SOFT, features=few, unlabelled=more)
    (plain,) = whole(source(few, bank, task), np.arange(8), student, mirrored=False)
    said = student(plain.images).augmented_logits.sigmoid()
    assert ((said > 0.5).numpy() == tags).mean() > 0.8
    assert (said[:, 1] > 0.5).all()


def test_without_unlabelled_images_soft_targets_and_part_maps_read_the_labelled_ones(few, bank):
    student = made(bank, CLOSED)
    history = run(student, few.images, SOFT.replace(unlabelled_batch=0), features=few, val=few.images)
    assert "soft" in history.rows[0]
    assert history.scores.augmented is not None


def test_unlabelled_images_of_other_content_are_borne(few, bank, teacher, tmp_path):
    from prockd.datasets import Arrays, pack
    from prockd.teachers.features import extract

    noise = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    grey = np.full((2, 32, 32, 3), 128, np.uint8)
    images = pack(
        Arrays(np.concatenate([noise, grey]), np.zeros(5, np.int64), ("x",)), 32, root=tmp_path, progress=False
    )
    others = extract(teacher, images, device="cpu", root=tmp_path, progress=False)
    student = made(bank, CLOSED)
    history = run(student, few.images, SOFT.replace(steps=20), features=few, unlabelled=others, val=few.images)
    assert history.scores.augmented >= 0.75
    assert all(np.isfinite(row["loss"]) for row in history.rows)


@pytest.mark.parametrize("unlabelled", [False, True])
def test_teacher_features_that_are_not_finite_are_refused_with_the_name_of_their_image(few, more, bank, unlabelled):
    bad = more if unlabelled else few
    maps = [np.array(m) for m in bad.maps]
    maps[0][2, :, 0, 0, 0] = np.nan
    bad = replace(bad, maps=tuple(maps))
    name = bad.images.ids[2]
    given = {"features": few, "unlabelled": bad} if unlabelled else {"features": bad, "unlabelled": more}
    for config in (SOFT.replace(steps=6), BASE.replace(unlabelled_batch=3, steps=6)):
        with pytest.raises(ValueError, match=f"features of image '{name}' are not finite"):
            run(made(bank, CLOSED), few.images, config, **given)


def test_part_maps_read_a_thousand_unlabelled_images_at_most_the_same_ones_for_a_seed(few, more, bank, monkeypatch):
    monkeypatch.setattr(readings, "MOST_UNLABELLED", 3)
    student, seen, inner = made(bank, CLOSED), [], Source.batch
    sources = source(few, bank), Source(more.images, more, bank)
    reading = fit_reading(student, sources[0])

    def batch(self, rows, *rest):
        seen.extend(rows.tolist() if self is sources[1] else [])
        return inner(self, rows, *rest)

    monkeypatch.setattr(Source, "batch", batch)
    first, again = (fit_part_maps(student, *sources, reading, seed=1) for _ in range(2))
    assert len(seen) == 6
    assert seen[:3] == seen[3:]
    assert torch.equal(first.weight, again.weight)
    assert student.training  # as it was


@pytest.mark.parametrize("widest", [0, 2**14])
def test_part_maps_and_their_controls_read_all_labelled_images_or_of_wide_maps_the_same_ones_for_every_seed(
    few, bank, monkeypatch, widest
):
    monkeypatch.setattr(readings, "WIDEST", widest)
    monkeypatch.setattr(readings, "MOST_LABELLED", 3)
    student, seen, inner = made(bank, CLOSED), set[str](), Source.batch

    def batch(self, rows, *rest):
        seen.update(self.images.ids[row] for row in rows)
        return inner(self, rows, *rest)

    monkeypatch.setattr(Source, "batch", batch)
    found = []
    for seed in (1, 2):
        fit_part_maps(student, source(few, bank), seed=seed)
        found.append(set(seen))
        seen.clear()
        controls.control_readings(student, few, None, few.images, seed=seed)
        found.append(set(seen))
        seen.clear()
    assert len(found[0]) == (len(few) if widest else 3)
    assert found == [found[0]] * 4


def test_part_maps_among_the_controls_are_those_of_the_student_itself(few, more, bank):
    student, sources = made(bank, CLOSED), (source(few, bank), Source(more.images, more, bank))
    fit_part_maps(student, *sources, fit_reading(student, sources[0]))
    labels = np.arange(len(few)) % 3 % 2  # which it does not know
    test = replace(few.images, labels=labels)
    found = controls.control_readings(student, few, more, test)
    assert found["part maps"] == evaluate(student, test).augmented
    assert len(found) == 7


def test_the_fit_changes_part_maps_and_nothing_else_of_a_student(few, bank):
    student = made(bank, CLOSED)
    before = copy_of(student)
    fit_part_maps(student, source(few, bank))
    moved = {key for key, value in copy_of(student).items() if not torch.equal(value, before[key])}
    assert moved == {f"feature_augmentation.{name}" for name in ("maps", "bias", "fitted")}


@pytest.mark.parametrize("count", [1, 6])
def test_one_prototype_and_one_image_a_class_are_enough(few, bank, count):
    two = few.select([0, 1])
    for k in range(count, 6):
        bank.disable(k)
    student = made(bank, CLOSED)
    run(student, two.images, SOFT.replace(unlabelled_batch=0, steps=2), features=two)
    assert student(torch.rand(1, 3, 32, 32)).augmented_logits.isfinite().all()


@pytest.mark.parametrize("kind", ["part_maps", "mean"])
def test_a_reading_says_of_patches_what_its_ridge_says_of_what_is_read_of_them(few, bank, kind):
    own = copy.deepcopy(bank)
    own.merge(0, 3)
    own.disable(4)
    student = made(own, CLOSED)
    reading, patches = fit_reading(student, source(few, own), kind), torch.rand(5, 9, bank.embed_dim) - 0.5
    wanted = reading.ridge(pooled(own, patches, kind))
    assert wanted.std() > 0.1
    torch.testing.assert_close(reading(patches), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["part_maps", "mean"])
def test_the_teacher_read_in_closed_form_tells_what_it_was_fitted_to(few, bank, kind):
    embedded = embed_features(bank, few)
    assert teacher_probe(TASK, bank, embedded, embedded, kind) == 1.0
    wrong = replace(embedded, images=replace(embedded.images, labels=1 - embedded.images.labels))
    assert teacher_probe(TASK, bank, embedded, wrong, kind) == 0.0
