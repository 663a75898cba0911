"""The one training loop, its losses and what a step reads."""

from prockd.training.loop import History as History
from prockd.training.loop import NonFiniteLossError as NonFiniteLossError
from prockd.training.loop import distill as distill
