"""Several processes that train one student: each sees its share of a batch, the loss is that of the whole batch."""

import atexit
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from prockd.devices import default_device
from prockd.teachers.stored import MissingShardsError, Share

T = TypeVar("T")

LONGEST_WAIT = timedelta(days=7)
"""For what another process packs or extracts; one that is gone is no longer waited for."""


@dataclass(frozen=True)
class Processes:
    """Who takes part; with a count of 1 everything below does nothing."""

    rank: int  # number of this process; 0, the main one, writes files and shows bars
    count: int
    device: torch.device  # of this process

    @property
    def is_main(self) -> bool:
        """Whether this is process 0."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """The rows of so many that are this process's own; ValueError where one of the processes would have none."""
        if count < self.count:
            raise ValueError(
                f"{count} images in a step for {self.count} processes: each needs one, so raise distill.batch_size "
                f"(and unlabelled_batch, where it is not 0) to {self.count} at least, or start fewer processes"
            )
        return slice(self.rank, None, self.count)

    def gather(self, mine: Tensor, *sizes: int) -> Tensor:
        """The rows of a whole batch of joined parts, each ``sizes`` long, of which each process has every count-th."""
        if self.count == 1:
            return mine
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        rows = [start + torch.arange(self.rank, size, self.count) for start, size in zip(starts, sizes, strict=True)]
        whole: Tensor = _Gather.apply(mine, torch.cat(rows).to(mine.device), sum(sizes))
        return whole

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their means over processes, in one message."""
        if self.count > 1 and tensors:
            flat = torch.cat([tensor.flatten() for tensor in tensors])
            dist.all_reduce(flat)
            parts = torch.split(flat / self.count, [tensor.numel() for tensor in tensors])
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def once(self, make: Callable[[], T]) -> T:
        """What the main process makes, given to all."""
        answer: list[Any] = [make() if self.is_main else None]
        if self.count > 1:
            dist.broadcast_object_list(answer, src=0)
        result: T = answer[0]
        return result

    def any(self, mine: bool) -> bool:
        """Whether it holds in one of the processes."""
        if self.count == 1:
            return mine
        dist.all_reduce(flag := torch.tensor(int(mine)), dist.ReduceOp.MAX)  # on the CPU: no wait for a GPU
        return bool(flag)

    def by_shares(self, make: Callable[[Share], T]) -> T:
        """What all make together: each its share of the shards; once all have, each opens the whole."""
        share = Share(self.rank + 1, self.count)
        if self.count > 1:
            with suppress(MissingShardsError):
                make(share)
            self.any(False)  # waits until all are here
        return make(share)

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process goes through first, so that the others find its files."""
        # no wait_for_everyone, no barrier(device_ids=): those ask for a GPU where there is one, whatever was asked
        if not self.is_main:
            self.once(lambda: None)
        try:
            yield
        finally:
            if self.is_main:
                self.once(lambda: None)


def connect(*, cpu: bool = False) -> Processes:
    """This process among those that ``torchrun --nproc_per_node N`` started, or alone.

    Processes stay connected until they end: by NCCL on GPUs, else by gloo, which carries tensors of the CPU only.
    """
    device, several = default_device(cpu=cpu), int(os.environ.get("WORLD_SIZE", 1)) > 1
    device = device if device.type == "cuda" or not several else torch.device("cpu")
    if several and not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=LONGEST_WAIT)
        atexit.register(disconnect)
    rank, count = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    return Processes(rank, count, device)


def disconnect() -> None:
    """Leave the others, if there are any; happens by itself at the end of a process."""
    if dist.is_initialized():
        dist.destroy_process_group()


class _Gather(torch.autograd.Function):
    """All rows of a batch. Every process computes the same loss from them, so no gradient need be sent back.

    Gradients of own rows are multiplied by the count, by which :meth:`Processes.average` divides: then parameters used
    before the gathering and after it both get the gradient of one process with the whole batch.
    """

    @staticmethod
    def forward(ctx: Any, mine: Tensor, rows: Tensor, total: int) -> Tensor:
        ctx.rows = rows
        whole = mine.new_zeros(total, *mine.shape[1:]).index_copy_(0, rows, mine)
        dist.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0][ctx.rows] * dist.get_world_size(), None, None
