"""Class folders and loose pictures."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prockd._types import UNLABELLED
from prockd.datasets import DatasetError, ImageFolder, check_data, open_data, open_splits, pack, train_test_split
from prockd.datasets.folder import UnlabelledFolder

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def corners(image: np.ndarray) -> list[tuple[int, ...]]:
    return [tuple(map(int, image[y, x])) for y in (0, -1) for x in (0, -1)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, one of them with a nested folder, hidden files and a text file."""
    root = tmp_path / "photos"
    for name, color in {"cats/b.PNG": RED, "cats/more/a.png": GREEN, "dogs/a.jpeg": BLUE}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 10), color).save(root / name)
    (root / "dogs" / "notes.txt").write_text("not a picture")
    (root / "dogs" / ".thumbs").mkdir()
    for hidden in ("dogs/.hidden.png", "dogs/.thumbs/a.png"):
        Image.new("RGB", (12, 10)).save(root / hidden)
    (root / ".ipynb_checkpoints").mkdir()
    return root


def test_sub_folders_are_classes_in_sorted_order(folder):
    dataset = ImageFolder(folder)
    assert dataset.classes == ("cats", "dogs")
    assert dataset.ids == ("cats/b.PNG", "cats/more/a.png", "dogs/a.jpeg")
    assert [(s.label, s.id) for s in dataset] == [(0, "cats/b.PNG"), (0, "cats/more/a.png"), (1, "dogs/a.jpeg")]
    assert corners(dataset[1].image) == [GREEN] * 4
    assert "3 images, 2 classes: cats, dogs" in repr(dataset)


def test_classes_can_be_chosen_and_ordered(folder):
    dataset = ImageFolder(folder, classes=["dogs"])
    assert [(s.label, s.id) for s in dataset] == [(0, "dogs/a.jpeg")]
    with pytest.raises(DatasetError, match=r"class folder .*birds"):
        ImageFolder(folder, classes=["birds", "dogs"])


def test_a_folder_without_sub_folders_is_unlabelled(folder):
    dataset = ImageFolder(folder / "cats" / "more")
    assert dataset.classes == ()
    assert [(s.label, s.id) for s in dataset] == [(UNLABELLED, "a.png")]


def test_a_hidden_parent_does_not_hide_the_pictures(tmp_path):
    (tmp_path / ".data").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / ".data" / "x.png")
    assert len(ImageFolder(tmp_path / ".data")) == 1


def test_images_beside_class_folders_are_left_out_with_a_warning(folder):
    Image.new("RGB", (8, 8)).save(folder / "loose.png")
    assert len(ImageFolder(folder)) == 3
    with pytest.warns(UserWarning, match=r"loose\.png: is left out: it has no place in this layout"):
        assert len(open_data(folder)) == 3


def test_a_missing_an_empty_and_an_imageless_class_folder_are_refused(folder, tmp_path):
    with pytest.raises(DatasetError, match="nowhere is not a folder"):
        ImageFolder(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"empty holds no images: looked for \.bmp \.jpeg .*sub-folders"):
        ImageFolder(tmp_path / "empty")
    (folder / "birds").mkdir()
    with pytest.raises(DatasetError, match=r"class folder birds: holds no images"):
        ImageFolder(folder)


def test_the_group_of_an_image_is_found_in_its_path(folder):
    dataset = ImageFolder(folder, group=r"^(\w+)/")
    assert dataset.groups == ("cats", "cats", "dogs")
    rest, first = train_test_split(dataset, 0.5, 0)
    assert {s.id.split("/")[0] for s in first} & {s.id.split("/")[0] for s in rest} == set()
    assert ImageFolder(folder).groups is None
    with pytest.raises(DatasetError, match=r"group='video' finds nothing in 'cats/b\.PNG': every image needs a group"):
        ImageFolder(folder, group="video")


def test_links_that_lead_back_are_no_classes_and_links_elsewhere_are(folder, tmp_path):
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "cats" / "up").symlink_to(tmp_path, target_is_directory=True)
    (folder / "itself").symlink_to(folder / "itself")
    assert ImageFolder(folder).ids == ("cats/b.PNG", "cats/more/a.png", "dogs/a.jpeg")
    (folder / "linked").symlink_to(folder / "dogs", target_is_directory=True)
    assert ImageFolder(folder).classes == ("cats", "dogs", "linked")


def test_the_fingerprint_changes_with_any_file_and_not_by_itself(folder):
    before = ImageFolder(folder).fingerprint
    assert ImageFolder(folder).fingerprint == before
    assert ImageFolder(folder, classes=["dogs", "cats"]).fingerprint != before
    os.utime(folder / "dogs" / "a.jpeg", (1, 1))
    assert ImageFolder(folder).fingerprint != before


def test_packed_images_keep_their_groups_so_that_they_are_divided_alike(folder, tmp_path):
    packed = pack(ImageFolder(folder, group=r"^(\w+)/"), 8, root=tmp_path / "cache", progress=False)
    assert packed.groups == ("cats", "cats", "dogs")
    assert packed.select([2, 0]).groups == ("dogs", "cats")
    rest, first = train_test_split(packed, 0.5, 0)
    assert not set(first.groups) & set(rest.groups)


def test_an_unreadable_image_is_named_and_nothing_is_kept(folder, tmp_path):
    (folder / "dogs" / "broken.jpg").write_bytes(b"not a picture")
    with pytest.raises(DatasetError, match=r"broken\.jpg: cannot be read"):
        pack(ImageFolder(folder), 16, root=tmp_path)
    assert list((tmp_path / "images").iterdir()) == []


@pytest.mark.parametrize("name", ["unlabelled", "Unlabeled"])
def test_pictures_of_a_folder_unlabelled_are_no_class_and_may_lie_at_any_depth(folder, name):
    for number, place in enumerate(("a.png", "june/b.png", "june/cats/c.jpg")):
        (folder / name / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 10), (number, 0, 0)).save(folder / name / place)
    assert ImageFolder(folder).classes == ("cats", "dogs")
    splits = open_splits(folder)
    assert list(splits) == ["all", "unlabelled"]
    assert [(s.id, s.label) for s in splits["unlabelled"]] == [
        (place, UNLABELLED) for place in ("a.png", "june/b.png", "june/cats/c.jpg")
    ]  # fmt: skip
    assert splits["unlabelled"].classes == ()


def test_an_empty_folder_unlabelled_is_refused_by_name(folder):
    (folder / "unlabelled").mkdir()
    with pytest.raises(DatasetError, match=r"unlabelled holds no images, .* at any depth: put some in, or remove it"):
        open_splits(folder)
    with pytest.raises(DatasetError, match="nowhere is not a folder"):
        UnlabelledFolder(folder / "nowhere")


@pytest.mark.real
@pytest.mark.skipif("PROCKD_REAL_DATA" not in os.environ, reason="PROCKD_REAL_DATA is not set")
def test_real_photographs_are_packed(tmp_path):
    real = Path(os.environ["PROCKD_REAL_DATA"])
    insects = pack(ImageFolder(real / "ants_bees" / "val"), 64, root=tmp_path)
    assert insects.classes == ("ants", "bees")
    assert np.bincount(insects.labels).min() > 60
    assert 60 < insects.pixels.mean() < 190


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_a_file_name_in_latin_1_is_read_and_can_be_printed(folder):
    Image.new("RGB", (8, 8), "red").save(folder / "cats" / "x.png")
    (folder / "cats" / "x.png").rename(os.fsdecode(os.fsencode(folder / "cats") + b"/caf\xe9.png"))
    assert "cats/caf\\udce9.png" in open_data(folder).ids
    next(folder.glob("cats/caf*")).write_bytes(b"no picture")
    report = repr(check_data(folder, progress=False))
    report.encode("utf-8")
    assert r"cats/caf\udce9.png" in report
    with pytest.raises(DatasetError, match=r"caf\\udce9\.png") as told:
        list(open_data(folder))
    str(told.value).encode("utf-8")


def test_photographs_of_a_kind_that_is_not_read_are_counted_when_opened(folder):
    for name in ("a.psd", "b.psd"):
        (folder / "cats" / name).write_bytes(b"8BPS")
    with pytest.warns(UserWarning, match=r"a\.psd: is left out: \.psd is not one of .*, and so are 1 more file"):
        open_data(folder)


def test_a_class_folder_in_the_spelling_of_macos_is_the_same_class(tmp_path):
    for seed, name in enumerate(("train/k\u00fche", "train/hens", "test/ku\u0308he", "test/hens")):
        (tmp_path / name).mkdir(parents=True)
        Image.new("RGB", (12, 10), (seed, 0, 0)).save(tmp_path / name / "a.png")
    splits = open_splits(tmp_path)
    assert splits["test"].classes == splits["train"].classes == ("hens", "k\u00fche")
    assert splits["test"].labels.tolist() == [0, 1]
    assert ImageFolder(tmp_path / "test", classes=["k\u00fche"]).ids == ("ku\u0308he/a.png",)
