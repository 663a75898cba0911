from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TINY

import prockd as pk
from prockd.datasets import Arrays, pack
from prockd.prototypes.clustered import read_clusters
from prockd.teachers.weights import WeightsError, read_metadata

SMALL = pk.ClusterConfig(
    steps=4, batch_size=4, image_px=48, crop_px=32, num_prototypes=6, embed_dim=8, aligned=4, start_images=8
)
CPU = {"cpu": True, "progress": False}


@pytest.fixture(scope="module")
def teacher() -> pk.Teacher:
    torch.manual_seed(0)
    return pk.Teacher("resnet10t", image_px=32, layers=(1, 2, 3), mean=(0.5, 0.4, 0.3), **TINY)


@pytest.fixture(scope="module")
def photos() -> Arrays:
    rng = np.random.default_rng(0)
    return Arrays(rng.integers(0, 256, (12, 6, 6, 3), np.uint8).repeat(8, 1).repeat(8, 2), [0] * 12, ("photo",))


def test_an_adapted_teacher_is_saved_and_opened_as_any_other(teacher, photos, tmp_path):
    before = teacher.fingerprint
    adapted = pk.adapt(teacher, photos, config=SMALL, **CPU)
    assert teacher.fingerprint == before != adapted.teacher.fingerprint == adapted.bank.teacher
    path = adapted.save(tmp_path / "more" / "adapted.safetensors")
    again = pk.Teacher(str(path))
    named = pk.Teacher("resnet10t", weights=path, image_px=32, layers=(1, 2, 3), mean=(0.5, 0.4, 0.3), **TINY)
    assert again.fingerprint == named.fingerprint == adapted.teacher.fingerprint
    bank = read_clusters(path, again)
    features = pk.extract(again, photos, image_px=32, progress=False)
    torch.testing.assert_close(bank.assignments(features), adapted.bank.assignments(features), atol=1e-3, rtol=0)
    card = read_metadata(path)["adapted"]
    assert card["teacher"] == "resnet10t"
    assert card["fingerprint"] == before
    assert card["images"] == 12
    assert card["config"]["steps"] == 4
    assert card["seconds"] > 0
    assert "12 images; PrototypeBank(6 prototypes of width 8" in repr(adapted)


def test_a_student_learns_from_an_adapted_teacher(teacher, photos):
    adapted = pk.adapt(teacher, photos, config=SMALL, **CPU)
    features = pk.extract(adapted.teacher, photos, image_px=32, progress=False)
    student = pk.Student(
        "resnet10t", pk.tasks.Classification(2), adapted.bank, image_px=32, feature_augmentation={}, **TINY
    )
    history = pk.distill(student, photos, features=features, config=pk.DistillConfig(steps=1, batch_size=4), **CPU)
    assert history.step == 1
    with pytest.raises(ValueError, match="extract them again with the bank's teacher"):
        adapted.bank.assignments(pk.extract(teacher, photos, image_px=32, progress=False))


def test_groups_of_the_data_set_are_used_and_can_be_given(teacher, photos, monkeypatch):
    seen = []
    from prockd.training import adaptation

    inner = adaptation.PairSource
    monkeypatch.setattr(
        adaptation, "PairSource", lambda images, config, groups: seen.append(groups) or inner(images, config, groups)
    )
    packed = pack(photos, 48, progress=False)
    videos = ["goat"] * 4 + ["cow"] * 8
    for images, given in ((replace(packed, groups=tuple(videos)), None), (packed, videos), (packed, None)):
        adapted = pk.adapt(teacher, images, groups=given, config=SMALL.replace(steps=1), **CPU)
    assert [numbers.tolist() for numbers in seen] == [[1] * 4 + [0] * 8] * 2 + [[0] * 12]
    assert "groups" not in repr(adapted)


def test_balance_in_groups_makes_prototypes_that_groups_share(teacher):
    """Two groups of other brightness: without groups their patches keep to prototypes of their own."""
    rng = np.random.default_rng(0)
    dark = rng.integers(0, 90, (12, 6, 6, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    images = pack(Arrays(np.concatenate([dark, dark + 150]), [0] * 24, ("photo",)), 48, progress=False)
    groups = [0] * 12 + [1] * 12

    def of_one_group(given) -> float:
        config = SMALL.replace(steps=30, batch_size=8, lr=3e-3, recoloured=0.0, drift_weight=0.0, frozen_layers=0)
        adapted = pk.adapt(teacher, images, groups=given, config=config, **CPU)
        features = pk.extract(adapted.teacher, images, image_px=32, views=("plain",), progress=False)
        use = adapted.bank.assignments(features).mean(1)  # (24, K)
        first, second = use[:12].mean(0), use[12:].mean(0)
        return float(torch.maximum(first, second).sum() / use.mean(0).sum() / 2)  # 0.5 shared, 1 apart

    assert of_one_group(groups) < of_one_group(None) - 0.1


def test_one_image_is_enough(teacher, photos):
    one = pack(photos, 48, progress=False).select([3])
    adapted = pk.adapt(teacher, one, config=SMALL, **CPU)
    assert np.isfinite(adapted.history.rows[-1]["loss"])


def test_a_transformer_can_be_adapted_at_its_own_size_alone(vit, photos):
    config = SMALL.replace(frozen_layers=0)
    assert pk.adapt(vit, photos, config=config, **CPU).bank.fuse.in_features == sum(vit.widths)
    with pytest.raises(ValueError, match=r"cannot see crops of 40 px .* set crop_px=32"):
        pk.adapt(vit, photos, config=config.replace(crop_px=40), **CPU)


def test_what_cannot_be_adapted_to_is_refused_in_one_sentence(teacher, photos):
    packed = pack(photos, 48, progress=False)
    cases = [
        ({"groups": ["a"]}, {}, "1 groups for 12 images: give each image the name of its group"),
        ({}, {"crop_px": 64}, "the images are 48 px, and crop_px=64"),
        ({}, {"num_prototypes": 1000}, "num_prototypes=1000 is too many: 8 images at 32 px have 512 patches"),
    ]
    for options, changes, message in cases:
        with pytest.raises(ValueError, match=message):
            pk.adapt(teacher, packed, config=SMALL.replace(**changes), **CPU, **options)


def test_foreign_files_are_no_teachers(teacher, photos, tmp_path):
    student = pk.Student("resnet10t", pk.tasks.Classification(2), image_px=32, **TINY)
    path = student.save(tmp_path / "student.safetensors")
    with pytest.raises(WeightsError, match="holds no teacher"):
        pk.Teacher(str(path))
    with pytest.raises(WeightsError, match=r"none\.safetensors is not a file that prockd wrote"):
        pk.Teacher(str(tmp_path / "none.safetensors"))
    path = pk.adapt(teacher, photos, config=SMALL.replace(steps=1), **CPU).save(tmp_path / "adapted.safetensors")
    with pytest.raises(WeightsError, match="does not fit the model"):
        pk.Teacher("resnet18", weights=path)
