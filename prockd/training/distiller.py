"""Student, projector and bank as one module, and the terms of the loss on what it gives."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from prockd.datasets.transforms import recolour
from prockd.students.student import Student
from prockd.training import losses
from prockd.training.batches import Batch


@dataclass(frozen=True)
class Outputs:
    """What the terms of the loss compare; the first axis of every tensor counts images.

    Attributes:
        predictions: of the labelled images: "plain" (z), "augmented" (z+) and "teacher" (of the teacher's features).
        maps: of all images: "features" f and "u" (B, N, E), "last" and "teacher_last" (B, D_last, h, w).
    """

    predictions: dict[str, Any] = field(default_factory=dict)
    maps: dict[str, Tensor] = field(default_factory=dict)


Term = tuple[tuple[str, ...], Callable[["Distiller", dict[str, Any], Any], Tensor]]

TERMS: Mapping[str, Term] = {
    "task": (("plain",), lambda d, out, targets: d.task_loss(out["plain"], targets)),
    "augmented": (("augmented",), lambda d, out, targets: d.task_loss(out["augmented"], targets)),
    "teacher_branch": (("teacher",), lambda d, out, targets: d.task_loss(out["teacher"], targets)),
    "consistency": (
        ("plain", "augmented"), lambda d, out, _: d.student.task.consistency(out["plain"], out["augmented"])
    ),
    "assignment": (
        ("features", "u"),
        lambda d, out, _: losses.assignment_transfer(out["features"], out["u"], d.prototypes, d.temperature),
    ),
    "feature": (("features", "u"), lambda d, out, _: losses.feature_transfer(out["features"], out["u"])),
    "hint": (("last", "teacher_last"), lambda d, out, _: losses.hint(out["last"], out["teacher_last"])),
}  # fmt: skip
"""The outputs that a term reads and its value, by the name that has a knob ``<name>_weight`` (task: always 1)."""


def term_of(name: str) -> Term:
    """A term of ``TERMS``, or else the transfer that :mod:`prockd.training.losses` has by this name."""

    def transfer(d: "Distiller", out: dict[str, Any], _: Any) -> Tensor:
        value: Tensor = getattr(losses, name)(out["features"], out["u"], d.prototypes, d.temperature)
        return value

    return TERMS.get(name, (("features", "u"), transfer))


def term_names(config: Any) -> list[str]:
    """The terms that have a knob ``<name>_weight`` in a configuration, and the task's."""
    return ["task", *(f.name.removesuffix("_weight") for f in fields(config) if f.name.endswith("_weight"))]


class Distiller(nn.Module):
    """Student, projector and bank in one module, so that one forward pass gives all that the loss compares.

    Args:
        student: the student with its bank.
        weights: of each term by name, see :func:`term_of`; those of weight 0 are not computed.
        hint_width: values of a patch of the teacher's last map, which the projector gives for the hint; 0 for none.
        train_bank: whether the prototypes learn too.
        temperature: of the assignments.
        teacher_reads: what the teacher branch reads, "module" or "patches".
        label_smoothing: of the task loss.
        recoloured: share of the images that the student sees in other colours.
    """

    student: Student
    temperature: float

    def __init__(
        self,
        student: Student,
        weights: Mapping[str, float],
        *,
        hint_width: int = 0,
        train_bank: bool = False,
        temperature: float = 0.1,
        teacher_reads: str = "module",
        label_smoothing: float = 0.0,
        recoloured: float = 0.0,
    ) -> None:
        super().__init__()
        self.student, self.weights, self.train_bank = student, dict(weights), train_bank
        self.temperature, self.teacher_reads = temperature, teacher_reads
        self.label_smoothing, self.recoloured = label_smoothing, recoloured
        self.projector = nn.Conv2d(student.last_width, hint_width, 1) if hint_width else None
        if student.bank is not None:
            student.bank.requires_grad_(train_bank)

    @property
    def prototypes(self) -> Float[Tensor, "K E"]:
        """Those that are enabled."""
        bank = self.student.bank
        assert bank is not None
        return bank.prototypes[bank.enabled]

    def forward(self, batch: Batch) -> Outputs:
        """Predictions of the labelled images and maps of all."""
        student, bank, labelled = self.student, self.student.bank, batch.labelled
        output = student(recolour_some(batch.images, self.recoloured), labelled)
        predictions = {"plain": output.logits, "augmented": output.augmented_logits} if labelled else {}
        maps = {"features": output.features}
        if batch.teacher is not None and bank is not None:
            teacher = batch.teacher
            u = bank.embed(teacher) if self.train_bank else teacher.flatten(2).transpose(1, 2)  # (B, N, E)
            u = u.contiguous()  # in the student's order of memory, or backward through its maps is slow
            maps["u"] = u
            if self.weights["teacher_branch"] and labelled:
                g = bank(u[:labelled]) if self.teacher_reads == "module" else u[:labelled]
                g_plus = student.augmented(g)
                predictions["teacher"] = student.head(g if g_plus is None else g_plus)
        if batch.last is not None and self.projector is not None:
            maps |= {"last": self.projector(output.last), "teacher_last": batch.last}
        return Outputs({name: value for name, value in predictions.items() if value is not None}, maps)

    def terms(self, outputs: Outputs, targets: Any) -> dict[str, Tensor]:
        """Unweighted terms of the loss of whatever the outputs allow, by name."""
        out = outputs.predictions | outputs.maps
        return {
            name: value(self, out, targets)
            for name, (reads, value) in ((name, term_of(name)) for name, weight in self.weights.items() if weight)
            if all(key in out for key in reads)
        }

    def task_loss(self, prediction: Any, targets: Any) -> Float[Tensor, ""]:
        """Of one of the predictions."""
        return self.student.task.loss(prediction, targets, self.label_smoothing)

    def total(self, terms: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """L = task + w1 augmented + w2 teacher_branch + w3 consistency + w4 transfer (METHOD part 3)."""
        return torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()


def recolour_some(images: Float[Tensor, "B 3 H W"], share: float) -> Float[Tensor, "B 3 H W"]:
    """Random images of the batch in other colours; drawn from torch's own generator, which the step has seeded."""
    if not share:
        return images
    selected = torch.rand(len(images)).to(images.device) < share
    seeds = torch.randint(2**31, (len(images),)).tolist()
    return torch.where(selected[:, None, None, None], recolour(images, seeds), images)
