"""Several processes that train one student: each sees its share of a batch, the loss is that of the whole batch."""

import atexit
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from prockd.devices import default_device

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """Who takes part; with a count of 1 everything below does nothing.

    Attributes:
        rank: number of this process, 0 for the main one.
        count: how many there are.
        device: of this process.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and shows bars."""
        return self.rank == 0

    def share(self, total: int) -> np.ndarray:
        """Which rows of a batch belong to this process: every ``count``-th."""
        return np.arange(self.rank, total, self.count)

    def gather(self, mine: Tensor, rows: np.ndarray, total: int) -> Tensor:
        """The tensor of the whole batch, from the rows of each process; gradients flow back to this process's rows."""
        if self.count == 1:
            return mine
        whole: Tensor = _Gather.apply(mine, torch.from_numpy(rows).to(mine.device), total)
        return whole

    def average(self, tensors: list[Tensor]) -> None:
        """Replace tensors by their means over processes, in one message."""
        if self.count > 1 and tensors:
            flat = torch.cat([tensor.flatten() for tensor in tensors])
            dist.all_reduce(flat)
            parts = (flat / self.count).split([tensor.numel() for tensor in tensors])
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def any(self, flag: bool) -> bool:
        """Whether it is so in any process; every process must ask."""
        if self.count == 1:
            return flag
        flags = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(flags)
        return bool(flags)

    def once(self, make: Callable[[], T]) -> T:
        """What the main process makes, given to all; what it raises ends all."""
        if self.count == 1:
            return make()
        answer: list[Any] = [None, None]
        if self.is_main:
            try:
                answer[0] = make()
            except Exception as error:
                answer[1] = error
        dist.broadcast_object_list(answer, src=0)
        if answer[1] is not None:
            raise answer[1]
        result: T = answer[0]
        return result

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process goes through first, so that the others find its files; no device takes part in waiting."""
        try:
            if not self.is_main:
                self.once(lambda: None)
            yield
        finally:
            if self.is_main:
                self.once(lambda: None)


def connect(*, cpu: bool = False) -> Processes:
    """This process among those that ``torchrun --nproc_per_node N`` started; one that was started alone is alone.

    Processes stay connected until they end, by gloo with ``cpu`` or without GPUs, else by NCCL.
    """
    several, device = int(os.environ.get("WORLD_SIZE", 1)) > 1, default_device(cpu=cpu)
    if several and device.type != "cuda":  # gloo carries tensors of the CPU
        device = torch.device("cpu")
    if several and not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        atexit.register(lambda: dist.is_initialized() and dist.destroy_process_group())
    if not dist.is_initialized():
        return Processes(0, 1, device)
    return Processes(dist.get_rank(), dist.get_world_size(), device)


class _Gather(torch.autograd.Function):
    """All rows of a batch. Every process computes the same loss from them, so no gradient need be sent back.

    The gradient of own rows is multiplied by the number of processes, as :meth:`Processes.average` will divide by it:
    so parameters used before and after the gathering both get the gradient of one process with the whole batch.
    """

    @staticmethod
    def forward(ctx: Any, mine: Tensor, rows: Tensor, total: int) -> Tensor:
        ctx.rows = rows
        whole = mine.new_zeros(total, *mine.shape[1:])
        whole[rows] = mine
        dist.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0][ctx.rows] * dist.get_world_size(), None, None


def norm_statistics(model: nn.Module) -> list[Tensor]:
    """Running means and variances of batch norms, which each process takes over its own images."""
    return [buffer for name, buffer in model.named_buffers() if "running_" in name]
