"""What an interrupted run goes on from."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from prockd.teachers.weights import values_flaw
from prockd.untrusted import TABLE, RefusedError, Rule, fields, reading, whole
from prockd.writing import write_file


def _is_row(row: Any) -> bool:
    """Whether it has numbers by name; a loss that was not finite is one too."""
    numbers = row.values() if isinstance(row, dict) else [None]
    return all(isinstance(value, int | float) for value in numbers) and all(isinstance(name, str) for name in row)


FILE_FIELDS = {
    "step": whole(0, 10**9), "config": TABLE,
    "rows": Rule("rows of numbers", lambda rows: isinstance(rows, list) and all(map(_is_row, rows))),
}  # fmt: skip
"""What a checkpoint holds beside its parts."""

Rows = list[dict[str, float]]


def save_checkpoint(
    folder: Path, parts: Mapping[str, Any], settings: Mapping[str, object], rows: Rows, step: int
) -> None:
    """Write everything a resumed run needs, whole, and the rows of its history as JSON lines.

    Args:
        folder: made when missing.
        parts: "model", and what else has a ``state_dict``.
        settings: what must be the same when the run goes on.
        rows: of the history.
        step: steps done.
    """
    state = {name: part.state_dict() for name, part in parts.items()}
    state |= {"step": step, "config": dict(settings), "rows": rows}
    write_file(folder / "checkpoint.pt", lambda path: torch.save(state, path))
    write_file(folder / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def load_checkpoint(folder: Path, parts: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[Rows, int]:
    """Load the last checkpoint of a run, if there is one; returns the rows of its history and the steps done.

    Raises:
        ValueError: the checkpoint is damaged, or was made with other settings (named) or for another student.
    """
    path = folder / "checkpoint.pt"
    if not path.is_file():
        return [], 0
    with reading(path, "a checkpoint", ValueError, "remove it to start the run again"):
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
        fields(state, dict.fromkeys(state, TABLE) | FILE_FIELDS)
        if state["step"] > settings.get("steps", state["step"]):
            raise RefusedError(f"step {state['step']} is beyond the last one")
        if flaw := values_flaw(state["model"]):
            raise RefusedError(flaw)
        with zipfile.ZipFile(path) as parts_in_file:  # torch compares no checksum of what it reads
            if damaged := parts_in_file.testzip():
                raise RefusedError(f"the checksum of its part {damaged} is another")
    changed = {k: (v, settings.get(k)) for k, v in state["config"].items() if v != settings.get(k)}
    if changed:
        changes = ", ".join(f"{k} was {old}, is {new}" for k, (old, new) in changed.items())
        raise ValueError(f"{path} was made with other settings ({changes}); use the same ones or another run_dir")
    try:
        for name, part in parts.items():
            part.load_state_dict(state[name])
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} belongs to another student; use the same one or another run_dir") from error
    return state["rows"], int(state["step"])
