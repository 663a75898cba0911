"""Features taken to the space of the prototypes: what they are, what they are keyed by, and who may read them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from prockd.prototypes.bank import PrototypeBank
from prockd.prototypes.embedding import embed_features
from prockd.teachers.features import PatchFeatures
from prockd.teachers.passes import VIEWS
from prockd.teachers.teacher import Teacher


def entries(tmp_path, kind: str = "embedded") -> list[str]:
    return sorted(p.name for p in (tmp_path / kind).iterdir()) if (tmp_path / kind).exists() else []


def embed(bank, features, *images, root, **options):
    return embed_features(bank, features, *images, root=root, progress=False, **options)


@pytest.fixture
def passing(teacher, packed, tmp_path):
    """The teacher's own passes of the images."""
    options = {"precision": "fp32", "device": "cpu", "root": tmp_path}
    return lambda bank, **changes: embed(bank, teacher, packed, **options | changes)


def test_stored_features_are_what_the_bank_makes_of_them_in_both_views(features, bank, tmp_path):
    embedded = embed(bank, features, root=tmp_path, batch_size=5)
    assert embedded.maps.shape == (12, 2, 16, 8, 8)
    assert isinstance(embedded.maps, np.memmap)
    assert embedded.maps.dtype == np.float16
    for view in features.views:
        with torch.no_grad():
            u = bank.embed(features.fused([7], view))[0]
        torch.testing.assert_close(embedded.embedded([7], view)[0].flatten(1).T, u, atol=5e-3, rtol=5e-3)
    np.testing.assert_allclose(embedded.pooled(), features.pooled(), rtol=1e-5)


def test_a_teacher_gives_the_same_without_a_raw_map_being_kept(passing, features, bank, tmp_path):
    stored, streamed = embed(bank, features, root=tmp_path), passing(bank, batch_size=5)
    for view in features.views:
        torch.testing.assert_close(
            streamed.embedded(range(12), view), stored.embedded(range(12), view), atol=2e-2, rtol=1e-2
        )
    np.testing.assert_allclose(streamed.pooled(), stored.pooled(), atol=2e-3, rtol=2e-3)
    assert entries(tmp_path, "features") == []
    assert streamed.images.ids == features.images.ids
    assert streamed.teacher == features.teacher


def test_a_second_call_reads_the_cache_and_never_runs_the_teacher(passing, bank, monkeypatch):
    first = passing(bank)
    monkeypatch.setattr(Teacher, "forward", lambda self, images: pytest.fail("the teacher ran again"))
    np.testing.assert_array_equal(passing(bank, batch_size=3).maps, first.maps)


def test_banks_of_one_space_read_one_entry_whatever_their_prototypes(passing, bank, tmp_path):
    embedded = passing(bank)
    bank.merge(0, 1)
    bank.disable(2)
    bank.rename(3, "ear")
    with torch.no_grad():
        bank.prototypes.add_(1)
        bank.assigner.weight.mul_(2)
    bank.check(embedded)
    loaded = PrototypeBank.load(bank.save(tmp_path / "bank.safetensors"))
    assert passing(loaded).space == embedded.space
    assert len(entries(tmp_path)) == 1


@pytest.mark.parametrize("changed", ["weight", "bias", "rectify", "teacher"])
def test_a_bank_of_another_space_is_refused_and_has_an_entry_of_its_own(passing, bank, tmp_path, changed):
    embedded, said = passing(bank), bank.embed(torch.ones(1, 48, 2, 2))
    if changed in ("weight", "bias"):
        with torch.no_grad():
            getattr(bank.fuse, changed)[3] += 0.5
    else:
        setattr(bank, changed, True if changed == "rectify" else "")
    with pytest.raises(
        ValueError, match=rf"space {embedded.space[:8]}, but the bank's is {bank.space[:8]}: embed them"
    ):
        bank.assignments(embedded)
    bank.check(passing(bank))
    assert len(entries(tmp_path)) == 2
    assert changed == "teacher" or not torch.equal(bank.embed(torch.ones(1, 48, 2, 2)), said)


@pytest.mark.parametrize("changed", ["images", "views", "precision"])
def test_whatever_else_changes_the_patches_has_an_entry_of_its_own(passing, teacher, packed, bank, tmp_path, changed):
    first = passing(bank)
    options = {"views": {"views": VIEWS}, "precision": {"precision": "bf16"}}
    if changed == "images":
        other = embed(bank, teacher, packed.select([0, 5]), precision="fp32", device="cpu", root=tmp_path)
        np.testing.assert_allclose(other.maps, first.maps[[0, 5]], atol=2e-2, rtol=1e-2)
    else:
        passing(bank, **options[changed])
    assert len(entries(tmp_path)) == 2


def test_stored_features_that_differ_in_one_value_are_not_taken_for_each_other(features, bank, tmp_path):
    maps = [np.array(m) for m in features.maps]
    maps[1][7, 1, 3, 0, 0] += 1
    changed = replace(features, maps=tuple(maps))
    first, second = (embed(bank, f, root=tmp_path) for f in (features, changed))
    assert len(entries(tmp_path)) == 2
    assert features.fingerprint != changed.fingerprint
    assert not np.array_equal(first.maps[7, 1], second.maps[7, 1])
    assert embed(bank, features.select(range(12)), root=tmp_path).maps.filename == first.maps.filename


def test_assignments_are_the_same_from_either(features, bank, tmp_path):
    for view in features.views:
        embedded = embed(bank, features, root=tmp_path)
        a, b = (bank.assignments(f, view=view) for f in (features, embedded))
        torch.testing.assert_close(a, b, atol=2e-2, rtol=0)


def test_patches_that_are_not_finite_are_told_by_their_image(features, bank, tmp_path):
    maps = [np.array(m) for m in features.maps]
    maps[0][11, 0, 0, 0, 0] = np.nan
    embedded = embed(bank, replace(features, maps=tuple(maps)), root=tmp_path)
    with pytest.raises(ValueError, match=f"image '{features.images.ids[11]}' are not finite"):
        bank.assignments(embedded)


def test_a_bank_that_lies_in_half_precision_stays_so(features, bank, tmp_path):
    assert bank.half().read(embed(bank.half(), features, root=tmp_path), [0]).dtype == torch.float16


def test_what_does_not_fit_is_refused(teacher, packed, features, bank, tmp_path):
    torch.manual_seed(1)
    other = Teacher("resnet10t", image_px=32, layers=(1, 2, 3), channels=(8, 16, 24, 32), stem_width=8)
    with pytest.raises(ValueError, match=f"come from teacher {other.fingerprint[:8]}"):
        embed(bank, other, packed, root=tmp_path)
    with pytest.raises(ValueError, match=r"pass its images, embed_features\(bank, teacher, images\)"):
        embed(bank, teacher, root=tmp_path)
    with pytest.raises(ValueError, match="come from teacher ffffffff"):
        embed(bank, replace(features, teacher="f" * 20), root=tmp_path)
    assert entries(tmp_path) == []


def test_an_entry_of_another_kind_or_with_a_hole_is_never_taken_for_one(passing, bank, tmp_path):
    whole = np.array(passing(bank).maps)
    (name,) = entries(tmp_path)
    (tmp_path / "embedded" / name / "means.npy").unlink()  # as a version without them would have left it
    with pytest.warns(RuntimeWarning, match="damaged cache entry is built again"):
        again = passing(bank)
    np.testing.assert_array_equal(again.maps, whole)
    assert again.pooled().shape == (12, 48)


def test_nothing_but_a_batch_lies_in_memory(passing, bank, monkeypatch):
    seen, inner = [], PrototypeBank.embed
    monkeypatch.setattr(PrototypeBank, "embed", lambda self, fused: seen.append(len(fused)) or inner(self, fused))
    passing(bank, batch_size=5)
    assert seen == [5, 5, 5, 5, 2, 2]


def test_u_of_a_teacher_without_a_bank_of_its_name_fits_too(passing, features):
    free = PrototypeBank(3, 48, 16)
    embedded = passing(free)
    assert isinstance(features, PatchFeatures)
    cosine = F.cosine_similarity(embedded.embedded([2]).flatten(2), free.embed(features.fused([2])).mT, dim=1)
    assert cosine.min() > 0.999
