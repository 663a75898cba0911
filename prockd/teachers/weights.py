"""Backbones of timm, and weights read from files without running code from them."""

import difflib
import inspect
import re
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from prockd.teachers.presets import TEACHER_PRESETS
from prockd.untrusted import FLAG, NOTHING, RefusedError, Rule, list_of, number, parse_json, reading, shown, whole

CLUSTERING = "clustering."
"""Begins the names of a teacher's own prototypes in its file; its backbone does not read them."""
PATCHES = "patch_embed.proj.weight"
# Where checkpoints keep the network: averaged weights first, each with the raw ones that it is the average of.
WRAPPERS = {"state_dict_ema": "state_dict", "ema_state_dict": "state_dict", "model_ema": "model", "ema": "model",
            "teacher": "student", "state_dict": "", "model": ""}  # fmt: skip
# Names of what a network was a part of; of two that a file has, the first counts.
_WRAPPED = ("model_ema", "ema", "teacher", "module", "_orig_mod", "model", "backbone", "encoder", "net", "student")


_NAME = Rule("timm's name of a model", lambda v: isinstance(v, str) and bool(re.fullmatch(r"\w{1,80}(\.\w{1,80})?", v)))
_WORD = Rule("a word", lambda v: isinstance(v, str) and bool(re.fullmatch(r"[\w.-]{0,64}", v)))
_NUMBER = whole(-8192, 8192) | number(-8192, 8192)
_OPTION = NOTHING | FLAG | _NUMBER | _WORD | list_of(NOTHING | FLAG | _NUMBER | _WORD, 64)
# What tells timm where weights come from, what it wraps a model in, or what it calls, and not what a model is.
_NO_ARCHITECTURE = {"self", "args", "kwargs", "features_only", "feature_cfg", "model_cfg", "kwargs_filter", "in_chans",
                    "num_classes", "device", "dtype"}  # fmt: skip


_SOURCES = {"pretrained_cfg", "pretrained_cfg_overlay", "pretrained_model_args", "checkpoint_path", "cache_dir",
            "features_only"}  # fmt: skip


class WeightsError(RuntimeError):
    """Weights could not be found, read or matched to the model; the message says which file and what to do."""


def check_name(name: str) -> None:
    """Refuse a name that timm does not have.

    Raises:
        WeightsError: it does not; the message tells names like it.
    """
    plain = name.split("/")[-1].split(".")[0]
    if not timm.is_model(plain):
        near = [*difflib.get_close_matches(plain, TEACHER_PRESETS, n=2), *timm.list_models(f"*{plain}*")[:5]]
        near += difflib.get_close_matches(plain, timm.list_models(), n=5)
        hint = f"; did you mean one of {', '.join(dict.fromkeys(near))}?" if near else ""
        raise WeightsError(f"timm has no model {name!r}{hint}")


def create_backbone(name: str, *, pretrained: bool = False, image_px: int | None = None, **timm_kwargs: Any) -> Any:
    """A timm model without its classifier.

    Raises:
        WeightsError: the name is unknown, it or an option leads to the hub or a folder though no weights are asked for,
            or the hub cannot be reached.
    """
    named = sorted(_SOURCES & timm_kwargs.keys())
    overlay = timm_kwargs.get("pretrained_cfg_overlay")  # how its pictures look is told in no other way
    if isinstance(overlay, dict) and overlay.keys() <= {"mean", "std", "interpolation", "crop_pct"}:
        named.remove("pretrained_cfg_overlay")
    if named:
        raise WeightsError(f"{named[0]} tells timm where to look: give weights='file.safetensors', or pretrained=True")
    if ":" in name and not pretrained:  # timm would ask there what the model is
        raise WeightsError(f"{name!r} is not timm's name of a model: say pretrained=True to fetch it from there")
    check_name(name)
    if timm_kwargs.get("in_chans", 3) != 3:
        raise WeightsError(
            f"in_chans={timm_kwargs['in_chans']}: teachers and students read RGB, so leave it out; grey pictures are "
            "read as RGB, and of more channels three have to be chosen"
        )
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


@contextmanager
def at_size(name: str, image_px: int) -> Iterator[None]:
    """What fails inside, with the words of tensors, fails since this model works at a size of its own."""
    try:
        yield
    except WeightsError:
        raise
    except (ArithmeticError, AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
        config, reason = timm.get_pretrained_cfg(name.split("/")[-1]), " ".join(str(error).split())[:120]
        own = f"it was made for {config.input_size[-1]} px" if config else "another size may do"
        why = f" ({reason})" if reason else ""
        raise WeightsError(f"{name} cannot read images of {image_px} px{why}: {own}, set image_px") from error


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


def check_edge(maps: Callable[[Tensor], Sequence[Tensor]], backbone: Any, image_px: int) -> None:
    """Refuse an image side of which the right and lower edge would not be seen, as of 256 px with patches of 14.

    Raises:
        WeightsError: it is no multiple of the patch, and a picture with another edge gives the same features.
    """
    stride = min(info["reduction"] for info in backbone.feature_info)
    if not (unseen := image_px % stride):
        return
    first = torch.zeros(1, 3, image_px, image_px)
    second = first.clone()
    second[..., -unseen:], second[..., -unseen:, :] = 1, 1
    pairs = list(zip(maps(first), maps(second), strict=True))
    if all(not a.is_meta and torch.equal(a, b) for a, b in pairs):  # on meta there are shapes alone
        near = f"{image_px - unseen} or {image_px - unseen + stride}"
        text = f"image_px={image_px} is no multiple of the {stride} px of a patch"
        raise WeightsError(f"{text}: {unseen} px at the right and lower edge would not be seen. Choose {near}")


def read_metadata(path: Path) -> dict[str, Any]:
    """The JSON that prockd writes beside the tensors of its own safetensors files.

    Raises:
        WeightsError: the file is missing or damaged, or has none.
    """
    told = None
    with reading(path, "a file that prockd wrote", WeightsError), safetensors.safe_open(path, "pt") as file:
        told = (file.metadata() or {}).get("prockd")
        metadata = {} if told is None else parse_json(told)
    if told is None or not isinstance(metadata, dict):
        raise WeightsError(f"{path} is not a file that prockd wrote: it says nothing of a student or a teacher")
    return metadata


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file or of a pickled state dict, never running code from it.

    Raises:
        WeightsError: the file is missing, damaged, holds something other than tensors, or values that are not finite.
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
    except Exception as error:  # damaged bytes raise anything: a list of kinds would never be whole
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
    if not all(isinstance(name, str) for name in state):
        raise WeightsError(f"{path} is not a state dict: its tensors have no names")
    if flaw := values_flaw(state):
        raise WeightsError(f"{path}: {flaw}. Its training went astray, or the file is damaged: use another one")
    return state


def is_safetensors(path: Path) -> bool:
    """Whether a file is safetensors by its content: the length of its header, then JSON."""
    with path.open("rb") as file:
        start = file.read(9)
    inside = 8 + int.from_bytes(start[:8], "little") <= path.stat().st_size
    return path.suffix == ".safetensors" or (start[8:] == b"{" and inside)


def unwrapped(state: dict[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    """The tensors without the names of what the network was part of: ``module.``, ``model.``, ``backbone.``, ...

    Of several parts that have the network's names (a student beside its teacher), the averaged or teaching one counts.
    """
    first = {name.partition(".")[0] for name in own}
    while not set(own) <= state.keys():
        inside = dict[str, dict[str, Tensor]]()
        for name, value in state.items():
            part, _, rest = name.partition(".")
            if part in _WRAPPED and part not in first:
                inside.setdefault(part, {})[rest] = value
        if not inside:
            break
        most = max(map(len, inside.values()))
        large = [part for part in inside if 2 * len(inside[part]) > most]
        state = inside[next((part for part in _WRAPPED if part in large), large[0])]
    return state


def values_flaw(state: Mapping[str, Tensor]) -> str:
    """What is wrong with the values of some weights in words; empty where nothing is."""
    for name, value in state.items():
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            return f"{shown(name)} claims more values than it has"  # one number, repeated for a terabyte
        if value.is_sparse or value.is_quantized:
            return f"{shown(name)} is not a plain tensor"
        if value.is_floating_point() and value.element_size() == 1:
            value = value.float()  # eight bits know no isfinite
        if not value.isfinite().all():
            return f"{shown(name)} holds values that are not finite"
        if name.endswith("running_var") and bool((value < 0).any()):
            return f"{shown(name)} holds a variance below 0"
    return ""


@cache
def option_names(name: str) -> frozenset[str]:
    """The options of timm.create_model that say what this model is: the arguments of the classes in its file."""
    kinds = vars(sys.modules[timm.model_entrypoint(name).__module__]).values()
    made = (kind for kind in kinds if inspect.isclass(kind) and issubclass(kind, nn.Module))
    named = {argument for kind in made for argument in inspect.signature(kind.__init__).parameters}
    return frozenset(named - _NO_ARCHITECTURE - set(inspect.signature(timm.create_model).parameters))


def check_architecture(name: Any, options: Any) -> None:
    """Refuse a model that is not one of timm's, or an option that says something else than what the model is.

    A file may say neither where weights come from (``pretrained``, ``checkpoint_path``, ``hf-hub:``) nor what to call.

    Raises:
        RefusedError: name, option or value are not allowed.
    """
    if not _NAME.holds(name) or not timm.is_model(name.split(".")[0]):
        raise RefusedError(f"its network {shown(name)} is not timm's name of a model; does another timm have it?")
    if not isinstance(options, Mapping):
        raise RefusedError(f"timm_kwargs are {shown(options)}, not a table")
    allowed = option_names(name.split(".")[0])
    for option, value in options.items():
        if option not in allowed:
            raise RefusedError(f"timm_kwargs has {shown(option)}, which says nothing of what {name} is")
        if not _OPTION.holds(list(value) if isinstance(value, tuple) else value):
            raise RefusedError(f"timm_kwargs.{option} is {shown(value)}, not a number, a word or a list of them")


def check_size(make: Callable[[], nn.Module], state: Mapping[str, Tensor], *, times: int = 1) -> None:
    """See that a network has no more values than its file, before memory is taken for it: a small file may ask for any.

    Args:
        make: makes it; here without memory.
        state: what the file holds.
        times: how many times as many it may have, where sizes are converted.

    Raises:
        RefusedError: it has more.
    """
    with torch.device("meta"):
        needed = sum(value.numel() for value in make().state_dict().values())
    there = sum(value.numel() for value in state.values())
    if needed > times * there + 65_536:  # files of earlier versions lack a switch
        raise RefusedError(f"it describes a network of {needed} values and holds {there}")


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
