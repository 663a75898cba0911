"""What is lost between a teacher's own pass and what is stored: by replaying crops, in fewer bits, in fewer directions.

    python benchmarks/crops.py [teacher.safetensors]     # writes results/crops.md, about ten minutes on a CPU
    python benchmarks/crops.py --quick                   # 20 fresh images, replaying alone, one line of JSON: a minute

Every number is a cosine of two vectors of one patch: Farmyard's teacher, pictures of its target species.
"""

import json
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import prockd as pk
from prockd.evaluation.parts import part_agreement, patch_parts
from prockd.farmyard import PARTS
from prockd.students.student import Student
from prockd.teachers.passes import VIEWS
from prockd.training.batches import Source

RESULTS = Path(__file__).parent / "results" / "crops.md"
MIN_CROPS = (1.0, 0.9, 0.7, 0.5, 0.3)
SEEDS = 2


def replayed(teacher: pk.Teacher, features: pk.PatchFeatures, bank: pk.PrototypeBank | None) -> dict[float, np.ndarray]:
    """Cosines of patches of replayed crops with those of the teacher's passes of the crops, by the smallest crop."""
    images, cpu = features.images, torch.device("cpu")
    student = Student("resnet10t", pk.tasks.Classification(10), bank, channels=(16, 40, 80, 128), stem_width=8)
    cosines = {}
    for min_crop in MIN_CROPS:
        sources = [Source(images, seen, bank, min_crop=min_crop) for seen in (features, teacher)]
        parts = []
        for start in range(0, len(images), 50):
            rows = np.arange(start, min(start + 50, len(images)))
            crops = sources[0].crops(rows, torch.Generator().manual_seed(start))
            stored, exact = (source.batch(rows, crops, student, cpu).teacher for source in sources)
            parts.append(F.cosine_similarity(stored, exact, dim=1).flatten())
        cosines[min_crop] = torch.cat(parts).numpy()
    return cosines


def kept(teacher: pk.Teacher, images: pk.Farmyard, bank: pk.PrototypeBank, root: Path) -> list[str]:
    """A row for each form in which features are kept: their size, and what of it a bank and a discovery still see."""
    source, whole = pk.Farmyard("source", "unlabelled", 300, image_px=teacher.image_px), np.arange(len(images))
    val = pk.Farmyard("target", "val", 200, image_px=teacher.image_px)
    maps = pk.extract(teacher, images, precision="fp32", root=root)
    judged = pk.extract(teacher, val, views=("plain",), root=root)
    parts = patch_parts(np.asarray(judged.images.parts), judged.grid, len(PARTS))
    true_u = bank.read(maps, whole)
    forms: dict[str, tuple[pk.PatchFeatures | pk.EmbeddedFeatures, int]] = {
        "every layer, 16 bits: `extract`": (maps, sum(m[0, 0].nbytes for m in maps.maps)),
    }
    for rank in (128, 256):
        compact = pk.extract_compact(teacher, images, rank=rank, views=maps.views, precision="fp32", root=root)
        forms[f"{rank} directions, 8 bits: `extract_compact`"] = (compact, compact.codes[0, 0].nbytes)
    embedded = pk.embed_features(bank, teacher, images, precision="fp32", root=root)
    forms["u, 16 bits: `embed_features`"] = (embedded, embedded.maps[0, 0].nbytes)
    lines = []
    for name, (form, size) in forms.items():
        u, fused, purity = F.cosine_similarity(bank.read(form, whole), true_u, dim=2), "", ""
        if isinstance(form, pk.PatchFeatures):
            fused = f"{F.cosine_similarity(form.fused(whole), maps.fused(whole), dim=1).mean():.4f}"
            keep = (
                partial(pk.extract_compact, rank=form.codes.shape[2])
                if isinstance(form, pk.CompactFeatures)
                else pk.extract
            )
            seen = keep(teacher, source, views=VIEWS, root=root)
            found = [pk.discover(seen, config=pk.DiscoverConfig(num_prototypes=96, seed=seed)) for seed in range(SEEDS)]
            told = [
                part_agreement(b.assignments(judged).argmax(-1).numpy(), parts, 96, len(PARTS)).purity for b in found
            ]
            purity = ", ".join(f"{p:.3f}" for p in told)
        lines.append(f"| {name} | {size / 1e3:.0f} | {fused} | {u.mean():.4f} | {u.min():.4f} | {purity} |")
    return lines


def quick() -> dict[str, object]:
    """Replayed crops of images that nobody has seen, in the teacher's features: mean cosine by the smallest crop."""
    began, seed = time.perf_counter(), time.time_ns() // 10**6 % 10**6
    teacher = pk.Teacher("farmyard")
    images = pk.Farmyard("target", "val", 20, image_px=teacher.image_px, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        features = pk.extract(teacher, images, precision="fp32", root=Path(folder), progress=False)
        fused = {str(c): round(float(seen.mean()), 4) for c, seen in replayed(teacher, features, None).items()}
    return {"seed": seed, "cosine": fused, "seconds": round(time.perf_counter() - began)}


def main() -> None:
    """Measure, print and write the page."""
    if "--quick" in sys.argv:
        print(json.dumps(quick()))
        return
    teacher = pk.Teacher("farmyard", weights=sys.argv[1] if sys.argv[1:] else None)
    images = pk.Farmyard("target", "test", 100, image_px=teacher.image_px)
    source = pk.Farmyard("source", "unlabelled", 600, image_px=teacher.image_px)
    bank = pk.discover(pk.extract_compact(teacher, source), num_prototypes=48)
    lines = ["# Stored features against the teacher's own pass", ""]
    lines += [f"Made by `python benchmarks/{' '.join(['crops.py', *sys.argv[1:]])}`: {teacher}.", ""]
    with tempfile.TemporaryDirectory() as folder:
        kinds = {p: pk.extract(teacher, images, precision=p, root=Path(folder)) for p in ("fp32", "bf16")}
        features = kinds["fp32"]
        lines += ["| smallest crop | mean cosine of fused features | of u, in the prototypes' space | worst of u |"]
        lines += ["|---|---|---|---|"]
        fused, u = replayed(teacher, features, None), replayed(teacher, features, bank)
        lines += [f"| {c} | {fused[c].mean():.3f} | {u[c].mean():.3f} | {u[c].min():.3f} |" for c in MIN_CROPS]
        lines += ["", "| precision | mean cosine with fp32 | worst |", "|---|---|---|"]
        whole = features.fused(range(len(images)))
        cosine = F.cosine_similarity(whole, kinds["bf16"].fused(range(len(images))), dim=1)
        lines += [f"| bf16 | {cosine.mean():.6f} | {cosine.min():.6f} |"]
        lines += [
            "",
            "The directions are those of 48 images of each set. Purity is of 96 prototypes found in 300 images of",
        ]
        lines += [f"the source, told on 200 validation images: one number for each of {SEEDS} seeds of discovery.", ""]
        lines += ["| what is kept | KB an image and view | cosine of fused features | of u | worst of u | purity |"]
        lines += ["|---|---|---|---|---|---|", *kept(teacher, images, bank, Path(folder))]
    RESULTS.write_text("\n".join([*lines, ""]))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
