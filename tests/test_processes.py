"""Several processes that share the images of a step, and what comes before the steps."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import draw_stripes
from PIL import Image

from prockd.training.processes import Processes


def test_a_step_without_an_image_for_each_process_is_refused_and_no_image_is_blamed():
    two = Processes(1, 2, torch.device("cpu"))
    assert list(range(5))[two.share(5)] == [1, 3]
    with pytest.raises(ValueError, match=r"1 images in a step for 2 processes: .* raise distill\.batch_size .* to 2"):
        two.share(1)


SMALL = [
    "student.image_px=32", "student.options.channels=[8, 16, 24, 32]", "distill.steps=3", "distill.batch_size=4",
    "distill.unlabelled_batch=0", "teacher.name=resnet10t", "teacher.random=true", "teacher.image_px=32",
    "teacher.layers=[1, 2]", "teacher.options={channels = [8, 16, 24, 32], stem_width = 8}",
    "discover.num_prototypes=4", "discover.embed_dim=8", "discover.steps=2", "data.num_discover=8",
]  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Sixteen labelled images, of which eight are to find prototypes on, and four to score on."""
    root = tmp_path_factory.mktemp("photos")
    for m, (image, label) in enumerate(zip(*draw_stripes(20), strict=True)):
        place = root / ("train" if m < 16 else "test") / ("upright", "level")[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{m:02d}.png")
    return root


def words(photos: Path, *more: str) -> list[str]:
    """Those that every command has here."""
    return ["--data", str(photos), "--cpu", "-q", *more, *(word for knob in SMALL for word in ("--set", knob))]


def launched(
    count: int, folder: Path, *command: str, **variables: str
) -> tuple[subprocess.CompletedProcess[str], list[int]]:
    """A command in so many processes, each of one thread, and how many images the teacher of each saw."""
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)] if count > 1 else []
    own = {**os.environ, "OMP_NUM_THREADS": "1", "PROCKD_CACHE": str(folder / "cache"), **variables}
    here = [*start, str(Path(__file__).with_name("counted_run.py")), str(folder)]
    done = subprocess.run([sys.executable, *here, *command], env=own, capture_output=True, text=True, check=False)
    return done, [int(path.read_text()) for path in sorted(folder.glob("*.seen"))]


def arrays_in(folder: Path) -> dict[str, bytes]:
    """What is cached of the teacher, by its place."""
    kinds = ("compact", "embedded", "directions")
    return {str(p.relative_to(folder)): p.read_bytes() for kind in kinds for p in folder.glob(f"{kind}/*/*.npy")}


@pytest.mark.slow
def test_two_processes_pass_half_of_the_images_each_and_keep_what_one_keeps_to_the_last_bit(photos, tmp_path):
    run = tmp_path / "run"
    done, seen = launched(2, tmp_path, "distill", *words(photos, "--run-dir", str(run), "--no-baseline"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((run / "results.json").read_text())["steps"] == 3
    assert seen == [4 * 3 + 8 * 2] * 2, "images by views: half of the eight, and of the sixteen"
    one = tmp_path / "one"
    for store in ([], ["--store", "embedded", "--bank", str(run / "bank.safetensors")]):
        done, _ = launched(1, one, "extract", *words(photos, *store))
        assert done.returncode == 0, done.stderr[-3000:]
    alone, together = arrays_in(one / "cache"), arrays_in(tmp_path / "cache")
    assert {path.partition("/")[0] for path in alone} == {"compact", "embedded", "directions"}
    assert {path: together.get(path) == content for path, content in alone.items()} == dict.fromkeys(alone, True)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills a process")
@pytest.mark.parametrize("doomed", [0, 1])
def test_of_a_killed_process_the_others_end_within_a_minute_in_words_and_the_run_goes_on(photos, tmp_path, doomed):
    command = ["distill", *words(photos, "--run-dir", str(tmp_path / "run"), "--no-baseline")]
    done, _ = launched(2, tmp_path, *command, KILL=f"{doomed}:{4 * 3 + 4}")  # in the second set
    assert done.returncode != 0
    assert time.time() - (tmp_path / "killed").stat().st_mtime < 60
    assert re.search(r"prockd: .*go on with: torchrun .*distill.*--resume", done.stderr), done.stderr[-3000:]
    done, seen = launched(2, tmp_path, *command, "--resume")
    assert done.returncode == 0, done.stderr[-3000:]
    assert max(seen) <= 8 * 2, "the first set was whole, and what was there is not passed again"
