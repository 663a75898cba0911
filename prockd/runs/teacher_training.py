"""How a Farmyard teacher is made: source species labels and self-supervision, never a target species or a part label.

Two stages in the one training loop. First species alone. Then species and *places*: from a random crop, every patch
also says where in the whole picture it lies (context prediction, Doersch et al., arXiv 1505.05192; LOCA, arXiv
2212.02400). The crop itself is the label. An animal that fills its picture makes places into places on a body, which
is what parts are, whatever the species.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from prockd.datasets import PackedImages, pack
from prockd.datasets.transforms import Crops
from prockd.farmyard import Farmyard
from prockd.settings.method import DistillConfig
from prockd.students.student import Student
from prockd.tasks import Classification
from prockd.tasks.heads import PooledLinear
from prockd.teachers.weights import read_metadata
from prockd.training.loop import distill

ARCHITECTURE = "resnet18"
TIMM_KWARGS: dict[str, Any] = {"channels": (48, 96, 192, 320)}
SPECIES = DistillConfig(steps=2600, batch_size=64, lr=2e-3, weight_decay=0.05, min_crop=0.35, label_smoothing=0.1)
PLACES = SPECIES.replace(steps=2000, lr=1e-3, min_crop=0.25, recoloured=0.5)
IMAGE_PX = 96


class PooledAndPlaced(nn.Module):
    """Species scores of the image, and of each patch scores (N, bins * bins) of its places in the whole picture."""

    def __init__(self, width: int, num_classes: int, bins: int) -> None:
        super().__init__()
        self.species = PooledLinear(width, num_classes)
        self.places = nn.Linear(width, bins * bins)

    def forward(self, features: Float[Tensor, "B N E"]) -> tuple[Tensor, Tensor]:
        """Both scores."""
        return self.species(features), self.places(features)


@dataclass(frozen=True)
class SpeciesAndPlaces(Classification):
    """Classification, and by weight ``places`` of height and distance from the middle, in ``bins`` steps each.

    Distance, not side: a leg is a leg, left or right.
    """

    bins: int = 8
    places: float = 2.0

    def head(self, width: int, grid: tuple[int, int], image_px: int) -> nn.Module:
        """A new head for both."""
        return PooledAndPlaced(width, self.num_classes, self.bins)

    def targets(self, images: PackedImages, rows: np.ndarray, crops: Crops, image_px: int) -> Float[Tensor, "B 5"]:
        """The label and the crop of each image."""
        return torch.cat([super().targets(images, rows, crops, image_px)[:, None].float(), crops.regions], 1)

    def loss(self, prediction: Any, targets: Float[Tensor, "B 5"], smoothing: float = 0.0) -> Float[Tensor, ""]:
        """Cross-entropy of the species and, weighted, of the places."""
        species, places = prediction
        side = round(places.shape[1] ** 0.5)
        x, y = places_of(targets[:, 1:], side)
        truth = torch.einsum("bhy,bwx->bhwyx", soft_bins(y, self.bins), soft_bins(x, self.bins))
        where = F.cross_entropy(places.flatten(0, 1), truth.flatten(3).flatten(0, 2))
        return super().loss(species, targets[:, 0].long(), smoothing) + self.places * where

    def decode(self, prediction: Any, image_px: int) -> np.ndarray:
        """(B,) species."""
        return super().decode(prediction[0], image_px)


def places_of(regions: Float[Tensor, "B 4"], side: int) -> tuple[Float[Tensor, "B w"], Float[Tensor, "B h"]]:
    """Where the columns and rows of a crop's patches lie in the picture, 0..1: distance from the middle, and height."""
    middle = (torch.arange(side, device=regions.device) + 0.5) / side
    x0, y0, x1, y1 = regions.unbind(1)
    x = x0[:, None] + middle * (x1 - x0)[:, None]
    return (2 * x - 1).abs(), y0[:, None] + middle * (y1 - y0)[:, None]


def soft_bins(places: Float[Tensor, "B n"], bins: int) -> Float[Tensor, "B n bins"]:
    """Each place shared between the two nearest of the bins; sums to 1."""
    at = (places * bins - 0.5).clamp(0, bins - 1)
    return (1 - (at[..., None] - torch.arange(bins, device=places.device)).abs()).clamp_min(0)


def train_teacher(
    out: str | Path,
    *,
    images: int = 24_000,
    species: DistillConfig = SPECIES,
    places: DistillConfig = PLACES,
    start: str | Path | None = None,
    run_dir: str | Path = "runs/teacher",
    cpu: bool = False,
) -> dict[str, Any]:
    """Train the teacher in two stages and write its weights in half precision; returns what the model card says.

    An interrupted run goes on from its checkpoints in ``run_dir``. ``start``, what this function wrote, stands in
    for the first stage.
    """
    train, val = Farmyard("source", "train", images), Farmyard("source", "val", min(images, 1800))
    classes, data = tuple(train.classes), {"train": pack(train, IMAGE_PX), "val": pack(val, IMAGE_PX)}

    def stage(name: str, model: Student, config: DistillConfig) -> dict[str, Any]:
        """Train, and return what the model card says of it."""
        history = distill(
            model, data["train"], config=config, val=data["val"], run_dir=Path(run_dir) / name, resume=True,
            checkpoint_every=100, cpu=cpu,
        )  # fmt: skip
        assert history.scores is not None
        seconds, accuracy = history.rows[-1]["seconds"], history.scores.plain
        return {"config": dataclasses.asdict(config), "seconds": seconds, "val_accuracy": accuracy}

    task = Classification(len(classes), classes)
    first = Student(ARCHITECTURE, task, weights=start, seed=species.seed, **TIMM_KWARGS)
    first_stage = read_metadata(Path(start))["stages"]["species"] if start else stage("species", first, species)
    # Strides become dilations, so that places are told apart and a teacher's maps are finer; the weights stay.
    both = SpeciesAndPlaces(len(classes), classes)
    model = Student(ARCHITECTURE, both, seed=places.seed, output_stride=16, **TIMM_KWARGS)
    model.backbone.load_state_dict(first.backbone.state_dict())
    card = {
        "architecture": ARCHITECTURE, "timm_kwargs": TIMM_KWARGS | {"output_stride": 8}, "layers": list(model.layers),
        "image_px": IMAGE_PX, "mean": model.mean.flatten().tolist(), "std": model.std.flatten().tolist(),
        "classes": classes, "images": images, "data": train.fingerprint,
        "stages": {"species": first_stage, "places": stage("places", model, places)},
    }  # fmt: skip
    state = {k: (v.half() if v.is_floating_point() else v).contiguous().cpu()
             for k, v in model.backbone.state_dict().items()}  # fmt: skip
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(state, Path(out), {"prockd": json.dumps(card)})
    return card
