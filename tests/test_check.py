import re
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from pets import folder as folder
from pets import mask, put, said, xml
from PIL import Image
from typer.testing import CliRunner

from prockd._types import UNLABELLED, Sample
from prockd.cli import app
from prockd.datasets import (
    Arrays,
    DatasetError,
    ImageFolder,
    check_data,
    checked,
    open_data,
    open_splits,
    skip_bad,
)

# The report


def test_good_data_has_an_empty_report_that_says_what_it_was_taken_for(folder):
    report = check_data(folder, progress=False)
    assert report.ok
    assert report.problems == ()
    assert repr(report).splitlines() == [
        f"{folder}: looks like class folders, for classification, 2 classes: cat, dog",
        "4 images in train, 2 images in val: nothing is wrong",
        "images: cat 3, dog 3",
    ]


def test_every_problem_is_told_and_not_only_the_first(folder, tmp_path):
    (folder / "train" / "cat" / "ü.png").write_bytes(b"no picture")
    whole = (folder / "train" / "dog" / "c.png").read_bytes()
    (folder / "train" / "dog" / "c.png").write_bytes(whole[: len(whole) // 2])
    put(folder / "train" / "dog" / "tiny.png", 9, (5, 4))
    header = struct.pack(">2I5B", 20_000, 20_000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    chunk += struct.pack(">I", 0) + b"IDAT"
    (folder / "train" / "dog" / "vast.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
    shutil.copy(folder / "train" / "cat" / "a b.png", folder / "val" / "cat" / "copy.png")
    shutil.copy(folder / "train" / "cat" / "a b.png", folder / "train" / "cat" / "again.png")
    put(folder / "val" / "cow" / "g.png", 7)
    (folder / "train" / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "train" / "cat" / "gone.png").symlink_to(tmp_path / "gone.png")
    (folder / "train" / "cat" / "x.psd").write_bytes(b"")
    report = check_data(folder, progress=False)
    told = "\n".join(said(report))
    for expected in (
        r"error +train/cat/ü\.png +cannot be read as an image",
        r"error +train/dog/c\.png +cannot be read as an image \(.*truncated",
        r"error +train/dog/tiny\.png +is 5 x 4 px, too small",
        r"error +train/dog/vast\.png +is larger than any photograph",
        r"error +val/cat/copy\.png +is the same file as train/cat/a b\.png in train",
        r"error +val +class folder cow +train has no class of that name: its 1 images are left out",
        r"error +train/cat/gone\.png +is a link to .*gone\.png, which leads nowhere",
        r"note +train/cat/again\.png +is the same file as train/cat/a b\.png$",
        r"note +train/loop +is a link that leads back",
        r"note +train/cat/x\.psd +is left out: \.psd is not one of \.bmp",
    ):
        assert re.search(expected, told, re.MULTILINE), expected
    assert len(report.errors) == 7
    assert len(report.notes) == 4  # the last is the picture of the class that is left out
    assert [(row["kind"], row["file"]) for row in report.rows()] == [
        (row["kind"], row["file"]) for row in check_data(folder, progress=False).rows()
    ]


def test_a_long_report_is_cut_when_printed_and_whole_as_rows(tmp_path):
    for number in range(50):
        (tmp_path / "cat").mkdir(exist_ok=True)
        (tmp_path / "cat" / f"{number:02}.png").write_bytes(b"no picture")
    report = check_data(tmp_path, progress=False)
    assert len(report.errors) == 50
    assert said(report)[-2].startswith("... and 11 more: rows(), or prockd check-data --all, has")
    assert said(report)[-1].startswith("Mend them, or train without them: on_bad='skip' (--set data.on_bad=skip)")
    assert "50 images: 50 errors, 1 note; 50 images cannot be used" in repr(report)
    assert "there is one class, 'cat': classification needs two" in [row["problem"] for row in report.rows()]


def test_masks_are_checked_for_size_values_and_partners(tmp_path):
    for number, name in enumerate("abcd"):
        put(tmp_path / "images" / f"{name}.jpg", number)
    for name, value, size in (("a", 1, (12, 10)), ("b", 7, (9, 9)), ("c", 1, (12, 10)), ("z", 1, (12, 10))):
        mask(tmp_path / "masks" / f"{name}.png", value, size)
    (tmp_path / "masks" / "c.png").write_bytes(b"no picture")
    (tmp_path / "classes.txt").write_text("ground\nanimal\n")
    report = check_data(tmp_path, progress=False)
    assert [(row["file"], row["problem"]) for row in report.rows()][:2] == [
        ("images/d.jpg", "no mask: looked for masks/d.*"),
        ("masks/z.png", "mask without an image: looked for images/z.*"),
    ]
    told = "\n".join(said(report))
    assert re.search(r"masks/b\.png +is 9 x 9 px and its image 12 x 10 px", told)
    assert re.search(r"masks/b\.png +holds 7, and the classes have the values 0, 1, 255", told)
    assert re.search(r"masks/c\.png +cannot be read as an image", told)
    assert len(report.errors) == 5
    with pytest.raises(DatasetError, match="2 bad entries"):
        open_data(tmp_path)
    with pytest.warns(UserWarning, match="skipped") as told_of:
        rest = open_data(tmp_path, on_bad="skip", progress=False)
    entries, samples = (str(warning.message) for warning in told_of)
    assert re.search(r"2 entries are skipped: .*d\.jpg: no mask.*; .*z\.png: mask without an image", entries)
    assert samples == "2 of 3 images are skipped: images/b.jpg, images/c.jpg"
    assert [s.id for s in rest] == ["images/a.jpg"]


def test_boxes_are_checked_and_images_without_objects_are_notes(tmp_path):
    for number, name in enumerate("abcde"):
        put(tmp_path / "images" / f"{name}.jpg", number)
    for name, corners in (("a", (1, 1, 9, 9)), ("b", (9, 1, 3, 5)), ("c", (1, 1, 99, 9)), ("d", ()), ("e", (3, 3))):
        xml(tmp_path / "annotations" / f"{name}.xml", *corners)
    report = check_data(tmp_path, progress=False)
    assert "looks like PASCAL VOC, for detection" in repr(report)
    told = "\n".join(said(report))
    assert re.search(r"annotations/b\.xml +object 1 +box xmin 9, ymin 1, xmax 3, ymax 5 has its corners swapped", told)
    assert re.search(r"annotations/c\.xml +object 1 +box xmin 1, ymin 1, xmax 99, ymax 9 reaches outside", told)
    assert re.search(r"annotations/e\.xml +object 1 +lacks <bndbox><xmax>, <bndbox><ymax>", told)
    assert re.search(r"note +images/d\.jpg +no objects", told)
    assert (len(report.errors), len(report.notes)) == (3, 1)


def test_classes_that_train_lacks_are_told(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
    splits = {"train": Arrays(images[:4], [0, 0, 1, 1], "abc"), "val": Arrays(images[4:], [0, 2], "abc")}
    report = check_data(splits, progress=False)
    assert [(row["kind"], row["file"], row["problem"]) for row in report.rows()] == [
        ("error", "val", "has class 'c' in 1 image, and train has none: give train some, or leave these out")
    ]
    assert report.bad[splits["val"].fingerprint] == (1,)
    for part, name in (("train", "cat"), ("val", "dog")):
        put(tmp_path / part / "images" / "a.jpg", len(name + part))
        xml(tmp_path / part / "annotations" / "a.xml", 1, 1, 5, 5, name=name)
    assert "class 'dog' is not one of cat" in repr(check_data(tmp_path, progress=False))


def test_unlabelled_images_are_notes_and_a_task_without_its_annotation_is_an_error(tmp_path, folder):
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    some = check_data(Arrays(images, [0, UNLABELLED, 0], "ab"), progress=False)
    assert [(p.file, p.text, p.note) for p in some.problems] == [("1", "has no class", True)]
    none = check_data(Arrays(images, [0, 0, 0], "a"), task="segmentation", progress=False)
    assert [p.note for p in none.problems] == [False]
    assert "no image has a mask" in repr(none)
    put(tmp_path / "loose" / "a.png")
    report = check_data(tmp_path / "loose", progress=False)
    assert report.ok
    assert "looks like loose pictures" in repr(report)


def test_any_data_set_is_checked_and_its_bad_samples_are_skipped():
    class World:
        """One good sample, one with bad boxes and label, one that cannot be made."""

        classes = ("a", "b")
        fingerprint = "world"

        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Sample:
            if index == 2:
                raise DatasetError("s2 is broken")
            image = np.full((10, 12, 3), index, np.uint8)
            boxes = np.array([[1, 1, 5, 5], [3, 3, 3, 9]] if index else [[1, 1, 5, 5], [0, 0, 12, 10]], np.float32)
            return Sample(image, 4 * index, f"s{index}", boxes=boxes, box_labels=np.array([0, 1]))

    world = World()
    report = check_data(world, task="detection", progress=False)
    assert [str(problem) for problem in report.problems] == [
        "1: has label 4: 2 classes have labels 0..1",
        "1, object 2: box 3, 3, 3, 9 has no area",
        "2: s2 is broken",
    ]
    with pytest.warns(UserWarning, match="2 of 3 images are skipped: 1, 2"):
        rest = skip_bad(world, report)
    assert [s.id for s in rest] == ["s0"]


def test_one_picture_in_two_classes_is_an_error_and_neither_is_used(folder):
    first, second = folder / "train" / "cat" / "ü.png", folder / "train" / "dog" / "the same.png"
    second.write_bytes(first.read_bytes())
    dataset = ImageFolder(folder / "train")
    report = check_data(dataset, progress=False)
    (problem,) = report.errors
    assert re.search(r"is the same file as .*ü\.png, but shows dog, and that cat: mend the one", problem.text)
    with pytest.warns(UserWarning, match="2 of 5 images are skipped: cat/ü.png, dog/the same.png"):
        assert len(skip_bad(dataset, report)) == 3


def test_splits_are_refused_or_what_is_bad_is_left_out_and_the_reading_is_remembered(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("PROCKD_CACHE", str(tmp_path / "cache"))
    copy = folder / "val" / "cat" / "copy.png"
    copy.write_bytes((folder / "train" / "cat" / "ü.png").read_bytes())
    put(folder / "val" / "dog" / "small.png", 9, (5, 5))
    (folder / "train" / "cat" / "again.png").write_bytes((folder / "train" / "cat" / "ü.png").read_bytes())
    splits = open_splits(folder)
    with pytest.raises(
        DatasetError, match=r"(?s)2 bad entries.*copy\.png: is the same file as .* in train.*small\.png"
    ):
        checked(splits, progress=False)
    with pytest.warns(UserWarning, match="2 of 4 images are skipped: cat/copy.png, dog/small.png"):
        good = checked(splits, on_bad="skip", progress=False)
    assert {name: len(dataset) for name, dataset in good.items()} == {"train": 5, "val": 2}
    monkeypatch.setattr("prockd.datasets.opening.check_data", None)  # nothing is read a second time
    with pytest.warns(UserWarning, match="images are") as told:
        once = checked(splits, on_bad="skip", once=True, progress=False)
    assert "1 of 5 images are there twice and used once: cat/ü.png" in [str(warning.message) for warning in told]
    assert [s.id for s in once["train"]] == ["cat/a b.png", "cat/again.png", "dog/c.png", "dog/d.png"]


def test_images_of_a_class_that_train_lacks_are_left_out_when_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("PROCKD_CACHE", str(tmp_path / "cache"))
    images = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), np.uint8)
    splits = {"train": Arrays(images[:4], [0, 0, 1, 1], "abc"), "test": Arrays(images[4:], [0, 2, 1], "abc")}
    with pytest.raises(DatasetError, match="test: has class 'c' in 1 image, and train has none: give train some"):
        checked(splits, progress=False)
    with pytest.warns(UserWarning, match="1 of 3 images are skipped: 1"):
        good = checked(splits, on_bad="skip", progress=False)
    assert [s.label for s in good["test"]] == [0, 1]


def test_a_report_of_other_data_and_data_of_which_nothing_is_left_are_refused(folder):
    report = check_data(folder, progress=False)
    train = ImageFolder(folder / "train")
    assert skip_bad(train, report) is train
    put(folder / "train" / "cat" / "new.png", 11)
    with pytest.raises(DatasetError, match="the check is not of this data: run check_data again"):
        skip_bad(ImageFolder(folder / "train"), report)
    for path in (folder / "train").rglob("*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(DatasetError, match="no image can be used"):
        open_data(folder, split="train", on_bad="skip", progress=False)


def test_key_points_are_checked_with_their_images(tmp_path):
    for frame in ("0.png", "1.png"):
        put(tmp_path / "cow" / "frames" / frame, int(frame[0]))
        mask(tmp_path / "cow" / "masks" / frame)
    lines = ("frame,part,x_px,y_px", "0.png,leg,3,4", "1.png,leg,13,4", "2.png,leg,1,1", "0.png,leg,x,1")
    (tmp_path / "cow" / "parts.csv").write_text("\n".join(lines))
    report = check_data(tmp_path, progress=False)
    assert "looks like images and masks" in repr(report)
    assert [(row["file"], row["entry"], row["problem"].partition(":")[0]) for row in report.rows()] == [
        ("cow/parts.csv", "line 5", "x_px is 'x', not a number of pixels"),
        ("cow/parts.csv", "frame 1.png", "leg at 13, 4 is outside of its image of 12 x 10 px"),
        ("cow/parts.csv", "frame 2.png", "its image is missing"),
    ]
    alone = check_data(tmp_path / "cow" / "parts.csv", progress=False)
    assert "looks like key points" in repr(alone)
    assert len(alone.errors) == 3


def test_unlabelled_pictures_are_checked_and_counted_and_lack_nothing(folder):
    put(folder / "unlabelled" / "june" / "x.png", 11)
    put(folder / "unlabelled" / "y.png", 12)
    report = check_data(folder, progress=False)
    assert report.problems == ()
    assert "4 images in train, 2 images in val, 2 images in unlabelled: nothing is wrong" in repr(report)
    (folder / "unlabelled" / "z.png").write_bytes(b"no picture")
    report = check_data(folder, progress=False)
    assert [row["file"] for row in report.rows()] == ["unlabelled/z.png"]
    assert not report.ok


def test_an_unlabelled_copy_of_a_training_image_is_a_note_and_of_a_test_image_an_error(folder):
    shutil.copy(
        folder / "train" / "cat" / "a b.png", (folder / "unlabelled").mkdir() or folder / "unlabelled" / "1.png"
    )
    shutil.copy(folder / "val" / "cat" / "e.png", folder / "unlabelled" / "2.png")
    put(folder / "unlabelled" / "3.png", 13)
    report = check_data(folder, progress=False)
    assert [(row["kind"], row["file"], row["problem"]) for row in report.rows()] == [
        ("note", "unlabelled/1.png", "is the same file as train/cat/a b.png in train"),
        ("error", "unlabelled/2.png", "is the same file as val/cat/e.png in val"),
    ]
    splits = open_splits(folder)
    with pytest.raises(DatasetError, match=r"unlabelled/2\.png: is the same file"):
        checked(splits, progress=False)
    with pytest.warns(UserWarning, match=r"1 of 3 images are skipped: 2\.png"):
        kept = checked(splits, on_bad="skip", progress=False)
    assert [s.id for s in kept["unlabelled"]] == ["1.png", "3.png"]


def test_the_name_of_the_folder_is_taken_off_paths_and_not_out_of_other_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("s/cats/0.png", "s/dogs/1.png")):
        put(Path(name), seed)
    shutil.copy("s/cats/0.png", "s/cats/9.png")
    assert [row["problem"] for row in check_data("s", progress=False).rows()] == ["is the same file as cats/0.png"]


def test_what_is_doubtful_is_said_when_training_too_once_for_many_images(tmp_path, monkeypatch):
    monkeypatch.setenv("PROCKD_CACHE", str(tmp_path / "cache"))
    for number in range(3):
        (tmp_path / "d" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        levels = np.random.default_rng(number).integers(0, 4096, (16, 16)).astype(np.uint16)
        Image.fromarray(levels).save(tmp_path / "d" / "ab"[number % 2] / f"{number}.tif")
    with pytest.warns(UserWarning, match=r"nearly black: .*say white=4095 .*\(and 2 more\)") as told:
        checked(open_splits(tmp_path / "d"), progress=False)
    assert len(told) == 1
    assert checked(open_splits(tmp_path / "d", white=4095), progress=False)["all"][0].image.max() > 200


def test_classes_that_differ_in_case_alone_are_told_and_every_class_is_counted(tmp_path):
    for number, name in enumerate(("Cat/0", "cat/1", "cat/2")):
        put(tmp_path / f"{name}.png", number)
    report = check_data(tmp_path, progress=False)
    assert report.shown["images"] == {"Cat": 1, "cat": 2, "ignored": 0}
    assert "note  classes 'Cat' and 'cat' differ in case or blanks alone" in repr(report)


def test_boxes_and_pixels_are_counted_with_those_that_are_ignored(tmp_path):
    put(tmp_path / "d" / "images" / "a.jpg")
    xml(tmp_path / "d" / "annotations" / "a.xml", 1, 1, 5, 5)
    assert "1 boxes: cat 1" in repr(check_data(tmp_path / "d", progress=False))
    put(tmp_path / "s" / "images" / "a.jpg")
    mask(tmp_path / "s" / "masks" / "a.png", 255)
    (tmp_path / "s" / "classes.txt").write_text("ground\n")
    assert "pixels: ground 50.0%, ignored 50.0%" in repr(check_data(tmp_path / "s", progress=False))


def test_a_contact_sheet_is_drawn_of_every_kind_of_label(tmp_path):
    put(tmp_path / "images" / "a.jpg", 1)
    xml(tmp_path / "annotations" / "a.xml", 1, 1, 5, 5)
    put(tmp_path / "loose" / "b.jpg", 2)
    for place in (tmp_path, tmp_path / "loose"):
        result = CliRunner().invoke(app, ["check-data", str(place), "-q", "--sheet", str(tmp_path / "sheet.png")])
        assert result.exit_code == 0, result.output
        with Image.open(tmp_path / "sheet.png") as sheet:
            assert min(sheet.size) > 100
        (tmp_path / "sheet.png").unlink()
