"""Packs carry masks, tags and boxes, wherever a picture goes in its square."""

import threading

import numpy as np
import pytest

from prockd._types import IGNORE, UNLABELLED, Sample
from prockd.datasets import Arrays, DatasetError, PackedImages, pack
from prockd.datasets.packing import FITS, fit_square
from prockd.datasets.splits import subset
from prockd.farmyard import Farmyard

CLASSES = ("ground", "thing", "other")


def noise(num_images: int, H: int, W: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num_images, H, W, 3), np.uint8)


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


class Listed:
    """Samples in a list as a data set."""

    classes = CLASSES

    def __init__(self, *samples: Sample, name: str = "listed") -> None:
        self.samples, self.fingerprint = samples, name

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


def sample(name: str = "a.png", size: tuple[int, int] = (24, 40), box: tuple[int, ...] = (30, 4, 38, 20), **known):
    """A dark picture with one bright box, known as mask and as box."""
    H, W = size
    x0, y0, x1, y1 = box
    mask = np.zeros((H, W), np.uint8)
    mask[y0:y1, x0:x1] = 1
    image = np.where(mask[..., None] == 1, 220, 30).repeat(3, 2).astype(np.uint8)
    facts = {"mask": mask, "boxes": np.array([box], np.float32), "box_labels": np.array([1]), **known}
    return Sample(image, UNLABELLED, name, **facts)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(("size", "box"), [((24, 40), (14, 4, 26, 20)), ((50, 31), (5, 20, 25, 34))])
def test_picture_mask_and_box_go_to_the_same_place(tmp_path, fit, size, box):
    packed = pack(Listed(sample(size=size, box=box)), 64, fit=fit, root=tmp_path)
    bright = packed.pixels[0, 0] > 128
    rows, columns = (np.flatnonzero(bright.any(axis)) for axis in (1, 0))
    extent = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    assert packed.boxes[0][0] == pytest.approx(extent, abs=1.6)
    assert ((packed.masks[0] == 1) != bright).mean() < 0.02
    assert packed.to_picture(0, packed.boxes[0])[0] == pytest.approx(box, abs=1e-3)


def test_padding_ignores_the_bars_and_loses_no_object_and_is_what_dense_tasks_get(tmp_path):
    dense = pack(Listed(sample()), 40, root=tmp_path)
    padded = pack(Listed(sample()), 40, fit="pad", root=tmp_path)
    assert np.array_equal(dense.pixels, padded.pixels)
    assert (padded.masks[0][[0, -1]] == IGNORE).all()
    assert (padded.pixels[0, :, 0] == 128).all()
    assert np.array_equal(padded.masks[0][8:32], sample().mask)
    cropped = pack(Listed(sample()), 40, fit="crop", root=tmp_path)
    assert len(cropped.boxes[0]) == 0  # it lies beside the middle square
    assert IGNORE not in cropped.masks[0]
    plain = pack(Arrays(np.zeros((1, 24, 40, 3), np.uint8), [0], CLASSES), 40, root=tmp_path)
    assert (plain.pixels != 128).all()


def test_a_detection_goes_back_to_the_picture_by_its_frame():
    for how in FITS:
        fit = fit_square(33, 71, 64, how)
        boxes = np.array([[3, 4, 30, 40], [0, 0, 64, 64]], np.float32)
        pixels, label = np.zeros((1, 3, 64, 64), np.uint8), np.zeros(1, np.int64)
        packed = PackedImages(pixels, label, ("a",), ("x",), "a", frames=fit.frame[None])
        assert fit.move(packed.to_picture(0, boxes)) == pytest.approx(boxes, abs=1e-3)
    assert fit_square(33, 71, 64, "stretch").frame.tolist() == [0, 0, 71, 33]
    with pytest.raises(ValueError, match="fit='squeeze': choose one of 'crop', 'pad', 'stretch'"):
        fit_square(8, 8, 8, "squeeze")


def test_images_without_objects_are_kept_and_each_image_has_its_own_boxes(tmp_path):
    none = {"boxes": np.zeros((0, 4), np.float32), "box_labels": np.zeros(0, np.int64)}
    two = {"boxes": np.array([[0, 0, 9, 9], [3, 3, 40, 24]], np.float32), "box_labels": np.array([2, 0])}
    packed = pack(Listed(sample("a"), sample("b", **none), sample("c", **two)), 40, root=tmp_path)
    assert [len(b) for b in packed.boxes] == [1, 0, 2]
    assert packed.box_labels[2].tolist() == [2, 0]
    assert "3 boxes known" in repr(packed)
    last = packed.select([2, 1])
    assert [len(b) for b in last.boxes] == [2, 0]
    assert last[0].box_labels.tolist() == [2, 0]
    assert np.array_equal(last.masks[0], packed.masks[2])
    assert last.frames.shape == (2, 4)
    assert last.fingerprint != packed.fingerprint
    empty = pack(Listed(sample("b", **none), name="none"), 40, root=tmp_path)
    assert [len(b) for b in empty.boxes] == [0]


def test_packed_again_at_another_size_masks_tags_and_boxes_stay(tmp_path):
    tagged = Listed(sample(size=(32, 32), box=(4, 8, 20, 28), tags=np.array([0, 1, 1], np.uint8)), name="tagged")
    small = pack(pack(tagged, 32, root=tmp_path), 16, root=tmp_path)
    assert small.boxes[0].tolist() == [[2, 4, 10, 14]]
    assert small.masks[0][4:14, 2:10].min() == 1
    assert small.tags.tolist() == [[0, 1, 1]]


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({"boxes": np.array([[9, 9, 3, 20]], np.float32)}, r"bad, object 1: box 9, 9, 3, 20 has its corners swapped"),
        ({"boxes": np.array([[9, 9, 9, 20]], np.float32)}, r"bad, object 1: box 9, 9, 9, 20 has no area"),
        (
            {"boxes": np.array([[9, 9, 60, 20]], np.float32)},
            r"bad, object 1: box 9, 9, 60, 20 reaches outside the image of 40 x 24 px",
        ),
        ({"boxes": np.array([[40, 1, 41, 9]], np.float32)}, r"has no area"),
        ({"boxes": np.array([[9, np.nan, 20, 20]], np.float32)}, "is not a number"),
        ({"box_labels": np.array([3])}, r"bad, object 1: has label 3: 3 classes have labels 0\.\.2"),
        ({"box_labels": np.array([1, 1])}, "bad: has 1 boxes and 2 box labels"),
        ({"box_labels": None}, "bad: has 1 boxes and 0 box labels"),
        ({"boxes": None}, r"bad: every image or none has boxes"),
        ({"mask": np.full((24, 40), 7, np.uint8)}, r"bad: its mask holds 7, but 3 classes have the values 0\.\.2"),
        ({"mask": None}, "bad: every image or none has a mask"),
        ({"tags": np.array([0, 1, 1], np.uint8)}, "bad: every image or none has tags"),
    ],
)
def test_what_no_task_could_learn_from_is_refused_with_the_image(tmp_path, known, said):
    with pytest.raises(DatasetError, match=said):
        pack(Listed(sample("good"), sample("bad", **known)), 40, root=tmp_path)


def test_a_mask_of_another_size_is_refused_with_both_sizes(tmp_path):
    wrong = sample("bad")
    object.__setattr__(wrong, "mask", np.zeros((40, 24), np.uint8))  # our own tests check shapes even before
    with pytest.raises(DatasetError, match=r"bad: is 40 x 24 px and its mask 24 x 40"):
        pack(Listed(sample("good"), wrong), 40, root=tmp_path)


@pytest.mark.parametrize("tags", [[0, 1], [0, 1, 2]])
def test_tags_that_do_not_fit_the_classes_are_refused(tmp_path, tags):
    with pytest.raises(DatasetError, match=r"a: tags are .* not a 0 or 1 for each of 3 classes"):
        pack(Listed(sample("a", tags=np.array(tags, np.uint8))), 40, root=tmp_path)


def test_a_box_a_pixel_outside_the_picture_is_clipped(tmp_path):
    packed = pack(Listed(sample(boxes=np.array([[-1, 0, 41, 24]], np.float32))), 40, root=tmp_path)
    assert packed.boxes[0].tolist() == [[0, 8, 40, 32]]


def test_farmyard_scenes_keep_their_boxes(tmp_path):
    scenes = Farmyard("target", "train", 6, kind="scene", image_px=32)
    packed = pack(scenes, 32, root=tmp_path)
    assert packed.classes == scenes.classes
    for m in range(6):
        assert np.array_equal(packed.boxes[m], scenes[m].boxes)
        assert np.array_equal(packed.box_labels[m], scenes[m].box_labels)


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


def test_a_data_set_that_bears_threads_is_read_by_them_and_packed_in_its_order(tmp_path):
    readers = set()

    class Files(World):
        def __getitem__(self, index: int) -> Sample:
            readers.add(threading.get_ident())
            return super().__getitem__(index)

    images = noise(12, 16, 16)
    world = Files([Sample(image, m % 2, f"s{m}") for m, image in enumerate(images)])
    for threads, read_here in ((3, False), (0, True)):
        readers.clear()
        world.threads, world.fingerprint = threads, f"{threads} threads"
        part = subset(world, np.arange(1, 12))
        assert np.array_equal(pack(part, 16, root=tmp_path).pixels, images[1:].transpose(0, 3, 1, 2))
        assert (readers == {threading.get_ident()}) is read_here


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


def test_no_images_and_no_size_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="0 images"):
        pack(World([]), 16, root=tmp_path)
    with pytest.raises(DatasetError, match="at 4 px"):
        pack(Arrays(noise(1, 9, 9), [0], "a"), 4, root=tmp_path)
