"""A student for use without prockd: weights by timm's names, a torchvision detector, or ONNX; z, and z+ if asked."""

import copy
import inspect
import timeit
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from prockd._extras import needs_extra
from prockd.prototypes.part_maps import PartMaps
from prockd.students.student import Student
from prockd.tasks.task import ExportError
from prockd.writing import refuse_existing, write_file, write_json

EXAMPLES = Path(__file__).with_name("examples")  # files that are copied beside the weights as they are


def export_student(
    student: Student, folder: str | Path, *, format: str = "timm", opset: int = 18, fit: str | None = None,
    white: int = 0, exif: bool = True, augmented: bool = False, overwrite: bool = False,
) -> list[Path]:  # fmt: skip
    """Write the plain student (z, without prototypes) and a script that runs it on a picture, into one folder.

    With ``augmented`` z+ is written beside it, and is what the script tells.

    Args:
        student: any; it is left as and where it is.
        folder: made when missing.
        format: ``"timm"``: ``backbone.safetensors`` by timm's own names, ``head.safetensors`` (adapter and head), the
            code of both (``plain_student.py`` and the file of the head's class), ``student.json`` and
            ``load_student.py``. ``"torchvision"``: a detector of torchvision with those two as its backbone.
            ``"onnx"``: ``student.onnx`` for images (B, 3, S, S) in 0..1, normalisation inside.
        opset: ONNX operator set.
        fit: how the script makes squares of pictures, see :func:`prockd.datasets.pack`; None for what suits the task.
        white: what the script takes for white in pictures of 16 or 32 bits, see :func:`prockd.datasets.read_image`.
        exif: the script turns pictures as their EXIF says.
        augmented: write z+ too: in ONNX as further outputs, ``augmented_...``; with timm, of part maps alone, as
            ``part_maps.safetensors`` and a few lines of numpy that read the plain student's features, ``part_maps.py``.
        overwrite: replace files of the same names.

    Returns:
        The files.

    Raises:
        ExportError: a format that does not suit the task or its z+, a task of your own, z+ of a student that has none,
            or an ONNX graph that computes something else than PyTorch.
        FileExistsError: a file is there already; nothing was written.
        ImportError: onnx is not installed; the message names the extra.

    >>> import tempfile
    >>> from prockd.tasks import Classification
    >>> student = Student("test_convnext", Classification(2, ("cat", "dog")), image_px=32)
    >>> [path.name for path in export_student(student, tempfile.mkdtemp())][:2]
    ['backbone.safetensors', 'head.safetensors']
    """
    if format not in ("timm", "torchvision", "onnx"):
        raise ExportError(f"format={format!r}: choose timm, torchvision, onnx")
    folder, task = Path(folder), student.task
    task.check_format(format)
    if augmented:
        check_augmented(student, format)
    copied = {"load_student.py": EXAMPLES / f"predict_{format}.py", "picture.py": EXAMPLES / "picture.py"}
    weights = ["student.onnx"] if format == "onnx" else ["backbone.safetensors", "head.safetensors"]
    if format != "onnx":
        source = Path(inspect.getfile(type(student.head)))
        copied |= {"plain_student.py": EXAMPLES / "plain_student.py", source.name: source}
        if augmented:
            copied["part_maps.py"] = EXAMPLES / "part_maps.py"
            weights.append("part_maps.safetensors")
    for name in (*weights, "student.json", *copied):
        refuse_existing(folder / name, overwrite)
    facts: dict[str, Any] = {
        "backbone": student.name, "timm_kwargs": student.timm_kwargs, "layers": list(student.layers),
        "image_px": student.image_px, "fit": fit or task.fit, "white": white, "exif": exif,
        "mean": student.mean.flatten().tolist(),
        "std": student.std.flatten().tolist(), "grid": list(student.grid), "embed_dim": student.embed_dim,
        "widths": [width for width, _, _ in student.maps], "classes": list(task.names),
        "task": {"kind": type(task).__name__, **asdict(task)},
    }  # fmt: skip
    if format == "onnx":
        written, more = export_onnx(student, folder, opset, augmented=augmented)
    else:
        written, more = export_weights(student, folder)
        if augmented:
            written, more = [*written, export_part_maps(student, folder)], more | part_map_facts(student)
    written.append(write_json(folder / "student.json", facts | more))
    return [*written, *(write_file(folder / name, source.read_bytes()) for name, source in copied.items())]


def export_weights(student: Student, folder: Path) -> tuple[list[Path], dict[str, Any]]:
    """``backbone.safetensors`` and ``head.safetensors``; what ``student.json`` says of the head."""
    heads = {f"{name}.{k}": v for name in ("adapter", "head") for k, v in getattr(student, name).state_dict().items()}
    states = {folder / "backbone.safetensors": student.backbone.state_dict(), folder / "head.safetensors": heads}
    for path, state in states.items():
        state = {k: v.cpu().clone(memory_format=torch.contiguous_format) for k, v in state.items()}
        write_file(path, safetensors.torch.save(state))
    kind = type(student.head)
    head = {"module": Path(inspect.getfile(kind)).stem, "class": kind.__name__, "arguments": student.head.arguments}
    return [*states], {"head": head}


def check_augmented(student: Student, format: str) -> None:
    """Refuse z+ of a student that has none yet, or in a format without a form for it."""
    augmentation = student.feature_augmentation
    if augmentation is None or student.bank is None:
        raise ExportError(f"{student!r} has no z+: export it without augmented=True")
    if isinstance(augmentation, PartMaps) and augmentation.num_outputs and not augmentation.fitted:
        raise ExportError("the student's part maps are not fitted yet: train it first, pk.distill(student, ...)")
    if format == "torchvision" or (format == "timm" and not isinstance(augmentation, PartMaps)):
        others = "timm or onnx" if isinstance(augmentation, PartMaps) else "onnx"
        raise ExportError(f"{format} has no form for z+ of content {augmentation.content!r}: export it as {others}")


def export_part_maps(student: Student, folder: Path) -> Path:
    """``part_maps.safetensors``: prototypes and their maps, 0 where one is disabled; merged ones are not there."""
    bank, augmentation = student.bank, student.feature_augmentation
    assert bank is not None
    assert isinstance(augmentation, PartMaps)
    there = (bank.merged == torch.arange(len(bank.merged), device=bank.merged.device)).cpu()
    maps = (augmentation.maps * bank.enabled[:, None, None]).cpu()
    weights = {"prototypes": bank.prototypes.cpu()[there], "maps": maps[there]}
    if augmentation.num_outputs:
        weights |= {"bias": augmentation.bias.cpu()}
    else:
        weights |= {name: getattr(augmentation, name).weight.cpu() for name in ("reduce", "spread")}
    weights = {name: value.detach().contiguous().clone() for name, value in weights.items()}
    return write_file(folder / "part_maps.safetensors", safetensors.torch.save(weights))


def part_map_facts(student: Student) -> dict[str, Any]:
    """What ``student.json`` says of part maps."""
    assert isinstance(student.feature_augmentation, PartMaps)
    return {"part_maps": {"temperature": student.feature_augmentation.temperature}}


class Graph(nn.Module):
    """A student as one function of images in 0..1 to tensors: what ONNX holds."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student

    def named(self, images: Tensor) -> dict[str, Tensor]:
        """The outputs that :meth:`prockd.tasks.Task.graph_outputs` names, of z and, where there is one, of z+."""
        output, task = self.student(images), self.student.task
        outputs = task.graph_outputs(output.logits)
        plus = {} if output.augmented_logits is None else task.graph_outputs(output.augmented_logits)
        return outputs | {f"augmented_{name}": value for name, value in plus.items()}

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The same without names."""
        return tuple(self.named(images).values())


def export_onnx(
    student: Student, folder: Path, opset: int, *, augmented: bool = False
) -> tuple[list[Path], dict[str, Any]]:
    """``student.onnx`` for any number of images, checked against PyTorch; what ``student.json`` says of it."""
    with needs_extra("export", "Export as ONNX"):
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401
    plain = copy.deepcopy(student).cpu().eval()
    if not augmented:
        plain.feature_augmentation = None  # z alone: no prototype enters the graph
    elif isinstance(plain.feature_augmentation, PartMaps):
        plain.feature_augmentation.settle()
    images = torch.rand(2, 3, plain.image_px, plain.image_px, generator=torch.Generator().manual_seed(0))
    graph, path, one = Graph(plain), folder / "student.onnx", images[:1]
    with torch.no_grad():
        prediction, wanted = plain(images).logits, graph.named(images)
        try:
            program = torch.onnx.export(
                graph, (images,), input_names=["images"], output_names=list(wanted), opset_version=opset, dynamo=True,
                dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1, max=4096)}}, verbose=False,
            )  # fmt: skip
        except torch.onnx.errors.OnnxExporterError as error:
            raise ExportError(
                f"torch cannot write {student.name} as ONNX: export it as timm (--format timm)"
            ) from error
    assert program is not None
    differences, spent = dict[str, float](), dict[str, float]()

    def write(unfinished: Path) -> None:
        program.save(unfinished, external_data=False)
        onnx.checker.check_model(unfinished)
        session = onnxruntime.InferenceSession(unfinished, providers=["CPUExecutionProvider"])
        differences.update(check_onnx(session, images, wanted))
        runs = {"onnx": lambda: session.run(None, {"images": one.numpy()}), "pytorch": lambda: graph(one)}
        spent.update({name: round(1e3 * min(timeit.repeat(run, number=1)), 3) for name, run in runs.items()})

    written = [write_file(path, write)]
    for name, value in plain.task.graph_constants(prediction).items():
        array = value.numpy()
        written.append(write_file(folder / f"{name}.npy", partial(np.save, arr=array)))
    return written, {
        "opset": opset, "input": "images (B, 3, S, S) float32, RGB in 0..1; normalisation is inside",
        "outputs": list(wanted), "largest_difference_from_pytorch": differences,
        "milliseconds_of_one_image": spent,
    }  # fmt: skip


def check_onnx(session: Any, images: Tensor, wanted: Mapping[str, Tensor]) -> dict[str, float]:
    """The largest difference of each output from PyTorch's, over the images and one alone; above 1e-4 refused."""
    largest = dict.fromkeys(wanted, 0.0)
    for count in (len(images), 1):
        outputs = session.run(list(wanted), {"images": images[:count].numpy()})
        for (name, value), output in zip(wanted.items(), outputs, strict=True):
            scale = max(1.0, float(value.abs().max()))
            largest[name] = max(largest[name], float(np.abs(output - value[:count].numpy()).max()) / scale)
    worst = max(largest, key=lambda name: largest[name])
    if not largest[worst] <= 1e-4:  # of values in the order of 1
        raise ExportError(f"the ONNX graph's {worst} differs from PyTorch by {largest[worst]:.2g}, more than 0.0001")
    return largest
