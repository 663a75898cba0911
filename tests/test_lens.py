import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import traitlets
from fake_device import fake_device
from prockd_widgets import PatchLens
from widget_world import discovered, world

from prockd import PatchFeatures, Student
from prockd.tasks import Classification


@pytest.fixture(scope="module")
def features() -> PatchFeatures:
    return world()


def test_likeness_is_the_cosine_of_the_teachers_patches(features):
    lens = PatchLens(features)
    lens.patch = 2 * 16 + 5
    u = F.normalize(features.fused(range(12)).flatten(2).transpose(1, 2).flatten(0, 1), dim=-1)
    np.testing.assert_allclose(lens.likeness().ravel(), (u @ u[37]).numpy(), atol=2e-3)
    assert lens.likeness()[2, 1, 1] == pytest.approx(1, abs=1e-3)
    assert "row 1, column 1 of farm/002" in repr(lens)


def test_what_the_browser_computes_is_close_to_it(features):
    lens = PatchLens(features)
    packed = np.frombuffer(lens.codes[0], np.uint8).reshape(192, -1)
    levels = np.stack([packed & 15, packed >> 4], 2).reshape(192, -1).astype(np.float32) - 8
    v = torch.from_numpy(levels) * torch.tensor(lens.meta["models"][0]["steps"])
    near = (v @ v[0]).numpy()
    assert np.corrcoef(near, lens.likeness().ravel())[0, 1] > 0.98


def test_a_student_stands_beside_the_teacher_on_the_same_patches(features):
    options = {"channels": (8, 8, 8, 8), "stem_width": 8}
    student = Student("resnet10t", Classification(3), discovered(features), image_px=32, layers=(1, 2), **options)
    lens = PatchLens(features, student, names=("big", "small"))
    assert [m["name"] for m in lens.meta["models"]] == ["big", "small"]
    assert lens.likeness(1).shape == (12, 4, 4)
    assert lens.snapshot().data.startswith(b"\x89PNG")


def test_a_patch_costs_at_most_40_bytes():
    assert PatchLens(world(400)).bytes_sent.a_patch <= 40


def test_few_of_many_images_are_told(features):
    lens = PatchLens(features, max_patches=80)
    assert lens.meta["note"] == "5 of 12 images are shown, drawn with seed 0"


def test_the_offline_page_holds_the_state_and_asks_for_nothing(features, tmp_path):
    lens = PatchLens(features)
    lens.patch = 33
    page = lens.export_html(tmp_path / "lens.html").read_text()
    assert not re.search(r"https?://|<link|\bsrc=", page)
    state = json.loads(re.search(r'id="prockd-state">(.*?)</script>', page, re.S)[1])
    assert (state["patch"], state["meta"]["kernel"]) == (33, False)


def test_a_patch_that_is_not_there_and_features_that_are_not_finite_are_refused(features):
    lens = PatchLens(features)
    with pytest.raises(traitlets.TraitError, match="patch 192 is not there: 192"):
        lens.patch = 192
    maps = features.maps[0].copy()
    maps[3, 0, 0] = np.inf
    with pytest.raises(ValueError, match="image 'farm/003' are not finite"):
        PatchLens(replace(features, maps=(maps,)))
    with pytest.raises(ValueError, match="there are no images"):
        PatchLens(features.select(np.arange(0)))


def test_a_student_on_another_device_is_read_and_left_there(features):
    options = {"channels": (8, 8, 8, 8), "stem_width": 8}
    student = Student("resnet10t", Classification(3), discovered(features), image_px=32, layers=(1, 2), **options)
    here = PatchLens(features, student).likeness(1)
    with fake_device() as device:
        away = PatchLens(features, student.to(device)).likeness(1)
        assert {p.device for p in student.parameters()} == {device}
    np.testing.assert_allclose(away, here, atol=1e-5)
