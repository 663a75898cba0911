"""Part maps: what they compute, what they leave alone, and what survives a file."""

import copy

import numpy as np
import pytest
import torch
from conftest import TINY
from loop_world import ATTENTION, BASE, PLAIN, TASK, annotated, copy_of, made, run
from torch.nn import functional as F

from prockd.datasets.transforms import to_unit, whole_images
from prockd.farmyard import Farmyard
from prockd.prototypes.bank import PrototypeBank
from prockd.prototypes.discovery import discover
from prockd.prototypes.part_maps import PartMaps, belonging, part_descriptor
from prockd.settings.method import DiscoverConfig, FeatureAugmentationConfig
from prockd.students.student import Student, still
from prockd.tasks import Detection, Segmentation
from prockd.teachers.features import extract
from prockd.teachers.teacher import Teacher

B, N, E, K, C = 2, 9, 6, 4, 3
CLOSED, TRAINED = FeatureAugmentationConfig(), FeatureAugmentationConfig(fit="trained", num_maps=3)


@pytest.fixture
def patches() -> torch.Tensor:
    return torch.randn(B, N, E, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def centres() -> torch.Tensor:
    return torch.randn(K, E, generator=torch.Generator().manual_seed(1))


def closed(seed: int = 2) -> PartMaps:
    maps = PartMaps(K, E, num_outputs=C)
    generator = torch.Generator().manual_seed(seed)
    maps.set_reading(torch.randn(K * E, C, generator=generator), torch.randn(C, generator=generator))
    return maps.eval()


def trained(seed: int = 2) -> PartMaps:
    torch.manual_seed(seed)
    maps = PartMaps(K, E, num_maps=5)
    torch.nn.init.normal_(maps.spread.weight)
    return maps


# What they compute


def test_the_descriptor_is_the_literal_sum_over_patches_of_how_each_differs_from_its_part(patches, centres):
    h = F.normalize(patches, dim=-1)
    a = (F.cosine_similarity(patches.unsqueeze(2), centres, dim=-1) / 0.1).softmax(-1)
    expected = torch.zeros(B, K, E)
    for b in range(B):
        for k in range(K):
            total = sum(a[b, n, k] * (h[b, n] - centres[k]) for n in range(N))
            expected[b, k] = total / (1 + a[b, :, k].sum())
    torch.testing.assert_close(part_descriptor(patches, centres), expected, rtol=1e-4, atol=1e-5)


def test_what_is_added_to_a_patch_is_the_literal_sum_over_prototypes_of_their_own_maps(patches, centres):
    maps = trained()
    h, a = belonging(patches, centres)
    w = a * N / (1 + a.sum(1, keepdim=True))
    own = torch.einsum("oi,kij,je->koe", torch.eye(5), maps.maps.mT, maps.reduce.weight)  # D_k = G_k R, E -> r
    said = sum(w[..., k : k + 1] * ((h - centres[k]) @ own[k].T) for k in range(K))
    torch.testing.assert_close(maps(patches, centres), patches + said @ maps.spread.weight.T, rtol=1e-4, atol=1e-4)


def test_the_mean_of_the_evidence_over_patches_and_the_shares_of_prototypes_both_add_up_to_z_plus(patches, centres):
    maps = closed()
    z_plus = maps(patches, centres)
    torch.testing.assert_close(maps.shares(patches, centres).sum(1) + maps.bias, z_plus, rtol=1e-4, atol=1e-4)
    for c in range(C):
        evidence = maps.evidence(patches, centres, output=c)
        torch.testing.assert_close(evidence.mean(1), maps.shares(patches, centres)[..., c], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(evidence.mean(1).sum(1) + maps.bias[c], z_plus[:, c], rtol=1e-4, atol=1e-4)


def test_to_switch_a_prototype_off_takes_its_own_share_away_and_nothing_else(patches, centres):
    maps, on = closed(), torch.arange(K) != 2
    shares, left = maps.shares(patches, centres), maps.shares(patches, centres, on)
    assert torch.equal(left[:, on], shares[:, on])
    assert (left[:, 2] == 0).all()
    assert (shares[:, 2] != 0).all()
    torch.testing.assert_close(maps(patches, centres, on), maps(patches, centres) - shares[:, 2])


@pytest.mark.parametrize("maps", [closed(), trained()], ids=["closed", "trained"])
def test_a_prototype_that_was_merged_into_another_is_not_there(patches, centres, maps):
    merged = torch.tensor([0, 1, 0, 3])
    on = torch.tensor([True, True, False, True])
    before = maps(patches, centres, on, merged)
    elsewhere = centres.clone()
    elsewhere[2] = 100.0
    torch.testing.assert_close(maps(patches, elsewhere, on, merged), before)
    assert not torch.allclose(maps(patches, centres, on), before)  # only switched off, it still takes its patches
    assert torch.allclose(belonging(patches, centres, on, merged)[1].sum(-1), torch.ones(B, N))


def test_f_plus_begins_as_f_and_its_maps_learn_from_the_first_step_on(patches, centres):
    maps = PartMaps(K, E)
    f_plus = maps(patches.requires_grad_(), centres)
    assert torch.equal(f_plus, patches)
    f_plus.square().sum().backward()
    assert maps.spread.weight.grad.abs().sum() > 0
    assert patches.grad is None


def test_a_patch_of_zeros_and_a_part_without_patches_are_finite(centres):
    for maps in (closed(), trained()):
        assert maps(torch.zeros(B, N, E), centres).isfinite().all()
    far = part_descriptor(-centres[:1].expand(1, N, E), centres)
    assert far[0, 0].abs().max() < 1e-2  # nothing belongs to it


def test_one_prototype_reads_how_the_mean_direction_differs_from_it(patches, centres):
    v = part_descriptor(patches, centres[:1])
    h = F.normalize(patches, dim=-1)
    torch.testing.assert_close(v[:, 0], N / (1 + N) * (h.mean(1) - centres[0]))


def test_classes_that_are_not_there_and_maps_without_classes_are_refused(patches, centres):
    with pytest.raises(IndexError, match="class 3 is not there: 3 are numbered from 0"):
        closed().evidence(patches, centres, output=C)
    for ask in (PartMaps.shares, lambda *words: PartMaps.evidence(*words, output=0)):
        with pytest.raises(ValueError, match="have no classes: the head reads them"):
            ask(trained(), patches, centres)


def test_an_augmentation_called_useful_is_not_even():
    """Attention was: entropy 3.81 of a possible log 48 = 3.87, so that every patch got the same mean of prototypes."""
    teacher = Teacher("farmyard")
    seen = extract(teacher, Farmyard("source", "train", 12), views=("plain",), progress=False)
    bank = discover(seen, config=DiscoverConfig(num_prototypes=24, embed_dim=32, steps=0), progress=False)
    unseen = extract(teacher, Farmyard("target", "val", 6), views=("plain",), progress=False)
    _, a = belonging(bank.read(unseen, np.arange(6)), bank.prototypes.detach())
    entropy = -(a * a.clamp_min(1e-12).log()).sum(-1).mean()
    assert entropy < 0.9 * np.log(24)
    student = Student("resnet10t", TASK, bank, feature_augmentation=ATTENTION, **TINY)
    attention = student.feature_augmentation.attention(bank.read(unseen, np.arange(6)), bank.prototypes)
    assert -(attention * attention.log()).sum(-1).mean() > 0.95 * np.log(24)  # what it was


# What they leave alone


TASKS = {
    "classification": None,
    "segmentation": Segmentation(2, width=8),
    **{
        name: Detection(2, detector=name, width=32, num_levels=2, dropout=0.0)
        for name in ("fcos", "retinanet", "fasterrcnn")
    },
}


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("config", [CLOSED, TRAINED], ids=["closed", "trained"])
def test_z_is_the_same_to_the_last_bit_with_and_without_part_maps(packed, name, config):
    images, options = annotated(packed), {} if TASKS[name] is None else {"task": TASKS[name]}
    ends = {}
    for augment in (None, config):
        torch.manual_seed(0)
        student = made(PrototypeBank(K, 48, 16), augment, **options)
        # long gradients are cut: those of the maps must not count
        run(student, images, PLAIN.replace(steps=4, clip_grad_norm=0.05))
        ends[augment] = {k: v for k, v in copy_of(student).items() if not k.startswith("feature_augmentation")}
        if augment is TRAINED:
            assert student.feature_augmentation.spread.weight.abs().sum() > 0
    assert [k for k, v in ends[None].items() if not torch.equal(v, ends[config][k])] == []


@pytest.mark.parametrize("name", TASKS)
def test_no_gradient_of_z_plus_reaches_backbone_adapter_or_head(packed, name):
    images, options = annotated(packed), {} if TASKS[name] is None else {"task": TASKS[name]}
    bank = PrototypeBank(K, 48, 16)
    student = made(bank, TRAINED, **options)
    torch.nn.init.normal_(student.feature_augmentation.spread.weight)
    rows = np.arange(4)
    targets = student.task.targets(images, rows, whole_images(4), 32)
    pixels = to_unit(torch.from_numpy(np.array(images.pixels[rows])))
    student.task.loss(student(pixels).augmented_logits, targets).backward()
    for part in (student.backbone, student.adapter, student.head, bank):
        assert all(p.grad is None for p in part.parameters())
    assert student.feature_augmentation.spread.weight.grad.abs().sum() > 0


def test_a_still_head_shares_its_memory_and_gets_no_gradient():
    head = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
    same = still(head)
    with torch.no_grad():
        head[0].weight.fill_(7.0)
    assert (same[0].weight == 7).all()
    assert same[1].running_mean is head[1].running_mean
    assert not any(p.requires_grad for p in same.parameters())
    assert all(p.requires_grad for p in head.parameters())


# Students


def test_part_maps_are_fitted_when_the_student_is_finished_and_read_in_eval_mode_only(packed, bank):
    student = made(bank, CLOSED)
    pixels = torch.rand(2, 3, 32, 32)
    assert student.eval()(pixels).augmented_logits is None  # nothing is fitted yet
    history = run(student, packed, PLAIN.replace(steps=8), val=packed)
    assert history.scores.augmented is not None
    assert student(pixels).augmented_logits.shape == (2, 2)
    assert student.train()(pixels).augmented_logits is None


@pytest.mark.parametrize("config", [CLOSED, TRAINED], ids=["closed", "trained"])
def test_saved_part_maps_answer_as_before(packed, bank, config, tmp_path):
    student = made(copy.deepcopy(bank), config)
    run(student, packed, PLAIN.replace(steps=4))
    student.bank.merge(0, 1)
    student.bank.disable(3)
    loaded = Student.load(student.save(tmp_path / "student.safetensors"))
    pixels = torch.rand(3, 3, 32, 32)
    assert torch.equal(loaded(pixels).augmented_logits, student(pixels).augmented_logits)
    assert torch.equal(loaded(pixels).logits, student(pixels).logits)


def test_dense_tasks_have_trained_part_maps_whatever_is_asked(bank):
    student = made(bank, CLOSED, task=Segmentation(2, width=8))
    assert student.feature_augmentation.num_outputs == 0


def test_soft_targets_and_transfer_train_a_student_with_part_maps(features, bank):
    images = features.images
    student = made(bank, CLOSED)
    config = BASE.replace(steps=30, soft_weight=1.0, assignment_weight=0.0)
    history = run(student, images, config, features=features, val=images)
    assert history.scores.augmented > 0.9
    assert np.mean(history.curve("soft")[1][-5:]) < np.mean(history.curve("soft")[1][:5])
