"""Data files that ask for memory, climb out of their folder, or nest without end: each is refused in words."""

import io
import json
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prockd.datasets import DatasetError, check_data, open_data, read_keypoints, unpack
from prockd.datasets.arrays import open_npz
from prockd.datasets.coco import CocoFile
from prockd.datasets.coco_points import CocoPoints
from prockd.datasets.folder import ImageFolder
from prockd.datasets.masks import MaskFolder
from prockd.datasets.read import image_size, read_image
from prockd.datasets.table import ImageTable
from prockd.farmyard.species import SpeciesError, load_species
from prockd.settings.experiment import ExperimentConfig
from prockd.settings.knobs import ConfigError
from prockd.settings.toml import read_config, set_values
from prockd.untrusted import MAX_DEPTH, RefusedError, parse_json


def picture(path: Path, size: tuple[int, int] = (16, 16)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "red").save(path)
    return path


def peak_bytes(read) -> int:
    """Most memory that Python and numpy hold while something is refused."""
    tracemalloc.start()
    try:
        with pytest.raises(DatasetError):
            read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# Bounds before memory


def npz(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def header(shape: tuple[int, ...]) -> bytes:
    """An array of no bytes that claims to have this shape."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue()


IMAGES = npy(np.zeros((2, 16, 16, 3), np.uint8))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"images": IMAGES, "labels": npy(np.array([0, 2**40]))}, r"labels are int64 \(2,\), 0\.\.1099511627776"),
        ({"images": IMAGES, "labels": npy(np.array([0.5, np.nan]))}, "not whole numbers"),
        ({"images": IMAGES, "labels": npy(np.array(["cat", "dog"]))}, "not whole numbers"),
        ({"images": IMAGES, "labels": npy(np.array([], np.int64))}, "not whole numbers"),
        (
            {"images": header((10**6, 224, 224, 3)), "labels": npy(np.arange(2))},
            r"images\.npy claims 150528000000",
        ),
        ({"images": npy(np.zeros((400, 300, 300, 3), np.uint8)), "labels": npy(np.zeros(400, int))}, "like a bomb"),
        ({"images": IMAGES, "labels": npy(np.arange(2)), "class_names": npy(np.zeros((2, 2)))}, "not a row of texts"),
        ({"images": b"\x93NUMPY\x09\x00", "labels": IMAGES}, "ValueError"),
    ],
)
def test_an_npz_is_refused_by_what_its_headers_say_before_memory_is_taken(tmp_path, members, message):
    path = npz(tmp_path / "data.npz", **members)
    assert path.stat().st_size < 500_000
    with pytest.raises(DatasetError, match=message) as error:
        open_npz(path)
    assert "data.npz" in str(error.value)
    assert peak_bytes(lambda: open_npz(path)) < 20e6


def long_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    shape = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", shape) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(89_000_000, 1), (1, 89_000_000), (2**31 - 1, 2**31 - 1)])
def test_a_picture_with_a_side_of_millions_is_refused_by_its_header(tmp_path, size):
    (tmp_path / "long.png").write_bytes(long_png(*size))
    for read in (read_image, image_size):
        with pytest.raises(DatasetError, match=r"long\.png is l(ong|arg)er than any photograph"):
            read(tmp_path / "long.png")
    assert peak_bytes(lambda: read_image(tmp_path / "long.png")) < 5e6


@pytest.mark.parametrize("count", [MAX_DEPTH + 1, 100_000])
def test_lists_within_lists_are_refused_wherever_a_file_has_them(tmp_path, count):
    deep = "[" * count + "]" * count
    (tmp_path / "config.toml").write_text(f"[teacher]\nlayers = {deep}")
    with pytest.raises(ConfigError, match=r"config\.toml is not a TOML file .*more than 64 tables"):
        read_config(tmp_path / "config.toml")
    (tmp_path / "boxes.json").write_text(f'{{"images": {deep}, "annotations": [], "categories": []}}')
    with pytest.raises(DatasetError, match=r"boxes\.json is not a COCO file .*more than 64"):
        CocoFile(tmp_path / "boxes.json")
    (tmp_path / "species.toml").write_text(f"[cow]\nrole = {deep}")
    with pytest.raises(SpeciesError, match=r"species\.toml is not a TOML file .*more than 64"):
        load_species(tmp_path / "species.toml")
    assert set_values(ExperimentConfig(), [f"data.path={deep}"]).data.path == deep  # no TOML, so a text
    with pytest.raises(RefusedError):
        parse_json(deep)


def test_a_number_of_five_thousand_digits_is_no_json(tmp_path):
    (tmp_path / "boxes.json").write_text(f'{{"images": [{"9" * 5000}], "annotations": [], "categories": []}}')
    with pytest.raises(DatasetError, match=r"boxes\.json is not a COCO file"):
        CocoFile(tmp_path / "boxes.json")


def tar_with(path: Path, change) -> Path:
    """A TAR of one file whose header is another."""
    info = tarfile.TarInfo("cat.txt")
    info.size = 3
    block = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    change(block)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    path.write_bytes(bytes(block) + b"cat".ljust(512, b"\0") + bytes(1024))
    return path


def set_field(start: int, content: bytes):
    def change(block: bytearray) -> None:
        block[start : start + len(content)] = content

    return change


@pytest.mark.parametrize(
    "change",
    [
        set_field(124, b"\xff" * 12),  # a size below 0, in base 256
        set_field(124, b"\x80" + b"\xff" * 11),  # one of 2^88
        set_field(156, b"S"),  # a sparse file
        set_field(156, b"L"),  # a long name that is the file itself
        set_field(156, b"x"),  # attributes that are none
        set_field(156, b"2"),  # a link
        set_field(0, b"../../up.txt\0"),
        set_field(0, b"/etc/cron.d/x\0"),
        set_field(0, b"\xff\xfe\0"),
    ],
)
def test_headers_of_a_tar_are_refused_in_words_or_give_a_file_inside(tmp_path, change):
    path = tar_with(tmp_path / "photos.tar", change)
    said = ""
    try:
        unpack(path, tmp_path / "photos", progress=False)
    except DatasetError as error:
        said = str(error)
    assert "photos.tar" in said or (tmp_path / "photos").is_dir()
    assert {p.name for p in tmp_path.iterdir()} <= {"photos.tar", "photos"}
    assert not any(p.is_symlink() for p in (tmp_path / "photos").rglob("*"))


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ("1,leg,1e300,2,1", "x_px is '1e300'"),
        ("1,leg,inf,2,1", "x_px is 'inf'"),
        ("1,leg,1_0,2,1", "x_px is '1_0'"),
        (f"{10**30},leg,1,2,1", "joint_id is '1000"),
        ("²,leg,1,2,1", "joint_id is '²'"),
        ("1,leg,1,2,7", "visible is '7'"),
    ],
)
def test_numbers_of_key_points_have_bounds(tmp_path, cells, message):
    (tmp_path / "parts.csv").write_text(f"frame,joint_id,part,x_px,y_px,visible\na.png,{cells}\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=message):
        read_keypoints(tmp_path / "parts.csv")


# Nothing outside of the folder


OUTSIDE = ["../secret.png", "{outside}/secret.png", "a/../../secret.png", "..", "bad\0name.png", "x" * 300 + ".png"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_no_list_of_pictures_reads_beyond_its_folder(tmp_path, name):
    picture(tmp_path / "secret.png")
    root = picture(tmp_path / "data" / "cat.png").parent
    name = name.format(outside=tmp_path)
    image = {"id": 1, "file_name": name}
    points = {"id": 1, "image_id": 1, "category_id": 1, "keypoints": [1, 1, 2]}
    content = {
        "images": [image],
        "annotations": [points],
        "categories": [{"id": 1, "name": "cat", "keypoints": ["ear"]}],
    }
    (root / "boxes.json").write_text(json.dumps(content))
    (root / "labels.csv").write_text(f"path,label\n{name},cat\n")
    for make in (CocoFile, CocoPoints):
        with pytest.raises(DatasetError, match=r"outside of|no name of a file|cannot be read|does not exist") as error:
            make(root / "boxes.json")[0]
        assert "secret" not in str(error.value) or "outside of" in str(error.value)
    with pytest.raises(DatasetError, match=r"outside of|no name of a file|cannot be read|does not exist"):
        ImageTable(root / "labels.csv")[0]


@pytest.mark.parametrize("kind", ["folder", "picture", "mask"])
def test_no_link_leads_out_of_a_data_set(tmp_path, kind):
    secret = picture(tmp_path / "secret" / "a.png")
    picture(tmp_path / "data" / "cat" / "a.png")
    if kind == "folder":
        (tmp_path / "data" / "dog").symlink_to(secret.parent, target_is_directory=True)
    elif kind == "picture":
        (tmp_path / "data" / "cat" / "b.png").symlink_to(secret)
    else:
        picture(tmp_path / "data" / "images" / "a.png")
        (tmp_path / "data" / "masks").mkdir()
        (tmp_path / "data" / "masks" / "a.png").symlink_to(secret)
    with pytest.raises(DatasetError, match=r"a\.png lies outside of .*data|b\.png lies outside of .*data"):
        MaskFolder(tmp_path / "data") if kind == "mask" else ImageFolder(tmp_path / "data")


def test_a_data_set_may_itself_be_reached_by_a_link_and_have_links_inside(tmp_path):
    picture(tmp_path / "real" / "cat" / "a.png")
    (tmp_path / "real" / "cat" / "b.png").symlink_to(tmp_path / "real" / "cat" / "a.png")
    (tmp_path / "data").symlink_to(tmp_path / "real", target_is_directory=True)
    assert ImageFolder(tmp_path / "data").ids == ("cat/a.png", "cat/b.png")


def test_class_names_that_are_paths_lead_nowhere(tmp_path):
    picture(tmp_path / "secret" / "a.png")
    picture(tmp_path / "data" / "cat" / "a.png")
    with pytest.raises(DatasetError, match=r"lies outside of"):
        open_data(tmp_path / "data", classes=["cat", "../secret"])


def test_frames_of_key_points_lead_nowhere(tmp_path):
    picture(tmp_path / "secret.png")
    picture(tmp_path / "cow" / "frames" / "a.png")
    (tmp_path / "cow" / "parts.csv").write_text("frame,part,x_px,y_px\n../secret.png,leg,1,2\n")
    with pytest.raises(DatasetError, match="its image is missing"):
        open_data(tmp_path / "cow", task="keypoints")
    assert "its image is missing" in repr(check_data(tmp_path / "cow" / "parts.csv", progress=False))
