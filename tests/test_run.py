"""A run from settings to a folder, and the command line around it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from html import unescape
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import torch
from conftest import draw_stripes
from PIL import Image
from typer.testing import CliRunner

from prockd.cli import app
from prockd.datasets import DatasetError
from prockd.evaluation.tables import table_cells
from prockd.prototypes.bank import PrototypeBank
from prockd.runs import RECIPES, Run, World, open_world, report, run_experiment, task_settings
from prockd.runs.folder import RunFolderError, start_run
from prockd.runs.report import alone_budget, results, run_verdict, student_rows
from prockd.runs.run import scored
from prockd.runs.world import make_teacher
from prockd.settings.experiment import FARMYARD, NO_TEACHER, ExperimentConfig
from prockd.settings.knobs import ConfigError
from prockd.settings.toml import set_values, write_config
from prockd.teachers import stored
from prockd.teachers.passes import Passes
from prockd.teachers.teacher import Teacher
from prockd.training import readings
from prockd.training.loop import Trainer

SMALL = [
    "student.image_px=32", "student.options.channels=[8, 16, 24, 32]", "distill.steps=4", "distill.batch_size=4",
    "teacher.name=resnet10t", "teacher.random=true", "teacher.image_px=32", "teacher.layers=[1, 2]",
    "teacher.options={channels = [8, 16, 24, 32], stem_width = 8}", "discover.num_prototypes=4", "discover.embed_dim=8",
    "discover.steps=2", "task.width=32",
]  # fmt: skip

pytestmark = [
    pytest.mark.filterwarnings("ignore:Tensorflow not installed:ImportWarning"),
    pytest.mark.filterwarnings("ignore:the teacher resnet10t knows nothing:UserWarning"),
]


@pytest.fixture(autouse=True)
def silence(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    """The same striped images as class folders, as images with masks, and as images with boxes."""
    root = tmp_path_factory.mktemp("own images é ポニー")
    images, labels = draw_stripes(16)
    for m, (image, label) in enumerate(zip(images, labels, strict=True)):
        subset = "train" if m < 12 else "val"
        places = [root / "classification" / subset / ("upright", "level")[label]]
        places += [root / "segmentation" / subset / "images", root / "detection" / subset / "images"]
        for place in places:
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{m:02d}.png")
        mask = np.full((32, 32), label, np.uint8)
        mask[:16] = 1 - label
        (root / "segmentation" / subset / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(root / "segmentation" / subset / "masks" / f"{m:02d}.png")
        notes = root / "detection" / subset / "annotations"
        notes.mkdir(exist_ok=True)
        name = ("upright", "level")[label]
        (notes / f"{m:02d}.xml").write_text(
            f"<annotation><filename>{m:02d}.png</filename><size><width>32</width><height>32</height></size>"
            f"<object><name>{name}</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>28</xmax><ymax>24</ymax></bndbox>"
            "</object></annotation>"
        )
    return {kind: str(root / kind) for kind in ("classification", "segmentation", "detection")}


def config_of(folders, kind="classification", *changes: str) -> ExperimentConfig:
    return set_values(ExperimentConfig(), [*SMALL, f"task.kind={kind}", f"data.path={folders[kind]}", *changes])


def opened(config: ExperimentConfig) -> World:
    """The world of these settings without its teacher, so that images are packed at the student's side, 32 px."""
    return open_world(set_values(config, ["teacher.name=none"]), progress=False)


def weights(folder) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "student.safetensors")


@pytest.fixture(scope="module")
def finished(folders, tmp_path_factory) -> Callable[[str], tuple[Run, Path]]:
    """The finished run of a task and its folder, trained once for all tests that only read it."""

    @cache
    def run_of(kind: str) -> tuple[Run, Path]:
        size = 64 if kind == "detection" else 32  # a detector's pyramid needs more than one place in its coarsest map
        folder = tmp_path_factory.mktemp(kind)
        config = config_of(folders, kind, f"student.image_px={size}")
        return run_experiment(config, folder, cpu=True, progress=False), folder

    return run_of


@pytest.mark.parametrize("kind", ["classification", "segmentation", "detection"])
def test_a_run_of_each_task_works_from_files_alone_and_keeps_everything(finished, kind):
    run, folder = finished(kind)
    told = json.loads((folder / "results.json").read_text())
    assert [row["prediction"] for row in told["students"]] == ["plain z", "augmented z+"]
    assert told["students"][0][run.scores.metric] == run.scores.plain
    assert told["students"][1]["parameters"] > told["students"][0]["parameters"] > 0
    assert told["images"] == {"train": 12, "test": 4, "source": 12}
    assert [row["class"] for row in told["classes"]] == list(run.world.task.classes)
    without_parts = {"clarity", "redundancy", "polysemanticity", "in_one_image", "stability", "mirror", "noise"}
    assert without_parts >= set(told["prototypes"]) >= {"clarity", "stability"}
    versions = json.loads((folder / "versions.json").read_text())
    assert torch.__version__.startswith(versions["torch"])
    assert versions["seed"] == 0
    html = (folder / "report.html").read_text()
    assert html.count("<img") >= 4
    assert ("Which parts speak for a class" in html) is (kind == "classification")  # in closed form they have classes
    assert {f"prototypes_{n}.png" for n in (1, 2)} <= {path.name for path in (folder / "figures").iterdir()}
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 3
    again = scored(folder, cpu=True, progress=False)[1]
    assert (again.plain, again.augmented) == (run.scores.plain, run.scores.augmented)


def test_a_stopped_run_goes_on_to_the_same_weights(folders, tmp_path):
    config = config_of(folders, "classification", "distill.steps=21")
    how = {"cpu": True, "progress": False, "baseline": False}
    whole = run_experiment(config, tmp_path / "whole", **how)
    stopped = run_experiment(config, tmp_path / "two", callbacks=(lambda step, row: step >= 10,), **how)
    assert stopped.history.stopped
    assert not (tmp_path / "two" / "results.json").exists()
    with pytest.raises(RunFolderError, match="unfinished run: go on with --resume"):
        start_run(tmp_path / "two", config)
    with pytest.raises(RunFolderError, match=r"other settings \(distill\.lr was 0\.016, is 0\.5\)"):
        start_run(tmp_path / "two", set_values(config, ["distill.lr=0.5"]), resume=True)
    resumed = run_experiment(config, tmp_path / "two", resume=True, **how)
    assert resumed.scores.plain == whole.scores.plain
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "two")
    assert all(torch.equal(first[name], second[name]) for name in first)
    with pytest.raises(RunFolderError, match="finished run: choose another --run-dir, or --overwrite"):
        start_run(tmp_path / "two", config)
    (tmp_path / "two" / "checkpoint.pt").unlink()
    with pytest.raises(RunFolderError, match="finished run"):
        start_run(tmp_path / "two", config)
    start_run(tmp_path / "two", config, overwrite=True)
    assert sorted(p.name for p in (tmp_path / "two").iterdir() if p.is_file()) == ["config.toml", "versions.json"]


def test_a_teacher_of_random_weights_is_refused_unless_it_is_asked_for(folders):
    with pytest.raises(ConfigError, match=r"would know nothing, .* pass --teacher-weights FILE, .* --random-teacher"):
        make_teacher(set_values(ExperimentConfig(), ["teacher.name=resnet18"]).teacher)
    with pytest.warns(UserWarning, match="the teacher resnet18 knows nothing, its weights are random"):
        make_teacher(set_values(ExperimentConfig(), ["teacher.name=resnet18", "teacher.random=true"]).teacher)


def test_without_a_teacher_the_student_learns_from_labels_alone(folders, tmp_path):
    run = run_experiment(config_of(folders, "classification", "teacher.name=none"), tmp_path, cpu=True, progress=False)
    assert (run.bank, run.world.teacher, run.scores.augmented, run.alone) == (None, None, None, None)
    told = json.loads((tmp_path / "results.json").read_text())
    assert len(told["students"]) == 1
    assert told["verdict"]["sentence"].startswith("There was no teacher: the student learned from labels alone.")
    assert not (tmp_path / "baseline").exists()


# Did the teacher help?


def report_of(folder: Path) -> str:
    """The text of a run's report."""
    html = re.sub(r"<img[^>]*>", "", (folder / "report.html").read_text())
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


@pytest.mark.parametrize("kind", ["classification", "segmentation", "detection"])
def test_each_run_says_whether_its_teacher_helped_in_results_and_report(finished, kind):
    run, folder = finished(kind)
    told = json.loads((folder / "results.json").read_text())["verdict"]
    alone, metric = run.alone.scores, run.scores.metric
    assert told["labels alone"] == alone.plain
    assert told["students"]["z"]["change"] == run.scores.plain - alone.plain
    assert told["students"]["z+"][metric] == run.scores.augmented
    trivial = {"classification": ["always level"], "segmentation": ["all background", "mean mask"]}
    assert [name for name in told["floors"] if "chance" not in name] == trivial.get(kind, ["mean boxes"])
    assert "4 test images are too few for an interval" in told["sentence"], "nothing is concluded from four images"
    report = report_of(folder)
    assert " ".join(told["sentence"].split()) in report
    assert " ".join(told["labels alone were"].split()) in report


def test_labels_alone_have_the_same_start_steps_images_and_order(folders, tmp_path, monkeypatch):
    starts, seen, inner = [], [], Trainer.run

    def run(self, *words, **options):
        parts = ("backbone", "adapter", "head")
        state = {n: t.clone() for n, t in self.learner.student.state_dict().items() if n.startswith(parts)}
        starts.append(state)
        seen.append([self.labelled.rows(self.config.batch_size, self.config.seed, step).tolist() for step in range(4)])
        assert self.labelled.images.image_px == 48
        return inner(self, *words, **options)

    monkeypatch.setattr(Trainer, "run", run)
    monkeypatch.setattr(report, "finish_run", lambda *_: None)
    config = config_of(folders, "classification", "distill.seed=3", "teacher.image_px=48")
    done = run_experiment(config, tmp_path, cpu=True, progress=False)
    assert (done.history.step, done.alone.step) == (4, 4)
    assert seen[0] == seen[1]
    assert all(torch.equal(starts[0][name], starts[1][name]) for name in starts[0])
    columns = ["step", "lr", "seconds", "loss", "task"]
    assert list(done.alone.rows[-1]) == columns, "no term of a teacher"
    steps = zip(done.history.rows, done.alone.rows, strict=True)
    assert all(ours["step"] == theirs["step"] for ours, theirs in steps)


@pytest.fixture(scope="module")
def without_baseline(folders, tmp_path_factory) -> tuple[Path, str]:
    """The folder of a run that the command line made without labels alone, asked for unlabelled images; its words."""
    folder, costs = tmp_path_factory.mktemp("open"), iter(range(1, 9))
    small = [*SMALL, "distill.unlabelled_batch=2"]
    words = ["--data", folders["classification"], "--cpu", "-q", *(w for change in small for w in ("--set", change))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "milliseconds", lambda student: (next(costs), next(costs)))
        done = prockd("distill", *words, "--run-dir", str(folder), "--no-baseline")
    assert done.exit_code == 0, done.output
    return folder, " ".join(done.output.split())


def test_without_a_baseline_the_question_is_open_and_told_so(without_baseline):
    folder, printed = without_baseline
    told = json.loads((folder / "results.json").read_text())["verdict"]
    assert (told["labels alone"], told["students"]["z"]["change"]) == (None, None)
    assert told["sentence"].startswith("Open whether the teacher helped: labels alone were not trained beside it")
    assert told["sentence"] in report_of(folder)
    assert told["sentence"] in printed
    assert not (folder / "baseline").exists()


def test_a_run_stopped_while_labels_alone_learn_goes_on_there_and_ends_alike(folders, tmp_path, monkeypatch):
    calls, finished = [], []
    monkeypatch.setattr(report, "finish_run", lambda run, folder: finished.append(run_verdict(run).numbers()))
    config = config_of(folders, "classification", "distill.steps=21")
    whole = run_experiment(config, tmp_path / "whole", cpu=True, progress=False)

    def in_the_second(step: int, row: dict[str, float]) -> bool:
        calls.append(step)
        return calls.count(10) == 2

    stopped = run_experiment(config, tmp_path / "two", cpu=True, progress=False, callbacks=(in_the_second,))
    assert (stopped.history.step, stopped.alone.step, stopped.alone.stopped) == (21, 11, True)
    assert (tmp_path / "two" / "student.safetensors").is_file(), "what was trained is there already"
    assert len(finished) == 1, "a stopped run has no results yet"
    done, inner = [], Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda self, step, feed=None: done.append(step) or inner(self, step, feed))
    resumed = run_experiment(config, tmp_path / "two", resume=True, cpu=True, progress=False)
    assert done == list(range(11, 21)), "no step is taken twice, of neither student"
    assert resumed.alone.scores.plain == whole.alone.scores.plain
    first, second = (weights(tmp_path / name / "baseline") for name in ("whole", "two"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert finished[0] == finished[1]
    start_run(tmp_path / "two", config, overwrite=True)
    assert list((tmp_path / "two" / "baseline").iterdir()) == []


def test_a_number_has_one_value_in_results_report_and_terminal(without_baseline):
    folder, printed = without_baseline
    rows = json.loads((folder / "results.json").read_text())["students"]
    assert [row["ms an image"] for row in rows] == [1, 2], "measured once"
    for cells in table_cells(rows)[1]:
        assert " ".join(cells) in printed
        assert " ".join(cells) in report_of(folder)


# Unlabelled images of one's own


def test_a_folder_unlabelled_is_found_and_serves_transfer_and_discovery(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "finish_run", lambda *_: None)
    shutil.copytree(folders["classification"], tmp_path / "photos")
    for m, image in enumerate(draw_stripes(40)[0][20:]):
        place = tmp_path / "photos" / "unlabelled" / f"june {m % 3}" / f"{m}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place)
    config = config_of(folders, "classification", f"data.path={tmp_path / 'photos'}", "distill.unlabelled_batch=3")
    run = run_experiment(config, tmp_path / "run", cpu=True, progress=False)
    world = run.world
    assert (len(world.images("unlabelled")), len(world.images("train"))) == (20, 12)
    assert world.images("source").ids == world.images("unlabelled").ids
    assert (world.images("unlabelled").labels == -1).all()
    assert world.task.names == ("level", "upright"), "the folder is no class"
    rows, verdict = student_rows(run.student, run.scores), run_verdict(run)
    told = results(run, rows, verdict)
    assert (told["unlabelled"], told["images"]["source"], world.unlabelled_note) == ("3 images a step", 20, "")
    few = open_world(set_values(config, ["data.num_unlabelled=7"]), cpu=True, progress=False)
    assert len(few.images("unlabelled")) == 7


def test_fewer_unlabelled_than_labelled_images_serve_transfer_alone(folders, tmp_path):
    shutil.copytree(folders["detection"], tmp_path / "photos")
    (tmp_path / "photos" / "unlabelled").mkdir()
    Image.fromarray(draw_stripes(40)[0][30][:, :20]).save(tmp_path / "photos" / "unlabelled" / "x.png")
    world = open_world(config_of(folders, "detection", f"data.path={tmp_path / 'photos'}"), cpu=True, progress=False)
    assert len(world.images("unlabelled")) == 1
    assert world.images("source") is world.images("train")
    frame = world.images("unlabelled").frames[0].tolist()
    assert frame == [-6, 0, 26, 32], "with bars beside it, as the images with boxes have them"


def test_labelled_images_that_serve_as_unlabelled_ones_are_told(without_baseline):
    folder, _ = without_baseline
    again = "No unlabelled images were found: the labelled ones were used again, 2 a step."
    assert again in report_of(folder)
    assert json.loads((folder / "results.json").read_text())["unlabelled"] == again


def test_where_closed_forms_read_some_of_the_labelled_images_the_report_says_so(folders, monkeypatch):
    world = open_world(config_of(folders, "classification"), cpu=True, progress=False)
    bank = PrototypeBank(4, 8, 6)
    assert "fitted to" not in report._data(world, bank).text
    monkeypatch.setattr(readings, "WIDEST", 23)
    monkeypatch.setattr(readings, "MOST_LABELLED", 5)
    told = "Readings of part maps, 24 values an image, are fitted to 5 of the labelled images, drawn at random."
    assert told in report._data(world, bank).text
    assert "fitted to" not in report._data(world, None).text


def test_a_recipe_falls_back_where_no_unlabelled_images_are_found_and_says_so(folders, tmp_path, monkeypatch):
    recipe = RECIPES["classification"]
    distill = recipe.distill.replace(batch_size=4, unlabelled_batch=3)
    monkeypatch.setitem(RECIPES, "classification", replace(recipe, distill=distill))
    monkeypatch.setattr(report, "finish_run", lambda *_: None)
    config = config_of(folders, "classification", "distill.unlabelled_batch=3")
    run = run_experiment(config, tmp_path, cpu=True, progress=False)
    assert (run.world.config.distill.batch_size, run.world.config.distill.unlabelled_batch) == (7, 0)
    told = "No unlabelled images were found: the recipe without them was used, 7 labelled ones a step."
    assert run.world.unlabelled_note == told
    assert "of as many images (7, all labelled)" in alone_budget(run)


def test_an_unlabelled_image_that_is_bad_or_one_to_be_scored_on_is_refused_by_name(folders, tmp_path):
    shutil.copytree(folders["classification"], tmp_path / "photos")
    config = config_of(folders, "classification", f"data.path={tmp_path / 'photos'}")
    more = tmp_path / "photos" / "unlabelled"
    more.mkdir()
    with pytest.raises(DatasetError, match="unlabelled holds no images"):
        opened(config)
    (more / "bad.png").write_bytes(b"no picture")
    with pytest.raises(DatasetError, match=r"unlabelled/bad\.png: cannot be read"):
        opened(config)
    shutil.copy(next((tmp_path / "photos" / "val" / "level").iterdir()), more / "bad.png")
    with pytest.raises(DatasetError, match=r"unlabelled/bad\.png: is the same file as .* in test"):
        opened(config)
    shutil.copy(next((tmp_path / "photos" / "train" / "level").iterdir()), more / "bad.png")
    assert len(opened(config).images("unlabelled")) == 1, "a training image may be there too"


def test_a_folder_without_a_test_part_is_divided_and_few_labels_are_few(folders):
    path = f"{folders['classification']}/train"
    world = opened(config_of(folders, "classification", f"data.path={path}", "data.per_class=2"))
    train, test = world.images("train"), world.images("test")
    assert (len(train), len(test)) == (4, 4)
    assert not set(train.ids) & set(test.ids)
    assert np.bincount(train.labels).tolist() == [2, 2]


def test_bad_images_are_skipped_only_when_asked(folders, tmp_path):
    for m, image in enumerate(draw_stripes(6)[0]):
        folder = tmp_path / "photos" / "ab"[m % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{m}.png")
    (tmp_path / "photos" / "a" / "bad.png").write_bytes(b"no picture")
    config = config_of(folders, "classification", f"data.path={tmp_path / 'photos'}")
    with pytest.raises(ValueError, match=r"bad\.png"):
        opened(config)
    with pytest.warns(UserWarning, match=r"1 of 7 images are skipped: a/bad\.png"):
        world = opened(set_values(config, ["data.on_bad=skip"]))
    assert len(world.images("train")) + len(world.images("test")) == 6


def test_the_same_image_in_both_parts_or_twice_in_one_that_is_divided_is_never_learned_and_scored_on(folders, tmp_path):
    train = Path(folders["classification"]) / "train"
    shutil.copytree(train, tmp_path / "whole")
    shutil.copy(tmp_path / "whole" / "level" / "01.png", tmp_path / "whole" / "level" / "99.png")
    with pytest.warns(UserWarning, match=r"1 of 13 images are there twice and used once: level/99\.png"):
        world = opened(config_of(folders, "classification", f"data.path={tmp_path / 'whole'}"))
    assert len(world.images("train")) + len(world.images("test")) == 12
    both = config_of(folders, "classification", f"data.path={train}", f"data.test={tmp_path / 'whole'}")
    with pytest.raises(ValueError, match=r"(?s)13 bad entries.*is the same file as .* in train.*and 8 more"):
        opened(both)


def test_masks_of_0_and_255_mean_the_same_in_another_folder(folders, tmp_path):
    for part in ("train", "val"):
        shutil.copytree(Path(folders["segmentation"]) / part, tmp_path / part)
        for file in (tmp_path / part / "masks").glob("*.png"):
            Image.fromarray(np.asarray(Image.open(file)) * np.uint8(255)).save(file)
    parts = (f"data.path={tmp_path / 'train'}", f"data.test={tmp_path / 'val'}")
    world = opened(config_of(folders, "segmentation", *parts))
    assert world.images("test").classes == ("background", "object")
    assert [np.unique(world.images(part).masks).tolist() for part in ("train", "test")] == [[0, 1], [0, 1]]
    config = config_of(folders, "segmentation", *parts)
    run_experiment(config, tmp_path / "run", cpu=True, progress=False)
    own, other = (scored(tmp_path / "run", data, cpu=True, progress=False)[1] for data in (None, str(tmp_path / "val")))
    assert own.per_class.tolist() == other.per_class.tolist()


def test_class_names_can_be_given_with_the_settings(folders):
    given = config_of(folders, "segmentation", "data.classes=sky, ground")
    assert opened(given).images("train").classes == ("sky", "ground")


# The command line


def prockd(*words: str):
    return CliRunner().invoke(app, list(words))


def test_the_commands_train_score_and_export_as_the_library_does(folders, finished, tmp_path):
    sets = [word for change in SMALL for word in ("--set", change)]
    done = prockd("distill", "--data", folders["classification"], "--run-dir", str(tmp_path), "--cpu", "-q", *sets)
    assert done.exit_code == 0, done.output
    assert "augmented z+" in done.output
    first, second = weights(tmp_path), weights(finished("classification")[1])
    assert all(torch.equal(first[name], second[name]) for name in first)
    told = json.loads(prockd("evaluate", str(tmp_path), "--json", "--cpu", "-q").stdout)
    row = json.loads((tmp_path / "results.json").read_text())["students"][0]
    assert told["students"][0]["accuracy"] == row["accuracy"]
    other = prockd("evaluate", str(tmp_path), "--data", f"{folders['classification']}/val", "--classes", "--cpu", "-q")
    assert "upright" in other.output
    done = prockd("export", str(tmp_path))
    assert done.exit_code == 0, done.output
    assert (tmp_path / "export" / "timm" / "load_student.py").is_file()
    done = prockd("export", str(tmp_path), "--augmented", "--out", str(tmp_path / "plus"))
    assert done.exit_code == 0, done.output
    assert {"part_maps.safetensors", "part_maps.py"} <= {path.name for path in (tmp_path / "plus").iterdir()}


def test_extract_and_discover_write_a_bank_that_distill_takes(folders, tmp_path):
    words = ["--data", folders["classification"], "--cpu", "-q", *(w for change in SMALL for w in ("--set", change))]
    assert "12 images, plain + mirrored + recoloured" in prockd("extract", *words).output
    done = prockd("discover", *words, "--num-prototypes", "5", "--out", str(tmp_path / "bank.safetensors"))
    assert "5 prototypes" in done.output
    assert (tmp_path / "bank.png").is_file()
    again = prockd("discover", *words, "--out", str(tmp_path / "bank.safetensors"))
    assert (again.exit_code, "--overwrite" in again.output) == (2, True)
    done = prockd(
        "distill",
        *words,
        "--bank",
        str(tmp_path / "bank.safetensors"),
        "--run-dir",
        str(tmp_path / "run"),
        "--no-baseline",
    )
    assert done.exit_code == 0, done.output
    assert safetensors.torch.load_file(tmp_path / "run" / "bank.safetensors")["prototypes"].shape == (5, 8)


def test_what_is_kept_of_the_teacher_is_told_in_bytes_and_refused_with_numbers_before_it_runs(
    folders, tmp_path, monkeypatch
):
    monkeypatch.setenv("PROCKD_CACHE", str(tmp_path / "cache"))
    words = ["--data", folders["classification"], "--cpu", *(w for change in SMALL for w in ("--set", change))]
    words += ["--run-dir", str(tmp_path / "run"), "--set", "data.num_discover=6"]  # the students' set is another one
    told = prockd("distill", *words, "--set", "distill.store=embedded", "--no-baseline")
    assert told.exit_code == 0, told.output
    for kind, count in (("compact", 6), ("embedded", 12)):
        assert re.search(rf"{kind}: [\d,]+ MB for {count} images \(\d+ kB each\), [\d,]+ MB are free", told.output)
    maps = [np.load(path, mmap_mode="r") for path in (tmp_path / "cache" / "features").glob("*/*.npy")]
    assert {len(layer) for layer in maps} == {6}, "those of six images that the report shows, and no others"
    refused = prockd(
        "distill", *words, "--overwrite", "--set", "distill.store=embedded", "--set", "distill.hint_weight=1.0"
    )
    assert (refused.exit_code, "store='embedded' keeps patches in the space" in refused.output) == (2, True)
    monkeypatch.setattr(stored.shutil, "disk_usage", lambda place: SimpleNamespace(total=10**9, used=0, free=100_000))
    monkeypatch.setattr(Passes, "look", None)  # it would not run
    full = prockd("distill", *words, "--overwrite", "--set", "discover.embed_dim=64")
    assert full.exit_code == 2
    need = r"disk full: embedded of 12 images need [\d.e-]+ GB \(\d+ kB each\), and 0.0001 GB are free .*store = none"
    assert re.search(need, " ".join(full.output.split()))


def test_a_bank_of_a_former_teacher_is_refused_by_name_with_what_to_do(folders, tmp_path):
    """The shipped teacher was replaced once: prototypes of the old one mean nothing to the new one."""
    old, run = PrototypeBank(4, 40, 8, teacher="4a3d8f91" * 2).save(tmp_path / "old.safetensors"), tmp_path / "run"
    words = ["--data", folders["classification"], "--cpu", "-q", *(w for change in SMALL for w in ("--set", change))]
    done = prockd("distill", *words, "--bank", str(old), "--run-dir", str(run))
    assert done.exit_code != 0
    told = " ".join(done.output.split())
    assert "old.safetensors holds prototypes of another teacher (4a3d8f91)" in told
    assert "find them anew, in a new --run-dir and without --bank" in told
    assert not run.exists(), "nothing is written before what may be refused was read"
    config = config_of(folders, "classification")
    start_run(run, config)
    shutil.copy(old, run / "bank.safetensors")
    (run / "checkpoint.pt").touch()  # as if stopped before the teacher was replaced
    again = prockd("distill", *words, "--resume", "--run-dir", str(run))
    assert "run/bank.safetensors holds prototypes of another teacher" in " ".join(again.output.split())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["distill", "--data", "nowhere"], "nowhere does not exist"),
        (["distill", "--teacher", "dinov2_smal"], "did you mean one of dinov2_small"),
        (
            ["distill", "--teacher", "resnet10t", "--teacher-weights", "none.safetensors"],
            "no weights at none.safetensors",
        ),
        (["distill", "--set", "distill.stpes=3"], "did you mean distill.steps"),
        (["distill", "--task", "guess"], "choose one of 'classification'"),
        (["distill", "--config", "none.toml"], "none.toml is not a TOML file that can be read (no such file"),
        (["evaluate", "nowhere"], "nowhere is no run folder"),
        (["extract", "--teacher", "none"], "there is nothing to extract"),
        (["distill", "--data", "photos", "--set", "student.image_px=32"], "there is one class, 'cats'"),
        (["distill", "--data", "voc"], "it looks like PASCAL VOC, for detection (task='detection', --task detection)"),
        (["evaluate", "unfinished"], "unfinished has no student yet: finish it with `prockd distill --run-dir unf"),
        (["export", "unfinished"], "unfinished has no student yet"),
        (["unpack", "photos.zip", "new"], "member '../cat.png' would be written outside of the folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_users_mistake_is_one_line_and_exit_code_2(words, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photos/cats").mkdir(parents=True)
    Path("voc/annotations").mkdir(parents=True)
    for number, place in enumerate(("photos/cats/a.png", "photos/cats/b.png", "voc/a.png")):
        Image.fromarray(np.full((40, 40, 3), 90 + number, np.uint8)).save(place)
    Path("voc/annotations/a.xml").write_text("<annotation></annotation>")
    write_config(ExperimentConfig(), "unfinished/config.toml")
    with zipfile.ZipFile("photos.zip", "w") as archive:
        archive.writestr("../cat.png", b"")
    done = prockd(*words)
    assert done.exit_code == 2
    assert told in done.output
    assert "Traceback" not in done.output
    debugged = prockd("--debug", *words)
    assert isinstance(debugged.exception, Exception)
    assert told in str(debugged.exception)


@pytest.mark.filterwarnings("default")
def test_what_was_skipped_is_told_in_one_line_without_a_place_in_the_code(folders, tmp_path):
    shutil.copytree(folders["classification"], tmp_path / "photos")
    (tmp_path / "photos" / "val" / "level" / "bad.png").write_bytes(b"no picture")
    words = ["--data", str(tmp_path / "photos"), "--cpu", "-q", *(w for change in SMALL for w in ("--set", change))]
    refused = prockd("distill", *words, "--run-dir", str(tmp_path / "run"))
    assert (refused.exit_code, "bad.png" in refused.output, "data.on_bad=skip" in refused.output) == (2, True, True)
    done = prockd("extract", *words, "--set", "data.on_bad=skip")
    assert done.exit_code == 0, done.output
    assert "prockd: 1 of 5 images are skipped: level/bad.png\n" in done.output
    assert "UserWarning" not in done.output


def test_an_archive_is_unpacked_and_can_be_checked(folders, tmp_path):
    shutil.make_archive(str(tmp_path / "photos"), "zip", folders["classification"])
    told = prockd("check-data", str(tmp_path / "photos.zip"))
    assert (told.exit_code, "prockd unpack" in told.output) == (1, True)
    done = prockd("unpack", str(tmp_path / "photos.zip"), str(tmp_path / "new"), "-q")
    assert (done.exit_code, f"next: prockd check-data {tmp_path / 'new'}" in done.output) == (0, True)
    assert prockd("check-data", str(tmp_path / "new"), "-q").exit_code == 0


def test_check_data_tells_what_is_wrong_and_its_exit_code_says_so(folders, tmp_path):
    good = prockd("check-data", folders["detection"], "-q")
    assert (good.exit_code, "PASCAL VOC" in good.output) == (0, True)
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "bad.png").write_bytes(b"no picture")
    for words in ([], ["--all"]):
        bad = prockd("check-data", str(tmp_path), "-q", *words)
        assert (bad.exit_code, "bad.png" in bad.output) == (1, True)


def test_a_teacher_is_adapted_to_a_folder_and_then_named_by_its_file(folders, tmp_path):
    data, out = folders["classification"], str(tmp_path / "adapted.safetensors")
    small = ["steps=1", "batch_size=2", "image_px=48", "crop_px=40", "num_prototypes=4", "start_images=4", "aligned=4"]
    words = ["--data", data, "--out", out, "--cpu", "-q", *(word for knob in small for word in ("--set", knob))]
    done = prockd("adapt-teacher", *words, "--group", "^[^/]+")
    assert done.exit_code == 0, done.output
    assert "'farmyard' to 12 images of 2 groups; PrototypeBank(4 prototypes" in done.output
    again = prockd("adapt-teacher", *words)
    assert (again.exit_code, "is there already" in again.output) == (2, True)
    bank = PrototypeBank.load(tmp_path / "adapted_bank.safetensors")
    assert bank.teacher == Teacher(out).fingerprint
    read = prockd("extract", "--data", data, "--teacher", out, "--cpu", "-q")
    assert read.exit_code == 0, read.output
    assert "CompactFeatures(12 images" in read.output
    wrong = prockd("adapt-teacher", *words, "--overwrite", "--set", "zom=1")
    assert (wrong.exit_code, "Did you mean 'zoom'?" in wrong.output) == (2, True)
    nobody = prockd("adapt-teacher", *words, "--overwrite", "--teacher", "none")
    assert (nobody.exit_code, "nothing to adapt" in nobody.output) == (2, True)


@pytest.mark.parametrize("command", ["extract", "discover", "distill", "evaluate", "export", "demo", "check-data",
                                     "unpack", "train-teacher", "adapt-teacher"])  # fmt: skip
def test_each_command_helps_with_an_example(command):
    told = prockd(command, "--help")
    assert told.exit_code == 0
    assert f"prockd {command} " in told.output.split("─╯")[-1]
    assert command in prockd("--help").output


def test_the_table_of_presets_names_the_teacher_that_ships_and_the_others():
    told = prockd("presets")
    assert told.exit_code == 0
    assert "farmyard" in told.output
    assert "vit_small_patch14_dinov2.lvd142m" in told.output


@pytest.mark.slow
def test_two_processes_started_by_torchrun_write_one_run(folders, tmp_path):
    sets = [word for change in SMALL for word in ("--set", change)]
    launch = "-m torch.distributed.run --standalone --nproc_per_node 2 -m prockd distill"
    words = ["--data", folders["classification"], "--run-dir", str(tmp_path), "--cpu", "-q", *sets]
    done = subprocess.run(
        [sys.executable, *launch.split(), *words], capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "results.json").read_text())["steps"] == 4


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs a group of processes")
def test_ctrl_c_under_torchrun_is_one_line_with_what_is_kept_and_the_command_to_go_on(folders, tmp_path):
    sets = [word for change in (*SMALL, "distill.steps=100000") for word in ("--set", change)]
    launch = "-m torch.distributed.run --standalone --nproc_per_node 2 -m prockd distill --checkpoint-every 1"
    words = ["--data", folders["classification"], "--run-dir", str(tmp_path / "r"), "--cpu", "-q", *sets]
    command = [sys.executable, *launch.split(), *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        began = time.monotonic()
        while not (tmp_path / "r" / "checkpoint.pt").exists() and time.monotonic() - began < 400:
            time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)
        told = [line for line in process.communicate()[1].splitlines() if line.startswith("prockd: ")]
    assert len([line for line in told if "stopped" in line]) == 1, told
    assert "keeps the checkpoint of step" in told[-1]
    assert "torchrun --standalone --nproc_per_node 2 -m prockd distill" in told[-1]
    assert told[-1].endswith("--resume")
    assert not list((tmp_path / "r").glob(".lock*"))


def test_the_best_preset_trains_as_its_recipe_does_with_a_teacher_and_without():
    own, other, none = (task_settings("detection", teacher=name) for name in (FARMYARD, "dinov2_small", NO_TEACHER))
    recipe = RECIPES["detection"]
    assert own.distill == other.distill == recipe.distill
    assert none.distill == recipe.alone
    assert [config.teacher.image_px for config in (own, other, none)] == [recipe.teacher_px, 0, 0]
    assert task_settings("segmentation").teacher.image_px == 0


def test_labelled_images_serve_for_transfer_where_there_are_no_unlabelled_ones(folders):
    world = open_world(config_of(folders), cpu=True, progress=False)
    assert world.features("unlabelled") is world.features("train")


def test_words_that_an_encoding_lacks_do_not_end_a_command(tmp_path):
    code = "from prockd.cli import app; app()"
    done = subprocess.run(
        [sys.executable, "-c", code, "predict", "--help"], capture_output=True, check=False,
        env={**os.environ, "PYTHONIOENCODING": "cp1252"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"or z" in done.stdout
