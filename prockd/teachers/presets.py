"""Teachers that are known to fit: which timm model, at what size, which layers to read, how its input is normalised.

``pk.Teacher("dinov2_small", weights="file.safetensors")`` is all there is to type; what is passed beside the name wins
over the preset. Each is built in the tests, so its patch grid is proven and not remembered.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
SECOND_HALF = (6, 9, 11)
"""Of twelve blocks: places are kept early, meaning comes late."""


@dataclass(frozen=True)
class TeacherPreset:
    """One teacher, ready to name."""

    model: str  # timm's name with the tag of the weights, which pretrained=True fetches where there is a network
    image_px: int  # side of the square input
    layers: tuple[int, ...]  # timm's intermediate features that are read
    grids: tuple[tuple[int, int], ...]  # rows and columns of patches of each layer at that size
    widths: tuple[int, ...]  # values of a patch of each layer
    description: str  # what it was trained for, and what that is good for here
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET  # mean and std of RGB in 0..1
    timm_kwargs: Mapping[str, Any] = field(default_factory=dict)


def _even(model: str, side: int, width: int, image_px: int, description: str, **more: Any) -> TeacherPreset:
    """A transformer of twelve blocks with one grid."""
    return TeacherPreset(model, image_px, SECOND_HALF, ((side, side),) * 3, (width,) * 3, description, **more)


def _pyramid(model: str, first: int, widths: tuple[int, ...], description: str, **more: Any) -> TeacherPreset:
    """The last three stages of a pyramid, at 224 px."""
    return TeacherPreset(
        model, 224, (first, first + 1, first + 2), ((28, 28), (14, 14), (7, 7)), widths, description, **more
    )


TEACHER_PRESETS: Mapping[str, TeacherPreset] = {
    "dinov2_small": _even(
        "vit_small_patch14_dinov2.lvd142m", 16, 384, 224, "Self-supervised; parts of objects stand out. Try it first."
    ),
    "dinov2_small_reg": _even(
        "vit_small_patch14_reg4_dinov2.lvd142m", 16, 384, 224, "With registers: no stray patches in the background."
    ),
    "dinov2_base": _even("vit_base_patch14_dinov2.lvd142m", 16, 768, 224, "Larger, about four times as slow."),
    "dinov2_base_reg": _even("vit_base_patch14_reg4_dinov2.lvd142m", 16, 768, 224, "Larger, with registers."),
    "dinov3_small": _even(
        "vit_small_patch16_dinov3.lvd1689m", 16, 384, 256, "Self-supervised, for segmentation and detection."
    ),
    "dinov3_base": _even("vit_base_patch16_dinov3.lvd1689m", 16, 768, 256, "Larger, about four times as slow."),
    "clip_base": _even(
        "vit_base_patch16_clip_quickgelu_224.openai", 14, 768, 224,
        "Learned from captions; knows many things, places are coarser.", normalisation=CLIP,
    ),
    "deit_small": _even("deit_small_patch16_224.fb_in1k", 14, 384, 224, "Supervised on ImageNet."),
    "deit3_small": _even(
        "deit3_small_patch16_224.fb_in22k_ft_in1k", 14, 384, 224, "Supervised on ImageNet-22k; better than DeiT."
    ),
    "swin_tiny": _pyramid(
        "swin_tiny_patch4_window7_224.ms_in22k_ft_in1k", 1, (192, 384, 768), "Supervised transformer with a pyramid."
    ),
    "convnext_tiny": _pyramid(
        "convnext_tiny.fb_in22k_ft_in1k", 1, (192, 384, 768), "Supervised convolutional pyramid; fast on a CPU."
    ),
    "resnet50": _pyramid("resnet50.a1_in1k", 2, (512, 1024, 2048), "Supervised; the best known of all."),
    "mobilenetv2": _pyramid(
        "mobilenetv2_100.ra_in1k", 2, (32, 96, 320), "Supervised and small, for slow machines."
    ),
    "mobilenetv2_tf": _pyramid(
        "mobilenetv2_100", 2, (32, 96, 320), "The same with weights converted from TensorFlow, which pads otherwise.",
        normalisation=HALF, timm_kwargs={"pad_type": "same"},
    ),
}  # fmt: skip
"""By the name to give to :class:`prockd.Teacher`."""


def preset_rows() -> list[dict[str, object]]:
    """One row a preset, for `prockd presets`."""
    means: dict[object, str] = {IMAGENET: "ImageNet", CLIP: "CLIP", HALF: "0.5"}
    return [
        {
            "name": name, "timm model": preset.model, "input": f"{preset.image_px} px",
            "layers": " ".join(map(str, preset.layers)),
            "patches": " ".join(dict.fromkeys(f"{h}x{w}" for h, w in preset.grids)),
            "mean": means[preset.normalisation], "description": preset.description,
        }
        for name, preset in TEACHER_PRESETS.items()
    ]  # fmt: skip
