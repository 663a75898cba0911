"""Any picture file as upright 8-bit RGB, and any mask file as numbers."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8, UInt16
from PIL import Image, UnidentifiedImageError

from prockd.datasets.problems import DatasetError

IMAGE_FORMATS = {"JPEG": (".jpg", ".jpeg"), "PNG": (".png",), "BMP": (".bmp",), "WEBP": (".webp",),
                 "TIFF": (".tif", ".tiff")}  # fmt: skip
"""Pillow's names of the formats that are read, with their suffixes; no other of its decoders ever sees a file."""
HEIC_SUFFIXES = (".heic", ".heif")
"""Photographs of telephones, which are read where pillow-heif is installed."""
_READS_HEIC = find_spec("pillow_heif") is not None
if _READS_HEIC:
    IMAGE_FORMATS["HEIF"] = HEIC_SUFFIXES
IMAGE_SUFFIXES = {suffix for suffixes in IMAGE_FORMATS.values() for suffix in suffixes}
"""Of the pictures that are read."""
# How the files begin that are often found under the suffix of a picture.
_OTHER_KINDS = {b"GIF8": "GIF", b"ftyphei": "HEIC", b"ftypmif": "HEIC", b"ftypavif": "AVIF", b"%PDF": "PDF",
                b"%!PS": "PostScript", b"<svg": "SVG", b"<html": "HTML", b"8BPS": "Photoshop"}  # fmt: skip
MAX_MASK_VALUE = 65535
MAX_PIXELS = 250_000_000  # telephones make 200 million
MAX_SIDE_PX = 65_535  # of a picture, as in JPEG: one of a few pixels by many millions is an attack
_DARK = 32  # of 255: a picture whose brightest level is below shows nothing
_TURNS = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
          5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
          8: Image.Transpose.ROTATE_90}  # fmt: skip
_ORIENTATION, _FIRST_TURNED = 0x0112, 5  # of EXIF: from 5 on, the picture is stored lying on its side
_OTHERS_FOLDERS = {"__macosx", "@eadir", "#recycle", "$recycle.bin", "lost+found"}  # made by systems, not by people
_OPENING = threading.Lock()


def read_image(path: Path | str, *, white: int = 0, exif: bool = True) -> UInt8[np.ndarray, "H W 3"]:
    """Read a picture of any kind as upright 8-bit RGB.

    The EXIF orientation is applied, transparency laid on white, 16 and 32 bits scaled to 8 by the range of their mode.

    Args:
        path: the picture.
        white: level of white where a pixel has one number of 16 or 32 bits (4095 of a camera of 12 bits); 0 for the
            range of the mode.
        exif: turn the picture as its EXIF says.

    Raises:
        DatasetError: the file is missing, truncated, too large to be a photograph, or no picture of ``IMAGE_FORMATS``.
    """
    with _opened(path) as file:
        file.load()
        picture = upright(file) if exif else file
        if picture.mode.startswith(("I", "F")):
            levels = np.asarray(picture)
            if picture.mode == "F" or levels.min() < 0:
                raise ValueError(f"levels {levels.min()}..{levels.max()} have no defined white; convert it to 8 bits")
            # Pillow gives 16-bit files as 32-bit integers too: the levels tell which white is meant.
            white = white or (65535 if levels.max() <= 65535 else 2**31 - 1)
            return np.repeat(np.rint(levels.clip(0, white) * (255 / white)).astype(np.uint8)[..., None], 3, axis=2)
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

    Where the colour is the same everywhere and the transparency is not, the transparency (0..255) is the mask.

    Raises:
        DatasetError: the file is missing, truncated or no picture, or its pixels are colours or beyond 65535.
    """
    with _opened(path) as file:
        file.load()
        levels = np.asarray(file if file.mode in ("1", "L", "P") or file.mode.startswith("I") else file.convert("RGB"))
        alpha = np.asarray(file.getchannel("A")) if "A" in file.getbands() else None
    if levels.ndim == 3:  # grey saved as RGB still has one number a pixel; a colour would have to be guessed
        if alpha is not None and is_flat(levels) and not is_flat(alpha):
            levels = alpha[..., None]
        if not (levels == levels[..., :1]).all():
            raise DatasetError(
                f"{path} holds colours, not class numbers: store it as a palette or grey image, or "
                "name the colours in labelmap.txt beside the masks' folder, name:red,green,blue"
            )
        levels = levels[..., 0]
    low, high = int(levels.min()), int(levels.max())
    if low < 0 or high > MAX_MASK_VALUE:
        raise DatasetError(f"{path} holds {low}..{high}, and class numbers go from 0 to {MAX_MASK_VALUE}")
    return levels.astype(np.uint16)


def read_colours(path: Path | str) -> Int64[np.ndarray, "H W"]:
    """The colours of a picture as whole numbers, 0xff8800 for ``#ff8800``; of a palette those that it lists."""
    with _opened(path) as file:
        rgb = np.asarray(file.convert("RGB"), np.int64)
    return np.asarray(rgb @ np.array([1 << 16, 1 << 8, 1]), np.int64)


def is_flat(pixels: np.ndarray) -> bool:
    """Whether all pixels (H, W, ...) are the same."""
    return bool((pixels == pixels[:1, :1]).all())


def is_in_alpha(path: Path | str) -> bool:
    """Whether a mask is kept in the transparency of a picture of one colour."""
    try:
        with _opened(path) as file:
            if "A" not in file.getbands():
                return False
            colours, alpha = np.asarray(file.convert("RGB")), np.asarray(file.getchannel("A"))
    except DatasetError:
        return False  # a problem of its sample, when that is read
    return is_flat(colours) and not is_flat(alpha)


def read_palette(path: Path | str) -> list[str] | None:
    """The colours of a picture's numbers as ``#ff8800``, from its header; None where it has no palette."""
    with _opened(path) as file:
        flat = bytes(file.getpalette() or ()) if file.mode == "P" else b""
    return [f"#{flat[k : k + 3].hex()}" for k in range(0, len(flat) - 2, 3)] or None


def image_size(path: Path | str) -> tuple[int, int]:
    """Height and width of an upright picture, from its header."""
    with _opened(path) as file:
        turned = _turn(file) >= _FIRST_TURNED
        return (file.width, file.height) if turned else (file.height, file.width)


def turn_of(path: Path | str) -> int:
    """How a picture is stored, says its EXIF: 1 upright, 3 upside down, 6 and 8 on a side, others mirrored."""
    with _opened(path) as file:
        return _turn(file)


def _turn(file: Image.Image) -> int:
    turn = file.getexif().get(_ORIENTATION, 1)
    return turn if isinstance(turn, int) and 1 < turn <= 8 else 1


def darkness(path: Path | str, image: UInt8[np.ndarray, "H W 3"]) -> str:
    """That a picture, as it was read, is nearly black, in words, and which level of white would mend it; else empty."""
    if image.max() >= _DARK:
        return ""
    with _opened(path) as file:
        brightest = int(np.asarray(file).max()) if file.mode.startswith("I") else 0
    if not brightest:
        return f"is nearly black: its brightest level is {image.max()} of 255"
    white = next(2**bits - 1 for bits in (8, 10, 12, 14, 16, 31) if brightest < 2**bits)
    deep = f"is nearly black: its brightest level is {brightest}, of more than 8 bits"
    return f"{deep}. If {white} is white, say white={white} (--set data.white={white})"


def is_hidden(name: str) -> bool:
    """Whether a file or folder is nobody's picture: hidden, or what a system leaves behind (thumbnails, a bin)."""
    return name.startswith(".") or name.lower() in _OTHERS_FOLDERS


def pictures(folder: Path, pattern: str = "**/*") -> list[Path]:
    """Picture files by their suffix, sorted, hidden ones left out."""
    files = [p for p in folder.glob(pattern) if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
    return sorted(p for p in files if not any(map(is_hidden, p.relative_to(folder).parts)))


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
        with _header(path) as file:
            yield file
    except DatasetError:
        raise
    except FileNotFoundError as error:
        raise DatasetError(f"{path} does not exist") from error
    except Exception as error:  # what Pillow's decoders raise of damaged bytes has no end
        reason = str(error) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            with Path(path).open("rb") as raw:
                start, wanted = raw.read(256), ", ".join(IMAGE_FORMATS)
            kind = next((name for begin, name in _OTHER_KINDS.items() if begin in start), "")
            flaw = f"are {kind}, not one of {wanted}" if kind else f"do not begin as those of {wanted} do"
            reason = f"its bytes {flaw}"
        raise DatasetError(f"{path} cannot be read as an image ({reason}): replace or remove the file") from error


def _header(path: Path | str) -> Image.Image:
    """A picture that is not decoded yet, and not too large to be."""
    if _READS_HEIC:
        import pillow_heif

        pillow_heif.register_heif_opener()  # once; it knows by itself
    # Pillow's own bound is below what telephones make; its test is put aside while it reads the header.
    with _OPENING:
        bound, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            file = Image.open(path, formats=tuple(IMAGE_FORMATS))
        finally:
            Image.MAX_IMAGE_PIXELS = bound
    if max(file.size) > MAX_SIDE_PX:
        file.close()
        text = f"{file.width} x {file.height} px, and {MAX_SIDE_PX} are the longest side"
        raise DatasetError(f"{path} is longer than any photograph: {text}. Store a smaller copy")
    if file.width * file.height > MAX_PIXELS:
        file.close()
        text = f"{file.width:,} x {file.height:,} pixels, and {MAX_PIXELS:,} are the most"
        raise DatasetError(f"{path} is larger than any photograph: {text}. Store a smaller copy")
    return file
