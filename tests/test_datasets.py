import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prockd._types import UNLABELLED, Sample
from prockd.datasets import (
    Arrays,
    DatasetError,
    ImageFolder,
    PackedImages,
    labels_of,
    pack,
    read_image,
    read_mask,
    subset,
    train_test_split,
)

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def quadrants(H: int = 16, W: int = 24) -> np.ndarray:
    """An image whose corners tell its orientation: red green over blue white."""
    image = np.empty((H, W, 3), np.uint8)
    image[: H // 2, : W // 2], image[: H // 2, W // 2 :] = RED, GREEN
    image[H // 2 :, : W // 2], image[H // 2 :, W // 2 :] = BLUE, WHITE
    return image


def corners(image: np.ndarray) -> list[tuple[int, ...]]:
    return [tuple(map(int, image[y, x])) for y in (0, -1) for x in (0, -1)]


def noise(num_images: int, H: int, W: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num_images, H, W, 3), np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, one of them with a nested folder, hidden files and a text file."""
    root = tmp_path / "photos"
    for name, color in {"cats/b.PNG": RED, "cats/more/a.png": GREEN, "dogs/a.jpeg": BLUE}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 10), color).save(root / name)
    (root / "dogs" / "notes.txt").write_text("not a picture")
    (root / "dogs" / ".thumbs").mkdir()
    for hidden in ("dogs/.hidden.png", "dogs/.thumbs/a.png"):
        Image.new("RGB", (12, 10)).save(root / hidden)
    (root / ".ipynb_checkpoints").mkdir()
    return root


# Reading


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


def test_floating_point_images_are_refused_because_their_white_is_not_known(tmp_path):
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(DatasetError, match=r"x\.tif .*convert it to 8 bits"):
        read_image(tmp_path / "x.tif")


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_truncated_image_is_named(tmp_path, suffix):
    path = tmp_path / f"half.{suffix}"
    Image.fromarray(noise(1, 64, 64)[0]).save(path)
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
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DatasetError, match=r"x\.png is larger than any photograph.*smaller copy"):
        read_image(tmp_path / "x.png")


@pytest.mark.parametrize("read", [read_image, read_mask])
def test_a_picture_of_100_megapixels_is_refused_with_the_limit_before_it_is_decoded(tmp_path, read):
    header = struct.pack(">2I5B", 10_000, 10_000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    chunk += struct.pack(">I", 0) + b"IDAT"
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
    with pytest.raises(
        DatasetError,
        match=r"x\.png is larger than any photograph.*100,000,000 pixels, and 89,478,485 are the most.*smaller",
    ):
        read(tmp_path / "x.png")


# Folders


def test_sub_folders_are_classes_in_sorted_order(folder):
    dataset = ImageFolder(folder)
    assert dataset.classes == ("cats", "dogs")
    assert dataset.ids == ("cats/b.PNG", "cats/more/a.png", "dogs/a.jpeg")
    assert [(s.label, s.id) for s in dataset] == [(0, "cats/b.PNG"), (0, "cats/more/a.png"), (1, "dogs/a.jpeg")]
    assert corners(dataset[1].image) == [GREEN] * 4
    assert "3 images, 2 classes: cats, dogs" in repr(dataset)


def test_classes_can_be_chosen_and_ordered(folder):
    dataset = ImageFolder(folder, classes=["dogs"])
    assert [(s.label, s.id) for s in dataset] == [(0, "dogs/a.jpeg")]
    with pytest.raises(DatasetError, match=r"class folder .*birds"):
        ImageFolder(folder, classes=["birds", "dogs"])


def test_a_folder_without_sub_folders_is_unlabelled(folder):
    dataset = ImageFolder(folder / "cats" / "more")
    assert dataset.classes == ()
    assert [(s.label, s.id) for s in dataset] == [(UNLABELLED, "a.png")]


def test_a_hidden_parent_does_not_hide_the_pictures(tmp_path):
    (tmp_path / ".data").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / ".data" / "x.png")
    assert len(ImageFolder(tmp_path / ".data")) == 1


def test_images_beside_class_folders_are_left_out_with_a_warning(folder):
    Image.new("RGB", (8, 8)).save(folder / "loose.png")
    with pytest.warns(UserWarning, match="1 images beside the class folders"):
        assert len(ImageFolder(folder)) == 3


def test_a_missing_an_empty_and_an_imageless_class_folder_are_refused(folder, tmp_path):
    with pytest.raises(DatasetError, match="nowhere is not a folder"):
        ImageFolder(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"empty holds no images: looked for \.bmp \.jpeg .*sub-folders"):
        ImageFolder(tmp_path / "empty")
    (folder / "birds").mkdir()
    with pytest.raises(DatasetError, match=r"class folder birds: holds no images"):
        ImageFolder(folder)


def test_the_group_of_an_image_is_found_in_its_path(folder):
    dataset = ImageFolder(folder, group=r"^(\w+)/")
    assert dataset.groups == ("cats", "cats", "dogs")
    rest, first = train_test_split(dataset, 0.5, 0)
    assert {s.id.split("/")[0] for s in first} & {s.id.split("/")[0] for s in rest} == set()
    assert ImageFolder(folder).groups is None
    with pytest.raises(DatasetError, match=r"group='video' finds nothing in 'cats/b\.PNG': every image needs a group"):
        ImageFolder(folder, group="video")


def test_links_that_lead_back_are_no_classes_and_links_elsewhere_are(folder, tmp_path):
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "cats" / "up").symlink_to(tmp_path, target_is_directory=True)
    (folder / "itself").symlink_to(folder / "itself")
    assert ImageFolder(folder).ids == ("cats/b.PNG", "cats/more/a.png", "dogs/a.jpeg")
    (folder / "linked").symlink_to(folder / "dogs", target_is_directory=True)
    assert ImageFolder(folder).classes == ("cats", "dogs", "linked")


def test_the_fingerprint_changes_with_any_file_and_not_by_itself(folder):
    before = ImageFolder(folder).fingerprint
    assert ImageFolder(folder).fingerprint == before
    assert ImageFolder(folder, classes=["dogs", "cats"]).fingerprint != before
    os.utime(folder / "dogs" / "a.jpeg", (1, 1))
    assert ImageFolder(folder).fingerprint != before


# Arrays


def test_arrays_are_samples():
    dataset = Arrays(noise(3, 8, 10), [1, 0, UNLABELLED], ["a", "b"])
    assert [(s.label, s.id) for s in dataset] == [(1, "0"), (0, "1"), (UNLABELLED, "2")]
    assert dataset[0].image.shape == (8, 10, 3)
    assert repr(dataset) == "Arrays(3 images of 10 x 8 px, 2 classes: a, b)"
    assert Arrays(noise(3, 8, 10), [1, 1, 1], "ab").fingerprint != dataset.fingerprint
    assert Arrays(255 - noise(3, 8, 10), [1, 0, -1], "ab").fingerprint != dataset.fingerprint


@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        (np.zeros((2, 3, 8, 8), np.uint8), [0, 0], r"uint8 \(2, 3, 8, 8\), not uint8 \(M, H, W, 3\)"),
        (np.zeros((2, 8, 8, 3), np.float32), [0, 0], "images are float32"),
        (np.zeros((0, 8, 8, 3), np.uint8), [], "M > 0"),
        (np.zeros((2, 8, 8, 3), np.uint8), [0], r"2 images with labels \(1,\)"),
        (np.zeros((2, 8, 8, 3), np.uint8), [0, 2], r"image 1 \(1\) has label 2: 2 classes have labels 0\.\.1"),
        (np.zeros((2, 8, 8, 3), np.uint8), [-2, 0], r"image 0 \(0\) has label -2"),
    ],
)
def test_arrays_of_a_wrong_kind_are_refused(images, labels, said):
    with pytest.raises(DatasetError, match=said):
        Arrays(images, labels, ["a", "b"])


# Packing


class World:
    """Images of any size with part masks, as Farmyard has; counts what is read."""

    classes = ("a", "b")
    fingerprint = "world"

    def __init__(self, samples: list[Sample]) -> None:
        self.samples = samples
        self.reads = 0

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        self.reads += 1
        return self.samples[index]


def test_images_of_the_right_size_are_copied_exactly_and_read_once(tmp_path):
    images = noise(4, 16, 16)
    world = World([Sample(image, m % 2, f"s{m}", parts=image[..., 0] % 10) for m, image in enumerate(images)])
    packed = pack(world, 16, root=tmp_path)
    reads = world.reads
    again = pack(world, 16, root=tmp_path)
    assert world.reads == reads
    assert np.array_equal(again.pixels, images.transpose(0, 3, 1, 2))
    assert again.parts is not None
    assert np.array_equal(again.parts, images[..., 0] % 10)
    assert (again.labels.tolist(), again.ids, again.classes) == ([0, 1, 0, 1], ("s0", "s1", "s2", "s3"), ("a", "b"))
    assert again.fingerprint == packed.fingerprint
    assert isinstance(again.pixels, np.memmap)
    assert np.array_equal(packed[1].image, images[1])
    assert repr(packed) == "PackedImages(4 images of 16 px, 2 classes: a, b, parts known)"


@pytest.mark.parametrize("size", [(32, 32), (32, 48), (57, 32)])
def test_the_middle_square_is_resized_and_its_parts_with_it(tmp_path, size):
    H, W = size
    y, x = np.mgrid[:H, :W]
    inside = (y - (H - 1) / 2) ** 2 + (x - (W - 1) / 2) ** 2 < 12**2
    image = np.repeat(np.where(inside, 200, 40).astype(np.uint8)[..., None], 3, 2)
    packed = pack(World([Sample(image, 0, "disc", parts=inside.astype(np.uint8) * 9)]), 16, root=tmp_path)
    y, x = np.mgrid[:16, :16] - 7.5
    radius = np.hypot(y, x)
    assert packed.parts is not None
    assert set(np.unique(packed.parts)) == {0, 9}
    for plane, outer, inner in [(packed.pixels[0, 0], 40, 200), (packed.parts[0], 0, 9)]:
        assert np.all(np.abs(plane[radius < 4.8].astype(int) - inner) <= 15)
        assert np.all(np.abs(plane[radius > 7.5].astype(int) - outer) <= 15)


def test_packing_what_is_packed_returns_it_or_resizes_it(tmp_path):
    packed = pack(Arrays(noise(2, 32, 32), [0, 1], "ab"), 32, root=tmp_path)
    assert pack(packed, 32, root=tmp_path) is packed
    small = pack(packed, 16, root=tmp_path)
    assert small.image_px == 16
    assert small.fingerprint != packed.fingerprint
    assert np.allclose(small.pixels.mean((2, 3)), packed.pixels.mean((2, 3)), atol=6)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (Sample(np.zeros((7, 90, 3), np.uint8), 0, "tiny"), "tiny: is 90 x 7 px, too small"),
        (Sample(np.zeros((9, 9, 3), np.uint8), 2, "odd"), r"odd: has label 2: 2 classes have labels 0\.\.1"),
        (Sample(np.zeros((9, 9, 3), np.uint8), -2, "odd"), "odd: has label -2"),
        (Sample(np.zeros((9, 9, 3), np.uint8), 0, "fine"), "2 images share 1 ids"),
        (Sample(np.zeros((9, 9, 3), np.uint8), 0, "x", np.zeros((9, 9), np.uint8)), "x: every image or none"),
    ],
)
def test_a_sample_that_cannot_be_used_is_named_and_nothing_is_kept(tmp_path, bad, said):
    fine = Sample(np.zeros((9, 9, 3), np.uint8), UNLABELLED, "fine")
    with pytest.raises(DatasetError, match=said):
        pack(World([fine, bad]), 16, root=tmp_path)
    assert list((tmp_path / "images").iterdir()) == []


def test_an_unreadable_image_is_named_and_nothing_is_kept(folder, tmp_path):
    (folder / "dogs" / "broken.jpg").write_bytes(b"not a picture")
    with pytest.raises(DatasetError, match=r"broken\.jpg: cannot be read"):
        pack(ImageFolder(folder), 16, root=tmp_path)
    assert list((tmp_path / "images").iterdir()) == []


def test_no_images_and_no_size_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="0 images"):
        pack(World([]), 16, root=tmp_path)
    with pytest.raises(DatasetError, match="at 4 px"):
        pack(Arrays(noise(1, 9, 9), [0], "a"), 4, root=tmp_path)


# Choosing and dividing


@pytest.fixture
def packed(tmp_path) -> PackedImages:
    """20 images of class a, 10 of b, 2 unlabelled."""
    labels = [0] * 20 + [1] * 10 + [UNLABELLED] * 2
    return pack(Arrays(noise(32, 8, 8), labels, "ab"), 8, root=tmp_path)


def test_a_selection_holds_those_images_and_a_run_of_neighbours_stays_on_the_disk(packed):
    chosen = packed.select([3, 1, -1])
    assert chosen.ids == ("3", "1", "31")
    assert np.array_equal(chosen.pixels, packed.pixels[[3, 1, 31]])
    assert chosen.labels.tolist() == [0, 0, UNLABELLED]
    assert np.shares_memory(packed.select(range(4, 9)).pixels, packed.pixels)
    assert packed.select(packed.labels == 1).ids == tuple(map(str, range(20, 30)))
    assert len({packed.fingerprint, chosen.fingerprint, packed.select([1, 3, -1]).fingerprint}) == 3
    assert packed.select(range(32)) is packed
    assert len(packed.select([])) == 0
    with pytest.raises(IndexError):
        packed.select([32])


def test_per_class_takes_as_many_of_each_class_and_more_contain_fewer(packed):
    three, five = packed.per_class(3), packed.per_class(5)
    assert np.bincount(five.labels).tolist() == [5, 5]
    assert set(three.ids) < set(five.ids)
    assert packed.per_class(5, seed=1).ids != five.ids
    with pytest.raises(DatasetError, match="11 images a class are asked for, and b has 10"):
        packed.per_class(11)


def test_a_subset_is_a_data_set_and_packed_images_stay_packed(packed):
    whole = Arrays(noise(4, 8, 8), [0, 1, 0, 1], "ab")
    part = subset(whole, [2, 1])
    assert [s.id for s in part] == ["2", "1"]
    assert labels_of(part).tolist() == [0, 1]
    assert (len(part), part.classes) == (2, ("a", "b"))
    assert part.fingerprint not in {whole.fingerprint, subset(whole, [1, 2]).fingerprint}
    assert "2 of Arrays" in repr(part)
    assert isinstance(subset(packed, [0]), PackedImages)
    with pytest.raises(IndexError):
        subset(whole, [4])


@pytest.mark.parametrize("seed", range(3))
def test_a_split_divides_every_class_alike(packed, seed):
    rest, first = train_test_split(packed, 0.7, seed)
    assert np.bincount(labels_of(first) + 1).tolist() == [1, 14, 7]
    ids = [s.id for s in first] + [s.id for s in rest]
    assert sorted(ids) == sorted(packed.ids)
    assert train_test_split(packed, 0.7, seed)[1].fingerprint == first.fingerprint
    assert train_test_split(packed, 0.7, seed + 1)[1].fingerprint != first.fingerprint


@pytest.mark.parametrize("seed", range(5))
def test_a_group_is_never_on_both_sides(seed):
    videos = ["cow"] * 9 + ["goat"] * 5 + ["horse"] * 4 + ["dog"] * 2
    dataset = Arrays(noise(20, 8, 8), [0] * 20, "a")
    rest, first = train_test_split(dataset, 0.5, seed, groups=videos)
    sides = [{videos[int(s.id)] for s in side} for side in (first, rest)]
    assert not sides[0] & sides[1]
    assert sum(len(side) for side in (first, rest)) == 20
    assert min(len(first), len(rest)) >= 5


def test_packed_images_keep_their_groups_so_that_they_are_divided_alike(folder, tmp_path):
    packed = pack(ImageFolder(folder, group=r"^(\w+)/"), 8, root=tmp_path / "cache", progress=False)
    assert packed.groups == ("cats", "cats", "dogs")
    assert packed.select([2, 0]).groups == ("dogs", "cats")
    rest, first = train_test_split(packed, 0.5, 0)
    assert not set(first.groups) & set(rest.groups)


def test_what_cannot_be_divided_is_refused():
    dataset = Arrays(noise(3, 8, 8), [0, 0, 0], "a")
    with pytest.raises(ValueError, match=r"test_size=1\.0"):
        train_test_split(dataset, 1.0, 0)
    with pytest.raises(DatasetError, match="cannot be divided"):
        train_test_split(dataset, 0.5, 0, groups=["one"] * 3)
    with pytest.raises(DatasetError, match="2 groups for 3 samples"):
        train_test_split(dataset, 0.5, 0, groups=["one", "two"])
    with pytest.raises(DatasetError, match="cannot be divided"):
        train_test_split(subset(dataset, [0]), 0.5, 0)


def test_labels_are_read_from_the_samples_where_the_data_set_has_no_list(tmp_path):
    world = World([Sample(np.zeros((8, 8, 3), np.uint8), label, str(label)) for label in (1, 0)])
    assert labels_of(world).tolist() == [1, 0]


# Photographs


@pytest.mark.real
@pytest.mark.skipif("PROCKD_REAL_DATA" not in os.environ, reason="PROCKD_REAL_DATA is not set")
def test_real_photographs_are_packed(tmp_path):
    real = Path(os.environ["PROCKD_REAL_DATA"])
    insects = pack(ImageFolder(real / "ants_bees" / "val"), 64, root=tmp_path)
    assert insects.classes == ("ants", "bees")
    assert np.bincount(insects.labels).min() > 60
    assert 60 < insects.pixels.mean() < 190
