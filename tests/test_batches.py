"""What a training step reads: the same places of images, teacher maps and targets."""

import numpy as np
import pytest
import torch
from conftest import TINY
from torch.nn import functional as F

from prockd.datasets import Arrays, PackedImages, pack
from prockd.datasets.transforms import cut_maps, whole_images
from prockd.prototypes.bank import PrototypeBank
from prockd.students.student import Student
from prockd.tasks import Classification
from prockd.teachers.features import PatchFeatures, fuse_layers
from prockd.training import batches
from prockd.training.batches import Source, shuffled

TASK = Classification(2, ("upright", "level"))


def made(bank: PrototypeBank | None = None, image_px: int = 32) -> Student:
    return Student("resnet10t", TASK, bank, image_px=image_px, embed_dim=16, **TINY)


def pooled_pixels(packed: PackedImages, grid: int = 16) -> PatchFeatures:
    """Features that are the image itself, pooled: whatever is cropped can be compared with the crop of the image."""
    pixels = torch.from_numpy(np.array(packed.pixels)).float() / 255
    views = torch.stack([pixels, pixels.flip(3)], 1)  # (M, 2, 3, S, S)
    pooled = F.adaptive_avg_pool2d(views.flatten(0, 1), grid).unflatten(0, (len(packed), 2))
    return PatchFeatures((pooled.half().numpy(),), packed, "pooled pixels", (0,), ("plain", "mirrored"))


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
    features, student = pooled_pixels(smooth), made(image_px=64)
    source = Source(smooth, features, min_crop=0.2, wants_last=True)
    indices = np.arange(8).repeat(8)
    crops = source.crops(np.arange(64), torch.Generator().manual_seed(0))
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
    for embeds in (bank, None):  # embedded once before training, or left for each step
        source = Source(smooth, features, embeds)
        crops = source.crops(np.arange(8), generator.manual_seed(1))
        batches.append(source.batch(np.arange(8), crops, student, torch.device("cpu")))
    torch.testing.assert_close(batches[0].teacher, batches[1].teacher, atol=2e-3, rtol=0)
    expected = F.normalize(F.adaptive_avg_pool2d(batches[0].images, student.grid), dim=1)
    assert (F.normalize(batches[0].teacher, dim=1) * expected).sum(1).min() > 0.98


def test_a_crop_of_everything_without_mirroring_is_the_image_itself(packed):
    source = Source(packed, task=TASK, min_crop=1.0, flip=False)
    crops = source.crops(np.arange(12), torch.Generator().manual_seed(0))
    assert not crops.mirrored.any()
    batch = source.batch(np.arange(12), crops, made(), torch.device("cpu"))
    torch.testing.assert_close(batch.images, torch.from_numpy(np.array(packed.pixels)) / 255)
    assert source.targets(np.arange(12), crops, made(), torch.device("cpu")).tolist() == packed.labels.tolist()
    assert batch.labelled == 12
    assert batch.teacher is None


@pytest.mark.parametrize("flip", [False, True])
def test_half_of_the_images_are_mirrored_or_none(features, flip):
    for teacher in (features, None):
        crops = Source(features.images, teacher, flip=flip).crops(np.arange(50), torch.Generator().manual_seed(0))
        assert bool(15 < crops.mirrored.sum() < 35) is flip
        assert flip or not crops.mirrored.any()


def test_the_teacher_itself_sees_the_very_crops(teacher, packed):
    source, student = Source(packed, teacher, min_crop=0.3, wants_last=True), made()
    crops = source.crops(np.arange(12), torch.Generator().manual_seed(0))
    batch = source.batch(np.arange(12), crops, student, torch.device("cpu"))
    maps = teacher(batch.images)  # teacher and student read images of the same size here
    patches = fuse_layers(maps, teacher.grid)
    patches = cut_maps(patches, whole_images(12).regions, student.grid)
    torch.testing.assert_close(batch.teacher, patches, atol=1e-5, rtol=1e-4)
    last = cut_maps(maps[-1], whole_images(12).regions, student.last_grid)
    torch.testing.assert_close(batch.last, last, atol=1e-5, rtol=1e-4)


def test_the_teacher_itself_and_its_features_say_the_same_of_whole_images(teacher, packed, features, bank):
    student = made(bank)
    for embeds in (None, bank):
        sources = [Source(packed, t, embeds, min_crop=1.0, wants_last=True) for t in (teacher, features)]
        crops = sources[0].crops(np.arange(12), torch.Generator().manual_seed(0))
        assert crops.mirrored.any()
        exact, replayed = (s.batch(np.arange(12), crops, student, torch.device("cpu")) for s in sources)
        torch.testing.assert_close(exact.teacher, replayed.teacher, atol=5e-3, rtol=5e-3)
        torch.testing.assert_close(exact.last, replayed.last, atol=5e-3, rtol=5e-3)


@pytest.mark.parametrize(("total", "batch"), [(10, 4), (10, 5), (3, 8), (7, 7), (1, 2)])
def test_every_image_comes_once_an_epoch(total, batch):
    steps = [shuffled(total, batch, 0, step) for step in range(3 * total)]
    assert all(len(indices) == batch for indices in steps)
    epochs = np.concatenate(steps).reshape(-1, total)
    assert all(sorted(epoch.tolist()) == list(range(total)) for epoch in epochs)
    assert total < 7 or len({tuple(epoch) for epoch in epochs.tolist()}) == len(epochs)


def test_the_order_depends_on_the_seed():
    orders = [[shuffled(10, 4, seed, step).tolist() for step in range(20)] for seed in (3, 3, 4)]
    assert orders[0] == orders[1] != orders[2]


def test_the_order_of_an_epoch_is_drawn_once_and_that_of_two_epochs_is_kept():
    first = shuffled(100_000, 48, 7, 3)
    kept = batches.permutation(100_000, 7, 0)
    assert batches.permutation(100_000, 7, 0) is kept
    assert np.array_equal(kept[144:192], first)
    for epoch in range(5):
        batches.permutation(100_000, 7, epoch)
    assert sum(order.nbytes for order in batches._orders(100_000, 7).values()) <= 8 * 100_000
    assert np.array_equal(shuffled(100_000, 48, 7, 3), first)


def test_images_and_maps_that_stay_on_the_device_make_the_same_batches(features, bank, monkeypatch):
    student, cpu = made(bank), torch.device("cpu")
    sources = [Source(features.images, features, bank, task=TASK) for _ in range(2)]
    monkeypatch.setattr(batches, "has_room", lambda *_: True)
    sources[1].settle(cpu, at_once=5)
    assert set(sources[1].resident) == {"pixels", "maps"}
    crops = sources[0].crops(np.arange(12), torch.Generator().manual_seed(0))
    assert crops.mirrored.any()
    read, kept = (source.batch(np.arange(12), crops, student, cpu) for source in sources)
    torch.testing.assert_close(kept.images, read.images)
    torch.testing.assert_close(kept.teacher, read.teacher)


def test_crops_in_half_precision_are_those_of_single_precision_but_for_a_level_of_255(smooth):
    features, student = pooled_pixels(smooth), made(image_px=64)
    source = Source(smooth, features, min_crop=0.2)
    crops = source.crops(np.arange(8), torch.Generator().manual_seed(0))
    whole, half = (source.batch(np.arange(8), crops, student, torch.device("cpu"), kind)
                   for kind in (torch.float32, torch.bfloat16))  # fmt: skip
    assert half.images.dtype == half.teacher.dtype == torch.bfloat16
    assert (half.images - whole.images).abs().max() < 2 / 255
    assert (half.images - whole.images).abs().mean() < 0.5 / 255
    assert F.cosine_similarity(half.teacher.float(), whole.teacher, dim=1).min() > 0.9999
