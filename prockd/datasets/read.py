"""Any picture file as upright 8-bit RGB, and any mask file as numbers."""

import re
import struct
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image, ImageOps

from prockd.datasets._common import DatasetError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
_MOST = 65535
_ORIENTATION, _FIRST_TURNED = 0x0112, 5
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
_UNREADABLE = (*_BOMBS, OSError, SyntaxError, ValueError, EOFError, struct.error)


def read_image(path: Path | str) -> UInt8[np.ndarray, "H W 3"]:
    """Read a picture of any kind as upright 8-bit RGB.

    The EXIF orientation is applied, transparency laid on white, 16 and 32 bits scaled to 8 by the range of their mode.

    Raises:
        DatasetError: the file is missing, truncated, too large to be a photograph, or no picture.
    """
    try:
        with _open(path) as file:
            file.load()
            return _to_rgb(ImageOps.exif_transpose(file))
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def read_mask(path: Path | str) -> UInt16[np.ndarray, "H W"]:
    """Read the numbers that a mask stores: palette indices, 1-bit, 8-bit or 16-bit grey levels, not scaled.

    Raises:
        DatasetError: the file is missing, truncated or no picture, or its pixels are colours or beyond 65535.
    """
    try:
        with _open(path) as file:
            file.load()
            levels = np.asarray(
                file if file.mode in ("1", "L", "P") or file.mode.startswith("I") else file.convert("RGB")
            )
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    if levels.ndim == 3:
        if not (levels == levels[..., :1]).all():
            raise DatasetError(f"{path} holds colours, not class numbers: store it as a palette or grey image")
        levels = levels[..., 0]
    low, high = int(levels.min()), int(levels.max())
    if low < 0 or high > _MOST:
        raise DatasetError(f"{path} holds {low}..{high}, and class numbers go from 0 to {_MOST}")
    return levels.astype(np.uint16)


def image_size(path: Path | str) -> tuple[int, int]:
    """Height and width of an upright picture, from its header.

    Raises:
        DatasetError: the file is missing, too large to be a photograph, or no picture.
    """
    try:
        with _open(path) as file:
            turned = file.getexif().get(_ORIENTATION, 1) >= _FIRST_TURNED
            return (file.width, file.height) if turned else (file.height, file.width)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def _open(path: Path | str) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(path)


def _unreadable(path: Path | str, error: BaseException) -> DatasetError:
    if isinstance(error, FileNotFoundError):
        return DatasetError(f"{path} does not exist")
    if isinstance(error, _BOMBS):
        many, most = int(re.search(r"\d+", str(error))[0]), Image.MAX_IMAGE_PIXELS  # type: ignore[index]
        told = f"{many:,} pixels, and {most:,} are the most"
        return DatasetError(f"{path} is larger than any photograph: {told}. Store a smaller copy")
    return DatasetError(f"{path} cannot be read as an image ({error}): replace or remove the file")


def _to_rgb(picture: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    if picture.mode.startswith(("I", "F")):
        levels = np.asarray(picture)
        if picture.mode == "F" or levels.min() < 0:
            raise ValueError(f"levels {levels.min()}..{levels.max()} have no defined white; convert it to 8 bits")
        white = 65535 if levels.max() <= 65535 else 2**31 - 1
        grey = np.rint(levels * (255 / white)).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)  # (H, W, 3)
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return np.array(picture.convert("RGB"))


def pictures(folder: Path, pattern: str) -> list[Path]:
    """Picture files by their suffix, sorted, hidden ones left out."""
    found = [p for p in folder.glob(pattern) if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))
