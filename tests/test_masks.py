import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prockd._types import IGNORE, UNLABELLED
from prockd.datasets import (
    DatasetError,
    MaskFolder,
    check_data,
    groups_of,
    open_data,
    open_splits,
    pack,
    read_mask,
    subset,
    train_test_split,
)

VALUES = np.arange(3).repeat(4)[:, None].repeat(10, 1).astype(np.uint8)  # (12, 10): rows of 0, 1, 2


def put(path: Path, pixels: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((12, 10, 3), 90, np.uint8) if pixels is None else pixels).save(path)
    return path


def palette(path: Path, values: np.ndarray) -> None:
    picture = Image.fromarray(values)
    picture.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200, 9, 9, 9])
    picture.save(path)
    with Image.open(path) as stored:
        assert stored.mode == "P"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two pictures with masks of 0, 1 and 2."""
    for name in ("a b", "ü"):
        put(tmp_path / "images" / f"{name}.jpg")
        put(tmp_path / "masks" / f"{name}.png", VALUES)
    return tmp_path


def test_a_mask_belongs_to_the_picture_of_its_name(root):
    put(root / "masks" / "ü.png", 2 - VALUES)
    dataset = MaskFolder(root, classes=["sky", "sea", "land"])
    assert [s.id for s in dataset] == ["images/a b.jpg", "images/ü.jpg"]
    assert np.array_equal(dataset[0].mask, VALUES)
    assert np.array_equal(dataset[1].mask, 2 - VALUES)
    assert dataset.labels.tolist() == [UNLABELLED] * 2
    assert "2 images, 3 classes: sky, sea, land" in repr(dataset)


@pytest.mark.parametrize("kind", ["grey", "palette", "16 bit", "tif", "rgb"])
def test_masks_of_every_kind_store_the_same_numbers(root, kind):
    path = root / "masks" / "ü.png"
    if kind == "palette":
        palette(path, VALUES)
    elif kind == "16 bit":
        put(path, VALUES.astype(np.uint16))
    elif kind == "rgb":
        put(path, VALUES[..., None].repeat(3, 2))
    elif kind == "tif":
        path.unlink()
        put(root / "masks" / "ü.tif", VALUES)
    assert np.array_equal(MaskFolder(root)[1].mask, VALUES)


def test_values_beyond_a_byte_are_classes_too(root):
    levels = np.array([0, 300, 1000], np.uint16)[VALUES]
    put(root / "masks" / "a b.png", levels)
    put(root / "masks" / "ü.png", levels)
    assert read_mask(root / "masks" / "ü.png").max() == 1000
    dataset = MaskFolder(root)
    assert dataset.classes == ("0", "300", "1000")
    assert np.array_equal(dataset[0].mask, VALUES)
    assert np.array_equal(MaskFolder(root, classes={0: "a", 300: "b", 1000: "a"})[0].mask, VALUES % 2)


@pytest.mark.parametrize(
    ("values", "classes", "expected"),
    [
        ((0, 255), ("background", "object"), (0, 1)),
        ((0, 1), ("background", "object"), (0, 1)),
        ((0, 1, 255), ("background", "object"), (0, 1, IGNORE)),
        ((3, 7, 255), ("3", "7"), (0, 1, IGNORE)),
    ],
)
def test_classes_are_found_by_the_values(tmp_path, values, classes, expected):
    mask = np.tile(np.array(values, np.uint8), (12, 10))
    put(tmp_path / "images" / "a.png", np.zeros((*mask.shape, 3), np.uint8))
    put(tmp_path / "masks" / "a.png", mask)
    dataset = MaskFolder(tmp_path)
    assert dataset.classes == classes
    assert dataset[0].mask is not None
    assert tuple(dataset[0].mask[0, : len(values)].tolist()) == expected


def test_one_bit_masks_are_background_and_object(root):
    for name in ("a b", "ü"):
        put(root / "masks" / f"{name}.png", VALUES > 0)
    dataset = MaskFolder(root)
    assert dataset.classes == ("background", "object")
    assert np.array_equal(dataset[0].mask, VALUES > 0)


def test_a_mapping_merges_values_and_ignores_some(root):
    dataset = MaskFolder(root, classes={0: "ground", 1: "ignore", 2: "ground"})
    assert dataset.classes == ("ground",)
    assert np.array_equal(dataset[0].mask, np.where(VALUES == 1, IGNORE, 0))


def test_undeclared_values_and_another_size_are_told_together(root):
    put(root / "masks" / "ü.png", np.full((9, 9), 7, np.uint8))
    dataset = MaskFolder(root, classes=["a", "b", "c"])
    with pytest.raises(DatasetError, match=r"ü\.png: is 9 x 9 px and its image 10 x 12 px.*1 more"):
        dataset[1]
    texts = [problem.text for problem in dataset.read(1)[1]]
    assert "holds 7, and the classes have the values 0, 1, 2, 255: mend it, or name the value in classes.txt" in texts


def test_colours_jpeg_masks_and_broken_masks_are_refused_by_name(root):
    put(root / "masks" / "a b.png", np.arange(360, dtype=np.uint8).reshape(12, 10, 3))
    with pytest.raises(DatasetError, match=r"a b\.png: holds colours, not class numbers"):
        MaskFolder(root, classes=["a", "b", "c"])[0]
    (root / "masks" / "a b.png").write_bytes(b"no picture")
    with pytest.raises(DatasetError, match=r"a b\.png: cannot be read as an image"):
        MaskFolder(root)[0]
    (root / "masks" / "ü.png").unlink()
    put(root / "masks" / "ü.jpg", VALUES)
    with pytest.raises(DatasetError, match=r"ü\.jpg: JPEG does not keep class numbers: store masks as PNG"):
        MaskFolder(root)


def test_what_has_no_partner_is_refused_or_left_out(root):
    put(root / "images" / "lonely.jpg")
    put(root / "masks" / "orphan.png", VALUES)
    with pytest.raises(
        DatasetError, match=r"(?s)2 bad entries.*lonely\.jpg: no mask.*orphan\.png: mask without an image"
    ):
        MaskFolder(root)
    dataset = MaskFolder(root, on_bad="skip")
    assert len(dataset) == 2
    assert len(dataset.flaws) == 2
    assert "2 bad entries left out" in repr(dataset)
    with pytest.raises(ValueError, match="on_bad='maybe': must be"):
        MaskFolder(root, on_bad="maybe")


def test_usual_endings_of_mask_names_are_understood(tmp_path):
    put(tmp_path / "images" / "x_1.jpg")
    put(tmp_path / "masks" / "x_1_mask.png", VALUES)
    assert np.array_equal(MaskFolder(tmp_path)[0].mask, VALUES)


def test_videos_are_groups_that_a_split_keeps_whole(tmp_path):
    for video in ("cow", "goat", "horse"):
        for frame in range(3):
            put(tmp_path / video / "frames" / f"{frame}.jpg")
            put(tmp_path / video / "masks" / f"{frame}.png", VALUES)
    dataset = MaskFolder(tmp_path, images="frames")
    assert dataset.groups == ("cow",) * 3 + ("goat",) * 3 + ("horse",) * 3
    rest, first = train_test_split(dataset, 0.6, 0)
    assert groups_of(first) is not None
    assert not set(groups_of(first)) & set(groups_of(rest))
    assert len(first) == 6
    assert groups_of(subset(dataset, [0, -1])) == ("cow", "horse")
    frames = MaskFolder(tmp_path, images="frames", group=r"(\d)\.jpg")
    assert frames.groups == ("0", "1", "2") * 3
    with pytest.raises(DatasetError, match=r"finds nothing in 'cow/frames/0\.jpg'"):
        MaskFolder(tmp_path, images="frames", group="dog")


def test_masks_are_packed_in_the_label_space_of_the_task(root, tmp_path):
    packed = pack(MaskFolder(root, classes=["a", "b", "c"]), 12, fit="stretch", root=tmp_path / "cache")
    assert packed.masks is not None
    assert np.array_equal(packed.masks[0][:, :10], VALUES)


def test_the_fingerprint_changes_with_a_mask_and_with_the_classes(root):
    before = MaskFolder(root).fingerprint
    assert MaskFolder(root).fingerprint == before
    assert MaskFolder(root, classes=["a", "b", "c"]).fingerprint != before
    os.utime(root / "masks" / "ü.png", (1, 1))
    assert MaskFolder(root).fingerprint != before


def test_too_many_values_are_no_classes(tmp_path):
    put(tmp_path / "images" / "a.png", np.zeros((20, 20, 3), np.uint8))
    put(tmp_path / "masks" / "a.png", np.arange(400).reshape(20, 20).astype(np.uint16))
    with pytest.raises(DatasetError, match="hold 400 values: a class has one value, so list `classes`"):
        _ = MaskFolder(tmp_path).classes
    with pytest.raises(DatasetError, match="has no folders images and annot"):
        MaskFolder(tmp_path, masks="annot")


@pytest.mark.real
@pytest.mark.skipif("PROCKD_REAL_DATA" not in os.environ, reason="PROCKD_REAL_DATA is not set")
def test_real_masks_have_their_classes_and_videos():
    real = Path(os.environ["PROCKD_REAL_DATA"])
    animals = MaskFolder(real / "animals", images="frames", classes={0: "background", 255: "animal"})
    assert len(animals) == 244
    assert set(animals.groups or ()) == {"cows", "goat", "horsejump-high"}
    mask = animals[0].mask
    assert mask is not None
    assert set(np.unique(mask)) == {0, 1}
    names = [*map(str, range(11)), "ignore"]
    streets = MaskFolder(real / "camvid", images="val", masks="valannot", classes=names)
    assert len(streets.classes) == 11
    assert {255} < set(np.unique(np.stack([streets[m].mask for m in range(5)])).tolist())


# Masks as people have them


def of_masks(root: Path, *masks: np.ndarray) -> Path:
    for number, pixels in enumerate(masks):
        put(root / "images" / f"{number}.jpg", np.random.default_rng(number).integers(0, 255, (48, 40, 3), np.uint8))
        put(root / "masks" / f"{number}.png", pixels)
    return root


def rows(*values: int) -> np.ndarray:
    """(48, 40): stripes of the values."""
    return np.repeat(np.array(values, np.uint8), 48 // len(values))[:, None].repeat(40, 1)


def test_evenly_spaced_grey_levels_are_classes_255_among_them_and_that_is_said(tmp_path):
    root = of_masks(tmp_path, rows(0, 127, 255))
    assert open_data(root).classes == ("0", "127", "255")
    (note,) = check_data(root, progress=False).notes
    answer = r"0, 127, 255 are evenly spaced .*255 is taken for a class; .*data\.classes=0:0,127:127,255:ignore"
    assert re.search(answer, note.text)
    assert open_data(root, classes=["0:sky", "127:cow", "255:ignore"]).classes == ("sky", "cow")
    assert check_data(root, classes=["0:sky", "127:cow", "255:ignore"], progress=False).problems == ()


def test_many_ignored_pixels_are_told(tmp_path):
    (note,) = check_data(of_masks(tmp_path, rows(0, 3, 4, 255)[:48], rows(255, 255)), progress=False).notes[:1]
    assert re.search(r"62% of the pixels have the value 255 and are ignored; .*say data\.classes=0:0,3:3", note.text)


def test_smoothed_edges_are_refused_with_the_ranges_that_answer_it(tmp_path):
    smooth = np.clip(np.linspace(-900, 1155, 48 * 40), 0, 255).astype(np.uint8).reshape(48, 40)
    root = of_masks(tmp_path, smooth, smooth[::-1])
    with pytest.raises(DatasetError, match=r"hold 0, 255 and a few pixels .* smoothed.*=0-127:background,128-255"):
        open_data(root)[0]
    dataset = open_data(root, classes=["0-127:background", "128-255:object"])
    assert np.array_equal(dataset[0].mask, smooth > 127)


def test_palettes_in_another_order_are_read_by_their_colours(tmp_path):
    upper = np.zeros((48, 40), np.uint8)
    upper[:24] = 1  # red
    root = of_masks(tmp_path, upper, upper)
    for number, colours in enumerate(([0, 0, 0, 255, 0, 0], [255, 0, 0, 0, 0, 0])):
        picture = Image.fromarray(upper if number == 0 else 1 - upper)
        picture.putpalette(colours)
        picture.save(root / "masks" / f"{number}.png")
    dataset = open_data(root)
    assert dataset.classes == ("#000000", "#ff0000")
    assert all(np.array_equal(sample.mask, upper) for sample in dataset)
    assert "palettes list the same colours in another order" in repr(check_data(root, progress=False))


def test_masks_in_the_transparency_are_objects(tmp_path):
    pixels = np.zeros((48, 40, 4), np.uint8)
    pixels[:9, :, 3] = 255
    root = of_masks(tmp_path, pixels)
    assert (open_data(root)[0].mask == 1).sum() == 9 * 40
    assert "1 masks are one colour all over: their transparency is taken" in repr(check_data(root, progress=False))


def test_a_davis_download_is_images_and_masks_with_a_group_a_video(tmp_path):
    for number, video in enumerate(("bear", "camel")):
        put(tmp_path / "JPEGImages" / "480p" / video / "00000.jpg", np.full((12, 10, 3), 99 * number, np.uint8))
        palette(put(tmp_path / "Annotations" / "480p" / video / "00000.png"), VALUES % 2)
    dataset = open_data(tmp_path)
    assert (dataset.classes, groups_of(dataset)) == (("background", "object"), ("480p/bear", "480p/camel"))


COLOURS = np.array([[0, 0, 0], [200, 0, 0], [0, 200, 0]], np.uint8)


@pytest.mark.parametrize(
    ("name", "text"),
    [("labelmap.txt", "# label:color_rgb:parts:actions\nground:0,0,0::\ncow:200,0,0::\nsky:0,200,0::\n"),
     ("label_colors.txt", "0 0 0\tground\n200 0 0\tcow\n0 200 0\tsky\n"),
     ("class_dict.csv", "name,r,g,b\nground,0,0,0\ncow,200,0,0\nsky,0,200,0\n")],
)  # fmt: skip
def test_masks_in_colours_are_read_by_the_list_beside_them(tmp_path, name, text):
    for number, image in enumerate(("a", "b")):
        put(tmp_path / "JPEGImages" / f"{image}.jpg", np.full((12, 10, 3), 90 + number, np.uint8))
        put(tmp_path / "SegmentationClass" / f"{image}.png", COLOURS[VALUES])
    (tmp_path / name).write_text(text)
    dataset = open_data(tmp_path, progress=False)
    assert dataset.classes == ("ground", "cow", "sky")
    assert np.array_equal(dataset[0].mask, VALUES)
    put(tmp_path / "SegmentationClass" / "b.png", COLOURS[VALUES] + np.uint8(1))
    with pytest.raises(
        DatasetError, match=r"b\.png.* holds the colour #010101, and the classes are the colours #000000"
    ):
        open_data(tmp_path, progress=False)[1]


def test_masks_in_colours_without_a_list_say_where_to_name_them(tmp_path):
    put(tmp_path / "images" / "a.jpg")
    put(tmp_path / "masks" / "a.png", COLOURS[VALUES])
    with pytest.raises(DatasetError, match=r"holds colours, not class numbers: .*name the colours in labelmap\.txt"):
        open_data(tmp_path, classes=["a", "b", "c"], progress=False)[0]


def test_palettes_in_another_order_in_another_split_are_one_set_of_classes(tmp_path):
    order = {"train": [0, 1, 2], "test": [2, 1, 0]}
    for number, (split, numbers) in enumerate(order.items()):
        put(tmp_path / split / "images" / "a.png", np.full((12, 10, 3), 90 + number, np.uint8))
        mask = Image.fromarray(np.array(numbers, np.uint8)[VALUES])
        mask.putpalette(COLOURS[np.argsort(numbers)].ravel().tolist())
        (tmp_path / split / "masks").mkdir()
        mask.save(tmp_path / split / "masks" / "a.png")
    splits = open_splits(tmp_path)
    assert splits["train"].classes == ("#000000", "#00c800", "#c80000") == splits["test"].classes
    assert np.array_equal(splits["train"][0].mask, splits["test"][0].mask)
    with pytest.raises(DatasetError, match=r"so that a value says nothing of a class: name the colours in labelmap"):
        open_splits(tmp_path, classes=["ground", "cow", "sky"])
    (tmp_path / "labelmap.txt").write_text("ground:0,0,0::\ncow:200,0,0::\nsky:0,200,0::\n")
    splits = open_splits(tmp_path)
    assert splits["test"].classes == ("ground", "cow", "sky")
    assert np.array_equal(splits["test"][0].mask, VALUES)
