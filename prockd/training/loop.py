"""The one training loop: students, plain and distilled, and teachers that learn clusters of patches."""

import math
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.profiler import record_function
from tqdm.auto import tqdm

from prockd._types import ImageDataset
from prockd.datasets import PackedImages
from prockd.devices import autocast, fastest_precision, map_tensors, on_device, random_state_kept, seed_global
from prockd.evaluation.scores import evaluate
from prockd.interrupts import held_back
from prockd.locks import locked
from prockd.prototypes.part_maps import PartMaps
from prockd.settings.method import ClusterConfig, DistillConfig
from prockd.students.student import Student
from prockd.teachers.features import PatchFeatures
from prockd.teachers.teacher import Teacher
from prockd.training.batches import Batch, Source
from prockd.training.checkpoint import load_checkpoint, save_checkpoint
from prockd.training.clustering import PatchClusters
from prockd.training.distiller import Distiller, compiled
from prockd.training.feeding import fed, profiled
from prockd.training.history import Callback as Callback
from prockd.training.history import History as History
from prockd.training.history import NonFiniteLossError as NonFiniteLossError
from prockd.training.history import learning_rate as learning_rate
from prockd.training.inputs import StoredFeatures, check_inputs, embeds_each_step, open_inputs, term_weights
from prockd.training.processes import Processes, connect
from prockd.training.readings import HeadLearner, fit_part_maps, fit_reading
from prockd.training.rivals import Rival
from prockd.writing import WriteError

CHECKPOINT_EVERY_S = 120
"""Seconds after which a checkpoint is due, however few steps were done."""

MOST_UNREAD = 100
"""Steps of a GPU whose losses are looked at together, at most: each look waits for it."""


@dataclass(frozen=True)
class Feed:
    """What one step reads."""

    batch: Batch
    targets: Any  # of the labelled images of the whole batch; None in label-free steps
    sizes: tuple[int, ...]  # images in the whole batch, labelled and others
    draw: int  # seed of what the step draws


class Trainer:
    """Optimiser steps. What one reads and draws depends on its number alone, wherever a run begins.

    The learner is on its device already, ``more`` are unlabelled images, of which each step takes ``more_batch`` and
    the first ``label_free_steps`` nothing else; checkpoints go into ``folder``.
    """

    def __init__(
        self,
        learner: Distiller | PatchClusters | HeadLearner,
        labelled: Source,
        config: DistillConfig | ClusterConfig,
        processes: Processes,
        folder: Path | None = None,
        *,
        more: Source | None = None,
        more_batch: int = 0,
        label_free_steps: int = 0,
    ) -> None:
        self.learner, self.config, self.processes, self.folder = learner, config, processes, folder
        self.labelled, self.more, self.more_batch, self.label_free_steps = labelled, more, more_batch, label_free_steps
        self.parameters = [p for p in learner.parameters() if p.requires_grad]
        # part maps learn beside the student: where they lengthened the gradient that is cut, they would touch z
        maps = getattr(learner.student, "feature_augmentation", None)
        beside = set(maps.parameters()) if isinstance(maps, PartMaps) else set()
        self.cut_apart = [[p for p in self.parameters if (p in beside) is b] for b in (False, True)]
        quick = set(learner.quick_parameters)
        groups: dict[tuple[bool, bool], list[Tensor]] = {}
        for parameter in self.parameters:
            groups.setdefault((parameter in quick, parameter.ndim > 1), []).append(parameter)
        self.rates = [learner.quick_rate if is_quick else 1.0 for is_quick, _ in groups]
        self.optimiser = torch.optim.AdamW(
            [{"params": p, "weight_decay": config.weight_decay * is_matrix} for (_, is_matrix), p in groups.items()],
            fused=processes.device.type in ("cpu", "cuda"),
        )
        self.scaler = torch.amp.GradScaler(processes.device.type, enabled=config.mixed_precision == "fp16")
        self.parts = {"model": learner, "optimiser": self.optimiser, "scaler": self.scaler}
        self.kept_step = 0  # of the last checkpoint
        self.unread: list[tuple[int, dict[str, Tensor], Tensor]] = []  # steps whose loss and gradient nobody looked at

    def run(
        self, callbacks: Sequence[Callback], *, resume: bool, log_every: int, checkpoint_every: int, progress: bool,
        profile: bool = False,
    ) -> History:  # fmt: skip
        """All steps, or those after the last checkpoint."""
        history = History(precision=self.config.mixed_precision)
        if self.folder and resume:
            history.rows, history.step = load_checkpoint(self.folder, self.parts, asdict(self.config))
        self.kept_step = history.step
        self.learner.train()
        alone = locked(self.folder) if self.folder and self.processes.is_main else nullcontext()
        try:
            with (
                alone,
                held_back(self.folder is not None) as waiting,
                closing(fed(self.feed, range(history.step, self.config.steps), self.processes.device)) as feeds,
            ):
                given = profiled(feeds, self.folder) if profile and self.folder and self.processes.is_main else feeds
                self.steps(given, history, callbacks, waiting, log_every, checkpoint_every, progress)
        except KeyboardInterrupt as stop:
            if self.folder and self.kept_step:
                stop.add_note(f"{self.folder} keeps the checkpoint of step {self.kept_step} of {self.config.steps}")
            raise
        self.learner.eval()
        return history

    def steps(
        self, feeds: Iterator[Feed], history: History, callbacks: Sequence[Callback], waiting: list[int],
        log_every: int, checkpoint_every: int, progress: bool,
    ) -> None:  # fmt: skip
        """Those that are not done yet, or as many as there are until a callback or a signal ends the run."""
        config, processes, began = self.config, self.processes, time.perf_counter()
        # what was done after the last logged row, up to the checkpoint, took as long a step as the others
        total, first, spent = config.steps, history.step, history.seconds_per_step * history.step
        desc = "student" if isinstance(self.learner, Distiller) else "teacher"
        bar = tqdm(range(first, total), initial=first, total=total, desc=desc, unit="step", disable=not progress)
        kept_at, late, stop = began, False, False
        for step in bar:
            values = self.step(step, next(feeds))
            history.step = step + 1
            last = history.step == total
            if step % log_every == 0 or last:
                self.look()
                seconds = spent + time.perf_counter() - began
                row = {"step": float(step), "lr": learning_rate(step, config), "seconds": seconds}
                row |= {name: float(value) for name, value in values.items()}
                history.rows.append(row)
                bar.set_postfix({key: f"{row[key]:.3f}" for key in ("loss", "task") if key in row})
                history.stopped = processes.once(lambda: any([bool(call(step, row)) for call in callbacks]))  # noqa: B023
                late = processes.once(lambda: time.perf_counter() - kept_at > CHECKPOINT_EVERY_S)  # noqa: B023
            stop = processes.any(bool(waiting))  # all after the same step
            due = self.folder and (late or stop or history.step % checkpoint_every == 0)
            if last or history.stopped or due:
                self.look()
                # each process counted its own images in its batch norms
                processes.average([b for name, b in self.learner.named_buffers() if "running_" in name])
                if self.folder and processes.is_main:
                    with record_function("write"):
                        self.keep(self.folder, history)
                kept_at, late = time.perf_counter(), False
            if history.stopped or stop:
                break
        bar.close()
        if stop and not waiting:
            raise KeyboardInterrupt

    def keep(self, folder: Path, history: History) -> None:
        """Write a checkpoint; where there is no room the one before stays, and training goes on with a warning."""
        try:
            save_checkpoint(folder, self.parts, asdict(self.config), history.rows, history.step)
            self.kept_step = history.step
        except WriteError as error:
            warnings.warn(f"no checkpoint of step {history.step} ({error}); training goes on", stacklevel=3)

    def step(self, step: int, feed: Feed | None = None) -> dict[str, Tensor]:
        """Learn from one batch; returns the loss and its terms. A GPU is not waited for: :meth:`look` does that.

        Raises:
            NonFiniteLossError: loss or gradient are not finite; with fp16 the scaler skips such a gradient.
        """
        longest, on_gpu = self.config.clip_grad_norm, self.processes.device.type == "cuda"
        for group, factor in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = learning_rate(step, self.config) * factor
        terms = self.terms(step, self.feed(step) if feed is None else feed)
        loss = self.learner.total(terms)
        chosen = self.learner.chosen_weights(terms) if isinstance(self.learner, Distiller) else {}
        values = {name: term.detach() for name, term in {"loss": loss, **terms}.items()}
        self.optimiser.zero_grad()
        if on_gpu or loss.isfinite():
            with record_function("student, backward"):
                torch.autograd.backward(self.scaler.scale(loss))
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        self.processes.average(gradients)
        self.scaler.unscale_(self.optimiser)
        norm = torch.nn.utils.get_total_norm(gradients)
        sound = values["loss"] if self.scaler.is_enabled() else values["loss"] + norm
        self.unread.append((step, values, sound))
        if not on_gpu or len(self.unread) >= MOST_UNREAD:
            self.look()
        for own in self.cut_apart if longest else ():
            if own and not self.cut_apart[1]:
                torch.nn.utils.clip_grads_with_norm_(own, longest, norm)
            elif own:
                torch.nn.utils.clip_grad_norm_(own, longest)
        if on_gpu and not self.scaler.is_enabled():  # a step that is not finite changes nothing, as with a scaler
            self.optimiser.found_inf = (~sound.isfinite()).float()  # type: ignore[attr-defined]
        self.scaler.step(self.optimiser)
        self.scaler.update()
        return values | {f"{name}_weight": weight for name, weight in chosen.items()}

    def look(self) -> None:
        """Read whether loss and gradient of all steps since the last look were finite."""
        unread, self.unread = self.unread, []
        finite = torch.stack([sound for _, _, sound in unread]).isfinite().tolist() if unread else []
        for (step, values, sound), is_finite in zip(unread, finite, strict=True):
            if not is_finite:
                of_loss, config = float(values["loss"]), self.config
                problem = f"the loss is {of_loss}"
                if math.isfinite(of_loss):
                    problem = f"the loss is {of_loss:.3g} and its gradient {float(sound) - of_loss}"
                each = ", ".join(f"{name} {float(value):.3g}" for name, value in values.items() if name != "loss")
                kept = f" The last good checkpoint is in {self.folder}." if self.folder else ""
                ids = (
                    self.labelled.images.ids[row] for row in self.labelled.rows(config.batch_size, config.seed, step)
                )
                raise NonFiniteLossError(
                    f"{problem} at step {step} ({each}); lower lr (now {learning_rate(step, config):.2g}) or look at "
                    f"the images of this batch: {', '.join(ids)}.{kept}"
                )

    def feed(self, step: int) -> Feed:
        """What a step reads: this process's share of its images, and the targets of all."""
        config, processes, student = self.config, self.processes, self.learner.student
        device, dtype = processes.device, torch.bfloat16 if config.mixed_precision == "bf16" else torch.float32
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        rows = self.labelled.rows(config.batch_size, config.seed, step)
        crops = self.labelled.crops(rows, generator)
        cut, sizes = np.tile(rows, len(crops) // len(rows)), [len(crops)]  # a source may cut an image more than once
        share = processes.share(len(crops))
        batch = self.labelled.batch(cut[share], crops[share], student, device, dtype)
        if self.more is not None:
            others = self.more.rows(self.more_batch, config.seed + 1, step)
            more_crops, share = self.more.crops(others, generator), processes.share(len(others))
            batch = batch.joined(self.more.batch(others[share], more_crops[share], student, device, dtype))
            sizes.append(len(others))
        if step < self.label_free_steps:
            batch = replace(batch, labelled=0)
        # what the model draws (dropout, drop path) depends on the step alone, so a resumed run draws the same
        draw = int(torch.randint(2**62, (), generator=generator))
        targets = self.labelled.targets(cut, crops, student, device) if batch.labelled else None
        return Feed(batch, targets, tuple(sizes), draw)

    def terms(self, step: int, feed: Feed) -> dict[str, Tensor]:
        """The terms of the loss of a step's whole batch, of which each process has seen a share."""
        processes, device, batch = self.processes, self.processes.device, feed.batch
        seed_global(feed.draw + processes.rank, device)
        with autocast(device, self.config.mixed_precision), record_function("student"):
            predictions, maps = self.learner(batch)
        patches = maps.get("features")
        predictions = {
            name: map_tensors(lambda t: processes.gather(t.float(), feed.sizes[-(name[:5] == "more_")]), value)  # noqa: B023
            for name, value in predictions.items()
        }
        maps = map_tensors(lambda t: processes.gather(t.float(), *feed.sizes), maps)
        # what a loss draws (Faster R-CNN samples boxes) is the same in every process too
        seed_global(feed.draw, device)
        terms = self.learner.terms(predictions, maps, feed.targets)
        if isinstance(self.learner, Distiller) and self.learner.share is not None and patches is not None:
            scaled = {name: self.scaler.scale(term) for name, term in terms.items()}  # small gradients of fp16 are 0
            self.learner.measure(scaled, patches, processes.average)
        return terms


def make_distiller(
    student: Student, config: DistillConfig, widths: Sequence[int] = (0,), reading: nn.Module | None = None
) -> Distiller:
    """The module of these knobs; ``widths`` are those of the teacher's maps, ``reading`` is of its patches."""
    needs_rival = sum(widths) and term_weights(config)["rival"]
    rival = Rival(config.rival, student.embed_dim, sum(widths), config.standardise) if needs_rival else None
    return Distiller(
        student, term_weights(config), hint_width=widths[-1] if config.hint_weight else 0, train_bank=config.train_bank,
        temperature=config.temperature, teacher_reads=config.teacher_reads, label_smoothing=config.label_smoothing,
        recoloured=config.recoloured, reading=reading, rival=rival, gradient_share=config.gradient_share,
    )  # fmt: skip


def read_teacher(student: Student, labelled: Source, config: DistillConfig, processes: Processes) -> nn.Module | None:
    """What predicts the soft targets: fitted to the labelled images before the student begins; None for none."""
    if not config.soft_weight or labelled.stored is None or student.bank is None:
        return None
    if student.task.pooled:
        return fit_reading(student, labelled, config.soft_reads)
    learner = HeadLearner(student).to(processes.device)
    steps = config.replace(steps=max(1, config.soft_steps), mixed_precision="no")
    Trainer(learner, labelled, steps, processes).run(
        (), resume=False, log_every=10**9, checkpoint_every=10**9, progress=False
    )
    return learner.head.requires_grad_(False)


def distill(
    student: Student,
    dataset: ImageDataset | PackedImages,
    *,
    features: StoredFeatures | Teacher | None = None,
    unlabelled: StoredFeatures | ImageDataset | PackedImages | None = None,
    config: DistillConfig | None = None,
    val: ImageDataset | PackedImages | None = None,
    run_dir: str | Path | None = None,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    log_every: int = 10,
    checkpoint_every: int = 200,
    cpu: bool = False,
    progress: bool = True,
    profile: bool = False,
) -> History:
    """Train a student on its task, with or without a teacher; the student is changed in place, and stays where it was.

    >>> import prockd as pk
    >>> images, teacher = pk.Farmyard("target", "train", 10), pk.Teacher("farmyard")
    >>> features = pk.extract(teacher, images, progress=False)
    >>> bank = pk.discover(features, config=pk.DiscoverConfig(num_prototypes=4, steps=0), progress=False)
    >>> student = pk.Student("test_efficientnet", pk.tasks.Classification(10), bank)
    >>> config = pk.DistillConfig(steps=2, batch_size=5)
    >>> history = pk.distill(student, images, features=features, config=config, val=images, progress=False)
    >>> history.step, list(history.rows[-1])
    (2, ['step', 'lr', 'seconds', 'loss', 'task', 'soft', 'feature'])

    Several processes (``torchrun --nproc_per_node 2``) share each batch. The loss is taken over the whole batch, so
    gradients are those of one process whatever the task, but for two things: batch norms count the images of each
    process for themselves, and dropout draws other numbers.

    Args:
        student: what to train. Its bank is frozen unless ``config.train_bank``.
        dataset: labelled images of the task.
        features: a teacher's, of the same images in the same order, as :func:`prockd.embed_features` or
            :func:`prockd.extract` keep them, or the teacher itself, of which the smaller of the two is then kept.
            Crops are replayed on these maps: an approximation, as the teacher saw the whole image. On Farmyard the
            cosine between a replayed patch and the teacher's own pass of the crop is .96, .80 and .71 with ``min_crop``
            .9, .5 and .3 (benchmarks/crops.py). With ``config.store="none"`` the teacher itself sees every crop, in
            every step (slow, exact). None to learn from labels alone.
        unlabelled: features of more images, used for transfer only; with a teacher also the images themselves.
        config: every knob; which precision "auto" came to is in the history.
        val: images scored once, after the last step.
        run_dir: where config, metrics and checkpoints are written.
        resume: go on from the last checkpoint in ``run_dir``; ends in the same weights as an uninterrupted run.
        callbacks: called at each logged step, in the main process.
        log_every: steps between rows of the history.
        checkpoint_every: steps between checkpoints.
        cpu: stay on the CPU even where there is a GPU.
        progress: show a progress bar.
        profile: write where the time of 20 steps went to ``run_dir``: profile.txt and, for Chrome, trace.json.

    Raises:
        ValueError: labels outside the task, teacher features of other images or without the views that flips need,
            terms that need a missing bank, or a batch smaller than the number of processes.
        NonFiniteLossError: the loss is not finite; the last good checkpoint is kept.
    """
    config, folder = config or DistillConfig(), None if run_dir is None else Path(run_dir)
    processes = connect(cpu=cpu)
    if config.mixed_precision == "auto":
        fastest = fastest_precision(processes.device)
        config = config.replace(mixed_precision="no" if fastest == "fp32" else fastest)
    device, progress = processes.device, progress and processes.is_main
    how: dict[str, Any] = {"processes": processes, "progress": progress}
    labelled, more = open_inputs(dataset, features, unlabelled, config, student, **how)
    check_inputs(student, labelled, more, config, processes.count)
    teacher = labelled[1]
    source = partial(
        Source, bank=None if embeds_each_step(config) else student.bank, min_crop=config.min_crop, flip=config.flip,
        wants_last=config.hint_weight > 0,
    )  # fmt: skip
    with random_state_kept(device):
        seed_global(config.seed, device)
        widths = teacher.widths if isinstance(teacher, PatchFeatures | Teacher) else (0,)
        with on_device(device, student, *([teacher] if isinstance(teacher, Teacher) else [])):
            with processes.main_first():  # it keeps what the bank makes of features for the others
                sources = source(*labelled, task=student.task), None if more is None else source(*more)
            reading = read_teacher(student, sources[0], config, processes)
            for one in sources:
                if one is not None:
                    one.settle(device)
            seed_global(config.seed, device)
            distiller = make_distiller(student, config, widths, reading).to(device)
            if distiller.rival is not None:
                distiller.rival.fit([one for one in sources if one is not None], student, device)
            trainer = Trainer(
                distiller, sources[0], config, processes, folder, more=sources[1], more_batch=config.unlabelled_batch,
                label_free_steps=config.label_free_steps,
            )  # fmt: skip
            with compiled(student, config.compile):
                how = {"log_every": log_every, "checkpoint_every": checkpoint_every, "progress": progress}
                history = trainer.run(callbacks, resume=resume, profile=profile, **how)
            if isinstance(student.feature_augmentation, PartMaps) and student.feature_augmentation.num_outputs:
                fit_part_maps(student, *sources, reading, seed=config.seed)
            if val is not None:
                history.scores = processes.once(lambda: evaluate(student, val, device=device))
    return history
