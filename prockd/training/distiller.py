"""Student, projector and bank as one module, and the terms of the loss on what it gives."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from prockd.datasets.transforms import recolour
from prockd.devices import full_precision
from prockd.students.student import Student
from prockd.training import losses
from prockd.training.batches import Batch, patches_of
from prockd.training.gradient_share import GradientShare
from prockd.training.rivals import Rival

TASK_TERMS = ("task", "augmented", "teacher_branch", "consistency")
"""Terms that labels are needed for; the others are the teacher's."""

OTHER_TERMS = (*TASK_TERMS, "soft", "hint", "rival")
"""Terms that are no transfer of patches: a further weight is that of a function of :mod:`prockd.training.losses`."""


class Distiller(nn.Module):
    """Student, projector and bank in one module, so that one forward pass gives all that the loss compares.

    Args:
        student: the student with its bank.
        weights: of each term by name, see ``OTHER_TERMS``; those of weight 0 are not computed.
        hint_width: values of a patch of the teacher's last map, which the projector gives for the hint; 0 for none.
        rival: what compares the student's patches with the teacher's own.
        gradient_share: of the teacher's terms, see :class:`GradientShare`; 0 for the weights as they are.
        train_bank: whether the prototypes learn too.
        temperature: of the assignments.
        teacher_reads: what the teacher branch reads, "module" or "patches".
        label_smoothing: of the task loss.
        recoloured: share of the images that the student sees in other colours.
        reading: of the teacher's patches, whose predictions are soft targets; None for none.
    """

    enabled: Tensor

    def __init__(
        self,
        student: Student,
        weights: Mapping[str, float],
        *,
        hint_width: int = 0,
        rival: Rival | None = None,
        gradient_share: float = 0.0,
        train_bank: bool = False,
        temperature: float = 0.1,
        teacher_reads: str = "module",
        label_smoothing: float = 0.0,
        recoloured: float = 0.0,
        reading: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.student, self.weights, self.train_bank = student, dict(weights), train_bank
        self.temperature, self.teacher_reads = temperature, teacher_reads
        self.label_smoothing, self.recoloured = label_smoothing, recoloured
        self.reading = [] if reading is None else [reading.eval()]  # in a list: no part of what learns here
        self.quick_parameters: list[nn.Parameter] = []  # learn quick_rate times as fast as the others
        self.quick_rate = 1.0
        self.projector = nn.Conv2d(student.last_width, hint_width, 1) if hint_width else None
        self.rival = rival
        self.share = GradientShare(gradient_share) if gradient_share else None
        if student.bank is not None:
            student.bank.requires_grad_(train_bank)
            # numbers, since to read switches of a GPU is to wait for it
            self.register_buffer("enabled", torch.nonzero(student.bank.enabled).flatten(), persistent=False)

    def forward(self, batch: Batch) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What the terms compare: predictions of the labelled images by their term, and maps of all images.

        "soft" is what the reading predicts; with it come "more_task" and "more_soft" of the unlabelled images. Maps are
        each transfer (B,), the mean of these images in each of them, and what rivals and hints compare: "features" f
        (B, N, E), "teacher" (B, N, D), "last" and "teacher_last" (B, D_last, h, w).
        """
        student, bank, labelled = self.student, self.student.bank, batch.labelled
        output = student(recolour_some(batch.images, self.recoloured), 0)
        # split, whose gradients are joined in one copy: slices would each make a whole map of zeros
        own, *more = output.features.split((labelled, len(output.features) - labelled))
        predictions = {"task": student.head(own), "augmented": student.read_augmented(own)} if labelled else {}
        maps: dict[str, Tensor] = {}
        if batch.teacher is not None and (self.rival is not None or self.share is not None):
            maps["features"] = output.features
        if batch.teacher is not None and self.rival is not None:
            maps["teacher"] = patches_of(batch)
        if batch.teacher is not None and bank is not None:
            embeds = self.train_bank or self.rival is not None  # else the patches are in its space already
            u = bank.embed(batch.teacher) if embeds else patches_of(batch)  # (B, N, E)
            compared = output.features.float(), u.float(), bank.prototypes[self.enabled], self.temperature
            with full_precision(u.device):  # of own images: other processes are sent no map
                transfers = {
                    n: getattr(losses, n)(*compared) for n, w in self.weights.items() if w and n not in OTHER_TERMS
                }
            maps |= {name: value.expand(len(u)) for name, value in transfers.items()}
            if self.weights["teacher_branch"] and labelled:
                g = bank(u[:labelled]) if self.teacher_reads == "module" else u[:labelled]
                g_plus = student.augmented(g)
                predictions["teacher_branch"] = student.head(g if g_plus is None else g_plus)
            for reading in self.reading if labelled else ():  # soft targets come from labels, if by a detour
                with torch.no_grad():  # a part at a time: some predictions cannot be cut or joined
                    parts = {"soft": reading(u[:labelled])}
                    parts |= {"more_soft": reading(u[labelled:])} if labelled < len(u) else {}
                predictions |= parts
                if labelled < len(u):
                    predictions["more_task"] = student.head(more[0])
        if batch.last is not None and self.projector is not None:
            maps |= {"last": self.projector(output.last), "teacher_last": batch.last}
        return {name: value for name, value in predictions.items() if value is not None}, maps

    def terms(self, predictions: dict[str, Any], maps: dict[str, Tensor], targets: Any) -> dict[str, Tensor]:
        """Unweighted terms of the loss by name: all that have a weight and what they compare."""
        task, wanted = self.student.task, [name for name, w in self.weights.items() if w]
        terms = {n: task.loss(predictions[n], targets, self.label_smoothing) for n in wanted if n in predictions}
        if "consistency" in wanted and "augmented" in predictions:
            terms["consistency"] = task.consistency(predictions["task"], predictions["augmented"])
        if "soft" in wanted:
            pairs = [(predictions[more + "task"], predictions[more + "soft"]) for more in ("", "more_")
                     if more + "soft" in predictions]  # fmt: skip
            if pairs:
                total = sum(len(z) for z, _ in pairs)
                terms["soft"] = torch.stack([len(z) / total * task.consistency(z, z_t) for z, z_t in pairs]).sum()
        terms |= {name: maps[name].mean() for name in wanted if name in maps}
        if "hint" in wanted and "last" in maps:
            terms["hint"] = losses.hint(maps["last"], maps["teacher_last"])
        if "rival" in wanted and self.rival is not None and "teacher" in maps:
            terms["rival"] = self.rival(maps["features"], maps["teacher"])
        return terms

    def total(self, terms: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """L = task + w1 augmented + w2 teacher_branch + w3 consistency + w4 transfer + soft (METHOD part 3)."""
        return weighted(terms, {**self.weights, **self.chosen_weights(terms)})

    def measure(
        self, terms: Mapping[str, Tensor], patches: Tensor, average: Callable[[Sequence[Tensor]], None]
    ) -> None:
        """Let the gradient share, if there is one, see a step that has terms of both sides."""
        task = {name: term for name, term in terms.items() if name in TASK_TERMS}
        teacher = {name: term for name, term in terms.items() if name not in TASK_TERMS}
        if self.share is not None and task and teacher:
            self.share.measure(weighted(task, self.weights), weighted(teacher, self.weights), patches, average)

    def chosen_weights(self, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights that the gradient share gives the teacher's terms; none where they are fixed."""
        if self.share is None:
            return {}
        return {name: self.share.factor * self.weights[name] for name in terms if name not in TASK_TERMS}


def weighted(terms: Mapping[str, Tensor], weights: Mapping[str, float | Tensor]) -> Float[Tensor, ""]:
    """The sum of terms by their weights."""
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()


def recolour_some(images: Float[Tensor, "B 3 H W"], share: float) -> Float[Tensor, "B 3 H W"]:
    """Random images of the batch in other colours; drawn from torch's own generator, which the step has seeded."""
    if not share:
        return images
    selected = torch.rand(len(images)).to(images.device, non_blocking=True) < share
    seeds = torch.randint(2**31, (len(images),)).tolist()
    return torch.where(selected[:, None, None, None], recolour(images, seeds), images)


@contextmanager
def compiled(student: Student, how: str) -> Iterator[None]:
    """Inside, a student's backbone runs as ``torch.compile`` made it; "no" leaves it."""
    if how != "no":
        student._maps = torch.compile(student._maps, mode=how)  # type: ignore[method-assign]
    try:
        yield
    finally:
        if how != "no":
            del student._maps  # the method is there again
