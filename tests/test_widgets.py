import dataclasses
import subprocess
import sys
import time

import ipywidgets
import numpy as np
import pytest
from prockd_widgets import PRESETS, DistillationPanel, Settings
from prockd_widgets.knobs import Knob

from prockd import AugmentConfig, DiscoverConfig, DistillConfig, PackedImages, PatchFeatures, PrototypeBank, discover
from prockd.config import ConfigError
from prockd.pipeline import World

SIZE, CLASSES = 32, ("cow", "hen", "pig")


def images(count: int, name: str, seed: int) -> PackedImages:
    """Noise of a different colour for each class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(CLASSES)
    pixels = rng.integers(0, 128, (count, 3, SIZE, SIZE), np.uint8)
    pixels[np.arange(count), labels] += 120
    return PackedImages(pixels, labels, tuple(f"{name}/{i}" for i in range(count)), CLASSES, f"{name}-{seed}")


def features(count: int, name: str, seed: int) -> PatchFeatures:
    packed, rng = images(count, name, seed), np.random.default_rng(seed)
    maps = tuple(rng.normal(size=(count, 2, d, n, n)).astype(np.float16) for d, n in ((6, 4), (8, 2)))
    return PatchFeatures(maps, packed, "teacher", (2, 3))


def tiny_world() -> World:
    return World(*(features(n, name, i) for i, (n, name) in enumerate(
        [(12, "source"), (12, "train"), (9, "unlabelled"), (9, "val"), (6, "test")])))  # fmt: skip


@pytest.fixture(scope="module")
def world() -> World:
    return tiny_world()


@pytest.fixture(scope="module")
def bank(world: World) -> PrototypeBank:
    return discover(world.source, 4, progress=False)


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
    assert "temperature=0.25" in panel._table.value
    assert "val" not in made.row()
    assert made.row()["steps"] == "3"


def test_tries_are_scored_on_the_validation_images(panel: DistillationPanel, world: World) -> None:
    panel.run()
    made = panel.wait(60)
    assert made is not None
    assert made.history.scores is not None
    np.testing.assert_array_equal(made.history.scores.labels, world.val.images.labels)


def test_stop_keeps_the_result_so_far_within_two_seconds(panel: DistillationPanel) -> None:
    panel.knobs["steps"].value = 100_000
    panel.run()
    deadline = time.monotonic() + 60
    while panel.history.step < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    asked, reached = time.monotonic(), panel.history.step
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
    find = panel._bank

    def stopped_meanwhile(config: DiscoverConfig) -> object:
        panel.stop()
        return find(config)

    monkeypatch.setattr(panel, "_bank", stopped_meanwhile)
    panel.run()
    assert panel.wait(60) is None
    assert "nothing to keep" in panel.status


def test_an_exception_shows_its_message(panel: DistillationPanel) -> None:
    panel.world = dataclasses.replace(
        panel.world, labelled=dataclasses.replace(panel.world.labelled, teacher="another one")
    )
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
    assert panel._thread.ident is None
    assert panel.tries == ()


def test_a_slider_moves_its_number_and_a_typed_number_may_pass_its_slider(panel: DistillationPanel) -> None:
    knob = panel.knobs["assignment"]
    knob.slider.value = 4.5
    assert knob.value == 4.5
    knob.value = 60.0
    assert (knob.value, knob.slider.value) == (60.0, knob.slider.max)
    panel.knobs["lr"].slider.value = 0.0031622
    assert panel.knobs["lr"].value == 0.0032


def test_knob_ranges_units_and_sentences_come_from_the_configuration(panel: DistillationPanel) -> None:
    fields = {f.name: f for kind in (DiscoverConfig, AugmentConfig, DistillConfig) for f in dataclasses.fields(kind)}
    for name, knob in panel.knobs.items():
        if name == "labels_per_class":
            continue
        meta = fields[name].metadata
        shown = [w.value for w in walk(knob) if isinstance(w, ipywidgets.HTML)]
        assert any(meta["about"].replace("'", "&#x27;") in text for text in shown), name
        if "options" in meta:
            assert knob.number.options == meta["options"]
        else:
            assert (knob.number.min, knob.number.max) == (meta["low"], meta["high"])
            assert any(meta["unit"] in text for text in shown)


def test_every_control_has_a_name(panel: DistillationPanel) -> None:
    for each in walk(panel):
        if isinstance(each, ipywidgets.HTML | ipywidgets.Box | ipywidgets.Image):
            continue
        assert each.description or each.tooltip, each


def test_labels_per_class_reach_what_the_world_has(panel: DistillationPanel, world: World) -> None:
    assert panel.knobs["labels_per_class"].number.max == 4
    panel.knobs["labels_per_class"].value = 2
    panel.run()
    made = panel.wait(60)
    assert made is not None
    assert made.settings.labels_per_class == 2
    assert len(world.few(made.settings.labels_per_class).labelled) == 6


@pytest.mark.parametrize("preset", list(PRESETS))
def test_presets_set_the_knobs_and_leave_the_budget(panel: DistillationPanel, preset: str) -> None:
    panel.knobs["seed"].value = 5
    panel.apply(preset)
    settings = panel.config()
    found, augment, training = PRESETS[preset][0]()
    assert settings.discover == found
    assert settings.augment == augment
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
    assert (told["discover"], told["augment"], told["distill"]) == made.settings.configs
    history = told["history"]
    assert history.scores.plain == made.plain  # type: ignore[attr-defined]
    assert history.scores.augmented == made.augmented  # type: ignore[attr-defined]
    assert history.rows[-1]["loss"] == pytest.approx(made.history.rows[-1]["loss"], rel=1e-3)  # type: ignore[attr-defined]


def test_the_code_shown_follows_the_knobs_and_the_chosen_try(panel: DistillationPanel) -> None:
    panel.run()
    panel.wait(60)
    panel.knobs["hint"].value = 2.5
    assert "hint=2.5" in panel.code_text.value
    panel.code_of.value = 1
    assert "hint=2.5" not in panel.code_text.value
    with pytest.raises(IndexError, match="try 2 is not there"):
        panel.code(2)


def test_prototypes_are_found_once_for_each_number(panel: DistillationPanel, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []

    def counted(source: PatchFeatures, *, config: DiscoverConfig, progress: bool) -> object:
        found.append(config.num_prototypes)
        return discover(source, config=config, progress=progress)

    monkeypatch.setattr("prockd_widgets.panel.discover", counted)
    for count in (4, 6, 4, 6):
        panel.knobs["num_prototypes"].value = count
        panel.run()
        panel.wait(60)
    assert found == [6], "4 came with the panel"
    assert len(panel.tries) == 4


def test_a_try_never_changes_the_bank_of_another(panel: DistillationPanel) -> None:
    panel.apply("paper")
    panel.knobs["num_prototypes"].value = 4
    panel.run()
    panel.wait(60)
    bank = panel._bank(panel.config().discover)
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


def test_importing_the_widgets_does_not_import_umap() -> None:
    told = "import sys, prockd_widgets; sys.exit('umap' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", told], check=False).returncode == 0


def walk(widget: ipywidgets.Widget) -> list[ipywidgets.Widget]:
    """A widget and all that is in it."""
    return [widget, *(inner for child in getattr(widget, "children", ()) for inner in walk(child))]
