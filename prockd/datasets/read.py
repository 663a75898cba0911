"""Any picture file as upright 8-bit RGB, and any mask file as numbers."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image, UnidentifiedImageError

from prockd.datasets.problems import DatasetError

IMAGE_FORMATS = {"JPEG": (".jpg", ".jpeg"), "PNG": (".png",), "BMP": (".bmp",), "WEBP": (".webp",),
                 "TIFF": (".tif", ".tiff")}  # fmt: skip
"""Pillow's names of the formats that are read, with their suffixes; no other of its decoders ever sees a file."""
IMAGE_SUFFIXES = {suffix for suffixes in IMAGE_FORMATS.values() for suffix in suffixes}
# How the files begin that are often found under the suffix of a picture.
_OTHER_KINDS = {b"GIF8": "GIF", b"ftyphei": "HEIC", b"ftypmif": "HEIC", b"ftypavif": "AVIF", b"%PDF": "PDF",
                b"%!PS": "PostScript", b"<svg": "SVG", b"<html": "HTML", b"8BPS": "Photoshop"}  # fmt: skip
MAX_MASK_VALUE = 65535
MAX_SIDE_PX = 65_535  # of a picture, as in JPEG: one of a few pixels by many millions is an attack
_TURNS = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
          5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
          8: Image.Transpose.ROTATE_90}  # fmt: skip
_ORIENTATION, _FIRST_TURNED = 0x0112, 5  # of EXIF: from 5 on, the picture is stored lying on its side


def read_image(path: Path | str) -> UInt8[np.ndarray, "H W 3"]:
    """Read a picture of any kind as upright 8-bit RGB.

    The EXIF orientation is applied, transparency laid on white, 16 and 32 bits scaled to 8 by the range of their mode.

    Raises:
        DatasetError: the file is missing, truncated, too large to be a photograph, or no picture of ``IMAGE_FORMATS``.
    """
    with _opened(path) as file:
        file.load()
        picture = upright(file)
        if picture.mode.startswith(("I", "F")):
            levels = np.asarray(picture)
            if picture.mode == "F" or levels.min() < 0:
                raise ValueError(f"levels {levels.min()}..{levels.max()} have no defined white; convert it to 8 bits")
            # Pillow gives 16-bit files as 32-bit integers too: the levels tell which white is meant.
            white = 65535 if levels.max() <= 65535 else 2**31 - 1
            return np.repeat(np.rint(levels * (255 / white)).astype(np.uint8)[..., None], 3, axis=2)
        if picture.has_transparency_data:
            layer = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        return np.array(picture.convert("RGB"))


def upright(picture: Image.Image) -> Image.Image:
    """The picture turned as its EXIF says; no other tag is read, since odd ones, of GPS for one, are common."""
    turn = _TURNS.get(picture.getexif().get(_ORIENTATION, 1))
    return picture if turn is None else picture.transpose(turn)


def read_mask(path: Path | str) -> UInt16[np.ndarray, "H W"]:
    """Read the numbers that a mask stores: palette indices, 1-bit, 8-bit or 16-bit grey levels, not scaled.

    Raises:
        DatasetError: the file is missing, truncated or no picture, or its pixels are colours or beyond 65535.
    """
    with _opened(path) as file:
        file.load()
        levels = np.asarray(file if file.mode in ("1", "L", "P") or file.mode.startswith("I") else file.convert("RGB"))
    if levels.ndim == 3:  # grey saved as RGB still has one number a pixel; a colour would have to be guessed
        if not (levels == levels[..., :1]).all():
            raise DatasetError(f"{path} holds colours, not class numbers: store it as a palette or grey image")
        levels = levels[..., 0]
    low, high = int(levels.min()), int(levels.max())
    if low < 0 or high > MAX_MASK_VALUE:
        raise DatasetError(f"{path} holds {low}..{high}, and class numbers go from 0 to {MAX_MASK_VALUE}")
    return levels.astype(np.uint16)


def image_size(path: Path | str) -> tuple[int, int]:
    """Height and width of an upright picture, from its header."""
    with _opened(path) as file:
        turned = file.getexif().get(_ORIENTATION, 1) >= _FIRST_TURNED
        return (file.width, file.height) if turned else (file.height, file.width)


def pictures(folder: Path, pattern: str = "**/*") -> list[Path]:
    """Picture files by their suffix, sorted, hidden ones left out."""
    files = [p for p in folder.glob(pattern) if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
    return sorted(p for p in files if not any(part.startswith(".") for part in p.relative_to(folder).parts))


def is_file(path: Path) -> bool:
    """Whether a file is there; of a name that no file can have, none is."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


@contextmanager
def _opened(path: Path | str) -> Iterator[Image.Image]:
    """A picture whose errors, in whatever words Pillow has, become one that names the file and what to do."""
    try:
        with warnings.catch_warnings():
            # Pillow warns of one large picture and refuses twice its size; neither is a photograph.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            file = Image.open(path, formats=tuple(IMAGE_FORMATS))
        with file:
            if max(file.size) > MAX_SIDE_PX:
                text = f"{file.width} x {file.height} px, and {MAX_SIDE_PX} are the longest side"
                raise DatasetError(f"{path} is longer than any photograph: {text}. Store a smaller copy")
            yield file
    except DatasetError:
        raise
    except FileNotFoundError as error:
        raise DatasetError(f"{path} does not exist") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        pixels = int(re.findall(r"\d+", str(error))[0])
        text = f"{pixels:,} pixels, and {Image.MAX_IMAGE_PIXELS:,} are the most"
        raise DatasetError(f"{path} is larger than any photograph: {text}. Store a smaller copy") from error
    except Exception as error:  # what Pillow's decoders raise of damaged bytes has no end
        reason = str(error) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            with Path(path).open("rb") as raw:
                start, wanted = raw.read(256), ", ".join(IMAGE_FORMATS)
            kind = next((name for begin, name in _OTHER_KINDS.items() if begin in start), "")
            flaw = f"are {kind}, not one of {wanted}" if kind else f"do not begin as those of {wanted} do"
            reason = f"its bytes {flaw}"
        raise DatasetError(f"{path} cannot be read as an image ({reason}): replace or remove the file") from error
