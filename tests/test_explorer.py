import base64
import copy
import csv
import html
import importlib.util
import json
import re
from dataclasses import replace

import numpy as np
import prockd_widgets.explorer as explorer_module
import prockd_widgets.maps as maps_module
import prockd_widgets.patches as patches_module
import pytest
import torch
import torch.nn.functional as F
import traitlets
from fake_device import fake_device
from ipywidgets import Layout
from PIL import Image
from prockd_widgets import PatchLens, PrototypeExplorer
from prockd_widgets.assets import SCRIPTS, STATIC
from prockd_widgets.kept import kept_frame
from prockd_widgets.patches import choose_images
from prockd_widgets.quality import in_front, quality_columns
from prockd_widgets.table import part_columns, prototype_groups
from widget_world import CLASSES, PART_NAMES, discovered, world

from prockd import PackedImages, PatchFeatures, PrototypeBank, Student
from prockd.evaluation.best_prototypes import PartPrototypes, part_prototypes
from prockd.evaluation.clarity import clarity_of, strongest_vectors
from prockd.evaluation.effects import PrototypeEffects
from prockd.evaluation.embed import Embedding
from prockd.evaluation.patches import lies_on
from prockd.tasks import Classification

N = 16


@pytest.fixture(scope="module")
def features() -> PatchFeatures:
    return world()


@pytest.fixture
def bank(features: PatchFeatures) -> PrototypeBank:
    return discovered(features)


@pytest.fixture
def explorer(bank: PrototypeBank, features: PatchFeatures) -> PrototypeExplorer:
    return PrototypeExplorer(bank, features, part_names=PART_NAMES)


def tiny_student(bank: PrototypeBank) -> Student:
    options = {"channels": (8, 8, 8, 8), "stem_width": 8}
    return Student("resnet10t", Classification(3), bank, image_px=32, layers=(1, 2), **options)


def unpacked_top(explorer: PrototypeExplorer, model: int = 0) -> torch.Tensor:
    """(P, K) shares as the browser reads them."""
    P, K, T = explorer.meta["patches"], explorer.models[model].bank.num_prototypes, explorer.meta["count"]
    data = np.frombuffer(explorer.top[model], np.uint8).reshape(2, P, T)
    shares = torch.zeros(P, K)
    return shares.scatter_(1, torch.from_numpy(data[0].astype(np.int64)), torch.from_numpy(data[1] / 255).float())


def unpacked_codes(widget: PrototypeExplorer | PatchLens, model: int = 0) -> torch.Tensor:
    """(P, D) vectors as the browser reads them."""
    packed = np.frombuffer(widget.codes[model], np.uint8).reshape(widget.meta["patches"], -1)
    levels = np.stack([packed & 15, packed >> 4], 2).reshape(len(packed), -1).astype(np.float32) - 8
    return torch.from_numpy(levels) * torch.tensor(widget.meta["models"][model]["steps"])


# What is sent


def test_the_browser_gets_the_strongest_prototypes_of_each_patch(explorer, bank, features):
    whole = bank.assignments(features).flatten(0, 1)
    sent = unpacked_top(explorer)
    torch.testing.assert_close(sent[sent > 0], whole[sent > 0], atol=6e-3, rtol=0)
    assert (sent.argmax(1) == whole.argmax(1)).all()


def test_likeness_of_what_is_sent_is_close_to_the_cosine(explorer, bank, features):
    u = F.normalize(bank.embed(features.fused(range(12))).detach().flatten(0, 1), dim=-1)
    codes = unpacked_codes(explorer)
    close = np.corrcoef((u @ u.T).flatten().numpy(), (codes @ codes.T).flatten().numpy())[0, 1]
    assert close > 0.98


def test_a_patch_costs_at_most_40_bytes_with_one_model_and_with_two():
    many = world(400)
    bank = discovered(many)
    one = PrototypeExplorer(bank, many, part_names=PART_NAMES).bytes_sent
    two = PrototypeExplorer(bank, many, other=(bank, many), part_names=PART_NAMES).bytes_sent
    assert one.a_patch <= 40
    assert two.a_patch <= 40
    assert one.sheet > 10_000


def test_more_patches_than_allowed_are_whole_images_drawn_at_random_and_told(bank, features):
    shown = PrototypeExplorer(bank, features, max_patches=5 * N, seed=3)
    assert shown.meta["patches"] == 5 * N
    assert shown.meta["note"] == "5 of 12 images are shown, drawn with seed 3"
    again = PrototypeExplorer(bank, features, max_patches=5 * N, seed=3)
    assert shown.images.ids == again.images.ids != PrototypeExplorer(bank, features, max_patches=5 * N).images.ids


def test_of_two_million_patches_only_those_that_are_shown_are_read(bank, features, monkeypatch):
    M = 125_000
    pixels, masks, maps = (
        np.broadcast_to(array[0], (M, *array.shape[1:]))  # one image, over and over, in no memory
        for array in (features.images.pixels, features.images.parts, features.maps[0])
    )
    ids = tuple(f"farm/{i:06d}" for i in range(M))
    images = PackedImages(pixels, np.zeros(M, np.int64), ids, CLASSES, "many", masks)
    read, fused = [], PatchFeatures.fused
    monkeypatch.setattr(
        PatchFeatures, "fused", lambda self, indices, view: read.extend(indices) or fused(self, indices, view)
    )
    explorer = PrototypeExplorer(bank, replace(features, images=images, maps=(maps,)), part_names=PART_NAMES)
    assert M * N == 2_000_000
    assert len(read) == len(set(read)) == 1600
    assert explorer.meta["note"] == "1,600 of 125,000 images are shown, drawn with seed 0"
    assert explorer.meta["patches"] == 25_600
    assert len(patches_module.choose_images(200, 10_000, 0)) == 20


@pytest.fixture
def padded(features: PatchFeatures) -> PatchFeatures:
    """The same patches, of which the left and the right column of each image are bars beside a narrow picture."""
    frames = np.tile(np.array([-8, 0, 24, 32], np.float32), (len(features), 1))
    return replace(features, images=replace(features.images, frames=frames))


def test_bars_beside_padded_pictures_are_neither_counted_nor_placed_nor_selected_nor_near(bank, padded):
    explorer = PrototypeExplorer(bank, padded, part_names=PART_NAMES)
    inside = padded.images.in_picture(padded.grid).ravel()
    assert inside.sum() == len(inside) / 2
    assert (explorer.label() >= 0).tolist() == inside.tolist()
    assert (explorer.soft().sum(1) > 0.99).tolist() == inside.tolist()
    assert (np.frombuffer(explorer.xy[0], np.uint16).reshape(-1, 2)[:, 0] != 0xFFFF).tolist() == inside.tolist()
    assert explorer.map_note == f"PCA of {inside.sum()} patches"
    assert f"{inside.sum()} patches of 12 images" in repr(explorer)
    assert [row["patch"] for row in explorer.rows()] == np.flatnonzero(inside).tolist()
    explorer.selection = [0, 1, 2, 3]
    assert explorer.selection == (1, 2)
    assert all(inside[p] for row in explorer.stats[0] for p, _ in row["near"])
    assert explorer.meta["shown"] == [[0, 4, 1, 3]] * 12
    assert explorer.snapshot().data
    two = PrototypeExplorer(bank, padded, other=(discovered(padded, 4), padded), part_names=PART_NAMES)
    assert sorted(two.meta["match"])[0] >= 0


def test_nothing_is_said_of_bars_where_pictures_fill_their_squares(explorer):
    assert explorer.meta["shown"] is None


def test_the_lens_is_like_nothing_in_the_bars_and_refuses_a_patch_there(padded):
    lens = PatchLens(padded)
    assert lens.patch == 2 * 4 + 2, "it begins in the middle of the first picture"
    assert (lens.likeness()[:, :, [0, 3]] == 0).all()
    assert lens.likeness()[0, 2, 2] == pytest.approx(1, abs=1e-3)
    with pytest.raises(traitlets.TraitError, match="patch 3 shows the bar beside a padded picture"):
        lens.patch = 3


def test_nearest_patches_are_of_one_group_each_before_any_group_has_a_second(bank, features):
    groups = tuple("abc"[m % 3] for m in range(12))
    grouped = replace(features, images=replace(features.images, groups=groups))
    explorer = PrototypeExplorer(bank, grouped, part_names=PART_NAMES)
    for row in explorer.stats[0]:
        images = [p // N for p, _ in row["near"]]
        assert len(set(images)) == 12
        for turn in range(4):
            assert {groups[m] for m in images[3 * turn : 3 * turn + 3]} == set("abc")
    assert explorer.meta["groups"] == [0, 1, 2] * 4


def test_the_table_names_the_clearest_prototype_of_each_part_as_galleries_do(bank, features):
    explorer = PrototypeExplorer(bank, features, part_names=PART_NAMES)
    soft = explorer.soft().reshape(12, N, 5)
    found = part_prototypes(soft, features.images, features.grid, PART_NAMES)
    on = lies_on(features.images.parts, features.grid, 3)
    share = np.array([[on[range(12), soft[:, :, k].argmax(1), part].mean() for part in range(3)] for k in range(5)])
    np.testing.assert_allclose(found.shares, share)
    marked = {part: k for k, row in enumerate(explorer.stats[0]) for part in row["clearest"]}
    assert marked == {part: int(found.prototype[part]) for part in (1, 2)}
    for k, row in enumerate(explorer.stats[0]):
        assert row["share"] == (pytest.approx(found.shares[k, row["part"]], abs=1e-3) if row["part"] else None)
    leg = marked[1]
    bank.disable(leg)
    again = PrototypeExplorer(bank, features, part_names=PART_NAMES)
    assert leg not in {int(k) for k in again.part_prototypes().gallery}
    with pytest.raises(ValueError, match="no part masks"):
        PrototypeExplorer(bank, world(parts=False)).part_prototypes()


def test_without_part_masks_nothing_is_said_about_parts():
    plain = world(parts=False)
    explorer = PrototypeExplorer(discovered(plain), plain)
    assert explorer.meta["parts"] is None
    assert explorer.parts == b""
    assert "part" not in explorer.rows()[0]


def test_the_statistics_name_the_nearest_patches_with_their_distance(explorer, bank, features):
    u = F.normalize(bank.embed(features.fused(range(12))).detach(), dim=-1)
    for k, row in enumerate(explorer.stats[0]):
        cosine = u @ F.normalize(bank.prototypes[k], dim=0).detach()
        p, distance = row["near"][0]
        assert distance == pytest.approx(1 - float(cosine.max()), abs=2e-3)
        assert float(cosine.flatten()[p]) == pytest.approx(float(cosine.max()), abs=2e-3)
        images = [p // N for p, _ in row["near"]]
        assert len(set(images)) == len(images)
        assert row["other"] != k


# Selecting


def test_a_selection_from_the_browser_tells_images_rows_and_columns(explorer):
    explorer.set_state({"selection": memoryview(np.array([17, 35], np.uint32).tobytes())})
    assert explorer.selection == (17, 35)
    rows = explorer.rows()
    assert [(r["image"], r["row"], r["column"], r["part"], r["class"]) for r in rows] == [
        ("farm/001", 0, 1, "background", "hen"), ("farm/002", 0, 3, "background", "pig"),
    ]  # fmt: skip
    assert rows[0]["name"] == explorer.models[0].bank.names[rows[0]["prototype"]]
    assert (rows[0]["seed"], rows[0]["data"]) == (0, "world-12-0")


def test_a_selection_that_is_not_there_is_refused(explorer):
    with pytest.raises(traitlets.TraitError, match=r"numbered 0\.\.191, and 5\.\.192"):
        explorer.selection = (5, 192)


def test_without_pandas_the_frame_is_a_list_of_rows(explorer, monkeypatch):
    explorer.selection = (3,)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert explorer.to_frame() == explorer.rows()
    assert len(explorer.to_frame()) == 1


def test_csv_and_json_hold_the_rows_with_seed_and_data(explorer, tmp_path):
    explorer.selection = (0, 40)
    with explorer.to_csv(tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["patch"], r["data"], r["seed"]) for r in rows] == [("0", "world-12-0", "0"), ("40", "world-12-0", "0")]
    told = json.loads(explorer.to_json(tmp_path / "a.json").read_text())
    assert told["patches"] == explorer.rows()
    assert told["banks"] == explorer.banks


# Names and switches


def test_edits_in_the_browser_reach_the_bank_and_what_is_shown(explorer, bank, features):
    before = bank.assignments(features).flatten(0, 1)
    explorer.set_state(
        {"banks": [{"names": ["leg", "b", "c", "d", "e"], "enabled": [True, False, False, True, True],
                    "merged": [0, 0, 2, 3, 4]}]}
    )  # fmt: skip
    assert bank.names[0] == "leg"
    assert bank.enabled.tolist() == [True, False, False, True, True]
    after = bank.assignments(features).flatten(0, 1)
    rest = 1 - before[:, 2]
    sure = rest > 0.05
    torch.testing.assert_close(after[sure, 0], (before[:, 0] + before[:, 1])[sure] / rest[sure], atol=0.02, rtol=0)
    torch.testing.assert_close(unpacked_top(explorer)[sure], after[sure], atol=0.01, rtol=0)


def test_undo_takes_names_switches_and_centres_back(explorer, bank):
    centres, names = bank.prototypes.detach().clone(), list(bank.names)
    explorer.rename(0, "hoof")
    explorer.merge(1, 2)
    assert not torch.equal(bank.prototypes, centres)
    explorer.disable(3)
    for _ in range(4):
        explorer.undo()
    assert torch.equal(bank.prototypes, centres)
    assert bank.names == names
    assert bank.enabled.all()
    assert explorer.past == []


def test_a_merged_centre_is_weighted_by_the_patches_of_each(explorer, bank):
    centres = bank.prototypes.detach().clone()
    sizes = np.bincount(explorer.label(), minlength=5)
    explorer.merge(0, 4)
    expected = (sizes[0] * centres[0] + sizes[4] * centres[4]) / (sizes[0] + sizes[4])
    torch.testing.assert_close(bank.prototypes[0].detach(), expected.float(), atol=1e-4, rtol=1e-4)


def test_a_bank_without_an_enabled_prototype_or_a_name_is_refused(explorer, bank):
    for change in ({"enabled": [False] * 5}, {"names": ["a", " ", "c", "d", "e"]}, {"merged": [1, 2, 2, 3, 4]}):
        with pytest.raises(traitlets.TraitError, match=r"must stay enabled|do not fit"):
            explorer.banks = [{**explorer.banks[0], **change}]
    assert bank.enabled.all()


def test_names_travel_with_the_saved_bank(explorer, tmp_path):
    explorer.rename(2, "tail")
    explorer.disable(4)
    back = PrototypeBank.load(explorer.save_bank(tmp_path / "bank.safetensors"))
    assert back.names[2] == "tail"
    assert back.enabled.tolist() == [True] * 4 + [False]


def test_what_undo_took_back_is_made_again_until_another_edit(explorer, bank):
    explorer.rename(0, "hoof")
    explorer.merge(1, 2)
    after, merged = explorer.banks, bank.prototypes.detach().clone()
    explorer.undo()
    explorer.undo()
    explorer.redo()
    explorer.redo()
    explorer.redo()
    assert explorer.banks == after
    assert torch.equal(bank.prototypes, merged)
    explorer.undo()
    explorer.disable(4)
    assert explorer.future == []
    explorer.redo()
    assert not bank.enabled[4]


# What kind of thing a prototype is


def test_a_place_in_the_frame_and_what_lives_in_one_image_are_told_from_a_part():
    label = np.full((10, N), 3)
    label[:, 0] = 0  # always the first place
    label[range(10), 1 + np.arange(10)] = 1  # each time another place
    label[4, 11:] = 2  # one image
    soft = torch.nn.functional.one_hot(torch.from_numpy(label), 4).float()
    unit = F.normalize(torch.randn(10, N, 6, generator=torch.Generator().manual_seed(0)), dim=-1)
    columns = quality_columns(unit, soft, label, None)
    assert columns["place"][:2] == [1.0, 0.0]
    assert columns["owner"][:3] == [0.1, 0.1, 1.0]
    grouped = quality_columns(unit, soft, label, tuple("ab" * 5))
    assert grouped["owner"][:3] == [0.5, 0.5, 1.0]
    one = quality_columns(unit[:1], soft[:1], label[:1], None)
    assert one["place"] == one["owner"] == one["clarity"] == [None] * 4


def test_clarity_and_redundancy_of_the_table_are_those_of_clarity_of(explorer, features, bank):
    soft = explorer.soft().reshape(12, N, 5)
    measured = clarity_of(strongest_vectors(bank, features, soft))
    assert np.mean([row["clarity"] for row in explorer.stats[0]]) == pytest.approx(measured.clarity, abs=5e-3)
    assert np.mean([row["redundancy"] for row in explorer.stats[0]]) == pytest.approx(measured.redundancy, abs=5e-3)


def test_prototypes_of_the_middle_are_in_front(features):
    label = np.where(np.isin(np.arange(N) % 4, (1, 2)) & np.isin(np.arange(N) // 4, (1, 2)), 1, 0)[None].repeat(3, 0)
    whole = np.tile(np.array([0, 0, 1, 1], np.float32), (3, 1))
    assert in_front(label, whole, (4, 4), 3).tolist() == [False, True, False]


def test_effects_are_a_column_in_points(bank, features):
    names, members = tuple("abc"), ((0,), (3,), (1, 2))
    change = np.array([[-0.021, 0], [0.004, 0], [-0.5, 0]])
    effects = PrototypeEffects("accuracy", ("all classes", "x"), names, members, change[0], change, change, change, 5)
    rows = PrototypeExplorer(bank, features, effects=effects).stats[0]
    assert [row["effect"] for row in rows] == [-2.1, None, None, 0.4, None]
    assert "effect" not in PrototypeExplorer(bank, features).stats[0][0]


def test_the_answers_of_a_student_of_classes_are_sent_to_be_filtered_by(bank, features):
    explorer = PrototypeExplorer(bank, features, other=tiny_student(bank))
    assert len(explorer.meta["answers"]) == 12
    assert set(explorer.meta["answers"]) <= {0, 1, 2}
    assert PrototypeExplorer(bank, features).meta["answers"] is None


# A picture of one's own


def test_a_picture_of_ones_own_is_like_itself(features, bank, tmp_path):
    explorer = PrototypeExplorer(bank, tiny_student(bank).eval(), images=features.images, part_names=PART_NAMES)
    P = explorer.grid[0] * explorer.grid[1]
    path = tmp_path / "mine.png"
    Image.fromarray(features.images.pixels[5].transpose(1, 2, 0)).save(path)
    for picture in (path, str(path), path.read_bytes(), np.asarray(Image.open(path))):
        explorer.look_at(picture)
        own, there = explorer._own[0].unit, explorer.models[0].unit[5 * P : 6 * P]
        torch.testing.assert_close(own.float(), there.float(), atol=5e-3, rtol=0)
    assert (explorer.image, explorer.show) == (12, "likeness")
    assert 12 * P <= explorer.patch < 13 * P
    length = len(explorer.codes[0]) // 12
    sent, there = (np.frombuffer(data, np.uint8).astype(int) for data in (explorer.own["codes"][0], explorer.codes[0]))
    levels = [np.stack([codes & 15, codes >> 4]) for codes in (sent, there[5 * length : 6 * length])]
    assert np.abs(levels[0] - levels[1]).mean() < 0.1
    assert explorer.snapshot().data
    explorer.look_at(path)
    assert explorer.own["name"] == "mine.png"
    before = explorer.own["top"][0]
    explorer.disable(int(np.frombuffer(before, np.uint8)[0]))
    assert len(before) == len(explorer.own["top"][0]) == 2 * P * explorer.meta["count"]
    assert explorer.own["top"][0] != before


def test_bars_beside_a_wide_picture_of_ones_own_belong_to_nobody(features, bank):
    explorer = PrototypeExplorer(bank, tiny_student(bank), images=features.images)
    explorer.look_at(np.full((20, 40, 3), 90, np.uint8))
    shown = explorer._own[0].shown.reshape(explorer.grid)
    quarter = explorer.grid[0] // 4
    assert shown.all(1).tolist() == [False] * quarter + [True] * 2 * quarter + [False] * quarter
    assert not shown[0].any()


def test_a_picture_that_cannot_be_read_and_features_without_a_teacher_are_refused(explorer, features, bank, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG broken")
    asked = PrototypeExplorer(bank, tiny_student(bank), images=features.images)
    for picture in (tmp_path / "broken.png", tmp_path / "none.png", b"", 3):
        name = picture.name if isinstance(picture, type(tmp_path)) else "the picture"
        with pytest.raises(ValueError, match=f"{name} cannot be read"):
            asked.look_at(picture)
    with pytest.raises(ValueError, match="pass teacher="):
        explorer.look_at(np.zeros((9, 9, 3), np.uint8))
    explorer._on_button("look", {"name": "x.png"}, [memoryview(b"nothing")])
    assert explorer.status.startswith("ValueError: the picture cannot be read")


# Options of every widget


@pytest.mark.parametrize("make", [PrototypeExplorer, lambda bank, features, **o: PatchLens(features, **o)])
def test_a_widget_takes_the_options_of_ipywidgets_and_refuses_others(bank, features, make):
    widget = make(bank, features, layout=Layout(width="50%"), opacity=0.5)
    assert (widget.layout.width, widget.opacity) == ("50%", 0.5)
    with pytest.raises(TypeError, match="takes no argument 'opacty': did you mean opacity"):
        make(bank, features, opacty=0.5)
    with pytest.raises(traitlets.TraitError, match="layout"):
        make(bank, features, layout="pca")


def test_the_map_may_be_a_umap_from_the_start(bank, features, monkeypatch):
    place = Embedding(np.array([[0, 0], [2, 1], [1, 1]], np.float32), np.array([0, 5, 9]), "umap", "UMAP of 3")
    monkeypatch.setattr(maps_module, "embed_2d", lambda vectors, **_: place)
    explorer = PrototypeExplorer(bank, features, projection="umap")
    assert explorer.map_note == "UMAP of 3; the other 189 beside the 3 most alike"
    assert explorer.on_map == "UMAP"
    assert [one["name"] for one in explorer.maps] == ["UMAP", "PCA"]
    assert len(explorer.xy) == 2


def test_an_explorer_opens_on_the_clearest_prototype_and_its_best_picture(bank, features):
    explorer = PrototypeExplorer(bank, features, part_names=PART_NAMES)
    found = explorer.part_prototypes()
    clear = [
        k for k, share in zip(found.prototype, found.share, strict=True) if share >= min(0.9, np.nanmax(found.share))
    ]
    assert explorer.prototype == clear[-1], "of what is clear the rarest: the tail, not the leg"
    assert explorer.patch == explorer.stats[0][explorer.prototype]["near"][0][0]
    assert explorer.image == explorer.patch // N
    assert (explorer.colour_by, explorer.selection) == ("part", ())
    plain = PrototypeExplorer(bank, world(parts=False))
    assert plain.prototype >= 0
    assert plain.colour_by == "group"
    asked = PrototypeExplorer(bank, features, prototype=-1, colour_by="class", image=3)
    assert (asked.prototype, asked.colour_by, asked.image) == (-1, "class", 3)


def test_the_page_that_opens_gets_its_umap_and_a_cached_one_at_once(bank, features, monkeypatch):
    place = Embedding(np.array([[0, 0], [2, 1], [1, 1]], np.float32), np.array([0, 5, 9]), "umap", "UMAP of 3")
    monkeypatch.setattr(maps_module, "embed_2d", lambda vectors, **_: place)
    explorer = PrototypeExplorer(bank, features)
    assert (explorer.on_map, len(explorer.xy)) == ("PCA", 1)
    explorer._on_button("ready")
    explorer._umap.join()
    assert explorer.on_map == "UMAP"
    stays = PrototypeExplorer(bank, features, projection="pca")
    stays._on_button("ready")
    assert not stays._umap.is_alive()
    assert stays.on_map == "PCA"
    monkeypatch.setattr("prockd_widgets.explorer.is_quick", lambda unit, seed: True)
    assert PrototypeExplorer(bank, features).on_map == "UMAP"


def test_prototypes_that_point_the_same_way_are_one_group():
    directions = np.random.default_rng(0).normal(size=(3, 12))
    centres = np.repeat(directions, 4, 0) + 0.01 * np.random.default_rng(1).normal(size=(12, 12))
    groups = prototype_groups(centres, 3)
    assert [len(set(groups[i : i + 4])) for i in (0, 4, 8)] == [1, 1, 1]
    assert sorted(set(groups)) == [0, 1, 2]
    assert prototype_groups(centres[:3]) == [0, 1, 2]


# Two models


def test_a_second_bank_is_matched_to_the_first_one(features, bank):
    order = torch.tensor([3, 1, 4, 0, 2])
    other = discovered(features)
    with torch.no_grad():
        other.prototypes.copy_(bank.prototypes[order])
        other.assigner.weight.copy_(bank.assigner.weight[order])
        other.assigner.bias.copy_(bank.assigner.bias[order])
    explorer = PrototypeExplorer(bank, features, other=(other, features), names=("before", "after"))
    assert explorer.meta["match"] == order.tolist()
    row = explorer.rows()[7]
    assert row["prototype"] == explorer.meta["match"][row["prototype_after"]]


def test_a_student_is_read_on_the_grid_of_the_teacher_and_left_as_it_was(features, bank):
    student = tiny_student(bank).train()
    explorer = PrototypeExplorer(bank, features, other=student)
    assert student.training
    assert explorer.models[1].unit.shape == (12 * N, 12)
    assert explorer.meta["match"] == list(range(5))
    explorer.rename(1, "leg", model=1)
    assert bank.names[1] == "leg"
    alone = PrototypeExplorer(bank, student, images=features.images)
    assert len(alone.images) == 12


# Pages without a kernel


def test_the_offline_page_asks_for_nothing_and_cannot_be_broken_by_a_name(explorer, tmp_path):
    explorer.rename(0, "</script><script>alert(1)</script>")
    page = explorer.export_html(tmp_path / "a.html").read_text()
    assert not re.search(r"https?://|//cdn|@import|<link|\bsrc=", page)
    assert page.count("</script>") == 2
    state = re.search(r'<script type="application/json" id="prockd-state">(.*?)</script>', page, re.S)
    assert json.loads(state[1])["banks"] == explorer.banks
    assert PrototypeExplorer._esm in page


def test_a_saved_notebook_gets_a_picture_and_words(explorer):
    explorer.prototype, explorer.selection = 2, tuple(range(20))
    shown, _ = explorer._repr_mimebundle_()
    assert {"application/vnd.jupyter.widget-view+json", "image/png", "text/plain"} <= shown.keys()
    assert "20 selected" in shown["text/plain"]
    assert explorer.snapshot().data.startswith(b"\x89PNG")


def frame_of(explorer: PrototypeExplorer, **options: int) -> tuple[str, dict]:
    """The output as a notebook keeps it, and the state of the page in it."""
    frame = kept_frame(explorer, **options)
    page = html.unescape(re.search(r"srcdoc='([^']*)'", frame)[1])
    state = re.search(r'<script type="application/json" id="prockd-state">(.*?)</script>', page, re.S)
    return frame, json.loads(state[1])


def test_what_a_notebook_keeps_is_the_explorer_on_some_images_within_a_budget(explorer, bank):
    explorer.selection = tuple(range(12 * N))
    frame, state = frame_of(explorer, max_images=5)
    assert state["meta"]["patches"] == 5 * N
    assert state["meta"]["note"] == "5 of 12 images are kept in this page"
    names = [f"farm/{name}" for name in state["meta"]["ids"]]
    assert explorer.images.ids[explorer.image] in names
    rows = [explorer.images.ids.index(f"{state['meta']['folder']}{name}") for name in state["meta"]["ids"]]
    sent = np.frombuffer(base64.b64decode(state["top"][0]["base64"]), np.uint8).reshape(2, 5 * N, -1)
    whole = np.frombuffer(explorer.top[0], np.uint8).reshape(2, 12, N, -1)
    assert (sent == whole[:, rows].reshape(sent.shape)).all()
    assert state["image"] == rows.index(explorer.image)
    assert state["patch"] == state["image"] * N + explorer.patch % N
    near = [[p // N, d] for p, d in state["stats"][0][0]["near"]]
    assert near == [[rows.index(p // N), d] for p, d in explorer.stats[0][0]["near"] if p // N in rows]
    assert len(frame_of(explorer, max_bytes=len(frame.encode()) - 1000)[0].encode()) < len(frame.encode())
    with pytest.raises(ValueError, match="max_bytes=1,000 holds no image"):
        kept_frame(explorer, max_bytes=1000)


def test_keeping_shows_a_picture_and_the_page_as_outputs_of_their_own(explorer, monkeypatch):
    shown = []
    monkeypatch.setattr(explorer_module, "display", shown.append)
    explorer.keep()
    picture, page = shown
    assert picture.data.startswith(b"\x89PNG")
    assert "<iframe" in page.data
    assert "allow-same-origin" not in page.data


@pytest.mark.parametrize("write", ["to_csv", "to_json", "to_png", "save_bank", "export_html"])
def test_what_is_written_replaces_no_file_unasked(explorer, tmp_path, write):
    path = tmp_path / "mine"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="mine is there already"):
        getattr(explorer, write)(path)
    assert path.read_text() == "mine"
    assert getattr(explorer, write)(path, overwrite=True) == path
    assert path.stat().st_size > 100


def test_buttons_that_need_the_kernel_tell_what_they_did(explorer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    explorer._on_button("bank")
    assert explorer.status == "Saved prototypes.safetensors beside the notebook."
    explorer._on_button("html")
    assert (tmp_path / "explorer.html").stat().st_size > 20_000
    explorer._on_button("bank")
    assert explorer.status == "Saved prototypes-2.safetensors beside the notebook.", "the first one stays"
    monkeypatch.setattr(explorer, "save_bank", lambda: (_ for _ in ()).throw(OSError("disk full")))
    explorer._on_button("bank")
    assert explorer.status == "OSError: disk full"


def test_umap_replaces_the_map_and_patches_that_were_not_drawn_lie_beside_those_that_are_alike(explorer, monkeypatch):
    def few(vectors, **_):
        return Embedding(np.array([[0, 0], [4, 1], [9, 1]], np.float32), np.array([0, 1, 2]), "umap", "UMAP of 3")

    monkeypatch.setattr(maps_module, "embed_2d", few)
    explorer.lay_out().join()
    xy = np.frombuffer(explorer.xy[0], np.uint16).reshape(-1, 2).astype(int)
    assert (xy != patches_module.NOWHERE).all()
    unit = explorer.models[0].unit.float()
    alike = (unit[3:] @ unit[:3].T).argmax(1).numpy()
    far = np.abs(xy[3:, None] - xy[None, :3]).sum(2)
    assert (far.argmin(1) == alike).mean() > 0.9


# Bad input


def test_what_does_not_belong_together_is_refused(bank, features):
    with pytest.raises(ValueError, match="these features come from teacher ffffffff"):
        PrototypeExplorer(bank, replace(features, teacher="f" * 20))
    with pytest.raises(ValueError, match="student: its features are of other images"):
        PrototypeExplorer(bank, features, other=(bank, world(9)))
    with pytest.raises(ValueError, match="pass images="):
        PrototypeExplorer(bank, tiny_student(bank))
    with pytest.raises(ValueError, match="projection='tsne'"):
        PrototypeExplorer(bank, features, projection="tsne")
    with pytest.raises(ValueError, match="2 part names, but the masks have part 2"):
        PrototypeExplorer(bank, features, part_names=("a", "b"))


def test_features_that_are_not_finite_are_refused_with_the_image(bank, features):
    maps = features.maps[0].copy()
    maps[4, 0, 3] = np.nan
    with pytest.raises(ValueError, match="image 'farm/004' are not finite"):
        PrototypeExplorer(bank, replace(features, maps=(maps,)))


def test_no_prototype_and_no_image_are_refused_one_of_each_is_shown(features):
    empty = discovered(features, 1)
    empty.num_prototypes = 0
    with pytest.raises(ValueError, match="nothing to show: 12 images, 0 prototypes"):
        PrototypeExplorer(empty, features)
    one = PrototypeExplorer(discovered(features, 1), features.select([2]))
    assert one.meta["patches"] == N
    assert one.stats[0][0]["other"] == -1
    assert one.snapshot().data


ODD = ("n" * 300, "ذيل الحصان", "🐄🦵🏽 leg", "a\nb\tc")


def test_names_that_are_long_right_to_left_or_emoji_are_drawn_saved_and_sent(bank, features, tmp_path):
    explorer = PrototypeExplorer(bank, features, part_names=PART_NAMES)
    for k, name in enumerate(ODD):
        explorer.rename(k, name)
        explorer.prototype = k
        assert explorer.snapshot().data, "no warning of a character that the font lacks"
    assert PrototypeBank.load(explorer.save_bank(tmp_path / "bank.safetensors")).names[:4] == list(ODD)
    page = explorer.export_html(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "ذيل الحصان" in page
    assert explorer.to_csv(tmp_path / "rows.csv").stat().st_size


def test_300_prototypes_are_numbered_in_16_bits_and_one_more_than_255_can_be_chosen(features):
    many = PrototypeBank(300, 12, 12)
    explorer = PrototypeExplorer(many, replace(features, teacher=""), part_names=PART_NAMES)
    P = explorer.meta["patches"]
    which = np.frombuffer(explorer.top[0], np.uint16, count=P * explorer.meta["count"]).reshape(P, -1)
    np.testing.assert_array_equal(which[:, 0], explorer.label())
    explorer.prototype = 299
    assert explorer.snapshot().data
    assert len(explorer.stats[0]) == 300


def test_a_bank_that_was_edited_elsewhere_is_shown_and_not_overwritten(bank, features):
    explorer, other = (PrototypeExplorer(bank, features, part_names=PART_NAMES) for _ in range(2))
    explorer.rename(0, "mine")
    other.rename(0, "hoof")
    other.disable(1)
    state = explorer.banks[0]
    explorer.banks = [state | {"names": ["leg", *state["names"][1:]]}]  # as a browser that does not know
    assert (bank.names[0], bool(bank.enabled[1])) == ("hoof", False)
    assert explorer.banks == other.banks
    assert 1 not in explorer.label()
    assert "edited elsewhere" in explorer.status
    assert explorer.past == [], "undo would bring back what the other one never had"
    explorer.rename(0, "leg")
    assert (bank.names[0], bool(bank.enabled[1])) == ("leg", False)
    explorer.undo()
    assert bank.names[0] == "hoof"


def test_a_page_that_opens_shows_the_bank_as_it_is_now_also_where_it_was_trained_on(bank, features):
    explorer = PrototypeExplorer(bank, features, part_names=PART_NAMES, projection="pca")
    before = explorer.soft().clone()
    assert not explorer.follow_banks()
    with torch.no_grad():
        bank.assigner.bias[2] += 99
        bank.prototypes[2] += 0.1
    explorer._on_button("ready")
    assert (explorer.label()[explorer._shown] == 2).all()
    assert not torch.equal(explorer.soft(), before)


def test_where_images_are_gone_the_live_explorer_is_shown_without_a_picture(bank, features):
    explorer = PrototypeExplorer(bank, features, part_names=PART_NAMES)

    class Gone:
        shape = features.images.pixels.shape

        def __len__(self):
            return 12

        def __getitem__(self, index):
            raise OSError("stale file handle")

    explorer.images = copy.copy(explorer.images)
    object.__setattr__(explorer.images, "pixels", Gone())
    shown, _ = explorer._repr_mimebundle_()
    assert "image/png" not in shown
    assert "images cannot be read any more (stale file handle)" in shown["text/plain"]


def test_images_that_are_gone_are_named(bank, features):
    class Gone:
        shape = (12, 3, 32, 32)

        def __len__(self):
            return 12

        def __getitem__(self, index):
            raise OSError("stale file handle")

    images = replace(features.images, parts=None)
    object.__setattr__(images, "pixels", Gone())
    with pytest.raises(ValueError, match=r"image .farm/000. cannot be read any more .*stale file handle"):
        PrototypeExplorer(bank, replace(features, images=images))
    with pytest.raises(ValueError, match=r"images from .farm/000. on cannot be read any more .*stale file handle"):
        PrototypeExplorer(bank, tiny_student(bank), images=images)


# The script and the style


@pytest.mark.parametrize("widget", [PrototypeExplorer, PatchLens])
def test_the_script_is_small_plain_and_asks_for_nothing(widget):
    assert len(widget._esm.encode()) < 200_000
    assert not re.search(r"https?:|\bimport\b|innerHTML|insertAdjacentHTML|document\.write|\beval\b", widget._esm)
    assert "export default" in widget._esm
    assert not re.search(r"@import|url\(", widget._css)


@pytest.mark.parametrize("widget", [PrototypeExplorer, PatchLens])
def test_every_selector_is_prefixed(widget):
    for selectors in re.findall(r"([^{}@]+)\{", re.sub(r"@[^{]+\{", "", widget._css)):
        for selector in re.sub(r"\([^)]*\)", "", selectors).split(","):
            assert selector.strip().startswith(".prk"), selector


def test_the_script_is_the_files_as_written_one_behind_the_other():
    files = [(STATIC / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS["explorer"]]
    assert PrototypeExplorer._esm == "\n".join(files)
    assert {path.stem for path in STATIC.glob("*.js")} == {name for names in SCRIPTS.values() for name in names}


def test_the_classes_of_the_world_are_told(explorer):
    assert explorer.meta["classes"] == list(CLASSES)
    assert explorer.meta["labels"][:4] == [0, 1, 2, 0]


# Other devices


def test_models_on_another_device_are_read_edited_and_left_there(features):
    with fake_device() as device:
        bank = discovered(features)
        student = tiny_student(bank).to(device)
        here = discovered(features)
        explorer = PrototypeExplorer(bank, features, other=student, projection="pca", part_names=PART_NAMES)
        assert explorer.models[0].base.device == explorer.soft(1).device == torch.device("cpu")
        torch.testing.assert_close(explorer.soft(), PrototypeExplorer(here, features).soft())
        explorer.merge(0, 4)
        explorer.disable(2)
        explorer.rename(1, "leg")
        assert (bank.merged.tolist(), bank.enabled.tolist()) == ([0, 1, 2, 3, 0], [True, True, False, True, False])
        assert explorer.snapshot().data.startswith(b"\x89PNG")
        explorer.undo()
        places = {p.device for p in [*bank.parameters(), *bank.buffers(), *student.parameters()]}
        assert places == {device}
        assert len(explorer.rows()) == 12 * N


def test_what_is_kept_beside_a_picture_of_your_own_shows_the_best_of_the_prototype(explorer, monkeypatch):
    monkeypatch.setattr(explorer, "show", "likeness")
    explorer.prototype, explorer.image, explorer.patch = 1, len(explorer.images), len(explorer.images) * N + 3
    best = explorer.stats[0][1]["near"][0][0]
    _, state = frame_of(explorer, max_images=3)
    assert state["show"] == "prototype", "the picture that others were compared with is not kept"
    assert f"farm/{state['meta']['ids'][state['image']]}" == explorer.images.ids[best // N]
    assert state["patch"] == state["image"] * N + best % N


def test_who_asks_for_a_million_patches_gets_as_many_more_thumbnails():
    assert len(choose_images(10_000, 144, 0)) == 200_000 // 144
    assert len(choose_images(10_000, 1, 0)) == 1_600
    assert len(choose_images(10_000, 100, 0, 1_000_000)) == 8_000
    assert len(choose_images(10_000, 144, 0, 2_000_000)) == 10_000


def test_of_no_part_is_a_prototype_the_clearest_that_lies_on_it_nowhere():
    names, shares = ("background", "leg", "tail"), np.array([[0.5, 0.0, 0.8], [0.5, 0.0, 0.1]])
    share, best = np.array([np.nan, 0.0, 0.8]), np.array([-1, 0, 0])
    none = np.zeros((3, 1), np.int64)
    rows = part_columns(PartPrototypes(names, share, best, none, none, none.astype(bool), shares))
    assert [row["clearest"] for row in rows] == [[2], []]


def test_the_page_gets_every_column_at_once_and_after_an_edit(bank, features):
    explorer, sent = PrototypeExplorer(bank, features, part_names=PART_NAMES), []
    explorer.observe(lambda change: sent.append(json.dumps(change["new"])), "stats")  # as it is when it is sent
    explorer.rename(0, "hoof")
    explorer.disable(1)
    assert sent
    for stats in map(json.loads, sent):
        assert all(row.keys() >= {"clarity", "place", "part", "clearest", "near"} for row in stats[0])
