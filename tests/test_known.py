"""A run knows its images; its folder, its files and its stops, as the command line meets them."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from prockd.cli import app
from prockd.locks import locked
from prockd.runs import run as run_module
from prockd.runs import run_experiment
from prockd.runs.folder import RunFolderError, begun_precision, run_config, start_run
from prockd.runs.known import KnownImages
from prockd.runs.run import scored
from prockd.runs.world import open_world
from prockd.students.student import Student
from prockd.training import loop
from prockd.writing import WriteError

SMALL = ["discover.num_prototypes=4", "discover.steps=2", "distill.batch_size=4", "student.image_px=32"]
SETS = [word for change in SMALL for word in ("--set", change)]


def photograph(place: Path, first: int, last: int) -> None:
    for name in "ab":
        (place / name).mkdir(parents=True, exist_ok=True)
        for number in range(first, last):
            pixels = np.random.default_rng([number, ord(name)]).integers(0, 255, (24, 24, 3), np.uint8)
            Image.fromarray(pixels).save(place / name / f"{number}.png")


def prockd(*words: str):
    done = CliRunner().invoke(app, list(words))
    return done.exit_code, " ".join(done.output.split())


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with photographs, a teacher's file and a finished run of two steps that learned from both."""
    home, before = tmp_path_factory.mktemp("home"), Path.cwd()
    os.chdir(home)
    try:
        photograph(Path("photos"), 0, 8)
        torch.manual_seed(0)
        torch.save(timm.create_model("resnet10t", num_classes=0).state_dict(), "teacher.pth")
        teacher = ["--teacher", "resnet10t", "--teacher-weights", "teacher.pth", "--set", "teacher.image_px=32"]
        words = ["--data", "photos", *teacher, "--steps", "2", "--run-dir", "r", "--cpu", "-q", "--no-baseline"]
        code, told = prockd("distill", *words, *SETS)
        assert code == 0, told
    finally:
        os.chdir(before)
    return home


@pytest.fixture
def home(trained, tmp_path, monkeypatch) -> Path:
    """A copy of it, which a test may change, and in which it is."""
    shutil.copytree(trained, tmp_path / "home")
    known = tmp_path / "home" / "r" / "images.json"
    known.write_text(known.read_text().replace(str(trained), str(tmp_path / "home")))
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


KNOWN = {"folders": {}, "image_px": 32, "classes": ["a", "b"], "sets": {"train": {"a/0.png": "0f"}, "test": {}}}


@pytest.mark.parametrize(
    ("text", "told"),
    [(json.dumps(KNOWN | {"image_px": 0}), "image_px is 0, not a whole number from 8"), (None, "no such file"),
     (json.dumps(KNOWN | {"sets": {"train": {}}}), "not a table with train and test"), ("[", "JSONDecodeError")],
)  # fmt: skip
def test_a_list_of_images_that_no_run_has_is_refused_by_name(tmp_path, text, told):
    path = tmp_path / "images.json"
    path.write_text(json.dumps(KNOWN))
    assert KnownImages.read(tmp_path).sets["train"] == {"a/0.png": "0f"}
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(RunFolderError, match=rf"images\.json is not a list of the images .*{told}.*begin a new run"):
        KnownImages.read(tmp_path)


@pytest.mark.parametrize("text", ["[", "[]", '{"precision": "fp8"}'])
def test_versions_that_no_run_has_are_refused_by_name(tmp_path, text):
    assert begun_precision(tmp_path) is None
    (tmp_path / "versions.json").write_text(text)
    with pytest.raises(RunFolderError, match=r"versions\.json is not .*start again with --overwrite"):
        begun_precision(tmp_path)


def test_an_image_is_known_by_its_pixels_and_annotations_whatever_its_name(home):
    world = open_world(KnownImages.read(Path("r")).untaught(run_config(Path("r"))), progress=False)
    images = world.images("train")
    assert len(set(images.hashes)) == len(images)
    assert images.select([2, 1]).hashes == (images.hashes[2], images.hashes[1])
    other = replace(images, labels=1 - images.labels)
    assert not set(other.hashes) & set(images.hashes)


def test_evaluate_needs_no_teacher_and_scores_as_the_run_did(home):
    told = json.loads(Path("r/results.json").read_text())["students"][0]["accuracy"]
    Path("teacher.pth").unlink()
    student, scores = scored("r", cpu=True, progress=False)
    assert scores.plain == told
    assert isinstance(student, Student)
    assert prockd("export", "r")[0] == 0


def test_after_images_were_added_a_run_is_scored_on_its_own_and_says_so(home):
    before = scored("r", cpu=True, progress=False)[1]
    photograph(Path("photos"), 8, 14)
    with pytest.warns(UserWarning, match="other images than when the run began: scored on the run's own"):
        after = scored("r", cpu=True, progress=False)[1]
    assert list(after.labels) == list(before.labels)
    assert after.plain == before.plain


def test_a_test_image_that_is_gone_or_has_changed_is_refused_by_name(home):
    name = next(iter(KnownImages.read(Path("r")).sets["test"]))
    Image.new("RGB", (24, 24), "grey").save(Path("photos", name))
    with pytest.raises(RunFolderError, match=f"1 of the run's .* test images are gone or have changed .{name}"):
        scored("r", cpu=True, progress=False)
    Path("photos", name).unlink()
    code, told = prockd("evaluate", "r", "--cpu", "-q")
    assert (code, "score on what is there now with --data" in told) == (2, True)


def test_from_another_folder_the_images_are_those_of_the_run_and_it_says_so(home, tmp_path, monkeypatch):
    before = scored("r", cpu=True, progress=False)[1]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    photograph(Path("photos"), 100, 108)
    with pytest.warns(UserWarning, match="home/photos, where the run found it"):
        after = scored(home / "r", cpu=True, progress=False)[1]
    assert after.plain == before.plain


def test_other_images_of_which_some_were_learned_are_scored_with_a_warning(home):
    shutil.copytree("photos", "moved")
    with pytest.warns(UserWarning, match=r"moved: the student learned from 12 of these 16 images"):
        scored("r", "moved", cpu=True, progress=False)


def begin() -> None:
    """A run that a callback stops after its first step."""
    config = run_config(Path("r"))
    shutil.rmtree("r")
    stop = (lambda step, row: True,)
    run_experiment(config, "r", cpu=True, progress=False, baseline=False, checkpoint_every=1, callbacks=stop)


def test_a_run_is_not_resumed_with_other_images(home):
    begin()
    photograph(Path("photos"), 8, 10)
    code, told = prockd("distill", "--run-dir", "r", "--resume", "--cpu", "-q", "--no-baseline")
    assert code == 2
    assert "photos holds other images than when r was begun (train: " in told
    assert " new (" in told
    for name in ("a/8.png", "a/9.png", "b/8.png", "b/9.png"):
        Path("photos", name).unlink()
    code, told = prockd("distill", "--run-dir", "r", "--resume", "--cpu", "-q", "--no-baseline")
    assert code == 0, told


def test_resume_with_an_option_goes_on_with_the_settings_of_the_run(home):
    config = run_config(Path("r"))
    shutil.rmtree("r")
    start_run(Path("r"), config)  # stopped before its first checkpoint
    code, told = prockd("distill", "--run-dir", "r", "--resume", "--steps", "300", "--cpu", "-q")
    assert (code, "begun with other settings (distill.steps was 2, is 300)" in told) == (2, True)
    assert run_config(Path("r")).data.path == "photos"


# What a person has made


@pytest.mark.parametrize("name", ["bank.safetensors", "config.toml", "student.safetensors", "figures/mine.png"])
def test_a_folder_with_files_of_no_run_is_refused_and_left_as_it_is(home, name):
    path = Path("mine", name)
    path.parent.mkdir(parents=True)
    path.write_text("# mine\n[distill]\nsteps = 7\n")
    code, told = prockd("distill", "--data", "photos", "--run-dir", "mine", "--cpu", "-q")
    assert (code, f"mine holds {name.split('/')[0]} of no run" in told) == (2, True)
    assert path.read_text() == "# mine\n[distill]\nsteps = 7\n"
    assert [p for p in Path("mine").rglob("*") if p.is_file()] == [path]


def test_settings_that_a_person_put_into_the_folder_stay_as_they_wrote_them(home):
    Path("mine").mkdir()
    text = "# my notes\n" + Path("r/config.toml").read_text()
    Path("mine/config.toml").write_text(text)
    start_run(Path("mine"), run_config(Path("mine")))
    assert Path("mine/config.toml").read_text() == text


def test_a_run_is_overwritten_with_its_own_bank_and_not_with_what_it_would_delete_first(home):
    before = load_file("r/bank.safetensors")
    words = ["--config", "r/config.toml", "--run-dir", "r", "--overwrite", "--cpu", "-q", "--no-baseline"]
    code, told = prockd("distill", *words, "--bank", "r/bank.safetensors")
    assert code == 0, told
    assert all(torch.equal(before[name], value) for name, value in load_file("r/bank.safetensors").items())
    student = Path("r/student.safetensors").read_bytes()
    code, told = prockd("distill", *words, "--student-weights", "r/student.safetensors")
    assert (code, "the run begins from its student.safetensors; move that first" in told) == (2, True)
    assert Path("r/student.safetensors").read_bytes() == student


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["discover", "--out", "x.safetensors"], "x.png"),
        (["adapt-teacher", "--data", "photos", "--out", "x.safetensors"], "x_bank.safetensors"),
        (["train-teacher", "--out", "x.safetensors"], "x.safetensors"),
        (["demo", "--run-dir", "."], "results.json"),
        (["export", "r", "--out", "."], "picture.py"),
    ],
)
def test_no_command_writes_over_a_file_unasked(home, words, name):
    Path(name).write_text("mine")
    code, told = prockd(*words)
    assert (code, f"{name} is there already" in told, "--overwrite" in told) == (2, True, True)
    assert Path(name).read_text() == "mine"
    assert "--overwrite" in prockd(words[0], "--help")[1]


# Locks, stops and full disks


def test_a_folder_in_which_a_process_works_is_refused_with_its_name(home):
    code = "import time; from pathlib import Path; from prockd.locks import locked\nwith locked(Path('r')):"
    code += " print('in', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "in\n"
    try:
        code, told = prockd("distill", "--config", "r/config.toml", "--run-dir", "r", "--overwrite", "--cpu", "-q")
        assert (code, f"process {other.pid} on " in told, "works there" in told) == (2, True, True)
        assert Path("r/student.safetensors").exists()
    finally:
        other.kill()
        other.communicate()
    told = f"process {other.pid}, which worked there, has died; its lock is taken"
    with pytest.warns(UserWarning, match=told), locked(Path("r")):
        pass
    assert not list(Path("r").glob(".lock*"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_waits_for_the_end_of_the_step_keeps_it_and_tells_the_command_to_go_on(home, monkeypatch, number, code):
    begin()
    Path("r/checkpoint.pt").unlink()
    inner, sent = loop.learning_rate, []

    def rate(step, config):
        if not sent:
            sent.append(os.kill(os.getpid(), number))
        return inner(step, config)

    monkeypatch.setattr(loop, "learning_rate", rate)
    words = ["distill", "--run-dir", "r", "--resume", "--cpu", "-q", "--no-baseline"]
    exit_code, told = prockd(*words)
    assert exit_code == code
    assert "prockd: stopped: r keeps the checkpoint of step 1 of 2; r keeps its settings, bank.safetensors; go" in told
    assert "prockd distill --run-dir r --cpu -q --no-baseline --resume" in told
    assert torch.load("r/checkpoint.pt", weights_only=True)["step"] == 1
    assert not list(Path("r").glob(".lock*"))
    monkeypatch.undo()
    monkeypatch.chdir(home)
    assert prockd(*words)[0] == 0


def test_a_stop_of_another_command_is_one_line_too(home, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("prockd.runs.run.scored", stop)
    code, told = prockd("evaluate", "r", "--cpu")
    assert code == 130
    assert told.endswith("go on with: prockd evaluate r --cpu")


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_a_full_disk_keeps_the_finished_student_elsewhere_and_the_run_goes_on(home, tmp_path, monkeypatch):
    config = run_config(Path("r"))
    full, usage = str(home), shutil.disk_usage

    def room(path):
        real = usage(path)
        return Usage(real.total, real.used, 1000) if str(path).startswith(full) and Path("r/full").exists() else real

    monkeypatch.setattr(shutil, "disk_usage", room)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    shutil.rmtree("r")
    how = {"cpu": True, "progress": False, "baseline": False}

    def fill(step, row):
        Path("r/full").touch()

    with pytest.raises(WriteError, match=r"kB were free.* The finished student is kept in (.*)") as told:
        run_experiment(config, "r", callbacks=(fill,), **how)
    place = Path(str(told.value).split(" is kept in ")[1])
    spared = Student.load(place)
    Path("r/full").unlink()
    done = run_experiment(config, "r", resume=True, **how)
    assert done.history.step == 2
    saved, own = spared.state_dict(), done.student.state_dict()
    assert all(torch.equal(saved[name], own[name]) for name in saved)


def test_checkpoints_are_kept_by_time_as_well_as_by_steps(home, monkeypatch):
    steps = []
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_S", -1)
    monkeypatch.setattr(loop, "save_checkpoint", lambda folder, parts, config, rows, step: steps.append(step))
    config = run_config(Path("r"))
    shutil.rmtree("r")
    run_experiment(config, "r", cpu=True, progress=False, baseline=False, checkpoint_every=1000)
    assert steps == [1, 2]
    assert run_module.KnownImages.read(Path("r")) is not None
