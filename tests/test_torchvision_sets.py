from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets as theirs
from PIL import Image

from prockd.datasets import DatasetError, check_data, cifar, open_data, oxford_pet, pascal_voc

CLOSED = "http://127.0.0.1:9/nothing"
"""An address on this machine at which nobody answers."""


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Oxford-IIIT Pet with three pictures, laid out as torchvision does."""
    folder = tmp_path / "oxford-iiit-pet"
    (folder / "images").mkdir(parents=True)
    (folder / "annotations" / "trimaps").mkdir(parents=True)
    for number, name in enumerate(("Abyssinian_1", "pug_1", "pug_2")):
        Image.new("RGB", (12, 10), (80 * number, 9, 9)).save(folder / "images" / f"{name}.jpg")
        trimap = np.array([1, 2, 3], np.uint8).repeat(40).reshape(10, 12)
        Image.fromarray(trimap).save(folder / "annotations" / "trimaps" / f"{name}.png")
    (folder / "annotations" / "trainval.txt").write_text("Abyssinian_1 1 1 1\npug_1 2 2 1\n")
    (folder / "annotations" / "test.txt").write_text("pug_2 2 2 1\n")
    return tmp_path


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """PASCAL VOC 2012 with one picture, laid out as torchvision does."""
    folder = tmp_path / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Main", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    Image.new("RGB", (12, 10)).save(folder / "JPEGImages" / "a.jpg")
    mask = Image.fromarray(np.array([0, 12, 255], np.uint8).repeat(40).reshape(10, 12))
    mask.putpalette(bytes(range(256)) * 3)
    mask.save(folder / "SegmentationClass" / "a.png")
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    (folder / "Annotations" / "a.xml").write_text(f"<annotation><object><name>dog</name>{box}</object></annotation>")
    for lists in ("Main", "Segmentation"):
        (folder / "ImageSets" / lists / "train.txt").write_text("a\n")
    return tmp_path


def test_pets_have_breeds_or_trimaps(pets):
    breeds = oxford_pet(pets)
    assert breeds.classes == ("Abyssinian", "Pug")
    assert [s.label for s in breeds] == [0, 1]
    segments = oxford_pet(pets, "test", task="segmentation")
    assert segments.classes == ("pet", "background")
    mask = segments[0].mask
    assert mask is not None
    assert mask[[0, 4, 9], [0, 0, 11]].tolist() == [0, 1, 255]
    assert (segments[0].image[0, 0] == np.array([160, 9, 9])).sum() >= 1


def test_voc_has_boxes_or_masks(voc):
    boxes = pascal_voc(voc)[0]
    assert boxes.boxes is not None
    assert boxes.boxes.tolist() == [[0, 1, 9, 9]]
    assert boxes.box_labels is not None
    assert pascal_voc(voc).classes[int(boxes.box_labels[0])] == "dog"
    segments = pascal_voc(voc, task="segmentation")
    assert (len(segments.classes), segments.classes[12]) == (21, "dog")
    mask = segments[0].mask
    assert mask is not None
    assert np.unique(mask).tolist() == [0, 12, 255]


@pytest.mark.filterwarnings("ignore:.*is left out")  # here the two share a folder
def test_their_folders_are_known_by_their_looks(pets, voc):
    assert len(open_data(pets, task="classification", split="test")) == 1
    assert open_data(pets, task="detection", split="train")[0].boxes is not None
    assert "looks like Oxford-IIIT Pet, for segmentation" in repr(check_data(pets, task="segmentation", progress=False))


@pytest.mark.parametrize(
    ("make", "name", "place"),
    [
        (oxford_pet, "Oxford-IIIT Pet", r"oxford-iiit-pet/images/\*\.jpg"),
        (pascal_voc, "PASCAL VOC 2012", "VOCdevkit/VOC2012/{JPEGImages, Annotations"),
        (cifar, "CIFAR-10", "cifar-10-batches-py"),
    ],
)
def test_without_internet_the_message_says_where_files_belong_and_what_needs_none(
    tmp_path, monkeypatch, make, name, place
):
    monkeypatch.setattr(theirs.OxfordIIITPet, "_RESOURCES", ((CLOSED, "0"),))
    monkeypatch.setitem(theirs.voc.DATASET_YEAR_DICT["2012"], "url", CLOSED)
    monkeypatch.setattr(theirs.CIFAR10, "url", CLOSED)
    with pytest.raises(DatasetError, match=rf"{name} could not be downloaded \(.*put its files at .*{place}.*Farmyard"):
        make(tmp_path, download=True)
    with pytest.raises(DatasetError, match=rf"{name} is not there; download=True gets it\..*{place}"):
        make(tmp_path / "elsewhere")


def test_what_these_sets_do_not_have_is_refused(pets):
    with pytest.raises(ValueError, match="task='detection': must be one of 'classification', 'segmentation'"):
        oxford_pet(pets, task="detection")
    with pytest.raises(ValueError, match="num_classes=20: must be one of 10, 100"):
        cifar(pets, num_classes=20)
    with pytest.raises(ValueError, match="split='val': must be one of 'train', 'test'"):
        cifar(pets, "val")
