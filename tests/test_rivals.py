from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from loop_world import PLAIN, copy_of, curves, made, run
from torch.nn import functional as F

from prockd._types import UNLABELLED
from prockd.prototypes.embedding import embed_features
from prockd.settings.method import DistillConfig
from prockd.teachers.features import PatchFeatures
from prockd.training.rivals import LOSSES, Queue, Rival, angles, distances, shared_kl

B, N, E, D = 6, 9, 8, 16
NAMES = (*LOSSES, "queue")
RELATIONS = ("at", "sp", "pkt", "rkd", "intra_image")
RIVAL = PLAIN.replace(steps=2, rival_weight=3.0)


@pytest.fixture
def patches() -> tuple[torch.Tensor, torch.Tensor]:
    """Of a student and of a teacher, whose images, patches and values all differ."""
    torch.manual_seed(0)
    return torch.randn(B, 1, E) + torch.randn(B, N, E), torch.randn(B, 1, D) + 0.5 + torch.randn(B, N, D)


def perfect(name: str, teacher: torch.Tensor) -> torch.Tensor:
    """The best projected student of a teacher: the teacher itself, for VkD with its values standardised."""
    return (teacher - teacher.mean((0, 1))) / teacher.std((0, 1), correction=0) if name == "orthogonal" else teacher


# Every loss


def test_every_choice_of_the_knob_is_a_loss():
    (knob,) = (f for f in fields(DistillConfig) if f.name == "rival")
    assert knob.metadata["options"] == ("none", *NAMES)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_zero_for_the_teachers_own_patches_and_grows_with_the_difference(patches, name):
    teacher = patches[1]
    best, other = perfect(name, teacher), torch.randn_like(teacher)
    values = [LOSSES[name](torch.lerp(best, other, part), teacher).item() for part in (0.0, 0.3, 0.6, 1.0)]
    assert values[0] == pytest.approx(0, abs=1e-4)
    assert values == sorted(values)
    assert values[-1] > 0.2


@pytest.mark.parametrize("name", ["mse", "orthogonal", "sp", "pkt", "intra_image", "queue"])
def test_a_student_that_tells_nothing_apart_gets_a_loss_of_one(patches, name):
    teacher = patches[1]
    alike = perfect(name, teacher).mean((0, 1)).expand_as(teacher) * (name != "queue")  # like no image of the queue
    loss = Queue(D, 32) if name == "queue" else LOSSES[name]
    assert loss(alike, teacher).item() == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_image_of_the_student_and_what_it_learns_beside_it_never_the_teacher(patches, name):
    student, teacher = (one.requires_grad_() for one in patches)
    rival = Rival(name, E, D)
    rival(student, teacher).backward()
    assert (student.grad.flatten(1).abs().sum(1) > 0).all()
    assert teacher.grad is None
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in rival.parameters())
    assert bool(list(rival.parameters())) is (name not in RELATIONS)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [1, 2])
def test_a_batch_too_small_for_relations_and_a_teacher_that_says_nothing_are_finite(patches, name, count):
    student, teacher = (one[:count].requires_grad_() for one in patches)
    for said in (teacher, torch.ones_like(teacher)):
        loss = Rival(name, E, D)(student, said)
        loss.backward()
        assert loss.isfinite()
        assert student.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_patches_are_compared_in_single_precision(patches, name):
    torch.manual_seed(1)
    rival = Rival(name, E, D)
    for kind in (torch.bfloat16, torch.float16):
        half = [one.to(kind) for one in patches]
        loss = rival(*half)
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, rival(*(one.float() for one in half)), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_following_the_gradient_brings_the_student_to_the_teacher(patches, name):
    torch.manual_seed(1)
    student, teacher = patches
    rival, student = Rival(name, E, D), student.clone().requires_grad_()
    optimiser, values = torch.optim.Adam([student, *rival.parameters()], lr=0.05), []
    for _ in range(60):
        optimiser.zero_grad()
        loss = rival(student, teacher)
        loss.backward()
        optimiser.step()
        values.append(loss.item())
    assert values[-1] < 0.7 * values[0]


# What each paper claims of its own


@pytest.mark.parametrize("name", RELATIONS)
def test_relations_do_not_depend_on_the_scale_of_either_side(patches, name):
    student, teacher = patches
    before = LOSSES[name](student, teacher)
    assert before > 0.01
    torch.testing.assert_close(LOSSES[name](7 * student, 0.3 * teacher), before, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", RELATIONS)
def test_relations_see_no_rotation_of_either_side(patches, name):
    student, teacher = patches
    turns = [torch.linalg.qr(torch.randn(width, width))[0] for width in (E, D)]
    turned = LOSSES[name](student @ turns[0], teacher @ turns[1])
    torch.testing.assert_close(turned, LOSSES[name](student, teacher), rtol=1e-3, atol=1e-4)


def test_rkd_sees_no_shift_but_pkt_does(patches):
    student, teacher = patches
    for name, sees in (("rkd", False), ("pkt", True)):
        change = LOSSES[name](student + 3, teacher) - LOSSES[name](student, teacher)
        assert (abs(change.item()) > 1e-3) is sees


def test_rkd_measures_the_distances_and_angles_of_a_right_triangle():
    images = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    torch.testing.assert_close(distances(images), torch.tensor([[3.0, 4.0], [3.0, 5.0], [4.0, 5.0]]) / 4)
    expected = torch.tensor([[0.0, 0.0], [0.6, 0.6], [0.8, 0.8]])
    torch.testing.assert_close(angles(images), expected, atol=1e-6, rtol=0)


def test_attention_transfer_sees_where_and_not_what(patches):
    student, teacher = patches
    signs = torch.where(torch.rand(E) < 0.5, -1.0, 1.0)
    torch.testing.assert_close(LOSSES["at"](student * signs, teacher), LOSSES["at"](student, teacher))
    moved = LOSSES["at"](teacher.roll(1, 1), teacher)
    assert moved > 0.1


def test_pkt_is_the_divergence_of_conditional_probabilities_of_pooled_images(patches):
    p, q = [], []
    for rows, one in ((q, patches[0]), (p, patches[1])):
        unit = F.normalize(one.mean(1), dim=-1)
        kernel = (unit @ unit.T + 1) / 2 * (1 - torch.eye(B))
        rows.append(kernel / kernel.sum(1, keepdim=True))
    kl = torch.special.xlogy(p[0], p[0] / q[0]).nansum(1).mean()
    even = torch.special.xlogy(p[0], p[0] * (B - 1)).nansum(1).mean()
    torch.testing.assert_close(LOSSES["pkt"](*patches), kl / even, rtol=1e-3, atol=1e-4)


def test_intra_image_relations_know_nothing_of_other_images(patches):
    student, teacher = patches
    whole = LOSSES["intra_image"](student, teacher)
    order = torch.tensor([3, 1, 0, 5, 4, 2])
    torch.testing.assert_close(LOSSES["intra_image"](student[order], teacher[order]), whole)
    assert LOSSES["intra_image"](student[order], teacher) > 1.05 * whole


def test_vkd_keeps_the_projection_orthogonal_while_it_learns(patches):
    for width in (D, E // 2):
        rival = Rival("orthogonal", E, width)
        student, teacher = patches[0], patches[1][..., :width]
        optimiser = torch.optim.Adam(rival.parameters(), lr=0.1)
        before = rival.projector.weight.detach().clone()
        for _ in range(5):
            optimiser.zero_grad()
            rival(student, teacher).backward()
            optimiser.step()
        weight = rival.projector.weight
        gram = weight.T @ weight if width > E else weight @ weight.T
        torch.testing.assert_close(gram, torch.eye(min(width, E)), atol=1e-5, rtol=0)
        assert (weight - before).abs().max() > 0.01


def test_an_inverted_projection_may_forget_what_the_student_cannot_have(patches):
    torch.manual_seed(1)
    student = patches[0]
    teacher = torch.cat([student @ torch.randn(E, E), torch.randn(B, N, D - E)], -1)  # the second half is its own
    rival = Rival("inverted", E, D)
    optimiser = torch.optim.Adam(rival.parameters(), lr=0.03)
    for _ in range(300):
        optimiser.zero_grad()
        loss = rival(student, teacher)
        loss.backward()
        optimiser.step()
    assert loss < 0.05
    own = rival.projector.weight.detach().abs()
    assert own[:, E:].mean() < 0.5 * own[:, :E].mean()


# The queue


def test_the_queue_holds_the_last_images_the_newest_first_and_only_while_it_trains():
    queue = Queue(D, 5)
    batches = [torch.randn(2, N, D) for _ in range(4)]
    for t in batches:
        queue(t, t)
    expected = F.normalize(torch.cat([*reversed(batches)]).mean(1), dim=-1)[:5]
    torch.testing.assert_close(queue.past, expected)
    queue.eval()(batches[0], batches[0])
    torch.testing.assert_close(queue.past, expected)


def test_the_queue_compares_similarities_to_images_seen_and_not_to_empty_places(patches):
    queue, teacher = Queue(D, 100), patches[1]
    student = teacher.flip(0)
    f, t = (F.normalize(one.mean(1), dim=-1) for one in (student, teacher))
    torch.testing.assert_close(queue(student, teacher), shared_kl(f @ t.T / 0.07, t @ t.T / 0.07))


# In the training loop


@pytest.fixture(scope="module")
def unlabelled(features: PatchFeatures) -> PatchFeatures:
    part = features.select(np.arange(7))
    return replace(part, images=replace(part.images, labels=np.full(7, UNLABELLED)))


@pytest.mark.parametrize("name", NAMES)
def test_a_rival_trains_without_a_bank_and_a_resumed_run_ends_in_the_same_weights(features, unlabelled, tmp_path, name):
    config = RIVAL.replace(rival=name, steps=4, unlabelled_batch=3, standardise="mean_std", gradient_share=0.5)
    given = {"features": features, "unlabelled": unlabelled}
    plain, whole, resumed = made(), made(), made()
    run(plain, features.images, config.replace(rival_weight=0.0, standardise="none"), **given)
    history = run(whole, features.images, config, **given)
    assert {"task", "rival", "rival_weight"} <= history.rows[0].keys()
    assert copy_of(plain).keys() == copy_of(whole).keys()  # a projector is no part of the student
    assert any(not torch.equal(a, b) for a, b in zip(plain.parameters(), whole.parameters(), strict=True))
    run(made(), features.images, config, **given, run_dir=tmp_path, checkpoint_every=2, callbacks=(until(1),))
    continued = run(resumed, features.images, config, **given, run_dir=tmp_path, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(copy_of(whole).values(), copy_of(resumed).values(), strict=True))
    assert curves(continued) == curves(history)


def test_a_rival_beside_prototypes_reads_the_teachers_own_patches(features, bank, tmp_path):
    config = RIVAL.replace(rival="mse", feature_weight=3.0)
    both, alone = (
        run(made(bank), features.images, c, features=features) for c in (config, config.replace(rival="none"))
    )
    assert {"rival", "feature"} <= both.rows[0].keys()
    assert both.rows[0]["feature"] == pytest.approx(alone.rows[0]["feature"], abs=1e-3)  # of stored half precision
    with pytest.raises(
        ValueError, match="soft targets are read in the space of a frozen bank: set soft_weight to 0, or"
    ):
        run(made(bank), features.images, config.replace(soft_weight=1.0), features=features)
    embedded = embed_features(bank, features)
    with pytest.raises(ValueError, match=r"without train_bank, hint_weight or rival, or the teacher's own maps"):
        run(made(bank), features.images, config, features=embedded)
    weightless = run(made(bank), features.images, config.replace(rival_weight=0.0), features=embedded)
    assert "rival" not in weightless.rows[0]


def test_a_rival_alone_may_teach_in_label_free_steps(features, unlabelled):
    config = RIVAL.replace(rival="sp", unlabelled_batch=3, label_free_steps=1, gradient_share=0.5)
    history = run(made(), features.images, config, features=features, unlabelled=unlabelled)
    assert [("task" in row, "rival" in row) for row in history.rows] == [(False, True), (True, True)]
    assert history.rows[0]["rival_weight"] == 3.0  # no task yet to hold it against


def test_a_rival_may_watch_the_teacher_itself(teacher, packed):
    config = RIVAL.replace(rival="cosine", store="none", standardise="phi_s")
    history = run(made(), packed, config, features=teacher)
    assert history.step == 2
    assert 0 < history.rows[-1]["rival"] < 2


def test_what_no_rival_would_read_is_refused(features):
    for changes in ({}, {"rival": "mse", "rival_weight": 0.0}):
        with pytest.raises(ValueError, match="standardise is of what a rival reads: set rival"):
            run(made(), features.images, PLAIN.replace(standardise="phi_s", **changes), features=features)


def until(last: int):
    """A callback that ends a run after this step."""
    return lambda step, row: step >= last
