"""The one training loop, its losses and what a step reads."""

from prockd.training.adaptation import Adapted as Adapted
from prockd.training.adaptation import adapt as adapt
from prockd.training.loop import History as History
from prockd.training.loop import NonFiniteLossError as NonFiniteLossError
from prockd.training.loop import distill as distill
