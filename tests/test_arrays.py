"""Images in memory and in NPZ files."""

import numpy as np
import pytest

from prockd._types import UNLABELLED
from prockd.datasets import Arrays, DatasetError, open_npz


def noise(num_images: int, H: int, W: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num_images, H, W, 3), np.uint8)


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


def test_arrays_of_each_split_are_opened(tmp_path):
    images = np.arange(3 * 8 * 8 * 3, dtype=np.uint8).reshape(3, 8, 8, 3)
    names = np.array(["cat", "dog"])
    np.savez(tmp_path / "a.npz", train_images=images, train_labels=[0, 1, 0], test_images=images[:1], test_labels=[1],
             class_names=names)  # fmt: skip
    found = open_npz(tmp_path / "a.npz")
    assert {split: len(dataset) for split, dataset in found.items()} == {"train": 3, "test": 1}
    assert found["test"].classes == ("cat", "dog")
    assert np.array_equal(found["train"][2].image, images[2])
    np.savez(tmp_path / "b.npz", images=images, labels=np.array([[0], [2], [1]]))
    whole = open_npz(tmp_path / "b.npz")["all"]
    assert isinstance(whole, Arrays)
    assert (whole.classes, whole.labels.tolist()) == (("0", "1", "2"), [0, 2, 1])


def test_a_file_without_arrays_is_named(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    with pytest.raises(DatasetError, match=r"a\.npz has no images and labels.*it has x"):
        open_npz(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", images=np.array([{}]), labels=[0])
    with pytest.raises(DatasetError, match=r"b\.npz is not an NPZ file .*pickled objects"):
        open_npz(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", images=np.zeros((2, 8, 8, 3)), labels=[0, 0])
    with pytest.raises(DatasetError, match=r"c\.npz, all: images are float64"):
        open_npz(tmp_path / "c.npz")
    (tmp_path / "d.npz").write_bytes(b"PK no")
    with pytest.raises(DatasetError, match=r"d\.npz is not an NPZ file"):
        open_npz(tmp_path / "d.npz")
