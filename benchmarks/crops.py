"""What is lost between a teacher's own pass and the stored features: by replaying crops on maps, and by half precision.

    python benchmarks/crops.py     # writes results/crops.md, about two minutes on a CPU

Every number is a cosine of two vectors of one patch: Farmyard's teacher, pictures of its target species.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import prockd as pk
from prockd.students.student import Student
from prockd.training.batches import Source

RESULTS = Path(__file__).parent / "results" / "crops.md"
MIN_CROPS = (1.0, 0.9, 0.7, 0.5, 0.3)


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
            crops = sources[0].crops(len(rows), torch.Generator().manual_seed(start))
            stored, exact = (source.batch(rows, crops, student, cpu).teacher for source in sources)
            parts.append(F.cosine_similarity(stored, exact, dim=1).flatten())
        cosines[min_crop] = torch.cat(parts).numpy()
    return cosines


def main() -> None:
    """Measure, print and write the page."""
    teacher, images = pk.Teacher("farmyard"), pk.Farmyard("target", "test", 300)
    bank = pk.discover(pk.extract(teacher, pk.Farmyard("source", "unlabelled", 600)), num_prototypes=48)
    lines = ["# Stored features against the teacher's own pass", "", "Made by `python benchmarks/crops.py`.", ""]
    with tempfile.TemporaryDirectory() as folder:
        kinds = {p: pk.extract(teacher, images, precision=p, root=Path(folder)) for p in ("fp32", "bf16", "fp16")}
        features = kinds["fp32"]
        lines += ["| smallest crop | mean cosine of fused features | of u, in the prototypes' space | worst of u |"]
        lines += ["|---|---|---|---|"]
        fused, u = replayed(teacher, features, None), replayed(teacher, features, bank)
        lines += [f"| {c} | {fused[c].mean():.3f} | {u[c].mean():.3f} | {u[c].min():.3f} |" for c in MIN_CROPS]
        lines += ["", "| precision | mean cosine with fp32 | worst |", "|---|---|---|"]
        whole = features.fused(range(len(images)))
        for precision in ("bf16", "fp16"):
            cosine = F.cosine_similarity(whole, kinds[precision].fused(range(len(images))), dim=1)
            lines += [f"| {precision} | {cosine.mean():.6f} | {cosine.min():.6f} |"]
    RESULTS.write_text("\n".join([*lines, ""]))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
