"""Any picture file becomes upright 8-bit RGB, any mask file numbers, and everything else a clear message."""

import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from prockd.datasets import IMAGE_SUFFIXES, DatasetError, read_image, read_mask
from prockd.datasets.files import sub_folders
from prockd.datasets.read import IMAGE_FORMATS, darkness, image_size, pictures

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def quadrants(H: int = 16, W: int = 24) -> np.ndarray:
    """An image whose corners tell its orientation: red green over blue white."""
    image = np.empty((H, W, 3), np.uint8)
    image[: H // 2, : W // 2], image[: H // 2, W // 2 :] = RED, GREEN
    image[H // 2 :, : W // 2], image[H // 2 :, W // 2 :] = BLUE, WHITE
    return image


def corners(image: np.ndarray) -> list[tuple[int, ...]]:
    return [tuple(map(int, image[y, x])) for y in (0, -1) for x in (0, -1)]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    upright = Image.fromarray(quadrants())
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # what a camera held that way would have stored
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "x.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "x.png"), quadrants())


def test_greyscale_becomes_three_equal_channels(tmp_path):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(grey).save(tmp_path / "x.png")
    assert np.array_equal(read_image(tmp_path / "x.png"), np.stack([grey] * 3, 2))


def test_black_and_white_becomes_0_and_255(tmp_path):
    Image.fromarray(np.eye(8, dtype=bool)).save(tmp_path / "x.png")
    assert np.array_equal(read_image(tmp_path / "x.png")[..., 1], np.eye(8, dtype=np.uint8) * 255)


def test_a_palette_is_looked_up(tmp_path):
    Image.fromarray(quadrants()).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as stored:
        assert stored.mode == "P"
    assert corners(read_image(tmp_path / "x.png")) == [RED, GREEN, BLUE, WHITE]


def test_cmyk_becomes_rgb(tmp_path):
    Image.fromarray(quadrants(32, 32)).convert("CMYK").save(tmp_path / "x.jpg", quality=100)
    with Image.open(tmp_path / "x.jpg") as stored:
        assert stored.mode == "CMYK"
    assert np.allclose(corners(read_image(tmp_path / "x.jpg")), [RED, GREEN, BLUE, WHITE], atol=6)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_on_white(tmp_path, mode):
    picture = Image.new("RGBA", (8, 8), (0, 0, 0, 255))
    picture.paste((0, 0, 0, 0), (0, 0, 4, 8))
    if mode == "P":
        picture = Image.new("P", (8, 8), 1)
        picture.putpalette([9, 9, 9, 0, 0, 0])
        picture.paste(0, (0, 0, 4, 8))
        picture.save(tmp_path / "x.png", transparency=0)
    else:
        picture.convert(mode).save(tmp_path / "x.png")
    image = read_image(tmp_path / "x.png")
    assert corners(image) == [WHITE, (0, 0, 0)] * 2


def test_half_transparency_is_half_white(tmp_path):
    Image.new("RGBA", (8, 8), (255, 0, 0, 128)).save(tmp_path / "x.png")
    assert corners(read_image(tmp_path / "x.png"))[0] == (255, 127, 127)


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_16_bits_are_scaled_not_clipped(tmp_path, name):
    levels = np.linspace(0, 65535, 99).astype(np.uint16).reshape(9, 11)
    Image.fromarray(levels).save(tmp_path / name)
    assert np.array_equal(read_image(tmp_path / name)[..., 0], np.rint(levels / 257))


def test_16_bits_a_channel_are_scaled(tmp_path):
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + struct.pack(">3H", 65535, 32896, 257) * 8 for _ in range(8))
    header = struct.pack(">2I5B", 8, 8, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    assert corners(read_image(tmp_path / "x.png"))[0] == (255, 128, 1)


def test_32_bits_are_scaled_by_their_own_range(tmp_path):
    Image.fromarray(np.full((8, 8), 2**31 - 1, np.int32)).save(tmp_path / "x.tif")
    assert read_image(tmp_path / "x.tif").min() == 255


def test_pictures_of_12_bits_are_told_dark_and_read_with_the_white_that_is_named(tmp_path):
    levels = np.linspace(0, 4095, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(levels).save(tmp_path / "x.tif")
    dark = read_image(tmp_path / "x.tif")
    assert dark.max() == 16
    assert re.search(
        r"nearly black: .* is 4095, .*If 4095 is white, say white=4095", darkness(tmp_path / "x.tif", dark)
    )
    bright = read_image(tmp_path / "x.tif", white=4095)
    assert np.array_equal(bright[..., 2], np.rint(levels * (255 / 4095)))
    assert darkness(tmp_path / "x.tif", bright) == ""
    assert read_image(tmp_path / "x.tif", white=100).max() == 255  # what is brighter than white is white


def test_a_telephone_s_108_megapixels_are_read(tmp_path):
    Image.new("1", (12_000, 9_000)).save(tmp_path / "x.png")
    assert image_size(tmp_path / "x.png") == (9_000, 12_000)
    assert Image.MAX_IMAGE_PIXELS is not None  # what others open is bounded as before
    assert read_mask(tmp_path / "x.png").shape == (9_000, 12_000)


def test_heic_is_read_where_pillow_heif_is(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    Image.fromarray(quadrants(64, 64)).save(tmp_path / "IMG_1.HEIC", "HEIF", quality=95)
    assert pictures(tmp_path) == [tmp_path / "IMG_1.HEIC"]
    assert np.allclose(corners(read_image(tmp_path / "IMG_1.HEIC")), [RED, GREEN, BLUE, WHITE], atol=25)


def test_the_thumbnails_of_a_disk_station_are_nobody_s_pictures(tmp_path):
    for name in (
        "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg",
        "__MACOSX/a.jpg",
        "#recycle/b.jpg",
        "cat/@eaDir/c.jpg",
        "cat/d.jpg",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    assert pictures(tmp_path) == [tmp_path / "cat" / "d.jpg"]
    assert sub_folders(tmp_path) == [tmp_path / "cat"]


def test_a_mask_kept_in_the_transparency_is_read_from_there(tmp_path):
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:3, :, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "x.png")
    assert np.array_equal(read_mask(tmp_path / "x.png"), pixels[..., 3])
    pixels[..., :3] = np.arange(8, dtype=np.uint8)[:, None]  # numbers in the colours win
    Image.fromarray(pixels).save(tmp_path / "x.png")
    assert np.array_equal(read_mask(tmp_path / "x.png"), pixels[..., 0])


def test_floating_point_images_are_refused_because_their_white_is_not_known(tmp_path):
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(DatasetError, match=r"x\.tif .*convert it to 8 bits"):
        read_image(tmp_path / "x.tif")


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_truncated_image_is_named(tmp_path, suffix):
    path = tmp_path / f"half.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DatasetError, match=rf"half\.{suffix} cannot be read .*replace or remove"):
        read_image(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_no_image_is_named(tmp_path, content):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(DatasetError, match=r"x\.png cannot be read .*replace or remove"):
        read_image(tmp_path / "x.png")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"x\.png does not exist"):
        read_image(tmp_path / "x.png")


def test_a_decompression_bomb_stays_an_error(tmp_path, monkeypatch):
    Image.new("1", (64, 64)).save(tmp_path / "x.png")
    monkeypatch.setattr("prockd.datasets.read.MAX_PIXELS", 1000)
    with pytest.raises(DatasetError, match=r"x\.png is larger than any photograph.*smaller copy"):
        read_image(tmp_path / "x.png")


@pytest.mark.parametrize("read", [read_image, read_mask])
def test_a_picture_of_400_megapixels_is_refused_with_the_limit_before_it_is_decoded(tmp_path, read):
    header = struct.pack(">2I5B", 20_000, 20_000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    chunk += struct.pack(">I", 0) + b"IDAT"
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
    with pytest.raises(
        DatasetError,
        match=r"x\.png is larger than any photograph.*20,000 x 20,000 pixels, and 250,000,000 are the most.*smaller",
    ):
        read(tmp_path / "x.png")


@pytest.mark.parametrize("format", IMAGE_FORMATS)
def test_each_format_is_read_by_each_of_its_suffixes(tmp_path, format):
    assert {suffix for suffixes in IMAGE_FORMATS.values() for suffix in suffixes} == IMAGE_SUFFIXES
    if format == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    for suffix in IMAGE_FORMATS[format]:
        Image.fromarray(quadrants(32, 32)).save(tmp_path / f"x{suffix}", format, quality=100)
        assert np.allclose(corners(read_image(tmp_path / f"x{suffix}")), [RED, GREEN, BLUE, WHITE], atol=6)
        assert image_size(tmp_path / f"x{suffix}") == (32, 32)


def test_a_picture_of_several_frames_as_phones_store_it_is_a_jpeg(tmp_path):
    frames = [Image.fromarray(quadrants(32, 32)), Image.new("RGB", (16, 16))]
    frames[0].save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=frames[1:], quality=100)
    assert np.allclose(corners(read_image(tmp_path / "x.jpg")), [RED, GREEN, BLUE, WHITE], atol=6)


@pytest.mark.parametrize("read", [read_image, read_mask, image_size])
def test_bytes_of_another_kind_under_the_suffix_of_a_picture_reach_no_decoder_and_are_named(tmp_path, read):
    Image.new("RGB", (8, 8)).save(tmp_path / "gif.jpg", "GIF")
    with pytest.raises(DatasetError, match=r"gif\.jpg cannot .*its bytes are GIF, not one of JPEG, PNG.*replace"):
        read(tmp_path / "gif.jpg")
    Image.new("RGB", (8, 8)).save(tmp_path / "ppm.png", "PPM")  # Pillow would read it
    with pytest.raises(DatasetError, match=r"ppm\.png .*its bytes do not begin as those of JPEG, PNG, BMP, WEBP, TIFF"):
        read(tmp_path / "ppm.png")
    (tmp_path / "phone.jpg").write_bytes(b"\0\0\0\x18ftypavif\0\0\0\0mif1avif")
    with pytest.raises(DatasetError, match=r"phone\.jpg .*its bytes are AVIF"):
        read(tmp_path / "phone.jpg")


def test_odd_tags_of_gps_do_not_hinder_a_picture(tmp_path):
    side, places = struct.pack("<HHII", 0x0112, 3, 1, 6), struct.pack("<HHII", 0x8825, 4, 1, 12345678)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + side + places + bytes(4)  # GPS is told to be beyond the file
    Image.fromarray(np.zeros((16, 32, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (32, 16, 3)
