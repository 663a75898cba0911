"""A second device where there is none: tensors that lie on ``meta`` and yet hold numbers.

They refuse what CUDA and mps refuse: to meet tensors of the CPU, to become NumPy arrays, and (as on mps) float64.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

AWAY = torch.device("meta")


class _Away(torch.Tensor):
    """A tensor of the fake device; its numbers lie in ``here``, on the CPU."""

    @staticmethod
    def __new__(cls, here: torch.Tensor) -> "_Away":
        if here.dtype == torch.float64:
            raise TypeError("the fake device knows no float64, as mps")
        layout = (here.shape, here.stride(), here.storage_offset())
        away = torch.Tensor._make_wrapper_subclass(cls, *layout, dtype=here.dtype, device=AWAY)
        away.here = here
        return away

    def tolist(self) -> Any:
        return self.here.tolist()

    def __repr__(self, **_: Any) -> str:
        return f"away({self.here!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, torch.Tensor)]
    away = [t for t in tensors if isinstance(t, _Away)]
    others = [t for t in tensors if not isinstance(t, _Away)]
    if any(t.device == AWAY for t in others):
        raise NotImplementedError(f"{func}: PyTorch made a tensor that holds no numbers; write this another way")
    moves = func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
    indexes = (
        "index" in func.__name__
    )  # PyTorch lets the CPU's tensors index those of another device, and 0-dim ones in
    if away and any(t.ndim for t in others) and not moves and not indexes:
        raise RuntimeError(f"{func}: expected all tensors to be on the same device, but found some on cpu, some away")
    device = kwargs.get("device")
    to_away = bool(away) if device is None else torch.device(device) == AWAY
    if device is not None and to_away:
        kwargs = kwargs | {"device": torch.device("cpu")}
    args, kwargs = tree_map(lambda x: x.here if isinstance(x, _Away) else x, (args, kwargs))
    inputs = {id(t.here): t for t in away}  # what was changed in place stays the tensor that it was
    wrap = lambda x: inputs.get(id(x)) if id(x) in inputs else _Away(x) if isinstance(x, torch.Tensor) else x  # noqa: E731
    out = func(*args, **kwargs)
    return tree_map(wrap, out) if to_away else out


class _Factories(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


@contextmanager
def fake_device() -> Iterator[torch.device]:
    """Within it ``.to(device)`` and ``torch.zeros(..., device=device)`` make tensors of the fake device."""
    with _Factories():
        yield AWAY


@contextmanager
def accelerator(device: torch.device) -> Iterator[None]:
    """Within it this device is what ``torch.accelerator`` says the machine has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: device)
        yield
