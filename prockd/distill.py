"""The one training loop: plain students, distilled students and the farmyard teacher all learn here."""

import dataclasses
import json
import math
import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import roi_align
from tqdm.auto import tqdm

from prockd import losses
from prockd._types import UNLABELLED, ImageDataset
from prockd.config import DistillConfig
from prockd.datasets import PackedImages, pack
from prockd.features import PatchFeatures, fuse_layers, to_unit
from prockd.prototypes import PrototypeBank
from prockd.student import Scores, Student, evaluate


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


@dataclass(frozen=True)
class Batch:
    """One step's images, cropped, and what the teacher says of the same crops."""

    images: Tensor  # (B, 3, H, W)
    labels: Tensor  # (B,), UNLABELLED where no task loss applies
    teacher: Tensor | None = None  # (B, D or E, h, w) teacher patches on the student's grid
    last: Tensor | None = None  # (B, D_last, h, w) teacher's last map on the student's last grid


class Source:
    """Random crops of packed images with the same crops of the teacher's cached maps.

    Mirror images are read from the cache's second view: the features of a mirrored image are not mirrored features.
    """

    def __init__(
        self, images: PackedImages, features: PatchFeatures | None, bank: PrototypeBank | None, config: DistillConfig
    ) -> None:
        self.images, self.features = images, features
        self.flip = config.flip and (features is None or features.num_views >= 2)
        self.min_crop = config.min_crop
        self.labels = torch.from_numpy(np.array(images.labels))
        self.embedded: Tensor | None = None
        if features is not None and bank is not None and not config.train_bank:
            self.embedded = embed_all(bank, features)
        self.wants_last = features is not None and config.hint > 0

    def crops(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(count, 4) boxes x0 y0 x1 y1 in 0..1 and (count,) views."""
        area = torch.empty(count).uniform_(self.min_crop, 1, generator=generator)
        ratio = torch.empty(count).uniform_(math.log(3 / 4), math.log(4 / 3), generator=generator).exp()
        width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
        x, y = torch.rand(2, count, generator=generator)
        x, y = x * (1 - width), y * (1 - height)
        view = (torch.rand(count, generator=generator) < 0.5).long() * int(self.flip)
        return torch.stack([x, y, x + width, y + height], 1), view

    def batch(self, indices: np.ndarray, boxes: Tensor, views: Tensor, student: Student, device: torch.device) -> Batch:
        """Crop images and teacher maps at the same places."""
        pixels = torch.from_numpy(np.array(self.images.pixels[indices])).to(device).float()
        mirrored = views.to(device).bool()
        pixels = torch.where(mirrored[:, None, None, None], pixels.flip(3), pixels)
        boxes = boxes.to(device)
        images = to_unit(crop(pixels, boxes, (student.image_px, student.image_px)))
        teacher = last = None
        if self.features is not None:
            view = views.numpy()
            if self.embedded is not None:
                teacher = self.embedded[torch.from_numpy(indices), views]
            else:
                maps = [torch.from_numpy(m[indices, view]).float() for m in self.features.maps]
                teacher = fuse_layers(maps, self.features.grid)
            teacher = crop(teacher.to(device).float(), boxes, student.grid)
            if self.wants_last:
                last = crop(
                    torch.from_numpy(self.features.maps[-1][indices, view]).to(device).float(), boxes, student.last_grid
                )
        return Batch(images, self.labels[torch.from_numpy(indices)].to(device), teacher, last)


def crop(maps: Float[Tensor, "B C H W"], boxes: Float[Tensor, "B 4"], size: tuple[int, int]) -> Tensor:
    """Cut the box (0..1) out of each map and resample it to ``size``, averaging where it shrinks."""
    height, width = maps.shape[2:]
    scale = boxes.new_tensor([width, height, width, height])
    index = torch.arange(len(boxes), device=boxes.device, dtype=boxes.dtype)[:, None]
    cut: Tensor = roi_align(maps, torch.cat([index, boxes * scale], 1), size, aligned=True)
    return cut


@torch.no_grad()
def embed_all(bank: PrototypeBank, features: PatchFeatures, *, chunk: int = 128) -> Float[Tensor, "M V E h w"]:
    """U of every image and view in half precision: with a frozen bank it need not be computed in each step."""
    bank.check(features)
    h, w = features.grid
    out = torch.empty(len(features), features.num_views, bank.embed_dim, h, w, dtype=torch.float16)
    for start in range(0, len(features), chunk):
        indices = np.arange(start, min(start + chunk, len(features)))
        for view in range(features.num_views):
            u = bank.embed(features.fused(indices, view).to(bank.prototypes.device))
            out[indices, view] = u.transpose(1, 2).reshape(len(indices), -1, h, w).half().cpu()
    return out


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
        output = student(batch.images)
        terms: dict[str, Tensor] = {}
        known = batch.labels != UNLABELLED
        if batch.teacher is not None and bank is not None:
            teacher = batch.teacher
            u = bank.embed(teacher) if config.train_bank else teacher.flatten(2).transpose(1, 2)  # (B, N, E)
            if config.assignment:
                terms["assignment"] = losses.assignment_transfer(
                    output.features, u, bank.prototypes[bank.enabled], config.temperature
                )
            if config.feature:
                terms["feature"] = losses.feature_transfer(output.features, u)
            if config.teacher_branch and student.augment is not None and not label_free:
                g = bank(u[known]) if config.teacher_reads == "module" else u[known]
                g_plus = student.augmented(g)
                assert g_plus is not None
                terms["teacher_branch"] = task.loss(student.head(g_plus), batch.labels[known], config.label_smoothing)
        if batch.last is not None and self.projector is not None:
            terms["hint"] = losses.hint(self.projector(output.last), batch.last)
        if not label_free:
            labels = batch.labels[known]
            terms["task"] = task.loss(output.logits[known], labels, config.label_smoothing)
            if output.augmented_logits is not None:
                if config.augmented:
                    terms["augmented"] = task.loss(output.augmented_logits[known], labels, config.label_smoothing)
                if config.consistency:
                    terms["consistency"] = task.consistency(output.logits[known], output.augmented_logits[known])
        return terms


def total_loss(terms: dict[str, Tensor], config: DistillConfig) -> Tensor:
    """L = task + w1 augmented + w2 teacher_branch + w3 consistency + w4 transfer (METHOD part 3)."""
    return torch.stack(
        [term * (1.0 if name == "task" else getattr(config, name)) for name, term in terms.items()]
    ).sum()


def learning_rate(step: int, config: DistillConfig) -> float:
    """Linear warm-up, then half a cosine down to 0."""
    warm = max(1, round(config.warmup * config.steps))
    if step < warm:
        return config.lr * (step + 1) / warm
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, config.steps - warm)))


def shuffled(total: int, batch: int, seed: int, start: int = 0) -> Iterator[np.ndarray]:
    """Endless batches of indices; any step can be reached without replaying the ones before it."""
    step = start
    while True:
        places = np.arange(step * batch, (step + 1) * batch)
        orders = {e: np.random.default_rng([seed, e]).permutation(total) for e in np.unique(places // total).tolist()}
        yield np.array([orders[p // total][p % total] for p in places.tolist()])
        step += 1


def distill(
    student: Student,
    dataset: ImageDataset | PackedImages,
    *,
    teacher: PatchFeatures | None = None,
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
        teacher: features of the same images in the same order; without them the student learns from labels alone.
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
    size = teacher.images.image_px if teacher is not None else student.image_px
    images = dataset if isinstance(dataset, PackedImages) else pack(dataset, size, progress=progress)
    student.task.check(torch.from_numpy(np.array(images.labels)), images.ids)
    check_sources(student, images, teacher, unlabelled, config)
    accelerator = fresh_accelerator(config.mixed_precision, cpu=cpu)
    torch.manual_seed(config.seed)
    device = accelerator.device
    bank = student.bank
    labelled_source = Source(images, teacher, bank, config)
    extra_source = (
        Source(unlabelled.images, unlabelled, bank, config) if unlabelled and config.unlabelled_batch else None
    )
    hint_width = teacher.maps[-1].shape[2] if teacher and config.hint else None
    distiller = Distiller(student, config, hint_width)
    parameters = [p for p in distiller.parameters() if p.requires_grad]
    decayed, plain = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}], lr=config.lr
    )
    model, optimiser = accelerator.prepare(distiller, optimiser)
    folder = Path(run_dir) if run_dir is not None else None
    history = History()
    first = restore(folder, distiller, optimiser, config, history) if folder and resume else 0
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
        boxes, views = labelled_source.crops(len(indices), generator)
        batch = labelled_source.batch(indices[share], boxes[share], views[share], student, device)
        if extra_source is not None:
            boxes, views = extra_source.crops(len(extra), generator)
            batch = joined(batch, extra_source.batch(extra[share], boxes[share], views[share], student, device))
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
            checkpoint(folder, distiller, optimiser, config, history)
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


def joined(first: Batch, second: Batch) -> Batch:
    """Labelled and unlabelled images as one batch; the second part's labels are hidden."""
    pairs = ((first.teacher, second.teacher), (first.last, second.last))
    teacher, last = (None if a is None or b is None else torch.cat([a, b]) for a, b in pairs)
    hidden = torch.full_like(second.labels, UNLABELLED)
    return Batch(torch.cat([first.images, second.images]), torch.cat([first.labels, hidden]), teacher, last)


def check_sources(
    student: Student,
    images: PackedImages,
    teacher: PatchFeatures | None,
    unlabelled: PatchFeatures | None,
    config: DistillConfig,
) -> None:
    """Refuse combinations that would silently train something else than was asked.

    Raises:
        ValueError: says which argument does not fit and what to pass.
    """
    if teacher is not None and not same_images(teacher.images, images):
        raise ValueError(
            "teacher features belong to other images than the labelled ones: "
            "extract() the same images in the same order"
        )
    wants_bank = [name for name in ("assignment", "feature", "teacher_branch") if getattr(config, name)]
    if teacher is not None and student.bank is None and wants_bank:
        raise ValueError(
            f"{', '.join(wants_bank)} > 0 need prototypes: pass bank=pk.discover(features) to Student, or set them to 0"
        )
    if teacher is None and (config.label_free_steps or unlabelled is not None):
        raise ValueError(
            "unlabelled images and label_free_steps are for transfer: pass teacher=features of the labelled images too"
        )
    if unlabelled is not None and not config.unlabelled_batch:
        raise ValueError("unlabelled images are given, but unlabelled_batch is 0: say how many to add to each step")
    transfers = [name for name in ("assignment", "feature") if student.bank is not None and getattr(config, name)]
    if config.label_free_steps and not transfers and not config.hint:
        raise ValueError(
            "label_free_steps learn from transfer alone: set assignment or feature (with prototypes) or hint above 0"
        )
    for features in (teacher, unlabelled):
        if features is not None and student.bank is not None:
            student.bank.check(features)


def same_images(first: PackedImages, second: PackedImages) -> bool:
    """Whether two packs hold the same images in the same order; where their sizes allow it, a few are compared."""
    if first.ids != second.ids:
        return False
    if first.fingerprint == second.fingerprint or first.image_px != second.image_px:
        return True
    few = slice(None, None, max(1, len(first) // 8))
    return bool(np.array_equal(first.pixels[few], second.pixels[few]))


def checkpoint(
    folder: Path, distiller: Distiller, optimiser: torch.optim.Optimizer, config: DistillConfig, history: History
) -> None:
    """Write everything a resumed run needs, in one rename."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        "model": distiller.state_dict(), "optimiser": optimiser.state_dict(), "step": history.step,
        "config": dataclasses.asdict(config), "rows": history.rows,
    }  # fmt: skip
    fresh = folder / "checkpoint.new"
    torch.save(state, fresh)
    fresh.replace(folder / "checkpoint.pt")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in history.rows))


def restore(
    folder: Path, distiller: Distiller, optimiser: torch.optim.Optimizer, config: DistillConfig, history: History
) -> int:
    """Load the last checkpoint of a run, if there is one; returns the first step still to do.

    Raises:
        ValueError: the checkpoint is damaged, or was made with other settings (named) or for another student.
    """
    path = folder / "checkpoint.pt"
    if not path.is_file():
        return 0
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}); remove it to start the run again") from error
    changed = {k: (v, getattr(config, k)) for k, v in state["config"].items() if v != getattr(config, k)}
    if changed:
        what = ", ".join(f"{k} was {old}, is {new}" for k, (old, new) in changed.items())
        raise ValueError(f"{path} was made with other settings ({what}); use the same ones or another run_dir")
    try:
        distiller.load_state_dict(state["model"])
    except RuntimeError as error:
        raise ValueError(f"{path} belongs to another student; use the same one or another run_dir") from error
    optimiser.load_state_dict(state["optimiser"])
    history.rows, history.step = state["rows"], state["step"]
    return int(state["step"])
