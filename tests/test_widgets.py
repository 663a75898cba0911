import copy
import dataclasses
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
import pytest
import torch
from anywidget import AnyWidget
from fake_device import fake_device
from panel_world import SIZE, features, tiny_world
from prockd_widgets import PRESETS, DistillationPanel, PrototypeSwitches, Settings, Try
from prockd_widgets.knobs import Knob
from prockd_widgets.live import curves, terms_of
from prockd_widgets.look import waiting
from prockd_widgets.settings import method_of, start_config
from prockd_widgets.switches import change_in_words

from prockd import (
    DiscoverConfig,
    DistillConfig,
    FeatureAugmentationConfig,
    History,
    PatchFeatures,
    PrototypeBank,
    Student,
    discover,
)
from prockd.evaluation.effects import prototype_effects
from prockd.runs import World, task_settings
from prockd.settings import set_values
from prockd.settings.knobs import ConfigError


@pytest.fixture(scope="module")
def world() -> World:
    return tiny_world()


@pytest.fixture(scope="module")
def bank(world: World) -> PrototypeBank:
    return discover(world.source, 4, progress=False)


@pytest.fixture(autouse=True)
def _no_curves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Curves take longer to draw than these tries to train: only the tests of pictures have them."""
    if "picture" not in request.node.name:
        monkeypatch.setattr("prockd_widgets.panel_view.curves", lambda *_, **__: b"")


@pytest.fixture
def panel(world: World, bank: PrototypeBank) -> DistillationPanel:
    """A panel whose tries take a moment: 4 prototypes, 3 steps."""
    made = DistillationPanel(world, bank)
    made.knobs["num_prototypes"].value = 4
    made.knobs["steps"].value = 3
    return made


def test_run_keeps_a_try_with_its_settings(panel: DistillationPanel) -> None:
    panel.knobs["temperature"].value = 0.25
    panel.knobs["seed"].value = 7
    panel.run()
    made = panel.wait(60)
    assert made is not None
    assert panel.tries == (made,)
    assert made.settings.distill.temperature == 0.25
    assert made.settings.distill.seed == 7
    assert made.settings.changes() == {"num_prototypes": 4, "temperature": 0.25}
    assert 0 <= made.plain <= 1
    assert made.augmented is not None
    assert not made.stopped
    assert made.history.step == 3
    assert len(made.history.rows) == 3, "every step is on the curve"
    assert panel.table.rows[0]["changed"] == "num_prototypes=4, temperature=0.25"
    assert "val" not in made.row()
    assert made.row()["steps"] == "3"


def test_tries_are_scored_on_the_validation_images(panel: DistillationPanel, world: World) -> None:
    panel.run()
    made = panel.wait(60)
    assert made is not None
    assert made.history.scores is not None
    np.testing.assert_array_equal(made.history.scores.labels, world.images("val").labels)


def test_stop_keeps_the_result_so_far_within_two_seconds(panel: DistillationPanel) -> None:
    panel.knobs["steps"].value = 100_000
    panel.run()
    deadline = time.monotonic() + 60
    while panel.runner.history.step < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    asked, reached = time.monotonic(), panel.runner.history.step
    panel.stop()
    made = panel.wait(10)
    assert time.monotonic() - asked < 2
    assert made is not None
    assert made.stopped
    assert reached <= made.history.step <= reached + 50
    assert "stopped" in str(made.row()["steps"])
    assert not panel.running
    assert panel.run_button.disabled is False
    assert panel.stop_button.disabled is True


def test_stop_before_the_first_step_keeps_nothing(panel: DistillationPanel, monkeypatch: pytest.MonkeyPatch) -> None:
    find = panel.runner.bank

    def stopped_meanwhile(*asked: object) -> object:
        panel.stop()
        return find(*asked)

    monkeypatch.setattr(panel.runner, "bank", stopped_meanwhile)
    panel.run()
    assert panel.wait(60) is None
    assert "nothing to keep" in panel.status


def test_an_exception_shows_its_message(panel: DistillationPanel) -> None:
    labelled = dataclasses.replace(panel.world.features("train"), teacher="another one")
    panel.runner.world = World(panel.world.config, panel.world.sets | {"train": labelled})
    panel.run()
    with pytest.raises(ValueError, match="come from teacher another"):
        panel.wait(60)
    assert "ValueError: these features come from teacher another" in panel.error
    assert 'role="alert"' in panel._failed.value
    assert "come from teacher another" in panel._failed.value
    assert panel.tries == ()
    assert not panel.running


def test_a_click_that_cannot_start_says_why(panel: DistillationPanel) -> None:
    panel.running = True
    panel.run_button.click()
    assert "a try is running" in panel.error


def test_the_next_run_clears_the_message(panel: DistillationPanel) -> None:
    panel.error = "ValueError: old"
    panel.run()
    panel.wait(60)
    assert panel.error == ""
    assert panel._failed.value == ""


def test_moving_a_slider_trains_nothing(panel: DistillationPanel) -> None:
    for knob in panel.knobs.values():
        if knob.slider is not None:
            knob.slider.value = knob.slider.max
    for preset in PRESETS:
        panel.preset.value = preset
    assert not panel.running
    assert panel.runner.thread.ident is None
    assert panel.tries == ()


def test_a_slider_moves_its_number_and_a_typed_number_may_pass_its_slider(panel: DistillationPanel) -> None:
    knob = panel.knobs["assignment_weight"]
    knob.slider.value = 4.5
    assert knob.value == 4.5
    knob.value = 60.0
    assert (knob.value, knob.slider.value) == (60.0, knob.slider.max)
    panel.knobs["lr"].slider.value = 0.0031622
    assert panel.knobs["lr"].value == 0.0032


def test_a_slider_that_the_page_puts_on_its_nearest_step_moves_no_number(panel: DistillationPanel) -> None:
    for name, number, nearest, next_one in (
        ("steps", 30, 40, 60),
        ("hint_weight", 0.3, 0.5, 1.0),
        ("lr", 0.00393, 0.004, 0.0044),
    ):
        knob = panel.knobs[name]
        knob.value = number
        knob.slider.value = nearest
        assert knob.value == number, name
        knob.slider.value = next_one
        assert knob.value == next_one, name


def test_knob_ranges_units_and_sentences_come_from_the_configuration(panel: DistillationPanel) -> None:
    fields = {
        f.name: f
        for kind in (DiscoverConfig, FeatureAugmentationConfig, DistillConfig)
        for f in dataclasses.fields(kind)
    }
    for name, knob in panel.knobs.items():
        if name == "labels_per_class":
            continue
        meta = fields[name].metadata
        shown = [w.value for w in walk(knob) if isinstance(w, ipywidgets.HTML)]
        assert any(meta["help"].replace("'", "&#x27;") in text for text in shown), name
        if "options" in meta:
            assert knob.number.options == meta["options"]
        else:
            assert (knob.number.min, knob.number.max) == (meta["low"], meta["high"])
            assert any(meta["unit"] in text for text in shown)


def test_every_control_has_a_name(panel: DistillationPanel) -> None:
    for each in walk(panel):
        if isinstance(each, ipywidgets.HTML | ipywidgets.Box | ipywidgets.Image | AnyWidget):
            continue
        assert getattr(each, "description", "") or each.tooltip, each


def test_labels_per_class_reach_what_the_world_has(panel: DistillationPanel, world: World) -> None:
    assert panel.knobs["labels_per_class"].number.max == 4
    panel.knobs["labels_per_class"].value = 2
    panel.run()
    made = panel.wait(60)
    assert made is not None
    assert made.settings.labels_per_class == 2
    assert len(world.few(made.settings.labels_per_class).features("train")) == 6


@pytest.mark.parametrize("preset", list(PRESETS))
def test_presets_set_the_knobs_and_leave_the_budget(panel: DistillationPanel, preset: str) -> None:
    panel.knobs["seed"].value = 5
    panel.apply(preset)
    settings = panel.config()
    found, augment, training = method_of(start_config(preset))
    assert settings.discover == found
    assert settings.feature_augmentation == augment
    assert settings.distill == training.replace(steps=3, seed=5, label_free_steps=settings.distill.label_free_steps)
    assert settings.changes() == {}


def test_an_unknown_preset_is_refused_with_those_there_are(panel: DistillationPanel) -> None:
    with pytest.raises(ValueError, match="choose one of best, paper, plain"):
        panel.apply("bset")


@pytest.mark.parametrize("preset", list(PRESETS))
def test_code_gives_equal_settings_and_repeats_the_try(panel: DistillationPanel, world: World, preset: str) -> None:
    panel.apply(preset)
    panel.knobs["num_prototypes"].value = 4
    panel.knobs["labels_per_class"].value = 3
    panel.knobs["lr"].value = 0.002
    panel.run()
    made = panel.wait(60)
    assert made is not None
    told: dict[str, object] = {"world": world}
    exec(panel.code(1), told)
    assert method_of(told["config"]) == made.settings.configs
    history = told["history"]
    assert history.scores.plain == made.plain  # type: ignore[attr-defined]
    assert history.scores.augmented == made.augmented  # type: ignore[attr-defined]
    assert history.rows[-1]["loss"] == pytest.approx(made.history.rows[-1]["loss"], rel=1e-3)  # type: ignore[attr-defined]


def test_the_code_shown_follows_the_knobs_and_the_chosen_try(panel: DistillationPanel) -> None:
    panel.run()
    panel.wait(60)
    panel.knobs["hint_weight"].value = 2.5
    assert "hint_weight=2.5" in panel.code_text.value
    panel.table.ticked = [1]
    assert "hint_weight=2.5" not in panel.code_text.value
    panel.table.ticked = []
    assert "hint_weight=2.5" in panel.code_text.value
    with pytest.raises(IndexError, match="try 2 is not there"):
        panel.code(2)


def test_prototypes_are_found_once_for_each_number(panel: DistillationPanel, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []

    def counted(source: PatchFeatures, *, config: DiscoverConfig, **how: Any) -> object:
        found.append(config.num_prototypes)
        return discover(source, config=config, **how)

    monkeypatch.setattr("prockd.runs.arm_students.discover", counted)
    for count in (4, 6, 4, 6):
        panel.knobs["num_prototypes"].value = count
        panel.run()
        panel.wait(60)
    assert found == [6], "4 came with the panel"
    assert len(panel.tries) == 4


def test_stop_ends_the_search_for_prototypes_too_and_forgets_them(
    panel: DistillationPanel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped_at_once(source: PatchFeatures, **how: Any) -> object:
        panel.stop()
        return discover(source, **how)

    panel.knobs["num_prototypes"].value = 5
    config = panel.config().discover
    monkeypatch.setattr("prockd.runs.arm_students.discover", stopped_at_once)
    panel.run()
    panel.wait(60)
    assert panel.tries == ()
    assert panel.status == "Stopped before the first step: there is nothing to keep."
    monkeypatch.undo()
    panel.runner._stop.clear()
    again, whole = panel.runner.bank(config), discover(panel.world.source, config=config, progress=False)
    torch.testing.assert_close(again.assigner.weight, whole.assigner.weight)


def test_a_try_never_changes_the_bank_of_another(panel: DistillationPanel) -> None:
    panel.apply("paper")
    panel.knobs["num_prototypes"].value = 4
    panel.run()
    panel.wait(60)
    bank = panel.runner.bank(panel.config().discover)
    made = panel.tries[0]
    assert made.student.bank is not bank
    assert not bool((made.student.bank.prototypes == bank.prototypes).all()), "the paper's recipe trains the bank"


def test_the_panel_shows_a_picture_and_words_where_there_is_no_kernel(panel: DistillationPanel) -> None:
    panel.run()
    panel.wait(60)
    shown = panel._repr_mimebundle_()
    assert str(shown["image/png"]).startswith("iVBOR")
    assert "1 tries, idle" in str(shown["text/plain"])
    assert bytes(panel.curves.value).startswith(b"\x89PNG")


def test_a_knob_out_of_range_is_refused_by_name() -> None:
    knob = Knob(next(f for f in dataclasses.fields(DistillConfig) if f.name == "temperature"))
    knob.value = 99.0
    assert knob.value == 10, "the field clips as the configuration would refuse"
    with pytest.raises(ConfigError, match=r"DistillConfig.temperature = 99.0: must lie in 0.001..10"):
        DistillConfig(temperature=99.0)


def test_settings_are_a_value(panel: DistillationPanel) -> None:
    assert panel.config() == panel.config()
    assert isinstance(panel.config(), Settings)


def press(widget: Any, button: str) -> None:
    """As a click in the page."""
    widget._handle_custom_msg({"do": button}, [])


def stopped(panel: DistillationPanel, after: int = 3) -> Try:
    """Run the panel's settings and stop them after some steps."""
    step = panel.runner._stepped

    def counted(number: int, row: dict[str, float], *args: object) -> bool:
        if number + 1 == after:
            panel.stop()
        return bool(step(number, row, *args))

    panel.runner._stepped = counted
    panel.run()
    made = panel.wait(60)
    panel.runner._stepped = step
    assert made is not None
    return made


def test_resume_goes_on_where_stop_ended_and_learns_what_an_unbroken_run_learns(panel: DistillationPanel) -> None:
    panel.knobs["steps"].value = 6
    first = stopped(panel)
    assert (first.history.step, first.stopped) == (3, True)
    assert panel.resume_button.disabled is False
    panel.knobs["steps"].value = 5  # the try keeps its own settings
    panel.resume()
    second = panel.wait(60)
    assert second is not None
    assert (second.number, second.resumed, second.history.step, second.stopped) == (2, 1, 6, False)
    assert [row["step"] for row in second.history.rows] == [0, 1, 2, 3, 4, 5]
    assert second.row()["try"] == "2, went on from 1"
    assert second.seconds > first.seconds
    assert panel.tries[0] is first, "the stopped try stays in the table"
    panel.knobs["steps"].value = 6
    panel.run()
    whole = panel.wait(60)
    assert whole is not None
    assert whole.history.rows[-1]["loss"] == pytest.approx(second.history.rows[-1]["loss"], rel=1e-4)
    assert whole.plain == second.plain


def test_what_cannot_be_resumed_is_refused_in_words(panel: DistillationPanel) -> None:
    with pytest.raises(ValueError, match="no try was stopped"):
        panel.resume()
    panel.run()
    panel.wait(60)
    with pytest.raises(ValueError, match="try 1 was not stopped"):
        panel.resume(1)
    panel.resume_button.click()
    assert "only a stopped try can go on" in panel.error
    assert panel.resume_button.disabled is True


def test_the_table_outlives_the_kernel(world: World, bank: PrototypeBank, tmp_path: Path) -> None:
    panel = DistillationPanel(world, bank, folder=tmp_path)
    panel.knobs["num_prototypes"].value = 4
    panel.knobs["steps"].value = 6
    stopped(panel)
    reopened = DistillationPanel(world, bank, folder=tmp_path)
    assert reopened.rows() == panel.rows()
    assert reopened.code(1) == panel.code(1)
    assert reopened.tries[0].history.rows == panel.tries[0].history.rows
    reopened.resume()
    made = reopened.wait(60)
    assert made is not None
    assert (made.number, made.history.step) == (2, 6)


def test_two_panels_on_one_folder_write_two_tries(world: World, bank: PrototypeBank, tmp_path: Path) -> None:
    """As when the cell is run twice, or two worlds keep their tries in one folder."""
    made, panels = [], [DistillationPanel(world, bank, folder=tmp_path) for _ in range(2)]
    for panel, rate in zip(panels, (1e-3, 1e-2), strict=True):
        panel.knobs["num_prototypes"].value, panel.knobs["steps"].value, panel.knobs["lr"].value = 4, 2, rate
        panel.run()
        made.append(panel.wait(60))
    assert [one.number for one in made if one] == [1, 2]
    assert [one.number for one in DistillationPanel(world, bank, folder=tmp_path).tries] == [1, 2]


def test_tries_that_do_not_belong_in_the_table_are_told(world: World, bank: PrototypeBank, tmp_path: Path) -> None:
    panel = DistillationPanel(world, bank, folder=tmp_path)
    panel.knobs["num_prototypes"].value = 4
    panel.knobs["steps"].value = 2
    panel.run()
    panel.wait(60)
    (tmp_path / "try-007").mkdir()
    (tmp_path / "try-007" / "try.json").write_text("{")
    reopened = DistillationPanel(world, bank, folder=tmp_path)
    assert len(reopened.tries) == 1
    assert "try-007" in reopened.error
    assert "JSONDecodeError" in reopened._failed.value
    other = DistillationPanel(World(world.config, world.sets | {"val": features(6, "new", 9)}), bank, folder=tmp_path)
    assert other.tries == ()
    assert "scored on other validation images" in other.error


@pytest.mark.parametrize("fit", ["closed", "trained"])
def test_the_validation_score_is_on_the_curve_while_a_try_is_trained(panel: DistillationPanel, fit: str) -> None:
    panel.knobs["fit"].value = fit
    panel.run()
    made = panel.wait(60)
    assert made is not None
    steps, values = made.history.curve("z")
    assert steps[0] == 0, "the first step is scored"
    assert all(0 <= value <= 1 for value in values)
    assert made.history.curve("z⁺")[0] == steps, "in closed form fitted to what the student is by then"
    assert made.augmented is not None


def test_chosen_tries_are_drawn_over_one_another(panel: DistillationPanel, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in (1, 2):
        panel.knobs["seed"].value = seed
        panel.run()
        panel.wait(60)
    drawn = []

    def recorded(histories: dict[str, History], metric: str, term: str, **size: object) -> bytes:
        drawn.append((histories, metric, term))
        return b""

    monkeypatch.setattr("prockd_widgets.panel_view.curves", recorded)
    panel.overlay(1, 2, term="task")
    assert drawn[-1] == ({f"try {n}": panel.tries[n - 1].history for n in (1, 2)}, "accuracy", "task")
    with pytest.raises(IndexError, match="try 3 is not there"):
        panel.overlay(3)
    with pytest.raises(ValueError, match="term 'tusk': choose one of every term of the loss, "):
        panel.overlay(1, term="tusk")


def test_curves_draw_each_run_and_its_score() -> None:
    rows = [{"step": float(i), "task": 2.0 - i, "hint": 1.0, "z": 0.5} for i in range(2)]
    histories = {"try 1": History(rows, step=2), "try 2": History(rows[:1], step=1)}
    assert terms_of(histories) == ["task", "hint"]
    with_scores = curves(histories, "accuracy", "task")
    without = curves({"try 1": History([{"step": 0.0, "task": 1.0}])}, "accuracy")
    assert with_scores.startswith(b"\x89PNG")
    assert with_scores != without
    assert curves({"this try": History()}, "accuracy") == waiting("curves appear here")


def test_switching_a_prototype_off_measures_the_student_of_the_try(panel: DistillationPanel) -> None:
    panel.run()
    panel.wait(60)
    assert panel.switched.value == 1
    effects = panel.effects(0, 2)
    assert sorted(row["k"] for row in panel.switches.list.rows) == [0, 1, 2, 3]
    student = panel.tries[0].student
    again = prototype_effects(
        student, student.bank, panel.world.images("val"), groups={"p00, p02": [0, 2]}, progress=False
    )
    assert effects.removed == ("p00, p02",)
    np.testing.assert_array_equal(effects.change, again.change)
    assert effects.before[0] == pytest.approx(panel.tries[0].augmented)
    assert len(panel.effects().removed) == 4
    changes = [abs(row["change"][1]) for row in panel.switches.list.rows]
    assert changes == sorted(changes, reverse=True), "those first that change most"


def test_a_removal_is_told_in_words_and_so_is_one_that_changes_nothing(panel: DistillationPanel) -> None:
    panel.run()
    panel.wait(60)
    effects = panel.effects()
    nothing, half = np.zeros_like(effects.change), np.full_like(effects.change, -0.5)
    none = dataclasses.replace(effects, change=nothing, low=nothing, high=nothing)
    assert change_in_words(none) == "Without any one of them no class gains or loses anything, on 9 images."
    some = dataclasses.replace(effects, change=half, low=half - 0.1, high=half + 0.1)
    assert change_in_words(some) == "Without p00: -50.0 points of accuracy (-60.0 to -40.0)."


def test_a_click_switches_off_what_is_chosen_and_says_what_is_wrong(panel: DistillationPanel) -> None:
    press(panel.switches.list, "off")
    panel.switches.wait(60)
    assert "choose one prototype at least" in panel.switches.error
    panel.apply("plain")
    panel.knobs["num_prototypes"].value = 4
    panel.run()
    panel.wait(60)
    panel._switch(now=True)
    press(panel.switches.list, "each")
    panel.switches.wait(60)
    assert "ValueError: this student reads no prototypes" in panel.switches.error
    assert 'role="alert"' in panel.switches._error_message.value
    panel.apply("best")
    panel.knobs["num_prototypes"].value = 4
    panel.run()
    panel.wait(60)
    panel._switch(now=True)
    panel.switches.list.ticked = [1]
    press(panel.switches.list, "off")
    panel.switches.wait(60)
    assert panel.switches.error == ""
    assert panel.switches.effects.prototypes == ((1,),)
    assert not panel.switches.running


def test_names_of_prototypes_are_text_and_never_run(world: World, bank: PrototypeBank) -> None:
    bank = copy.deepcopy(bank)
    bank.names[0] = "<script>alert(1)</script>"
    student = Student("resnet10t", world.task, bank, feature_augmentation=FeatureAugmentationConfig(), image_px=SIZE,
                      channels=(8, 16, 24, 32), stem_width=8)  # fmt: skip
    switches = PrototypeSwitches(student.eval(), world.images("val"))
    with pytest.raises(ValueError, match="part maps are not fitted yet: train it first"):
        switches.switch_off(0)
    C = world.task.num_classes
    student.feature_augmentation.set_reading(torch.zeros(bank.prototypes.numel(), C), torch.zeros(C))
    switches.switch_off(0)
    assert switches.list.rows[0]["name"] == bank.names[0], "the list writes names as text"
    shown = switches._table.value + switches._status_line.value + switches._error_message.value
    assert "<script" not in shown
    assert "&lt;script&gt;" in shown


def test_switches_take_the_options_of_ipywidgets_and_a_student_of_any_device(world: World, bank: PrototypeBank) -> None:
    student = Student("resnet10t", world.task, copy.deepcopy(bank), image_px=SIZE, channels=(8, 16, 24, 32),
                      stem_width=8)  # fmt: skip
    student.bank.disable(1)
    with fake_device() as device:
        switches = PrototypeSwitches(
            student.to(device), world.images("val"), layout=ipywidgets.Layout(width="50%"), tooltip="Try it"
        )
    assert (switches.layout.width, switches.tooltip) == ("50%", "Try it")
    assert sorted(row["k"] for row in switches.list.rows) == [k for k in range(bank.num_prototypes) if k != 1]
    with pytest.raises(TypeError, match="PrototypeSwitches takes no argument 'layuot': did you mean layout"):
        PrototypeSwitches(None, world.images("val"), layuot=None)


@pytest.mark.slow
def test_importing_the_widgets_does_not_import_umap() -> None:
    code = "import sys; from prockd_widgets import *; sys.exit('umap' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def walk(widget: ipywidgets.Widget) -> list[ipywidgets.Widget]:
    """A widget and all that is in it."""
    return [widget, *(inner for child in getattr(widget, "children", ()) for inner in walk(child))]


def test_the_panel_takes_any_task_and_ones_own_images(tmp_path: Path) -> None:
    names = {"train": 8, "val": 5}
    sets = {}
    for i, (name, count) in enumerate(names.items()):
        given = features(count, name, i)
        masks = np.tile(np.arange(SIZE) // (SIZE // 2), (count, SIZE, 1)).astype(np.uint8)  # left and right half
        images = dataclasses.replace(given.images, classes=("left", "right"), masks=masks, labels=np.full(count, -1))
        sets[name] = dataclasses.replace(given, images=images)
    config = set_values(task_settings("segmentation"), [f"student.image_px={SIZE}", f"data.path={tmp_path}"])
    panel = DistillationPanel(World(config, sets), folder=tmp_path)
    panel.knobs["num_prototypes"].value = 4
    panel.knobs["steps"].value = 2
    assert panel.knobs["labels_per_class"].number.max == 4, "eight images of two classes, whatever they show"
    panel.run()
    made = panel.wait(60)
    assert made is not None
    assert made.settings.task == "segmentation"
    assert made.settings.changes() == {"num_prototypes": 4}
    assert made.history.scores is not None
    assert made.history.scores.metric == "mean IoU"


# Part maps and soft targets


def test_the_knobs_of_part_maps_and_soft_targets_are_there_and_begin_where_the_preset_does(
    panel: DistillationPanel,
) -> None:
    _, augment, training = method_of(start_config("best"))
    for config in (augment, training):
        for name in {"content", "fit", "num_maps", "feature_weight", "soft_weight", "soft_reads", "soft_steps"}:
            if hasattr(config, name):
                assert panel.knobs[name].value == getattr(config, name), name
    for name in ("feature_weight", "soft_weight", "lr", "unlabelled_batch"):
        slider, value = panel.knobs[name].slider, getattr(training, name)
        low, high = (10**slider.min, 10**slider.max) if name == "lr" else (slider.min, slider.max)
        assert low < value < high, name  # the slider reaches the usual value and beyond it


def test_labels_alone_have_no_knob_of_the_teacher_left() -> None:
    training = start_config("plain").distill
    weights = {f.name: getattr(training, f.name) for f in dataclasses.fields(training) if f.name.endswith("_weight")}
    assert training.rival == "none"
    del weights["rival_weight"]  # of that rival
    assert set(weights.values()) == {0.0}, weights
    assert training.unlabelled_batch == training.label_free_steps == 0
