"""The one training loop: plain students, distilled students and the farmyard teacher all learn here."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from jaxtyping import Float
from torch import Tensor, nn
from tqdm.auto import tqdm

from prockd._types import ImageDataset
from prockd.datasets import PackedImages, pack
from prockd.datasets.transforms import recolour
from prockd.evaluation.scores import Scores, evaluate
from prockd.settings.method import DistillConfig
from prockd.students.student import Student
from prockd.teachers.features import PatchFeatures
from prockd.training import losses
from prockd.training.batches import Batch, Source, check_sources, joined, shuffled
from prockd.training.checkpoint import load_checkpoint, save_checkpoint


class NonFiniteLossError(FloatingPointError):
    """The loss became NaN or infinite; the message names the step, the terms and the images of the batch."""


@dataclass
class History:
    """What happened in training.

    Attributes:
        rows: one dict a logged step: ``step``, ``lr``, ``seconds`` since the start, and each loss term.
        scores: of the last step on the validation images; None without them.
        step: optimiser steps done.
        stopped: True when a callback ended the run early.
        seconds_per_step: mean wall time.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    scores: Scores | None = None
    step: int = 0
    stopped: bool = False
    seconds_per_step: float = 0.0

    def curve(self, term: str) -> tuple[list[float], list[float]]:
        """Steps and values of one column, such as ``"task"`` or ``"assignment"``."""
        rows = [row for row in self.rows if term in row]
        return [row["step"] for row in rows], [row[term] for row in rows]

    def __repr__(self) -> str:
        end = ", stopped early" if self.stopped else ""
        return f"History({self.step} steps, {self.seconds_per_step * 1e3:.0f} ms each{end}; {self.scores})"


Callback = Callable[[int, dict[str, float]], bool | None]
"""Called with the step and the latest row; returning True stops the run and keeps the result so far."""


class Distiller(nn.Module):
    """Student, projector and bank in one module, so that one forward pass gives every term of the loss."""

    def __init__(self, student: Student, config: DistillConfig, teacher_last_width: int | None) -> None:
        super().__init__()
        self.student, self.config = student, config
        self.projector = nn.Conv2d(student.last_width, teacher_last_width, 1) if teacher_last_width else None
        if student.bank is not None:
            student.bank.requires_grad_(config.train_bank)

    def forward(self, batch: Batch, label_free: bool) -> dict[str, Tensor]:
        """Unweighted terms of the loss, by the name of their weight in :class:`DistillConfig`."""
        config, student, bank, task = self.config, self.student, self.student.bank, self.student.task
        labelled = 0 if label_free else len(batch.targets)
        output = student(recolour_some(batch.images, config.recoloured), labelled)
        terms: dict[str, Tensor] = {}
        if batch.teacher is not None and bank is not None:
            teacher = batch.teacher
            u = bank.embed(teacher) if config.train_bank else teacher.flatten(2).transpose(1, 2)  # (B, N, E)
            u = u.contiguous()  # in the student's order of memory, or backward through its maps is slow
            if config.assignment_weight:
                terms["assignment"] = losses.assignment_transfer(
                    output.features, u, bank.prototypes[bank.enabled], config.temperature
                )
            if config.feature_weight:
                terms["feature"] = losses.feature_transfer(output.features, u)
            if config.teacher_branch_weight and labelled:
                g = bank(u[:labelled]) if config.teacher_reads == "module" else u[:labelled]
                g_plus = student.augmented(g)
                read = g if g_plus is None else g_plus
                terms["teacher_branch"] = task.loss(student.head(read), batch.targets, config.label_smoothing)
        if batch.last is not None and self.projector is not None:
            terms["hint"] = losses.hint(self.projector(output.last), batch.last)
        if labelled:
            terms["task"] = task.loss(output.logits, batch.targets, config.label_smoothing)
            if output.augmented_logits is not None:
                if config.augmented_weight:
                    terms["augmented"] = task.loss(output.augmented_logits, batch.targets, config.label_smoothing)
                if config.consistency_weight:
                    terms["consistency"] = task.consistency(output.logits, output.augmented_logits)
        return terms


def recolour_some(images: Float[Tensor, "B 3 H W"], share: float) -> Float[Tensor, "B 3 H W"]:
    """Random images of the batch in other colours; drawn from torch's own generator, which the step has seeded."""
    if not share:
        return images
    generator = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
    chosen = (torch.rand(len(images), generator=generator) < share).to(images.device)
    return torch.where(chosen[:, None, None, None], recolour(images, generator), images)


def total_loss(terms: dict[str, Tensor], config: DistillConfig) -> Tensor:
    """L = task + w1 augmented + w2 teacher_branch + w3 consistency + w4 transfer (METHOD part 3)."""
    return torch.stack(
        [term * (1.0 if name == "task" else getattr(config, f"{name}_weight")) for name, term in terms.items()]
    ).sum()


def learning_rate(step: int, config: DistillConfig) -> float:
    """Linear warm-up, then half a cosine down to 0."""
    warm = max(1, round(config.warmup * config.steps))
    if step < warm:
        return config.lr * (step + 1) / warm
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, config.steps - warm)))


def distill(
    student: Student,
    dataset: ImageDataset | PackedImages,
    *,
    features: PatchFeatures | None = None,
    unlabelled: PatchFeatures | None = None,
    config: DistillConfig | None = None,
    val: ImageDataset | PackedImages | None = None,
    run_dir: str | Path | None = None,
    resume: bool = False,
    callbacks: tuple[Callback, ...] = (),
    log_every: int = 10,
    checkpoint_every: int = 200,
    cpu: bool = False,
    progress: bool = True,
) -> History:
    """Train a student on its task, with or without a teacher; the student is changed in place.

    Args:
        student: what to train. Its bank is frozen unless ``config.train_bank``.
        dataset: labelled images of the task.
        features: a teacher's, of the same images in the same order; without them the student learns from labels alone.
        unlabelled: features of more images, used for transfer only.
        config: every knob.
        val: images scored once, after the last step.
        run_dir: where config, metrics and checkpoints are written.
        resume: go on from the last checkpoint in ``run_dir``; ends in the same weights as an uninterrupted run.
        callbacks: called at each logged step.
        log_every: steps between rows of the history.
        checkpoint_every: steps between checkpoints.
        cpu: stay on the CPU even where there is a GPU.
        progress: show a progress bar.

    Raises:
        ValueError: labels outside the task, teacher features of other images, or terms that need a missing bank.
        NonFiniteLossError: the loss is not finite; the last good checkpoint is kept.
    """
    config = config or DistillConfig()
    size = features.images.image_px if features is not None else student.image_px
    images = dataset if isinstance(dataset, PackedImages) else pack(dataset, size, progress=progress)
    check_sources(student, images, features, unlabelled, config)
    accelerator = fresh_accelerator(config.mixed_precision, cpu=cpu)
    torch.manual_seed(config.seed)
    device = accelerator.device
    bank = student.bank
    labelled_source = Source(images, features, bank, config, student.task)
    extra_source = (
        Source(unlabelled.images, unlabelled, bank, config) if unlabelled and config.unlabelled_batch else None
    )
    hint_width = features.maps[-1].shape[2] if features and config.hint_weight else None
    distiller = Distiller(student, config, hint_width)
    parameters = [p for p in distiller.parameters() if p.requires_grad]
    decayed, plain = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}], lr=config.lr
    )
    model, optimiser = accelerator.prepare(distiller, optimiser)
    folder = Path(run_dir) if run_dir is not None else None
    history = History()
    if folder and resume:
        history.rows, history.step = load_checkpoint(folder, distiller, optimiser, config)
    first = history.step
    student.train()
    began, spent = time.perf_counter(), history.rows[-1]["seconds"] if history.rows else 0.0
    labelled_order = shuffled(len(images), config.batch_size, config.seed, first)
    extra_order = shuffled(len(unlabelled or ()) or 1, max(1, config.unlabelled_batch), config.seed + 1, first)
    bar = tqdm(range(first, config.steps), initial=first, total=config.steps, desc="student", unit="step",
               disable=not progress or not accelerator.is_local_main_process)  # fmt: skip
    for step in bar:
        indices, extra = next(labelled_order), next(extra_order)
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        share = slice(accelerator.process_index, None, accelerator.num_processes)
        crops = labelled_source.crops(len(indices), generator)
        batch = labelled_source.batch(indices[share], crops[share], student, device)
        if extra_source is not None:
            crops = extra_source.crops(len(extra), generator)
            batch = joined(batch, extra_source.batch(extra[share], crops[share], student, device))
        # whatever the model draws (dropout, drop path) depends on the step alone, so a resumed run draws the same
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)) + accelerator.process_index)
        rate = learning_rate(step, config)
        for group in optimiser.param_groups:
            group["lr"] = rate
        terms = model(batch, step < config.label_free_steps)
        loss = total_loss(terms, config)
        bad = None if torch.isfinite(loss) else f"the loss is {float(loss.detach())}"
        if bad is None:
            optimiser.zero_grad()
            accelerator.backward(loss)
            norm = accelerator.clip_grad_norm_(parameters, 5.0)
            if config.mixed_precision != "fp16" and not torch.isfinite(norm):  # with fp16 the scaler skips such a step
                bad = f"the loss is {float(loss.detach()):.3g} and its gradient {float(norm)}"
        if bad is not None:
            told = ", ".join(f"{name} {float(term.detach()):.3g}" for name, term in terms.items())
            kept = f" The last good checkpoint is in {folder}." if folder else ""
            raise NonFiniteLossError(
                f"{bad} at step {step} ({told}); lower lr (now {rate:.2g}) or look at the images "
                f"of this batch: {', '.join(images.ids[i] for i in indices)}.{kept}"
            )
        optimiser.step()
        history.step = step + 1
        last = history.step == config.steps
        if step % log_every == 0 or last:
            row = {
                "step": float(step),
                "lr": rate,
                "seconds": spent + time.perf_counter() - began,
                "loss": float(loss.detach()),
            }
            row |= {name: float(term.detach()) for name, term in terms.items()}
            history.rows.append(row)
            bar.set_postfix({k: f"{v:.3f}" for k, v in row.items() if k in ("loss", "task")})
            history.stopped = any([callback(step, row) for callback in callbacks])
        if folder and accelerator.is_main_process and (history.step % checkpoint_every == 0 or last or history.stopped):
            save_checkpoint(folder, distiller, optimiser, config, history.rows, history.step)
        if history.stopped:
            break
    bar.close()
    history.seconds_per_step = (time.perf_counter() - began) / max(1, history.step - first)
    accelerator.wait_for_everyone()
    if accelerator.num_processes > 1:  # each process counted its own images in its batch norms
        for buffer in distiller.buffers():
            torch.distributed.broadcast(buffer, src=0)
    if val is not None:
        history.scores = evaluate(student, val if isinstance(val, PackedImages) else pack(val, student.image_px))
    student.eval()
    return history


def fresh_accelerator(mixed_precision: str, *, cpu: bool) -> Accelerator:
    """An Accelerator of these settings, whatever an earlier run of the same process used.

    accelerate keeps the settings of the first one for the whole process and refuses others, which no notebook could
    live with. Processes that are connected stay so.
    """
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    return Accelerator(
        mixed_precision=mixed_precision,
        cpu=cpu,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
