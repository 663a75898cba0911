import subprocess
import sys

import numpy as np
import pytest
import torch
from fake_device import fake_device

from prockd.evaluation import embed
from prockd.evaluation.embed import embed_2d, is_embedded, principal


def clusters(seed: int = 0) -> np.ndarray:
    """Three tight bundles of 20 directions in eight dimensions."""
    rng = np.random.default_rng(seed)
    centres = np.eye(8)[:3].repeat(20, axis=0)
    return (centres + 0.05 * rng.normal(size=centres.shape)).astype(np.float32)


def test_pca_keeps_bundles_apart_and_ignores_length(tmp_path):
    vectors = clusters()
    map_ = embed_2d(vectors, method="pca", root=tmp_path, progress=False)
    assert map_.xy.shape == (60, 2)
    assert map_.note == "PCA of 60 points"
    middles = map_.xy.reshape(3, 20, 2).mean(1)
    spread = map_.xy.reshape(3, 20, 2).std(1).max()
    gaps = [np.linalg.norm(middles[i] - middles[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert min(gaps) > 5 * spread
    longer = embed_2d(torch.from_numpy(7 * vectors), method="pca", root=tmp_path, progress=False)
    np.testing.assert_allclose(longer.xy, map_.xy, atol=1e-4)


def test_vectors_may_lie_on_another_device_and_carry_gradients(tmp_path):
    vectors = torch.from_numpy(clusters())
    here = embed_2d(vectors, method="pca", root=tmp_path / "here", progress=False)
    with fake_device() as device:
        for given in (vectors.to(device), vectors.to(device).requires_grad_(), vectors.bfloat16().to(device)):
            there = embed_2d(given, method="pca", root=tmp_path / "there", progress=False)
            np.testing.assert_allclose(there.xy, here.xy, atol=0.02)


def test_principal_axes_are_those_of_an_svd_with_a_fixed_sign():
    vectors = np.random.default_rng(0).normal(size=(30, 5)) * [5, 3, 1, 0.5, 0.1]
    ours = principal(vectors, 3)
    centred = vectors - vectors.mean(0)
    theirs = centred @ np.linalg.svd(centred, full_matrices=False)[2][:3].T
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=1e-4)
    np.testing.assert_allclose(principal(vectors[::-1], 3)[::-1], ours, atol=1e-4)


def test_too_many_points_are_subsampled_by_the_seed_and_the_note_says_so(tmp_path):
    vectors = clusters()
    first, again, other = (
        embed_2d(vectors, method="pca", max_points=25, seed=seed, root=tmp_path, progress=False) for seed in (3, 3, 4)
    )
    assert len(first) == 25
    assert (np.diff(first.indices) > 0).all()
    assert first.note == "PCA of 25 of 60 points, drawn with seed 3"
    np.testing.assert_array_equal(first.indices, again.indices)
    assert not np.array_equal(first.indices, other.indices)


def test_the_second_map_of_the_same_vectors_comes_from_the_cache(tmp_path, monkeypatch):
    vectors = clusters()
    first = embed_2d(vectors, method="pca", root=tmp_path, progress=False)
    monkeypatch.setattr(embed, "principal", None)
    np.testing.assert_array_equal(embed_2d(vectors, method="pca", root=tmp_path, progress=False).xy, first.xy)
    with pytest.raises(TypeError):
        embed_2d(vectors + 1, method="pca", root=tmp_path, progress=False)


@pytest.mark.parametrize(
    ("vectors", "arguments", "message"),
    [
        (np.zeros((2, 4), np.float32), {}, "2 vectors of width 4"),
        (np.zeros((9, 1), np.float32), {}, "width 1"),
        (np.zeros((9, 4), np.float32), {"max_points": 2}, "max_points=2"),
        (np.zeros((9, 4), np.float32), {"method": "tsne"}, "choose one of 'umap', 'pca'"),
        (
            np.where(np.arange(36).reshape(9, 4) == 13, np.nan, 1.0),
            {},
            "1 of 9 vectors are not finite, the first is row 3",
        ),
    ],
)
def test_what_cannot_be_embedded_is_refused(vectors, arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        embed_2d(vectors, **({"method": "pca", "root": tmp_path} | arguments))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Tensorflow not installed:ImportWarning")
def test_umap_is_reproducible_and_keeps_neighbours_together(tmp_path, capsys):
    vectors = clusters()
    one, two = (embed_2d(vectors, seed=1, root=tmp_path / name, progress=name == "a") for name in "ab")
    np.testing.assert_array_equal(one.xy, two.xy)
    distances = np.linalg.norm(one.xy[:, None] - one.xy[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    assert (distances.argmin(1) // 20 == np.arange(60) // 20).mean() > 0.9
    assert one.note == "UMAP (seed 1) of 60 points"
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "about 15 s the first time" in captured.err
    assert embed_2d(vectors[:3], root=tmp_path, progress=False).xy.shape == (3, 2)


@pytest.mark.slow
def test_umap_is_not_loaded_before_it_is_used():
    code = "import sys, prockd.evaluation.embed; sys.exit('umap' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_map_is_in_the_cache_once_it_was_made_and_only_with_its_settings(tmp_path):
    vectors, how = clusters(), {"method": "pca", "root": tmp_path}
    assert not is_embedded(vectors, **how)
    embed_2d(vectors, **how, progress=False)
    assert is_embedded(vectors, **how)
    assert not is_embedded(vectors, **how, seed=1)
    assert not is_embedded(vectors, **how, max_points=30)
    with pytest.raises(ValueError, match="method='tsne'"):
        is_embedded(vectors, method="tsne")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Tensorflow not installed:ImportWarning")
def test_what_umap_compiles_is_kept_below_the_cache(monkeypatch, tmp_path):
    numba = pytest.importorskip("numba")
    monkeypatch.setenv("PROCKD_CACHE", str(tmp_path))
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    embed_2d(np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32), progress=False)
    assert str(tmp_path / "numba") == numba.config.CACHE_DIR
