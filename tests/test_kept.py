"""Looking through the cache, clearing and moving it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from prockd import writing
from prockd.cache import CacheError, cached_arrays
from prockd.cli import app
from prockd.kept import chosen, entries, move, remove, seconds

DAY = 24 * 3600


def build(writer):
    writer.create("x", (100,), np.float32)[:] = 1
    return {}


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """Two entries of images, one of them 40 days old, one of features, a build that runs, and a stranger's folder."""
    root = tmp_path / "cache"
    monkeypatch.setenv("PROCKD_CACHE", str(root))
    for kind, key in (("images", 1), ("images", 2), ("features", 1)):
        cached_arrays(kind, {"key": key}, build)
    old = entries()[-1].path / "meta.json"
    os.utime(old, (time.time() - 40 * DAY,) * 2)
    (root / "images" / writing.unfinished_name()).mkdir()
    (root / "letters" / "from home").mkdir(parents=True)
    (root / "letters" / "from home" / "meta.json").write_text("{}")
    return root


def others(root: Path) -> list[str]:
    return sorted(p.name for p in (*root.glob("images/.prockd-*"), *root.glob("letters/*")))


KILLED = """
import os, sys
from pathlib import Path
from prockd import kept
kept.shutil.rmtree = lambda *_, **__: os._exit(9)
kept.remove(kept.entries(Path(sys.argv[1])))
"""


def prockd(*words: str):
    return CliRunner().invoke(app, ["cache", *words])


def test_entries_are_listed_by_kind_with_size_and_age(root):
    assert [entry.kind for entry in entries()] == ["features", "images", "images"]
    assert entries()[0].bytes > 400
    assert entries()[2].age_s == pytest.approx(40 * DAY, abs=60)
    lines = prockd().output.splitlines()
    assert lines[-1].startswith("3 entries, 0.0 MB in ")
    assert any(line.split()[:2] == ["images", "2"] and line.split()[-1] == "40.0" for line in lines)


@pytest.mark.parametrize(
    ("words", "left"),
    [(["--kind", "images"], ["features"]), (["--older-than", "30d"], ["features", "images"]),
     (["--kind", "features", "--older-than", "30d"], ["features", "images", "images"]), (["--all"], [])],
)  # fmt: skip
def test_what_is_cleared_is_of_the_kind_and_age_that_were_said(root, words, left):
    before = others(root)
    assert prockd("clear", *words).exit_code == 0
    assert [entry.kind for entry in entries()] == left
    assert others(root) == before, "a build that runs and a stranger's folder are left alone"


def test_a_clearing_without_words_or_of_no_kind_is_refused(root):
    assert prockd("clear").exit_code == 2
    assert "--older-than, or --all" in " ".join(prockd("clear").output.split())
    assert "nothing of kind picture: it has features, images" in " ".join(
        prockd("clear", "--kind", "picture").output.split()
    )
    assert "is no age: write it as" in " ".join(prockd("clear", "--older-than", "long").output.split())
    assert len(entries()) == 3


def test_moved_entries_are_used_where_they_are_now(root, tmp_path, monkeypatch):
    before, place = others(root), tmp_path / "disk"
    assert prockd("move", str(place)).exit_code == 0
    assert (len(entries(root)), len(entries(place))) == (0, 3)
    assert others(root) == before
    monkeypatch.setenv("PROCKD_CACHE", str(place))
    assert cached_arrays("features", {"key": 1}, lambda _: pytest.fail("built again"))[0]["x"].sum() == 100, (
        "nothing is built again"
    )


def test_an_entry_that_cannot_be_moved_stays(root, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CacheError, match=r"cannot be moved to .*it is still there"):
        move(entries(), tmp_path / "file")
    assert len(entries()) == 3


def test_of_two_that_remove_an_entry_the_second_passes_over_it(root):
    found = entries()
    remove(found)
    remove(found)
    assert entries() == []


def test_ages_are_minutes_hours_days_and_weeks():
    assert [seconds(age) for age in ("90m", "1.5h", "2d", "1w")] == [5400, 5400, 2 * DAY, 7 * DAY]
    assert chosen([], older_than_s=5.0) == []


def test_what_a_killed_clearing_leaves_is_swept_up_by_the_next_build(root):
    assert subprocess.run([sys.executable, "-c", KILLED, str(root)], check=False).returncode == 9
    assert any(path.name.startswith(".prockd-") for path in (root / "features").iterdir())
    writing._swept.clear()
    cached_arrays("features", {"key": 3}, build)
    (entry,) = (root / "features").iterdir()
    assert not entry.name.startswith(".prockd-")
