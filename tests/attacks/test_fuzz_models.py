"""Whatever happens to a file of weights or settings: it is refused in words that name it, or read right."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from mutations import FEW, MANY, as_text, edits, mutated, replaced, values, without
from prockd_widgets.settings import Settings, method_of, start_config
from prockd_widgets.tries import read_try

from prockd.prototypes.bank import PrototypeBank
from prockd.runs.folder import run_config, student_file
from prockd.settings.experiment import ExperimentConfig
from prockd.settings.knobs import ConfigError
from prockd.settings.method import FeatureAugmentationConfig
from prockd.settings.toml import read_config, write_config
from prockd.students.student import Student
from prockd.tasks import Classification
from prockd.teachers.teacher import Teacher
from prockd.teachers.weights import WeightsError, create_backbone
from prockd.training.adaptation import write_teacher
from prockd.training.checkpoint import load_checkpoint, save_checkpoint

TINY = {"channels": (8, 8, 16, 16), "stem_width": 8}
CARD = {"architecture": "resnet10t", "timm_kwargs": TINY, "layers": [2, 3], "image_px": 32, "mean": [0.5] * 3,
        "std": [0.5] * 3}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder, bank = tmp_path_factory.mktemp("whole"), PrototypeBank(4, 24, 8)
    augment, task = FeatureAugmentationConfig("attention"), Classification(2, ("cat", "dog"))
    student = Student("resnet10t", task, bank, feature_augmentation=augment, image_px=32, **TINY)
    student.save(folder / "student.safetensors")
    bank.save(folder / "bank.safetensors")
    write_teacher(folder / "teacher.safetensors", create_backbone("resnet10t", **TINY), None, CARD, overwrite=True)
    torch.save(create_backbone("resnet10t", **TINY).state_dict(), folder / "weights.pth")
    save_checkpoint(folder, {"model": bank}, {"steps": 10}, [{"step": 0.0, "loss": 1.5}], 4)
    write_config(ExperimentConfig(), folder / "config.toml")
    settings = Settings("best", *method_of(start_config("best")), labels_per_class=10)
    one = {"number": 1, "settings": asdict(settings), "plain": 0.5, "augmented": None, "seconds": 3.0,
           "scored_on": "abc", "resumed": 0, "step": 5, "stopped": False,
           "rows": [{"step": 0.0, "loss": 2.0}]}  # fmt: skip
    (folder / "try.json").write_text(json.dumps(one))
    return folder


def refused_or_right(path: Path, kind: type[Exception], read: Callable[[Path], object]) -> Any:
    """What a reader makes of a file; None where it is refused, in one sentence with its name."""
    try:
        return read(path)
    except kind as error:
        assert path.name in str(error), error
        assert "Traceback" not in str(error)
        return None


def run_folder(path: Path) -> object:
    return run_config(path.parent), student_file(path.parent)


RIGHT: dict[str, Callable[[Any], bool]] = {
    "student.safetensors": lambda student: student(torch.rand(1, 3, 32, 32)).logits.shape == (1, 2),
    "bank.safetensors": lambda bank: bank.assign(torch.rand(1, 3, 8)).shape == (1, 3, 4),
    "teacher.safetensors": lambda teacher: len(teacher(torch.rand(1, 3, 32, 32))) == len(teacher.layers),
    "weights.pth": lambda teacher: len(teacher(torch.rand(1, 3, 32, 32))) == len(teacher.layers),
    "checkpoint.pt": lambda told: 0 <= told[1] <= 10 and isinstance(told[0], list),
    "config.toml": lambda config: config == ExperimentConfig(**config.sections()),  # whose knobs know their ranges
    "try.json": lambda one: bool(one.row()["steps"]),
}
"""What may be asked of each kind that was read."""

READERS: dict[str, tuple[type[Exception], Callable[[Path], object]]] = {
    "student.safetensors": (WeightsError, Student.load),
    "bank.safetensors": (ValueError, PrototypeBank.load),
    "teacher.safetensors": (WeightsError, lambda path: Teacher(str(path))),
    "weights.pth": (WeightsError, lambda path: Teacher("resnet10t", weights=path, image_px=32, **TINY)),
    "checkpoint.pt": (
        ValueError, lambda path: load_checkpoint(path.parent, {"model": PrototypeBank(4, 24, 8)}, {"steps": 10}),
    ),
    "config.toml": (ConfigError, read_config),
    "try.json": (ValueError, read_try),
}  # fmt: skip


@pytest.mark.parametrize("name", READERS)
def test_bytes_that_change_are_refused_by_name_or_read_right(files, tmp_path, name):
    content = (files / name).read_bytes()

    @FEW
    @given(changes=edits)
    @example(changes=[("cut", 0.0, b"x")])
    @example(changes=[("cut", 0.5, b"x")])
    @example(changes=[("change", 0.0, b"\xff" * 8)])
    @example(changes=[("change", 1e-4, b"\0\xff")])
    def tried(changes: list[tuple[str, float, bytes]]) -> None:
        (tmp_path / name).write_bytes(mutated(content, changes))
        one = refused_or_right(tmp_path / name, *READERS[name])
        assert one is None or RIGHT[name](one)

    tried()


def test_the_files_that_the_mutations_begin_from_are_read(files):
    assert all(RIGHT[name](read(files / name)) for name, (_, read) in READERS.items())
    assert run_folder(files / "config.toml")


@pytest.mark.parametrize("name", ["student.safetensors", "teacher.safetensors"])
def test_what_a_file_of_weights_says_is_refused_by_name_or_right(files, tmp_path, name):
    with safetensors.safe_open(files / name, "pt") as file:
        told = json.loads(file.metadata()["prockd"])
    state = safetensors.torch.load_file(files / name)

    @FEW
    @given(number=st.integers(0, 200), value=values, lacks=st.booleans())
    @example(number=1, value="hf-hub:a/b", lacks=False)
    @example(number=0, value=[[]], lacks=False)
    def tried(number: int, value: Any, lacks: bool) -> None:
        card = without(told, number) if lacks else replaced(told, number, value)
        safetensors.torch.save_file(state, tmp_path / name, {"prockd": as_text(card)})
        one = refused_or_right(tmp_path / name, *READERS[name])
        assert one is None or RIGHT[name](one)

    tried()


def test_what_a_bank_says_is_refused_by_name_or_right(files, tmp_path):
    with safetensors.safe_open(files / "bank.safetensors", "pt") as file:
        told = {key: json.loads(text) for key, text in file.metadata().items()}
    state = safetensors.torch.load_file(files / "bank.safetensors")

    @MANY
    @given(number=st.integers(0, 200), value=values, lacks=st.booleans())
    @example(number=1, value=10**400, lacks=False)
    def tried(number: int, value: Any, lacks: bool) -> None:
        card = without(told, number) if lacks else replaced(told, number, value)
        metadata = {key: as_text(each) for key, each in card.items()}
        safetensors.torch.save_file(state, tmp_path / "bank.safetensors", metadata)
        bank = refused_or_right(tmp_path / "bank.safetensors", *READERS["bank.safetensors"])
        assert bank is None or bank.assign(torch.rand(1, 3, 8)).sum().isclose(torch.tensor(3.0))

    tried()


def test_what_a_try_says_is_refused_by_name_or_right(files, tmp_path):
    told = json.loads((files / "try.json").read_text())

    @MANY
    @given(number=st.integers(0, 400), value=values, lacks=st.booleans())
    def tried(number: int, value: Any, lacks: bool) -> None:
        card = without(told, number) if lacks else replaced(told, number, value)
        (tmp_path / "try.json").write_text(as_text(card))
        one = refused_or_right(tmp_path / "try.json", *READERS["try.json"])
        assert one is None or one.row()["steps"]

    tried()


@MANY
@given(section=st.sampled_from(list(ExperimentConfig().sections())), number=st.integers(0, 50), value=values)
def test_settings_are_refused_by_name_or_within_their_ranges(tmp_path, section, number, value):
    import tomlkit

    knobs = list(vars(ExperimentConfig().sections()[section]))
    try:
        text = tomlkit.dumps({section: {knobs[number % len(knobs)]: value}})
        (tmp_path / "config.toml").write_text(text, encoding="utf-8")
    except (ValueError, TypeError):  # TOML has no word for it
        return
    config = refused_or_right(tmp_path / "config.toml", ConfigError, read_config)
    assert config is None or config.sections()[section] is not None


@FEW
@given(content=st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode(errors="replace")))
def test_any_bytes_where_a_file_of_a_run_should_be_are_refused_by_name(tmp_path, content):
    for name, (kind, read) in READERS.items():
        (tmp_path / name).write_bytes(content)
        one = refused_or_right(tmp_path / name, kind, read)
        assert one is None or (name in ("config.toml", "try.json") and RIGHT[name](one))
