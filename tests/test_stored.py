"""What is kept of a teacher's passes: shards, shares of them, one array."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from prockd.cache import CacheError
from prockd.datasets import PackedImages
from prockd.teachers import stored as module
from prockd.teachers.features import extract
from prockd.teachers.passes import Passes
from prockd.teachers.rows import Joined
from prockd.teachers.stored import MissingShardsError, Share


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(module, "SHARD", 5)  # of twelve images


def read(teacher, images, root, **how):
    return extract(teacher, images, root=root, **{"precision": "fp32", "device": "cpu", "progress": False} | how)


def manifests(root: Path) -> list[Path]:
    return [path for path in (root / "features").iterdir() if "shards" in (path / "meta.json").read_text()]


def test_shards_read_as_the_one_array_that_they_would_be(teacher, packed, features, tmp_path):
    sharded = read(teacher, packed, tmp_path, batch_size=2)
    assert all(isinstance(m, Joined) for m in sharded.maps)
    for a, b in zip(sharded.maps, features.maps, strict=True):
        assert (a.shape, a.dtype, a.nbytes, len(a)) == (b.shape, b.dtype, b.nbytes, len(b))
        np.testing.assert_allclose(a[:], b, atol=2e-3, rtol=2e-3)
        for key in (3, -1, slice(2, 9, 3), [11, 0, 5, 5], np.arange(12) % 2 == 0, ([7, 1], np.array([1, 0]))):
            np.testing.assert_allclose(a[key], b[key], atol=2e-3, rtol=2e-3)
    assert np.shares_memory(sharded.maps[0][5:8], sharded.maps[0][5:10])
    torch.testing.assert_close(
        sharded.fused([0, 7, 11], "mirrored"), features.fused([0, 7, 11], "mirrored"), atol=5e-3, rtol=0
    )
    assert len(manifests(tmp_path)) == 1


def test_threads_of_shards_end_with_their_shards(teacher, packed, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SHARD", 1)
    forward, alive = teacher.forward, []

    def counted(images):
        alive.append(sum(thread.name.startswith("prockd-shard") for thread in threading.enumerate()))
        return forward(images)

    monkeypatch.setattr(teacher, "forward", counted)
    assert len(read(teacher, packed, tmp_path, batch_size=1)) == 12
    assert max(alive) <= module.ON_THE_WAY + 3


def test_shares_make_what_one_process_makes_and_tell_what_is_missing(teacher, packed, tmp_path):
    with pytest.raises(MissingShardsError, match=r"2 of 3 shards of features are in .*: the other shares of 2"):
        read(teacher, packed, tmp_path, share=Share(1, 2))
    assert not manifests(tmp_path)
    second = read(teacher, packed, tmp_path, share=Share(2, 2))
    whole = read(teacher, packed, tmp_path / "alone")
    for a, b in zip(second.maps, whole.maps, strict=True):
        np.testing.assert_array_equal(a[:], b[:])


def test_a_stopped_extraction_keeps_whole_shards_and_goes_on_with_the_others(teacher, packed, tmp_path, monkeypatch):
    seen, forward = [], teacher.forward

    def counted(images):
        seen.append(len(images))
        if len(seen) == 8:  # two views of five images in threes and twos, then of five more
            raise KeyboardInterrupt
        return forward(images)

    monkeypatch.setattr(teacher, "forward", counted)
    with pytest.raises(KeyboardInterrupt):
        read(teacher, packed, tmp_path, batch_size=3)
    read(teacher, packed, tmp_path, batch_size=3)
    assert sum(seen[8:]) == 2 * (12 - 5)
    assert not list((tmp_path / "features").glob(".prockd-*"))


def test_a_damaged_shard_alone_is_made_again(teacher, packed, tmp_path, monkeypatch):
    first = [m[:].copy() for m in read(teacher, packed, tmp_path).maps]
    path = next(p for p in sorted((tmp_path / "features").glob("*/layer1.npy")))
    with path.open("r+b") as file:
        file.seek(200)
        file.write(b"\xff\xff")
    seen, forward = [], teacher.forward
    monkeypatch.setattr(teacher, "forward", lambda images: seen.append(len(images)) or forward(images))
    with pytest.warns(RuntimeWarning, match="damaged cache entry is built again"):
        again = read(teacher, packed, tmp_path)
    assert sum(seen) in (2 * 5, 2 * 2)
    for a, b in zip(again.maps, first, strict=True):
        np.testing.assert_allclose(a[:], b, atol=2e-3, rtol=2e-3)


def test_of_many_shards_each_is_compared_when_it_is_first_read(teacher, packed, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", 2)
    first = [m[:].copy() for m in read(teacher, packed, tmp_path).maps]
    shards = json.loads((manifests(tmp_path)[0] / "meta.json").read_text())["meta"]["shards"]
    path = tmp_path / "features" / shards[1]["folder"] / "layer1.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    layer = read(teacher, packed, tmp_path).maps[0]
    assert (layer[0].shape, layer[11].shape) == (first[0][0].shape,) * 2
    told = f"{path.parent} was damaged and is removed: the same command again makes it anew"
    with pytest.warns(RuntimeWarning, match="damaged"), pytest.raises(CacheError, match=re.escape(told)):
        layer[5]
    for a, b in zip(read(teacher, packed, tmp_path).maps, first, strict=True):
        np.testing.assert_allclose(a[:], b, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("text", ["5/4", "0/4", "-1/4", "3", "a/b", "1/0"])
def test_a_share_that_there_is_not_is_refused(text):
    with pytest.raises(ValueError, match="shard"):
        Share.parse(text)


def test_what_the_disk_has_no_room_for_is_refused_with_numbers_before_the_teacher_runs(teacher, packed, tmp_path):
    class Huge(PackedImages):
        def __len__(self):
            return 10**10

    huge = Huge(packed.pixels, packed.labels, packed.ids, packed.classes, "huge")
    columns = {"x": module.Column((1000,), np.float32)}
    with pytest.raises(CacheError, match=r"x of 10,000,000,000 images need .* GB \(8 kB each\), and .* are free"):
        module.check_room(columns["x"].of(10**10, 2).nbytes, len(huge), "x", tmp_path)


def test_a_batch_that_does_not_fit_is_halved_and_said(teacher, packed, features, tmp_path, monkeypatch, capsys):
    forward = teacher.forward

    def narrow(images):
        if len(images) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(images)

    monkeypatch.setattr(teacher, "forward", narrow)
    fitting = read(teacher, packed, tmp_path, batch_size=12)
    assert "does not fit the memory of cpu: going on with 2" in capsys.readouterr().err
    for a, b in zip(fitting.maps, features.maps, strict=True):
        np.testing.assert_allclose(a[:], b, atol=2e-3, rtol=2e-3)


def test_a_line_tells_bytes_before_and_another_rate_and_what_half_precision_changes(teacher, packed, tmp_path, capsys):
    read(teacher, packed, tmp_path, precision="bf16", progress=True)
    before, _, after = (err := capsys.readouterr().err).partition("features: 12 images in")
    assert re.search(r"features: \d+ MB for 12 images \(\d+ kB each\), [\d,]+ MB are free", before)
    assert "images/s" in after
    assert "bf16, cosine to fp32 0.99" in err


def test_each_time_it_is_iterated_the_teacher_runs_and_only_what_is_asked_for_is_kept(teacher, packed):
    passes = Passes(teacher, packed, views=("plain",), precision="fp32", device="cpu", progress=False)
    for _ in range(2):
        kept = list(passes.keep(lambda maps, v: {"mean": maps[0].mean((1, 2, 3))}, [slice(2, 4), slice(9, 12)]))
        assert [(one.rows.start, one.rows.stop) for one in kept] == [(2, 4), (9, 12)]
        assert [one["mean"].shape for one in kept] == [(2,), (3,)]


@pytest.mark.slow
def test_a_killed_extraction_redoes_at_most_one_shard(tmp_path):
    script = textwrap.dedent(f"""
        import os, signal, sys
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        import numpy as np, torch
        from conftest import TINY, draw_stripes
        from pathlib import Path
        from prockd.datasets import PackedImages
        from prockd.teachers import stored
        from prockd.teachers.features import extract
        from prockd.teachers.teacher import Teacher
        stored.SHARD = stored.ON_THE_WAY = 2
        torch.manual_seed(0)
        teacher = Teacher("resnet10t", image_px=32, layers=(1,), **TINY)
        pixels, labels = draw_stripes(40)
        images = PackedImages(pixels.transpose(0, 3, 1, 2), labels, tuple(map(str, range(40))), ("a", "b"), "x")
        forward, seen = teacher.forward, []
        def slow(batch):
            seen.append(len(batch))
            if sys.argv[1] == "kill" and sum(seen) > 22:
                os.kill(os.getpid(), signal.SIGKILL)
            return forward(batch)
        teacher.forward = slow
        how = dict(views=("plain",), precision="fp32", device="cpu", progress=False, batch_size=1)
        extract(teacher, images, root=Path({str(tmp_path)!r}), **how)
        print(sum(seen))
    """)
    run = lambda how: subprocess.run([sys.executable, "-c", script, how], capture_output=True, text=True)  # noqa: E731
    assert run("kill").returncode == -signal.SIGKILL
    done = run("whole")
    assert done.returncode == 0, done.stderr
    assert 40 - 22 <= int(done.stdout) <= 40 - 22 + 2 * 4, os.fspath(tmp_path)
