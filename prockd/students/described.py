"""What a student's file may say of the student, which it is then made of: nothing else is believed."""

from collections.abc import Callable, Mapping
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any

from torch import Tensor

from prockd.prototypes.bank import PrototypeBank, check_switches
from prockd.tasks import TASKS
from prockd.tasks.task import Task
from prockd.teachers.weights import WeightsError
from prockd.untrusted import (
    ANYTHING,
    FLAG,
    NOTHING,
    TABLE,
    Rule,
    fields,
    list_of,
    number,
    one_of,
    text,
    whole,
)

_MAX_CLASSES = 65_536
FILE_FIELDS = {
    "kind": one_of(["student"]), "backbone": text(200, least=1), "timm_kwargs": TABLE,
    "layers": list_of(whole(0, 1000), 64, least=1), "grid": whole(1, 512), "image_px": whole(8, 4096),
    "embed_dim": whole(1, 4096), "task": TABLE, "feature_augmentation": NOTHING | TABLE, "bank": NOTHING | TABLE,
}  # fmt: skip
"""The fields of the file; none may be missing."""
_TASK_FIELDS = {
    "num_classes": whole(1, _MAX_CLASSES), "classes": list_of(text(), _MAX_CLASSES), "num_levels": whole(1, 16),
    "class_weights": list_of(number(0, 1e9), _MAX_CLASSES), "width": whole(8, 4096),
}  # fmt: skip
_OF_TYPE = {bool: FLAG, int: whole(0, 1_000_000), float: number(0, 1e6), str: text()}
_PLAIN = NOTHING | FLAG | number() | text()


def described_task(path: Path, told: Any) -> Task:
    """The task that a file describes, of those in ``TASKS``; RefusedError for a field or value that it has not."""
    fields(told, {"kind": text(200, least=1), "fields": TABLE}, where="task")
    kind = told["kind"]
    if kind not in TASKS:
        raise WeightsError(f"{path} was trained for a task {kind!r} of its own: pass it as Student.load(..., task=)")
    rules = {f.name: _TASK_FIELDS.get(f.name) or _rule_like(f.default) for f in dataclass_fields(TASKS[kind])}
    values = fields(told["fields"], rules, optional=set(rules) - {"num_classes"}, where="task")
    make: Callable[..., Task] = TASKS[kind]
    return make(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _rule_like(default: Any) -> Rule:
    """What a field of a task may be that has this default."""
    return _OF_TYPE.get(type(default), _PLAIN | list_of(_PLAIN, _MAX_CLASSES))


def described_bank(told: Any, state: Mapping[str, Tensor]) -> PrototypeBank:
    """The bank, still empty, that a student's file describes; RefusedError for one that no bank is."""
    fields(told, {"options": TABLE, "names": ANYTHING}, where="bank")
    check_switches(state, "bank.")
    return PrototypeBank.described(told["options"], told["names"], state, "bank.")
