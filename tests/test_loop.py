import json
import math
import re
import socket
import subprocess
import sys
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import draw_stripes
from fake_device import accelerator, fake_device
from loop_world import (
    ATTENTION,
    BASE,
    CASES,
    EVERY_TERM,
    EVERYTHING,
    PLAIN,
    TASK,
    TINY,
    TRAINED_BANK,
    annotated,
    copy_of,
    curves,
    gradients,
    homes,
    made,
    one_of_two,
    run,
)
from torch import multiprocessing

from prockd._types import UNLABELLED
from prockd.datasets import Arrays, pack
from prockd.evaluation.scores import evaluate
from prockd.prototypes.bank import PrototypeBank
from prockd.prototypes.discovery import discover
from prockd.prototypes.embedding import embed_features
from prockd.settings.method import DiscoverConfig, DistillConfig, FeatureAugmentationConfig
from prockd.students.student import Student
from prockd.tasks import Segmentation
from prockd.teachers.features import PatchFeatures, extract
from prockd.teachers.teacher import Teacher
from prockd.training import loop, losses
from prockd.training.batches import Batch, Source, shuffled
from prockd.training.distiller import Distiller
from prockd.training.loop import NonFiniteLossError, learning_rate, make_distiller


def differing(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> list[str]:
    assert first.keys() == second.keys()
    return [key for key in first if not torch.equal(first[key], second[key])]


@pytest.fixture
def fresh_bank(bank: PrototypeBank):
    """Makes the same bank any number of times, since training may move one."""
    state = copy_of(bank)

    def make() -> PrototypeBank:
        other = PrototypeBank(6, 48, 16, teacher=bank.teacher)
        other.load_state_dict(state)
        return other

    return make


@pytest.fixture(scope="module")
def unlabelled(features: PatchFeatures) -> PatchFeatures:
    """The same teacher's features of 7 images whose labels are nobody's business."""
    part = features.select(np.arange(7))
    return replace(part, images=replace(part.images, labels=np.full(7, UNLABELLED)))


def batch_of(
    features: PatchFeatures, student: Student, config: DistillConfig, bank: PrototypeBank | None, first: int = 0
) -> tuple[Batch, torch.Tensor]:
    """Four images and their labels."""
    source = Source(
        features.images, features, None if config.train_bank else bank, task=TASK, wants_last=config.hint_weight > 0
    )
    rows, cpu = np.arange(first, first + 4), torch.device("cpu")
    crops = source.crops(np.arange(4), torch.Generator().manual_seed(0))
    return source.batch(rows, crops, student, cpu), torch.from_numpy(features.images.labels[rows])


def terms_of(distiller: Distiller, batch: Batch, targets: torch.Tensor) -> dict[str, torch.Tensor]:
    return distiller.terms(*distiller(batch), targets)


# Learning


def test_a_student_learns_a_task_it_can_learn(features, bank, tmp_path):
    seen = pack(Arrays(*draw_stripes(32), TASK.classes), 32, root=tmp_path, progress=False)
    config = PLAIN.replace(steps=40, batch_size=8)
    student = made(bank, ATTENTION)
    history = run(student, seen, config, val=seen)
    losses_seen = history.curve("loss")[1]
    assert np.mean(losses_seen[-5:]) < 0.3 * np.mean(losses_seen[:5])
    assert history.scores.plain > 0.9
    assert history.scores.augmented > 0.9
    assert not student.training


@pytest.mark.parametrize("term", ["assignment", "feature", "hint"])
def test_transfer_brings_the_student_nearer_to_the_teacher(features, bank, term):
    config = PLAIN.replace(steps=30, batch_size=6, **{f"{term}_weight": 3.0})
    history = run(made(bank), features.images, config, features=features)
    values = history.curve(term)[1]
    assert np.mean(values[-5:]) < 0.8 * np.mean(values[:5])


def test_two_runs_of_the_same_seed_end_in_the_same_weights_and_another_seed_in_others(features, fresh_bank):
    ends = []
    for seed in (0, 0, 1):
        student = made(fresh_bank(), ATTENTION)
        run(student, features.images, BASE.replace(seed=seed), features=features)
        ends.append(copy_of(student))
    assert differing(ends[0], ends[1]) == []
    assert differing(ends[0], ends[2])


def test_training_leaves_no_trace_of_the_random_numbers_drawn_before_it(packed):
    ends = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.default_rng(seed)
        student = made(drop_path_rate=0.3)
        run(student, packed, PLAIN)
        ends.append(copy_of(student))
    assert differing(*ends) == []


def test_the_random_numbers_that_follow_a_run_are_those_that_would_have_come_without_it(packed):
    draws = []
    for trained in (False, True):
        torch.manual_seed(5)
        np.random.seed(5)  # noqa: NPY002
        if trained:
            run(made(drop_path_rate=0.3), packed, PLAIN.replace(recoloured=0.5), val=packed)
        draws.append((torch.rand(3).tolist(), np.random.rand(3).tolist()))  # noqa: NPY002
    assert draws[0] == draws[1]


def test_training_never_calls_the_teacher(features, bank, monkeypatch):
    monkeypatch.setattr(Teacher, "forward", lambda *_: pytest.fail("the teacher ran"))
    assert run(made(bank, ATTENTION), features.images, BASE.replace(hint_weight=1.0), features=features).step == 6


def test_only_the_wanted_terms_are_computed(features, fresh_bank):
    def terms(config: DistillConfig, augment: FeatureAugmentationConfig | None = None, **options) -> set[str]:
        history = run(made(fresh_bank(), augment), features.images, config.replace(steps=1), **options)
        return set(history.rows[0]) - {"step", "lr", "seconds", "loss"}

    with_teacher = {"features": features}
    assert terms(BASE) == {"task"}
    assert terms(PLAIN, **with_teacher) == {"task"}
    assert terms(BASE, **with_teacher) == {"task", "assignment", "feature"}
    assert terms(BASE.replace(assignment_weight=0.0, hint_weight=1.0), **with_teacher) == {"task", "feature", "hint"}
    branch = BASE.replace(feature_weight=0.0, teacher_branch_weight=0.5)
    assert terms(branch, **with_teacher) == {"task", "assignment", "teacher_branch"}
    assert terms(BASE, ATTENTION) == {"task", "augmented"}
    all_terms = {"task", "augmented", "teacher_branch", "consistency", "assignment", "feature", "hint", "soft"}
    everything = EVERYTHING.replace(unlabelled_batch=0)
    assert terms(everything, ATTENTION, **with_teacher) == all_terms


def test_the_loss_is_the_sum_of_the_terms_by_their_weights(features, bank):
    config = EVERYTHING.replace(unlabelled_batch=0, augmented_weight=0.3, assignment_weight=2.0)
    (row,) = run(made(bank, ATTENTION), features.images, config.replace(steps=1), features=features).rows
    weights = {
        name: getattr(config, f"{name}_weight", 1.0) for name in row if name not in ("step", "lr", "seconds", "loss")
    }
    assert weights["task"] == 1.0
    assert row["loss"] == pytest.approx(sum(weight * row[name] for name, weight in weights.items()), rel=1e-5)
    terms = {"task": torch.tensor(2.0), "hint": torch.tensor(3.0)}
    assert make_distiller(made(), config).total(terms).item() == 2 + 3 * config.hint_weight


@pytest.mark.parametrize("augment", [None, ATTENTION.replace(residual="relu")], ids=["plain", "augmented"])
def test_the_teacher_branch_reads_the_modules_output_or_the_patches_as_the_student_is_read(features, bank, augment):
    student = made(bank, augment).eval()
    batch, labels = batch_of(features, student, BASE, bank)
    u = batch.teacher.flatten(2).transpose(1, 2)
    for reads, g in (("module", bank(u)), ("patches", u)):
        config = BASE.replace(teacher_branch_weight=1.0, teacher_reads=reads)
        expected = TASK.loss(student.head(student.augmented(g) if augment else g), labels)
        torch.testing.assert_close(terms_of(make_distiller(student, config), batch, labels)["teacher_branch"], expected)


def test_a_disabled_prototype_is_left_out_of_the_transfer(features, bank):
    student = made(bank).eval()
    bank.enabled[1] = False
    distiller, seen = make_distiller(student, BASE), batch_of(features, student, BASE, bank)
    before = terms_of(distiller, *seen)["assignment"]
    with torch.no_grad():
        bank.prototypes[1] = 5 * bank.prototypes[0] + 1
    assert torch.equal(terms_of(distiller, *seen)["assignment"], before)
    bank.enabled[1] = True
    assert not torch.equal(terms_of(make_distiller(student, BASE), *seen)["assignment"], before)


# Who gets a gradient


def test_the_gradient_reaches_bank_augmentation_adapter_and_student_and_never_the_teacher(features, bank):
    config = TRAINED_BANK.replace(unlabelled_batch=0)
    augment = ATTENTION.replace(residual="relu", detach=False)  # as the paper has it
    student = made(bank, augment)
    distiller = make_distiller(student, config, features.widths)
    distiller.total(terms_of(distiller, *batch_of(features, student, config, bank))).backward()
    modules = {
        "backbone": student.backbone, "adapter": student.adapter, "head": student.head,
        "feature_augmentation": student.feature_augmentation,
        "bank": bank, "projector": distiller.projector,
    }  # fmt: skip
    for name, module in modules.items():
        silent = [key for key, p in module.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
        assert silent == [], f"{name} gets no gradient at {silent}"
    assert (bank.prototypes.grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize("term", ["assignment", "feature", "hint"])
def test_a_transfer_term_alone_reaches_the_student_and_never_the_teachers_features(features, bank, term):
    config = PLAIN.replace(**{f"{term}_weight": 1.0})
    student = made(bank)
    distiller = make_distiller(student, config, features.widths)
    batch, labels = batch_of(features, student, config, bank)
    batch.teacher.requires_grad_()
    if batch.last is not None:
        batch.last.requires_grad_()
    terms_of(distiller, replace(batch, labelled=0), labels)[term].backward()
    assert batch.teacher.grad is None
    assert batch.last is None or batch.last.grad is None
    assert student.backbone.conv1[0].weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in student.head.parameters())


def test_a_frozen_bank_is_unchanged_and_a_trained_one_moves(features, fresh_bank):
    for train_bank in (False, True):
        bank = fresh_bank()
        before = copy_of(bank)
        student = made(bank, ATTENTION)
        run(student, features.images, BASE.replace(train_bank=train_bank, teacher_branch_weight=0.5), features=features)
        moved = differing(before, copy_of(bank))
        assert ("prototypes" in moved) is train_bank
        assert bool(moved) is train_bank, moved
        assert differing(copy_of(made().adapter), copy_of(student.adapter))


def test_the_teacher_is_the_same_after_training(teacher, features, bank):
    before = teacher.fingerprint
    run(made(bank, ATTENTION), features.images, BASE.replace(train_bank=True), features=features)
    assert teacher.fingerprint == before
    assert all(p.grad is None for p in teacher.parameters())


# Unlabelled images


def test_unlabelled_images_change_transfer_terms_and_their_labels_are_never_used(features, unlabelled, fresh_bank):
    config = EVERYTHING.replace(steps=3)
    ends = []
    for labels in (np.full(7, UNLABELLED), np.zeros(7, np.int64), np.full(7, 999)):
        student = made(fresh_bank(), ATTENTION)
        told = replace(unlabelled, images=replace(unlabelled.images, labels=labels))
        run(student, features.images, config, features=features, unlabelled=told)
        ends.append(copy_of(student))
    assert differing(ends[0], ends[1]) == differing(ends[0], ends[2]) == []


def test_the_task_terms_see_labelled_images_only_and_the_transfer_terms_see_all(features, unlabelled, bank):
    config = EVERYTHING
    student = made(bank, ATTENTION.replace(residual="relu")).eval()  # in eval mode images do not touch one another
    distiller = make_distiller(student, config, features.widths)
    alone, labels = batch_of(features, student, config, bank)
    extra, _ = batch_of(unlabelled, student, config, bank, first=3)
    apart, together = (terms_of(distiller, batch, labels) for batch in (alone, alone.joined(extra)))
    for term in ("task", "augmented", "teacher_branch", "consistency"):
        torch.testing.assert_close(together[term], apart[term])
    of_extra = terms_of(distiller, extra, labels)
    for term in ("assignment", "feature"):
        torch.testing.assert_close(together[term], (apart[term] + of_extra[term]) / 2)
        assert (together[term] - apart[term]).abs() > 1e-4


def test_every_unlabelled_image_takes_its_turn(features, unlabelled, bank, monkeypatch):
    seen: list[int] = []
    inner = Source.batch

    def batch(self, indices, *rest):
        if self.images is unlabelled.images:
            seen.extend(indices.tolist())
        return inner(self, indices, *rest)

    monkeypatch.setattr(Source, "batch", batch)
    run(
        made(bank), features.images, BASE.replace(steps=7, unlabelled_batch=3), features=features, unlabelled=unlabelled
    )
    assert np.bincount(seen).tolist() == [3] * 7


def test_label_free_steps_have_no_task_term_and_leave_the_head_alone(features, unlabelled, bank):
    config = EVERYTHING.replace(steps=5, label_free_steps=3, warmup=0.0)
    heads, student = [], made(bank, ATTENTION.replace(residual="relu"))
    history = run(
        student, features.images, config, features=features, unlabelled=unlabelled,
        callbacks=(lambda step, row: heads.append(copy_of(student.head)),),
    )  # fmt: skip
    for row in history.rows:
        free = row["step"] < 3
        assert ({"task", "augmented", "teacher_branch", "consistency"} & row.keys() == set()) is free
        assert {"assignment", "feature", "hint"} <= row.keys()
    assert differing(heads[0], heads[2]) == []
    assert differing(heads[2], heads[4])


# The teacher itself


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PROCKD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("wants_maps", [False, True])
def test_a_teacher_in_place_of_features_keeps_what_training_reads_and_no_more(
    teacher, stripes, packed, fresh_bank, cache, wants_maps
):
    config, ends = BASE.replace(unlabelled_batch=3, hint_weight=float(wants_maps)), []
    keep = partial(embed_features, fresh_bank()) if not wants_maps else extract
    stored = keep(teacher, packed, progress=False)
    for given in ({"features": stored, "unlabelled": stored}, {"features": teacher, "unlabelled": stripes}):
        student = made(fresh_bank())
        run(student, stripes if given["features"] is teacher else packed, config, **given)
        ends.append(copy_of(student))
    assert differing(*ends) == []
    kept = {path.name: len(list(path.iterdir())) for path in cache.iterdir() if path.name != "images"}
    assert kept == ({"features": 1, "embedded": 1} if wants_maps else {"embedded": 1})


def test_embedded_features_train_the_student_that_their_maps_train(features, fresh_bank):
    config, ends = BASE.replace(unlabelled_batch=3), []
    embedded = embed_features(fresh_bank(), features)
    for given in (features, embedded):
        student = made(fresh_bank())
        run(student, features.images, config, features=given, unlabelled=given.select(np.arange(7)))
        ends.append(copy_of(student))
    assert differing(*ends) == []


def test_embedded_features_are_refused_where_the_maps_themselves_are_needed(features, fresh_bank):
    embedded = embed_features(fresh_bank(), features)
    needy = [(fresh_bank(), {"hint_weight": 1.0}), (fresh_bank(), {"train_bank": True})]
    needy += [(None, {"assignment_weight": 0.0, "feature_weight": 0.0, "teacher_branch_weight": 0.0})]
    message = r"embedded features are of use to their frozen bank only.*pk\.extract"
    for bank, changes in needy:
        config = BASE.replace(unlabelled_batch=2, **changes)
        for first in (features, embedded):
            with pytest.raises(ValueError, match=message):
                run(made(bank), features.images, config, features=first, unlabelled=embedded)
    other = fresh_bank()
    with torch.no_grad():
        other.fuse.bias[0] += 1
    with pytest.raises(ValueError, match=r"embedded in space .* embed them with this bank"):
        run(made(other), features.images, BASE, features=embedded)
    with pytest.raises(ValueError, match="teacher features belong to other images"):
        run(made(fresh_bank()), features.images, BASE, features=embedded.select([0, 1]))
    with pytest.raises(ValueError, match="store='none' keeps no features"):
        run(made(fresh_bank()), features.images, BASE.replace(store="none"), features=embedded)


def test_with_no_store_the_teacher_sees_every_crop_and_nothing_is_cached(teacher, packed, fresh_bank, cache):
    config, seen = BASE.replace(store="none", unlabelled_batch=3, hint_weight=1.0, steps=30), []
    student, inner = made(fresh_bank()), Source.look
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Source, "look", lambda self, images: seen.append(len(images)) or inner(self, images))
        history = run(student, packed, config, features=teacher, unlabelled=packed)
    assert seen == [4, 3] * 30
    assert not cache.exists()
    values = history.curve("feature")[1]
    assert np.mean(values[-5:]) < 0.9 * np.mean(values[:5])


def test_a_run_without_store_can_be_resumed_and_differs_from_one_with_it(teacher, features, fresh_bank, tmp_path):
    config, images = BASE.replace(store="none", min_crop=0.3), features.images
    whole, resumed, replayed = (made(fresh_bank()) for _ in range(3))
    run(whole, images, config, features=teacher)
    interrupted(made(fresh_bank()), teacher, config, tmp_path, 3, images, checkpoint_every=2)
    run(resumed, images, config, features=teacher, run_dir=tmp_path, resume=True)
    assert differing(copy_of(whole), copy_of(resumed)) == []
    run(replayed, images, config.replace(store="maps"), features=features)
    assert differing(copy_of(whole), copy_of(replayed))


def test_what_only_a_teacher_can_do_is_refused_without_one(teacher, packed, features, bank):
    with pytest.raises(ValueError, match=r"store='none' keeps no features: pass the teacher itself"):
        run(made(bank), packed, BASE.replace(store="none"), features=features)
    with pytest.raises(ValueError, match=r"features=Teacher\(...\), or unlabelled=extract\(teacher, images\)"):
        run(made(bank), packed, BASE.replace(unlabelled_batch=2), features=features, unlabelled=packed)
    bank.teacher = "f" * 20
    with pytest.raises(ValueError, match=r"the bank was learned from another teacher than Teacher\('resnet10t'"):
        run(made(bank), packed, BASE.replace(store="none"), features=teacher)


def test_flips_without_the_mirrored_view_are_refused_with_both_ways_out(features, bank):
    single = replace(features, maps=tuple(m[:, :1] for m in features.maps), views=("plain",))
    with pytest.raises(ValueError, match=r"saw them plain only: extract.*'mirrored'.*or DistillConfig\(flip=False\)"):
        run(made(bank), features.images, BASE, features=single)
    with pytest.raises(ValueError, match=r"flip mirrors"):
        run(made(bank), features.images, BASE.replace(unlabelled_batch=2), features=features, unlabelled=single)
    assert run(made(bank), features.images, BASE.replace(flip=False, steps=1), features=single).step == 1


# Devices


@pytest.mark.parametrize("store", ["maps", "none"])
@pytest.mark.parametrize("dense", [False, True])
def test_student_bank_and_teacher_are_moved_for_the_run_and_come_back(teacher, features, bank, cache, store, dense):
    images = annotated(features.images)
    task = Segmentation(2, width=8) if dense else TASK
    student = made(bank, ATTENTION, task=task)
    config = (TRAINED_BANK if dense else EVERYTHING).replace(steps=2, store=store, recoloured=0.5)
    where = []
    with fake_device() as away, accelerator(away):
        history = run(
            student, images, config, cpu=False, features=teacher, unlabelled=images, val=images,
            callbacks=(lambda step, row: where.append(homes(student, bank)),),
        )  # fmt: skip
        assert homes(student, bank, teacher) == {"cpu"}
    assert where == [{"meta"}] * 2
    assert history.scores.augmented is not None


def test_everything_comes_back_after_an_exception_too(teacher, packed, bank):
    student = made(bank)

    def fail(step: int, row: dict[str, float]) -> None:
        assert homes(student, bank, teacher) == {"meta"}
        raise KeyboardInterrupt

    with fake_device() as away, accelerator(away), pytest.raises(KeyboardInterrupt):
        run(student, packed, BASE.replace(store="none"), cpu=False, features=teacher, callbacks=(fail,))
    assert homes(student, bank, teacher) == {"cpu"}


def test_a_run_that_was_told_to_stay_on_the_cpu_stays_there(features, bank):
    student, where = made(bank), []
    with fake_device() as away, accelerator(away):
        run(student, features.images, BASE.replace(steps=1), features=features, val=features.images,
            callbacks=(lambda step, row: where.append(homes(student)),))  # fmt: skip
    assert where == [{"cpu"}]


# Bad input


@pytest.mark.parametrize("label", [-1, 2])
def test_a_label_outside_the_task_is_refused_with_the_image(packed, label):
    labels = packed.labels.copy()
    labels[5] = label
    with pytest.raises(ValueError, match=rf"image '5' has label {label}, .* classes 0\.\.1"):
        run(made(), replace(packed, labels=labels), PLAIN)


def test_teacher_features_of_other_images_are_refused(features, bank, tmp_path):
    other = pack(Arrays(255 - draw_stripes()[0], draw_stripes()[1], TASK.classes), 32, root=tmp_path, progress=False)
    assert other.ids == features.images.ids  # numbers tell nothing
    for images in (features.images.select(np.arange(11)), features.images.select(np.arange(12)[::-1]), other):
        with pytest.raises(ValueError, match="belong to other images"):
            run(made(bank), images, BASE, features=features)


def test_a_data_set_that_is_not_packed_is_checked_against_the_features_too(
    stripes, features, bank, tmp_path, monkeypatch
):
    monkeypatch.setenv("PROCKD_CACHE", str(tmp_path))
    others = Arrays(255 - stripes.images, stripes.labels, stripes.classes)
    with pytest.raises(ValueError, match="belong to other images"):
        run(made(bank), others, BASE, features=features)
    assert run(made(bank), stripes, BASE.replace(steps=1), features=features).step == 1


def test_images_packed_at_another_size_than_the_features_are_the_same_images(stripes, features, bank, tmp_path):
    large = pack(stripes, 48, root=tmp_path, progress=False)
    assert run(made(bank), large, BASE.replace(steps=1), features=features).step == 1


def test_a_bank_of_another_teacher_is_refused(features, bank):
    bank.teacher = "f" * 20
    with pytest.raises(ValueError, match="bank's teacher"):
        run(made(bank), features.images, BASE, features=features)


def test_terms_that_need_prototypes_are_refused_without_a_bank(features):
    with pytest.raises(ValueError, match=r"assignment_weight, feature_weight > 0 need prototypes"):
        run(made(), features.images, BASE, features=features)
    assert run(made(), features.images, PLAIN.replace(hint_weight=1.0, steps=1), features=features).step == 1


def test_what_would_train_nothing_is_refused(features, unlabelled, bank):
    cases = [
        ("label_free_steps are for transfer", BASE.replace(label_free_steps=2), {}),
        ("unlabelled_batch is 0", BASE, {"features": features, "unlabelled": unlabelled}),
        ("learn from transfer alone", PLAIN.replace(label_free_steps=2), {"features": features}),
    ]
    for message, config, options in cases:
        with pytest.raises(ValueError, match=message):
            run(made(bank), features.images, config, **options)


def poisoned(after: int, value):
    """The feature loss that goes wrong after some calls."""
    inner, calls = losses.feature, []

    def feature(student, teacher, *rest):
        calls.append(None)
        return inner(student, teacher) if len(calls) <= after else value(student)

    return feature


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda student: student.mean() * float("nan"), "the loss is nan at step 4"),
        (lambda student: student.mean() * float("inf"), "the loss is -?(inf|nan) at step 4"),
        (lambda student: (student - student.detach()).abs().sum().sqrt(), "its gradient (nan|inf) at step 4"),
    ],
    ids=["nan", "inf", "infinite slope of a finite loss"],
)
def test_a_loss_that_is_not_finite_stops_with_step_terms_and_images_and_keeps_the_last_good_checkpoint(
    features, bank, tmp_path, monkeypatch, value, message
):
    monkeypatch.setattr(losses, "feature", poisoned(4, value))
    student = made(bank)
    with pytest.raises(NonFiniteLossError, match=message) as told:
        run(student, features.images, BASE, features=features, run_dir=tmp_path, checkpoint_every=1)
    text = str(told.value)
    batch = shuffled(12, 4, 0, 4)
    assert ", ".join(features.images.ids[i] for i in batch) in text
    assert "task " in text
    assert str(tmp_path) in text
    kept = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert kept["step"] == 4
    assert all(value.isfinite().all() for value in kept["model"].values())
    assert all(value.isfinite().all() for value in copy_of(student).values())


def test_images_that_are_not_finite_after_a_broken_backbone_are_told_in_a_plain_run(packed):
    student = made()
    with torch.no_grad():
        student.adapter[0].weight[0, 0] = float("nan")
    with pytest.raises(NonFiniteLossError, match="step 0 "):
        run(student, packed, PLAIN)


# Stopping and going on


def interrupted(student: Student, features: Any, config: DistillConfig, folder: Path, at: int, images=None, **options):
    """A run that is killed after some steps."""

    def kill(step: int, row: dict[str, float]) -> None:
        if step == at:
            raise KeyboardInterrupt

    given = {"features": features, "run_dir": folder, "callbacks": (kill,), **options}
    with pytest.raises(KeyboardInterrupt):
        run(student, images or features.images, config, **given)


@pytest.mark.parametrize(
    ("at", "every"), [(3, 2), (5, 2), (1, 2), (4, 100)], ids=["between", "late", "before the first", "no checkpoint"]
)
def test_a_run_resumed_after_a_kill_ends_in_the_very_weights_of_an_uninterrupted_one(
    features, unlabelled, fresh_bank, tmp_path, at, every
):
    config = TRAINED_BANK.replace(steps=8, label_free_steps=3)
    augment = ATTENTION.replace(residual="relu")

    def student() -> Student:
        return made(fresh_bank(), augment, drop_path_rate=0.3)

    options = {"unlabelled": unlabelled, "checkpoint_every": every}
    whole = student()
    expected = run(whole, features.images, config, features=features, **options)
    interrupted(student(), features, config, tmp_path, at, **options)
    torch.rand(17)  # the random state of the new process is another one
    resumed = student()
    history = run(resumed, features.images, config, features=features, run_dir=tmp_path, resume=True, **options)
    assert differing(copy_of(whole), copy_of(resumed)) == []
    assert curves(history) == curves(expected)
    assert [row["step"] for row in history.rows] == list(range(8))


@pytest.mark.parametrize("dense", [False, True])
def test_a_run_with_soft_targets_and_part_maps_resumed_after_a_kill_ends_in_the_very_weights_too(
    features, unlabelled, fresh_bank, tmp_path, dense
):
    config, task = EVERYTHING.replace(steps=6, soft_steps=3), Segmentation(2, width=8) if dense else TASK
    features = replace(features, images=annotated(features.images))

    def student() -> Student:
        return made(fresh_bank(), FeatureAugmentationConfig(), task=task, drop_path_rate=0.3)

    whole, resumed = student(), student()
    expected = run(whole, features.images, config, features=features, unlabelled=unlabelled)
    options = {"unlabelled": unlabelled, "checkpoint_every": 2}
    interrupted(student(), features, config, tmp_path, 3, **options)
    torch.rand(17)
    history = run(resumed, features.images, config, features=features, run_dir=tmp_path, resume=True, **options)
    assert differing(copy_of(whole), copy_of(resumed)) == []
    assert curves(history) == curves(expected)
    assert dense or bool(resumed.feature_augmentation.fitted)


def test_seconds_go_on_counting_after_a_resumption(features, bank, tmp_path):
    interrupted(made(bank), features, BASE, tmp_path, 4, checkpoint_every=1)
    history = run(made(bank), features.images, BASE, features=features, run_dir=tmp_path, resume=True)
    seconds = history.curve("seconds")[1]
    assert seconds == sorted(seconds)


def test_the_time_of_a_step_counts_all_steps_of_a_resumed_run_also_those_after_the_last_row(features, bank, tmp_path):
    whole = run(made(bank), features.images, BASE, features=features, log_every=4)
    assert whole.seconds_per_step == whole.rows[-1]["seconds"] / 6 > 0
    interrupted(made(bank), features, BASE, tmp_path, 4, checkpoint_every=3, log_every=4)
    kept = json.loads((tmp_path / "metrics.jsonl").read_text())  # one row, of step 0, and a checkpoint of three steps
    history = run(
        made(bank), features.images, BASE, features=features, run_dir=tmp_path, resume=True, log_every=4
    )  # fmt: skip
    assert history.rows[-1]["seconds"] > 3 * kept["seconds"]
    assert history.seconds_per_step == history.rows[-1]["seconds"] / 6


def test_a_finished_run_resumed_does_nothing_more(features, bank, tmp_path):
    student = made(bank)
    first = run(student, features.images, BASE, features=features, run_dir=tmp_path)
    other = made(bank)
    history = run(other, features.images, BASE, features=features, run_dir=tmp_path, resume=True, val=features.images)
    assert history.step == 6
    assert history.seconds_per_step == first.seconds_per_step
    assert history.scores.plain == evaluate(student, features.images).plain
    assert differing(copy_of(student), copy_of(other)) == []


def test_resuming_where_nothing_was_kept_starts_from_the_beginning(features, bank, tmp_path):
    history = run(made(bank), features.images, BASE, features=features, run_dir=tmp_path / "new", resume=True)
    assert len(history.rows) == 6


def test_resuming_with_other_settings_is_refused_with_their_names(features, bank, tmp_path):
    run(made(bank), features.images, BASE, features=features, run_dir=tmp_path)
    with pytest.raises(
        ValueError, match=r"other settings .*lr was 0\.004, is 0\.001.*hint_weight was 0\.0, is 2\.0"
    ) as told:
        run(
            made(bank),
            features.images,
            BASE.replace(lr=1e-3, hint_weight=2.0),
            features=features,
            run_dir=tmp_path,
            resume=True,
        )
    assert "batch_size" not in str(told.value)


def test_resuming_with_another_student_is_refused(features, bank, tmp_path):
    run(made(bank), features.images, BASE, features=features, run_dir=tmp_path)
    with pytest.raises(ValueError, match="another student"):
        run(
            made(bank, ATTENTION),
            features.images,
            BASE,
            features=features,
            run_dir=tmp_path,
            resume=True,
        )


@pytest.mark.parametrize("part", [0.0, 0.5, 0.99])
def test_a_damaged_checkpoint_is_told_and_not_believed(features, bank, tmp_path, part):
    run(made(bank), features.images, BASE, features=features, run_dir=tmp_path)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"checkpoint\.pt is not a checkpoint that can be read"):
        run(made(bank), features.images, BASE, features=features, run_dir=tmp_path, resume=True)


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(features, fresh_bank, tmp_path, monkeypatch):
    whole = made(fresh_bank())
    run(whole, features.images, BASE, features=features)
    inner, saved = torch.save, []

    def save(state, path):
        saved.append(None)
        if len(saved) == 2:
            Path(path).write_bytes(b"half a checkpoint")
            raise KeyboardInterrupt
        inner(state, path)

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", save)
        with pytest.raises(KeyboardInterrupt):
            run(made(fresh_bank()), features.images, BASE, features=features, run_dir=tmp_path, checkpoint_every=2)
    resumed = made(fresh_bank())
    history = run(resumed, features.images, BASE, features=features, run_dir=tmp_path, resume=True)
    assert history.step == 6
    assert differing(copy_of(whole), copy_of(resumed)) == []


def test_a_callback_can_stop_the_run_and_keeps_the_result_which_can_be_resumed(features, fresh_bank, tmp_path):
    seen, student = [], made(fresh_bank())

    def stop(step: int, row: dict[str, float]) -> bool:
        seen.append((step, row["task"]))
        return step == 3

    options = {"features": features, "run_dir": tmp_path}
    history = run(student, features.images, BASE, callbacks=(stop,), val=features.images, **options)
    assert history.stopped
    assert "stopped early" in repr(history)
    assert history.step == len(seen) == 4
    assert history.scores.plain == evaluate(student, features.images).plain
    assert not student.training
    assert differing(copy_of(student), copy_of(made(fresh_bank())))
    whole, resumed = made(fresh_bank()), made(fresh_bank())
    run(whole, features.images, BASE, features=features)
    assert not run(resumed, features.images, BASE, resume=True, **options).stopped
    assert differing(copy_of(whole), copy_of(resumed)) == []


def test_every_callback_is_called_though_one_of_them_stops(packed):
    called = []
    run(made(), packed, PLAIN, callbacks=(lambda step, row: True, lambda step, row: called.append(step)))
    assert called == [0]


def test_metrics_are_written_beside_the_checkpoint_as_the_history_has_them(features, bank, tmp_path):
    history = run(made(bank), features.images, BASE, features=features, run_dir=tmp_path / "run", log_every=2)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == history.rows
    assert [row["step"] for row in history.rows] == [0, 2, 4, 5]
    assert history.curve("task") == ([0, 2, 4, 5], [row["task"] for row in history.rows])
    assert not (tmp_path / "run" / "checkpoint.new").exists()


# Learning rate


def test_the_learning_rate_rises_in_a_line_and_falls_by_a_cosine():
    config = DistillConfig(steps=100, lr=2.0, warmup=0.1)
    rates = [learning_rate(step, config) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert rates[10] == pytest.approx(2.0)
    assert rates[55] == pytest.approx(1.0)
    assert all(later < earlier for earlier, later in pairwise(rates[10:]))
    assert 0 < rates[-1] < 0.01
    assert rates[77] == pytest.approx(1 + math.cos(math.pi * 67 / 90))


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.0), (1, 1.0), (5, 1.0), (3, 0.05)])
def test_the_learning_rate_is_positive_however_short_the_run(steps, warmup):
    config = DistillConfig(steps=steps, lr=1.0, warmup=warmup)
    assert all(0 < learning_rate(step, config) <= 1 for step in range(steps))


def test_the_scheduled_rate_is_the_one_that_is_used(packed):
    config = PLAIN.replace(steps=5, warmup=0.4)
    history = run(made(), packed, config)
    assert history.curve("lr")[1] == [learning_rate(step, config) for step in range(5)]
    student = made()
    before = copy_of(student.head)
    run(student, packed, config.replace(lr=0.0))
    assert differing(before, copy_of(student.head)) == []


# Precision and processes


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_run_in_half_precision_resumed_after_a_kill_ends_in_the_very_weights_too(
    features, fresh_bank, tmp_path, precision, monkeypatch
):
    small = partial(torch.amp.GradScaler, init_scale=64.0, growth_interval=2)  # it changes within the run
    monkeypatch.setattr(torch.amp, "GradScaler", small)
    config, whole, resumed = BASE.replace(mixed_precision=precision, steps=8), made(fresh_bank()), made(fresh_bank())
    expected = run(whole, features.images, config, features=features)
    interrupted(made(fresh_bank()), features, config, tmp_path, 5, checkpoint_every=3)
    scaler = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["scaler"]
    assert (scaler.get("scale"), scaler.get("_growth_tracker")) == ((128, 1) if precision == "fp16" else (None, None))
    history = run(resumed, features.images, config, features=features, run_dir=tmp_path, resume=True)
    assert differing(copy_of(whole), copy_of(resumed)) == []
    assert curves(history) == curves(expected)


def test_long_gradients_are_cut_and_with_0_they_are_left(packed):
    lengths = {}
    for most in (0.0, 0.01, 1e6):
        student = made()

        def measure(step: int, row: dict[str, float], student=student, most=most) -> None:
            grads = [p.grad for p in student.parameters() if p.grad is not None]
            lengths[most] = torch.nn.utils.get_total_norm(grads).item()

        run(student, packed, PLAIN.replace(steps=1, clip_grad_norm=most), callbacks=(measure,))
    assert lengths[0.01] == pytest.approx(0.01, rel=1e-3)
    assert lengths[0.0] == lengths[1e6] > 0.1


def test_precision_is_that_of_the_chip_where_nobody_says_and_the_history_tells_it(packed, tmp_path, monkeypatch):
    for fastest, told in (("bf16", "bf16"), ("fp32", "no")):
        monkeypatch.setattr(loop, "fastest_precision", lambda device, fastest=fastest: fastest)
        history = run(made(), packed, PLAIN.replace(steps=1, mixed_precision="auto"), run_dir=tmp_path / told)
        assert history.precision == told
        assert ("in bf16" in repr(history)) is (told == "bf16")
        kept = torch.load(tmp_path / told / "checkpoint.pt", weights_only=True)
        assert kept["config"]["mixed_precision"] == told


def test_runs_of_different_precision_follow_one_another_in_one_process(features, fresh_bank):
    ends = {}
    for precision in ("no", "bf16", "no"):
        student = made(fresh_bank(), ATTENTION)
        config = EVERYTHING.replace(unlabelled_batch=0, mixed_precision=precision)
        history = run(student, features.images, config, features=features, val=features.images)
        assert all(math.isfinite(row["loss"]) for row in history.rows)
        assert {p.dtype for p in student.parameters()} == {torch.float32}
        ends.setdefault(precision, []).append(copy_of(student))
    assert differing(*ends["no"]) == []
    assert differing(ends["no"][0], ends["bf16"][0])  # the flag does something


@pytest.fixture(scope="module")
def two_processes(features, unlabelled, tmp_path_factory) -> tuple[Path, list[dict]]:
    """What two processes made of the same calls."""
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = DiscoverConfig(num_prototypes=6, embed_dim=16, steps=4, batch_size=4)
    state = discover(features, config=config, progress=False).state_dict()
    arguments = (port, str(folder), features, unlabelled, state)
    multiprocessing.start_processes(one_of_two, arguments, nprocs=2, start_method="spawn")  # a fork may hang on threads
    return folder, [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
def test_two_processes_share_each_step_and_end_in_identical_weights(two_processes, bank):
    folder, (first, second) = two_processes
    assert differing(first["weights"], second["weights"]) == []
    assert first["predictions"] == second["predictions"]
    assert first["rows"] == second["rows"]  # the loss is that of the whole batch
    for labelled, more in zip(range(0, 12, 2), range(1, 12, 2), strict=True):
        assert [len(r["seen"][labelled]) for r in (first, second)] == [3, 3]
        assert [len(r["seen"][more]) for r in (first, second)] == [2, 2]
        assert first["seen"][labelled] != second["seen"][labelled]
    assert differing(first["weights"], copy_of(made(bank, ATTENTION)))
    kept = torch.load(folder / "bf16" / "checkpoint.pt", weights_only=True)
    assert kept["step"] == 6


@pytest.mark.slow
def test_two_processes_score_once_and_stop_together(two_processes):
    _, (first, second) = two_processes
    assert (first["scored"], second["scored"]) == ([0, 0], [])
    assert (first["called"], second["called"]) == ([0, 1], [])
    assert first["stopped"] == second["stopped"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{task}, batch {size}" for task, size in CASES])
def test_the_gradient_of_two_processes_is_that_of_one_with_the_whole_batch(two_processes, features, unlabelled, number):
    task, size = CASES[number]
    images, transfer = annotated(features.images), {"features": features, "unlabelled": unlabelled}
    whole, losses_of_one = gradients(images, task, size, **(transfer if task == EVERY_TERM else {}))
    for result in two_processes[1]:
        shared, losses_of_two = result["gradients"][number]
        assert whole.keys() == shared.keys()
        assert losses_of_two == pytest.approx(losses_of_one, rel=1e-4)
        difference = sum((whole[k] - shared[k]).square().sum() for k in whole).sqrt()
        assert difference < 1e-4 * sum(g.square().sum() for g in whole.values()).sqrt()


@pytest.mark.slow
def test_the_line_of_the_readme_starts_two_processes_on_a_machine_without_a_gpu(tmp_path):
    (line,) = re.findall(r"`(torchrun .*?)-m prockd distill", (Path(__file__).parents[1] / "README.md").read_text())
    script = tmp_path / "count.py"
    script.write_text(
        "import sys\n"
        "from prockd.training.processes import connect\n"
        "processes = connect(cpu=True)\n"
        "told = f\"{processes.once(lambda: 'counted')} {processes.rank} of {processes.count}\\n\"\n"
        "sys.stdout.write(told)\n"  # in one piece: both write to one pipe, unbuffered
    )
    words = ["-m", "torch.distributed.run", *line.split()[1:], str(script)]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=120, check=False)
    assert sorted(re.findall(r"counted . of .", done.stdout)) == ["counted 0 of 2", "counted 1 of 2"], done.stderr


# Any network teaches any other


PAIRS = {
    "cnn to vit": ("cnn", {"backbone": "test_vit", "patch_size": 16}),
    "vit to cnn": ("vit", {"backbone": "resnet10t", "layers": (1, 2, 3), **TINY}),
    "vit to vit": ("vit", {"backbone": "test_vit", "patch_size": 4}),
}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("dense", [False, True])
def test_any_teacher_teaches_any_student_whatever_their_grids_and_widths(teacher, vit, packed, tmp_path, pair, dense):
    kind, learns = PAIRS[pair]
    seen = extract({"cnn": teacher, "vit": vit}[kind], packed, device="cpu", root=tmp_path, progress=False)
    bank = discover(seen, config=DiscoverConfig(num_prototypes=4, embed_dim=16, steps=1, batch_size=4), progress=False)
    images, task = packed, TASK
    if dense:
        masks = (np.asarray(packed.pixels).mean(1) > 128).astype(np.uint8)
        images, task = replace(packed, masks=masks), Segmentation(2, ("dark", "bright"), width=8)
    student = Student(**learns, task=task, bank=bank, feature_augmentation=ATTENTION, image_px=32)
    assert student.grid != seen.grid
    assert f"{seen.width} teacher values" in repr(student)
    config = BASE.replace(steps=50, batch_size=12, hint_weight=1.0, unlabelled_batch=2)
    history = run(student, images, config, features=replace(seen, images=images), unlabelled=seen, val=images)
    values = history.curve("feature")[1]
    assert np.mean(values[-5:]) < 0.9 * np.mean(values[:3])
    assert history.scores.augmented is not None
