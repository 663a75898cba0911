"""Prototypes that a teacher learned together with its weights: they lie in the same file, under names of their own."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from prockd.prototypes.bank import PrototypeBank
from prockd.teachers.teacher import Teacher
from prockd.teachers.weights import CLUSTERING, WeightsError, read_metadata, read_weights
from prockd.untrusted import RefusedError, fields, number, reading


@torch.no_grad()
def assign_by_cosine(bank: PrototypeBank, temperature: float) -> PrototypeBank:
    """Make the assignment of a bank softmax(cosine(u, c) / temperature), which is what clustering learned."""
    bank.prototypes.copy_(F.normalize(bank.prototypes, dim=1))
    bank.assigner.weight.copy_(bank.prototypes / temperature)
    bank.assigner.bias.zero_()
    return bank.requires_grad_(True).eval()


def cluster_tensors(bank: PrototypeBank) -> dict[str, Tensor]:
    """W_c and prototypes by the names that they have in a teacher's file."""
    tensors = {"fuse.weight": bank.fuse.weight, "fuse.bias": bank.fuse.bias, "prototypes": bank.prototypes}
    return {f"{CLUSTERING}{name}": tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def read_clusters(path: str | Path, teacher: Teacher) -> PrototypeBank | None:
    """The prototypes in a teacher's file, as a bank of this teacher; None where the file has none.

    W_c and prototypes are those that the teacher learned with, and the assignment is softmax(cosine / temperature); the
    descriptor's projection and T are not learned: :func:`prockd.prototypes.discovery.train_bank` does that.

    Args:
        path: what ``prockd train-teacher`` or ``prockd adapt-teacher`` wrote.
        teacher: the teacher opened from it.

    Raises:
        WeightsError: the file is missing or damaged, or the teacher reads other layers than it learned with.
    """
    state, path = read_weights(Path(path)), Path(path)
    if f"{CLUSTERING}prototypes" not in state:
        return None
    with reading(path, "a teacher with prototypes", WeightsError, "make it again with train-teacher or adapt-teacher"):
        prototypes, weight, bias = (state[CLUSTERING + name] for name in ("prototypes", "fuse.weight", "fuse.bias"))
        if weight.ndim != 2 or bias.shape != weight.shape[:1] or prototypes.shape[1:] != weight.shape[:1]:
            raise RefusedError("W_c and its prototypes have other widths")
        if weight.shape[1] != sum(teacher.widths):
            raise WeightsError(
                f"the prototypes in {path} read {weight.shape[1]} values a patch, but {teacher!r} gives "
                f"{sum(teacher.widths)}: open it with the layers that it learned with"
            )
        told = fields(read_metadata(path)["clustering"], {"temperature": number(1e-3, 100)}, where="clustering")
        bank = PrototypeBank(len(prototypes), weight.shape[1], weight.shape[0], teacher=teacher.fingerprint)
        with torch.no_grad():
            for own, stored in ((bank.fuse.weight, weight), (bank.fuse.bias, bias), (bank.prototypes, prototypes)):
                own.copy_(stored)
        return assign_by_cosine(bank, told["temperature"])
