"""A command of prockd with small shards, which counts the images that its teacher sees for them: ``FOLDER WORDS...``.

``FOLDER/RANK.seen`` keeps the count of what comes before the steps. With ``KILL=RANK:COUNT`` a process that has seen so
many kills itself, after it has made ``FOLDER/killed``.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from prockd.cli import app
from prockd.runs import run
from prockd.teachers import stored
from prockd.teachers.teacher import Teacher

forward, seen, rank = Teacher.forward, list[int](), os.environ.get("RANK", "0")
doomed, _, most = os.environ.get("KILL", "").partition(":")


def counted(self: Teacher, images: torch.Tensor) -> list[torch.Tensor]:
    """The teacher's pass."""
    seen.append(len(images) if filling else 0)
    if doomed == rank and sum(seen) > int(most):
        (folder / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return forward(self, images)


def filled(*given: Any) -> None:
    """Shards, and none of the passes beside them."""
    filling.append(True)
    make(*given)
    filling.pop()


def told(*args: object, **how: object) -> object:
    """The steps, after what came before."""
    (folder / f"{rank}.seen").write_text(str(sum(seen)))
    return trained(*args, **how)


if __name__ == "__main__":
    folder, trained = Path(sys.argv.pop(1)), run.trained
    folder.mkdir(exist_ok=True)
    filling, make = list[bool](), stored._make
    stored.SHARD, stored._make, Teacher.forward, run.trained = 4, filled, counted, told  # type: ignore[assignment,method-assign]
    torch.set_num_threads(1)
    app()
