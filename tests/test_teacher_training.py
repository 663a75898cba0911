import numpy as np
import pytest
import safetensors.torch
import torch

from prockd.farmyard import Farmyard
from prockd.prototypes.clustered import read_clusters
from prockd.runs import teacher_training
from prockd.runs.teacher_training import CLUSTERS, SPECIES, train_teacher
from prockd.teachers.teacher import Teacher
from prockd.teachers.weights import WeightsError, read_metadata

SMALL = CLUSTERS.replace(
    steps=3, batch_size=4, image_px=48, crop_px=40, num_prototypes=8, embed_dim=6, aligned=4, start_images=8
)
SHORT = {"images": 36, "species": SPECIES.replace(steps=2, batch_size=4), "clusters": SMALL, "cpu": True}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a teacher of two short stages, and its card."""
    folder = tmp_path_factory.mktemp("teacher")
    return folder, train_teacher(folder / "teacher.safetensors", run_dir=folder / "run", **SHORT)


def test_a_teacher_is_trained_in_two_stages_and_read_back_with_its_prototypes(trained):
    folder, card = trained
    assert card["classes"] == tuple(Farmyard("source", "train", 1).classes)
    assert list(card["stages"]) == ["species", "clusters"]
    assert 0 <= card["stages"]["clusters"]["val_accuracy"] <= 1
    teacher = Teacher("farmyard", weights=folder / "teacher.safetensors")
    assert teacher.image_px == 48
    assert teacher.grids == ((6, 6), (6, 6), (6, 6))
    bank = read_clusters(folder / "teacher.safetensors", teacher)
    assert bank.prototypes.shape == (8, 6)
    assert bank.teacher == teacher.fingerprint
    u = bank.embed(torch.rand(1, 608, 2, 2))
    cosines = torch.nn.functional.normalize(u, dim=-1) @ bank.prototypes.T
    torch.testing.assert_close(bank.assign(u), (cosines / SMALL.temperature).softmax(-1))
    assert read_clusters(folder / "run" / "species.safetensors", teacher) is None
    state = safetensors.torch.load_file(folder / "teacher.safetensors")
    assert all(v.dtype == torch.half for k, v in state.items() if v.is_floating_point() and "clustering" not in k)
    with pytest.raises(WeightsError, match="open it with the layers that it learned with"):
        read_clusters(folder / "teacher.safetensors", Teacher("farmyard", layers=(3, 4)))


def test_the_fingerprint_tells_the_stages_apart(trained):
    folder, _ = trained
    files = (folder / "teacher.safetensors", folder / "run" / "species.safetensors")
    first, second = (Teacher("farmyard", weights=file, image_px=48, output_stride=8).fingerprint for file in files)
    assert first != second


def test_an_interrupted_stage_ends_in_the_same_weights(trained, tmp_path, monkeypatch):
    folder, card = trained
    inner = teacher_training.learn_clusters

    def interrupted(*given, **options):
        def stop(step, row):
            if step == 2:
                raise KeyboardInterrupt

        return inner(*given, **options | {"callbacks": (stop,), "log_every": 1, "checkpoint_every": 1})

    monkeypatch.setattr(teacher_training, "learn_clusters", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_teacher(tmp_path / "again.safetensors", run_dir=tmp_path / "run", **SHORT)
    monkeypatch.setattr(teacher_training, "learn_clusters", inner)
    again = train_teacher(tmp_path / "again.safetensors", run_dir=tmp_path / "run", **SHORT)
    whole, resumed = (
        safetensors.torch.load_file(f) for f in (folder / "teacher.safetensors", tmp_path / "again.safetensors")
    )
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert again["stages"]["clusters"]["val_accuracy"] == card["stages"]["clusters"]["val_accuracy"]


def test_another_file_stands_in_for_the_first_stage_and_the_card_says_which(trained, tmp_path):
    folder, card = trained
    start = folder / "teacher.safetensors"
    options = SHORT | {"start": start, "note": "of a test", "clusters": SMALL.replace(lr=0.0, steps=1)}
    more = train_teacher(tmp_path / "more.safetensors", run_dir=tmp_path / "run", **options)
    assert not (tmp_path / "run" / "species").exists(), "its species stage is not trained again"
    assert more["start"]["file"] == "teacher.safetensors"
    assert more["start"]["note"] == "of a test"
    assert len(more["start"]["sha256"]) == 64
    assert more["start"]["stages"].keys() == card["stages"].keys()
    assert more["stages"]["species"] == read_metadata(start)["stages"]["species"]
    old, new = (safetensors.torch.load_file(f) for f in (start, tmp_path / "more.safetensors"))
    torch.testing.assert_close(old["clustering.prototypes"], new["clustering.prototypes"])
    assert torch.equal(old["layer4.1.conv2.weight"], new["layer4.1.conv2.weight"])


def test_neither_parts_nor_target_species_are_drawn_for_the_teacher(monkeypatch, tmp_path):
    asked, packs = [], []

    def farmyard(species, *rest, **options):
        asked.append(species)
        return Farmyard(species, *rest, **options)

    def learn(teacher, images, config, **options):
        packs.append(images)
        raise InterruptedError

    monkeypatch.setattr(teacher_training, "Farmyard", farmyard)
    monkeypatch.setattr(teacher_training, "learn_clusters", learn)
    with pytest.raises(InterruptedError):
        train_teacher(tmp_path / "teacher.safetensors", run_dir=tmp_path / "run", **SHORT)
    assert set(asked) == {"source"}
    assert not {"horse", "cow", "goat"} & set(packs[0].classes)
    assert np.all(packs[0].labels >= 0)


def test_a_file_that_is_no_teacher_is_refused_before_anything_is_drawn(tmp_path):
    (tmp_path / "other.safetensors").write_bytes(b"not weights")
    with pytest.raises(WeightsError, match=r"other\.safetensors is not a file that prockd wrote"):
        train_teacher(tmp_path / "teacher.safetensors", run_dir=tmp_path / "run", start=tmp_path / "other.safetensors")
