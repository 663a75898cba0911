"""Joints in files: the house's table, DeepLabCut's and COCO's, opened by their looks and refused by name."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from test_formats import put
from typer.testing import CliRunner

from prockd.cli import app
from prockd.datasets import CocoPoints, DatasetError, DeepLabCut, PointTable, check_data, open_data, pack
from prockd.tasks import KeyPoints

HEAD = "frame,joint_id,part,x_px,y_px,visible\n"


@pytest.fixture
def cow(tmp_path: Path) -> Path:
    """A video of three frames, of which two have joints."""
    for frame in range(3):
        put(tmp_path / "cow" / "frames" / f"{frame}.png", frame)
    lines = "0.png,8,leg,3,4,1\n0.png,9,leg,5.5,6,0\n2.png,9,leg,2,3,1\n2.png,1,ear,1,1,1\n"
    (tmp_path / "cow" / "parts.csv").write_text(HEAD + lines)
    return tmp_path / "cow"


def test_a_table_gives_the_joints_of_its_frames_and_other_frames_are_not_among_them(cow):
    data = open_data(cow, task="keypoints")
    assert isinstance(data, PointTable)
    assert data.classes == ("ear 1", "leg 8", "leg 9")
    assert data.ids == ("frames/0.png", "frames/2.png")
    assert data[0].joints.tolist() == [[0, 0, 0], [3, 4, 1], [5.5, 6, 0]]
    assert "4 joints" in repr(data)
    assert check_data(cow, task="keypoints", progress=False).ok
    images = pack(data, 24, progress=False)
    assert images.joints[0, 1].tolist() == [6, 10, 1]  # 12 x 10 px in a square of 24
    KeyPoints.for_images(images).check(images)


def test_a_folder_of_videos_has_a_group_a_video_and_a_test_set_the_joints_of_training(cow):
    put(cow.parent / "horse" / "0.png", 7)
    (cow.parent / "horse" / "parts.csv").write_text(HEAD + "0.png,8,leg,1,2,1\n0.png,30,tail,1,2,1\n")
    both = open_data(cow.parent, task="keypoints")
    assert both.groups == ("cow", "cow", "horse")
    assert both.classes == ("ear 1", "leg 8", "leg 9", "tail 30")
    horse = open_data(cow.parent / "horse", task="keypoints", classes=["ear 1", "leg 8", "leg 9"])
    assert horse[0].joints.tolist() == [[0, 0, 0], [1, 2, 1], [0, 0, 0]]
    assert "tail 30 left out" in repr(horse)


@pytest.mark.parametrize(
    ("line", "entry", "said"),
    [
        (
            "0.png,8,leg,1,1,1",
            "frame 0.png",
            "leg 8 is there twice: each joint needs a name of its own, and each animal",
        ),
        ("2.png,7,leg,13,1,1", "frame 2.png", "leg 7 at 13, 1 is outside of its image of 12 x 10 px"),
        ("5.png,7,leg,1,1,1", "frame 5.png", "its image is missing: looked for"),
        ("0.png,7,leg,one,1,1", "line 6", "x_px is 'one', not a number"),
    ],
)
def test_a_bad_line_of_a_table_is_named(cow, line, entry, said):
    with (cow / "parts.csv").open("a") as file:
        file.write(line + "\n")
    report = check_data(cow, task="keypoints", progress=False)
    assert [(row["file"], row["entry"]) for row in report.rows()] == [("parts.csv", entry)]
    assert report.errors[0].text.startswith(said)
    with pytest.raises(DatasetError, match=said):
        [*open_data(cow, task="keypoints")]


def test_a_frame_whose_joints_are_all_hidden_is_a_note(cow):
    (cow / "parts.csv").write_text(HEAD + "0.png,8,leg,3,4,0\n1.png,8,leg,3,4,1\n")
    report = check_data(cow / "parts.csv", progress=False)
    assert report.ok
    assert [note.text for note in report.notes] == ["no joint is visible"]


SCORER = "scorer,me,me,me,me\nbodyparts,nose,nose,left_ear,left_ear\ncoords,x,y,x,y\n"


def dlc(folder: Path, text: str) -> Path:
    put(folder / "img1.png", 1)
    put(folder / "img2.png", 2)
    (folder / "CollectedData_me.csv").write_text(text)
    return folder


def test_deeplabcuts_tables_are_read_with_three_or_four_rows_and_either_kind_of_path(tmp_path):
    old = SCORER + "labeled-data/a/img1.png,1,2,3,4\nlabeled-data/a/img2.png,,,5.5,6\n"
    new = (
        "scorer,,,me,me,me,me\nindividuals,,,cow,cow,cow,cow\nbodyparts,,,nose,nose,left_ear,left_ear\n"
        "coords,,,x,y,x,y\nlabeled-data,b,img1.png,1,2,3,4\nlabeled-data,b,img2.png,nan,,5.5,6\n"
    )
    for name, text in (("a", old), ("b", new)):
        folder = dlc(tmp_path / "labeled-data" / name, text)
        data = open_data(folder, task="keypoints")
        assert isinstance(data, DeepLabCut)
        assert data.classes == ("nose", "left_ear")
        assert data[0].joints.tolist() == [[1, 2, 1], [3, 4, 1]]
        assert data[1].joints.tolist() == [[0, 0, 0], [5.5, 6, 1]]
        assert open_data(folder / "CollectedData_me.csv").classes == data.classes
    both = open_data(tmp_path / "labeled-data", task="keypoints")
    assert (len(both), set(both.groups)) == (4, {"a", "b"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SCORER + "a/img1.png,1,2,3,x\n", r"_me\.csv, line 4, left_ear: x, y are '3', 'x', not two numbers"),
        (SCORER + "a/img9.png,1,2,3,4\n", r"line 4: its image is missing"),
        (SCORER + "a/img1.png,1,2,3,40\n", r"left_ear at 3, 40 is outside of its image of 12 x 10 px \(img1\.png\)"),
        ("scorer,me,me\ncoords,x,y\na/img1.png,1,2\n", r"has no row bodyparts at its top"),
        (SCORER.replace("left_ear", "nose") + "a/img1.png,1,2,3,4\n", r"nose is there twice"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_deeplabcuts_table_is_named(tmp_path, text, said):
    with pytest.raises(DatasetError, match=said):
        [*open_data(dlc(tmp_path / "a", text), task="keypoints")]


def coco(folder: Path, **changes) -> Path:
    put(folder / "images" / "a.png", 1)
    put(folder / "images" / "b.png", 2)
    one = {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 1, 8, 6], "keypoints": [2, 3, 2, 4, 5, 1, 0, 0, 0]}
    content = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
        "categories": [{"id": 3, "name": "cow", "keypoints": ["nose", "left_eye", "right_eye"]}],
        "annotations": [one | changes],
    }
    if changes.get("id") == 2:
        content["annotations"].insert(0, one)
    (folder / "annotations").mkdir()
    (folder / "annotations" / "person_keypoints.json").write_text(json.dumps(content))
    return folder


def test_coco_key_points_have_their_box_and_visibility_and_pictures_without_any_are_left_out(tmp_path):
    data = open_data(coco(tmp_path))
    assert isinstance(data, CocoPoints)
    assert (data.classes, len(data)) == (("nose", "left_eye", "right_eye"), 1)
    assert data[0].joints.tolist() == [[2, 3, 1], [4, 5, 0], [0, 0, 0]]  # 1 is hidden
    assert data[0].boxes.tolist() == [[1, 1, 9, 7]]
    assert pack(data, 12, fit="stretch", progress=False).boxes[0].shape == (1, 4)
    assert check_data(tmp_path, progress=False).ok
    assert open_data(tmp_path, task="detection").classes == ("cow",)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id": 2}, r"annotation 2: nose is there twice, first in annotation 1"),
        ({"keypoints": [1, 2, 2]}, r"annotation 1: has 3 values of key points: x, y, visibility of the 3 .* are 9"),
        ({"keypoints": [1, 2, 2, None, 1, 2, 0, 0, 0]}, r"annotation 1: key points hold None, not a number"),
        ({"keypoints": [50, 2, 2] * 3}, r"annotation 1: nose at 50, 2 is outside of its image of 12 x 10 px"),
        ({"category_id": 8}, r"annotation 1: no category has the id 8"),
        ({"image_id": 9}, r"annotation 1: no image has the id 9"),
        ({"bbox": [1, 1, 0, 6]}, r"has no area"),
    ],
)
def test_what_is_wrong_in_coco_key_points_is_named(tmp_path, changes, said):
    with pytest.raises(DatasetError, match=said):
        [*open_data(coco(tmp_path, **changes), task="keypoints")]


@pytest.mark.filterwarnings("ignore:the teacher resnet10t knows nothing")
def test_key_points_are_checked_and_trained_from_the_command_line(tmp_path):
    for frame in range(8):
        put(tmp_path / "cow" / "frames" / f"{frame}.png", frame)
    lines = [f"{m % 8}.png,{m // 8},leg,{1 + m % 8},{2 + m // 8},1" for m in range(16)]
    (tmp_path / "cow" / "parts.csv").write_text(HEAD + "\n".join(lines))
    words = ["check-data", str(tmp_path / "cow"), "--task", "keypoints", "-q"]
    checked = CliRunner().invoke(app, words)
    assert checked.exit_code == 0, checked.output
    assert "looks like key points" in checked.output
    changes = ["student.image_px=32", "student.options.channels=[8, 16, 24, 32]", "distill.steps=4",
               "distill.batch_size=4", "distill.unlabelled_batch=0", "teacher.name=resnet10t", "teacher.random=true",
               "teacher.image_px=32",
               "teacher.layers=[1, 2]", "discover.num_prototypes=4", "discover.embed_dim=8",
               "discover.steps=2"]  # fmt: skip
    words = ["distill", "--task", "keypoints", "--data", str(tmp_path / "cow"), "--run-dir", str(tmp_path / "run"),
             "--cpu", "-q", *(word for change in changes for word in ("--set", change))]  # fmt: skip
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "PCK at 0.1" in done.output
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [row["class"] for row in results["classes"]] == ["leg 0", "leg 1"]


@pytest.mark.real
@pytest.mark.skipif("PROCKD_REAL_DATA" not in os.environ, reason="PROCKD_REAL_DATA is not set")
def test_real_videos_are_opened_as_key_points_and_one_is_told_with_the_joints_of_the_other():
    animals = Path(os.environ["PROCKD_REAL_DATA"]) / "animals"
    cows = open_data(animals / "cows", task="keypoints")
    horse = open_data(animals / "horsejump-high", task="keypoints", classes=cows.classes)
    assert (len(cows), len(horse)) == (21, 10)
    images = pack(cows, 96, progress=False)
    assert KeyPoints.for_images(images).truth(images)[..., 3].min() > 20
    both = open_data(animals, task="keypoints")
    assert (len(both), set(both.groups)) == (31, {"cows", "horsejump-high"})
    assert np.mean([sample.joints[:, 2].sum() for sample in horse]) > 10
    assert check_data(animals / "cows", task="keypoints", progress=False).ok
