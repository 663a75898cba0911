import dataclasses
import json

import pytest

from prockd.settings.knobs import ConfigError
from prockd.settings.method import DiscoverConfig, DistillConfig, FeatureAugmentationConfig, best, paper

CONFIGS = (DiscoverConfig, FeatureAugmentationConfig, DistillConfig)
FIELDS = [pytest.param(c, f, id=f"{c.__name__}.{f.name}") for c in CONFIGS for f in dataclasses.fields(c)]
NUMBERS = [p for p in FIELDS if "low" in p.values[1].metadata]
CHOICES = [p for p in FIELDS if "options" in p.values[1].metadata]
SWITCHES = [p for p in FIELDS if isinstance(p.values[1].default, bool)]


def made(config, name, value):
    """A config with one knob set, checked by its own rules alone (jaxtyping would check the types before them)."""
    made = object.__new__(config)
    for field in dataclasses.fields(config):
        object.__setattr__(made, field.name, value if field.name == name else field.default)
    made.__post_init__()
    return made


@pytest.mark.parametrize(("config", "field"), FIELDS)
def test_every_knob_says_what_it_is_for(config, field):
    assert len(field.metadata["help"]) > 10
    assert field.metadata["help"].endswith(".")


@pytest.mark.parametrize(("config", "field"), NUMBERS)
def test_a_number_outside_its_range_is_refused_with_the_range(config, field):
    low, high = field.metadata["low"], field.metadata["high"]
    for value in [low - 1, high + 1] if low is not None else [high + 1]:
        with pytest.raises(ConfigError, match=rf"{config.__name__}\.{field.name} = .*{low}\.\.{high}"):
            made(config, field.name, value)
    edges = [made(config, field.name, edge) for edge in (low, high)]
    assert [getattr(e, field.name) for e in edges] == [low, high]


@pytest.mark.parametrize(("config", "field"), NUMBERS)
@pytest.mark.parametrize("value", [float("nan"), "4", None, True])
def test_what_is_no_number_is_refused(config, field, value):
    with pytest.raises(ConfigError, match=field.name):
        made(config, field.name, value)


@pytest.mark.parametrize(("config", "field"), [p for p in NUMBERS if isinstance(p.values[1].default, int)])
def test_half_a_step_or_half_an_image_is_refused(config, field):
    with pytest.raises(ConfigError, match=f"{field.name} = .*whole"):
        made(config, field.name, field.default + 0.5)


@pytest.mark.parametrize(("config", "field"), CHOICES)
def test_an_unknown_word_is_answered_with_the_words_there_are(config, field):
    with pytest.raises(ConfigError, match=repr(field.metadata["options"][-1])):
        made(config, field.name, "sideways")
    assert field.default in field.metadata["options"]


@pytest.mark.parametrize(("config", "field"), [p for p in NUMBERS if isinstance(p.values[1].default, float)])
def test_a_whole_number_where_a_fraction_may_stand_becomes_a_float(config, field):
    assert type(getattr(made(config, field.name, field.metadata["high"]), field.name)) is float


@pytest.mark.parametrize(("config", "field"), SWITCHES)
def test_a_switch_is_true_or_false_and_nothing_else(config, field):
    with pytest.raises(ConfigError, match=field.name):
        made(config, field.name, "no")


def test_replace_changes_one_knob_of_a_copy_and_checks_it():
    first = DistillConfig()
    second = first.replace(lr=0.001)
    assert (first.lr, second.lr) == (DistillConfig().lr, 0.001)
    assert second.replace(lr=first.lr) == first
    with pytest.raises(ConfigError, match=r"no knob 'learning_rate'.*\blr\b"):
        first.replace(learning_rate=0.1)
    with pytest.raises(ConfigError, match=r"no knob 'stpes'. Did you mean 'steps'\?"):
        DistillConfig(stpes=3)
    with pytest.raises(ConfigError, match=r"DistillConfig\.lr = -1"):
        first.replace(lr=-1.0)


def test_a_config_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        DistillConfig().lr = 1.0


@pytest.mark.parametrize("config", [c for preset in (paper(), best()) for c in preset])
def test_a_config_survives_json(config):
    assert type(config)(**json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_the_paper_preset_is_the_literal_reading():
    discovery, augment, training = paper()
    assert (discovery.num_prototypes, discovery.init, discovery.steps) == (72, "uniform", 0)
    assert (augment.content, augment.residual) == ("attention", "relu")
    assert not augment.conditional
    assert not augment.scaled
    assert training.assignment_weight == training.feature_weight == training.hint_weight == 0  # no transfer term
    assert training.soft_weight == training.unlabelled_batch == 0
    assert min(training.augmented_weight, training.teacher_branch_weight, training.consistency_weight) > 0
    assert training.train_bank  # its prototypes are learned by the task losses


def test_the_best_preset_transfers_in_the_space_of_prototypes_and_reads_part_maps():
    discovery, augment, training = best()
    assert discovery.init == "kmeans"
    assert (augment.content, augment.fit) == ("part_maps", "closed")
    assert training.feature_weight > 0
    assert min(training.soft_weight, training.unlabelled_batch) > 0
    assert training.assignment_weight == 0  # an ablation
    assert training.hint_weight == 0  # the hint is a rival, not a part
