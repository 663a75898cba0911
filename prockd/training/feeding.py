"""What coming steps read, made ready by a thread while the device still works on the steps before."""

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.profiler import profile, record_function, schedule

from prockd.devices import made_ahead, map_tensors
from prockd.writing import write_file

T = TypeVar("T")

AHEAD = 2
"""Steps that are ready before they are asked for."""

PROFILED = 20
"""Steps that a profile is of, those after the second."""

RESIDENT_SHARE = 0.25
"""Of the free memory of a GPU: what takes no more stays there, and a step uploads the numbers of its images alone."""


def fed(make: Callable[[int], T], steps: Iterable[int], device: torch.device) -> Generator[T, None, None]:
    """What ``make`` gives for one step after the other; of a GPU by a thread, some steps ahead, on a stream of its own.

    An error of ``make`` is raised where its step is asked for. A CPU has nothing to hide the work behind.
    """

    def read(step: int) -> T:
        with record_function("read"):
            return make(step)

    if device.type != "cuda":
        yield from map(read, steps)
        return
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))

    def made(step: int) -> tuple[T, torch.cuda.Event]:
        with torch.cuda.device(device), torch.cuda.stream(stream):
            return read(step), stream.record_event()

    with closing(made_ahead(made, steps, 1, AHEAD)) as feeds:
        for value, ready in feeds:
            yield _handed_over(value, ready, device)


def profiled(feeds: Iterable[T], folder: Path) -> Generator[T, None, None]:
    """The same, and where some steps' time went: ``profile.txt``, a table, and ``trace.json``, for Chrome's tracing."""

    def tell(own: profile) -> None:
        table = own.key_averages().table("self_cpu_time_total", row_limit=50, max_name_column_width=50)
        write_file(folder / "profile.txt", table)
        write_file(folder / "trace.json", lambda path: own.export_chrome_trace(str(path)))

    with profile(schedule=schedule(wait=1, warmup=1, active=PROFILED, repeat=1), on_trace_ready=tell) as own:
        for feed in feeds:
            yield feed
            own.step()


def _handed_over(value: T, ready: "torch.cuda.Event", device: torch.device) -> T:
    """What the thread made, for the stream that learns: it waits for it, this program does not."""
    stream = torch.cuda.current_stream(device)
    stream.wait_event(ready)

    def used_here(tensor: Tensor) -> Tensor:
        if tensor.is_cuda:
            tensor.record_stream(stream)  # or its memory would be given away before it is read
        return tensor

    map_tensors(used_here, value)
    return value


def take(array: np.ndarray, rows: np.ndarray, device: torch.device) -> Tensor:
    """Rows of an array that may lie on the disk, copied once; for a GPU into pinned memory, and from there unwaited."""
    kind = torch.from_numpy(np.empty(0, array.dtype)).dtype
    found = torch.empty((len(rows), *array.shape[1:]), dtype=kind, pin_memory=device.type == "cuda")
    with record_function("copy"):
        np.take(array, rows, 0, found.numpy(), mode="clip")  # any other mode takes a copy first
        return found.to(device, non_blocking=True)


def has_room(num_bytes: int, device: torch.device) -> bool:
    """Whether so much may stay on a device for a whole run."""
    return device.type == "cuda" and num_bytes <= RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]
