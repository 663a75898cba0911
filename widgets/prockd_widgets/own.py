"""A picture of one's own beside those of the explorer: read, made square, and seen by its models."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import traitlets
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode

from prockd.datasets import PackedImages
from prockd.datasets.packing import fit_square
from prockd.datasets.transforms import resize, to_unit
from prockd.prototypes.bank import PrototypeBank
from prockd.students.student import Student
from prockd.teachers.features import fuse_layers
from prockd.teachers.teacher import Teacher
from prockd_widgets.maps import MapMaker
from prockd_widgets.patches import Model, Patches, pack_codes, pack_top

MAX_PIXELS = 100_000_000


def read_picture(
    picture: Any, side_px: int, grid: tuple[int, int]
) -> tuple[UInt8[np.ndarray, "3 S S"], Bool[np.ndarray, " N"]]:
    """The whole picture in a square with bars beside it, and which patches of the square show it.

    Raises:
        ValueError: it is no picture that can be read; the message names it.
    """
    name = str(picture) if isinstance(picture, str | Path) else "the picture"
    try:
        if isinstance(picture, np.ndarray):
            picture = Image.fromarray(picture)
        elif not isinstance(picture, Image.Image):
            picture = Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture)
        if picture.width * picture.height > MAX_PIXELS:
            raise ValueError(f"{picture.width} x {picture.height} pixels are too many")
        pixels = np.array(ImageOps.exif_transpose(picture).convert("RGB")).transpose(2, 0, 1)
    except (OSError, ValueError, TypeError, AttributeError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name} cannot be read ({error}): pass a PNG or JPEG file, or pixels (H, W, 3)") from error
    fit = fit_square(pixels.shape[1], pixels.shape[2], side_px, "pad")
    (top, left, high, wide), (h, w) = fit.target, grid
    y, x = (np.arange(h) + 0.5) * side_px / h, (np.arange(w) + 0.5) * side_px / w
    inside = ((y >= top) & (y <= top + high))[:, None] & ((x >= left) & (x <= left + wide))
    return fit.resize(pixels, InterpolationMode.BICUBIC, 128), inside.ravel()


def picture_bytes(pixels: UInt8[np.ndarray, "3 S S"]) -> bytes:
    """The square as the browser takes it."""
    file = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(file, "WEBP", quality=90)
    return file.getvalue()


@torch.no_grad()
def see(
    pixels: UInt8[np.ndarray, "3 S S"], seer: Teacher | Student, bank: PrototypeBank, grid: tuple[int, int]
) -> Float[Tensor, "N E"]:
    """The picture's patches in the space of the bank, of length 1, on the grid of the explorer."""
    device = next(seer.parameters()).device
    batch = resize(to_unit(torch.from_numpy(pixels)[None].to(device)), seer.image_px)
    own = seer.grid
    if isinstance(seer, Student):
        was_training = seer.training
        u = seer.eval()(batch).features
        seer.train(was_training)
    else:
        u = bank.embed(fuse_layers(seer(batch), own))
    if own != grid:
        maps = u.transpose(1, 2).reshape(1, -1, *own)
        u = F.interpolate(maps, grid, mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)
    return F.normalize(u[0].float().cpu(), dim=-1)


class OwnPictures(MapMaker):
    """The part of the explorer that shows a picture of one's own beside its images."""

    image = traitlets.Int(0, help="The image that is shown; beyond the last one your own.").tag(sync=True)
    patch = traitlets.Int(-1, help="The patch in the box, -1 for none.").tag(sync=True)
    show = traitlets.Enum(("prototype", "likeness", "all"), "prototype", help="What the heat-map shows.").tag(sync=True)
    own = traitlets.Dict(help="A picture of one's own, and what the models say of it.").tag(sync=True)
    images: PackedImages
    grid: tuple[int, int]
    teacher: Teacher | None
    _sources: list[Model]
    _own: list[Patches]
    _count: int
    _code_bytes: int

    def _gallery(self, model: int) -> list[int]:
        raise NotImplementedError

    def look_at(self, picture: Any, *, name: str = "") -> None:
        """Show a picture of your own, and what is like its patches in all images.

        Args:
            picture: a path, the bytes of a file, a PIL image, or pixels (H, W, 3) 0..255.
            name: what the page calls it.

        Raises:
            ValueError: it cannot be read, or nobody is there to look at it: features alone do not, so that the
                explorer needs ``teacher=``.
        """
        pixels, inside = read_picture(picture, self.images.image_px, self.grid)
        name = name or (Path(picture).name if isinstance(picture, str | Path) else "your picture")
        shown = torch.from_numpy(inside)[:, None]
        self._own = [Patches(m.name, m.bank, self._see(i, pixels) * shown) for i, m in enumerate(self.models)]
        strongest = self._own[0].switched()[:, self._gallery(0) or slice(None)].max(1).values
        self._own_picture = {"sheet": picture_bytes(pixels), "name": name}
        self._send_own()
        self.image, self.show = len(self.images), "likeness"
        self.patch = len(self.models[0].unit) + int(strongest.argmax())

    def _see(self, i: int, pixels: np.ndarray) -> torch.Tensor:
        source, bank = self._sources[i], self.models[i].bank
        seer = source if isinstance(source, Student) else self.teacher
        if seer is None:
            raise ValueError("features do not look at pictures: pass teacher= to the explorer")
        if isinstance(seer, Teacher):
            bank.check_teacher(seer.fingerprint, sum(seer.widths))
        return see(pixels, seer, bank, self.grid)

    def _send_own(self) -> None:
        codes = [
            pack_codes(m.unit, self._code_bytes, own.unit)[0] for m, own in zip(self.models, self._own, strict=True)
        ]
        top = [pack_top(own.switched(), self._count) for own in self._own]
        self.own = {**self._own_picture, "top": top, "codes": codes}
