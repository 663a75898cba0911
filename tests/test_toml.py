import dataclasses
import tomllib

import pytest

from prockd.settings.experiment import PRESETS, SMALL_STUDENT, ExperimentConfig
from prockd.settings.knobs import ConfigError
from prockd.settings.toml import differences, in_line, read_config, set_values, to_toml, write_config


@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_written_is_read_back_the_same(preset, tmp_path):
    config = ExperimentConfig.preset(preset)
    config = set_values(config, ["teacher.layers=[1, -1]", "teacher.options.pad_type=same", 'data.path=a "b" \\ ö 🐄'])
    path = write_config(config, tmp_path / "deep" / "config.toml")
    assert read_config(path) == config
    assert config.teacher.options == {"pad_type": "same"}
    assert config.data.path == 'a "b" \\ ö 🐄'


def test_every_knob_stands_in_the_file_below_its_sentence():
    text = to_toml(ExperimentConfig())
    lines, tables = text.splitlines(), tomllib.loads(text)
    for section, knobs in ExperimentConfig().sections().items():
        assert set(tables[section]) == {f.name for f in dataclasses.fields(knobs)}
        for f in dataclasses.fields(knobs):
            about = f.metadata["help"].rstrip(".")
            assert any(line.startswith("# " + about) for line in lines), f.name
    assert lines[lines.index("[data]") - 1].startswith("# What is learned from")
    above = lines[lines.index("warmup = 0.05") - 1]
    assert above == "# Part of the steps over which the learning rate rises (0 to 1)."


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[distil]\nsteps = 3", r"no section \[distil\]; did you mean distill"),
        ("[distill]\nstpes = 3", r"no distill\.stpes; did you mean distill\.steps"),
        (
            "[feature_augmentation]\nembed_dim = 3",
            r"no feature_augmentation\.embed_dim; did you mean discover\.embed_dim",
        ),
        ("[distill]\nlr = -1", r"distill\.lr = -1: must lie in 0\.\.10"),
        ("[distill]\nsteps = 1.5", r"distill\.steps = 1\.5: must be a whole number"),
        ("[distill]\nflip = 1", r"distill\.flip = 1: must be True or False"),
        ("[teacher]\nname = 1", r"teacher\.name = 1: must be text"),
        ("[teacher]\nlayers = [1.5]", r"teacher\.layers = .*list of whole numbers"),
        ("[teacher]\nmean = ['a']", r"teacher\.mean = .*list of numbers"),
        ("[student]\noptions = 3", r"student\.options = 3: must be a table"),
        ("[data]\nfit = 'guess'", r"data\.fit = 'guess': choose one of 'auto'"),
        ("steps = 3", r"no section \[steps\]"),
        ("distill = 3", r"distill is a section"),
        ("[distill", r"is not a TOML file that can be read \(TOMLDecodeError: Expected"),
    ],
)
def test_a_wrong_file_is_told_with_its_name_the_knob_and_what_may_stand_there(text, told, tmp_path):
    path = tmp_path / "my.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"my\.toml.*" + told):
        read_config(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml is not a TOML file that can be read \(no such file"):
        read_config(tmp_path / "none.toml")


def test_what_a_file_does_not_set_comes_from_its_base(tmp_path):
    (tmp_path / "a.toml").write_text("[distill]\nsteps = 3")
    config = read_config(tmp_path / "a.toml", base=ExperimentConfig.preset("paper"))
    assert config.distill.steps == 3
    assert config.discover.num_prototypes == ExperimentConfig.preset("paper").discover.num_prototypes


def test_set_changes_one_knob_and_is_read_as_toml_or_else_as_text():
    config = set_values(ExperimentConfig(), ["distill.steps=500", "distill.lr=1", "data.path=my photos", "data.group="])
    assert (config.distill.steps, config.distill.lr) == (500, 1.0)
    assert (config.data.path, config.data.group) == ("my photos", "")
    twice = set_values(config, ["student.options.depth=2", "student.options.stem_width=9"])
    assert twice.student.options == {**SMALL_STUDENT[1], "depth": 2, "stem_width": 9}


@pytest.mark.parametrize("change", ["steps=3", "distill.steps", "distill.steps=many", "distill=3"])
def test_a_change_that_is_none_is_refused_and_quoted(change):
    with pytest.raises(ConfigError, match=f"--set {change}"):
        set_values(ExperimentConfig(), [change])


def test_another_backbone_does_not_inherit_the_options_of_the_small_student():
    assert ExperimentConfig().student.options == SMALL_STUDENT[1]
    assert set_values(ExperimentConfig(), ["student.backbone=resnet18"]).student.options == {}


def test_differences_are_told_by_name_and_those_of_the_export_are_none():
    first = ExperimentConfig()
    assert differences(first, set_values(first, ["distill.steps=500", "export.format=onnx"])) == [
        "distill.steps was 900, is 500"
    ]


def test_an_unknown_preset_is_answered_with_those_there_are():
    with pytest.raises(ConfigError, match="no preset 'bset'; there are best, paper"):
        ExperimentConfig.preset("bset")


@pytest.mark.parametrize("value", [{"a b": [1, {"c": "x\ny"}]}, [1.5, True, "ö"], -3])
def test_values_on_one_line_mean_the_same(value):
    assert tomllib.loads(f"v = {in_line(value)}")["v"] == value


def test_a_file_in_another_encoding_is_told_with_its_line(tmp_path):
    (tmp_path / "c.toml").write_bytes('[data]\npath = "Kühe"'.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"c\.toml is not a TOML file that can be read \(line 2 is not text in UTF-8"):
        read_config(tmp_path / "c.toml")


@pytest.mark.parametrize(
    ("change", "message"),
    [("task.detector={}", "choose one of 'fcos'"), ('data.group="("', "is no regular expression")],
)
def test_values_of_no_meaning_are_refused_in_words(change, message):
    with pytest.raises(ConfigError, match=message):
        set_values(ExperimentConfig(), [change])
