"""What an interrupted run goes on from."""

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from prockd.writing import write_file

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


def load_checkpoint(folder: Path, parts: Mapping[str, Any], settings: Mapping[str, object]) -> tuple[Rows, int]:
    """Load the last checkpoint of a run, if there is one; returns the rows of its history and the steps done.

    Raises:
        ValueError: the checkpoint is damaged, or was made with other settings (named) or for another student.
    """
    path = folder / "checkpoint.pt"
    if not path.is_file():
        return [], 0
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}); remove it to start the run again") from error
    changed = {k: (v, settings.get(k)) for k, v in state["config"].items() if v != settings.get(k)}
    if changed:
        changes = ", ".join(f"{k} was {old}, is {new}" for k, (old, new) in changed.items())
        raise ValueError(f"{path} was made with other settings ({changes}); use the same ones or another run_dir")
    try:
        for name, part in parts.items():
            part.load_state_dict(state[name])
    except (KeyError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path} belongs to another student; use the same one or another run_dir") from error
    return state["rows"], int(state["step"])
