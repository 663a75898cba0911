"""The weight of the teacher's terms by rule: which share of the gradient they shall have."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

MEASURED_STEPS = 50
"""Steps over which gradients are measured; then the weight stays."""


class GradientShare(nn.Module):
    """One factor for all of the teacher's terms, so that their gradient is a share of the sum of both lengths.

    With g_task and g_teacher the mean lengths of the gradients, factor = share / (1 - share) * g_task / g_teacher. They
    are measured at the student's patches f, through which every term reaches the backbone: only head and projector lie
    between, so it costs two short backward passes, where shared weights would cost two whole ones. Until
    ``MEASURED_STEPS`` the means are those so far. All that is measured is in checkpoints.

    Args:
        share: 0..1, both excluded.
    """

    lengths: Float[Tensor, "2"]
    steps: Tensor

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.register_buffer("lengths", torch.zeros(2))  # sums over steps: of the task's gradient, of the teacher's
        self.register_buffer("steps", torch.tensor(0))

    @property
    def factor(self) -> Float[Tensor, ""]:
        """What the weights of the teacher's terms are multiplied with; 1 before anything is measured."""
        task, teacher = self.lengths
        ratio = self.share / (1 - self.share) * task / teacher
        return torch.where((task > 0) & (teacher > 0), ratio, torch.ones_like(ratio))

    def measure(
        self,
        task: Float[Tensor, ""],
        teacher: Float[Tensor, ""],
        patches: Tensor,
        average: Callable[[Sequence[Tensor]], None],
    ) -> None:
        """Count one step's gradients of the two parts of the loss; nothing once there are enough.

        Args:
            task: weighted sum of the task's terms, scaled like the other where gradients are of half precision.
            teacher: the same of the teacher's terms, with their fixed weights.
            patches: f.
            average: over processes; squares of lengths are averaged, since each process has a share of the patches.
        """
        if int(self.steps) >= MEASURED_STEPS:
            return
        gradients = [
            torch.autograd.grad(part, patches, retain_graph=True, allow_unused=True)[0] for part in (task, teacher)
        ]
        squares = torch.stack(
            [self.lengths.new_zeros(()) if g is None else g.float().square().sum() for g in gradients]
        )
        average([squares])
        if squares.isfinite().all():  # a scaler of half precision may start too high
            self.lengths += squares.sqrt()
            self.steps += 1
