"""Beside other libraries, in one run: steps with a teacher, reading images, passes of a teacher, k-means, flat maps.

    pip install lightly-train torchdistill faiss-cpu openTSNE pacmap
    python benchmarks/beside.py             # writes results/beside.md
    python benchmarks/beside.py --quick     # smaller, in a few minutes; the last line is one JSON object

Times are CPU time of one thread. Kinds take turns, after a round that does not count. A library that is not installed
is left out. Theirs are fed in memory with the crops of the bare loop: their own loaders and logs are not in it.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from speed import of, rounds_of
from steps import CLASSES, RESNET18, Setting, bare, cropped, ours, repeated
from torch import nn

import prockd as pk
from prockd.datasets.transforms import to_unit
from prockd.devices import autocast, fastest_precision

RESULTS = Path(__file__).parent / "results" / "beside.md"
Work = Callable[[], object]


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    setting: Setting
    teacher: str  # timm's name of the one in the steps
    photographs: int
    points: int  # of k-means, and of the flat maps
    rounds: int


def is_there(library: str) -> bool:
    """Whether a library is installed."""
    return find_spec(library) is not None


def vit(s: Sizes) -> pk.Teacher:
    """A ViT with random weights, which cost as much as learned ones."""
    return pk.Teacher(s.teacher, image_px=s.setting.student_px, dynamic_img_size=True)


def lightly_train(s: Setting, teacher: pk.Teacher) -> Callable[[int], None]:
    """Distillation of lightly-train as it comes, version 3: its student, its loss, its clipping, AdamW."""
    import timm
    from lightly_train._methods.distillationv3.distillationv3 import (
        DistillationV3,
        DistillationV3AdamWArgs,
        DistillationV3Args,
    )
    from lightly_train._models.embedding_model import EmbeddingModel
    from lightly_train._models.package_helpers import get_wrapped_model

    student = get_wrapped_model(timm.create_model(s.backbone, **s.options), num_input_channels=3)
    method = DistillationV3(
        DistillationV3Args(teacher=teacher.backbone, queue_size=min(256, s.images)), DistillationV3AdamWArgs(),
        EmbeddingModel(student), s.batch, 3,
    )  # fmt: skip
    method.to(memory_format=torch.channels_last).train()
    method.teacher_embedding_model.eval()
    learned = [parameter for parameter in method.parameters() if parameter.requires_grad]
    optimiser, read = torch.optim.AdamW(learned, 5e-4), cropped(s)

    def step() -> None:
        images, _ = read()
        with autocast(images.device, s.precision):
            loss = method.training_step_impl({"views": [images]}, 0).loss  # type: ignore[typeddict-item]
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learned, 1.0)
        optimiser.step()

    return repeated(step)


def torchdistill(s: Setting, teacher: pk.Teacher) -> Callable[[int], None]:
    """A box of torchdistill: the task loss, and the squared error of a student's vector to the teacher's."""
    import timm
    from torchdistill.core.distillation import get_distillation_box

    class Pupil(nn.Module):
        """A student whose vector is as wide as the teacher's."""

        def __init__(self) -> None:
            super().__init__()
            self.body = timm.create_model(s.backbone, num_classes=teacher.widths[-1], **s.options)
            self.head = nn.Linear(teacher.widths[-1], CLASSES)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            answer: torch.Tensor = self.head(self.body(images))
            return answer

    def told(from_teacher: bool, path: str) -> dict[str, object]:
        return {"is_from_teacher": from_teacher, "module_path": path, "io": "output"}

    terms = {
        "labels": {"weight": 1.0, "criterion": {"key": "CrossEntropyLoss", "kwargs": {}}, "criterion_wrapper": {
            "key": "SimpleLossWrapper", "kwargs": {"input": told(False, "head"), "target": {"uses_label": True}}}},
        "hint": {"weight": 1.0, "criterion": {"key": "MSELoss", "kwargs": {}}, "criterion_wrapper": {
            "key": "SimpleLossWrapper", "kwargs": {"input": told(False, "body"), "target": told(True, "fc_norm")}}},
    }  # fmt: skip
    hooks: dict[str, dict[str, Any]] = {
        "teacher": {"forward_hook": {"input": [], "output": ["fc_norm"]}, "requires_grad": False},
        "student": {"forward_hook": {"input": [], "output": ["body", "head"]}},
    }
    for config in hooks.values():
        config["forward_proc"] = "forward_batch_only"
    settings = hooks | {
        "num_epochs": 1, "train_data_loader": {}, "val_data_loader": {},
        "optimizer": {"key": "AdamW", "kwargs": {"lr": 1e-3}},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": terms}},
    }  # fmt: skip
    device, pupil = torch.device(s.device), Pupil().to(memory_format=torch.channels_last).train()
    box = get_distillation_box(teacher.backbone, pupil, {}, settings, device, None, False, 1)
    read = cropped(s)

    def step() -> None:
        images, targets = read()
        with autocast(device, s.precision):
            loss = box.forward_process(images, targets, {})
        box.post_forward_process(loss)

    return repeated(step)


def steps(s: Sizes) -> dict[str, Work]:
    """A step of each kind; the first is what the others are told over."""
    size = s.setting
    kinds = {"bare loop, labels alone": bare(size), "bare loop, the teacher in each step": bare(size, teacher=vit(s))}
    for library, make in {"lightly_train": lightly_train, "torchdistill": torchdistill}.items():
        if is_there(library):
            kinds[f"{library.replace('_', '-')}, the teacher in each step"] = make(size, vit(s))
    kinds |= {f"prockd, {kind}": ours(kind, size) for kind in ("labels alone", "transfer", "soft targets")}
    kinds["prockd, the teacher in each step"] = ours("teacher in each step", size, vit(s))
    return {name: partial(work, 1) for name, work in kinds.items()}


def reading(s: Sizes, folder: Path) -> dict[str, Work]:
    """All crops of an epoch, from JPEG files and from what was packed once."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    rng = np.random.default_rng(0)
    for m in range(s.photographs):
        (folder / f"class {m % 2}").mkdir(exist_ok=True)
        smooth = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).resize(
            (640, 480), Image.Resampling.BICUBIC
        )
        smooth.save(folder / f"class {m % 2}" / f"{m:04d}.jpg", quality=90)
    px = s.setting.student_px
    cut = [v2.RandomResizedCrop(px, (0.5, 1.0), antialias=True), v2.RandomHorizontalFlip()]
    tensor = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
    loader = DataLoader(ImageFolder(folder, v2.Compose([*cut, *tensor])), batch_size=s.setting.batch)
    packed = folder.parent / "packed"

    def pack(where: Path) -> pk.PackedImages:
        return pk.pack(pk.ImageFolder(folder), px, root=where, progress=False)

    def anew() -> None:
        with tempfile.TemporaryDirectory() as other:
            pack(Path(other))

    from prockd.training.batches import Source

    source = Source(pack(packed), min_crop=0.5)
    students = type("Size", (), {"image_px": px, "grid": (7, 7), "last_grid": (7, 7)})()

    def epoch() -> None:
        for start in range(0, s.photographs, s.setting.batch):
            rows = np.arange(start, min(start + s.setting.batch, s.photographs))
            source.batch(rows, source.crops(rows, torch.Generator().manual_seed(start)), students, torch.device("cpu"))

    return {
        "DataLoader + ImageFolder, an epoch": lambda: [None for _ in loader],
        "prockd, an epoch of packed images": epoch,
        "prockd, packing them, once": anew,
    }


def passes(s: Sizes, folder: Path) -> dict[str, Work]:
    """The teacher that ships over some images: timm's own forward, and what keeps the features."""
    teacher, device = pk.Teacher("farmyard"), torch.device("cpu")
    drawn = pk.Farmyard("target", "val", 64, image_px=teacher.image_px)
    images = pk.pack(drawn, teacher.image_px, root=folder, progress=False)
    batch = to_unit(torch.from_numpy(images.pixels[:16].copy()))

    def forward(precision: str) -> None:
        with torch.no_grad(), autocast(device, precision):
            for _ in range(len(images) // len(batch)):
                teacher.backbone.forward_intermediates(batch, indices=list(teacher.layers), intermediates_only=True)

    def kept(precision: str) -> None:
        with tempfile.TemporaryDirectory() as other:
            pk.extract(teacher, images, views=("plain",), precision=precision, root=Path(other), progress=False)

    found: dict[str, Work] = {}
    for precision in dict.fromkeys(("fp32", fastest_precision(device))):
        found[f"timm's forward, {precision}"] = partial(forward, precision)
        found[f"prockd's `extract`, {precision}"] = partial(kept, precision)
    return found


def patches(count: int, width: int = 128, kinds: int = 288) -> np.ndarray:
    """Points around middles, (count, width), of length 1: more kinds than prototypes, as in discovery."""
    rng = np.random.default_rng(0)
    middles = rng.standard_normal((kinds, width), np.float32)
    sample = middles[rng.integers(kinds, size=count)] + rng.standard_normal((count, width), np.float32)
    return np.asarray(sample / np.linalg.norm(sample, axis=1, keepdims=True), np.float32)


def clusterings(s: Sizes, clusters: int = 96) -> tuple[dict[str, Work], dict[str, float]]:
    """96 clusters, and when the works were done the inertia of each."""
    from sklearn.cluster import KMeans, MiniBatchKMeans

    from prockd.prototypes.kmeans import k_means

    points, inertia = patches(s.points), dict[str, float]()

    def done(name: str, centres: np.ndarray) -> None:
        nearest = torch.cdist(torch.from_numpy(points), torch.from_numpy(np.asarray(centres, np.float32))).min(1).values
        inertia[name] = float(nearest.square().sum())

    works: dict[str, Callable[[], np.ndarray]] = {
        "prockd": lambda: k_means(torch.from_numpy(points), torch.ones(len(points)), clusters, seed=0)[0].numpy(),
        "scikit-learn KMeans, n_init=1": lambda: (
            KMeans(clusters, n_init=1, random_state=0).fit(points).cluster_centers_
        ),
        "scikit-learn MiniBatchKMeans": lambda: (
            MiniBatchKMeans(clusters, n_init=1, batch_size=4096, random_state=0).fit(points).cluster_centers_
        ),
    }  # fmt: skip
    if is_there("faiss"):
        import faiss

        def faiss_means() -> np.ndarray:
            faiss.omp_set_num_threads(1)
            own = faiss.Kmeans(points.shape[1], clusters, niter=20, seed=0, max_points_per_centroid=len(points))
            own.train(points)
            return np.asarray(own.centroids)

        works["faiss, 20 rounds"] = faiss_means
    return {name: (lambda n=name, w=work: done(n, w())) for name, work in works.items()}, inertia


def flat_maps(s: Sizes) -> tuple[dict[str, Work], dict[str, float]]:
    """Flat maps of points, and when the works were done how far their neighbours can be trusted, 0 to 1."""
    from sklearn.manifold import trustworthiness
    from umap import UMAP

    points, told = patches(s.points // 2), dict[str, float]()
    part = len(points) // 4

    def sampled() -> np.ndarray:
        mapper = UMAP(n_neighbors=15, init="pca", random_state=0, n_jobs=1).fit(points[:part])
        return np.concatenate([mapper.embedding_, mapper.transform(points[part:])])

    works: dict[str, Callable[[], np.ndarray]] = {
        "umap-learn, all points (`embed_2d`)": lambda: UMAP(
            n_neighbors=15, init="pca", random_state=0, n_jobs=1).fit_transform(points),
        "umap-learn, a quarter, the others transformed": sampled,
    }  # fmt: skip
    if is_there("pacmap"):
        import pacmap

        works["pacmap"] = lambda: pacmap.PaCMAP(random_state=0).fit_transform(points)
    if is_there("openTSNE"):
        import openTSNE

        works["openTSNE"] = lambda: np.asarray(openTSNE.TSNE(random_state=0, n_jobs=1).fit(points))
    some = np.random.default_rng(0).choice(len(points), min(3000, len(points)), replace=False)

    def done(name: str, xy: np.ndarray) -> None:
        told[name] = float(trustworthiness(points[some], xy[some], n_neighbors=15))

    return {name: (lambda n=name, w=work: done(n, w())) for name, work in works.items()}, told


def table(
    title: str, times: dict[str, list[float]], more: str = "", values: dict[str, float] | None = None
) -> list[str]:
    """Medians, least and most, and the median of ratios to the first kind."""
    first = next(iter(times.values()))
    lines = [
        f"| {title} | CPU s | least to most | over the first |{more and f' {more} |'}",
        "|---|---|---|---|" + "---|" * bool(more),
    ]
    for name, own in times.items():
        last = f" {values[name]:.3f} |" if values else ""
        lines.append(
            f"| {name} | {statistics.median(own):.2f} | {min(own):.2f} to {max(own):.2f} | {of(own, first):.2f} |{last}"
        )
    return [*lines, ""]


def main() -> None:
    """Measure, print, and write the page unless it is quick."""
    torch.set_num_threads(1)
    quick, chosen = "--quick" in sys.argv, fastest_precision(torch.device("cpu"))
    size = replace(RESNET18, batch=16, images=64, precision="no" if chosen == "fp32" else chosen)
    s = Sizes(size, "vit_small_patch14_dinov2", 192, 30_000, 5)
    if quick:
        s = Sizes(replace(size, batch=8, student_px=112, packed_px=112, grid=8, images=32), s.teacher, 48, 4_000, 2)
    began, told, lines = time.perf_counter(), dict[str, float](), list[str]()

    def measure(title: str, works: dict[str, Work], rounds: int, *more: Any) -> None:
        times = rounds_of(works, rounds, seconds=1200)
        first = next(iter(times.values()))
        told.update({f"{title.split(',')[0]}: {name}": round(of(own, first), 3) for name, own in times.items()})
        lines.extend(found := table(title, times, *more))
        print("\n".join(found), flush=True)

    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder) / "photographs"
        pictures.mkdir()
        measure(
            f"a step, {s.setting.batch} images of {s.setting.student_px} px, ResNet-18, ViT-S/14 as teacher",
            steps(s),
            s.rounds,
        )
        measure(f"reading, {s.photographs} JPEG files of 640 x 480 px", reading(s, pictures), s.rounds)
        measure("a teacher's pass, 64 images, the teacher that ships", passes(s, Path(folder)), s.rounds)
    works, inertia = clusterings(s)
    measure(f"96 clusters, {s.points:,} points of 128", works, min(s.rounds, 3), "inertia", inertia)
    works, trust = flat_maps(s)
    measure(f"flat map, {s.points // 2:,} points of 128", works, 1, "trustworthiness", trust)
    if quick:
        return print(json.dumps(told))
    head = [
        "# Beside other libraries",
        "",
        *(__doc__ or "").split("\n\n")[-1].splitlines(),
        f"Precision of the steps: {chosen}.",
        "",
    ]
    RESULTS.write_text(
        "\n".join([*head, *lines, f"Measured in {(time.perf_counter() - began) / 60:.0f} minutes."]) + "\n"
    )


if __name__ == "__main__":
    main()
