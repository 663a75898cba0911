"""What a run of the loop says: its rows and scores, and the loss that is no number."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from prockd.evaluation.scores import Scores
from prockd.settings.method import ClusterConfig, DistillConfig
from prockd.training.checkpoint import Rows


class NonFiniteLossError(FloatingPointError):
    """The loss became NaN or infinite; the message names the step, the terms and the images of the batch."""


@dataclass
class History:
    """What happened in training."""

    rows: Rows = field(default_factory=list)  # one a logged step: step, lr, seconds since the start, loss and its terms
    scores: Scores | None = None  # of the last step on the validation images
    step: int = 0  # optimiser steps done
    precision: str = "no"  # of the passes: "no" for single, "bf16" or "fp16"
    stopped: bool = False  # a callback ended the run early

    def curve(self, term: str) -> tuple[list[float], list[float]]:
        """Steps and values of one column, such as ``"task"`` or ``"assignment"``."""
        rows = [row for row in self.rows if term in row]
        return [row["step"] for row in rows], [row[term] for row in rows]

    @property
    def seconds_per_step(self) -> float:
        """Mean wall time of all logged steps, also of those before a stop; 0 without any."""
        return self.rows[-1]["seconds"] / (self.rows[-1]["step"] + 1) if self.rows else 0.0

    def __repr__(self) -> str:
        end = ", stopped early" if self.stopped else ""
        how = "" if self.precision == "no" else f" in {self.precision}"
        return f"History({self.step} steps{how}, {self.seconds_per_step * 1e3:.0f} ms each{end}; {self.scores})"


Callback = Callable[[int, dict[str, float]], bool | None]
"""Called with the step and the latest row; returning True stops the run and keeps the result so far."""


def learning_rate(step: int, config: DistillConfig | ClusterConfig) -> float:
    """Linear warm-up, then half a cosine down to 0."""
    warm = max(1, round(config.warmup * config.steps))
    if step < warm:
        return config.lr * (step + 1) / warm
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, config.steps - warm)))
