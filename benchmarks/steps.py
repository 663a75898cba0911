"""Training steps of several kinds on images made of noise, and the bare loops that anyone writes: for speed and gpu."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.v2 import RandomResizedCrop
from torchvision.transforms.v2 import functional as V

import prockd as pk
from prockd.datasets import PackedImages
from prockd.devices import autocast
from prockd.runs.recipes import recipe_of
from prockd.settings.experiment import StudentConfig
from prockd.training.batches import Source
from prockd.training.distiller import compiled
from prockd.training.feeding import fed
from prockd.training.loop import Trainer, make_distiller, read_teacher
from prockd.training.processes import connect

CLASSES, WIDTH = 10, 128


@dataclass(frozen=True)
class Setting:
    """Sizes of a measurement; the default is Farmyard's notebook size."""

    backbone: str = "resnet10t"
    options: Mapping[str, Any] = field(default_factory=lambda: dict(StudentConfig().options))
    student_px: int = 96
    packed_px: int = 160
    grid: int = 20  # of the teacher's patches
    batch: int = 48
    images: int = 512
    device: str = "cpu"
    precision: str = "bf16"
    compile: str = "no"


RESNET18 = Setting("resnet18", {}, student_px=224, packed_px=224, grid=16, batch=64)


def noise(count: int, px: int, seed: int = 0) -> PackedImages:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 3, px, px), np.uint8)
    ids, classes = tuple(f"{seed}-{m}" for m in range(count)), tuple(f"class {c}" for c in range(CLASSES))
    return PackedImages(pixels, np.arange(count) % CLASSES, ids, classes, f"noise {seed} {count} {px}")


def embedded(bank: pk.PrototypeBank, images: PackedImages, grid: int) -> pk.EmbeddedFeatures:
    maps = np.random.default_rng(1).standard_normal((len(images), 2, WIDTH, grid, grid), np.float32).astype(np.float16)
    means = np.zeros((len(images), 1), np.float32)
    return pk.EmbeddedFeatures(
        maps, np.arange(len(images)), images, bank.teacher, bank.space, ("plain", "mirrored"), means
    )


def trainer(kind: str, s: Setting, teacher: pk.Teacher | None = None) -> Trainer:
    """What trains one kind of student: "labels alone", "transfer", "soft targets", "attention", "teacher in each step".

    All read as many images in a step; half of those with a teacher have labels. "soft targets" is the recipe, and with
    "attention" beside it z⁺ learns in each step; "augmented" is transfer with attention alone.
    """
    torch.manual_seed(0)
    device, taught = torch.device(s.device), kind != "labels alone"
    bank = pk.PrototypeBank(96, 608 if teacher is None else sum(teacher.widths), WIDTH)
    nn.init.normal_(bank.prototypes)
    recipe = recipe_of("classification")
    config = (recipe.distill if taught else recipe.alone).replace(mixed_precision=s.precision)
    if taught:
        config = config.replace(batch_size=s.batch // 2, unlabelled_batch=s.batch - s.batch // 2)
        config = config if kind in ("soft targets", "attention") else config.replace(soft_weight=0.0)
    else:
        config = config.replace(batch_size=s.batch)
    augmentation = pk.FeatureAugmentationConfig("attention") if kind in ("augmented", "attention") else None
    student = pk.Student(
        s.backbone, pk.tasks.Classification(CLASSES), bank if taught else None, feature_augmentation=augmentation,
        image_px=s.student_px, **s.options,
    ).to(device)  # fmt: skip
    source = partial(Source, bank=bank if taught else None, min_crop=config.min_crop, flip=config.flip)
    seen, sources = [noise(s.images, s.packed_px, seed) for seed in range(1 + taught)], []
    for images in seen:
        features = (teacher or embedded(bank, images, s.grid)) if taught else None
        sources.append(source(images, features, task=student.task if images is seen[0] else None))
        sources[-1].settle(device)
    processes = connect(cpu=s.device == "cpu")
    reading = read_teacher(student, sources[0], config, processes) if taught and teacher is None else None
    distiller = make_distiller(student, config, (0,), reading).to(device)
    made = Trainer(
        distiller,
        sources[0],
        config,
        processes,
        more=sources[1] if taught else None,
        more_batch=config.unlabelled_batch,
    )
    distiller.train()
    return made


def ours(kind: str, s: Setting, teacher: pk.Teacher | None = None, log_every: int = 10) -> Callable[[int], None]:
    """Makes some steps of :func:`trainer`, fed as in a run."""
    own = trainer(kind, s, teacher)
    feeds, numbers = fed(own.feed, itertools.count(), own.processes.device), itertools.count()
    held = compiled(own.learner.student, s.compile)  # type: ignore[arg-type]
    held.__enter__()

    def steps(count: int, held: object = held) -> None:
        for _ in range(count):
            own.step(number := next(numbers), next(feeds))
            if number % log_every == 0:
                own.look()

    return steps


def cropped(s: Setting, *, crops: bool = True) -> Callable[[], tuple[Tensor, Tensor]]:
    """Gives images of noise, 0 to 1, cropped and mirrored by torchvision, and their classes; each time others."""
    device, images = torch.device(s.device), noise(s.images, s.packed_px)
    rng, cut = np.random.default_rng(0), RandomResizedCrop(s.student_px, (0.5, 1.0), antialias=True)

    def batch() -> tuple[Tensor, Tensor]:
        rows = rng.permutation(s.images)[: s.batch]
        pixels = torch.from_numpy(images.pixels[rows])
        if crops:
            whole = pixels.contiguous(memory_format=torch.channels_last)  # torchvision's quickest form on a CPU
            pixels = torch.stack([V.horizontal_flip(one) if rng.random() < 0.5 else one for one in map(cut, whole)])
        there = pixels.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last).float() / 255
        return there, torch.from_numpy(images.labels[rows]).to(device, non_blocking=True)

    return batch


def bare(s: Setting, *, crops: bool = True, teacher: pk.Teacher | None = None) -> Callable[[int], None]:
    """The loop that anyone writes: timm's model, torchvision's crops, AdamW; a teacher's patches by cosine."""
    torch.manual_seed(0)
    device, read = torch.device(s.device), cropped(s, crops=crops)
    model = timm.create_model(s.backbone, num_classes=CLASSES, **s.options).to(
        device, memory_format=torch.channels_last
    )
    reads = None if teacher is None else nn.Conv2d(model.num_features, teacher.widths[-1], 1).to(device)
    optimiser = torch.optim.AdamW([*model.parameters(), *(() if reads is None else reads.parameters())], 1e-3)
    mean, std = (
        torch.tensor(v, device=device).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    model.train()

    def step() -> None:
        batch, targets = read()
        with autocast(device, s.precision):
            features = model.forward_features((batch - mean) / std)
            loss = F.cross_entropy(model.forward_head(features), targets)
            if teacher is not None and reads is not None:
                with torch.no_grad():
                    patches = F.interpolate(teacher(batch)[-1].float(), features.shape[2:], mode="bilinear")
                loss = loss + 1 - F.cosine_similarity(reads(features).float(), patches, dim=1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return repeated(step)


def repeated(step: Callable[[], None]) -> Callable[[int], None]:
    """Makes some steps, one after the other."""

    def steps(count: int) -> None:
        for _ in range(count):
            step()

    return steps
