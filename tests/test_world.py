"""The Farmyard experiment and what is built on it: the demo, the teacher's own training, the command line."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from prockd import DiscoverConfig, DistillConfig, FeatureAugmentationConfig, Teacher, discover
from prockd.cli import app
from prockd.prototypes.bank import PrototypeBank
from prockd.runs import RECIPES, World, open_world, task_settings, train_student
from prockd.runs.demo import run_demo
from prockd.runs.recipes import Recipe, alone_beside, fallback
from prockd.runs.sets import farmyard_sets
from prockd.settings import ConfigError, set_values


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    patch = pytest.MonkeyPatch()
    patch.setenv("PROCKD_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield open_world(per_class=4, num_discover=24, num_unlabelled=20, num_val=10, num_test=20, progress=False)
    patch.undo()


@pytest.fixture(scope="module")
def bank(world):
    config = DiscoverConfig(num_prototypes=8, embed_dim=16, steps=2, max_patches=2000)
    return discover(world.source, config=config, progress=False)


def test_no_set_of_the_world_shares_an_image_with_another(world):
    sets = [world.source, *map(world.features, ("train", "unlabelled", "val", "test"))]
    seen = [image.tobytes() for features in sets for image in np.asarray(features.images.pixels)]
    assert len(set(seen)) == len(seen)


def test_the_form_of_the_settings_is_that_of_every_set():
    config = task_settings("segmentation")
    varied = replace(config, data=config.data.replace(form="varied", num_discover=3, num_val=3))
    for name, images in farmyard_sets(varied, 96).items():
        assert images.form == "varied", name
        assert images.fingerprint != farmyard_sets(config, 96)[name].fingerprint
    with pytest.raises(ConfigError, match=r"form = 'loose': choose one of 'framed', 'varied'"):
        config.data.replace(form="loose")


def test_unlabelled_and_source_images_carry_no_label(world):
    assert (np.asarray(world.features("unlabelled").images.labels) == -1).all()
    assert (np.asarray(world.source.images.labels) == -1).all()


def test_fewer_labels_are_a_balanced_part_of_more(world):
    two, one = world.few(2), world.few(1)
    assert np.bincount(two.features("train").images.labels).tolist() == [2] * 10
    ids = [set(some.features("train").images.ids) for some in (one, two, world)]
    assert ids[0] < ids[1] < ids[2]


@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_the_same_code_trains_every_task(task, world, bank):
    sizes = {"per_class": 1, "num_discover": 24, "num_unlabelled": 4, "num_val": 4, "num_test": 4}
    config = set_values(task_settings(task), [f"teacher.image_px={world.teacher.image_px}"])
    other = open_world(config, progress=False, **sizes)
    steps = {"steps": 2, "batch_size": 4, "unlabelled_batch": 2}
    for teacher in (True, False):
        recipe = other.config.distill if teacher else RECIPES[task].alone
        config = recipe.replace(**steps | ({} if teacher else {"unlabelled_batch": 0}))
        _, history = train_student(other, bank, FeatureAugmentationConfig(), config, teacher=teacher, on="val")
        assert history.scores.metric == other.task.metric
        assert history.scores.augmented is not None
        assert ("feature" in history.rows[-1]) is teacher


def test_an_unknown_task_is_answered_with_those_there_are():
    with pytest.raises(ConfigError, match=r"task\.kind = 'counting': choose one of .*'classification'"):
        open_world(task="counting")


def test_few_counts_images_where_they_have_no_single_label():
    parts = open_world(task_settings("segmentation", teacher="none"), per_class=4, progress=False)
    count, classes = len(parts.images("train")), len(parts.task.classes)
    assert len(parts.few(2).images("train")) == 2 * classes
    assert len(parts.few(100).images("train")) == count
    assert set(parts.few(1).images("train").ids) < set(parts.few(2).images("train").ids)


def test_own_images_open_in_the_same_world_and_a_part_is_set_aside_for_tuning(tmp_path, stripes):
    for m in range(len(stripes)):
        folder = tmp_path / "photos" / stripes.classes[m % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(stripes[m].image).save(folder / f"{m}.png")
    config = set_values(
        task_settings(), ["teacher.name=none", "student.image_px=32", f"data.path={tmp_path / 'photos'}"]
    )
    world = open_world(config, val_part=0.25, progress=False)
    ids = [set(world.images(name).ids) for name in ("train", "val", "test")]
    assert len(set.union(*ids)) == sum(map(len, ids)) == 12
    assert world.images("source") is world.images("train")
    whole = open_world(config, progress=False)
    with pytest.raises(ValueError, match=r"no images to tune on: .* data\.val_part"):
        whole.images("val")
    with pytest.raises(ValueError, match="no teacher, so there are no features of 'train'"):
        whole.features("train")


def test_a_student_can_start_from_another_ones_backbone(world, bank):
    config = DistillConfig(steps=1, batch_size=8, unlabelled_batch=4)
    first, _ = train_student(world, bank, None, config, on="val")
    torch.manual_seed(0)
    second, history = train_student(
        world, bank, FeatureAugmentationConfig(), config.replace(lr=0.0), on="val", start=first.state_dict()
    )
    weights = dict(first.named_parameters())
    same = [torch.equal(p, weights[n]) for n, p in second.named_parameters() if n.startswith(("backbone.", "adapter."))]
    assert all(same)
    assert history.scores is not None
    assert history.scores.augmented is not None


def kept(folder) -> dict[str, int]:
    """How many entries of each kind a cache holds."""
    return {path.name: len(list(path.iterdir())) for path in folder.iterdir()}


@pytest.fixture
def fresh(tmp_path, monkeypatch) -> World:
    """A world of which nothing is cached, and whose teacher's size is not the usual one."""
    monkeypatch.setenv("PROCKD_CACHE", str(tmp_path))
    teacher = Teacher("farmyard", image_px=64)
    sizes = {"per_class": 2, "num_discover": 24, "num_unlabelled": 8, "num_val": 6, "num_test": 10}
    return open_world(teacher=teacher, progress=False, **sizes)


def found(world: World, **changes) -> PrototypeBank:
    config = DiscoverConfig(num_prototypes=8, embed_dim=16, steps=1, max_patches=500).replace(**changes)
    return discover(world.source, config=config, progress=False)


def test_nothing_on_the_way_from_images_to_scores_keeps_a_raw_map(fresh, tmp_path):
    bank = found(fresh)
    config = DistillConfig(steps=1, batch_size=8, unlabelled_batch=4)
    train_student(fresh, bank, None, config)
    bank.assignments(fresh.embedded("test", bank))
    assert 0 <= fresh.probe() <= 1
    assert kept(tmp_path) == {"images": 4, "compact": 1, "directions": 1, "embedded": 3}  # "val" was not asked for


def test_raw_maps_are_kept_of_what_needs_them_alone(fresh, tmp_path):
    bank = found(fresh)
    short = DistillConfig(steps=1, batch_size=8, unlabelled_batch=0, soft_weight=0.0)
    train_student(fresh, bank, None, short.replace(hint_weight=1.0), on="val")
    train_student(fresh, bank, None, short.replace(train_bank=True), on="val")
    train_student(fresh, None, None, short.replace(feature_weight=0.0))
    assert kept(tmp_path)["features"] == 1
    assert len(fresh.look("test", 3)) == 3
    assert kept(tmp_path)["features"] == 2


def test_a_look_at_a_set_shows_several_classes(fresh):
    """Farmyard's classes come by turns: images in even steps could all be of one."""
    fresh.config = replace(fresh.config, data=fresh.config.data.replace(num_test=60))
    fresh.sets["test"] = farmyard_sets(fresh.config, 64)["test"]
    assert len(np.unique(fresh.look("test", 7).images.labels)) >= 4


def test_the_images_are_drawn_at_the_size_the_teacher_sees(fresh):
    assert {fresh.images(name).image_px for name in fresh.sets} == {64}
    assert fresh.sets["train"].image_px == 64
    assert fresh.source.grid == fresh.teacher.grid == (8, 8)


@pytest.mark.parametrize("task", list(RECIPES))
def test_labels_alone_see_images_at_the_side_that_the_taught_see_them_at(task):
    taught = open_world(task_settings(task), progress=False)
    alone = open_world(set_values(task_settings(task, teacher="none"), ["teacher.name=none"]), progress=False)
    assert alone.image_px == alone.sets["train"].image_px == taught.image_px
    assert alone.sets["train"].fingerprint == taught.sets["train"].fingerprint
    assert alone.config.student.image_px < alone.image_px


def test_where_nobody_says_what_a_teacher_would_read_images_have_the_students_side(packed):
    config = set_values(task_settings(teacher="none"), ["teacher.name=none", "data.path=ignored"])
    sets = {"train": packed, "test": packed}
    assert World(config, sets, progress=False).image_px == config.student.image_px
    told = set_values(config, ["teacher.image_px=64"])
    assert World(told, sets, progress=False).image_px == 64


def test_another_bank_of_the_same_space_reads_what_the_first_one_left(fresh, tmp_path, monkeypatch):
    first, second, third = found(fresh), found(fresh, num_prototypes=5), found(fresh, embed_dim=12)
    fresh.embedded("train", first)
    monkeypatch.setattr(Teacher, "forward", lambda self, images: pytest.fail("the teacher ran again"))
    assert fresh.embedded("train", second) is fresh.embedded("train", first)
    with pytest.raises(pytest.fail.Exception, match="the teacher ran again"):
        fresh.embedded("train", third)


def test_fewer_labels_read_the_rows_that_more_labels_left(fresh, monkeypatch):
    bank = found(fresh)
    whole = fresh.embedded("train", bank)
    monkeypatch.setattr(Teacher, "forward", lambda self, images: pytest.fail("the teacher ran again"))
    one = fresh.few(1)
    part = one.embedded("train", bank)
    assert part.maps is whole.maps
    assert part.images.ids == one.images("train").ids
    rows = [whole.images.ids.index(name) for name in part.images.ids]
    np.testing.assert_array_equal(part.embedded(range(10)), whole.embedded(rows))
    assert one.source is fresh.source


def test_a_probe_reads_the_same_means_whatever_is_there(fresh):
    bank = found(fresh)
    before = fresh.pooled("train")
    fresh.embedded("train", bank)
    np.testing.assert_allclose(fresh.pooled("train"), before, atol=1e-6)
    fresh.features("train")
    np.testing.assert_allclose(fresh.pooled("train"), before, atol=2e-3, rtol=2e-3)


def test_what_a_student_reads_does_not_depend_on_what_was_asked_for_before(fresh, packed):
    config, teacher = task_settings(), fresh.teacher
    worlds = [World(config, {"train": packed, "test": packed}, teacher=teacher, progress=False) for _ in range(2)]
    bank = found(worlds[0])
    worlds[1].features("train")  # raw maps, and no prototypes found here: a run that is resumed reads its bank
    first, second = (world.embedded("train", bank).maps for world in worlds)
    np.testing.assert_array_equal(first, second)


def test_images_that_serve_for_all_pass_the_teacher_once_a_view(fresh, packed, monkeypatch):
    config = set_values(task_settings(), ["data.path=ignored"])
    own = World(config, {"train": packed, "test": packed}, teacher=fresh.teacher, progress=False)
    bank = found(own)
    monkeypatch.setattr(Teacher, "forward", lambda self, images: pytest.fail("the teacher ran again"))
    embedded = own.embedded("unlabelled", bank)
    assert embedded is own.embedded("train", bank) is own.embedded("source", bank)
    assert embedded.views == ("plain", "mirrored", "recoloured")
    assert own.pooled("train").shape == (12, 608)


def test_the_student_has_at_most_a_tenth_of_the_teachers_parameters(world, bank):
    student, _ = train_student(world, bank, None, DistillConfig(steps=1, batch_size=8), on="val")
    assert student.plain_parameters <= 0.1 * sum(p.numel() for p in Teacher("farmyard").parameters())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Tensorflow not installed:ImportWarning")
def test_the_demo_writes_one_report_that_needs_no_network(tmp_path, monkeypatch):
    monkeypatch.setenv("PROCKD_CACHE", str(tmp_path / "cache"))
    path = run_demo(tmp_path / "demo", seeds=1, steps=2, images=40)
    html = path.read_text()
    assert not re.findall(r"(?:src|href)=.https?:", html)
    results = json.loads((tmp_path / "demo" / "results.json").read_text())
    kinds = [row["student learns from"] for row in results["students"]]
    assert kinds == ["labels alone", "labels + teacher", "(linear probe on the teacher)"]
    asked = {"purity", "place", "crops_purity", "crops_place", "nmi_part", "nmi_place", "stability", "mirror", "parts"}
    assert asked <= set(results["prototypes"]), "place stands beside purity"
    for told in ("labels + teacher", "Is there a tail?", "place in the image", "5 nearest places"):
        assert told in html
    assert (tmp_path / "demo" / "prototypes.safetensors").is_file()


def test_the_command_line_tells_its_commands():
    told = CliRunner().invoke(app, ["--help"])
    assert told.exit_code == 0
    assert "demo" in told.output
    assert "train-teacher" in told.output


def test_a_recipe_with_unlabelled_images_takes_as_many_labelled_ones_where_there_are_none(monkeypatch):
    monkeypatch.setitem(RECIPES, "classification", Recipe(distill=DistillConfig(batch_size=20, unlabelled_batch=12)))
    own = task_settings()
    assert (own.distill.batch_size, own.distill.unlabelled_batch) == (20, 12)
    instead = fallback(own).distill
    assert (instead.batch_size, instead.unlabelled_batch) == (32, 0)
    asked = set_values(own, ["distill.unlabelled_batch=5"])
    assert fallback(asked) == asked, "who asks for another number gets it"


def test_labels_alone_have_the_recipe_that_is_best_for_them_and_the_budget_of_the_run():
    distill = RECIPES["detection"].distill.replace(steps=7, batch_size=5, unlabelled_batch=4, seed=3, min_crop=0.8)
    alone = alone_beside("detection", distill)
    assert (alone.steps, alone.batch_size, alone.unlabelled_batch, alone.seed, alone.min_crop) == (7, 9, 0, 3, 0.8)
    assert alone.lr == RECIPES["detection"].alone.lr != distill.lr
