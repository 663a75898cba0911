"""Recipes for clusters and for streams of images, where the extra is installed: they keep what prockd itself keeps."""

import io
import os
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_stripes
from PIL import Image

from prockd.cli.options import read_settings
from prockd.datasets import ImageFolder
from prockd.prototypes.bank import PrototypeBank
from prockd.runs.world import open_world
from prockd.settings.experiment import ExperimentConfig
from prockd.settings.toml import set_values, write_config
from prockd.teachers import Teacher, extract_compact
from prockd.teachers.passes import Passes
from prockd.teachers.rows import Joined
from prockd.teachers.stored import SHARD

RECIPES = Path(__file__).parents[1] / "benchmarks" / "recipes"
TINY = "teacher.options={channels = [8, 8, 8, 8], stem_width = 8}"

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:the teacher resnet10t knows nothing:UserWarning")]


def run(recipe: str, cache: Path, *words: str) -> str:
    """What a recipe prints."""
    own = {"PROCKD_CACHE": str(cache), "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0",
           "RAY_ADDRESS": "local", "RAY_raylet_start_wait_time_s": "400"}  # fmt: skip
    roots = [str(RECIPES.parents[1]), *sys.path]
    done = subprocess.run(
        [sys.executable, str(RECIPES / recipe), *words], capture_output=True, text=True, check=False,
        env={**os.environ, **own, "PYTHONPATH": os.pathsep.join(filter(None, roots))},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed: pip install 'prockd[scale]'")
def test_two_actors_of_ray_make_the_shards_of_plain_extraction_and_others_read_them_as_one(tmp_path, monkeypatch):
    count = SHARD + 40  # two shards
    pixels = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), np.uint8)
    labels = np.arange(count) % 2
    np.savez(tmp_path / "data.npz", train_images=pixels, train_labels=labels, test_images=pixels[:4] // 2,
             test_labels=labels[:4])  # fmt: skip
    changes = [f"data.path={tmp_path / 'data.npz'}", "teacher.name=resnet10t", "teacher.random=true", TINY,
               "teacher.image_px=32", "teacher.layers=[1]", "discover.num_prototypes=4"]  # fmt: skip
    settings = write_config(set_values(ExperimentConfig(), changes), tmp_path / "settings.toml")
    printed = run("ray_data.py", tmp_path / "ray", str(settings), "--actors", "2")
    assert f"CompactFeatures({count} images, plain + mirrored + recoloured" in printed
    features = {}
    for name in ("plain", "ray"):
        monkeypatch.setenv("PROCKD_CACHE", str(tmp_path / name))
        features[name] = open_world(read_settings(settings, "best", None), progress=False).source
        monkeypatch.setattr(Passes, "look", None)  # nothing is left to be passed
    assert isinstance(features["ray"].codes, Joined)
    np.testing.assert_array_equal(features["ray"].directions, features["plain"].directions)
    for column in ("codes", "means", "logs"):
        np.testing.assert_array_equal(getattr(features["ray"], column)[:], getattr(features["plain"], column)[:])


@pytest.mark.skipif(find_spec("webdataset") is None, reason="webdataset is not installed: pip install 'prockd[scale]'")
def test_tar_shards_that_two_workers_decode_give_the_features_of_the_folder_they_were_made_of(tmp_path, monkeypatch):
    images, labels, teacher = *draw_stripes(12), Teacher("farmyard")
    names = ("upright", "level")
    for shard in range(3):
        with tarfile.open(tmp_path / f"photos-{shard}.tar", "w") as tar:
            for m in range(shard * 4, shard * 4 + 4):
                place = tmp_path / "photos" / names[labels[m]] / f"{m:02d}.png"
                place.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(images[m]).save(place)
                for suffix, content in (("png", place.read_bytes()), ("cls", str(labels[m]).encode())):
                    info = tarfile.TarInfo(f"{m:02d}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    folder = extract_compact(teacher, ImageFolder(tmp_path / "photos", classes=names), root=tmp_path, progress=False)
    out, shards = tmp_path / "bank.safetensors", str(tmp_path / "photos-{0..2}.tar")
    words = ("--classes", ",".join(names), "--out", str(out), "--num-prototypes", "4")
    printed = run("web_dataset.py", tmp_path / "cache", shards, *words)
    assert "CompactFeatures(12 images, plain + mirrored + recoloured" in printed
    assert PrototypeBank.load(out).teacher == teacher.fingerprint
    sys.path.insert(0, str(RECIPES))
    try:
        from web_dataset import TarShards
    finally:
        sys.path.remove(str(RECIPES))
    monkeypatch.setattr(Passes, "look", None)  # all is there
    streamed = extract_compact(teacher, TarShards(shards, names, workers=0), root=tmp_path / "cache", progress=False)
    row_of = {Path(id).stem: row for row, id in enumerate(folder.images.ids)}
    rows = [row_of[id] for id in streamed.images.ids]
    np.testing.assert_array_equal(streamed.images.pixels, folder.images.pixels[rows])
    np.testing.assert_array_equal(streamed.images.labels, folder.images.labels[rows])
    np.testing.assert_allclose(streamed.pooled(), folder.pooled()[rows], rtol=1e-3, atol=1e-4)
