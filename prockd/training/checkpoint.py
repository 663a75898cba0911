"""What an interrupted run goes on from."""

import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prockd.settings.method import DistillConfig


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    config: DistillConfig,
    rows: list[dict[str, float]],
    step: int,
) -> None:
    """Write everything a resumed run needs, in one rename, and the rows of its history as JSON lines."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        "model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step,
        "config": dataclasses.asdict(config), "rows": rows,
    }  # fmt: skip
    fresh = folder / "checkpoint.new"
    torch.save(state, fresh)
    fresh.replace(folder / "checkpoint.pt")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def load_checkpoint(
    folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer, config: DistillConfig
) -> tuple[list[dict[str, float]], int]:
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
    changed = {k: (v, getattr(config, k)) for k, v in state["config"].items() if v != getattr(config, k)}
    if changed:
        what = ", ".join(f"{k} was {old}, is {new}" for k, (old, new) in changed.items())
        raise ValueError(f"{path} was made with other settings ({what}); use the same ones or another run_dir")
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise ValueError(f"{path} belongs to another student; use the same one or another run_dir") from error
    optimiser.load_state_dict(state["optimiser"])
    return state["rows"], int(state["step"])
