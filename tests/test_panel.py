"""What one does with the tries of a panel, and where its knobs may start; how a try is trained is in test_widgets."""

import copy
import dataclasses
import io
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from panel_world import SIZE, features, tiny_world
from PIL import Image
from prockd_widgets import DistillationPanel, PrototypeSwitches
from prockd_widgets.causes import LINES, SIDE_PX, THUMBS, Causes, best_patches
from prockd_widgets.comparison import Difference, differences_of
from prockd_widgets.pace import Pace, in_words
from prockd_widgets.settings import PRESETS, STARTS, arm_of, method_of
from typer.testing import CliRunner

from prockd import DistillConfig, FeatureAugmentationConfig, PrototypeBank, Student, discover
from prockd.cli import app
from prockd.evaluation.scores import evaluate
from prockd.evaluation.verdict import paired_intervals, units_of
from prockd.runs import World
from prockd.runs.plan import Job, read_plan
from prockd.settings import read_config


@pytest.fixture(scope="module")
def world() -> World:
    """With enough validation images for an interval."""
    tiny = tiny_world()
    return World(tiny.config, tiny.sets | {"val": features(12, "val", 3)})


@pytest.fixture(scope="module")
def bank(world: World) -> PrototypeBank:
    return discover(world.source, 4, progress=False)


def small(panel: DistillationPanel, steps: int = 2) -> DistillationPanel:
    panel.knobs["num_prototypes"].value, panel.knobs["steps"].value = 4, steps
    return panel


@pytest.fixture(scope="module")
def panel(world: World, bank: PrototypeBank, tmp_path_factory: pytest.TempPathFactory) -> DistillationPanel:
    """Two tries, of the best preset and of labels alone."""
    made = DistillationPanel(world, bank, folder=tmp_path_factory.mktemp("tries"))
    for preset in ("best", "plain"):
        made.apply(preset)
        small(made).run()
        made.wait(200)
    return made


@pytest.fixture
def fresh(world: World, bank: PrototypeBank, tmp_path: Path) -> DistillationPanel:
    return small(DistillationPanel(world, bank, folder=tmp_path))


def press(widget: Any, button: str) -> None:
    """As a click in the page."""
    widget._handle_custom_msg({"do": button}, [])


# Where knobs start


def test_every_preset_rival_and_control_is_a_start_and_its_knobs_are_its_own(fresh: DistillationPanel) -> None:
    offered = {name for _, name in fresh.rival.options if name} | set(fresh.preset.options)
    assert offered == set(STARTS)
    for start in STARTS:
        fresh.apply(start)
        settings, arm = fresh.config(), arm_of(start)
        assert settings.changes() == {}, start
        assert settings.distill.steps == (4 if start == "longer labels alone" else 2)
        assert (fresh.preset.value, fresh.rival.value) == ((start, "") if start in PRESETS else (None, start))
        assert (settings.arm.teacher, settings.arm.bank, settings.arm.augmented) == (
            arm.teacher, arm.bank, arm.augmented,
        )  # fmt: skip


def test_a_knob_of_the_teacher_turned_up_on_labels_alone_brings_the_teacher_in(fresh: DistillationPanel) -> None:
    fresh.apply("plain")
    assert (fresh.config().arm.teacher, fresh.config().arm.augmented) == ("none", False)
    fresh.knobs["feature_weight"].value, fresh.knobs["content"].value = 30.0, "part_maps"
    assert (fresh.config().arm.teacher, fresh.config().arm.augmented) == ("trained", True)
    assert "replace(ARMS['labels alone'], teacher='trained', augmented=True)" in fresh.code()


def test_without_a_teacher_only_labels_alone_are_offered(world: World) -> None:
    sets = {name: world.images(name) for name in ("train", "val", "unlabelled")}
    alone = DistillationPanel(World(world.config, sets))
    assert alone.start == "plain"
    assert {name for _, name in alone.rival.options if name} == {"longer labels alone", "pseudo-labels"}
    with pytest.raises(ValueError, match="'best' learns from a teacher, and this world has none"):
        alone.apply("best")
    small(alone).run()
    made = alone.wait(200)
    assert made is not None
    assert made.augmented is None


@pytest.mark.parametrize(
    ("start", "steps"), [("MSE", 2), ("pseudo-labels", 4), ("longer labels alone", 4), ("random vectors", 2)]
)
def test_a_rival_or_control_is_trained_as_its_arm_is(fresh: DistillationPanel, start: str, steps: int) -> None:
    fresh.apply(start)
    small(fresh, 4 if start == "pseudo-labels" else 2)
    fresh.run()
    made = fresh.wait(200)
    assert made is not None
    assert (made.settings.preset, made.history.step) == (start, steps)
    assert [row["step"] for row in made.history.rows] == list(range(steps)), "one curve, also of two students"
    assert ("rival" in made.history.rows[-1]) == (start == "MSE")
    assert (made.augmented is not None) == (start == "random vectors")
    assert not made.can_go_on


def test_an_arm_that_needs_the_teacher_itself_says_so(fresh: DistillationPanel) -> None:
    fresh.apply("fine-tuned teacher")
    small(fresh).run()
    with pytest.raises(ValueError, match="begins with the teacher's weights, and this world has its features alone"):
        fresh.wait(200)
    assert "this world has its features alone" in fresh.error


# Taking settings along


def test_toml_of_a_try_is_a_file_of_settings_and_of_a_rival_a_contest(fresh: DistillationPanel, tmp_path: Path) -> None:
    for start in STARTS:
        fresh.apply(start)
        small(fresh, 8)
        fresh.knobs["lr"].value, fresh.knobs["labels_per_class"].value = 0.004, 3
        settings, path = fresh.config(), tmp_path / "try.toml"
        path.write_text(fresh.code(form="TOML"), encoding="utf-8")
        if start in PRESETS:
            config = read_config(path)
            assert config == settings.experiment(fresh.world.config), start
            continue
        plan = read_plan(path)
        (name,) = plan.arms
        assert name == f"{start}, tried"
        told = plan.settings(Job("told", name, settings.distill.seed, plan.config.distill.lr, plan.weight(name)))
        assert method_of(told) == settings.configs, start
        assert (told.data.per_class, told.task) == (3, fresh.world.config.task)
        arm = plan.arms[name]
        assert (arm.teacher, arm.bank, arm.pseudo) == (settings.arm.teacher, settings.arm.bank, settings.arm.pseudo)


@pytest.mark.parametrize("start", list(PRESETS))
def test_the_command_gives_equal_settings(
    fresh: DistillationPanel, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh.apply(start)
    small(fresh)
    fresh.knobs["content"].value, fresh.knobs["labels_per_class"].value = "descriptor", 3
    asked = []
    monkeypatch.setattr("prockd.runs.run.run_experiment", lambda config, *_, **__: asked.append(config))
    words = shlex.split(fresh.code(form="command").replace("\\\n", ""))
    assert words[:2] == ["prockd", "distill"]
    CliRunner().invoke(app, words[1:])
    assert asked == [fresh.config().experiment(fresh.world.config)]


def test_the_form_that_is_chosen_is_shown_and_another_is_refused(panel: DistillationPanel) -> None:
    panel.form.value = "command"
    assert panel.code_text.value.startswith("prockd distill ")
    panel.apply("MSE")
    assert panel.code_text.value.endswith("prockd compare -c try.toml --run-dir runs/try")
    panel.form.value = "code"
    with pytest.raises(ValueError, match="form='yaml': choose one of code, command, TOML"):
        panel.code(form="yaml")


def test_the_settings_of_a_try_come_back_into_the_knobs(fresh: DistillationPanel) -> None:
    fresh.apply("longer labels alone")
    small(fresh, 3)
    fresh.knobs["lr"].value = 0.005
    fresh.run()
    made = fresh.wait(200)
    fresh.apply("paper")
    fresh.knobs["steps"].value = 77
    fresh.table.ticked = [1]
    press(fresh.table, "load")
    assert made is not None
    assert fresh.config() == made.settings
    assert fresh.error == ""


# How long it will take


def test_the_time_of_a_try_is_told_before_run_and_then_by_what_was_made(fresh: DistillationPanel) -> None:
    first = fresh.estimate()
    assert "for 2 steps of 48 images, one step, timed" in first
    fresh.knobs["num_prototypes"].value = 6
    assert "6 prototypes are looked for first" in fresh.estimate()
    fresh.run()
    made = fresh.wait(200)
    assert made is not None
    assert "as in try 1" in fresh._estimate.value
    assert "looked for" not in fresh._estimate.value, "they are found now"
    seconds = fresh.runner.pace.seconds(made.settings, found=True)
    assert seconds == pytest.approx(made.seconds - fresh.runner.pace.search, rel=0.35)


def test_twice_the_steps_take_twice_the_time(fresh: DistillationPanel) -> None:
    pace, settings = Pace(), fresh.config()
    assert pace.seconds(settings, found=True) is None
    pace.an_image[False], pace.rest, pace.search = 0.001, 3.0, 20.0
    seconds = [
        pace.seconds(dataclasses.replace(settings, distill=DistillConfig(steps=n)), found=n < 200) for n in (100, 200)
    ]
    assert seconds == pytest.approx([100 * 48e-3 + 3, 200 * 48e-3 + 23])
    assert [in_words(s) for s in (0.2, 61.0, 500.0, 7200.0)] == [
        "about 1 s",
        "about 61 s",
        "about 8 min",
        "about 2.0 h",
    ]


# The table


def test_two_tries_are_compared_on_the_same_images(panel: DistillationPanel, world: World) -> None:
    found = panel.compare(2, 1)
    images = world.images("val")
    plain, best = (evaluate(panel.tries[i].student, images) for i in (1, 0))
    pairs = [plain.predictions, best.predictions]
    ((low, high),) = paired_intervals(world.task, pairs, images, units_of(images)[0])
    assert found == [Difference("z", plain.plain, best.plain, low, high)], "labels alone have no z⁺"
    (row,) = panel.table.comparison["rows"]
    assert row["try 2"] == f"{plain.plain:.1%}"
    assert row["points more"] == f"{100 * (best.plain - plain.plain):+.1f}"
    assert "paired over 12 validation images" in panel.table.comparison["note"]
    assert json.dumps(panel.table.comparison), "the page gets plain numbers"


def test_a_try_of_another_kernel_is_compared_by_its_student(panel: DistillationPanel, world: World) -> None:
    reopened = DistillationPanel(world, folder=panel.runner.folder)
    assert all(one.history.scores is None for one in reopened.tries)
    assert reopened.compare(1, 2) == panel.compare(1, 2)


def test_of_few_images_no_interval_is_told(panel: DistillationPanel, world: World) -> None:
    few = features(9, "val", 3).images
    pair = [dataclasses.replace(one, history=dataclasses.replace(one.history)) for one in panel.tries]
    for one in pair:
        one.history.scores = evaluate(one.student, few)
    (only,) = differences_of(pair[0], pair[1], world.task, few)
    assert np.isnan(only.low)
    assert only.row(["a", "b"])["95 % interval"] is None
    assert only.word == "too few images to tell"
    assert [Difference("z", 0.5, 0.6, *ends).word for ends in ((0.01, 0.2), (-0.2, -0.01), (-0.1, 0.3))] == [
        "higher", "lower", "not told apart",
    ]  # fmt: skip


def test_a_deleted_try_comes_back_and_its_number_is_never_given_again(fresh: DistillationPanel, world: World) -> None:
    for seed in (0, 1):
        fresh.knobs["seed"].value = seed
        fresh.run()
        fresh.wait(200)
    rows = fresh.rows()
    fresh.table.ticked = [2]
    press(fresh.table, "delete")
    assert [row["try"] for row in fresh.table.rows] == [1]
    assert (fresh.table.ticked, fresh.table.deleted) == ([], 1)
    assert sorted(path.name for path in fresh.runner.folder.iterdir()) == ["deleted-002", "try-001"]
    fresh.run()
    third = fresh.wait(200)
    assert third is not None
    assert third.number == 3
    press(fresh.table, "undo")
    assert fresh.rows()[:2] == rows
    assert fresh.tries[1].student.bank is not None, "its files are where they were"
    fresh.delete(1, 3)
    reopened = DistillationPanel(world, folder=fresh.runner.folder)
    assert [one.number for one in reopened.tries] == [2]
    assert len(reopened.deleted) == 2
    reopened.undelete()
    reopened.undelete()
    reopened.undelete()
    assert [one.number for one in reopened.tries] == [1, 2, 3]
    with pytest.raises(IndexError, match="try 9 is not there"):
        reopened.delete(9)


def test_a_try_whose_folder_is_gone_can_be_deleted_and_a_click_says_what_is_wrong(panel: DistillationPanel) -> None:
    gone = dataclasses.replace(panel.tries[0], number=7, folder=panel.runner.folder / "try-007")
    panel.runner.tries = (*panel.tries, gone)
    panel.switched.value = 7
    panel._switch(now=True)
    assert "WeightsError" in panel.switches.error
    panel.delete(7)
    assert [one.number for one in panel.tries] == [1, 2]
    panel.error = ""
    panel.table.ticked = []
    press(panel.table, "load")
    assert "TypeError" in panel.error
    press(panel.table, "dance")
    panel.error = ""


# What does this prototype do?


def test_beside_a_removal_stand_as_many_others_at_random_and_undo_shows_what_was_before(
    panel: DistillationPanel,
) -> None:
    each = panel.effects(number=1)
    switches = panel.switches
    assert switches.control is None
    assert "of 4 intervals leave out zero" in switches.status
    pair = panel.effects(0, 2, number=1)
    control = switches.control
    assert control is not None
    assert pair.prototypes == ((0, 2),)
    assert all(set(drawn) == {1, 3} for drawn in control.prototypes), "the others"
    assert "2 others at random: " in switches.status
    alone = panel.effects(1, number=1)
    assert sorted(switches.control.prototypes) == [(0,), (2,), (3,)], "each other one once"
    same = [r for r, members in enumerate(each.prototypes) if members == (1,)]
    np.testing.assert_allclose(alone.change, each.change[same])
    panel.effects(0, 1, 2, number=1)
    assert switches.control is None
    assert "not as many others" in switches.status
    switches.undo()
    assert (switches.list.ticked, switches.effects) == ([1], alone)
    press(switches.list, "undo")
    assert (switches.list.ticked, switches.effects) == ([0, 2], pair)
    press(switches.list, "redo")
    assert switches.list.ticked == [1]
    for _ in range(9):
        switches.undo()
    assert (switches.effects, switches.list.steps) == (None, {"undo": 0, "redo": 4})


def test_rows_of_prototypes_have_their_best_patches_and_the_part_they_show(world: World, bank: PrototypeBank) -> None:
    images = world.images("val")
    masks = np.zeros((len(images), SIZE, SIZE), np.uint8)
    masks[:, : SIZE // 2] = 1
    images = dataclasses.replace(images, parts=masks)
    student = Student("resnet10t", world.task, copy.deepcopy(bank), image_px=SIZE, channels=(8, 16, 24, 32),
                      stem_width=8, feature_augmentation=FeatureAugmentationConfig())  # fmt: skip
    student.bank.rename(1, "hoof")
    student.bank.disable(3)
    causes = Causes({})
    causes.show(student.eval(), images)
    assert sorted((row["k"], row["name"]) for row in causes.rows) == [(0, "p00"), (1, "hoof"), (2, "p02")]
    assert all(row["part"].startswith(("part 1", "background")) for row in causes.rows)
    sheet = Image.open(io.BytesIO(causes.sheet))
    assert sheet.size == (THUMBS * SIDE_PX, 3 * SIDE_PX)
    causes.show(None, images)
    assert (causes.rows, causes.sheet) == ([], b"")


def test_the_sheet_of_many_prototypes_stays_within_what_webp_can_hold(world: World) -> None:
    images = world.images("val")
    sheet = Image.open(io.BytesIO(best_patches(images, (4, 4), [[(0, 0), (1, 15)]] * (LINES + 10))))
    assert sheet.size == (2 * THUMBS * SIDE_PX, LINES * SIDE_PX)


def test_a_student_is_looked_at_only_when_its_tab_is_open(panel: DistillationPanel) -> None:
    panel._shown_student = None
    panel.switches.set_student(None)
    panel.switched.value = 2
    panel.switched.value = 1
    assert panel.switches.student is None
    panel.tabs.selected_index = 1
    panel.switches.wait(200)
    assert panel.switches.student is not None
    assert panel.switches.effects is not None, "measured each alone at once"
    panel.switched.value = 2
    panel.switches.wait(200)
    assert (panel.switches.effects, panel.switches.error) == (None, ""), "labels alone read no prototypes"
    panel.tabs.selected_index = 0


def test_the_list_without_a_student_says_what_to_do(world: World) -> None:
    switches = PrototypeSwitches(None, world.images("val"))
    press(switches.list, "each")
    switches.wait(20)
    assert "press Run first" in switches.error
