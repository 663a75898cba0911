"""Backbones of timm, and weights read from files without running code from them."""

import difflib
import json
import pickle
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import timm
import torch
from torch import Tensor

from prockd.teachers.presets import TEACHER_PRESETS

CLUSTERING = "clustering."
"""Begins the names of a teacher's own prototypes in its file; its backbone does not read them."""


class WeightsError(RuntimeError):
    """Weights could not be found, read or matched to the model; the message says which file and what to do."""


def create_backbone(name: str, *, pretrained: bool = False, image_px: int | None = None, **timm_kwargs: Any) -> Any:
    """A timm model without its classifier.

    Raises:
        WeightsError: the name is unknown, or the hub cannot be reached.
    """
    plain = name.split("/")[-1].split(".")[0]
    if not timm.is_model(plain):
        near = [*difflib.get_close_matches(plain, TEACHER_PRESETS, n=2), *timm.list_models(f"*{plain}*")[:5]]
        near += difflib.get_close_matches(plain, timm.list_models(), n=5)
        hint = f"; did you mean one of {', '.join(dict.fromkeys(near))}?" if near else ""
        raise WeightsError(f"timm has no model {name!r}{hint}")
    make = partial(timm.create_model, name, pretrained=pretrained, num_classes=0, **timm_kwargs)
    try:
        try:
            return make() if image_px is None else make(img_size=image_px)
        except TypeError as error:  # transformers must know their size, others refuse it
            if "img_size" not in str(error):
                raise
            return make()
    except Exception as error:
        if not pretrained:
            raise
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:160]}"
        raise WeightsError(
            f"could not fetch the weights of {name!r} ({reason}). Offline? Download them once on a connected machine "
            "and pass weights='file.safetensors', or use Teacher('farmyard'), which ships with prockd."
        ) from error


def choose_layers(backbone: Any, layers: Sequence[int] | None) -> tuple[int, ...]:
    """Layer indices of the backbone's intermediate features in ascending order, which is how timm returns the maps.

    Raises:
        ValueError: a layer is not there or named twice; negative ones count from the end.
    """
    total = len(backbone.feature_info)
    if layers is None:
        strides = [info["reduction"] for info in backbone.feature_info]
        spread = {total // 2, (3 * total) // 4, total - 1} if strides[0] == strides[-1] else set(range(total))
        return tuple(sorted(spread))[-3:]
    resolved = tuple(layer + total if layer < 0 else layer for layer in layers)
    if not resolved or any(not 0 <= layer < total for layer in resolved):
        raise ValueError(f"layers={tuple(layers)} do not exist: the model has layers 0..{total - 1}")
    if len(set(resolved)) < len(resolved):
        raise ValueError(f"layers={tuple(layers)} name one of layers 0..{total - 1} twice: name each once")
    return tuple(sorted(resolved))


def read_metadata(path: Path) -> dict[str, Any]:
    """The JSON that prockd writes beside the tensors of its own safetensors files."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata: dict[str, Any] = json.loads((file.metadata() or {})["prockd"])
    except (OSError, safetensors.SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise WeightsError(f"{path} is not a file that prockd wrote ({type(error).__name__}: {error})") from error
    return metadata


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file or of a pickled state dict, never running code from it.

    Raises:
        WeightsError: the file is missing, damaged or holds something other than tensors.
    """
    if not path.is_file():
        raise WeightsError(f"no weights at {path}: give the path of a .safetensors or .pth state dict")
    try:
        if path.suffix == ".safetensors":
            state: Any = safetensors.torch.load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a pickle's protocol: what cannot be read is reported below
                state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, safetensors.SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise WeightsError(
            f"{path} cannot be read as weights ({type(error).__name__}). prockd reads safetensors, or a pickle that "
            "holds tensors only; convert others with safetensors.torch.save_file(model.state_dict(), ...)."
        ) from error
    for wrapper in ("state_dict", "model", "teacher"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path} is not a state dict (names to tensors) but holds {type(state).__name__}")
    return {key.removeprefix("module."): value for key, value in state.items()}


def load_weights(backbone: Any, path: Path) -> None:
    """Load a state dict strictly, but for the classifier, which a backbone does not have.

    Raises:
        WeightsError: names missing or unexpected, or shapes that differ.
    """
    own = backbone.state_dict()
    state = {k: v for k, v in read_weights(path).items() if not k.startswith(CLUSTERING)}
    if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in state.items()}:
        state = converted(state, backbone)
    classifier = backbone.pretrained_cfg.get("classifier") or ()
    heads = {head.split(".")[0] for head in ((classifier,) if isinstance(classifier, str) else classifier)}
    state = {k: v for k, v in state.items() if k in own or k.split(".")[0] not in heads}
    shapes = [(k, tuple(state[k].shape), tuple(v.shape)) for k, v in own.items() if k in state]
    problems = {
        "missing": sorted(own.keys() - state.keys()),
        "unexpected": sorted(state.keys() - own.keys()),
        "of another shape": [f"{k}: {given}, needed {needed}" for k, given, needed in shapes if given != needed],
    }
    if any(problems.values()):
        counts = "; ".join(f"{len(names)} {kind}, such as {names[0]}" for kind, names in problems.items() if names)
        raise WeightsError(
            f"{path} does not fit the model ({counts}). Was it made for another model, or with other timm options?"
        )
    backbone.load_state_dict(state)


def converted(state: dict[str, Tensor], backbone: Any) -> dict[str, Tensor]:
    """The state dict as timm itself would read it: the authors' own names, positions of another input size.

    DINOv2's weights belong to 518 px, for one; timm resamples their positions to the size of this backbone. What timm
    cannot read comes back as it is, and :func:`load_weights` reports what does not fit.
    """
    convert = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
    try:
        return dict(convert(dict(state), backbone)) if convert else state
    except (AttributeError, AssertionError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return state
