"""The plain student for use without prockd: weights by timm's names, a torchvision detector, or an ONNX graph."""

import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from prockd._extras import needs_extra
from prockd.students.student import Student
from prockd.tasks import Classification, Detection, Segmentation, detectors
from prockd.tasks.classification import PooledLinear
from prockd.tasks.segmentation import ConvHead

TOLERANCE = 1e-4
"""Largest difference between ONNX and PyTorch that is let through, of values in the order of 1."""


class ExportError(ValueError):
    """A student cannot be written in this form; the message says why and which form does."""


def export_student(
    student: Student, folder: str | Path, *, format: str = "timm", opset: int = 18, fit: str | None = None
) -> list[Path]:
    """Write the plain student (z, without prototypes) and an example that loads it, into one folder.

    Args:
        student: any; it is left as it is.
        folder: made when missing; files of the same names are replaced.
        format: ``"timm"``: ``backbone.safetensors`` by timm's own names, ``head.safetensors`` (adapter and head),
            ``student.json`` and ``load_student.py``. ``"torchvision"``: a detector of torchvision with those two as its
            backbone. ``"onnx"``: ``student.onnx`` for images (B, 3, S, S) in 0..1, normalisation inside.
        opset: ONNX operator set.
        fit: how the example makes squares of pictures, see :func:`prockd.datasets.pack`; None for what suits the task.

    Returns:
        The files.

    Raises:
        ExportError: a format that does not suit the task, a task of your own, or an ONNX graph that computes something
            else than PyTorch.
        ImportError: onnx is not installed; the message names the extra.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if type(student.task) not in (Classification, Segmentation, Detection):
        raise ExportError(f"{type(student.task).__name__} is a task of your own: export its head yourself")
    if format == "onnx" and isinstance(student.task, Detection) and student.task.detector == "fasterrcnn":
        raise ExportError(
            "Faster R-CNN looks twice, which no plain graph does: export it as torchvision, or train fcos"
        )
    if fit is None:
        fit = "crop" if isinstance(student.task, Classification) else "pad"
    was_training, device = student.training, next(student.parameters()).device
    student.eval().cpu()
    try:
        if format == "onnx":
            return export_onnx(student, folder, opset, fit)
        return export_weights(student, folder, format, fit)
    finally:
        student.train(was_training).to(device)


def about(student: Student, fit: str) -> dict[str, Any]:
    """All that is needed to make the student again, in terms of JSON."""
    task = student.task
    facts: dict[str, Any] = {
        "backbone": student.name, "timm_kwargs": student.timm_kwargs, "layers": list(student.layers),
        "image_px": student.image_px, "fit": fit, "mean": student.mean.flatten().tolist(),
        "std": student.std.flatten().tolist(),
        "grid": list(student.grid), "widths": [width for width, _, _ in student.maps], "embed_dim": student.embed_dim,
        "task": type(task).__name__, "classes": list(task.classes) or list(map(str, range(task.num_classes))),
    }  # fmt: skip
    if isinstance(task, Classification):
        facts["multi_label"] = task.multi_label
    elif isinstance(task, Segmentation):
        facts["head_width"] = task.width
    elif isinstance(task, Detection):
        facts |= {"head_width": task.width, "num_levels": task.num_levels, "detector": task.detector}
    return facts


def export_weights(student: Student, folder: Path, format: str, fit: str) -> list[Path]:
    """``backbone.safetensors``, ``head.safetensors``, ``student.json``, ``load_student.py``."""
    if format == "torchvision" and not isinstance(student.task, Detection):
        kind = type(student.task).__name__
        raise ExportError(f"torchvision's models are for detection; export {kind} as timm or onnx")
    if format not in ("timm", "torchvision"):
        raise ExportError(f"format={format!r}: choose timm, torchvision or onnx")
    parts = {"backbone.safetensors": student.backbone.state_dict()}
    parts["head.safetensors"] = {
        f"{name}.{k}": v for name in ("adapter", "head") for k, v in getattr(student, name).state_dict().items()
    }
    written = []
    for name, state in parts.items():
        safetensors.torch.save_file({k: v.contiguous() for k, v in state.items()}, folder / name)
        written.append(folder / name)
    facts = json.dumps(about(student, fit), indent=2, ensure_ascii=False) + "\n"
    for name, text in (("student.json", facts), ("load_student.py", example(student, format))):
        (folder / name).write_text(text, encoding="utf-8")
        written.append(folder / name)
    return written


def example(student: Student, format: str) -> str:
    """A script that needs timm and torch alone: the student's own head in plain PyTorch, and how to use it."""
    task = type(student.task).__name__
    if isinstance(student.task, Detection):
        head = without_shapes(inspect.getsource(detectors)).partition("import torch\n")[2]
        imports = "from collections import OrderedDict\nfrom dataclasses import dataclass\n"
    else:
        head = without_shapes(inspect.getsource(PooledLinear if isinstance(student.task, Classification) else ConvHead))
        imports = ""
    pieces = templates()
    use = pieces["Torchvision" if format == "torchvision" else task]
    return pieces["Shared"].replace("# IMPORTS\n", imports).replace("# HEAD\n", head.strip() + "\n") + use


def templates() -> dict[str, str]:
    """The pieces that examples are made of, by name."""
    text = Path(__file__).with_name("export_example.py.txt").read_text(encoding="utf-8")
    shared, *parts = re.split(r"^# --- (\w+) ---\n", text, flags=re.MULTILINE)
    pieces = {"Shared": shared} | dict(zip(parts[::2], parts[1::2], strict=True))
    return {name: piece.replace("# PICTURE\n", pieces["Picture"]) for name, piece in pieces.items()}


def without_shapes(source: str) -> str:
    """Source code with plain tensors for annotations, so that it needs neither jaxtyping nor prockd."""
    source = re.sub(r'\b(?:Float|Int)\[Tensor, "[^"]*"\]', "Tensor", source)
    return re.sub(r"^from jaxtyping import .*\n", "", source, flags=re.MULTILINE)


class Graph(nn.Module):
    """The plain student as one function of images in 0..1 to tensors: what ONNX holds."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Class scores; or of a detector its class scores, box deltas and, for FCOS, centredness at every place."""
        prediction = self.student(images).logits
        return tuple(prediction.outputs.values()) if isinstance(prediction, detectors.RawBoxes) else (prediction,)


def export_onnx(student: Student, folder: Path, opset: int, fit: str) -> list[Path]:
    """``student.onnx`` for any number of images, checked against PyTorch, and ``student.json``."""
    with needs_extra("export", "Export as ONNX"):
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401
    facts, S = about(student, fit), student.image_px
    names, anchors = ["logits"], None
    images = torch.rand(2, 3, S, S, generator=torch.Generator().manual_seed(0))
    augmentation, student.feature_augmentation = (
        student.feature_augmentation,
        None,
    )  # z alone: no prototype enters the graph
    try:
        graph = Graph(student).eval()
        with torch.no_grad():
            wanted = graph(images)
            if isinstance(student.task, Detection):
                raw = student(images[:1]).logits
                names, anchors = list(raw.outputs), raw.head.anchors(raw)[0]
        path = folder / "student.onnx"
        program = torch.onnx.export(
            graph, (images,), input_names=["images"], output_names=names, opset_version=opset, dynamo=True,
            dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1, max=4096)}}, verbose=False,
        )  # fmt: skip
    finally:
        student.feature_augmentation = augmentation
    assert program is not None
    program.save(path, external_data=False)
    onnx.checker.check_model(path)
    facts |= {"opset": opset, "input": "images (B, 3, S, S) float32, RGB in 0..1; normalisation is inside",
              "outputs": names}  # fmt: skip
    differences = check_onnx(onnxruntime, path, images, dict(zip(names, wanted, strict=True)))
    facts["largest_difference_from_pytorch"] = differences
    written = [path, folder / "student.json", folder / "load_student.py"]
    if anchors is not None:
        np.save(folder / "anchors.npy", anchors.numpy())
        written.append(folder / "anchors.npy")
    written[1].write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    written[2].write_text(templates()["Onnx"], encoding="utf-8")
    return written


def check_onnx(onnxruntime: Any, path: Path, images: Tensor, wanted: Mapping[str, Tensor]) -> dict[str, float]:
    """Run the graph on the images and on one of them alone; returns the largest difference of each output.

    Raises:
        ExportError: it differs from PyTorch by more than ``TOLERANCE`` (of values in the order of 1).
    """
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    largest = dict.fromkeys(wanted, 0.0)
    for count in (len(images), 1):
        found = session.run(list(wanted), {"images": images[:count].numpy()})
        for (name, value), got in zip(wanted.items(), found, strict=True):
            scale = max(1.0, float(value.abs().max()))
            largest[name] = max(largest[name], float(np.abs(got - value[:count].numpy()).max()) / scale)
    worst = max(largest, key=lambda name: largest[name])
    if not largest[worst] <= TOLERANCE:
        raise ExportError(f"{path}: {worst} differs from PyTorch by {largest[worst]:.2g}, more than {TOLERANCE}")
    return largest
