"""Features at a fifth of their size, to find prototypes in."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from prockd.prototypes.discovery import discover
from prockd.settings.method import DiscoverConfig
from prockd.teachers.compact import CompactFeatures, extract_compact
from prockd.teachers.features import extract
from prockd.teachers.teacher import Teacher


@pytest.fixture
def compact(teacher, packed, tmp_path):
    def make(**changes) -> CompactFeatures:
        how = {"precision": "fp32", "device": "cpu", "root": tmp_path, "progress": False}
        return extract_compact(teacher, packed, **how | changes)

    return make


def test_with_all_directions_they_are_the_fused_features_but_for_the_eight_bits(compact, features):
    whole = compact(rank=999)
    assert whole.codes.shape == (12, 3, 48, 8, 8)
    assert whole.codes.dtype == np.int8
    assert (whole.grid, whole.width) == (features.grid, features.width)
    for view in features.views:
        cosine = F.cosine_similarity(whole.fused([0, 7, 11], view), features.fused([0, 7, 11], view), dim=1)
        assert cosine.min() > 0.999


def test_what_is_lost_shrinks_with_the_rank(compact, features):
    true = features.fused(range(12))
    errors = [float((compact(rank=rank).fused(range(12)) - true).square().mean()) for rank in (2, 8, 24, 48)]
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.1 * errors[0]


def test_each_image_may_be_read_in_a_view_of_its_own(compact):
    features = compact()
    mixed = features.fused(np.array([4, 4]), np.array([0, 2]))
    assert torch.equal(mixed[0], features.fused([4])[0])
    assert torch.equal(mixed[1], features.fused([4], "recoloured")[0])


def test_prototypes_found_in_them_are_those_of_the_maps(compact, teacher, packed, tmp_path):
    views = ("plain", "mirrored", "recoloured")
    raw = extract(teacher, packed, views=views, precision="fp32", device="cpu", root=tmp_path, progress=False)
    config = DiscoverConfig(num_prototypes=6, embed_dim=16, steps=0)
    first, second = (discover(f, config=config, progress=False) for f in (raw, compact()))
    assert second.teacher == first.teacher
    with torch.no_grad():
        u, v = (bank.embed(raw.fused(range(12))) for bank in (first, second))
    # directions of a PCA have no sign of their own, but cosines between patches do
    gram_u, gram_v = (F.normalize(x.flatten(0, 1), dim=1) @ F.normalize(x.flatten(0, 1), dim=1).T for x in (u, v))
    assert (gram_u - gram_v).abs().mean() < 0.03
    assert second.assignments(raw).shape == (12, 64, 6)  # a bank found in compact features reads the maps


def test_pooled_features_are_those_of_the_maps_themselves(compact, features):
    np.testing.assert_allclose(compact(rank=2).pooled(), features.pooled(), atol=2e-3, rtol=2e-3)


def test_maps_of_single_layers_are_refused_with_what_has_them(compact):
    with pytest.raises(ValueError, match=r"no maps of single layers: pk\.extract\(teacher, images\) does"):
        compact().layer_maps([0])


def test_a_selection_keeps_codes_means_and_images_together(compact):
    features = compact()
    part = features.select([7, 2])
    assert part.images.ids == (features.images.ids[7], features.images.ids[2])
    assert torch.equal(part.fused([0], "mirrored"), features.fused([7], "mirrored"))
    np.testing.assert_array_equal(part.pooled(), features.pooled()[[7, 2]])
    assert part.fingerprint != features.fingerprint
    assert "2 images, plain + mirrored + recoloured; 8x8 patches of 48 in 48 directions" in repr(part)


def test_a_second_call_reads_the_cache_and_each_rank_has_its_own(compact, tmp_path, monkeypatch):
    first = compact()
    compact(rank=8)
    assert len(list((tmp_path / "compact").iterdir())) == 2
    monkeypatch.setattr(Teacher, "forward", lambda self, images: pytest.fail("the teacher ran again"))
    second = compact(batch_size=5)
    np.testing.assert_array_equal(first.codes, second.codes)
    assert isinstance(second.codes, np.memmap)
    assert not (tmp_path / "features").exists()


def test_features_that_are_not_finite_are_refused_with_the_image(compact, packed, teacher, monkeypatch):
    whole = teacher.forward

    def broken(images):
        maps = whole(images)
        if len(images) == 2:  # the last batch of twelve by five
            maps[0][1, 0, 0, 0] = torch.nan
        return maps

    monkeypatch.setattr(teacher, "forward", broken)
    with pytest.raises(ValueError, match="are not finite"):
        compact(batch_size=5)


def test_a_rank_below_one_is_refused(compact):
    with pytest.raises(ValueError, match="rank=0: keep at least one direction"):
        compact(rank=0)
