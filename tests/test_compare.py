"""The contest: arms, equal tuning, lines that a killed run leaves, several processes, and what its table says."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import draw_stripes
from PIL import Image
from typer.testing import CliRunner

from prockd.cli import app
from prockd.datasets import DatasetError
from prockd.evaluation.scores import predict
from prockd.locks import claim, is_alive, release
from prockd.runs.arm_students import replace_prototypes
from prockd.runs.arms import ALONE, ARMS, GROUPS, OURS, Arm, chosen_arms, teacher_terms
from prockd.runs.compare import begin, run_contest
from prockd.runs.contest import Contest, Difference
from prockd.runs.contestants import Worlds
from prockd.runs.folder import RunFolderError
from prockd.runs.plan import TUNE_SEED, Plan, quick_changes, rates_near, read_plan
from prockd.runs.pseudo_labels import joined, pseudo_labelled
from prockd.settings.experiment import ExperimentConfig
from prockd.settings.knobs import ConfigError
from prockd.students.student import Student
from prockd.tasks import Classification, Segmentation
from prockd.writing import append_line, read_lines

SMALL = """
[data]
per_class = 2
num_discover = 12
num_unlabelled = 8
num_val = 10
num_test = 10
[teacher]
image_px = 64
[student]
image_px = 32
options = {{channels = [8, 16, 24, 32], stem_width = 8}}
[discover]
num_prototypes = 4
embed_dim = 8
steps = 1
max_patches = 500
[distill]
steps = 2
batch_size = 4
unlabelled_batch = 2
[compare]
arms = {arms}
seeds = {seeds}
rates = [8e-3, 16e-3]
weights = [3.0]
"""
MINE = '\n[arms.mine]\ntold = "Ours unmirrored."\n"distill.flip" = false\ndistill.min_crop = 0.8\n'

pytestmark = [
    pytest.mark.filterwarnings("ignore:Tensorflow not installed:ImportWarning"),
    pytest.mark.filterwarnings("ignore:the teacher resnet10t knows nothing:UserWarning"),
]


def config_file(folder: Path, *arms: str, seeds: int = 1, more: str = "", name: str = "contest") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(SMALL.format(arms=json.dumps(arms), seeds=seeds) + more)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Plan, Path, list[dict]]:
    """A contest of every kind of arm that needs no knob of another's."""
    folder = tmp_path_factory.mktemp("contest")
    arms = (ALONE, "pseudo-labels", "hint", "random teacher", "random patches", OURS, "mine")
    plan = read_plan(config_file(folder, *arms, seeds=2, more=MINE))
    return plan, folder / "run", run_contest(plan, folder / "run", progress=False)


# Arms


def base() -> ExperimentConfig:
    config = ExperimentConfig()
    return replace(config, distill=config.distill.replace(batch_size=24, unlabelled_batch=24))


def test_every_arm_that_ships_says_what_it_is():
    for name, arm in ARMS.items():
        assert arm.name == name
        assert arm.told.endswith(".")
        assert arm.group in GROUPS


def test_every_arm_sees_as_many_images_a_step():
    for arm in ARMS.values():
        distill = arm.settings(base()).distill
        assert distill.batch_size + distill.unlabelled_batch == 48, arm.name


def test_labels_alone_reads_no_teacher_and_ours_is_the_file():
    alone = ARMS[ALONE].settings(base()).distill
    assert all(getattr(alone, f"{term}_weight") == 0 for term in teacher_terms())
    assert ARMS[OURS].settings(base()) == base()
    assert ARMS["longer labels alone"].settings(base()).distill.steps == 2 * base().distill.steps


def test_soft_targets_without_a_teacher_are_refused():
    with pytest.raises(
        ConfigError, match=r"arm 'bare' has teacher = 'none', and .*distill.soft_weight above 0 needs one"
    ):
        Arm("bare", "No teacher.", teacher="none").settings(base())


def test_an_unknown_arm_is_answered_with_those_there_are(tmp_path):
    with pytest.raises(
        ConfigError, match=r"\.toml: there is no arm 'our'\. Did you mean 'ours'\? There are labels alone, .*, ours"
    ):
        read_plan(config_file(tmp_path, "our"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bank = 3", r"\[arms\.mine\] bank = 3: choose one of 'prototypes', 'random patches'"),
        ('teacher = "wise"', r"teacher = 'wise': choose one of 'trained', 'random', 'none'"),
        ('like = "theirs"', r"like = 'theirs': there are labels alone"),
        ("temperature = 1", r"\[arms\.mine\] has no temperature; it has like, .*section\.knob"),
        ("distill.warp = 1", r"arm 'mine': there is no distill\.warp"),
        ("data.per_class = 9", r"data\.per_class is the same for all arms"),
        ('terms = ["warp"]', r"terms = \['warp'\]: must be a list of .*feature"),
        ("longer = 0", r"longer = 0: must be a number in 0\.\.100"),
    ],
)
def test_an_own_arm_is_read_strictly(text, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        read_plan(config_file(tmp_path, "mine", more=f"\n[arms.mine]\n{text}\n"))


def test_a_contest_without_a_teacher_has_arms_without_one_only():
    config = base()
    config = replace(config, teacher=config.teacher.replace(name="none"))
    assert list(chosen_arms((ALONE,), {}, config)) == [ALONE]
    with pytest.raises(ConfigError, match=r"arm 'hint' learns from a teacher, and teacher\.name = 'none'"):
        chosen_arms(("hint",), {}, config)


def test_a_variable_of_the_environment_must_be_set(tmp_path, monkeypatch):
    path = config_file(tmp_path, ALONE)
    path.write_text(path.read_text().replace("[data]", '[data]\npath = "$PROCKD_NOWHERE/photos"'))
    monkeypatch.delenv("PROCKD_NOWHERE", raising=False)
    with pytest.raises(ConfigError, match=r"data\.path = '\$PROCKD_NOWHERE/photos': \$PROCKD_NOWHERE is not set"):
        read_plan(path)
    monkeypatch.setenv("PROCKD_NOWHERE", "/there")
    assert read_plan(path).config.data.path == "/there/photos"


# Tuning


def test_every_arm_has_the_same_number_of_tuning_runs(finished):
    plan, _, rows = finished
    runs = {arm: [row for row in rows if row["kind"] == "tune" and row["arm"] == arm] for arm in plan.arms}
    assert {len(tuned) for tuned in runs.values()} == {plan.budget} == {3}
    assert {row["on"] for tuned in runs.values() for row in tuned} == {"val"}
    assert all(len({(row["lr"], row["weight"]) for row in tuned}) == 3 for tuned in runs.values())
    assert all({row["lr"] for row in tuned} >= {8e-3, 16e-3} for tuned in runs.values())


def test_what_is_told_was_best_on_validation_images(finished):
    plan, _, rows = finished
    for arm in plan.arms:
        tuned = [row for row in rows if row["kind"] == "tune" and row["arm"] == arm]
        for row in (row for row in rows if row["kind"] == "told" and row["arm"] == arm):
            chosen = [t["z"] for t in tuned if (t["lr"], t["weight"]) == (row["lr"], row["weight"])]
            assert chosen == [max(t["z"] for t in tuned)]


def test_no_seed_of_tuning_is_told(finished):
    _, _, rows = finished
    seeds = {kind: {row["seed"] for row in rows if row["kind"] == kind} for kind in ("tune", "told")}
    assert seeds == {"tune": {TUNE_SEED}, "told": {0, 1}}


def test_more_learning_rates_lie_beyond_the_end_of_the_grid_or_beside_the_best_one():
    grid = (0.004, 0.008, 0.016)
    assert rates_near(0.016, grid, 2) == [0.032, 0.064]
    assert rates_near(0.004, grid, 2) == [0.002, 0.001]
    beside = rates_near(0.008, grid, 2)
    assert 0.004 < min(beside) < 0.008 < max(beside) < 0.016
    assert len(set(rates_near(0.008, grid, 5))) == 5


def test_without_a_grid_nothing_is_tuned(tmp_path):
    plan = read_plan(config_file(tmp_path, ALONE, OURS), ["compare.rates=[]", "compare.weights=[]"])
    plan = replace(plan, compare=plan.compare.replace(references=False))
    ready, more_follow = plan.pending([])
    assert plan.budget == 0
    assert not more_follow
    assert [job.lr for job in ready] == [plan.config.distill.lr] * 2


# Runs


def test_arms_of_a_seed_start_alike_and_seeds_do_not(finished):
    _, _, rows = finished
    starts = {seed: {row["start"] for row in rows if row["kind"] == "told" and row["seed"] == seed} for seed in (0, 1)}
    assert {len(found) for found in starts.values()} == {1}
    assert starts[0] != starts[1]


def test_a_line_keeps_both_predictions_and_what_they_cost(finished):
    plan, _, rows = finished
    told = {row["arm"]: row for row in rows if row["kind"] == "told" and row["seed"] == 0}
    assert list(told) == list(plan.arms)
    assert told[OURS]["z_plus"] is not None
    assert told["hint"]["z_plus"] is None
    assert told[ALONE]["teacher_passes"] == told[ALONE]["cache_bytes"] == 0
    assert told[OURS]["teacher_passes"] == (20 + 8) * 2, "labelled and unlabelled images, plain and mirrored"
    assert told["hint"]["cache_bytes"] > told[OURS]["cache_bytes"] > 0
    for row in told.values():
        assert row["on"] == "test"
        assert (row["scored"], row["labelled"], row["unlabelled"]) == (10, 20, 8 * (row["arm"] != ALONE))
        assert set(row["per_class"]) >= {"horse", "pig"}
        assert row["parameters"] == told[ALONE]["parameters"]


def test_floor_and_ceiling_stand_beside_the_arms(finished):
    plan, _, rows = finished
    lines = [row for row in rows if row["kind"] == "reference"]
    assert [row["seed"] for row in lines] == [0, 1]
    names = {one["arm"]: one["group"] for one in lines[0]["rows"]}
    assert list(names.values()) == ["floor", "ceiling", "ceiling"]
    assert lines[0]["rows"][0]["z"] == pytest.approx(0.1), "one class of ten"
    told = Contest(plan.arms, rows, plan.budget)
    assert [row["arm"] for row in told.table()][:3] == list(names)
    assert [row["seeds"] for row in told.table()][:3] == [2, 2, 2]


def test_the_same_students_are_read_in_other_ways_too(finished):
    plan, _, rows = finished
    ours = next(row for row in rows if row["kind"] == "told" and row["arm"] == OURS)
    assert {"part maps", "refitted mean", "shuffled"} <= set(ours["readings"])
    readings = Contest(plan.arms, rows, plan.budget).readings()
    assert {row["read of the same students"] for row in readings} == set(ours["readings"])
    assert {row["seeds"] for row in readings} == {2}


def test_a_contest_that_is_finished_trains_nothing(finished, monkeypatch):
    plan, folder, rows = finished
    monkeypatch.setattr("prockd.runs.compare.run_job", lambda *_: pytest.fail("it trained"))
    assert run_contest(plan, folder, progress=False) == rows


def test_a_killed_contest_goes_on_and_gives_the_same(finished, tmp_path):
    plan, folder, rows = finished
    plan = replace(plan, arms={name: plan.arms[name] for name in (ALONE, OURS)})
    mine = [row for row in rows if row.get("arm") in plan.arms]
    shutil.copy(folder / "settings.json", tmp_path)
    for row in mine[:5]:
        append_line(tmp_path / "runs.jsonl", row)
    with (tmp_path / "runs.jsonl").open("a") as file:
        file.write('{"job": "told ours se')  # killed while it wrote
    dead = subprocess.run([sys.executable, "-c", CLAIM, str(tmp_path / "claims"), mine[5]["job"]], check=True)
    assert dead.returncode == 0
    again = run_contest(plan, tmp_path, progress=False)
    students = [row for row in again if row["kind"] != "reference"]
    assert {row["job"]: row["z"] for row in students} == {row["job"]: row["z"] for row in mine}
    assert len(students) == len(mine)


CLAIM = """
import sys
from pathlib import Path
from prockd.locks import claim
assert claim(Path(sys.argv[1]), sys.argv[2])
"""


def test_a_fault_leaves_no_claim_behind(tmp_path, monkeypatch):
    plan = read_plan(config_file(tmp_path, ALONE))
    monkeypatch.setattr("prockd.runs.compare.run_job", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_contest(plan, tmp_path / "run", progress=False)
    monkeypatch.undo()
    assert len(run_contest(plan, tmp_path / "run", progress=False)) == plan.budget + 2


@pytest.mark.slow
def test_two_processes_side_by_side_do_each_run_once(finished, tmp_path):
    plan, _, rows = finished
    path = config_file(tmp_path, ALONE, OURS, seeds=2)
    command = [sys.executable, "-m", "prockd", "compare", "-c", path, "--run-dir", tmp_path / "run", "-q"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    errors = [process.communicate()[1].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    found = read_lines(tmp_path / "run" / "runs.jsonl")
    assert len(found) == len({row["job"] for row in found}) == 2 * (plan.budget + 2) + 2
    known = {row["job"]: row.get("z") for row in rows}
    assert all(row.get("z") == known[row["job"]] for row in found)
    assert not list((tmp_path / "run" / "claims").iterdir())


def test_a_claim_of_a_dead_process_is_taken_over_once(tmp_path):
    subprocess.run([sys.executable, "-c", CLAIM, str(tmp_path), "a run"], check=True)
    (dead,) = tmp_path.iterdir()
    assert not is_alive(dead)
    assert claim(tmp_path, "a run")
    assert not claim(tmp_path, "a run")
    release(tmp_path, "a run")
    assert claim(tmp_path, "a run")


def test_a_folder_begun_elsewhere_names_its_images_by_a_variable(finished, tmp_path, monkeypatch):
    plan, folder, _ = finished
    kept = json.loads((folder / "settings.json").read_text())
    kept["settings"]["data.path"] = "$PROCKD_TEST_WORLD"
    (tmp_path / "settings.json").write_text(json.dumps(kept))
    with pytest.raises(RunFolderError, match=r"data\.path was \$PROCKD_TEST_WORLD, is farmyard"):
        begin(plan, tmp_path)
    monkeypatch.setenv("PROCKD_TEST_WORLD", plan.config.data.path)
    begin(plan, tmp_path)


def test_other_settings_in_the_same_folder_are_refused_by_name(finished, tmp_path):
    plan, folder, _ = finished
    other = replace(plan, config=replace(plan.config, distill=plan.config.distill.replace(steps=3)))
    with pytest.raises(RunFolderError, match=r"begun with other settings \(distill\.steps was 2, is 3\): choose anoth"):
        run_contest(other, folder, progress=False)
    reworded = replace(plan, arms={"mine": replace(plan.arms["mine"], told="Other words.")})
    assert run_contest(reworded, folder, progress=False)
    changed = replace(plan, arms={"mine": replace(plan.arms["mine"], longer=2.0)})
    with pytest.raises(RunFolderError, match=r"arm mine was .*'longer': 1\.0"):
        run_contest(changed, folder, progress=False)


def test_more_seeds_and_arms_may_be_added_to_a_folder(finished, tmp_path):
    plan, _, _ = finished
    first = replace(plan, arms={ALONE: plan.arms[ALONE]}, compare=plan.compare.replace(seeds=1))
    assert len(run_contest(first, tmp_path, progress=False)) == plan.budget + 2
    more = replace(plan, arms={name: plan.arms[name] for name in (ALONE, OURS)})
    assert len(run_contest(more, tmp_path, progress=False)) == 2 * (plan.budget + 2) + 2


def test_own_images_without_any_to_tune_on_are_refused(tmp_path):
    for m, (image, label) in enumerate(zip(*draw_stripes(24), strict=True)):
        place = tmp_path / "photos" / ("train" if m < 16 else "test") / ("upright", "level")[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{m:02d}.png")
    path = config_file(tmp_path, ALONE, "fine-tuned teacher")
    text = path.read_text().replace(
        "image_px = 64", "name = 'resnet10t'\nrandom = true\nimage_px = 32\nlayers = [1, 2]"
    )
    path.write_text(text.replace("per_class = 2", f'per_class = 3\npath = "{tmp_path / "photos"}"'))
    with pytest.raises(DatasetError, match=r"no images to tune on: give the data a folder val, or set data\.val_part"):
        run_contest(read_plan(path), tmp_path / "run", progress=False)
    plan = read_plan(path, ["data.val_part=0.25", "compare.seeds=2"])
    rows = run_contest(plan, tmp_path / "own", progress=False)
    told = [row for row in rows if row["kind"] == "told"]
    assert {row["labelled"] for row in told} == {6}
    assert {row["scored"] for row in told} == {8}
    tuned = next(row for row in told if row["arm"] == "fine-tuned teacher")
    assert tuned["parameters"] > 10 * told[0]["parameters"]


def test_which_own_images_are_labelled_is_drawn_and_the_scored_ones_stay(tmp_path):
    for m, (image, label) in enumerate(zip(*draw_stripes(24), strict=True)):
        place = tmp_path / "photos" / ("upright", "level")[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{m:02d}.png")
    path = config_file(tmp_path, ALONE)
    path.write_text(path.read_text().replace("per_class = 2", f'per_class = 3\npath = "{tmp_path / "photos"}"'))
    worlds = Worlds(read_plan(path, ["data.val_part=0.25", "teacher.image_px=32"]), tmp_path / "run")
    first, second = worlds.world("trained", 0), worlds.world("trained", 1)
    assert first.images("train").ids != second.images("train").ids
    assert first.images("test").ids == second.images("test").ids
    assert first.images("val").ids == second.images("val").ids
    assert not set(first.images("train").ids) & set(first.images("test").ids)


def test_half_of_what_a_self_trained_student_reads_is_labelled(packed):
    both = joined(packed.select(range(5)), replace(packed, labels=1 - packed.labels))
    assert len(both) == 24
    assert len(set(both.ids)) == 24
    assert both.labels[:5].tolist() == packed.labels[:5].tolist()
    assert both.labels[12:].tolist() == (1 - packed.labels).tolist()


def test_pseudo_labels_take_nothing_from_the_annotations_that_are_there(packed):
    boxes = tuple(np.array([[1, 1, 9, 9]], np.float32) for _ in range(12))
    known = replace(packed, boxes=boxes, box_labels=tuple(np.array([1]) for _ in range(12)))
    options = {"image_px": 32, "channels": (8, 16, 24, 32), "stem_width": 8}
    student = Student("resnet10t", Classification(2, packed.classes), **options)
    told = pseudo_labelled(student, known)
    assert told.boxes is None
    assert told.labels.tolist() == predict(student, packed).tolist()
    other = pseudo_labelled(Student("resnet10t", Segmentation(2, packed.classes, width=32), **options), known)
    assert (other.labels == -1).all()
    assert other.masks.shape == (12, 32, 32)


def test_random_patches_are_the_teachers_own_and_random_vectors_are_not(features, bank):
    from prockd.settings.method import DiscoverConfig

    unit = torch.nn.functional.normalize(bank.embed(features.fused(range(len(features)))), dim=-1).flatten(0, 1)
    space = bank.space
    for kind, near in (("random patches", True), ("random vectors", False)):
        replace_prototypes(bank, features, kind, DiscoverConfig(sharpness=3.0))
        cosines = (bank.prototypes @ unit.T).max(1).values
        assert bool((cosines > 0.999).all()) is near
        assert bank.space == space


# What it tells


def line(arm: str, seed: int, z: float, z_plus: float | None = None, **more) -> dict:
    return {
        "job": f"told {arm} {seed}", "kind": "told", "arm": arm, "seed": seed, "z": z, "z_plus": z_plus, "lr": 0.01,
        "weight": None, "metric": "accuracy", "on": "test", "scored": 100, "steps": 10, "images_a_step": 8,
        "start": f"start {seed}", "cpu_ms_a_step": 5.0, "cpu_seconds": 1.0, "teacher_passes": 0, "cache_bytes": 0,
        "parameters": 1000, "extra_parameters": 0, "ms_an_image": 0.1, "ms_an_image_plus": None, **more,
    }  # fmt: skip


def contest(**scores: list[tuple[float, float | None]]) -> Contest:
    names = {"alone": ALONE, "ours": OURS, "vkd": "VkD", "longer": "longer labels alone"}
    rows = [line(names[a], s, *values) for a, each in scores.items() for s, values in enumerate(each)]
    return Contest({names[a]: ARMS[names[a]] for a in scores}, rows, budget=5)


WORSE = [(0.60 + 0.01 * s, None) for s in range(5)]
BETTER = [(0.80 + 0.01 * s + 0.001 * (s % 2), 0.85 + 0.01 * s + 0.001 * (s % 2)) for s in range(5)]
BEST = [(0.90 + 0.01 * s - 0.001 * (s % 2), None) for s in range(5)]


def test_a_rival_that_wins_is_marked_and_named():
    told = contest(alone=WORSE, ours=BETTER, vkd=BEST)
    text = " ".join(told.sentences())
    assert "Clearly above ours, marked ▲: VkD (rival) by +0.099" in text
    assert " of z" in text
    assert [row["arm"] for row in told.table()] == [ALONE, OURS, "VkD ▲"]


def test_a_rival_above_z_and_below_z_plus_is_told_as_that():
    between = [(0.83 + 0.01 * s - 0.001 * (s % 2), None) for s in range(5)]
    told = contest(alone=WORSE, ours=BETTER, vkd=between)
    assert [(arm, what) for arm, what, _ in told.above_ours()] == [("VkD", "z")]


def test_where_nobody_wins_it_says_so():
    text = " ".join(contest(alone=WORSE, ours=BETTER, vkd=WORSE).sentences())
    assert "No other arm is clearly above ours (2 compared)." in text
    assert "Clearly above labels alone: ours (z⁺) +0.250 [+0.250, +0.251]" in text
    assert "Not told apart from labels alone: VkD" in text


def test_one_seed_has_no_interval_and_says_so():
    told = contest(alone=WORSE[:1], ours=BETTER[:1], vkd=BEST[:1])
    assert "has no intervals" in " ".join(told.sentences())
    assert told.above_ours() == []
    assert told.table()[1]["z⁺ − labels alone"] == "+0.250"


def test_what_is_not_equal_is_told():
    told = contest(alone=WORSE, longer=WORSE)
    other = {"steps": 20, "start": "another", "labelled_again": True}
    rows = [row | (other if "longer" in row["arm"] else {}) for row in told.rows]
    text = " ".join(replace(told, rows=rows).sentences())
    assert "Arms see 80 images in training, but for longer labels alone (160)." in text
    assert "labelled ones are the unlabelled ones of longer labels alone." in text
    assert "These begin with other weights than the rest: longer labels alone." in text


def test_only_seeds_that_both_have_are_compared():
    told = contest(alone=WORSE[:3], ours=BETTER)
    found = told.versus(OURS, "z", ALONE, "z")
    assert found is not None
    assert found.mean == pytest.approx(np.mean([BETTER[s][0] - WORSE[s][0] for s in range(3)]))


def test_differences_that_happen_to_be_alike_are_not_called_clear():
    assert Difference(0.1, 0.1, 0.1).sign == 0
    assert [Difference(0.1, *span).sign for span in ((0.05, 0.15), (-0.1, 0.3), (-0.3, -0.1))] == [1, 0, -1]


# The command line


def test_the_command_writes_table_and_results_and_reports_again_without_training(finished, tmp_path):
    plan, folder, _ = finished
    path = config_file(tmp_path, *plan.arms, seeds=2, more=MINE)
    told = CliRunner().invoke(app, ["compare", "-c", str(path), "--run-dir", str(folder), "--report"])
    assert told.exit_code == 0, told.output
    assert "pseudo-labels" in told.output
    assert "<td>pseudo-labels</td>" in (folder / "report.html").read_text().replace(' class="text"', "")
    assert (folder / "compare.png").stat().st_size > 10_000
    results = json.loads((folder / "results.json").read_text())
    assert set(results["runs"]) == set(plan.arms)
    assert results["sentences"][0] in told.output


def test_arms_that_were_run_before_stay_in_the_report_of_a_command_for_some(finished, tmp_path):
    plan, folder, _ = finished
    path = config_file(tmp_path, *plan.arms, seeds=2, more=MINE)
    told = CliRunner().invoke(app, ["compare", "-c", str(path), "--run-dir", str(folder), "--only", "hint", "-q"])
    assert told.exit_code == 0, told.output
    assert set(json.loads((folder / "results.json").read_text())["runs"]) == set(plan.arms)


def test_a_quick_contest_ends_with_one_line_of_json(tmp_path):
    path = config_file(tmp_path, ALONE, OURS, seeds=5)
    plan = read_plan(path, quick_changes(read_plan(path)))
    assert (plan.compare.seeds, plan.budget, plan.config.distill.steps) == (2, 0, 1)
    told = CliRunner().invoke(app, ["compare", "-c", str(path), "--run-dir", str(tmp_path / "run"), "--quick", "-q"])
    assert told.exit_code == 0, told.output
    last = json.loads(told.output.splitlines()[-1])
    assert set(last["arms"]) > {ALONE, OURS}
    assert last["seconds"] > 0


KEPT = sorted((Path(__file__).parents[1] / "benchmarks/results/compare").glob("*/results.json"))


@pytest.mark.parametrize("path", KEPT, ids=[path.parent.name for path in KEPT])
def test_what_is_kept_of_a_contest_is_what_the_present_code_says_of_its_lines(path):
    told = json.loads(path.read_text("utf-8"))
    rows = [json.loads(line) for line in (path.parent / "runs.jsonl").read_text("utf-8").splitlines()]
    budget = next(row["tuning runs"] for row in told["table"] if row["arm"] == "labels alone")
    config = path.parents[3] / "compare" / f"{path.parent.name}.toml"
    arms = ARMS if set(told["arms"]) <= set(ARMS) else read_plan(config).arms  # with own ones
    contest = Contest({name: arms[name] for name in told["arms"]}, rows, budget)
    now = {name: getattr(contest, name)() for name in ("sentences", "table", "costs", "readings")}
    assert json.loads(json.dumps(now)) == {name: told[name] for name in now}
