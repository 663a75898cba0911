"""Boxes in YOLO's text files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prockd.datasets import DatasetError, check_data, open_data, open_splits


def put(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (20, 40, 3), np.uint8)).save(path)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


BOX = "1 0.5 0.5 0.25 0.5\n"  # of 40 x 20 px: x from 15 to 25, y from 5 to 15


@pytest.mark.parametrize("names", ["names: [cat, dog]\n", "names:\n  0: cat\n  1: dog\nnc: 2\n"])
def test_the_folders_of_roboflow_are_read_with_the_names_of_data_yaml(tmp_path, names):
    for seed, part in enumerate(("train", "valid")):
        put(tmp_path / part / "images" / "a.jpg", seed)
        write(tmp_path / part / "labels" / "a.txt", BOX)
    write(tmp_path / "data.yaml", names)
    write(tmp_path / "README.roboflow.txt", "Exported by somebody\n")
    splits = open_splits(tmp_path)
    assert {name: split[0].boxes.tolist() for name, split in splits.items()} == {
        "train": [[15, 5, 25, 15]], "val": [[15, 5, 25, 15]]
    }  # fmt: skip
    assert (splits["train"].classes, splits["val"][0].box_labels.tolist()) == (("cat", "dog"), [1])


def test_the_folders_of_ultralytics_are_read_and_a_picture_without_a_file_shows_nothing(tmp_path):
    for part, name in (("train", "a"), ("train", "empty"), ("val", "b")):
        put(tmp_path / "images" / part / f"{name}.jpg", ord(name[0]))
    write(tmp_path / "labels" / "train" / "a.txt", BOX)
    write(tmp_path / "labels" / "val" / "b.txt", "0 0.1 0.1 0.5 0.1 0.5 0.9\n\n0 0.5 0.5 0.2 0.2 0.9\n")
    splits = open_splits(tmp_path, classes=["cat", "dog"])
    assert [len(sample.boxes) for sample in splits["train"]] == [1, 0]
    assert np.allclose(splits["val"][0].boxes, [[4, 2, 20, 18], [16, 8, 24, 12]], atol=1e-4), "a polygon's box too"
    assert "no objects" in repr(check_data(tmp_path, classes=["cat", "dog"], progress=False))


@pytest.mark.parametrize(("folder", "listed"), [("obj_train_data", "obj.names"), (".", "classes.txt")])
def test_texts_beside_the_pictures_are_read_as_labelimg_and_darknet_leave_them(tmp_path, folder, listed):
    put(tmp_path / folder / "a.png")
    write(tmp_path / folder / "a.txt", BOX)
    write(tmp_path / listed, "cat\ndog\n")
    write(tmp_path / "train.txt", "data/obj_train_data/a.png\n")
    dataset = open_data(tmp_path)
    assert (dataset.task, dataset.classes, dataset[0].boxes.tolist()) == (
        "detection", ("cat", "dog"), [[15, 5, 25, 15]]
    )  # fmt: skip


def test_of_key_points_after_a_box_the_box_is_taken_where_data_yaml_says_that_they_are(tmp_path):
    put(tmp_path / "images" / "a.jpg")
    write(tmp_path / "labels" / "a.txt", BOX.strip() + " 0.4 0.4 2 0.6 0.6 2\n")
    write(tmp_path / "data.yaml", "names: [cat, dog]\nkpt_shape: [2, 3]\n")
    assert open_data(tmp_path)[0].boxes.tolist() == [[15, 5, 25, 15]]


@pytest.mark.parametrize(
    ("line", "told"),
    [("2 0.5 0.5 0.25 0.5", "line 2: class 2 of 2, which have the numbers from 0"),
     ("1 0.5 0.5 0.25", "line 2: '1 0.5 0.5 0.25' is not a class number and four numbers"),
     ("1 0.5 0.5 0.25 0.5 0.1 0.1 0.2", "line 2: has 7 numbers: a box has 4"),
     ("1 15 5 25 15", "reaches outside the image of 40 x 20 px")],
)  # fmt: skip
def test_a_line_that_is_no_box_is_told_with_its_number(tmp_path, line, told):
    put(tmp_path / "images" / "a.jpg")
    write(tmp_path / "labels" / "a.txt", f"{BOX}{line}\n")
    write(tmp_path / "data.yaml", "names: [cat, dog]\n")
    with pytest.raises(DatasetError) as error:
        open_data(tmp_path)[0]
    assert told in str(error.value)
    assert "a.txt, line 2" in str(error.value)


@pytest.mark.parametrize("text", ["names: 3\n", "names: {1: cat}\n", "names: [[\n", "!!python/object:os.system x\n"])
def test_a_list_of_classes_that_is_none_is_refused_by_name(tmp_path, text):
    put(tmp_path / "images" / "a.jpg")
    write(tmp_path / "labels" / "a.txt", BOX)
    write(tmp_path / "data.yaml", text)
    with pytest.raises(DatasetError, match=r"data\.yaml is not a list of classes that can be read"):
        open_data(tmp_path)


def test_a_label_file_without_its_picture_is_a_bad_entry(tmp_path):
    put(tmp_path / "images" / "a.jpg")
    for name in "ab":
        write(tmp_path / "labels" / f"{name}.txt", BOX)
    with pytest.raises(DatasetError, match=r"b\.txt: label file without an image"):
        open_data(tmp_path)
