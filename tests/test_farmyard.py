"""Farmyard: the same pixels everywhere, true labels, and errors that name what is wrong."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

from prockd import UNLABELLED, Sample, _data_path
from prockd.evaluation.parts import part_agreement, patch_parts
from prockd.farmyard import (
    BACKGROUNDS,
    FORMS,
    KEYPOINTS,
    PARTS,
    Farmyard,
    SpeciesError,
    data_path,
    load_species,
    overlay_parts,
    part_palette,
    species_sheet,
)

FOOT, HORN, LEG = PARTS.index("foot"), PARTS.index("horn"), PARTS.index("leg")


def digest(*samples: Sample) -> str:
    """Return a digest of everything in some samples."""
    bits = hashlib.sha256()
    for sample in samples:
        for array in (sample.image, sample.parts, sample.instances, sample.boxes, sample.box_labels, sample.keypoints):
            assert array is not None
            bits.update(array.tobytes())
        bits.update(f"{sample.label} {sample.id}".encode())
    return bits.hexdigest()[:16]


@pytest.fixture(scope="module")
def zoo() -> list[Sample]:
    """Five singles of each of the 28 species."""
    return list(map(Farmyard("all", size=5 * 28).__getitem__, range(5 * 28)))


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        (Farmyard("all", "train", 28), "5df61424e13a9a3b"),
        (Farmyard("source", "val", 6, kind="scene", seed=7), "66867d54030c8cda"),
        (Farmyard("target", "test", 10, background="shifted"), "9700f229faa5192a"),
        (Farmyard("target", "unlabelled", 4, background="night", image_px=160), "f3ae40f4f8a05009"),
        (Farmyard("target", "train", 4, background="snow", image_px=32), "83910651a2b04e9e"),
        (Farmyard("all", "train", 28, form="varied", image_px=160), "3b46d0772f46c9e2"),
    ],
    ids=["single", "scene", "shifted", "night", "snow", "varied"],
)
def test_pixels_and_labels_are_the_ones_the_shipped_teacher_learned_from(dataset: Farmyard, expected: str) -> None:
    assert digest(*map(dataset.__getitem__, range(len(dataset)))) == expected


def test_samples_are_the_same_with_any_number_of_workers_and_in_any_order() -> None:
    dataset = Farmyard(size=24)
    alone = [digest(dataset[i]) for i in range(24)]
    loader = DataLoader(dataset, batch_size=5, num_workers=2, collate_fn=list)  # type: ignore[arg-type]
    assert [digest(sample) for batch in loader for sample in batch] == alone
    assert [digest(dataset[i]) for i in reversed(range(24))] == alone[::-1]
    assert digest(pickle.loads(pickle.dumps(dataset))[3]) == alone[3]


def test_no_two_of_species_split_kind_form_seed_and_background_share_an_image_or_an_id() -> None:
    datasets = [Farmyard(split=split, size=10) for split in ("train", "val", "test", "unlabelled")]
    datasets += [Farmyard("source", size=10), Farmyard("all", size=10), Farmyard(size=10, seed=1)]
    datasets += [Farmyard(split=split, size=10, form="varied") for split in ("train", "val", "test", "unlabelled")]
    datasets += [Farmyard(size=10, kind="scene"), Farmyard(size=10, kind="scene", form="varied")]
    datasets += [Farmyard(size=10, background=name) for name in BACKGROUNDS[1:]]
    samples = [dataset[i] for dataset in datasets for i in range(10)]
    assert len({sample.image.tobytes() for sample in samples}) == len({sample.id for sample in samples}) == len(samples)
    assert len({dataset.fingerprint for dataset in datasets}) == len(datasets)


def test_source_and_target_species_are_disjoint_and_alike_in_kind() -> None:
    source, target = ([s for s in load_species().values() if s.role == role] for role in ("source", "target"))
    assert (len(source), len(target)) == (18, 10)
    assert not set(Farmyard("source").classes) & set(Farmyard("target").classes)
    for kinds in (source, target):
        assert {s.foot for s in kinds} == {"hoof", "paw", "pad"}
        assert {"curved", "knob"} <= {s.horn for s in kinds}
        assert any(s.neck > 0.6 for s in kinds)
        assert any(s.mane != "none" for s in kinds)
        assert any(s.hump != "none" for s in kinds)


def test_classes_are_balanced_and_few_labels_are_a_prefix_of_more() -> None:
    dataset = Farmyard(size=60)
    more, fewer = dataset.per_class(3), dataset.per_class(2)
    labels = [more[i].label for i in range(len(more))]
    assert [labels.count(c) for c in range(10)] == [3] * 10
    assert [fewer[i].id for i in range(20)] == [more[i].id for i in range(20)] == [dataset[i].id for i in range(20)]
    assert fewer.fingerprint != more.fingerprint
    assert "30" in repr(more)
    with pytest.raises(ValueError, match="has 6 images of every class"):
        dataset.per_class(7)
    with pytest.raises(ValueError, match=r"per_class\(1\)"):
        Farmyard(kind="scene").per_class(1)


def test_unlabelled_samples_tell_no_class() -> None:
    for kind in ("single", "scene"):
        dataset = Farmyard(split="unlabelled", kind=kind, size=8)
        for i in range(8):
            labels = dataset[i].box_labels
            assert labels is not None
            assert {dataset[i].label, *labels.tolist()} <= {UNLABELLED}


def test_index_counts_from_the_end_and_stays_inside() -> None:
    dataset = Farmyard(size=20)
    assert dataset[-1].id == dataset[19].id
    for index in (20, -21):
        with pytest.raises(IndexError, match="outside"):
            dataset[index]


def test_every_species_shows_exactly_the_parts_it_has(zoo: list[Sample]) -> None:
    for label, species in enumerate(load_species().values()):
        seen = set(np.unique([sample.parts for sample in zoo if sample.label == label]).tolist())
        assert seen == set(range(len(PARTS))) - (set() if species.horn != "none" else {HORN}), species.name


def test_an_animal_fills_a_single_picture(zoo: list[Sample]) -> None:
    boxes = np.array([sample.boxes[0] for sample in zoo if sample.boxes is not None])
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1) / 96
    assert np.median(sides) > 0.75
    assert np.quantile(sides, 0.02) > 0.6
    covered = [np.mean(sample.parts > 0) for sample in zoo if sample.parts is not None]
    assert 0.2 < np.mean(covered) < 0.6


def test_the_framed_form_is_the_usual_one_and_keeps_its_fingerprint() -> None:
    usual, framed = Farmyard(size=3), Farmyard(size=3, form="framed")
    assert usual.fingerprint == framed.fingerprint
    assert digest(*map(usual.__getitem__, range(3))) == digest(*map(framed.__getitem__, range(3)))
    names = "horse+cow+goat+giraffe+moose+llama+wolf+lion+rhinoceros+pig"
    assert usual.fingerprint == f"farmyard-1/target/train/3/single/96px/seed0/field/{names}/73aaea5e8ce16108"
    assert usual[0].id == "farmyard/target/single/field/train/0/000000"
    assert "form='varied'" in repr(Farmyard(form="varied"))


@pytest.fixture(scope="module")
def patches() -> dict[str, np.ndarray]:
    """The parts of 20 x 20 patches of 150 singles of each form."""
    masks = {form: [Farmyard(size=150, image_px=160, form=form)[i].parts for i in range(150)] for form in FORMS}
    return {form: patch_parts(np.array(parts), (20, 20), len(PARTS)) for form, parts in masks.items()}


def test_place_in_the_picture_tells_less_of_the_part_in_the_varied_form(patches: dict[str, np.ndarray]) -> None:
    row, column = np.divmod(np.arange(400), 20)
    blocks = np.tile(row * 9 // 20 * 9 + column * 9 // 20, (150, 1))
    told = {form: part_agreement(blocks, parts, 81, len(PARTS)).purity for form, parts in patches.items()}
    assert told["framed"] > 0.44
    assert told["varied"] < 0.4


@pytest.mark.parametrize("part", ["ear", "horn", "foot", "tail"])
def test_thin_parts_are_a_larger_share_of_a_varied_animal(part: str, patches: dict[str, np.ndarray]) -> None:
    share = {form: np.mean(parts[parts > 0] == PARTS.index(part)) for form, parts in patches.items()}
    assert share["varied"] > 1.05 * share["framed"]


def test_a_bold_animal_is_drawn_larger_in_its_thin_parts_and_never_out_of_range() -> None:
    for species in load_species().values():
        bold = species.bold()
        for name in ("tail_length", "tail_width", "ear_size", "horn_length", "horn_width", "leg_width", "foot_size"):
            assert vars(bold)[name] >= vars(species)[name], name
        assert (bold.neck, bold.head, bold.leg) == (species.neck, species.head, species.leg)
    widest = next(iter(load_species().values())).replace(tail_width=0.35, horn_width=4.0)
    assert (widest.bold().tail_width, widest.bold().horn_width) == (0.35, 4.0)


def test_a_varied_animal_is_of_many_sizes_and_hardly_cut_off() -> None:
    dataset = Farmyard("all", "val", size=140, form="varied")
    boxes = np.array([dataset[i].boxes[0] for i in range(140)])  # type: ignore[index]
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1) / 96
    assert np.quantile(sides, 0.1) < 0.55
    assert np.quantile(sides, 0.9) > 0.85
    assert sides.min() > 0.35
    centres = (boxes[:, 2:] + boxes[:, :2]).mean(axis=0) / 2 / 96
    assert np.abs(centres - 0.5).max() < 0.06, "no side is preferred"


@pytest.mark.parametrize("kind", ["single", "scene"])
def test_boxes_are_tight_around_what_is_seen_of_each_instance(kind: str) -> None:
    dataset = Farmyard("all", size=30, kind=kind)
    for i in range(30):
        sample = dataset[i]
        assert sample.parts is not None
        assert sample.instances is not None
        assert sample.boxes is not None
        assert sample.box_labels is not None
        assert sample.keypoints is not None
        assert np.array_equal(sample.parts > 0, sample.instances > 0)
        assert len(sample.boxes) == len(sample.box_labels) == len(sample.keypoints) == sample.instances.max(initial=0)
        for number, box in enumerate(sample.boxes, start=1):
            y, x = np.nonzero(sample.instances == number)
            assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
        if kind == "scene":
            assert (sample.label != UNLABELLED) == (len(set(sample.box_labels.tolist())) == 1)


def test_visible_key_points_lie_on_their_part_and_most_are_visible(zoo: list[Sample]) -> None:
    wanted = {"foot": {FOOT}, "knee": {LEG, FOOT}, "hock": {LEG, FOOT}, "horn": {HORN}, "eye": {PARTS.index("head")}}
    visible = np.zeros(len(KEYPOINTS))
    for sample in zoo:
        assert sample.keypoints is not None
        assert sample.parts is not None
        for k, (x, y, seen) in enumerate(sample.keypoints[0]):
            if seen:
                allowed = [parts for word, parts in wanted.items() if word in KEYPOINTS[k]]
                part = int(sample.parts[int(y), int(x)])
                assert part != 0, KEYPOINTS[k]
                assert all(part in parts for parts in allowed), KEYPOINTS[k]
        visible += sample.keypoints[0, :, 2]
    horned = np.mean([s.horn != "none" for s in load_species().values()])
    rate = visible / len(zoo) / np.where(np.array(KEYPOINTS) == "horn_tip", horned, 1)
    assert rate.min() > 0.75, dict(zip(KEYPOINTS, rate.round(2), strict=True))


def test_coat_colour_does_not_give_the_species_away() -> None:
    dataset = Farmyard(size=200, image_px=48)
    samples = [dataset[i] for i in range(200)]
    colours = np.array([s.image[s.parts == 1].mean(axis=0) if (s.parts == 1).any() else [99] * 3 for s in samples])
    labels = np.array([s.label for s in samples])
    centres = np.array([colours[:100][labels[:100] == c].mean(axis=0) for c in range(10)])
    distances = ((colours[100:, None] - centres) ** 2).sum(axis=2)
    assert np.mean(distances.argmin(axis=1) == labels[100:]) < 0.2, "chance is 0.1"


def test_the_shifted_background_looks_like_no_other() -> None:
    def edges(name: str) -> float:
        dataset = Farmyard(size=20, background=name)
        steps = []
        for i in range(20):
            sample = dataset[i]
            assert sample.parts is not None
            hard = np.abs(np.diff(sample.image.astype(int), axis=1)).max(axis=2) > 60
            steps.append(np.mean(hard[(sample.parts[:, 1:] == 0) & (sample.parts[:, :-1] == 0)]))
        return float(np.mean(steps))

    assert edges("shifted") > 2 * max(edges(name) for name in ("field", "snow", "night"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("leg = 9.0", ["[yak]", "leg", "9.0", "0.1", "1.6"]),
        ("leg = true", ["[yak]", "leg", "True", "0.1", "1.6"]),
        ('tail = "long"', ["[yak]", "tail", "'long'", "tuft", "bushy"]),
        ("foot_sise = 0.5", ["[yak]", "foot_sise", "0.5", "did you mean foot_size?"]),
        ("neck_angel = 5", ["[yak]", "neck_angel", "did you mean neck_angle?"]),
    ],
)
def test_a_bad_species_is_refused_with_file_table_key_value_and_what_is_allowed(
    tmp_path: Path, line: str, words: list[str]
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'[yak]\nrole = "target"\n{line}\n')
    with pytest.raises(SpeciesError) as error:
        load_species(path)
    for word in [str(path), *words]:
        assert word in str(error.value)


@pytest.mark.parametrize("text", ["[yak", "yak = 3", "[yak]\nleg = 0.5"], ids=["no TOML", "no table", "no role"])
def test_a_file_that_holds_no_species_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(SpeciesError, match=r"mine\.toml"):
        load_species(path)


def test_adding_a_table_adds_a_class(tmp_path: Path) -> None:
    shipped = data_path("farmyard", "species.toml").read_text()
    path = tmp_path / "more.toml"
    path.write_text(shipped + '\n[yak]\nrole = "target"\nmane = "shag"\nhorn = "spiral"\nhump = "one"\n')
    dataset = Farmyard(size=22, species_file=path)
    assert dataset.classes == (*Farmyard().classes, "yak")
    assert dataset[10].label == 10
    assert dataset[10].parts is not None
    assert dataset[10].parts.any()
    assert dataset.fingerprint != Farmyard(size=22).fingerprint


def test_species_can_be_picked_by_name() -> None:
    assert Farmyard(species_names=["pig", "horse"], size=4).classes == ("horse", "pig")
    with pytest.raises(SpeciesError, match="zebra"):
        Farmyard("target", species_names=["zebra"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"species": "both"}, "source, target, all"),
        ({"split": "dev"}, "train, val, test, unlabelled"),
        ({"kind": "herd"}, "single, scene"),
        ({"form": "loose"}, "form = 'loose' is not one of framed, varied"),
        ({"background": "sea"}, "field, snow, night, shifted"),
        ({"image_px": 16}, "image_px = 16 is not from 32 to 512"),
        ({"size": 0}, "size = 0"),
        ({"seed": -1}, "seed = -1"),
    ],
)
def test_an_argument_out_of_range_is_refused_with_what_is_allowed(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Farmyard(**arguments)  # type: ignore[arg-type]


def test_a_data_file_is_found_in_a_wheel_and_a_missing_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "prockd" / "_data" / "farmyard" / "species.toml"
    installed.parent.mkdir(parents=True)
    installed.write_text("")
    monkeypatch.setattr(_data_path, "_PACKAGE", tmp_path / "prockd")
    assert data_path("farmyard", "species.toml") == installed
    with pytest.raises(FileNotFoundError, match=r"nowhere/none\.toml"):
        data_path("nowhere", "none.toml")


def test_the_sheet_shows_every_species_and_the_overlay_every_part(zoo: list[Sample]) -> None:
    sheet = species_sheet(image_px=48, columns=7)
    assert sheet.width == 7 * 48
    assert sheet.height >= 4 * 48
    assert len(set(part_palette)) == len(PARTS)
    shown = overlay_parts(zoo[0])
    assert shown.shape == zoo[0].image.shape
    assert shown.dtype == np.uint8
    with pytest.raises(ValueError, match="no part mask"):
        overlay_parts(Sample(zoo[0].image, 0, "x"))
