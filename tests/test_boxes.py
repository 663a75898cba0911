import json
import os
import re
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from prockd.datasets import CocoFile, DatasetError, VocFolder, check_data, open_data, pack


def picture(path: Path, W: int = 40, H: int = 30) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (W, H), (20, 120, 90)).save(path)


def voc_object(name: str, *corners: object) -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    return f"<object><name>{name}</name><bndbox>{''.join(f'<{s}>{v}</{s}>' for s, v in sides)}</bndbox></object>"


def voc_file(path: Path, *objects: str, size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    W, H = size
    head = f"<annotation>\n<size><width>{W}</width><height>{H}</height><depth>3</depth></size>\n"
    path.write_text(head + "\n".join(objects) + "\n</annotation>")


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Two pictures: one with a cat and a dog, one without objects."""
    for name in ("a b", "é"):
        picture(tmp_path / "images" / f"{name}.jpg")
    voc_file(tmp_path / "annotations" / "a b.xml", voc_object("dog", 1, 1, 10, 20), voc_object("cat", 5, 6, 40, 30))
    voc_file(tmp_path / "annotations" / "é.xml")
    return tmp_path


def coco_file(root: Path, **changes: Any) -> Path:
    """Ids that skip, a crowd, a picture without objects."""
    for name in ("a b.jpg", "é.jpg"):
        picture(root / "images" / name)
    content: dict[str, Any] = {
        "images": [
            {"id": 70, "file_name": "a b.jpg", "width": 40, "height": 30},
            {"id": 9, "file_name": "é.jpg", "width": 40, "height": 30},
        ],
        "categories": [{"id": 90, "name": "cat"}, {"id": 3, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 70, "category_id": 90, "bbox": [4.5, 5, 10, 20]},
            {"id": 5, "image_id": 70, "category_id": 3, "bbox": [0, 0, 40, 30], "iscrowd": 0},
            {"id": 6, "image_id": 70, "category_id": 3, "bbox": [0, 0, 9, 9], "iscrowd": 1},
        ],
    }
    for key, extra in changes.items():
        content[key] = [*content[key], extra]
    (root / "boxes.json").write_text(json.dumps(content), "utf-8")
    return root / "boxes.json"


# PASCAL VOC


def test_voc_boxes_count_from_zero_and_include_their_last_pixel(voc):
    dataset = VocFolder(voc)
    assert dataset.classes == ("cat", "dog")
    first, second = dataset
    assert first.boxes is not None
    assert first.boxes.tolist() == [[0, 0, 10, 20], [4, 5, 40, 30]]
    assert first.box_labels is not None
    assert first.box_labels.tolist() == [1, 0]
    assert second.boxes is not None
    assert second.boxes.shape == (0, 4)
    assert (first.id, second.id) == ("images/a b.jpg", "images/é.jpg")
    assert "2 images, 2 classes: cat, dog, 2 boxes" in repr(dataset)


def test_the_first_pixel_and_the_order_of_classes_can_be_told(voc):
    voc_file(voc / "annotations" / "a b.xml", voc_object("dog", 0, 0, 9, 19))
    first = VocFolder(voc, first_px=0, classes=["dog", "cat"])[0]
    assert first.boxes is not None
    assert first.boxes.tolist() == [[0, 0, 10, 20]]
    assert first.box_labels is not None
    assert first.box_labels.tolist() == [0]


def test_an_image_without_objects_is_a_note_and_no_error(voc):
    sample, problems = VocFolder(voc).read(1)
    assert sample is not None
    assert [(problem.text, problem.note) for problem in problems] == [("no objects", True)]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (
            voc_object("dog", 1, 1, 60, 20),
            "object 1: box xmin 1, ymin 1, xmax 60, ymax 20 reaches outside the image of 40 x 30 px",
        ),
        (voc_object("dog", -9, 1, 6, 20), "object 1: box xmin -9, ymin 1, xmax 6, ymax 20 reaches outside"),
        (voc_object("dog", 9, 1, 9, 20), "object 1: box xmin 9, ymin 1, xmax 9, ymax 20 has no area"),
        (voc_object("dog", 9, 1, 8, 20), "object 1: box xmin 9, ymin 1, xmax 8, ymax 20 has its corners swapped"),
        (voc_object("dog", 30, 1, 10, 20), "object 1: box xmin 30, ymin 1, xmax 10, ymax 20 has its corners swapped"),
        (voc_object("dog", 1, 1, "ten", 20), "object 1: <xmax> is 'ten', not a number"),
        (voc_object("", 1, 1, 9, 20), "object 1: lacks <name>"),
        ("<object><name>dog</name><bndbox><xmin>3</xmin></bndbox></object>", r"lacks <bndbox><ymin>, <bndbox><xmax>"),
        ("<object><name>dog", "line 4: is not well-formed XML"),
    ],
)
def test_a_bad_voc_entry_is_named_with_its_place(voc, entry, said):
    voc_file(voc / "annotations" / "a b.xml", entry)
    dataset = VocFolder(voc, classes=["cat", "dog"])
    with pytest.raises(DatasetError, match=rf"a b\.xml, {said}|a b\.xml, object 1: {said}"):
        dataset[0]
    assert dataset[1].id == "images/é.jpg"


def test_all_problems_of_an_image_are_told_at_once(voc):
    voc_file(
        voc / "annotations" / "a b.xml", voc_object("cow", 1, 1, 99, 9), voc_object("dog", 5, 5, 4, 9), size=(9, 9)
    )
    texts = [f"{problem.entry}: {problem.text}" for problem in VocFolder(voc, classes=["dog"]).read(0)[1]]
    assert len(texts) == 4
    assert "its boxes are for an image of 9 x 9 px" in texts[0]
    assert texts[1] == "object 1: class 'cow' is not one of dog (images/a b.jpg)"


def test_a_rounded_edge_is_moved_onto_the_border(voc):
    voc_file(voc / "annotations" / "a b.xml", voc_object("dog", 0, 0, 41, 31))
    first = VocFolder(voc)[0]
    assert first.boxes is not None
    assert first.boxes.tolist() == [[0, 0, 40, 30]]


def test_xml_and_images_without_partner_are_refused_or_left_out(voc):
    picture(voc / "images" / "new.jpg")
    voc_file(voc / "annotations" / "gone.xml")
    with pytest.raises(DatasetError, match=r"(?s)new\.jpg: no XML file.*gone\.xml: XML file without an image"):
        VocFolder(voc)
    assert len(VocFolder(voc, on_bad="skip")) == 2


# COCO


def test_coco_ids_may_skip_and_crowds_are_left_out(tmp_path):
    dataset = CocoFile(coco_file(tmp_path))
    assert dataset.classes == ("dog", "cat")
    first, second = dataset
    assert first.boxes is not None
    assert first.boxes.tolist() == [[4.5, 5, 14.5, 25], [0, 0, 40, 30]]
    assert first.box_labels is not None
    assert first.box_labels.tolist() == [1, 0]
    assert second.boxes is not None
    assert len(second.boxes) == 0
    assert dataset.ids == ("a b.jpg", "é.jpg")


@pytest.mark.parametrize("crowd", ["0", 0, False, None, "false"])
def test_a_box_is_of_a_crowd_only_where_the_file_says_so(tmp_path, crowd):
    one = {"id": 9, "image_id": 9, "category_id": 3, "bbox": [1, 1, 5, 5], "iscrowd": crowd}
    boxes = CocoFile(coco_file(tmp_path, annotations=one))[1].boxes
    assert boxes is not None
    assert boxes.tolist() == [[1, 1, 6, 6]]


def test_file_names_as_windows_and_macos_write_them_are_found(tmp_path):
    path = coco_file(tmp_path)
    text = path.read_text("utf-8")
    (tmp_path / "images" / "more").mkdir()
    for name in ("a b.jpg", "é.jpg"):
        (tmp_path / "images" / name).rename(tmp_path / "images" / "more" / unicodedata.normalize("NFD", name))
    path.write_text(
        text.replace('"a b.jpg"', r'"images\\more\\a b.jpg"').replace(r'"\u00e9.jpg"', r'".\\images\\more\\é.jpg"')
    )
    assert [len(sample.boxes) for sample in CocoFile(path) if sample.boxes is not None] == [2, 0]


def test_boxes_on_photographs_that_exif_turns_are_doubted_and_the_option_reads_them_as_stored(tmp_path):
    pixels, exif = np.zeros((48, 64, 3), np.uint8), Image.Exif()
    pixels[4:14, 4:14] = 255
    exif[0x0112] = 3
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=95)
    entries = {"images": [{"id": 1, "file_name": "a.jpg"}], "categories": [{"id": 1, "name": "x"}],
               "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 4, 10, 10]}]}  # fmt: skip
    (tmp_path / "c.json").write_text(json.dumps(entries))
    report = check_data(tmp_path, progress=False)
    assert re.search(r"a\.jpg  is stored upside down \(EXIF\), .*data\.exif=false", repr(report))
    stored = open_data(tmp_path, exif=False)
    assert stored[0].image[4:14, 4:14].mean() > 250
    assert check_data(tmp_path, exif=False, progress=False).problems == ()
    assert stored.fingerprint != open_data(tmp_path).fingerprint


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"annotations": {"id": 7, "image_id": 1, "bbox": [0, 0, 9, 9]}}, "annotation 7: no image has the id 1"),
        ({"annotations": {"id": 7, "category_id": 3, "bbox": [0, 0, 9, 9]}}, "annotation 7: lacks image_id"),
        ({"annotations": "box"}, "annotation 4: lacks image_id"),
        ({"images": {"id": 9, "file_name": "z.jpg"}}, r"image 3: id 9 is taken by 'é\.jpg'"),
        ({"images": {"id": 1}}, "image 3: lacks file_name"),
        ({"categories": {"id": 3, "name": "cow"}}, "category 3: id 3 is taken by 'dog'"),
    ],
)  # fmt: skip
def test_coco_entries_that_belong_nowhere_are_refused_or_left_out(tmp_path, changes, said):
    path = coco_file(tmp_path, **changes)
    with pytest.raises(DatasetError, match=rf"boxes\.json, {said}"):
        CocoFile(path)
    dataset = CocoFile(path, on_bad="skip")
    assert len(dataset.flaws) == 1
    assert dataset[0].boxes is not None
    assert len(dataset[0].boxes) == 2


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        ({"category_id": 4, "bbox": [0, 0, 9, 9]}, r"annotation 7: no category has the id 4 \(é\.jpg\)"),
        (
            {"category_id": 3, "bbox": [0, 0, 9]},
            r"annotation 7: bbox \[0, 0, 9\] is not x, y, width, height \(é\.jpg\)",
        ),
        (
            {"category_id": 3, "bbox": [9, 9, -4, 5]},
            r"annotation 7: bbox 9, 9, -4, 5 \(x, y, width, height\) has its corners swapped",
        ),
        (
            {"category_id": 3, "bbox": [9, 9, 0, 5]},
            r"annotation 7: bbox 9, 9, 0, 5 \(x, y, width, height\) has no area",
        ),
        (
            {"category_id": 3, "bbox": [9, 9, 50, 5]},
            r"annotation 7: bbox 9, 9, 50, 5 \(x, y, width, height\) reaches outside the image",
        ),
        ({"category_id": 3}, r"annotation 7: lacks bbox \(é\.jpg\)"),
    ],
)
def test_a_bad_coco_box_spoils_its_image_alone(tmp_path, annotation, said):
    dataset = CocoFile(coco_file(tmp_path, annotations={"id": 7, "image_id": 9, **annotation}))
    with pytest.raises(DatasetError, match=rf"boxes\.json, {said}"):
        dataset[1]
    assert dataset[0].boxes is not None


def test_a_picture_that_is_missing_or_of_another_size_is_named(tmp_path):
    path = coco_file(tmp_path)
    picture(tmp_path / "images" / "a b.jpg", 30, 30)
    with pytest.raises(DatasetError, match=r"for an image of 40 x 30 px, and a b\.jpg has 30 x 30 px"):
        CocoFile(path)[0]
    (tmp_path / "images" / "a b.jpg").unlink()
    with pytest.raises(DatasetError, match=r"a b\.jpg: does not exist"):
        CocoFile(path)[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"images": [],\n  oops}', r"boxes\.json is not a COCO file that can be read \(.*line 2 column 3"),
        ("[]", r"boxes\.json is not a COCO file .*it has no list images, annotations, categories"),
        ('{"images": [], "annotations": [], "categories": []}', "holds no images that can be used"),
    ],
)
def test_a_file_that_is_not_coco_is_named(tmp_path, text, said):
    (tmp_path / "boxes.json").write_text(text)
    with pytest.raises(DatasetError, match=said):
        CocoFile(tmp_path / "boxes.json")


def test_the_layout_of_the_coco_site_is_found(tmp_path):
    path = coco_file(tmp_path)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "images").rename(tmp_path / "train2017")
    path = path.rename(tmp_path / "annotations" / "instances_train2017.json")
    assert CocoFile(path)[0].image.shape == (30, 40, 3)


def test_boxes_are_packed_with_their_pictures(voc, tmp_path):
    packed = pack(VocFolder(voc), 40, root=tmp_path / "cache")
    assert packed.boxes is not None
    assert [len(boxes) for boxes in packed.boxes] == [2, 0]
    assert np.allclose(packed.boxes[0][0], [0, 5, 10, 25])


@pytest.mark.real
@pytest.mark.skipif("PROCKD_REAL_DATA" not in os.environ, reason="PROCKD_REAL_DATA is not set")
def test_real_raccoons_have_boxes_in_every_picture():
    raccoons = VocFolder(Path(os.environ["PROCKD_REAL_DATA"]) / "raccoon")
    assert (len(raccoons), raccoons.classes) == (200, ("raccoon",))
    boxes = [sample.boxes for sample in raccoons if sample.boxes is not None]
    assert sum(map(len, boxes)) == 217
    assert all((b[:, 2:] > b[:, :2]).all() for b in boxes)
