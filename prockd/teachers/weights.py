"""Backbones of timm, and weights read from files without running code from them."""

import difflib
import json
import sys
import warnings
from collections.abc import Collection, Sequence
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
PATCHES = "patch_embed.proj.weight"
# Where checkpoints keep the network: averaged weights first, each with the raw ones that it is the average of.
WRAPPERS = {"state_dict_ema": "state_dict", "ema_state_dict": "state_dict", "model_ema": "model", "ema": "model",
            "teacher": "student", "state_dict": "", "model": ""}  # fmt: skip
_WRAPPED = ("module", "_orig_mod", "model", "backbone", "teacher", "student", "encoder", "ema", "model_ema", "net")


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
        if is_safetensors(path):
            state: Any = safetensors.torch.load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a pickle's protocol: what cannot be read is reported below
                state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a pickle of anything may fail with anything
        raise WeightsError(
            f"{path} cannot be read as weights ({type(error).__name__}). prockd reads safetensors, or a pickle that "
            "holds tensors only; convert others with safetensors.torch.save_file(model.state_dict(), ...)."
        ) from error
    for averaged, raw in WRAPPERS.items():
        if isinstance(state, dict) and isinstance(state.get(averaged), dict):
            if isinstance(state.get(raw), dict):
                text = f"{path} holds averaged weights ({averaged}) and raw ones ({raw}): the averaged ones are taken"
                warnings.warn(f"{text}. For the others, save that part of the file by itself", stacklevel=3)
            state = state[averaged]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path} is not a state dict (names to tensors) but holds {type(state).__name__}")
    return state


def is_safetensors(path: Path) -> bool:
    """Whether a file is safetensors by its content: the length of its header, then JSON."""
    with path.open("rb") as file:
        start = file.read(9)
    return path.suffix == ".safetensors" or (
        len(start) == 9 and start[8:] == b"{" and 8 + int.from_bytes(start[:8], "little") <= path.stat().st_size
    )


def unwrapped(state: dict[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    """The tensors without the names of what the network was part of: ``module.``, ``model.``, ``backbone.``, ...

    Of several parts that have the network's names (a student beside its teacher), the averaged or teaching one counts.
    """
    while True:
        parts = {key.partition(".")[0] for key in state if "." in key} - {name.partition(".")[0] for name in own}
        inside = {
            part: {k.partition(".")[2]: v for k, v in state.items() if k.startswith(f"{part}.")} for part in parts
        }
        deep = {part: sum(any(k == name or k.endswith(f".{name}") for k in inside[part]) for name in list(own)[:8])
                for part in parts if part in _WRAPPED or own <= inside[part].keys()}  # fmt: skip
        if not deep or own <= state.keys():
            return state
        state = inside[max(deep, key=lambda part: (deep[part], "ema" in part or part == "teacher", part))]


def load_weights(backbone: Any, path: Path) -> None:
    """Load a state dict strictly, but for the classifier, which a backbone does not have.

    Raises:
        WeightsError: names missing or unexpected, or shapes that differ.
    """
    own = backbone.state_dict()
    state = {k: v for k, v in read_weights(path).items() if not k.startswith(CLUSTERING)}
    state = unwrapped(state, own.keys())
    patch = [tuple(weights[PATCHES].shape[2:]) if PATCHES in weights else () for weights in (state, own)]
    if all(map(len, patch)) and patch[0] != patch[1]:
        text = f"{path} was trained on patches of {patch[0][0]} px and is bent to {patch[1][0]} px"
        warnings.warn(f"{text}: features are worse than with the model of that patch size", stacklevel=2)
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
