from pathlib import Path

import pytest
from PIL import Image

from prockd._types import UNLABELLED
from prockd.datasets import DatasetError, ImageTable, check_data, groups_of, open_splits, pack, train_test_split


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


def test_a_column_divides_the_list_into_splits(root):
    path = table(root, "path,label,split\na b.jpg,dog,Train\nü.png,cat,training\nmore/c.png,cat,test\n")
    splits = open_splits(path)
    assert {name: dataset.ids for name, dataset in splits.items()} == {
        "train": ("a b.jpg", "ü.png"), "test": ("more/c.png",)
    }  # fmt: skip
    assert splits["test"].classes == ("cat", "dog")
    assert list(open_splits(root)) == ["train", "test"]
    table(root, "path,label,split\na b.jpg,dog,train\nü.png,cat,maybe\nmore/c.png,cat,test\n")
    with pytest.raises(DatasetError, match=r"labels\.csv, line 3: split is 'maybe', not one of train, val, test"):
        open_splits(path)


def test_classes_between_commas_are_taken_apart_and_that_is_said(root):
    path = table(root, 'path,labels\na b.jpg,"cat,dog"\nü.png,cat\nmore/c.png,dog\n')
    assert ImageTable(path).classes == ("cat", "dog")
    assert "column labels: commas stand between classes (1 lines); write |" in repr(check_data(path, progress=False))
    path = table(root, "path,label\na b.jpg,cat|dog\nü.png,cat\nmore/c.png,dog\n")
    assert "'cat|dog' is read as one class, and its parts are classes: call the column labels" in repr(
        check_data(path, progress=False)
    )
