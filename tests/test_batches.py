"""What a training step reads: the same places of images, teacher maps and targets."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from conftest import TINY
from torch.nn import functional as F

from prockd.datasets import Arrays, PackedImages, pack
from prockd.datasets.transforms import whole_images
from prockd.prototypes.bank import PrototypeBank
from prockd.settings.method import DistillConfig
from prockd.students.student import Student
from prockd.tasks import Classification
from prockd.teachers.features import PatchFeatures
from prockd.training.batches import Source, embed_all, shuffled

TASK = Classification(2, ("upright", "level"))
PLAIN = DistillConfig(steps=6, batch_size=4, assignment_weight=0.0, feature_weight=0.0)
BASE = DistillConfig(steps=6, batch_size=4)


def made(bank: PrototypeBank | None = None, image_px: int = 32) -> Student:
    return Student("resnet10t", TASK, bank, image_px=image_px, embed_dim=16, **TINY)


def pooled_pixels(packed: PackedImages, grid: int = 16) -> PatchFeatures:
    """Features that are the image itself, pooled: whatever is cropped can be compared with the crop of the image."""
    pixels = torch.from_numpy(np.array(packed.pixels)).float() / 255
    views = torch.stack([pixels, pixels.flip(3)], 1)  # (M, 2, 3, S, S)
    pooled = F.adaptive_avg_pool2d(views.flatten(0, 1), grid).unflatten(0, (len(packed), 2))
    return PatchFeatures((pooled.half().numpy(),), packed, "pooled pixels", (0,))


@pytest.fixture
def smooth(tmp_path) -> PackedImages:
    """8 images of slow waves, different in every direction, whose crops look like nothing else."""
    y, x = np.mgrid[:64, :64] / 64
    rng = np.random.default_rng(0)
    images = []
    for _ in range(8):
        waves = [np.sin(2 * np.pi * (a * x + b * y + c)) for a, b, c in rng.uniform(-1.2, 1.2, (3, 3))]
        images.append((127 + 100 * np.stack(waves, 2)).astype(np.uint8))
    return pack(Arrays(np.stack(images), np.arange(8) % 2, TASK.classes), 64, root=tmp_path, progress=False)


def test_crops_of_images_and_of_teacher_maps_are_of_the_same_place_mirrored_views_too(smooth):
    features, config = pooled_pixels(smooth), PLAIN.replace(hint_weight=1.0, min_crop=0.2)
    student = made(image_px=64)
    source = Source(smooth, features, None, config)
    indices = np.arange(8).repeat(8)
    crops = source.crops(64, torch.Generator().manual_seed(0))
    assert 20 < crops.mirrored.sum() < 44
    batch = source.batch(indices, crops, student, torch.device("cpu"))
    assert batch.images.shape == (64, 3, 64, 64)
    expected = F.adaptive_avg_pool2d(batch.images, student.last_grid)
    apart = (batch.last - expected).abs()
    assert apart.mean() < 0.02
    assert apart.max() < 0.15
    for wrong in (expected.flip(3), expected.flip(2), expected.roll(1, 0)):  # the measure sees what is misplaced
        assert (batch.last - wrong).abs().mean() > 0.1
    expected = F.normalize(F.adaptive_avg_pool2d(batch.images, student.grid), dim=1)
    assert (F.normalize(batch.teacher, dim=1) * expected).sum(1).min() > 0.98


def test_crops_of_embedded_features_are_of_the_same_place_too(smooth):
    features = pooled_pixels(smooth)
    bank = PrototypeBank(2, 3, 3)
    with torch.no_grad():
        bank.fuse.weight.copy_(torch.eye(3))
        bank.fuse.bias.zero_()
    student, generator = made(bank, image_px=64), torch.Generator()
    batches = []
    for train_bank in (False, True):  # embedded once before training, or in each step
        source = Source(smooth, features, bank, BASE.replace(train_bank=train_bank))
        crops = source.crops(8, generator.manual_seed(1))
        batches.append(source.batch(np.arange(8), crops, student, torch.device("cpu")))
    torch.testing.assert_close(batches[0].teacher, batches[1].teacher, atol=2e-3, rtol=0)
    expected = F.normalize(F.adaptive_avg_pool2d(batches[0].images, student.grid), dim=1)
    assert (F.normalize(batches[0].teacher, dim=1) * expected).sum(1).min() > 0.98


def test_embedded_features_are_those_of_the_bank_for_both_views(features, bank):
    embedded = embed_all(bank, features, chunk=5)
    assert embedded.shape == (12, 2, 16, 8, 8)
    with torch.no_grad():
        u = bank.embed(features.fused([7], view=1))[0]
    torch.testing.assert_close(embedded[7, 1].float().flatten(1).T, u, atol=5e-3, rtol=5e-3)


def test_a_crop_of_everything_without_mirroring_is_the_image_itself(packed):
    source = Source(packed, None, None, PLAIN.replace(min_crop=1.0, flip=False), TASK)
    assert not source.crops(12, torch.Generator().manual_seed(0)).mirrored.any()
    batch = source.batch(np.arange(12), whole_images(12), made(), torch.device("cpu"))
    torch.testing.assert_close(batch.images, torch.from_numpy(np.array(packed.pixels)) / 255)
    assert batch.targets.tolist() == packed.labels.tolist()
    assert batch.teacher is None


def test_images_are_mirrored_only_where_the_teacher_saw_the_mirror_image(features):
    single = replace(features, maps=tuple(m[:, :1] for m in features.maps))
    for source, mirrors in ((features, True), (single, False), (None, True)):
        crops = Source(features.images, source, None, PLAIN).crops(50, torch.Generator().manual_seed(0))
        assert bool(crops.mirrored.any()) is mirrors
    still = Source(features.images, features, None, PLAIN.replace(flip=False))
    assert not still.crops(50, torch.Generator()).mirrored.any()


@pytest.mark.parametrize(("total", "batch"), [(10, 4), (10, 5), (3, 8), (7, 7), (1, 2)])
def test_every_image_comes_once_an_epoch(total, batch):
    steps = list(islice(shuffled(total, batch, 0), 3 * total))
    assert all(len(indices) == batch for indices in steps)
    epochs = np.concatenate(steps).reshape(-1, total)
    assert all(sorted(epoch.tolist()) == list(range(total)) for epoch in epochs)
    assert total < 7 or len({tuple(epoch) for epoch in epochs.tolist()}) == len(epochs)


def test_the_order_can_start_at_any_step_and_depends_on_the_seed():
    whole = list(islice(shuffled(10, 4, 3), 20))
    for start in (1, 7, 19):
        assert next(shuffled(10, 4, 3, start)).tolist() == whole[start].tolist()
    assert [a.tolist() for a in islice(shuffled(10, 4, 4), 20)] != [a.tolist() for a in whole]
