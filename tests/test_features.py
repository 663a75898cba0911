import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TINY, draw_stripes
from fake_device import accelerator, fake_device
from torch.nn import functional as F

from prockd.datasets import Arrays, pack
from prockd.datasets.transforms import to_unit
from prockd.farmyard import Farmyard
from prockd.teachers.features import PatchFeatures, extract, extract_pooled, fuse_layers
from prockd.teachers.passes import VIEWS, as_view
from prockd.teachers.teacher import Teacher


def read(teacher, images, tmp_path, **options) -> PatchFeatures:
    """In full precision, so that what is read can be compared with what the teacher says when it is asked directly."""
    return extract(teacher, images, root=tmp_path, device="cpu", progress=False, **{"precision": "fp32"} | options)


def say(teacher, packed, *, mirrored: bool = False) -> list[np.ndarray]:
    """What the teacher says of all images when it is asked directly."""
    images = to_unit(torch.from_numpy(np.array(packed.pixels)))
    return [m.numpy() for m in teacher(images.flip(3) if mirrored else images)]


def entries(tmp_path) -> list[str]:
    return sorted(p.name for p in (tmp_path / "features").iterdir()) if (tmp_path / "features").exists() else []


class Stop(BaseException):
    """What a Ctrl-C is: no Exception."""


def broken_after(teacher, passes: int, how):
    """The teacher's forward, which ends in ``how`` after some passes."""
    whole, done = teacher.forward, []

    def forward(images):
        done.append(None)
        if len(done) > passes:
            how()
        return whole(images)

    return forward


# What is stored


def test_features_are_what_the_teacher_says_of_each_image(teacher, packed, features):
    assert len(features) == len(packed)
    assert features.teacher == teacher.fingerprint
    assert features.layers == teacher.layers
    for stored, said in zip(features.maps, say(teacher, packed), strict=True):
        assert stored.dtype == np.float16
        np.testing.assert_allclose(stored[:, 0], said, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("kind", ["teacher", "vit"])
def test_the_mirrored_view_is_the_teachers_pass_of_the_mirrored_image_not_the_mirrored_map(
    request, packed, tmp_path, kind
):
    teacher = request.getfixturevalue(kind)
    features = read(teacher, packed, tmp_path)
    for stored, said in zip(features.maps, say(teacher, packed, mirrored=True), strict=True):
        np.testing.assert_allclose(stored[:, 1], said, atol=2e-3, rtol=2e-3)
        assert np.abs(stored[:, 1] - stored[:, 0][..., ::-1]).max() > 0.01  # mirroring the map would be wrong


def test_features_do_not_depend_on_the_batch_size(teacher, packed, features, tmp_path):
    ones = read(teacher, packed, tmp_path, batch_size=5)
    for a, b in zip(ones.maps, features.maps, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3, rtol=2e-3)


def test_one_view_is_enough_where_nothing_is_mirrored(teacher, packed, features, tmp_path):
    single = read(teacher, packed, tmp_path, views=("plain",))
    assert single.views == ("plain",)
    for a, b in zip(single.maps, features.maps, strict=True):
        np.testing.assert_allclose(a[:, 0], b[:, 0], atol=2e-3, rtol=2e-3)


def test_a_third_view_shows_the_teacher_the_same_shapes_in_other_colours(teacher, packed, features, tmp_path):
    recoloured = read(teacher, packed, tmp_path, views=("recoloured", "mirrored"))
    assert recoloured.views == ("plain", "mirrored", "recoloured")
    images = as_view(
        to_unit(torch.from_numpy(np.array(packed.pixels))), [zlib.crc32(p) for p in packed.pixels], "recoloured"
    )
    for a, b, said in zip(recoloured.maps, features.maps, teacher(images), strict=True):
        np.testing.assert_allclose(a[:, :2], b, atol=2e-3, rtol=2e-3)
        np.testing.assert_allclose(a[:, 2], said.numpy(), atol=2e-3, rtol=2e-3)
        assert np.abs(a[:, 2] - a[:, 0]).max() > 0.01


def test_the_colours_of_an_image_depend_on_that_image_alone(teacher, packed, tmp_path):
    whole = read(teacher, packed, tmp_path, views=("recoloured",))
    part = read(teacher, packed.select([7, 3]), tmp_path, views=("recoloured",), batch_size=1)
    for a, b in zip(whole.maps, part.maps, strict=True):
        np.testing.assert_allclose(a[[7, 3], 1], b[:, 1], atol=2e-3, rtol=2e-3)
    assert np.abs(whole.maps[0][7, 1] - whole.maps[0][3, 1]).max() > 0.01


def test_the_batch_size_makes_no_entry_of_its_own(teacher, packed, tmp_path):
    for batch_size in (5, 64):
        read(teacher, packed, tmp_path, views=("recoloured",), batch_size=batch_size)
    assert len(entries(tmp_path)) == 1


@pytest.mark.parametrize("views", [("plain", "mirorred"), ("upside down",), "mirrored"])
def test_views_that_there_are_not_are_refused_with_those_there_are(teacher, packed, tmp_path, views):
    with pytest.raises(ValueError, match=r"views=.*choose some of \('plain', 'mirrored', 'recoloured'\)"):
        read(teacher, packed, tmp_path, views=views)


def test_a_view_that_the_teacher_has_not_seen_is_told_with_what_to_do(features):
    with pytest.raises(ValueError, match=r"no view 'recoloured', only .*views=\('plain', 'mirrored', 'recoloured'\)"):
        features.fused([0], "recoloured")


def test_features_and_their_names_of_views_belong_together(features):
    with pytest.raises(ValueError, match=r"maps have \[2, 2, 2\] views"):
        replace(features, views=("plain",))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_another_entry_and_nearly_the_same_features(teacher, vit, packed, tmp_path, precision):
    for number, network in enumerate((teacher, vit), 1):
        whole, half = (read(network, packed, tmp_path, precision=p) for p in ("fp32", precision))
        assert len(entries(tmp_path)) == 2 * number
        cosine = F.cosine_similarity(whole.fused(range(12)), half.fused(range(12)), dim=1)
        assert not np.array_equal(whole.maps[-1], half.maps[-1])
        assert cosine.mean() > 0.999
        assert cosine.min() > 0.99


def test_farmyards_teacher_in_half_precision_is_as_near_as_the_docstring_says(tmp_path):
    teacher, images = Teacher("farmyard"), Farmyard("target", "test", 8)
    whole, half = (read(teacher, images, tmp_path, views=(), precision=p).fused(range(8)) for p in ("fp32", "bf16"))
    cosine = F.cosine_similarity(whole, half, dim=1)
    assert 0.99997 < cosine.mean() < 0.999999
    assert cosine.min() > 0.9995


def test_an_unknown_precision_is_refused_with_those_there_are(teacher, packed, tmp_path):
    with pytest.raises(ValueError, match=r"precision='fp8': choose one of .*bf16"):
        read(teacher, packed, tmp_path, precision="fp8")


def test_extraction_leaves_the_random_numbers_that_follow_alone(teacher, packed, tmp_path):
    draws = []
    for extracted in (False, True):
        torch.manual_seed(3)
        if extracted:
            read(teacher, packed, tmp_path, views=VIEWS)
        draws.append(torch.rand(3))
    assert torch.equal(*draws)


# Devices


def test_a_teacher_on_the_cpu_is_moved_for_the_passes_and_comes_back(teacher, packed, features, tmp_path):
    with fake_device() as away, accelerator(away):
        moved = extract(teacher, packed, precision="fp32", root=tmp_path, progress=False)
        assert {p.device.type for p in teacher.parameters()} == {"cpu"}
    for a, b in zip(moved.maps, features.maps, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3, rtol=2e-3)


def test_a_teacher_that_fails_on_the_device_comes_back_too(teacher, packed, tmp_path, monkeypatch):
    def end():
        assert teacher.mean.device.type == "meta"
        raise RuntimeError("out of memory")

    with fake_device() as away, accelerator(away):
        monkeypatch.setattr(teacher, "forward", broken_after(teacher, 1, end))
        with pytest.raises(RuntimeError, match="out of memory"):
            extract(teacher, packed, root=tmp_path, progress=False)
    assert {p.device.type for p in (*teacher.parameters(), *teacher.buffers())} == {"cpu"}


def test_a_teacher_stays_on_the_device_it_was_put_on(packed, tmp_path):
    with fake_device() as away:
        torch.manual_seed(0)
        teacher = Teacher("resnet10t", image_px=32, layers=(1, 2, 3), **TINY).to(away)
        extract(teacher, packed, root=tmp_path, progress=False)
        assert {p.device.type for p in teacher.parameters()} == {"meta"}


def test_images_are_resized_to_the_teachers_input(teacher, tmp_path):
    images = pack(Arrays(*draw_stripes(4, 64), ("a", "b")), 64, root=tmp_path)
    features = read(teacher, images, tmp_path)
    assert features.images.image_px == 64
    assert [m.shape[3:] for m in features.maps] == list(teacher.grids)
    small = F.interpolate(
        torch.from_numpy(np.array(images.pixels)) / 255, (32, 32), mode="bilinear", antialias=True, align_corners=False
    )
    np.testing.assert_allclose(features.maps[0][:, 0], teacher(small)[0].numpy(), atol=3e-3, rtol=3e-3)


def test_a_data_set_is_packed_at_the_teachers_size_or_at_the_size_that_was_asked(teacher, stripes, packed, tmp_path):
    features = read(teacher, stripes, tmp_path)
    assert features.images.image_px == teacher.image_px
    np.testing.assert_array_equal(features.images.pixels, packed.pixels)
    assert read(teacher, stripes, tmp_path, image_px=48).images.image_px == 48


def test_layers_of_a_transformer_are_stored_one_by_one(vit, packed, tmp_path):
    features = read(vit, packed, tmp_path)
    assert [m.shape for m in features.maps] == [(12, 2, 24, 4, 4)] * len(vit.layers)
    assert features.width == 24 * len(vit.layers)
    assert features.grid == (4, 4)


# The cache


def test_a_second_extraction_reads_the_cache_and_never_runs_the_teacher(teacher, packed, tmp_path, monkeypatch):
    first = read(teacher, packed, tmp_path)
    monkeypatch.setattr(Teacher, "forward", lambda self, images: pytest.fail("the teacher ran again"))
    second = read(teacher, packed, tmp_path)
    assert len(entries(tmp_path)) == 1
    for a, b in zip(first.maps, second.maps, strict=True):
        assert isinstance(b, np.memmap)
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "changed",
    [{"layers": (1, 2)}, {"image_px": 64}, {"output_stride": 16}, {"act_layer": "silu"}, {"weights": "others"}],
    ids=lambda change: next(iter(change)),
)
def test_another_teacher_has_another_cache_entry(teacher, packed, tmp_path, changed):
    first = read(teacher, packed, tmp_path)
    torch.manual_seed(1 if changed.pop("weights", None) else 0)
    other = Teacher("resnet10t", **{"image_px": 32, "layers": (1, 2, 3), **TINY, **changed})
    second = read(other, packed, tmp_path)
    assert len(entries(tmp_path)) == 2
    assert first.teacher != second.teacher
    said = say(teacher, packed)[0]
    np.testing.assert_allclose(read(teacher, packed, tmp_path).maps[0][:, 0], said, atol=2e-3, rtol=2e-3)


def test_other_images_views_and_sizes_have_their_own_entries(teacher, stripes, packed, tmp_path):
    read(teacher, packed, tmp_path)
    read(teacher, packed.select([0, 1, 2]), tmp_path)
    read(teacher, packed, tmp_path, views=("plain",))
    read(teacher, stripes, tmp_path, image_px=48)
    assert len(entries(tmp_path)) == 4


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt, RuntimeError])
def test_an_interrupted_extraction_leaves_nothing_and_the_next_one_is_whole(
    teacher, packed, tmp_path, monkeypatch, error
):
    def end():
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(teacher, "forward", broken_after(teacher, 3, end))
        with pytest.raises(error):
            read(teacher, packed, tmp_path, batch_size=4)
    assert entries(tmp_path) == []
    features = read(teacher, packed, tmp_path, batch_size=4)
    np.testing.assert_allclose(features.maps[0][:, 1], say(teacher, packed, mirrored=True)[0], atol=2e-3, rtol=2e-3)


# Reading


def test_fused_features_lie_on_the_finest_grid_with_unit_length_in_each_layer(features):
    fused = features.fused([0, 5, 3])
    assert fused.shape == (3, 8 + 16 + 24, 8, 8)
    assert features.grid == (8, 8)
    assert features.width == 48
    fine, *coarse = fused.split([8, 16, 24], dim=1)
    torch.testing.assert_close(fine.norm(dim=1), torch.ones(3, 8, 8))
    for layer in coarse:  # between two patches the mean of two unit vectors is a little shorter
        lengths = layer.norm(dim=1)
        assert lengths.max() < 1.0001
        assert lengths.min() > 0.9


def test_each_fused_layer_points_where_the_teacher_said(features):
    first = torch.from_numpy(np.array(features.maps[0][[4], 1])).float()
    torch.testing.assert_close(features.fused([4], view="mirrored")[:, :8], F.normalize(first, dim=1))
    corners = features.fused([4], view="mirrored")[:, 8:24, [0, 0, -1, -1], [0, -1, 0, -1]]
    second = torch.from_numpy(np.array(features.maps[1][[4], 1])).float()[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]
    torch.testing.assert_close(corners, F.normalize(second, dim=1))


def test_a_layer_of_large_values_does_not_drown_the_others():
    small, large = torch.randn(2, 4, 4, 4), torch.randn(2, 4, 4, 4)
    torch.testing.assert_close(fuse_layers([small, large], (4, 4)), fuse_layers([small, 1e4 * large], (4, 4)))


def test_pooled_features_join_the_mean_of_every_layer_however_they_are_made(teacher, packed, features, tmp_path):
    joined = features.pooled()
    assert joined.shape == (12, 8 + 16 + 24)
    np.testing.assert_allclose(joined[3, 8:24], features.maps[1][3, 0].astype(np.float64).mean((1, 2)), rtol=1e-4)
    alone = extract_pooled(teacher, packed, precision="fp32", device="cpu", root=tmp_path, progress=False)
    np.testing.assert_allclose(alone, joined, atol=2e-3, rtol=2e-3)
    assert entries(tmp_path) == []


def test_maps_of_some_layers_may_be_read_alone_in_any_view(features):
    (last,) = features.layer_maps([5, 2], np.array([1, 0]), slice(-1, None))
    np.testing.assert_array_equal(last[0], features.maps[2][5, 1].astype(np.float32))
    np.testing.assert_array_equal(last[1], features.maps[2][2, 0].astype(np.float32))


def test_select_keeps_images_labels_and_maps_together(features):
    for chosen in ([7, 2, 2], np.array([0, 1, 2]), np.arange(12) % 3 == 0):
        part = features.select(chosen)
        rows = np.arange(12)[np.asarray(chosen)]
        assert part.images.ids == tuple(features.images.ids[i] for i in rows)
        assert part.images.labels.tolist() == features.images.labels[rows].tolist()
        for a, b in zip(part.maps, features.maps, strict=True):
            np.testing.assert_array_equal(a, b[rows])
        assert (part.teacher, part.layers) == (features.teacher, features.layers)


def test_repr_tells_images_views_patches_and_teacher(features):
    text = repr(features)
    assert "12 images, plain + mirrored;" in text
    assert "layer 2: 4x4 patches of 16" in text
    assert features.teacher[:8] in text
    single = replace(features, maps=tuple(m[:, :1] for m in features.maps), views=("plain",))
    assert "12 images, plain;" in repr(single)
