"""The frozen teacher: any timm backbone that turns images into maps of patch features, several layers at once."""

import difflib
import hashlib
import json
import pickle
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn

from prockd._data_path import data_path
from prockd.teacher_presets import TEACHER_PRESETS


class WeightsError(RuntimeError):
    """Weights could not be found, read or matched to the model; the message says which file and what to do."""


class Teacher(nn.Module):
    """A frozen timm backbone, always in eval mode.

    Args:
        name: ``"farmyard"`` (the teacher that ships with prockd), a known-good recipe such as ``"dinov2_small"`` (see
            :mod:`prockd.teacher_presets`), or any timm model name.
        weights: local state dict (safetensors preferred; ``.pth`` is read with ``weights_only=True``).
        pretrained: fetch timm's weights from the hub (needs a network or a filled hub cache).
        layers: indices of timm's intermediate features; the default is the last three stages of a pyramid, or three
            blocks spread over the second half of a transformer.
        image_px: side of the square input; the default is the model's own.
        mean: of the RGB channels of images in 0..1, where the weights want another normalisation than timm's.
        std: standard deviation of the same.
        timm_kwargs: passed on to ``timm.create_model``.

    Raises:
        WeightsError: unknown name, unreachable hub, unreadable file, or keys and shapes that do not match.
        ValueError: layers outside the model, or a mean or std that is not three numbers.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str = "farmyard",
        *,
        weights: str | Path | None = None,
        pretrained: bool = False,
        layers: Sequence[int] | None = None,
        image_px: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        **timm_kwargs: Any,
    ) -> None:
        super().__init__()
        self.name = name
        about: dict[str, Any] = {}
        if (preset := TEACHER_PRESETS.get(name)) is not None:
            about = {"architecture": preset.model, "layers": preset.layers, "image_px": preset.image_px}
            about |= {"mean": preset.normalisation[0], "std": preset.normalisation[1]}
            timm_kwargs = {**preset.timm_kwargs, **timm_kwargs}
        if name == "farmyard":
            weights = Path(weights or data_path("farmyard", "teacher.safetensors"))
            about = read_metadata(weights)
            timm_kwargs = about["timm_kwargs"] | timm_kwargs
        architecture = about.get("architecture", name)
        image_px = image_px or about.get("image_px")
        self.backbone: Any = create_backbone(architecture, pretrained=pretrained, image_px=image_px, **timm_kwargs)
        self._made_as = json.dumps([architecture, timm_kwargs], sort_keys=True, default=repr)
        if weights is not None:
            load_weights(self.backbone, Path(weights))
        config = self.backbone.pretrained_cfg
        for what, given in (("mean", mean), ("std", std)):
            values = tuple(given or about.get(what, config[what]))
            if len(values) != 3 or (what == "std" and min(values) <= 0):
                raise ValueError(f"{what}={values}: give three numbers, one a colour channel, of images in 0..1")
            self.register_buffer(what, torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)
        self.image_px = int(image_px or config["input_size"][-1])
        self.layers = choose_layers(self.backbone, layers if layers is not None else about.get("layers"))
        self.requires_grad_(False)
        self.to(memory_format=torch.channels_last)
        self.eval()
        probe = self(torch.zeros(1, 3, self.image_px, self.image_px))
        self.widths = tuple(m.shape[1] for m in probe)
        self.grids = tuple((m.shape[2], m.shape[3]) for m in probe)

    def train(self, mode: bool = True) -> "Teacher":
        """A teacher stays in eval mode, whatever is asked."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        """Patch features of every layer, class and register tokens left out.

        Args:
            images: RGB in 0..1; the model's own normalisation is applied here.

        Returns:
            One (B, D_l, h_l, w_l) map a layer, in the order of ``layers``.
        """
        images = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        maps: list[Tensor] = self.backbone.forward_intermediates(
            images, indices=list(self.layers), output_fmt="NCHW", intermediates_only=True
        )
        return maps

    @property
    def fingerprint(self) -> str:
        """Digest of the weights and of all that decides what they compute; features of another teacher never match it.

        timm's options count too: the same weights with another padding or activation give other features.
        """
        facts = (self._made_as, self.layers, self.image_px, self.mean.tolist(), self.std.tolist())
        digest = hashlib.sha256(repr(facts).encode())
        for key, value in self.backbone.state_dict().items():
            digest.update(key.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:20]

    def __repr__(self) -> str:
        millions = sum(p.numel() for p in self.parameters()) / 1e6
        maps = ", ".join(
            f"layer {layer}: {h}x{w} patches of {width}"
            for layer, (h, w), width in zip(self.layers, self.grids, self.widths, strict=True)
        )
        return f"Teacher({self.name!r}, {millions:.1f} M parameters, frozen, {self.image_px} px; {maps})"


def create_backbone(name: str, *, pretrained: bool = False, image_px: int | None = None, **timm_kwargs: Any) -> Any:
    """A timm model without its classifier.

    Raises:
        WeightsError: the name is unknown, or the hub cannot be reached.
    """
    plain = name.split("/")[-1].split(".")[0]
    if not timm.is_model(plain):
        near = [
            *difflib.get_close_matches(plain, TEACHER_PRESETS, n=2),
            *timm.list_models(f"*{plain}*")[:5],
            *difflib.get_close_matches(plain, timm.list_models(), n=5),
        ]
        raise WeightsError(
            f"timm has no model {name!r}" + (f"; did you mean one of {', '.join(dict.fromkeys(near))}?" if near else "")
        )
    sized: dict[str, Any] = (
        {"img_size": image_px} if image_px is not None else {}
    )  # transformers must know it, others refuse it
    try:
        try:
            return timm.create_model(name, pretrained=pretrained, num_classes=0, **sized, **timm_kwargs)
        except TypeError as error:
            if "img_size" not in str(error):
                raise
            return timm.create_model(name, pretrained=pretrained, num_classes=0, **timm_kwargs)
    except Exception as error:
        if not pretrained:
            raise
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:160]}"
        raise WeightsError(
            f"could not fetch the weights of {name!r} ({reason}). Offline? Download them once on a connected machine "
            "and pass weights='file.safetensors', or use Teacher('farmyard'), which ships with prockd."
        ) from error


def choose_layers(backbone: Any, layers: Sequence[int] | None) -> tuple[int, ...]:
    """Resolve layer indices (negative ones count from the end) against the backbone's intermediate features."""
    total = len(backbone.feature_info)
    if layers is None:
        strides = [info["reduction"] for info in backbone.feature_info]
        spread = {total // 2, (3 * total) // 4, total - 1} if strides[0] == strides[-1] else set(range(total))
        return tuple(sorted(spread))[-3:]
    resolved = tuple(layer + total if layer < 0 else layer for layer in layers)
    if not resolved or any(not 0 <= layer < total for layer in resolved):
        raise ValueError(f"layers={tuple(layers)} do not exist: the model has layers 0..{total - 1}")
    return resolved


def read_metadata(path: Path) -> dict[str, Any]:
    """The JSON that prockd writes beside the tensors of its own safetensors files."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            about: dict[str, Any] = json.loads((file.metadata() or {})["prockd"])
    except (OSError, safetensors.SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise WeightsError(f"{path} is not a file that prockd wrote ({type(error).__name__}: {error})") from error
    return about


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
                warnings.simplefilter("ignore")  # of a pickle's protocol: what cannot be read is told below
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
    state = read_weights(path)
    classifier = backbone.pretrained_cfg.get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    own = backbone.state_dict()
    if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in state.items()}:
        state = converted(state, backbone)
    state = {
        k: v for k, v in state.items() if k in own or k.split(".")[0] not in {head.split(".")[0] for head in heads}
    }
    problems = {
        "missing": sorted(own.keys() - state.keys()),
        "unexpected": sorted(state.keys() - own.keys()),
        "of another shape": [
            f"{k}: {tuple(state[k].shape)}, needed {tuple(own[k].shape)}"
            for k in own
            if k in state and state[k].shape != own[k].shape
        ],
    }
    if any(problems.values()):
        told = "; ".join(f"{len(names)} {what}, such as {names[0]}" for what, names in problems.items() if names)
        raise WeightsError(
            f"{path} does not fit the model ({told}). Was it made for another model, or with other timm options?"
        )
    backbone.load_state_dict(state)


def converted(state: dict[str, Tensor], backbone: Any) -> dict[str, Tensor]:
    """The state dict as timm itself would read it: the authors' own names, positions of another input size.

    DINOv2's weights belong to 518 px, for one; timm resamples their positions to the size of this backbone. What timm
    cannot read comes back as it is, and what does not fit is told later.
    """
    convert = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
    try:
        return dict(convert(dict(state), backbone)) if convert else state
    except (AttributeError, AssertionError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return state
