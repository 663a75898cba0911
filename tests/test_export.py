"""The plain student without prockd: the same numbers in a process that cannot import it."""

import inspect
import json
import runpy
import shutil
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY
from fake_device import fake_device
from PIL import Image
from safetensors.torch import load_file

from prockd.datasets import ImageFolder, pack, read_image
from prockd.prototypes.bank import PrototypeBank
from prockd.settings.method import FeatureAugmentationConfig
from prockd.students import ExportError, Student, export_student
from prockd.students.export import EXAMPLES, check_onnx
from prockd.tasks import Classification, Detection, KeyPoints, Segmentation

TASKS = {
    "classification": Classification(3, ("a", "b", "c")),
    "segmentation": Segmentation(3, ("a", "b", "c"), width=16),
    "keypoints": KeyPoints(3, ("a", "b", "c"), width=16),
    "fcos": Detection(2, ("a", "b"), width=32, num_levels=2),
    "retinanet": Detection(2, ("a", "b"), detector="retinanet", width=32, num_levels=2),
    "fasterrcnn": Detection(2, ("a", "b"), detector="fasterrcnn", width=32, num_levels=2),
}


def made(
    task: str, backbone: str = "resnet10t", augment: FeatureAugmentationConfig | None = None, **options
) -> Student:
    torch.manual_seed(0)
    bank = PrototypeBank(4, 12, 8)
    options, augment = options or TINY, augment or FeatureAugmentationConfig()
    student = Student(backbone, TASKS[task], bank, feature_augmentation=augment, image_px=64, **options).eval()
    with torch.no_grad():
        for p in student.head.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return student


TRAINED = FeatureAugmentationConfig(fit="trained", num_maps=5)
WITH_Z_PLUS = {"closed": ("classification", None), "trained": ("classification", TRAINED)}
WITH_Z_PLUS |= {task: (task, TRAINED) for task in ("segmentation", "fcos", "fasterrcnn")}


def augmented(kind: str) -> Student:
    """A student whose part maps say something; one prototype is disabled, one merged."""
    task, config = WITH_Z_PLUS[kind]
    student = made(task, augment=config)
    maps, bank = student.feature_augmentation, student.bank
    if maps.num_outputs:
        maps.set_reading(torch.randn(4 * 8, 3), torch.randn(3))
    else:
        torch.nn.init.normal_(maps.spread.weight)
    bank.merge(0, 1)
    bank.disable(3)
    return student


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("pictures") / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    return str(path)


def made_vit() -> Student:
    return made("classification", "vit_tiny_patch16_224", patch_size=8, depth=3, num_heads=2)


def read(picture: str) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(picture))).permute(2, 0, 1)[None].float() / 255


@pytest.fixture(scope="module")
def exported(tmp_path_factory, picture) -> Path:
    """Every student, exported and run in one fresh process that can import neither prockd nor jaxtyping."""
    root = tmp_path_factory.mktemp("exported")
    for task in TASKS:
        export_student(made(task), root / task / "timm")
        if isinstance(TASKS[task], Detection):
            export_student(made(task), root / task / "torchvision", format="torchvision")
    export_student(made_vit(), root / "vit" / "timm")
    for kind in WITH_Z_PLUS:
        export_student(augmented(kind), root / f"z_plus_{kind}" / "timm", augmented=True)
    script = f"""
import contextlib, io, pathlib, runpy, sys
sys.modules["prockd"] = sys.modules["jaxtyping"] = None
import torch
torch.set_grad_enabled(False)
sys.path.insert(0, "")
for path in sorted(pathlib.Path({str(root)!r}).glob("*/*/load_student.py")):
    sys.path[0] = str(path.parent)  # as Python does for a script; each folder has modules of these names
    for name in ("picture", "plain_student", "part_maps", "heads", "detectors"):
        sys.modules.pop(name, None)
    m = runpy.run_path(str(path))
    images = torch.from_numpy(m["read_square"]({picture!r})[0])[None]
    if path.parent.name == "torchvision":
        said = m["load"]()([images[0]])[0]
    else:
        model = m["PlainStudent"]()
        said = m["predict"](model, images)
        said = said if torch.is_tensor(said) else model.head.detect(said)[0]
    torch.save(said, path.with_name("said.pt"))
    sys.argv = [str(path), {picture!r}]
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        runpy.run_path(str(path), run_name="__main__")
    path.with_name("shown.txt").write_text(shown.getvalue())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return root


@pytest.mark.parametrize("task", ["classification", "segmentation", "keypoints", "vit"])
def test_the_exported_student_says_the_same_where_prockd_cannot_be_imported(task, exported, picture):
    student = made_vit() if task == "vit" else made(task)
    said = torch.load(exported / task / "timm" / "said.pt")
    torch.testing.assert_close(said, student(read(picture)).logits.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", WITH_Z_PLUS)
def test_z_plus_of_part_maps_is_a_few_lines_of_numpy_on_the_features_of_the_plain_student(kind, exported, picture):
    student, folder = augmented(kind), exported / f"z_plus_{kind}" / "timm"
    said, output = torch.load(folder / "said.pt"), student(read(picture))
    if kind in ("fcos", "fasterrcnn"):
        wanted, plain = (student.head.detect(raw)[0] for raw in (output.augmented_logits, output.logits))
        torch.testing.assert_close(said["scores"], wanted["scores"], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(said["boxes"], wanted["boxes"], rtol=1e-3, atol=1e-2)
        assert not torch.equal(plain["scores"][:3], wanted["scores"][:3])
    else:
        torch.testing.assert_close(said, output.augmented_logits.detach(), rtol=1e-4, atol=1e-4)
        assert (said - output.logits).abs().max() > 0.1
    plain, plus = folder / "head.safetensors", load_file(folder / "part_maps.safetensors")
    assert "head.norm.weight" in load_file(plain) or kind not in ("closed", "trained")
    assert len(plus["prototypes"]) == 3  # the merged one is in another


@pytest.mark.parametrize("form", ["timm", "torchvision"])
@pytest.mark.parametrize("task", ["fcos", "retinanet", "fasterrcnn"])
def test_an_exported_detector_finds_the_same_boxes_as_a_detector_of_torchvision_too(task, form, exported, picture):
    student = made(task)
    wanted = student.head.detect(student(read(picture)).logits)[0]
    assert len(wanted["boxes"]) > 3
    found = torch.load(exported / task / form / "said.pt")
    torch.testing.assert_close(found["boxes"], wanted["boxes"], rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(found["scores"], wanted["scores"], rtol=1e-3, atol=1e-4)
    first = int(task == "fasterrcnn" and form == "torchvision")
    assert torch.equal(found["labels"] - first, wanted["labels"])


def test_each_example_tells_classes_when_it_runs_as_a_script(exported):
    for path in exported.glob("*/*/shown.txt"):
        assert set(path.read_text().split()) & {"a", "b", "c"}, path


def test_the_backbone_has_timms_own_names_and_no_prototype_is_exported(tmp_path):
    student = made("classification")
    export_student(student, tmp_path)
    backbone, head = load_file(tmp_path / "backbone.safetensors"), load_file(tmp_path / "head.safetensors")
    assert backbone.keys() == student.backbone.state_dict().keys()
    assert {name.split(".")[0] for name in head} == {"adapter", "head"}
    total = sum(v.numel() for state in (backbone, head) for k, v in state.items() if "running" not in k)
    counts = sum(1 for k in backbone if k.endswith("num_batches_tracked"))
    assert total - counts == student.plain_parameters
    about = json.loads((tmp_path / "student.json").read_text())
    assert (about["backbone"], about["image_px"], about["classes"]) == ("resnet10t", 64, ["a", "b", "c"])


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_the_example_makes_squares_as_training_did(exported, fit, tmp_path):
    image = np.kron(np.random.default_rng(0).integers(0, 255, (5, 8, 3), np.uint8), np.ones((16, 16, 1), np.uint8))
    turned = Image.fromarray(np.rot90(image))
    exif = turned.getexif()
    exif[0x0112] = 6  # to be shown turned
    turned.save(tmp_path / "a.png", exif=exif)
    namespace = runpy.run_path(str(exported / "segmentation" / "timm" / "picture.py"))
    namespace["FACTS"]["fit"] = fit
    pixels, frame = namespace["read_square"](tmp_path / "a.png")
    (tmp_path / "cat").mkdir()
    shutil.copy(tmp_path / "a.png", tmp_path / "cat")
    packed = pack(ImageFolder(tmp_path / "cat"), 64, fit=fit, root=tmp_path)
    assert np.abs(pixels - packed.pixels[0] / 255).mean() < 0.02
    assert packed.frames is not None
    np.testing.assert_allclose(frame, packed.frames[0], atol=1)


@pytest.mark.parametrize("exif", [True, False])
def test_the_example_reads_every_orientation_and_level_of_white_as_training_did(exported, exif, tmp_path):
    namespace = runpy.run_path(str(exported / "segmentation" / "timm" / "picture.py"))
    assert namespace["FACTS"] | {"white": 0, "exif": True} == namespace["FACTS"]
    namespace["FACTS"] |= {"white": 4095, "exif": exif}
    colours = np.random.default_rng(0).integers(0, 255, (5, 8, 4), np.uint8)
    for turn in range(10):
        tags = Image.Exif()
        tags[0x0112] = turn
        Image.fromarray(colours).save(tmp_path / f"{turn}.png", exif=tags)
    Image.fromarray(np.array([[0, 4095], [2000, 9000]], np.uint16)).save(tmp_path / "deep.png")
    for path in tmp_path.glob("*.png"):
        ours = read_image(path, white=4095, exif=exif)
        np.testing.assert_array_equal(np.asarray(namespace["read_picture"](path)), ours, path.name)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory, picture) -> Path:
    """A student of each task as a graph, whose script has run in one fresh process that can import no torch."""
    pytest.importorskip("onnxruntime")
    root = tmp_path_factory.mktemp("graphs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.onnx and onnxscript, which warn of their own insides
        for task in ("classification", "segmentation", "keypoints", "fcos", "retinanet"):
            student = made(task)
            export_student(student, root / task, format="onnx")
            assert student.feature_augmentation is not None  # the student is as it was
        for kind in GRAPHS_OF_Z_PLUS:
            export_student(augmented(kind), root / f"z_plus_{kind}", format="onnx", augmented=True)
    script = f"""
import contextlib, io, pathlib, runpy, sys
sys.modules["prockd"] = sys.modules["torch"] = None
sys.path.insert(0, "")
for path in pathlib.Path({str(root)!r}).glob("*/load_student.py"):
    sys.path[0], sys.argv = str(path.parent), [str(path), {picture!r}]
    sys.modules.pop("picture", None)
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        runpy.run_path(str(path), run_name="__main__")
    path.with_name("shown.txt").write_text(shown.getvalue())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return root


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classification", "segmentation", "keypoints", "fcos", "retinanet"])
def test_the_onnx_example_tells_what_pytorch_says_without_torch(task, graphs, picture):
    student = made(task)
    lines = [line.split("  ") for line in (graphs / task / "shown.txt").read_text().splitlines()]
    with torch.no_grad():
        said = student(read(picture)).logits
    if task == "keypoints":
        for (sure, name, place), wanted in zip(lines, student.task.decode(said, 64)[0].tolist(), strict=True):
            assert (name, float(sure)) == ("abc"[lines.index([sure, name, place])], pytest.approx(wanted[2], abs=2e-3))
            np.testing.assert_allclose(json.loads(place), wanted[:2], atol=0.2)
        return
    if task in ("fcos", "retinanet"):
        found = student.head.detect(said)[0]
        for (score, label, box), *wanted in zip(lines[:3], *(found[k] for k in ("scores", "labels", "boxes"))):  # noqa: B905
            assert (float(score), "ab".index(label)) == (pytest.approx(float(wanted[0]), abs=2e-3), int(wanted[1]))
            np.testing.assert_allclose(json.loads(box), wanted[2].numpy(), atol=0.2)
        assert len(lines) >= 3
        return
    shares = (
        said.softmax(1)[0]
        if task == "classification"
        else torch.bincount(said[0].argmax(0).flatten(), minlength=3) / 4096
    )
    assert {label: float(value) for value, label in lines} == pytest.approx(
        dict(zip("abc", shares.tolist(), strict=True)), abs=2e-3
    )


GRAPHS_OF_Z_PLUS = ("closed", "fcos")


@pytest.mark.slow
@pytest.mark.parametrize("kind", GRAPHS_OF_Z_PLUS)
def test_an_onnx_graph_gives_z_and_z_plus_of_any_number_of_images(kind, graphs, picture):
    onnxruntime = pytest.importorskip("onnxruntime")
    student, folder = augmented(kind), graphs / f"z_plus_{kind}"
    facts = json.loads((folder / "student.json").read_text())
    assert max(facts["largest_difference_from_pytorch"].values()) < 1e-4
    assert 0 < facts["milliseconds_of_one_image"]["onnx"] < 3 * facts["milliseconds_of_one_image"]["pytorch"]
    session = onnxruntime.InferenceSession(folder / "student.onnx", providers=["CPUExecutionProvider"])
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        output = student(images)
    wanted = student.task.graph_outputs(output.logits)
    plus = student.task.graph_outputs(output.augmented_logits)
    wanted |= {f"augmented_{name}": value for name, value in plus.items()}
    assert facts["outputs"] == [*wanted]
    for name, got in zip(wanted, session.run([*wanted], {"images": images.numpy()}), strict=True):
        np.testing.assert_allclose(got, wanted[name].numpy(), rtol=1e-3, atol=2e-4)
    shown = (folder / "shown.txt").read_text().splitlines()
    if kind == "closed":
        with torch.no_grad():
            z_plus = student(read(picture)).augmented_logits.softmax(1)[0]
        told = {label: float(value) for value, label in (line.split("  ") for line in shown)}
        assert told == pytest.approx(dict(zip("abc", z_plus.tolist(), strict=True)), abs=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classification", "fcos"])
def test_the_onnx_graph_computes_what_pytorch_does_for_any_number_of_images(task, graphs):
    onnxruntime = pytest.importorskip("onnxruntime")
    student, folder = made(task), graphs / task
    facts = json.loads((folder / "student.json").read_text())
    assert max(facts["largest_difference_from_pytorch"].values()) < 1e-4
    session = onnxruntime.InferenceSession(folder / "student.onnx", providers=["CPUExecutionProvider"])
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        logits = student(images).logits
    wanted = logits.outputs if task == "fcos" else {"logits": logits}
    for name, got in zip(wanted, session.run(list(wanted), {"images": images.numpy()}), strict=True):
        np.testing.assert_allclose(got, wanted[name].numpy(), rtol=1e-3, atol=1e-4)
    if task == "fcos":
        assert np.load(folder / "anchors.npy").shape == (wanted["cls_logits"].shape[1], 4)


def test_an_onnx_graph_that_computes_something_else_is_refused(tmp_path):
    class Session:
        def __init__(self, *args, **kwargs): ...

        def run(self, names, feeds):
            return [np.full((len(feeds["images"]), 2), 1.01, np.float32)]

    with pytest.raises(ExportError, match=r"logits differs from PyTorch by 0\.01"):
        check_onnx(Session(), torch.zeros(2, 3, 8, 8), {"logits": torch.ones(2, 2)})


def test_a_missing_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"pip install 'prockd\[export\]'"):
        export_student(made("classification"), tmp_path, format="onnx")


def test_a_form_that_does_not_suit_the_task_is_refused(tmp_path):
    with pytest.raises(ExportError, match="export Classification as timm or onnx"):
        export_student(made("classification"), tmp_path, format="torchvision")
    with pytest.raises(ExportError, match=r"Faster R-CNN looks twice, .*: export it as torchvision"):
        export_student(made("fasterrcnn"), tmp_path, format="onnx")
    with pytest.raises(ExportError, match="choose timm, torchvision, onnx"):
        export_student(made("classification"), tmp_path, format="coreml")
    assert not any(tmp_path.iterdir())


def test_z_plus_that_is_not_there_or_has_no_form_is_refused(tmp_path):
    with pytest.raises(ExportError, match="part maps are not fitted yet: train it first"):
        export_student(made("classification"), tmp_path, augmented=True)
    with pytest.raises(ExportError, match=r"has no z\+: export it without augmented=True"):
        export_student(Student("resnet10t", TASKS["classification"], **TINY), tmp_path, augmented=True)
    attention = made("classification", augment=FeatureAugmentationConfig("attention"))
    with pytest.raises(ExportError, match=r"timm has no form for z\+ of content 'attention': export it as onnx"):
        export_student(attention, tmp_path, augmented=True)
    with pytest.raises(ExportError, match=r"torchvision has no form for z\+ .*: export it as timm or onnx"):
        export_student(augmented("fcos"), tmp_path, format="torchvision", augmented=True)
    assert not any(tmp_path.iterdir())


@dataclass(frozen=True)
class Own(Classification):
    formats = ()


def test_a_task_of_ones_own_is_refused_in_words(tmp_path):
    student = Student("resnet10t", Own(2), image_px=32, **TINY)
    with pytest.raises(ExportError, match="Own is a task of your own: export its head yourself"):
        export_student(student, tmp_path)


@pytest.mark.parametrize("format", ["timm", "torchvision"])
def test_the_code_beside_the_weights_is_that_of_the_package_as_it_stands(exported, format):
    folder = exported / "fcos" / format
    sources = {
        "load_student.py": f"predict_{format}.py",
        "picture.py": "picture.py",
        "plain_student.py": "plain_student.py",
    }
    for name, source in sources.items():
        assert (folder / name).read_bytes() == (EXAMPLES / source).read_bytes(), name
    assert (folder / "detectors.py").read_bytes() == Path(inspect.getfile(type(made("fcos").head))).read_bytes()


@pytest.mark.parametrize("training", [True, False])
def test_a_student_on_another_device_is_exported_alike_and_left_as_and_where_it_is(tmp_path, training):
    student = made("classification").train(training)
    export_student(student, tmp_path / "here")
    with fake_device() as device:
        export_student(student.to(device), tmp_path / "away")
        assert {t.device for t in student.state_dict().values()} == {device}
        assert student.training is training
        assert student.feature_augmentation is not None
    for path in (tmp_path / "here").iterdir():
        assert path.read_bytes() == (tmp_path / "away" / path.name).read_bytes(), path.name


def test_a_student_is_left_as_and_where_it_is_after_an_error(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    student = made("classification").train().to("meta")
    with pytest.raises(NotImplementedError):  # there are no numbers on that device to write
        export_student(student, tmp_path, format="onnx")
    assert {t.device.type for t in student.state_dict().values()} == {"meta"}
    assert student.training
    assert student.feature_augmentation is not None


def test_where_torch_cannot_write_onnx_the_format_that_works_is_told(tmp_path, monkeypatch):
    def fails(*_: object, **__: object) -> None:
        raise torch.onnx.errors.OnnxExporterError("pages of words")

    monkeypatch.setattr(torch.onnx, "export", fails)
    student = Student("resnet10t", Classification(2), image_px=32, **TINY)
    with pytest.raises(ExportError, match=r"torch cannot write resnet10t as ONNX: export it as timm"):
        export_student(student, tmp_path, format="onnx")
