"""Boxes in CVAT's XML."""

from pathlib import Path

import pytest
from PIL import Image

from prockd.datasets import DatasetError, open_data

HEAD = '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>'
META = "<meta><task><labels><label><name>dog</name></label><label><name>cat</name></label></labels></task></meta>"


def export(root: Path, *shapes: str) -> Path:
    (root / "images").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30)).save(root / "images" / "a.jpg")
    image = f'<image id="0" name="a.jpg" width="40" height="30">{"".join(shapes)}</image>'
    (root / "annotations.xml").write_text(f"{HEAD}{META}{image}</annotations>")
    return root


BOX = '<box label="cat" occluded="0" xtl="4.5" ytl="5" xbr="14.5" ybr="25" z_order="0"></box>'


def test_boxes_polygons_and_masks_become_boxes_of_the_labels_of_the_task(tmp_path):
    polygon = '<polygon label="dog" points="1,2;11,2;11.5,22"></polygon>'
    mask = '<mask label="dog" rle="3, 4" left="1" top="2" width="10" height="12"></mask>'
    dataset = open_data(export(tmp_path, BOX, polygon, mask))
    assert (dataset.task, dataset.classes) == ("detection", ("dog", "cat"))
    assert dataset[0].boxes.tolist() == [[4.5, 5, 14.5, 25], [1, 2, 11.5, 22], [1, 2, 11, 14]]
    assert dataset[0].box_labels.tolist() == [1, 0, 0]
    assert len(open_data(tmp_path / "annotations.xml")) == 1


def test_shapes_without_an_inside_are_counted_and_left_out(tmp_path):
    dataset = open_data(export(tmp_path, BOX, '<points label="cat" points="1,2"></points>', '<tag label="cat"></tag>'))
    assert [str(flaw) for flaw in dataset.flaws] == [
        f"{tmp_path / 'annotations.xml'}: 1 points left out: boxes are read"
    ]
    assert len(dataset[0].boxes) == 1


@pytest.mark.parametrize(
    ("shape", "told"),
    [('<box label="cat" xtl="x" ytl="5" xbr="9" ybr="9"></box>', "a.jpg, shape 1: lacks a label or a number"),
     ('<polygon label="cat" points="1,2;3"></polygon>', "a.jpg, shape 1: lacks a label or a number"),
     ('<box label="cow" xtl="1" ytl="5" xbr="9" ybr="9"></box>', "class 'cow' is not one of dog, cat")],
)  # fmt: skip
def test_a_shape_that_is_no_box_is_told_with_its_picture(tmp_path, shape, told):
    with pytest.raises(DatasetError) as error:
        open_data(export(tmp_path, shape))[0]
    assert told in str(error.value)


def test_an_export_of_a_video_says_what_to_export_instead(tmp_path):
    export(tmp_path)
    (tmp_path / "annotations.xml").write_text(f'{HEAD}<track id="0" label="cat">{BOX}</track></annotations>')
    with pytest.raises(DatasetError, match="is of a video: export it again as 'CVAT for images', or as COCO"):
        open_data(tmp_path)
