import json
from dataclasses import replace

import numpy as np
import pytest

from prockd.evaluation.landmarks import points_of
from prockd.evaluation.measures import Measured, part_report
from prockd.evaluation.part_table import MEASURES
from prockd.evaluation.tables import format_table
from prockd.farmyard import PARTS, Farmyard
from prockd.farmyard.body import KEYPOINTS
from prockd.prototypes import discover
from prockd.settings.method import DiscoverConfig
from prockd.teachers.features import extract

CONFIG = DiscoverConfig(num_prototypes=6, embed_dim=16, steps=0)
NAMES = ("background", "leg", "tail", "ear")


@pytest.fixture(scope="module")
def animals(teacher):
    """What a random teacher sees of 24 animals, and two banks."""
    dataset = Farmyard("target", "val", 24, image_px=32, species_names=("cow", "goat"))
    features = extract(teacher, dataset, progress=False, views=("plain",))
    banks = [discover(features, config=replace(CONFIG, seed=seed), progress=False) for seed in (0, 1)]
    return dataset, features, banks


def test_every_number_stands_beside_place_pixels_shuffling_and_another_teacher(animals, teacher):
    dataset, features, (bank, other) = animals
    others = {"random teacher": Measured(other, features, teacher)}
    points = points_of(dataset, KEYPOINTS)
    report = part_report(bank, features, PARTS, teacher=teacher, others=others, again=[other], points=points)
    assert set(report.values) == set(MEASURES) - {"in_one_group"}, "all but groups, which these images have not"
    groups = list(report.rows[0])[1:]
    assert groups == [
        "prototypes",
        "random teacher",
        "place in the image",
        "5 nearest places",
        "raw pixels",
        "shuffled",
    ]
    for key in ("purity", "crops_purity", "nmi_part", "pixel_nmi", "point_nmi", "stability"):
        assert {"prototypes", "random teacher", "place in the image", "raw pixels"} <= set(report.values[key]), key
    assert format_table(report.rows)
    assert [row["part"] for row in report.part_rows] == list(PARTS[1:])


def test_the_numbers_are_json_with_place_beside_purity(animals, teacher):
    _, features, (bank, other) = animals
    numbers = json.loads(json.dumps(part_report(bank, features, PARTS, teacher=teacher, again=[other]).numbers()))
    asked = {"purity", "place", "crops_purity", "crops_place", "nmi_part", "nmi_place", "stability", "mirror"}
    assert asked | {"background_share", "reseeded", "parts"} <= set(numbers)
    assert set(numbers["parts"]) == set(PARTS[1:])
    assert 0 < numbers["place"] < 1


def test_the_same_seed_gives_the_same_numbers(animals, teacher):
    _, features, (bank, _) = animals
    first, second = (part_report(bank, features, PARTS, teacher=teacher).numbers() for _ in range(2))
    assert first == second


def test_what_needs_the_teacher_is_left_out_without_it_and_said(animals):
    _, features, (bank, _) = animals
    report = part_report(bank, features, PARTS)
    assert not {"crops_purity", "stability", "reseeded", "consistency"} & set(report.values)
    assert "no teacher was given: nothing is measured on crops, shifted, mirrored or noisy images" in report.notes
    assert "there are 24 images: shares of parts are of 24 strongest patches, not of 50" in report.notes


def test_images_without_masks_are_measured_without_labels(bank, features):
    report = part_report(bank, features)
    assert {"clarity", "redundancy", "polysemanticity", "in_one_image"} == set(report.values)
    assert "no part masks" in report.notes[0]
    assert report.part_rows == []
    grouped = replace(features, images=replace(features.images, groups=tuple("aabbccddeeff")))
    assert set(part_report(bank, grouped).values["in_one_group"]) >= {"prototypes", "shuffled"}


def test_stability_needs_no_mask(bank, features, teacher):
    report = part_report(bank, features, teacher=teacher, again=[bank])
    assert {"stability", "mirror", "noise", "reseeded"} <= set(report.values)
    assert "crops_purity" not in report.values
    assert report.numbers()["reseeded"] == 1


def test_one_image_one_group_and_parts_that_never_occur_are_named_and_break_nothing(bank, features, teacher):
    one = features.select([0])
    parts = np.zeros((1, 32, 32), np.uint8)
    parts[:, :16] = 1
    images = replace(one.images, parts=parts, groups=("cow",))
    report = part_report(bank, replace(one, images=images), NAMES, teacher=teacher)
    assert any("strongest patches each: clarity compares at least 2 of both" in note for note in report.notes)
    assert any("all images are of one group, 'cow'" in note for note in report.notes)
    assert any(note.endswith("lies on: tail, ear") for note in report.notes)
    assert report.numbers()["foreground_iou"] is None
    assert report.numbers()["parts"]["tail"] is None
    assert format_table(report.rows)


def test_banks_that_saw_other_images_are_not_put_side_by_side(bank, features):
    with pytest.raises(
        ValueError, match="random teacher must be measured on the images and the grid of the prototypes"
    ):
        part_report(bank, features, others={"random teacher": Measured(bank, features.select([0, 1]))})
