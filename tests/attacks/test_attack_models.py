"""Files of weights that want something else than to be weights: each is refused, before anything is made of it."""

import json
import os
import pickle
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import timm
import torch

from prockd.prototypes.bank import PrototypeBank
from prockd.settings.method import FeatureAugmentationConfig
from prockd.students.student import Student
from prockd.tasks import Classification
from prockd.teachers.teacher import Teacher
from prockd.teachers.weights import WeightsError, create_backbone, option_names
from prockd.training.adaptation import write_teacher
from prockd.training.checkpoint import load_checkpoint, save_checkpoint

TINY = {"channels": (8, 8, 16, 16), "stem_width": 8}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder, bank = tmp_path_factory.mktemp("models"), PrototypeBank(4, 24, 8)
    augment = FeatureAugmentationConfig("attention")
    task = Classification(2, ("cat", "dog"))
    Student("resnet10t", task, bank, feature_augmentation=augment, image_px=32, **TINY).save(
        folder / "student.safetensors"
    )
    bank.save(folder / "bank.safetensors")
    card = {"architecture": "resnet10t", "timm_kwargs": TINY, "layers": [2, 3], "image_px": 32,
            "mean": [0.5] * 3, "std": [0.5] * 3}  # fmt: skip
    write_teacher(folder / "teacher.safetensors", create_backbone("resnet10t", **TINY), None, card, overwrite=True)
    return folder


def changed(path: Path, to: Path, *, metadata=None, told=None, tensors=None) -> Path:
    """A copy of a file that says or holds something else; ``told`` goes through prockd's own JSON."""
    with safetensors.safe_open(path, "pt") as file:
        old = dict(file.metadata())
    if told is not None:
        old["prockd"] = json.dumps(told(json.loads(old["prockd"])))
    state = safetensors.torch.load_file(path)
    safetensors.torch.save_file(state | (tensors or {}), to, old | (metadata or {}))
    return to


def told(**fields):
    return lambda card: card | fields


def nested(name, **fields):
    return lambda card: card | {name: card[name] | fields}


URL = {"url": "https://example.org/weights.pth"}
STUDENTS = {
    "weights of the hub": (nested("timm_kwargs", pretrained=True), "'pretrained', which says nothing"),
    "an address": (nested("timm_kwargs", pretrained_cfg=URL), "'pretrained_cfg'"),
    "an address over another": (nested("timm_kwargs", pretrained_cfg_overlay=URL), "'pretrained_cfg_overlay'"),
    "a local path": (nested("timm_kwargs", checkpoint_path="/etc/passwd"), "'checkpoint_path'"),
    "a place of caches": (nested("timm_kwargs", cache_dir="/tmp"), "'cache_dir'"),
    "another kind of model": (nested("timm_kwargs", features_only=True), "'features_only'"),
    "a model of the hub": (told(backbone="hf-hub:somebody/resnet10t"), "its network 'hf-hub:somebody/resnet10t'"),
    "a model of a folder": (told(backbone="local-dir:/tmp/resnet10t"), "its network 'local-dir:"),
    "a path as a name": (told(backbone="../resnet10t"), "its network '../resnet10t'"),
    "a giant": (told(backbone="vit_giant_patch14_dinov2"), "which says nothing of what vit_giant"),
    "a giant without options": (told(backbone="vit_giant_patch14_dinov2", timm_kwargs={}, layers=[1]),
                                "describes a network of .* values and holds"),
    "wide channels": (nested("timm_kwargs", channels=[8192] * 4), "describes a network of"),
    "wider channels": (nested("timm_kwargs", channels=[2**40] * 4), "timm_kwargs.channels is"),
    "a table as an option": (nested("timm_kwargs", act_layer={"url": "x"}), "timm_kwargs.act_layer is"),
    "an endless list of layers": (told(layers=list(range(10**4))), "layers is"),
    "a layer that is not there": (told(layers=[77]), r"layers=\(77,\)|layers=\[77\]"),
    "no side": (told(image_px=-3), "image_px is -3, not a whole number"),
    "a side of a kilometre": (told(image_px=10**9), "image_px is 1000000000"),
    "a side of no number": (told(image_px=float("nan")), "image_px is nan"),
    "a grid without end": (told(grid=10**6), "grid is 1000000"),
    "a width without end": (told(embed_dim=2**40), "embed_dim is"),
    "many classes": (nested("task", fields={"num_classes": 2**40}), "task.num_classes is"),
    "a field of no task": (nested("task", fields={"num_classes": 2, "run": "rm"}), "'task.run' that prockd"),
    "a knob of nothing": (nested("feature_augmentation", run="rm"), "no knob 'run'"),
    "a knob out of range": (nested("feature_augmentation", num_maps=-1), "num_maps = -1"),
    "a bank without end": (nested("bank", options={"num_prototypes": 2**40}), "bank.options"),
    "names of other prototypes": (nested("bank", names=["ear"]), "names are .* not one text for each of 4"),
    "a field too many": (told(run="rm"), "has a field 'run' that prockd does not know"),
    "a field too few": (lambda card: {k: v for k, v in card.items() if k != "grid"}, "lacks grid"),
    "lists within lists": (told(timm_kwargs=json.loads("[" * 80 + "]" * 80)), "tables or lists within each other"),
}  # fmt: skip


@pytest.mark.parametrize("kind", STUDENTS)
def test_a_strangers_student_is_refused_by_name_before_anything_is_made(files, tmp_path, kind, monkeypatch):
    change, message = STUDENTS[kind]
    path = changed(files / "student.safetensors", tmp_path / "stranger.safetensors", told=change)
    asked = []
    make = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda *names, **options: asked.append(options) or make(*names, **options)
    )
    with pytest.raises(WeightsError, match=message) as error:
        Student.load(path)
    assert "stranger.safetensors" in str(error.value)
    assert "\n" not in str(error.value)
    assert not any({"pretrained_cfg", "checkpoint_path", "cache_dir"} & set(options) for options in asked)
    assert not any(options.get("pretrained") for options in asked)


def test_the_file_that_the_attacks_begin_from_is_a_student(files):
    assert Student.load(files / "student.safetensors").task.classes == ("cat", "dog")


TENSORS = {
    "no number": ({"bank.prototypes": torch.full((4, 8), torch.nan)}, "'bank.prototypes' holds values that are not"),
    "an infinite one": ({"adapter.0.bias": torch.full((8,), torch.inf)}, "not finite"),
    "a variance below 0": ({"backbone.bn1.running_var": torch.full((8,), -1.0)}, "variance below 0"),
    "all prototypes disabled": ({"bank.enabled": torch.zeros(4, dtype=torch.bool)}, "all 4 prototypes are disabled"),
    "merged into none": ({"bank.merged": torch.tensor([0, 1, 2, 4])}, "merged is"),
    "merged below 0": ({"bank.merged": torch.tensor([0, 1, 2, -1])}, "merged is"),
    "merged in a circle": ({"bank.merged": torch.tensor([1, 0, 2, 3])}, "merged is"),
    "switches of another kind": ({"bank.enabled": torch.ones(4)}, "enabled and merged are not"),
    "another shape": ({"bank.prototypes": torch.zeros(3, 8)}, "does not fit the student"),
    "a tensor too many": ({"stranger": torch.zeros(3)}, "does not fit the student"),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_weights_and_switches_that_no_student_has_are_refused(files, tmp_path, kind):
    tensors, message = TENSORS[kind]
    path = changed(files / "student.safetensors", tmp_path / "stranger.safetensors", tensors=tensors)
    with pytest.raises(WeightsError, match=message) as error:
        Student.load(path)
    assert "stranger.safetensors" in str(error.value)


BANKS = {
    "no number": ({"tensors": {"prototypes": torch.full((4, 8), torch.nan)}}, "not finite"),
    "all disabled": ({"tensors": {"enabled": torch.zeros(4, dtype=torch.bool)}}, "all 4 prototypes are disabled"),
    "merged out of range": ({"tensors": {"merged": torch.tensor([0, 1, 2, 9])}}, "merged is"),
    "without end": ({"metadata": {"prockd_bank": '{"num_prototypes": 1099511627776}'}}, "lacks bank.options.feature_"),
    "of a gigabyte": ({"metadata": {"prockd_bank": json.dumps({"num_prototypes": 8192, "feature_dim": 65536,
                       "embed_dim": 4096, "teacher": "", "rectify": False, "rank": 4096})}}, "describes a network of"),
    "no text": ({"metadata": {"names": "[1, 2, 3, 4]"}}, "names are"),
    "no JSON": ({"metadata": {"names": "["}}, "JSONDecodeError"),
    "lists without end": ({"metadata": {"names": "[" * 100_000}}, "lists within each other"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BANKS)
def test_a_bank_that_cannot_be_is_refused(files, tmp_path, kind):
    change, message = BANKS[kind]
    with pytest.raises(ValueError, match=message) as error:
        PrototypeBank.load(changed(files / "bank.safetensors", tmp_path / "stranger.safetensors", **change))
    assert "stranger.safetensors is not a prototype bank" in str(error.value)


TEACHERS = {
    "an address": (nested("timm_kwargs", pretrained_cfg=URL), "'pretrained_cfg'"),
    "a model of the hub": (told(architecture="hf-hub:somebody/resnet10t"), "its network"),
    "a giant": (told(architecture="vit_giant_patch14_dinov2", timm_kwargs={}), "describes a network of"),
    "a mean of no number": (told(mean=[float("nan")] * 3), "mean is"),
    "no deviation": (told(std=[0, 0, 0]), "std is"),
    "no layers": (told(layers=[]), "layers is"),
    "a field too few": (lambda card: {k: v for k, v in card.items() if k != "std"}, "lacks std"),
}


@pytest.mark.parametrize("kind", TEACHERS)
def test_a_strangers_teacher_is_refused(files, tmp_path, kind):
    change, message = TEACHERS[kind]
    path = changed(files / "teacher.safetensors", tmp_path / "stranger.safetensors", told=change)
    with pytest.raises(WeightsError, match=message) as error:
        Teacher(str(path))
    assert "stranger.safetensors" in str(error.value)


@pytest.mark.parametrize("name", ["hf-hub:somebody/resnet10t", "local-dir:/tmp/x/resnet10t"])
def test_no_name_asks_the_hub_or_a_folder_unless_weights_are_asked_for(name):
    with pytest.raises(WeightsError, match="say pretrained=True"):
        Teacher(name)
    with pytest.raises(WeightsError, match="say pretrained=True"):
        Student(name, Classification(2))


@pytest.mark.parametrize("option", ["pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"])
def test_options_of_settings_say_what_a_model_is_and_not_where_weights_come_from(option):
    with pytest.raises(WeightsError, match=f"{option} tells timm where to look"):
        Student("resnet10t", Classification(2), **{option: "/tmp"})


def test_what_presets_and_the_small_student_say_of_a_model_is_allowed():
    assert {"channels", "stem_width", "output_stride"} <= option_names("resnet10t")
    assert "pad_type" in option_names("mobilenetv2_100")
    assert not {"pretrained", "pretrained_cfg", "checkpoint_path", "cache_dir"} & option_names(
        "vit_small_patch14_dinov2"
    )


class Spell:
    """A pickle that runs a command when it is opened."""

    def __reduce__(self):
        return os.mkdir, ("cast",)


def test_a_pickle_runs_nothing_and_a_number_repeated_for_a_terabyte_takes_no_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("spell.pth").write_bytes(pickle.dumps(Spell()))
    torch.save({"conv1.weight": torch.zeros(1).expand(2**38)}, "wide.pth")
    for name, message in (("spell", "cannot be read as weights"), ("wide", "claims more values than it has")):
        with pytest.raises(WeightsError, match=message):
            Teacher("resnet10t", weights=f"{name}.pth")
    assert not Path("cast").exists()


CHECKPOINTS = {
    "steps of -1": ({"step": -1}, "step is -1"),
    "a step beyond the last": ({"step": 99}, "step 99 is beyond the last one"),
    "no step": ({"step": None}, "step is None"),
    "rows of texts": ({"rows": [{"loss": "x"}]}, "rows is"),
    "settings that are none": ({"config": []}, r"config is \[\]"),
    "no number": ({"model": {"weight": torch.full((2, 2), torch.nan), "bias": torch.zeros(2)}}, "not finite"),
    "a model that is none": ({"model": 3}, "model is 3"),
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_a_checkpoint_of_no_run_is_refused(tmp_path, kind):
    model, (change, message) = torch.nn.Linear(2, 2), CHECKPOINTS[kind]
    save_checkpoint(tmp_path, {"model": model}, {"steps": 10}, [{"step": 0.0, "loss": 1.0}], 4)
    assert load_checkpoint(tmp_path, {"model": model}, {"steps": 10}) == ([{"step": 0.0, "loss": 1.0}], 4)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    torch.save(state | change, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match=message) as error:
        load_checkpoint(tmp_path, {"model": model}, {"steps": 10})
    assert "checkpoint.pt is not a checkpoint" in str(error.value)


def test_a_flipped_bit_of_a_checkpoint_is_not_believed(tmp_path):
    model = torch.nn.Linear(64, 64)
    save_checkpoint(tmp_path, {"model": model}, {}, [], 4)
    content = bytearray((tmp_path / "checkpoint.pt").read_bytes())
    place = bytes(content).index(model.weight.detach().numpy().tobytes())
    content[place + 1000] ^= 1
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"checkpoint\.pt is not a checkpoint"):
        load_checkpoint(tmp_path, {"model": model}, {})
