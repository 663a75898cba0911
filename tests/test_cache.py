import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from prockd import cache
from prockd.cache import ArrayWriter, CacheError, cache_root, cached_arrays, digest

KEY = {"teacher": "abc", "layers": (1, 2)}


class Builder:
    """Counts how often it is asked; fills one array with 0..5."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, writer: ArrayWriter) -> dict[str, Any]:
        self.calls += 1
        writer.create("x", (2, 3), np.float32)[:] = np.arange(6).reshape(2, 3)
        return {"made": "by test"}


def entries(root: Path) -> list[str]:
    return sorted(p.name for p in (root / "kind").iterdir())


def test_the_second_call_opens_what_the_first_built(tmp_path):
    build = Builder()
    cached_arrays("kind", KEY, build, root=tmp_path)
    arrays, meta = cached_arrays("kind", KEY, build, root=tmp_path)
    assert build.calls == 1
    assert arrays["x"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert isinstance(arrays["x"], np.memmap)
    assert not arrays["x"].flags.writeable
    assert meta == {"made": "by test"}
    assert entries(tmp_path) == [digest(KEY)]


def test_another_key_is_another_entry_and_the_order_of_a_key_does_not_matter(tmp_path):
    build = Builder()
    cached_arrays("kind", {"a": 1, "b": 2}, build, root=tmp_path)
    cached_arrays("kind", {"b": 2, "a": 1}, build, root=tmp_path)
    assert build.calls == 1
    cached_arrays("kind", {"a": 1, "b": 3}, build, root=tmp_path)
    assert build.calls == 2


def test_arrays_without_elements_are_kept_too(tmp_path):
    def build(writer):
        writer.create("none", (0, 3), np.uint8)
        return {}

    arrays, _ = cached_arrays("kind", KEY, build, root=tmp_path)
    assert arrays["none"].shape == (0, 3)


def test_the_root_is_the_environment_variable_else_the_home_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("PROCKD_CACHE", str(tmp_path))
    assert cache_root() == tmp_path
    cached_arrays("kind", KEY, Builder())
    assert entries(tmp_path) == [digest(KEY)]
    monkeypatch.delenv("PROCKD_CACHE")
    assert cache_root() == Path.home() / ".cache" / "prockd"


def damage_by_truncation(entry: Path) -> None:
    with (entry / "x.npy").open("r+b") as file:
        file.truncate(140)


def damage_by_growth(entry: Path) -> None:
    with (entry / "x.npy").open("ab") as file:
        file.write(b"more")


def damage_by_another_shape(entry: Path) -> None:
    np.save(entry / "x.npy", np.zeros((3, 2), np.float32))


def damage_by_loss(entry: Path) -> None:
    (entry / "x.npy").unlink()


def damage_of_meta(entry: Path) -> None:
    (entry / "meta.json").write_text("{")


def damage_by_a_foreign_key(entry: Path) -> None:
    record = json.loads((entry / "meta.json").read_text())
    (entry / "meta.json").write_text(json.dumps(record | {"key": {"teacher": "another"}}))


@pytest.mark.parametrize(
    "damage",
    [
        damage_by_truncation,
        damage_by_growth,
        damage_by_another_shape,
        damage_by_loss,
        damage_of_meta,
        damage_by_a_foreign_key,
    ],
)
def test_a_damaged_entry_is_built_again_with_a_warning(tmp_path, damage):
    build = Builder()
    cached_arrays("kind", KEY, build, root=tmp_path)
    damage(tmp_path / "kind" / digest(KEY))
    with pytest.warns(RuntimeWarning, match="damaged cache entry"):
        arrays, _ = cached_arrays("kind", KEY, build, root=tmp_path)
    assert build.calls == 2
    assert arrays["x"].sum() == 15


def test_an_error_while_building_leaves_nothing(tmp_path):
    def build(writer):
        writer.create("x", (4,), np.uint8)
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        cached_arrays("kind", KEY, build, root=tmp_path)
    assert entries(tmp_path) == []


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_a_full_disk_is_refused_before_writing_and_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 10**8))

    def build(writer):
        writer.create("x", (90_000_000,), np.uint8)
        writer.create("y", (120_000_000,), np.uint8)
        return {}

    with pytest.raises(CacheError, match=r"0\.21 GB are needed, 0\.1 GB are free in .*PROCKD_CACHE"):
        cached_arrays("kind", KEY, build, root=tmp_path)
    assert issubclass(CacheError, OSError)
    assert entries(tmp_path) == []


def test_a_disk_that_fills_up_while_writing_says_so_and_leaves_nothing(tmp_path):
    def build(writer):
        writer.create("x", (4,), np.uint8)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(CacheError, match=r"disk full: .*PROCKD_CACHE"):
        cached_arrays("kind", KEY, build, root=tmp_path)
    assert entries(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="room cannot be taken in advance here")
def test_room_is_taken_when_an_array_is_created_not_when_it_is_filled(tmp_path, monkeypatch):
    def no_room(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    build = Builder()
    arrays, _ = cached_arrays("kind", KEY, build, root=tmp_path)
    monkeypatch.setattr(os, "posix_fallocate", no_room)
    with pytest.raises(CacheError, match="disk full"):
        cached_arrays("kind", {"other": 1}, build, root=tmp_path)
    assert arrays["x"].sum() == 15
    assert entries(tmp_path) == [digest(KEY)]


def test_other_errors_of_the_system_are_not_called_a_full_disk(tmp_path):
    def build(_):
        raise FileNotFoundError(errno.ENOENT, "gone", "photo.jpg")

    with pytest.raises(FileNotFoundError, match=r"photo\.jpg"):
        cached_arrays("kind", KEY, build, root=tmp_path)


def test_a_folder_that_cannot_be_made_says_what_to_do(tmp_path):
    (tmp_path / "kind").write_text("a file is in the way")
    with pytest.raises(CacheError, match=r"no cache can be kept in .*PROCKD_CACHE"):
        cached_arrays("kind", KEY, Builder(), root=tmp_path)


def test_what_another_process_finished_first_is_kept(tmp_path):
    first = Builder()

    def second(writer):
        cached_arrays("kind", KEY, first, root=tmp_path)
        writer.create("x", (2, 3), np.float32)[:] = -1
        return {}

    arrays, _ = cached_arrays("kind", KEY, second, root=tmp_path)
    assert arrays["x"].sum() == 15
    assert entries(tmp_path) == [digest(KEY)]


def test_many_at_once_all_get_the_whole_entry(tmp_path):
    sums = []
    threads = [
        threading.Thread(
            target=lambda: sums.append(cached_arrays("kind", KEY, Builder(), root=tmp_path)[0]["x"].sum()),
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sums == [15] * 8
    assert entries(tmp_path) == [digest(KEY)]


KILLED = """
import sys, time
from pathlib import Path
from prockd import cache
from prockd.cache import cached_arrays

def build(writer):
    writer.create("x", (2, 3), "f4")[0] = 7
    print("half", flush=True)
    time.sleep(60)

cached_arrays("kind", {"teacher": "abc", "layers": (1, 2)}, build, root=Path(sys.argv[1]))
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_killed_run_is_never_believed_and_the_next_run_sweeps_it_up(tmp_path):
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
    assert [left.startswith(".prockd-") for left in entries(tmp_path)] == [True]
    build = Builder()
    arrays, _ = cached_arrays("kind", KEY, build, root=tmp_path)
    assert build.calls == 1
    assert arrays["x"].sum() == 15
    assert entries(tmp_path) == [digest(KEY)]


def test_a_live_build_is_left_alone_however_old_it_looks(tmp_path):
    mine = Builder()

    def build(writer):
        under_way = entries(tmp_path)
        for name in under_way:
            os.utime(tmp_path / "kind" / name, (0, 0))
        cached_arrays("kind", {"other": 1}, mine, root=tmp_path)
        assert set(under_way) < set(entries(tmp_path))
        return mine(writer)

    cached_arrays("kind", KEY, build, root=tmp_path)
    assert entries(tmp_path) == sorted([digest(KEY), digest({"other": 1})])


def flipped(path: Path, place: int) -> None:
    """One bit of a file is another, and its date is as it was."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("name", ["x.npy", "meta.json"])
def test_no_flipped_bit_is_believed_wherever_it_is_and_the_entry_heals_itself(tmp_path, name):
    cached_arrays("kind", KEY, Builder(), root=tmp_path)
    path = tmp_path / "kind" / digest(KEY) / name
    for place in range(0, path.stat().st_size, 7):
        cache._verified.clear()  # as a new process begins
        build = Builder()
        flipped(path, place)
        with pytest.warns(RuntimeWarning, match="damaged cache entry is built again"):
            arrays, meta = cached_arrays("kind", KEY, build, root=tmp_path)
        assert build.calls == 1
        assert (arrays["x"].sum(), meta) == (15, {"made": "by test"})


def test_every_block_of_a_large_array_is_compared_but_once_a_process(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_BLOCK_BYTES", 64)

    def build(writer):
        writer.create("x", (1000,), np.uint8)[:] = 7
        return {}

    cached_arrays("kind", KEY, build, root=tmp_path)
    path, read = tmp_path / "kind" / digest(KEY) / "x.npy", []
    sums = cache._block_sums
    monkeypatch.setattr(cache, "_block_sums", lambda path: read.append(path) or sums(path))
    cached_arrays("kind", KEY, build, root=tmp_path)
    assert read == []
    flipped(path, 900)
    cache._verified.clear()
    with pytest.warns(RuntimeWarning, match=r"x\.npy is not what was written, block 14 of 18"):
        cached_arrays("kind", KEY, build, root=tmp_path)


def test_a_file_where_an_entry_should_be_is_damage_too(tmp_path):
    (tmp_path / "kind").mkdir()
    (tmp_path / "kind" / digest(KEY)).write_text("no folder")
    with pytest.warns(RuntimeWarning, match="damaged cache entry"):
        arrays, _ = cached_arrays("kind", KEY, Builder(), root=tmp_path)
    assert arrays["x"].sum() == 15


def test_a_name_that_is_no_text_has_a_digest():
    assert digest(["caf\udce9.jpg"]) != digest(["caf\udce8.jpg"])


def test_where_no_home_is_known_the_variable_is_named(monkeypatch):
    monkeypatch.delenv("PROCKD_CACHE", raising=False)
    monkeypatch.setattr(Path, "expanduser", lambda _: (_ for _ in ()).throw(RuntimeError("Could not determine home")))
    with pytest.raises(CacheError, match="set PROCKD_CACHE to a folder"):
        cache_root()
