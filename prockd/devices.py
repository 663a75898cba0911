"""Where things are computed: one default device, modules that come back from it, random states left alone."""

import dataclasses
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Item = TypeVar("Item")
Made = TypeVar("Made")

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""What ``torch.autocast`` computes in, by the names of the knobs."""


def default_device(*, cpu: bool = False) -> torch.device:
    """The accelerator, cuda (of several processes each its own GPU) or mps; the CPU without one, or with ``cpu``."""
    device = None if cpu else torch.accelerator.current_accelerator(check_available=True)
    if device is None:
        return torch.device("cpu")
    if device.type == "cuda" and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    return device


def device_for(module: nn.Module, device: str | torch.device | None = None) -> torch.device:
    """Where to run a module: as asked, else where it is if that is an accelerator, else on the default device."""
    if device is not None:
        return torch.device(device)
    home = next(module.parameters()).device
    return default_device() if home.type == "cpu" else home


@contextmanager
def on_device(device: torch.device, *modules: nn.Module) -> Iterator[None]:
    """Modules are on a device inside, and afterwards each part of them where it was, whatever happened."""
    homes: dict[nn.Module, torch.device] = {}
    for part in (part for module in modules for part in module.modules()):
        for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
            homes[part] = tensor.device
    try:
        for module in modules:
            module.to(device)
        yield
    finally:
        for part, home in homes.items():  # parents come before their children, which may live elsewhere
            part.to(home)


def fastest_precision(device: torch.device) -> str:
    """What a frozen network computes fastest in and nearly as exactly: bf16 where the chip has units for it."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    # torch has no public name for what the CPU can; where a version lacks these, fp32 is right, only slower
    tells = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return "bf16" if device.type == "cpu" and any(tell is not None and tell() for tell in tells) else "fp32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Passes inside compute in "bf16" or "fp16"; with "fp32" or "no" as they are."""
    kind = PRECISIONS.get(precision, torch.float32)
    return nullcontext() if kind == torch.float32 else torch.autocast(device.type, kind)


def full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Inside, autocast is off, where the device knows it."""
    return torch.autocast(device.type, enabled=False) if torch.amp.is_autocast_available(device.type) else nullcontext()


@contextmanager
def cast_weights(module: nn.Module, precision: str) -> Iterator[None]:
    """Weights that autocast would cast anew in each pass are kept cast inside, and afterwards as they were."""
    kind, before = PRECISIONS[precision], dict[nn.Parameter, Tensor]()
    for part in module.modules() if kind != torch.float32 else ():
        if type(part) in (nn.Linear, nn.Conv2d):  # heirs may compute with their weights before they are cast
            before |= {parameter: parameter.data for parameter in part.parameters(recurse=False)}
    try:
        for parameter, data in before.items():
            parameter.data = data.to(kind)
        yield
    finally:
        for parameter, data in before.items():
            parameter.data = data


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the CPU's allocator, had no room: a smaller batch may fit."""
    full = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error).lower() for words in full)
    )


@contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """Torch's global generators, of the CPU and of this device, are afterwards as they were found."""
    own = [] if device.type in ("cpu", "meta") else [torch.accelerator.current_device_index()]
    with torch.random.fork_rng(own, device_type=device.type if own else "cuda"):
        yield


def seed_global(seed: int, device: torch.device) -> None:
    """Seed what :func:`random_state_kept` keeps; ``torch.manual_seed`` would seed all other GPUs too."""
    torch.default_generator.manual_seed(seed)
    if device.type not in ("cpu", "meta"):
        torch.get_device_module(device).manual_seed(seed)


def map_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Apply a function to every tensor in lists, tuples, dictionaries and dataclasses; the rest stays as it is."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, list | tuple):
        return type(value)(map_tensors(function, one) for one in value)
    if isinstance(value, dict):
        return {name: map_tensors(function, one) for name, one in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **map_tensors(function, fields))
    return value


def made_ahead(
    make: Callable[[Item], Made], items: Iterable[Item], threads: int, ahead: int
) -> Generator[Made, None, None]:
    """What ``make`` gives for each item, in their order, so many of them made by threads before they are asked for.

    An error is raised where its item is asked for; without threads nothing is made ahead.
    """
    if not threads:
        yield from map(make, items)
        return
    pool, waiting = ThreadPoolExecutor(threads, "prockd-ahead"), deque[Future[Made]]()
    try:
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
