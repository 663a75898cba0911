import os
from pathlib import Path

import numpy as np
import pytest

from prockd.datasets.keypoints import DatasetError, read_keypoints

CSV = """frame,joint_id,part,x_px,y_px,visible
b.jpg,8,leg,10.5,20,1
b.jpg,9,tail,3,4.25,0
ä a.jpg,8,leg,1,2,1
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "parts.csv").write_text(CSV, "utf-8")
    return tmp_path / "parts.csv"


def test_points_are_grouped_by_image_in_the_order_of_the_file(table):
    points = read_keypoints(table)
    assert points.parts == ("leg", "tail")
    assert list(points.images) == ["b.jpg", "ä a.jpg"]
    b = points.images["b.jpg"]
    assert np.array_equal(b.xy, np.array([[10.5, 20], [3, 4.25]], np.float32))
    assert (b.part.tolist(), b.visible.tolist(), b.joint.tolist()) == ([0, 1], [True, False], [8, 9])
    assert "3 points, 1 of them hidden, on 2 images; parts: leg, tail" in repr(points)


def test_part_names_can_be_shared_between_files(table):
    assert read_keypoints(table, parts=("tail", "ear", "leg")).images["b.jpg"].part.tolist() == [2, 0]


def test_semicolons_a_byte_order_mark_and_missing_optional_columns_are_read(tmp_path):
    (tmp_path / "p.csv").write_text("Frame; Part; x_px; y_px\n\na.png; ear; 1; 2\n", "utf-8-sig")
    a = read_keypoints(tmp_path / "p.csv").images["a.png"]
    assert (a.xy.tolist(), a.visible.tolist(), a.joint.tolist()) == ([[1, 2]], [True], [-1])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a.jpg,1,leg,ten,2,1", r"line 5: x_px is 'ten', not a number of pixels"),
        ("a.jpg,1,leg,1,nan,1", r"line 5: y_px is 'nan', not a number of pixels"),
        ("a.jpg,1,leg,1", r"line 5: y_px is ''"),
        (",1,leg,1,2,1", r"line 5: no frame"),
        ("a.jpg,1,,1,2,1", r"line 5: part '' is not one of leg, tail"),
        ("a.jpg,1,leg,1,2,yes", r"line 5: visible is 'yes', not 1 or 0"),
        ("a.jpg,knee,leg,1,2,1", r"line 5: joint_id is 'knee'"),
    ],
)
def test_a_bad_line_is_named_or_left_out(table, line, said):
    good = read_keypoints(table)
    table.write_text(CSV + line + "\n", "utf-8")
    with pytest.raises(DatasetError, match=said):
        read_keypoints(table)
    assert list(read_keypoints(table, on_bad="skip").images) == list(good.images)


def test_a_missing_file_and_a_missing_column_are_named(tmp_path):
    with pytest.raises(DatasetError, match=r"none\.csv is not a table that can be read \(no such file"):
        read_keypoints(tmp_path / "none.csv")
    (tmp_path / "p.csv").write_text("frame,x,y\n")
    with pytest.raises(DatasetError, match=r"p\.csv, line 1: no column part, x_px, y_px; it has frame, x, y"):
        read_keypoints(tmp_path / "p.csv")
    (tmp_path / "q.csv").write_bytes(b"frame\n\xff\xfe")
    with pytest.raises(DatasetError, match=r"q\.csv is not a table .*line 2 is not text in UTF-8"):
        read_keypoints(tmp_path / "q.csv")


@pytest.mark.real
@pytest.mark.skipif("PROCKD_REAL_DATA" not in os.environ, reason="PROCKD_REAL_DATA is not set")
def test_real_key_points_lie_in_their_frames():
    animals = Path(os.environ["PROCKD_REAL_DATA"]) / "animals"
    for video, frames in (("cows", 21), ("horsejump-high", 10)):
        points = read_keypoints(animals / video / "parts.csv")
        assert len(points) == frames
        assert set(points.parts) <= {"leg", "foot", "tail", "neck", "head", "ear"}
        for name, found in points.images.items():
            assert (animals / video / "frames" / name).is_file()
            assert (found.xy >= 0).all()
            assert (found.xy < (854, 480)).all()
