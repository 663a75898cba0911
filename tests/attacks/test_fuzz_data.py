"""Whatever happens to pictures and to the lists beside them: refused in words that name a file, or read right."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mutations import MANY, as_text, edits, mutated, replaced, values, without
from PIL import Image

from prockd.datasets import DatasetError, unpack
from prockd.datasets.arrays import open_npz
from prockd.datasets.boxes import VocFolder
from prockd.datasets.coco import CocoFile
from prockd.datasets.coco_points import CocoPoints
from prockd.datasets.cvat import CvatFile
from prockd.datasets.deeplabcut import DeepLabCut
from prockd.datasets.keypoints import read_keypoints
from prockd.datasets.masks import MaskFolder
from prockd.datasets.poses import PointTable
from prockd.datasets.problems import sample_problems
from prockd.datasets.read import read_image, read_mask
from prockd.datasets.table import ImageTable
from prockd.datasets.yolo import YoloFolder
from prockd.untrusted import RefusedError, parse_json
from prockd.writing import append_line, read_lines

SIZE = (24, 16)
COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 24, "height": 16}, {"id": 2, "file_name": "b.png"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 8, 9], "keypoints": [2, 3, 2, 5, 6, 1]},
        {
            "id": 2,
            "image_id": 2,
            "category_id": 1,
            "bbox": [3.5, 1, 4, 5],
            "iscrowd": 0,
            "keypoints": [2, 3, 2, 0, 0, 0],
        },
    ],
    "categories": [{"id": 1, "name": "cat", "keypoints": ["ear", "paw"]}],
}
VOC = """<annotation><size><width>24</width><height>16</height></size>
<object><name>cat</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>11</ymax></bndbox></object></annotation>
"""
CVAT = """<annotations><meta><task><labels><label><name>cat</name></label></labels></task></meta>
<image name="a.png" width="24" height="16"><box label="cat" xtl="1" ytl="2" xbr="9" ybr="11"></box>
<polygon label="cat" points="1,2;9,2;9,11"></polygon></image></annotations>
"""
TABLE = "path,label,group\na.png,cat,farm\nb.png,dog,farm\n"
TAGS = "path,cat,dog\na.png,1,0\nb.png,1,1\n"
POINTS = "frame,joint_id,part,x_px,y_px,visible\na.png,1,leg,3,4,1\nb.png,2,tail,5.5,6,0\n"
DLC = "scorer,me,me,me,me\nbodyparts,ear,ear,paw,paw\ncoords,x,y,x,y\na.png,1,2,3,4\nb.png,5,6,,\n"


@pytest.fixture
def root(tmp_path) -> Path:
    for name in ("a.png", "b.png"):
        Image.fromarray(np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)).save(tmp_path / name)
    return tmp_path


def faults(path: Path, open: Callable[[Path], Any]) -> list[str]:
    """Refusals that name no file, and samples that break the rules of all samples: what a reader must never give."""
    found = []
    try:
        dataset = open(path)
    except DatasetError as error:
        return [] if str(path.parent) in str(error) else [str(error)]
    for index in range(len(dataset) if hasattr(dataset, "root") else 0):
        try:
            sample = dataset[index]
        except DatasetError as error:
            found += [] if str(dataset.root) in str(error) else [str(error)]
        else:
            found += map(str, sample_problems(sample, len(dataset.classes), sample.id))
    return found


def masks(path: Path) -> MaskFolder:
    return MaskFolder(path.parent.parent)


TEXTS = {
    "boxes.json": (as_text(COCO), CocoFile),
    "points.json": (as_text(COCO), CocoPoints),
    "labels.csv": (TABLE, ImageTable),
    "tags.csv": (TAGS, ImageTable),
    "parts.csv": (POINTS, PointTable),
    "keypoints.csv": (POINTS, read_keypoints),
    "CollectedData_me.csv": (DLC, DeepLabCut),
    "labels/a.txt": (
        "0 0.5 0.5 0.25 0.5\n1 0.1 0.1 0.5 0.1 0.5 0.9\n",
        lambda path: YoloFolder(path.parent.parent, images="."),
    ),
    "data.yaml": ("names: [cat, dog]\nnc: 2\n", lambda path: YoloFolder(path.parent, images=".")),
    "annotations.xml": (CVAT, CvatFile),
    "a.xml": (VOC, lambda path: VocFolder(path.parent, on_bad="skip")),
}


@pytest.mark.parametrize("name", TEXTS)
def test_lists_whose_bytes_change_are_refused_by_name_or_read_right(root, name):
    text, open = TEXTS[name]

    @MANY
    @given(changes=edits)
    @example(changes=[("insert", 0.6, b"\0")])
    @example(changes=[("insert", 0.0, b"\xff\xfe")])
    @example(changes=[("cut", 0.5, b"x")])
    @example(changes=[("change", 0.7, b"../../..")])
    @example(changes=[("change", 0.8, b"1e999,")])
    @example(changes=[("cut", 0.94, b"x")])  # found: a line of DeepLabCut that ends early
    def tried(changes: list[tuple[str, float, bytes]]) -> None:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(mutated(text.encode(), changes))
        assert faults(root / name, open) == []

    tried()


@pytest.mark.parametrize("open", [CocoFile, CocoPoints])
def test_whatever_json_holds_where_coco_expects_something_else(root, open):
    @MANY
    @given(number=st.integers(0, 100), value=values, lacks=st.booleans())
    @example(number=0, value="\ud800", lacks=False)
    @example(number=2, value="\ud800", lacks=False)
    @example(number=12, value=10**400, lacks=False)
    def tried(number: int, value: Any, lacks: bool) -> None:
        tree = without(COCO, number) if lacks else replaced(COCO, number, value)
        (root / "boxes.json").write_text(as_text(tree))
        assert faults(root / "boxes.json", open) == []

    tried()


cells = st.sampled_from(
    ["", "a.png", "b.png", "../a.png", "0", "1", "-1", "nan", "1e400", "cat", "x" * 300, "²", "\0", "leg"]
)


@pytest.mark.parametrize("name", ["labels.csv", "tags.csv", "parts.csv", "CollectedData_me.csv"])
def test_whatever_a_cell_of_a_table_holds(root, name):
    text, open = TEXTS[name]
    lines = [line.split(",") for line in text.splitlines()]

    @MANY
    @given(row=st.integers(0, 9), column=st.integers(0, 9), cell=cells)
    def tried(row: int, column: int, cell: str) -> None:
        changed = [list(line) for line in lines]
        line = changed[row % len(changed)]
        line[column % len(line)] = cell
        (root / name).write_text("\n".join(map(",".join, changed)), encoding="utf-8")
        assert faults(root / name, open) == []

    tried()


def picture_bytes(format: str, mode: str = "RGB") -> bytes:
    file, rng = io.BytesIO(), np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 3, (16, 24, 3), np.uint8)).convert(mode).save(file, format)
    return file.getvalue()


@pytest.mark.parametrize("format", ["PNG", "JPEG", "BMP", "WEBP", "TIFF"])
def test_pictures_whose_bytes_change_are_refused_by_name_or_read(tmp_path, format):
    content, path = picture_bytes(format), tmp_path / f"a.{format.lower()}"

    @MANY
    @given(changes=edits)
    def tried(changes: list[tuple[str, float, bytes]]) -> None:
        path.write_bytes(mutated(content, changes))
        for read in (read_image, read_mask):
            try:
                array = read(path)
            except DatasetError as error:
                assert str(path) in str(error)
            else:
                assert array.size

    tried()


def test_masks_whose_bytes_change_are_refused_by_name_or_hold_known_values(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    Image.fromarray(np.zeros((16, 24, 3), np.uint8)).save(tmp_path / "images" / "a.png")
    content = picture_bytes("PNG", "L")

    @MANY
    @given(changes=edits)
    def tried(changes: list[tuple[str, float, bytes]]) -> None:
        (tmp_path / "masks" / "a.png").write_bytes(mutated(content, changes))
        assert faults(tmp_path / "masks" / "a.png", masks) == []

    tried()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_whose_bytes_change_are_refused_by_name_or_read_right(tmp_path, save):
    save(tmp_path / "whole.npz", images=np.zeros((3, 8, 8, 3), np.uint8), labels=[0, 1, 1], class_names=["a", "b"])
    content, path = (tmp_path / "whole.npz").read_bytes(), tmp_path / "data.npz"

    @MANY
    @given(changes=edits)
    def tried(changes: list[tuple[str, float, bytes]]) -> None:
        path.write_bytes(mutated(content, changes))
        try:
            splits = open_npz(path)
        except DatasetError as error:
            assert "data.npz" in str(error)
        else:
            assert all(len(arrays) for arrays in splits.values())

    tried()


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_archives_whose_bytes_change_are_refused_by_name_or_unpacked_inside(tmp_path, kind):
    import shutil
    import tarfile
    import zipfile

    whole, path = tmp_path / "whole", tmp_path / f"photos.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr("cats/a.txt", "a cat" * 20)
    else:
        with tarfile.open(whole, "w:gz" if kind == "tar.gz" else "w") as packed_tar:
            for name in ("cats/a.txt", "dogs/" + "b" * 120 + ".txt"):
                info = tarfile.TarInfo(name)
                info.size = 5
                packed_tar.addfile(info, io.BytesIO(b"a cat"))

    @MANY
    @given(changes=edits)
    def tried(changes: list[tuple[str, float, bytes]]) -> None:
        path.write_bytes(mutated(whole.read_bytes(), changes))
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        try:
            unpack(path, tmp_path / "out", progress=False)
        except DatasetError as error:
            assert path.name in str(error)
        assert {p.name for p in tmp_path.iterdir()} <= {"whole", path.name, "out"}

    tried()


@MANY
@given(content=st.lists(st.binary(max_size=30) | values.map(lambda v: as_text(v).encode()), max_size=5))
def test_lines_of_json_are_tables_or_passed_over_and_more_can_be_added(tmp_path, content):
    path = tmp_path / "runs.jsonl"
    path.write_bytes(b"\n".join(content))
    assert all(isinstance(row, dict) for row in read_lines(path))
    append_line(path, {"job": "a"})
    assert read_lines(path)[-1] == {"job": "a"}


@MANY
@given(text=st.text(max_size=40) | values.map(as_text))
def test_json_is_read_as_python_reads_it_or_refused(text):
    try:
        value = parse_json(text)
    except ValueError as error:
        assert isinstance(error, json.JSONDecodeError | RefusedError) or "digits" in str(error)
    else:
        assert repr(value) == repr(json.loads(text))
