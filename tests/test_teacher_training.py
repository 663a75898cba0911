import numpy as np
import torch

from prockd.datasets import pack
from prockd.datasets.transforms import Crops, random_crops
from prockd.farmyard import Farmyard
from prockd.runs.teacher_training import PLACES, SPECIES, SpeciesAndPlaces, places_of, soft_bins, train_teacher
from prockd.students.student import Student
from prockd.teachers.teacher import Teacher
from prockd.training.distiller import recolour_some
from prockd.training.loop import distill


def test_a_teacher_is_trained_in_two_stages_resumed_and_read_back(tmp_path, monkeypatch):
    monkeypatch.setenv("PROCKD_CACHE", str(tmp_path / "cache"))
    short = {"steps": 2, "batch_size": 4}
    stages = {"species": SPECIES.replace(**short), "places": PLACES.replace(**short)}
    card = train_teacher(tmp_path / "teacher.safetensors", images=36, run_dir=tmp_path / "run", cpu=True, **stages)
    assert card["classes"] == tuple(Farmyard("source", "train", 1).classes)
    teacher = Teacher("farmyard", weights=tmp_path / "teacher.safetensors")
    assert teacher.grids == ((12, 12), (12, 12), (12, 12))
    again = train_teacher(tmp_path / "again.safetensors", images=36, run_dir=tmp_path / "run", cpu=True, **stages)
    assert again["stages"]["places"] == card["stages"]["places"]
    start = {"start": tmp_path / "teacher.safetensors", "run_dir": tmp_path / "more", "cpu": True}
    more = train_teacher(tmp_path / "more.safetensors", images=36, **start, **stages)
    assert more["stages"]["species"] == card["stages"]["species"], "its species stage is not trained again"
    assert not (tmp_path / "more" / "species").exists()


def test_places_are_heights_and_distances_from_the_middle_of_the_whole_picture():
    x, y = places_of(torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.5, 0.5, 1.0, 1.0]]), 2)
    torch.testing.assert_close(x, torch.tensor([[0.5, 0.5], [0.25, 0.75]]))
    torch.testing.assert_close(y, torch.tensor([[0.25, 0.75], [0.625, 0.875]]))


def test_a_picture_and_its_mirror_image_have_the_same_places():
    regions = torch.tensor([[0.1, 0.2, 0.6, 0.9]])
    x, y = places_of(regions, 5)
    mirrored_x, mirrored_y = places_of(torch.tensor([[0.4, 0.2, 0.9, 0.9]]), 5)
    torch.testing.assert_close(mirrored_x.flip(1), x)
    torch.testing.assert_close(mirrored_y, y)


def test_a_place_is_shared_between_its_two_nearest_bins():
    shared = soft_bins(torch.tensor([[0.0, 0.3, 0.5, 1.0]]), 4)
    torch.testing.assert_close(shared.sum(-1), torch.ones(1, 4))
    torch.testing.assert_close(shared[0, 1], torch.tensor([0.3, 0.7, 0.0, 0.0]))
    torch.testing.assert_close((shared[0, 2] * (torch.arange(4) + 0.5) / 4).sum(), torch.tensor(0.5))


def test_the_loss_is_least_where_species_and_places_are_right():
    task = SpeciesAndPlaces(2, bins=4)
    images = pack(Farmyard("source", "train", 18), 32)
    crops = random_crops(3, torch.Generator().manual_seed(0), min_area=0.3, flip=True)
    targets = task.targets(images, np.array([0, 1, 0]), crops, 32)
    x, y = places_of(crops.regions, 3)
    right = (
        torch.einsum("bhy,bwx->bhwyx", soft_bins(y, 4), soft_bins(x, 4)).flatten(3).flatten(1, 2).clamp_min(1e-6).log()
    )
    species = torch.tensor([[9.0, -9], [-9, 9], [9, -9]])
    best = task.loss((species, right), targets)
    assert best < task.loss((species, right.flip(0)), targets)
    assert best < task.loss((-species, right), targets)


def test_the_one_loop_teaches_where_a_patch_lies():
    images = pack(Farmyard("source", "train", 36), 32)
    student = Student("resnet10t", SpeciesAndPlaces(18, bins=4), image_px=32, channels=(8, 8, 16, 16), stem_width=8)
    history = distill(
        student, images, config=PLACES.replace(steps=60, batch_size=16, lr=3e-3), cpu=True, progress=False
    )
    terms = history.curve("task")[1]
    assert terms[-1] < terms[0] - 0.5


def test_other_colours_come_to_the_asked_share_of_images_and_repeat_with_the_seed():
    images = torch.rand(200, 3, 4, 4)
    torch.manual_seed(3)
    some = recolour_some(images, 0.5)
    changed = (some != images).flatten(1).any(1).float().mean()
    assert 0.35 < changed < 0.65
    torch.manual_seed(3)
    assert torch.equal(recolour_some(images, 0.5), some)
    assert recolour_some(images, 0.0) is images


def test_crops_of_the_targets_are_those_of_the_images():
    images = pack(Farmyard("source", "train", 18), 32)
    crops = Crops(torch.tensor([[0.1, 0.2, 0.6, 0.9]]), torch.tensor([True]))
    targets = SpeciesAndPlaces(18).targets(images, np.array([5]), crops, 32)
    torch.testing.assert_close(targets, torch.tensor([[5.0, 0.1, 0.2, 0.6, 0.9]]))
