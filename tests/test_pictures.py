"""What a trained student tells of pictures, in files and on a sheet."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, draw_stripes
from PIL import Image
from typer.testing import CliRunner

import prockd as pk
from prockd.cli import app
from prockd.datasets import open_data, read_keypoints, read_mask
from prockd.runs.folder import RunFolderError
from prockd.runs.known import KnownImages
from prockd.runs.pictures import predict_pictures
from prockd.settings.experiment import ExperimentConfig
from prockd.settings.toml import set_values, write_config
from prockd.students.student import Student
from prockd.tasks import Answer, Classification, Detection, KeyPoints, Segmentation, Task
from prockd.tasks.segmentation import mask_of

NAMES = ("upright", "level")


def student_of(task: Task, image_px: int = 32, **options) -> Student:
    torch.manual_seed(0)
    return Student("resnet10t", task, image_px=image_px, **TINY, **options).eval()


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Six striped pictures, two of them wide, one in a folder, and one that is none."""
    root = tmp_path_factory.mktemp("photos")
    (root / "far").mkdir()
    for m, image in enumerate(draw_stripes(6)[0]):
        picture = Image.fromarray(image)
        picture.resize((96, 64) if m in (1, 4) else (32, 32)).save(root / ("far" if m == 3 else ".") / f"{m}.png")
    (root / "torn.jpg").write_bytes(b"no picture at all")
    return root


@pytest.fixture
def tell(photos, tmp_path):
    """Predictions of a student on the pictures, in a folder of the test."""

    def of(student, **options):
        with pytest.warns(UserWarning, match="skipped: .*torn.jpg cannot be read"):
            return predict_pictures(student, photos, tmp_path / "out", cpu=True, progress=False, **options)

    return of


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_classes_have_the_probabilities_that_the_student_gives(tell, photos):
    student = student_of(Classification(2, NAMES))
    done = tell(student)
    rows = rows_of(done.folder / "classes.csv")
    assert [row["path"] for row in rows] == ["0.png", "1.png", "2.png", "4.png", "5.png", "far/3.png"]
    assert (done.count, len(done.skipped)) == (6, 1)
    pixels = torch.from_numpy(np.array(Image.open(photos / "far/3.png"))).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        likely = student(pixels).logits.softmax(1)[0].tolist()
    told = [float(rows[-1][f"probability of {name}"]) for name in NAMES]
    assert told == pytest.approx(likely, abs=1e-4)
    assert rows[-1]["label"] == NAMES[int(np.argmax(likely))]


def test_tags_are_listed_as_an_image_list_has_them(tell):
    rows = rows_of(tell(student_of(Classification(2, NAMES, multi_label=True))).folder / "classes.csv")
    for row in rows:
        assert row["labels"] == "|".join(name for name in NAMES if float(row[f"probability of {name}"]) >= 0.5)


@pytest.mark.filterwarnings("ignore:.*is left out")  # the sheet beside them
def test_masks_have_the_size_of_the_pictures_and_are_read_as_masks(tell, photos):
    student = student_of(Segmentation(2, NAMES, width=8))
    done = tell(student)
    assert read_mask(done.folder / "masks" / "1.png").shape == (64, 96)
    mask = read_mask(done.folder / "masks" / "far" / "3.png")
    image = np.array(Image.open(photos / "far" / "3.png"))
    alone = pk.predict(student, pk.pack(pk.Arrays(image[None], [0], NAMES), 32, progress=False))
    assert (mask == alone[0]).all(), "of a picture of the student's size it is what pk.predict gives"
    with Image.open(done.folder / "masks" / "1.png") as picture:
        assert picture.mode == "P"
    for path in photos.glob("*.png"):
        (done.folder / "images").mkdir(exist_ok=True)
        (done.folder / "images" / path.name).write_bytes(path.read_bytes())
    (done.folder / "masks" / "far" / "3.png").unlink()
    assert open_data(done.folder, task="segmentation").classes == NAMES


def test_a_mask_leaves_out_what_the_student_did_not_see():
    told = np.zeros((2, 4, 4), np.float32)
    told[1, :, 2:] = 1  # the right half of the square
    cropped = mask_of(Answer("a", (4, 8), np.array([2, 0, 6, 4], np.float32), 4, told))
    assert cropped[0].tolist() == [255, 255, 0, 0, 1, 1, 255, 255]
    padded = mask_of(Answer("a", (2, 4), np.array([0, -1, 4, 3], np.float32), 4, told))
    assert padded.tolist() == [[0, 0, 1, 1]] * 2


@pytest.mark.filterwarnings("ignore:.*is left out")  # the picture that nobody could read
def test_boxes_are_coco_in_pixels_of_the_pictures_and_are_read_again(tell, photos):
    done = tell(student_of(Detection(2, NAMES, width=32), image_px=64), sure=0.0)
    content = json.loads((done.folder / "instances.json").read_text())
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    assert (96, 64) in sizes.values()
    assert content["annotations"]
    for one in content["annotations"]:
        (x, y, w, h), (W, H) = one["bbox"], sizes[one["image_id"]]
        assert 0 <= x < x + w <= W + 0.02
        assert 0 <= y < y + h <= H + 0.02
    (photos / "instances.json").write_text(json.dumps(content))
    try:
        boxes = sum(len(open_data(photos, task="detection")[m].boxes) for m in range(6))
    finally:
        (photos / "instances.json").unlink()
    assert boxes == len(content["annotations"])


def test_key_points_are_a_table_that_the_project_reads(tell):
    done = tell(student_of(KeyPoints(2, ("eye", "leg 8"), width=8)), sure=0.9)
    points = read_keypoints(done.folder / "keypoints.csv")
    assert points.parts == ("eye", "leg 8")
    assert set(points.images) == {"0.png", "1.png", "2.png", "4.png", "5.png", "far/3.png"}
    assert not points.images["1.png"].visible.any(), "an untrained student is sure of nothing"
    assert (points.images["1.png"].xy <= [96, 64]).all()


def test_a_task_of_ones_own_writes_what_its_figures_say(tell):
    class Own(Classification):
        answer, write, marks = Task.answer, Task.write, Task.marks

    rows = rows_of(tell(student_of(Own(2, NAMES))).folder / "answers.csv")
    assert {row["answer"] for row in rows} <= {"0", "1"}


def test_nothing_is_overwritten_unasked_and_nothing_of_another_name_ever(tell, photos):
    student = student_of(Classification(2, NAMES))
    folder = tell(student).folder
    (folder / "classes.csv").write_text("my own notes")
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="holds files already: choose another --out, or --overwrite"):
        predict_pictures(student, photos, folder, cpu=True, progress=False)
    assert (folder / "classes.csv").read_text() == "my own notes"
    tell(student, overwrite=True)
    assert (folder / "notes.txt").read_text() == "mine"
    assert rows_of(folder / "classes.csv")


@pytest.mark.filterwarnings("default:skipped")
def test_a_student_file_and_a_run_answer_alike_and_need_no_teacher(photos, tmp_path):
    student = student_of(Classification(2, NAMES))
    changes = ["teacher.name=resnet18", "teacher.weights=gone.pth", "teacher.image_px=48", "data.path=gone"]
    write_config(set_values(ExperimentConfig(), [*changes, "student.image_px=32"]), tmp_path / "run" / "config.toml")
    KnownImages({}, 32, NAMES, {"train": {}, "test": {}}).write(tmp_path / "run")  # the side that the run packed at
    student.save(tmp_path / "run" / "student.safetensors")
    done = CliRunner().invoke(app, ["predict", str(tmp_path / "run"), str(photos), "--cpu", "-q"])
    assert done.exit_code == 0, done.output
    words = " ".join(done.output.split())
    assert "skipped: " in words
    assert "6 of 7 pictures; 1 skipped, since they cannot be read wrote " in words
    out = tmp_path / "run" / "predictions" / photos.name
    assert (out / "sheet.png").is_file()
    file, other = tmp_path / "run" / "student.safetensors", tmp_path / "other"
    done = CliRunner().invoke(app, ["predict", str(file), str(photos), "--cpu", "-q", "--out", str(other)])
    assert done.exit_code == 0, done.output
    assert (other / "classes.csv").read_text() == (out / "classes.csv").read_text()


def test_a_run_is_used_on_pictures_as_it_read_them_in_training(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)
    for folder, levels in (("plain", grey), ("deep", np.rint(grey * (4095 / 255)).astype(np.uint16))):
        (tmp_path / folder).mkdir()
        Image.fromarray(levels).save(tmp_path / folder / "0.png")
    run, rows = tmp_path / "run", {}
    changes = ["data.path=gone", "data.white=4095", "data.exif=false", "student.image_px=32"]
    write_config(set_values(ExperimentConfig(), changes), run / "config.toml")
    KnownImages({}, 32, NAMES, {"train": {}, "test": {}}).write(run)
    student_of(Classification(2, NAMES)).save(run / "student.safetensors")
    for folder in ("plain", "deep"):
        done = predict_pictures(run, tmp_path / folder, tmp_path / f"of {folder}", cpu=True, progress=False)
        rows[folder] = rows_of(done.folder / "classes.csv")
    assert rows["deep"] == rows["plain"]
    done = CliRunner().invoke(app, ["export", str(run), "--out", str(tmp_path / "exported")])
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "exported" / "student.json").read_text())
    assert (told["white"], told["exif"]) == (4095, False)


@pytest.mark.slow
def test_what_a_command_has_to_say_is_not_silenced_with_the_warnings_of_others(photos, tmp_path):
    student_of(Classification(2, NAMES)).save(tmp_path / "s.safetensors")
    words = ["-W", "ignore", "-m", "prockd", "predict", str(tmp_path / "s.safetensors"), str(photos), "--cpu", "-q"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True)
    assert "skipped: " in done.stderr


def test_asking_for_z_plus_of_a_student_without_one_is_refused(photos, tmp_path, bank):
    plain = student_of(Classification(2, NAMES))
    with pytest.raises(ValueError, match="has no z"):
        predict_pictures(plain, photos / "0.png", tmp_path / "out", augmented=True, progress=False)
    assert not (tmp_path / "out").exists()
    both = student_of(Classification(2, NAMES), bank=bank, feature_augmentation={"content": "attention"})
    for weights in both.feature_augmentation.parameters():  # at first it adds nothing
        torch.nn.init.normal_(weights)
    how = {"cpu": True, "progress": False}
    z, z_plus, given = (
        rows_of(predict_pictures(both, photos / "0.png", tmp_path / f"{a}", augmented=a, **how).files[0])
        for a in (False, True, None)
    )
    assert z != z_plus
    assert given == z_plus, "z+ where there is one"


def test_where_no_picture_can_be_read_the_error_names_them(photos, tmp_path):
    student = student_of(Classification(2, NAMES))
    told = pytest.raises(pk.datasets.DatasetError, match=r"no picture of .*torn\.jpg can be read")
    with pytest.warns(UserWarning, match="skipped"), told:
        predict_pictures(student, photos / "torn.jpg", tmp_path / "out", progress=False)
    with pytest.raises(pk.datasets.DatasetError, match="holds no pictures"):
        predict_pictures(student, tmp_path, tmp_path / "out", progress=False)
