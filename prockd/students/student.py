"""The student: a small timm backbone, an adapter into the prototypes' space, the augmentation and a task head."""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from prockd.prototypes.augmentation import FeatureAugmentation
from prockd.prototypes.bank import PrototypeBank
from prockd.prototypes.part_maps import PartMaps
from prockd.settings.method import FeatureAugmentationConfig
from prockd.students.described import FILE_FIELDS, described_bank, described_task
from prockd.tasks import TASKS
from prockd.tasks.task import Task
from prockd.teachers.weights import (
    WeightsError,
    at_size,
    check_architecture,
    check_edge,
    check_size,
    choose_layers,
    create_backbone,
    load_weights,
    read_metadata,
    read_weights,
)
from prockd.untrusted import fields, reading
from prockd.writing import write_file


@dataclass(frozen=True)
class StudentOutput:
    """What one forward pass gives.

    Attributes:
        features: f, (B, N, E) patches in the prototypes' space.
        logits: z, the plain prediction: (B, C) class scores, (B, C, S, S) of pixels, or a detector's
            :class:`prockd.tasks.detectors.RawBoxes`.
        augmented_logits: z+, the prediction from augmented features; None without augmentation.
        last: the backbone's last map, (B, F, h, w).
    """

    features: Tensor
    logits: Any
    augmented_logits: Any
    last: Tensor


class Student(nn.Module):
    """Small backbone + adapter + head, and beside it the prototype augmentation that the same head can read.

    The plain prediction z = head(f) never touches the prototypes and costs nothing extra; z+ = head(augment(f)). The
    adapter brings maps of any width and size to one grid of E values a patch, and the loss brings the teacher's maps to
    that grid, so any network can teach any other. The student is made on the device of its bank, else on the CPU.

    Args:
        backbone: any timm model name.
        task: label space and head.
        bank: prototypes; needed for augmentation and for the prototype terms of the loss.
        feature_augmentation: how features are augmented: a :class:`prockd.FeatureAugmentationConfig`, or a mapping of
            some of its knobs; ``None`` or content ``"none"`` leaves the augmentation out.
        embed_dim: E, when there is no bank.
        layers: which of timm's intermediate features are joined; default as in :class:`prockd.Teacher`, and in a
            pyramid also the finer ones down to the stride that the task asks for.
        grid: rows and columns of patches that they are joined on; default those of the finest layer.
        image_px: side of the square input.
        weights: local state dict of the backbone to start from.
        pretrained: start from timm's weights of the backbone (needs a network or a filled hub cache).
        seed: seed of the initial weights; backbone, adapter and head start the same with and without a bank.
        timm_kwargs: passed on to ``timm.create_model``: what the model is, and not where its weights come from.

    Raises:
        WeightsError: an unknown backbone or option, or weights that do not fit.

    >>> import torch
    >>> from prockd.tasks import Classification
    >>> student = Student("test_convnext", Classification(2, ("cat", "dog")), image_px=32)
    >>> student.eval()(torch.rand(3, 3, 32, 32)).logits.shape
    torch.Size([3, 2])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, backbone: str, task: Task, bank: PrototypeBank | None = None, *,
        feature_augmentation: Mapping[str, Any] | Any | None = None, embed_dim: int = 96,
        layers: Sequence[int] | None = None, grid: int | None = None, image_px: int = 96,
        weights: str | Path | None = None, pretrained: bool = False, seed: int = 0, **timm_kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        self.name, self.task, self.image_px, self.timm_kwargs = backbone, task, image_px, timm_kwargs
        self.embed_dim = bank.embed_dim if bank else embed_dim
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            options = timm_kwargs | {"pretrained": pretrained}
            with at_size(backbone, image_px):
                self.backbone: Any = create_backbone(backbone, image_px=image_px, **options)
            if weights is not None:
                load_weights(self.backbone, Path(weights))
            # Convolutions on a CPU prefer channels last, but there oneDNN's backward pass of a strided 1x1 convolution
            # on the RGB image writes beyond its memory (torch 2.14): RepVGG, MobileOne, FastViT and MobileCLIP die.
            convs = [m for m in self.backbone.modules() if isinstance(m, nn.Conv2d)]
            crashes = any(conv.in_channels == 3 and conv.kernel_size == (1, 1) for conv in convs)
            self.memory_format = torch.contiguous_format if crashes else torch.channels_last
            self.layers = choose_layers(self.backbone, layers)
            if layers is None:  # in a pyramid also the finer ones, down to the task's stride
                strides = [info["reduction"] for info in self.backbone.feature_info]
                finer = () if strides[0] == strides[-1] else (i for i, s in enumerate(strides) if s >= task.stride)
                self.layers = tuple(sorted({*self.layers, *finer}))
            config = self.backbone.pretrained_cfg
            for name in ("mean", "std"):
                self.register_buffer(name, torch.tensor(config[name]).view(1, 3, 1, 1), persistent=False)
            self.backbone.eval()  # a look at the sizes of the maps must not count as a step of its batch norms
            with torch.no_grad(), at_size(backbone, image_px):
                check_edge(self._maps, self.backbone, image_px)
                maps = self._maps(torch.zeros(1, 3, image_px, image_px))
            self.backbone.train()
            self.maps = tuple((m.shape[1], m.shape[2], m.shape[3]) for m in maps)
            finest = max(((h, w) for _, h, w in self.maps), key=lambda g: g[0] * g[1])
            self.grid = finest if grid is None else (grid, grid)
            self.last_width, self.last_grid = maps[-1].shape[1], (maps[-1].shape[2], maps[-1].shape[3])
            self.adapter = nn.ModuleList(nn.Conv2d(m.shape[1], self.embed_dim, 1) for m in maps)
            self.head = task.head(self.embed_dim, self.grid, image_px)
            if hasattr(self.backbone, "prune_intermediate_layers"):  # what lies behind the last layer that is read
                self.backbone.prune_intermediate_layers(list(self.layers), prune_norm=False, prune_head=True)
            torch.manual_seed(seed + 1)
            self.feature_augmentation: FeatureAugmentation | PartMaps | None = None
            self.feature_augmentation_options: dict[str, Any] | None = None
            if bank is not None and feature_augmentation is not None:
                is_mapping = isinstance(feature_augmentation, Mapping)
                options = dict(feature_augmentation if is_mapping else vars(feature_augmentation))
                if options.get("content") != "none":
                    self.feature_augmentation = make_augmentation(options, self.embed_dim, bank.num_prototypes, task)
                    self.feature_augmentation_options = options
        self.bank = bank
        self.to(memory_format=self.memory_format)
        if bank is not None:
            self.to(bank.prototypes.device)

    def _maps(self, images: Tensor) -> list[Tensor]:
        images = (images.to(self.mean.device) - self.mean) / self.std
        images = images.contiguous(memory_format=self.memory_format)
        maps: list[Tensor] = self.backbone.forward_intermediates(
            images, indices=list(self.layers), output_fmt="NCHW", intermediates_only=True
        )
        return maps

    def forward(
        self, images: Float[Tensor, "B 3 H W"], predicted: int | None = None, *, augmented: bool = True
    ) -> StudentOutput:
        """Features, plain and augmented predictions of RGB images in 0..1.

        Args:
            images: a batch.
            predicted: predict for this many images only, the first ones, and compute the features of all; with 0 there
                are no predictions (None).
            augmented: predict z+ too; without it z takes hardly longer than timm's own classifier.
        """
        maps = self._maps(images)
        projected = [conv(m) for conv, m in zip(self.adapter, maps, strict=True)]
        joined = [p if p.shape[2:] == self.grid else F.interpolate(p, self.grid, mode="bilinear") for p in projected]
        features = reduce(torch.add, joined).flatten(2).transpose(1, 2)  # (B, N, E)
        if predicted == 0:
            return StudentOutput(features, None, None, maps[-1])
        read = features[:predicted]
        plus = self.read_augmented(read) if augmented else None
        return StudentOutput(features, self.head(read), plus, maps[-1])

    def read_augmented(self, features: Float[Tensor, "B N E"]) -> Any:
        """z+: what is predicted from features with what the enabled prototypes add.

        None without augmentation, and of part maps in closed form until they are fitted and the student is in eval
        mode. Part maps leave z as it is: neither features nor head get a gradient from their z+.
        """
        own = self.feature_augmentation
        if isinstance(own, PartMaps) and self.bank is not None:
            if not own.is_ready:
                return None
            read = own(features, self.bank.prototypes, self.bank.enabled, self.bank.merged)
            if own.num_outputs:
                return read
            return (still(self.head) if torch.is_grad_enabled() else self.head)(read)
        f_plus = self.augmented(features)
        return None if f_plus is None else self.head(f_plus)

    def augmented(self, features: Float[Tensor, "B N E"]) -> Float[Tensor, "B N E"] | None:
        """f+ of any features in the space of the prototypes, the teacher's too; None with part maps or none."""
        if not isinstance(self.feature_augmentation, FeatureAugmentation) or self.bank is None:
            return None
        descriptor = self.bank.describe(features) if self.feature_augmentation.content == "descriptor" else None
        f_plus: Tensor = self.feature_augmentation(
            features, self.bank.prototypes, enabled=self.bank.enabled, descriptor=descriptor
        )
        return f_plus

    @property
    def plain_parameters(self) -> int:
        """Parameters that the plain prediction needs."""
        return sum(p.numel() for m in (self.backbone, self.adapter, self.head) for p in m.parameters())

    @property
    def extra_parameters(self) -> int:
        """Parameters that the augmented prediction needs besides."""
        if self.feature_augmentation is None or self.bank is None:
            return 0
        is_fitted = isinstance(self.feature_augmentation, PartMaps)  # in closed form, by no gradient
        own = sum(p.numel() for p in self.feature_augmentation.parameters() if p.requires_grad or is_fitted)
        prototypes: list[nn.Parameter] = [self.bank.prototypes]
        used = {"part_maps": prototypes, "attention": prototypes, "mlp": []}.get(self.feature_augmentation.content)
        return own + sum(p.numel() for p in (self.bank.parameters() if used is None else used))

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write all weights, the bank's too, and what is needed to make the student again: see :meth:`load`.

        Args:
            path: a safetensors file, which is returned; its folder is made.
            overwrite: replace a file of that name, which is a FileExistsError otherwise.
        """
        kinds = {task: kind for kind, task in TASKS.items()}
        metadata = {
            "kind": "student", "backbone": self.name, "timm_kwargs": self.timm_kwargs, "layers": self.layers,
            "grid": self.grid[0], "image_px": self.image_px, "embed_dim": self.embed_dim,
            "task": {"kind": kinds.get(type(self.task), type(self.task).__name__), "fields": asdict(self.task)},
            "feature_augmentation": self.feature_augmentation_options,
            "bank": None if self.bank is None else {"options": self.bank.options, "names": self.bank.names},
        }  # fmt: skip
        # copies: CoaT and others use one weight in several places, which safetensors refuses to write
        state = {k: v.clone(memory_format=torch.contiguous_format) for k, v in self.state_dict().items()}
        return write_file(path, safetensors.torch.save(state, {"prockd": json.dumps(metadata)}), overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path, task: Task | None = None) -> "Student":
        """Make a student again from the one file that :meth:`save` wrote: backbone, task, layers, bank and weights.

        Args:
            path: the file.
            task: needed only when it is a task of your own, which is not in ``prockd.tasks.TASKS``.

        Returns:
            The student, on the CPU and in eval mode; its predictions are those of the one that was saved.

        Raises:
            WeightsError: the file is missing, damaged, holds no student, one of an unknown task, or anything that no
                student has: nothing is fetched or opened that a file names.
        """
        path = Path(path)
        metadata = read_metadata(path)
        if metadata.get("kind") != "student":
            raise WeightsError(f"{path} holds no student: Student.load reads what Student.save wrote")
        advice = "save it again with the version of prockd that wrote it, or train it anew"
        with reading(path, "a student", WeightsError, advice):
            told = fields(metadata, FILE_FIELDS)
            check_architecture(told["backbone"], told["timm_kwargs"])
            if task is None:
                task = described_task(path, told["task"])
            state = read_weights(path)
            bank = told["bank"] and described_bank(told["bank"], state)
            options = {name: told[name] for name in ("embed_dim", "layers", "grid", "image_px")} | told["timm_kwargs"]
            options["feature_augmentation"] = told["feature_augmentation"]

            def make() -> Student:
                empty = bank and PrototypeBank(**bank.options)  # where the student is made
                return cls(told["backbone"], task, empty, **options)

            check_size(make, state)
            student = make()
            if student.bank and bank:
                student.bank.names = bank.names
            try:
                student.load_state_dict(state)
            except RuntimeError as error:
                raise WeightsError(f"{path} does not fit the student that it describes: {error}") from error
            return student.eval()

    def __repr__(self) -> str:
        content = self.feature_augmentation and self.feature_augmentation.content
        extra = f" + {self.extra_parameters / 1e3:.0f} k for {content}" if content else ""
        maps = ", ".join(f"{h}x{w} of {width}" for width, h, w in self.maps)
        bank = f", the bank's {self.bank.fuse.in_features} teacher values a patch brought to it" if self.bank else ""
        return (
            f"Student({self.name!r}, {self.plain_parameters / 1e3:.0f} k parameters{extra}; maps {maps} joined to "
            f"{self.grid[0]}x{self.grid[1]} patches of {self.embed_dim}{bank}; "
            f"{type(self.task).__name__} of {self.task.num_classes} classes)"
        )


def still(module: nn.Module) -> nn.Module:
    """The same module on the same memory, to whose parameters no gradient comes, now or later.

    A prediction may hold its head, as :class:`prockd.tasks.detectors.RawBoxes` does for the second stage of Faster
    R-CNN, so it is not enough to exchange the parameters for the time of a call.
    """
    shared: dict[int, Any] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in module.parameters()}
    return copy.deepcopy(module, shared | {id(b): b for b in module.buffers()})


def make_augmentation(
    options: Mapping[str, Any], embed_dim: int, num_prototypes: int, task: Task
) -> FeatureAugmentation | PartMaps:
    """The augmentation of these knobs; part maps read in closed form where the task's answer is one for the image."""
    knobs = FeatureAugmentationConfig(**options)
    if knobs.content == PartMaps.content:
        closed = knobs.fit == "closed" and task.pooled
        return PartMaps(
            num_prototypes, embed_dim, num_outputs=task.num_classes if closed else 0, num_maps=knobs.num_maps,
            temperature=knobs.temperature,
        )  # fmt: skip
    return FeatureAugmentation(
        embed_dim, num_prototypes, content=knobs.content, residual=knobs.residual, conditional=knobs.conditional,
        scaled=knobs.scaled, detach=knobs.detach,
    )  # fmt: skip
