from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prockd._types import UNLABELLED
from prockd.datasets import Arrays, DatasetError, ImageTable, groups_of, open_npz, pack, train_test_split


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three pictures, one of them in a folder, with spaces and umlauts in their names."""
    for name in ("a b.jpg", "ü.png", "more/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (12, 10), "red").save(tmp_path / name)
    return tmp_path


def table(root: Path, text: str) -> Path:
    (root / "labels.csv").write_text(text, "utf-8")
    return root / "labels.csv"


def test_each_line_is_an_image_and_an_empty_label_is_unlabelled(root):
    dataset = ImageTable(table(root, "path,label\na b.jpg,dog\nü.png,\nmore/c.png,cat\n"))
    assert dataset.classes == ("cat", "dog")
    assert [(s.id, s.label) for s in dataset] == [("a b.jpg", 1), ("ü.png", UNLABELLED), ("more/c.png", 0)]
    assert dataset[0].tags is None
    assert "3 images, 2 classes: cat, dog" in repr(dataset)


def test_the_group_column_keeps_near_copies_on_one_side(root):
    dataset = ImageTable(table(root, "path;label;group\na b.jpg;x;farm 1\nü.png;x;farm 1\nmore/c.png;x;farm 2\n"))
    assert dataset.groups == ("farm 1", "farm 1", "farm 2")
    rest, first = train_test_split(dataset, 0.5, 0)
    assert not set(groups_of(first) or ()) & set(groups_of(rest) or ())


@pytest.mark.parametrize(
    "text",
    [
        "path,labels\na b.jpg,sea|sky\nü.png,\nmore/c.png,sky; sea\n",
        "file,sea,sky\na b.jpg,1,1\nü.png,0,0\nmore/c.png,1,1\n",
    ],
)
def test_an_image_may_show_several_classes(root, text):
    dataset = ImageTable(table(root, text))
    assert dataset.classes == ("sea", "sky")
    assert [s.tags.tolist() for s in dataset if s.tags is not None] == [[1, 1], [0, 0], [1, 1]]
    assert dataset.labels.tolist() == [UNLABELLED] * 3
    assert "several an image" in repr(dataset)
    other = ImageTable(table(root, text), classes=["sky", "sea", "sun"])
    assert other[0].tags is not None
    assert other[0].tags.tolist() == [1, 1, 0]
    packed = pack(dataset, 12, root=root / "cache")
    assert packed.tags is not None
    assert packed.tags.tolist() == [[1, 1], [0, 0], [1, 1]]


@pytest.mark.parametrize(
    ("header", "line", "said"),
    [
        ("path,label", ",dog", "line 3: no path: the name of an image file is missing"),
        ("path,label", "a b.jpg,dog", "line 3: a b.jpg is listed twice, first in line 2"),
        ("path,label", "ü.png,cow", "line 3: class 'cow' is not one of dog, cat"),
        ("path,labels", "ü.png,cat|cow", "line 3: class 'cow' is not one of dog, cat"),
        ("path,dog,cat", "ü.png,1,2", "line 3: column 'cat' holds '2', not 0 or 1"),
        ("path,dog,cat", "ü.png,1", "line 3: column 'cat' holds '', not 0 or 1"),
    ],
)
def test_a_bad_line_is_refused_or_left_out(root, header, line, said):
    good = "a b.jpg,0,1" if header.endswith("cat") else "a b.jpg,dog"
    path = table(root, f"{header}\n{good}\n{line}\n")
    with pytest.raises(DatasetError, match=f"labels.csv, {said}"):
        ImageTable(path, classes=["dog", "cat"])
    dataset = ImageTable(path, classes=["dog", "cat"], on_bad="skip")
    assert dataset.ids == ("a b.jpg",)
    assert [problem.entry for problem in dataset.flaws] == ["line 3"]


def test_a_cell_may_hold_commas_and_a_line_needs_its_group(root):
    dataset = ImageTable(table(root, 'path,label\n"a b.jpg","cat, dog"\n\nü.png,x\n'))
    assert dataset.classes == ("cat, dog", "x")
    with pytest.raises(DatasetError, match=r"labels\.csv, line 3: no group"):
        ImageTable(table(root, "path,label,group\na b.jpg,x,farm\nü.png,x,\n"))


def test_a_missing_picture_spoils_its_line_alone(root):
    dataset = ImageTable(table(root, "path,label\ngone.jpg,dog\nü.png,cat\n"))
    with pytest.raises(DatasetError, match=r"gone\.jpg: does not exist"):
        dataset[0]
    assert dataset[1].label == 0


def test_a_table_without_paths_or_rows_is_refused(root):
    with pytest.raises(DatasetError, match=r"line 1: no column path or file or filename or image; it has name, label"):
        ImageTable(table(root, "name,label\n"))
    with pytest.raises(DatasetError, match="holds no images that can be used"):
        ImageTable(table(root, "path,label\n"))


def test_the_fingerprint_changes_with_tags_and_lines(root):
    before = ImageTable(table(root, "path,labels\nü.png,a|b\n")).fingerprint
    after = ImageTable(table(root, "path,labels\nü.png,a\n"), classes=["a", "b"]).fingerprint
    assert before != after


# Arrays in a file


def test_arrays_of_each_subset_are_opened(tmp_path):
    images = np.arange(3 * 8 * 8 * 3, dtype=np.uint8).reshape(3, 8, 8, 3)
    names = np.array(["cat", "dog"])
    np.savez(tmp_path / "a.npz", train_images=images, train_labels=[0, 1, 0], test_images=images[:1], test_labels=[1],
             class_names=names)  # fmt: skip
    found = open_npz(tmp_path / "a.npz")
    assert {split: len(dataset) for split, dataset in found.items()} == {"train": 3, "test": 1}
    assert found["test"].classes == ("cat", "dog")
    assert np.array_equal(found["train"][2].image, images[2])
    np.savez(tmp_path / "b.npz", images=images, labels=np.array([[0], [2], [1]]))
    whole = open_npz(tmp_path / "b.npz")["all"]
    assert isinstance(whole, Arrays)
    assert (whole.classes, whole.labels.tolist()) == (("0", "1", "2"), [0, 2, 1])


def test_a_file_without_arrays_is_named(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    with pytest.raises(DatasetError, match=r"a\.npz has no images and labels.*it has x"):
        open_npz(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", images=np.array([{}]), labels=[0])
    with pytest.raises(DatasetError, match=r"b\.npz cannot be read as NPZ without pickled objects"):
        open_npz(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", images=np.zeros((2, 8, 8, 3)), labels=[0, 0])
    with pytest.raises(DatasetError, match=r"c\.npz, all: images are float64"):
        open_npz(tmp_path / "c.npz")
    (tmp_path / "d.npz").write_bytes(b"PK no")
    with pytest.raises(DatasetError, match=r"d\.npz cannot be read"):
        open_npz(tmp_path / "d.npz")
