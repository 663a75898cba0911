"""All images that a widget shows, side by side in one picture: full images and patch thumbnails are cut from it."""

import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from prockd.datasets import PackedImages

MAX_SIDE_PX = 4_096
MAX_CELL_PX = 192


@dataclass(frozen=True)
class Sheet:
    """A sheet of images.

    Attributes:
        data: the picture as WebP.
        cell_px: side of one image in it.
        columns: images in a row.
    """

    data: bytes
    cell_px: int
    columns: int


def sprite_sheet(images: PackedImages) -> Sheet:
    """Lay images out in one sheet whose sides stay below ``MAX_SIDE_PX``.

    Raises:
        ValueError: an image can no longer be read (names it).
    """
    columns = math.ceil(math.sqrt(len(images)))
    cell = min(images.image_px, MAX_CELL_PX, MAX_SIDE_PX // columns)
    sheet = Image.new("RGB", (columns * cell, math.ceil(len(images) / columns) * cell))
    for i in range(len(images)):
        try:
            picture = Image.fromarray(np.array(images.pixels[i]).transpose(1, 2, 0))
        except (OSError, ValueError, IndexError) as error:
            raise ValueError(f"image {images.ids[i]!r} cannot be read any more ({error}): pack it again") from error
        if cell != images.image_px:
            picture = picture.resize((cell, cell), Image.Resampling.LANCZOS)
        sheet.paste(picture, (i % columns * cell, i // columns * cell))
    file = io.BytesIO()
    sheet.save(file, "WEBP", quality=82, method=2)
    return Sheet(file.getvalue(), cell, columns)
