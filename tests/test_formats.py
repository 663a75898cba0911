"""Every layout is known by its looks, and a new one is a file and a line."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from pets import folder as folder
from pets import mask, put, said, xml
from PIL import Image

import prockd.datasets
from prockd.datasets import (
    DatasetError,
    MaskFolder,
    check_data,
    formats,
    open_data,
    open_splits,
    pack,
)
from prockd.datasets.files import FileDataset
from prockd.datasets.formats import Format


def test_splits_share_the_classes_of_train(folder):
    shutil.rmtree(folder / "val" / "cat")
    splits = open_splits(folder)
    assert {name: tuple(dataset.classes) for name, dataset in splits.items()} == dict.fromkeys(
        ("train", "val"), ("cat", "dog")
    )
    assert [s.label for s in splits["val"]] == [1]
    assert open_data(folder, split="val").fingerprint == splits["val"].fingerprint
    with pytest.raises(DatasetError, match="has train, val: say split='train'"):
        open_data(folder)
    with pytest.raises(DatasetError, match="has train, val: there is no split 'test'"):
        open_data(folder, split="test")


def test_masks_beside_or_below_their_images_are_found(tmp_path):
    for part in ("train", "val"):
        put(tmp_path / "street" / part / "a.png")
        mask(tmp_path / "street" / f"{part}annot" / "a.png", 5)
        put(tmp_path / "land" / "images" / part / "a.png")
        mask(tmp_path / "land" / "masks" / part / "a.png", 5)
        put(tmp_path / "sea" / part / "images" / "a.png")
        mask(tmp_path / "sea" / part / "masks" / "a.png", 5)
    for name in ("street", "land", "sea"):
        splits = open_splits(tmp_path / name, task="segmentation")
        assert list(splits) == ["train", "val"]
        val = splits["val"]
        assert isinstance(val, MaskFolder)
        assert val.names == {0: "0", 5: "5", 255: "ignore"}
        assert val[0].mask is not None


def test_tables_and_coco_files_are_found_by_their_names_and_their_content(tmp_path):
    for seed, name in enumerate("ab"):
        put(tmp_path / "csv" / f"{name}.png", seed)
        put(tmp_path / "coco" / "images" / f"{name}.png", seed)
    (tmp_path / "csv" / "train.csv").write_text("path,label\na.png,x\n")
    (tmp_path / "csv" / "val.csv").write_text("path,label\nb.png,x\n")
    (tmp_path / "csv" / "parts.csv").write_text("frame,part,x_px,y_px\n")
    splits = open_splits(tmp_path / "csv")
    assert [splits[part][0].id for part in ("train", "val")] == ["a.png", "b.png"]
    text = '{"images": [{"id": 4, "file_name": "a.png"}], "annotations": [], "categories": [{"id": 1, "name": "x"}]}'
    (tmp_path / "coco" / "boxes.json").write_text(text)
    (tmp_path / "coco" / "other.json").write_text("{}")
    with pytest.warns(UserWarning, match=r"b\.png: is left out: .*no list names it"):
        assert open_data(tmp_path / "coco").classes == ("x",)
    assert len(open_data(tmp_path / "coco" / "boxes.json")) == 1
    np.savez(tmp_path / "a.npz", images=np.zeros((1, 8, 8, 3), np.uint8), labels=[0])
    assert open_data(tmp_path / "a.npz").classes == ("0",)


def test_classes_may_be_called_train_and_test_tube(tmp_path):
    for seed, name in enumerate(("bus", "test tube", "train")):
        put(tmp_path / name / "a.png", seed)
    assert tuple(open_data(tmp_path).classes) == ("bus", "test tube", "train")


def test_files_that_are_there_for_something_else_do_not_matter(folder):
    (folder / "notes.csv").write_bytes(b"\xff\xfe")
    (folder / "other.npz").write_bytes(b"no arrays")
    assert list(open_splits(folder)) == ["train", "val"]


def test_the_task_chooses_between_layouts_and_what_does_not_fit_lists_them_all(folder, tmp_path):
    said = (
        r"(?s)for detection: it looks like class folders, for classification .*Layouts for detection.*PASCAL VOC.*COCO"
    )
    with pytest.raises(DatasetError, match=said):
        open_data(folder, task="detection")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"(?s)empty holds no pictures\. Known layouts.*class folders"):
        open_data(tmp_path / "empty")
    with pytest.raises(DatasetError, match=r"ü\.png is one picture: name the folder that holds them, .*cat"):
        open_data(folder / "train" / "cat" / "ü.png")
    put(tmp_path / "dense" / "images" / "a.jpg")
    mask(tmp_path / "dense" / "masks" / "a.png", 1, (12, 10))
    with pytest.raises(
        DatasetError, match="cannot be used for classification: it looks like images and masks, for seg"
    ):
        open_data(tmp_path / "dense", task="classification")
    with pytest.raises(DatasetError, match="nowhere does not exist"):
        open_data(tmp_path / "nowhere")
    with pytest.raises(
        ValueError, match="task='drawing': must be one of classification, detection, keypoints, segmentation"
    ):
        open_data(folder, task="drawing")
    (tmp_path / "LICENSE").write_text("free")
    with pytest.raises(DatasetError, match=r"LICENSE has no layout that is known\. Known layouts"):
        open_data(tmp_path / "LICENSE")
    (tmp_path / "x.zip").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"x\.zip is an archive: unpack it first"):
        open_data(tmp_path / "x.zip")
    for place in (tmp_path / "empty", tmp_path / "x.zip", tmp_path / "nowhere"):
        report = check_data(place, progress=False)
        assert not report.ok
        assert "cannot be opened" in repr(report)


def test_a_group_can_be_told_when_opening(folder):
    dataset = open_data(folder, split="train", group=r"/(\w)")
    assert getattr(dataset, "groups", None) == ("a", "ü", "c", "d")


def test_opened_data_packs(folder, tmp_path):
    assert len(pack(open_data(folder, split="train"), 8, root=tmp_path / "cache")) == 4


@pytest.mark.real
@pytest.mark.skipif("PROCKD_REAL_DATA" not in os.environ, reason="PROCKD_REAL_DATA is not set")
@pytest.mark.parametrize(
    ("place", "looks", "counts"),
    [
        ("ants_bees", "class folders, for classification", {"train": 245, "val": 153}),
        ("raccoon", "PASCAL VOC, for detection", {"all": 200}),
        ("animals/cows/parts.csv", "key points", {"all": 21}),
        ("camvid", "images and masks, for segmentation", {"train": 40, "val": 26}),
        ("cifar10_small.npz", "arrays, for classification", {"train": 4000, "test": 1500}),
    ],
)
def test_real_folders_are_recognised_and_nothing_is_wrong_with_them(place, looks, counts):
    report = check_data(Path(os.environ["PROCKD_REAL_DATA"]) / place, progress=False)
    assert f"looks like {looks}" in repr(report)
    assert report.counts == counts
    assert report.ok


# A new format


class LabelFile(FileDataset):
    """One text file beside the images, with a line ``image<TAB>label`` for each."""

    def __init__(self, path, *, classes=None, **options):
        lines = [line.split("\t") for line in Path(path).read_text("utf-8").splitlines() if line]
        names = list(classes or sorted({label for _, label in lines}))
        paths = [Path(path).parent / name for name, _ in lines]
        labels = [names.index(label) for _, label in lines]
        super().__init__(Path(path).parent, paths, names, labels=labels, annotations=[Path(path)], **options)

    @staticmethod
    def matches(path):
        return "\t" in path.read_text("utf-8").partition("\n")[0]


LABEL_FILE = Format(
    "label file", "classification", "labels.txt: image<TAB>label", LabelFile, LabelFile.matches, suffix=".txt"
)


def test_a_new_format_is_a_class_and_a_line_and_is_opened_divided_checked_and_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "FORMATS", (LABEL_FILE, *formats.FORMATS))
    for seed, name in enumerate(("a", "b", "c")):
        put(tmp_path / f"{name}.png", seed)
    (tmp_path / "train.txt").write_text("a.png\tdog\nb.png\tcat\n")
    (tmp_path / "readme.txt").write_text("photographs of pets\n")
    with pytest.warns(UserWarning, match=r"c\.png: is left out"):
        assert [(s.id, s.label) for s in open_data(tmp_path)] == [("a.png", 1), ("b.png", 0)]
    (tmp_path / "test.txt").write_text("c.png\tdog\n")
    splits = open_splits(tmp_path, group=r"^(\w)")
    assert {name: (len(d), tuple(d.classes)) for name, d in splits.items()} == {
        "train": (2, ("cat", "dog")), "test": (1, ("cat", "dog"))
    }  # fmt: skip
    assert splits["train"].groups == ("a", "b")
    (tmp_path / "b.png").write_bytes(b"no picture")
    report = check_data(tmp_path, progress=False)
    assert "looks like label file, for classification, 2 classes: cat, dog" in repr(report)
    assert [row["file"] for row in report.rows()] == ["b.png"]
    with pytest.raises(DatasetError, match=r"labels\.txt: image<TAB>label"):
        open_data(tmp_path / "readme.txt")


def test_the_documentation_lists_every_format_with_its_task_and_what_opens_it():
    text = prockd.datasets.__doc__
    for format in formats.FORMATS:
        assert f"{format.task:<15} {format.name:<17} {format.looks} ({format.open.__name__})" in text


def test_unlabelled_pictures_lie_beside_the_splits_of_any_format(tmp_path):
    for part in ("train", "val"):
        for number in range(2):
            put(tmp_path / "masks" / part / "images" / f"{number}.jpg", number)
            mask(tmp_path / "masks" / part / "masks" / f"{number}.png")
            put(tmp_path / "boxes" / part / "images" / f"{number}.jpg", number)
            xml(tmp_path / "boxes" / part / "annotations" / f"{number}.xml", 1, 1, 5, 5)
    put(tmp_path / "list" / "a.jpg")
    (tmp_path / "list" / "labels.csv").write_text("path,label\na.jpg,cat\n")
    for kind in ("masks", "boxes", "list"):
        put(tmp_path / kind / "unlabelled" / "deep" / "x.jpg", 9)
        splits = open_splits(tmp_path / kind)
        assert [s.id for s in splits["unlabelled"]] == ["deep/x.jpg"]
        assert next(iter(splits)) in ("train", "all")
        assert all("x.jpg" not in id for name in splits.keys() - {"unlabelled"} for id in splits[name].ids)


def test_where_labels_are_not_asked_for_folders_are_no_classes_and_masks_no_pictures(tmp_path):
    put(tmp_path / "farm" / "a.png")
    put(tmp_path / "farm" / "june" / "cows" / "b.png", 1)
    put(tmp_path / "scans" / "images" / "c.jpg")
    mask(tmp_path / "scans" / "masks" / "c.png")
    opened = formats.open_unlabelled(tmp_path / "farm")
    assert (opened.ids, opened.classes) == (("a.png", "june/cows/b.png"), ())
    assert formats.open_unlabelled(tmp_path / "scans").ids == ("images/c.jpg",)
    with pytest.raises(DatasetError, match="nowhere does not exist"):
        formats.open_unlabelled(tmp_path / "nowhere")


def test_lists_below_the_folders_of_splits_are_found_as_roboflow_exports_them(tmp_path):
    for seed, (part, name) in enumerate((("train", "a"), ("train", "b"), ("valid", "c"))):
        for kind in ("coco", "csv"):
            put(tmp_path / kind / part / f"{name}.jpg", seed)
        images = [{"id": 1, "file_name": f"{name}.jpg"}]
        boxes = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4]}]
        text = json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cow"}]})
        (tmp_path / "coco" / part / "_annotations.coco.json").write_text(text)
        (tmp_path / "csv" / part / "_classes.csv").write_text(f"filename,cow,dog\n{name}.jpg,1,0\n")
    with pytest.warns(UserWarning, match=r"a\.jpg: is left out"):
        coco = open_splits(tmp_path / "coco", task="detection")
    with pytest.warns(UserWarning, match=r"a\.jpg: is left out"):
        tags = open_splits(tmp_path / "csv")
    assert [(name, [s.id for s in split]) for name, split in coco.items()] == [("train", ["b.jpg"]), ("val", ["c.jpg"])]
    assert [split[0].tags.tolist() for split in tags.values() if split[0].tags is not None] == [[1, 0], [1, 0]]


@pytest.mark.parametrize("folder_name", ["annotations", "annots"])
def test_boxes_are_found_in_a_folder_of_a_near_name(tmp_path, folder_name):
    put(tmp_path / "images" / "a.jpg")
    xml(tmp_path / folder_name / "a.xml", 1, 1, 5, 5)
    assert open_data(tmp_path, task="detection").classes == ("cat",)


def test_a_list_of_few_pictures_or_of_something_else_does_not_hide_class_folders(folder):
    cats = folder / "train"
    (cats / "credits.csv").write_text("filename,photographer\ncat/ü.png,Bob\n")
    assert check_data(cats, progress=False).problems == ()
    (cats / "favourites.csv").write_text("path,label\ncat/ü.png,cat\n")
    report = check_data(cats, progress=False)
    assert "looks like class folders" in repr(report)
    assert said(report) == ["note  favourites.csv  looks like image list and is not read: name it to use it"]
    assert len(open_data(cats / "favourites.csv")) == 1
    (cats / "labels.csv").write_text("path,label\n" + "".join(f"{name},x\n" for name in ("cat/ü.png", "dog/c.png")))
    (cats / "favourites.csv").unlink()
    assert "looks like image list" in repr(check_data(cats, progress=False))


def test_the_folder_that_an_archive_has_for_itself_is_entered(tmp_path):
    for seed, name in enumerate(("cat/a", "dog/b")):
        put(tmp_path / "pets" / f"{name}.png", seed)
    put(tmp_path / "__MACOSX" / "pets" / "._a.png")
    dataset = open_data(tmp_path)
    assert (dataset.classes, len(dataset)) == (("cat", "dog"), 2)


def listed(*lines: str, root: str = "") -> dict[str, str]:
    return {"labels.csv": "\n".join(lines), f"{root}a.jpg": "", f"{root}b.jpg": ""}


def coco(**entry: object) -> dict[str, str]:
    box = {"id": 1, "image_id": 7, "category_id": 1, **entry}
    content = {"images": [{"id": 7, "file_name": "a.jpg"}], "annotations": [box]}
    content |= {"categories": [{"id": 1, "name": "x"}]}
    return {"boxes.json": json.dumps(content), "a.jpg": ""}


FOUND = {
    "a table beside the folder of its pictures": (listed("file,label", "a.jpg,x", "b.jpg,y", root="images/"), "x y"),
    "names without a suffix, as Kaggle lists them": (listed("id,breed", "a,x", "b,y", root="labels/"), "x y"),
    "a column called class": (listed("image_id,class", "a.jpg,x", "b.jpg,y"), "x y"),
    "tabs": (listed("path\tlabel", "a.jpg\tx", "b.jpg\ty"), "x y"),
    "ids written as text": (coco(image_id="7", bbox=[1, 1, 4, 4]), "x"),
    "an empty box beside a polygon": (coco(bbox=[], segmentation=[[1, 1, 6, 1, 6, 5]]), "x"),
    "no box beside a polygon": (coco(segmentation=[[1, 1, 6, 1, 6, 5]]), "x"),
    "sets in words": ({f"{s}_set/{c}/{s}{c}.jpg": "" for s in ("training", "test") for c in "xy"}, "x y"),
    "a folder in a folder of its name": (
        {f"seg_{s}/seg_{s}/{c}/{s}{c}.jpg": "" for s in ("train", "test") for c in "xy"}, "x y"
    ),
    "folders of YOLO in capitals": (
        {"Images/a.jpg": "", "Labels/a.txt": "0 .5 .5 .2 .2\n", "data.yaml": "names: [x]"}, "x"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_labels_are_found_as_people_leave_them(tmp_path, name):
    files, classes = FOUND[name]
    for seed, (path, text) in enumerate(files.items()):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text) if text else put(tmp_path / path, seed)
    report = check_data(tmp_path, progress=False)
    assert report.problems == ()
    assert list(report.shown[next(iter(report.shown))])[:-1] == classes.split()


@pytest.mark.parametrize("ending", ["_mask.png", ".jpg.png", "_labelIds.png", "-seg.png"])
def test_a_mask_is_found_by_the_name_that_programs_give_it(tmp_path, ending):
    for name in "ab":
        put(tmp_path / "images" / f"{name}.jpg", ord(name))
        mask = np.array([[0, 1]], np.uint8).repeat(20, 0).repeat(10, 1)
        (tmp_path / "masks").mkdir(exist_ok=True)
        with Image.open(tmp_path / "images" / f"{name}.jpg") as image:
            Image.fromarray(np.resize(mask, (image.height, image.width))).save(tmp_path / "masks" / f"{name}{ending}")
    assert check_data(tmp_path, progress=False).ok


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [("a.json", '{"shapes": [], "imagePath": "a.jpg"}', "LabelMe's file of a picture: export them all as COCO"),
     ("via.json", '{"a.jpg12": {"regions": []}}', "VIA's: export it as COCO"),
     ("boxes.csv", "filename,class,xmin,ymin,xmax,ymax\na.jpg,x,1,1,5,5\n", "export them as COCO, VOC or YOLO"),
     ("labels.csv", "a.jpg,x\n", "whose first line has the columns path,label"),
     ("train.parquet", "PAR1", "export what a .parquet file holds as one of the layouts")],
)  # fmt: skip
def test_a_list_that_is_not_read_is_said_with_what_to_export_instead(tmp_path, name, text, told):
    put(tmp_path / "a.jpg")
    (tmp_path / name).write_text(text)
    with pytest.warns(UserWarning, match=re.escape(told)):
        open_splits(tmp_path)
