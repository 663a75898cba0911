"""For all that pytest runs here, tests and the examples of docstrings alike, and small worlds that many tests share.

prockd is imported inside fixtures, after jaxtyping has hooked it.
"""

import doctest
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

# Before prockd: what is first imported while jaxtyping's hook loads one of its modules is compiled from source, since
# Python then looks for byte code of another name. That is 2,900 files and 8 s in every process.
for _package in ("anywidget", "beartype", "beartype.door", "matplotlib.figure", "scipy.optimize",
                 "scipy.stats", "sklearn.cluster", "timm", "torchvision.transforms.v2"):  # fmt: skip
    importlib.import_module(_package)

if TYPE_CHECKING:
    from prockd.datasets import Arrays, PackedImages
    from prockd.prototypes.bank import PrototypeBank
    from prockd.teachers.features import PatchFeatures
    from prockd.teachers.teacher import Teacher

collect_ignore_glob = ["prockd/students/examples/*"]  # scripts that read the files beside them as soon as they are run

torch.set_num_threads(1)  # these networks are so small that a second thread only adds waiting

_from_module = doctest.DocTestFinder._from_module


def from_module(self: doctest.DocTestFinder, module: object, example: object) -> bool:
    """Whether an object is defined in a module.

    jaxtyping's import hook wraps functions in those of its own module, and doctest would pass over them without a word.
    """
    return bool(_from_module(self, module, inspect.unwrap(example) if inspect.isroutine(example) else example))


doctest.DocTestFinder._from_module = from_module  # type: ignore[method-assign]


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Nothing is read from the user's cache, or left there."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("PROCKD_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def folder_of_an_example(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """An example that writes files writes them to a temporary folder."""
    if isinstance(request.node, pytest.DoctestItem):
        monkeypatch.chdir(request.getfixturevalue("tmp_path"))


TINY = {"channels": (8, 16, 24, 32), "stem_width": 8}
"""timm options that make resnet10t a network of 34 k parameters."""


def draw_stripes(num_images: int = 12, side_px: int = 32, num_classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Images whose class is the direction of their stripes; contrast, phase and colour are random."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side_px, :side_px]
    labels = np.arange(num_images) % num_classes
    images = []
    for label in labels:
        angle = np.pi * label / num_classes
        wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / 8 + rng.uniform(0, 6))
        colour = rng.uniform(40, 100, 3)
        image = 128 + wave[..., None] * colour + rng.normal(0, 8, (side_px, side_px, 3))
        images.append(image.clip(0, 255).astype(np.uint8))
    return np.stack(images), labels


@pytest.fixture(scope="session")
def stripes() -> "Arrays":
    """12 images of 32 px in two classes, as a data set."""
    from prockd.datasets import Arrays

    return Arrays(*draw_stripes(), ("upright", "level"))


@pytest.fixture(scope="session")
def packed(stripes: "Arrays", tmp_path_factory: pytest.TempPathFactory) -> "PackedImages":
    """The same images packed at their own size."""
    from prockd.datasets import pack

    return pack(stripes, 32, root=tmp_path_factory.mktemp("packed"), progress=False)


@pytest.fixture(scope="session")
def teacher() -> "Teacher":
    """A convolutional teacher with random weights: maps of 8x8, 4x4, 2x2 and 1x1 patches are there to choose from."""
    from prockd.teachers.teacher import Teacher

    torch.manual_seed(0)
    return Teacher("resnet10t", image_px=32, layers=(1, 2, 3), **TINY)


@pytest.fixture(scope="session")
def vit() -> "Teacher":
    """A transformer teacher with 4x4 patches, one class token and four register tokens."""
    from prockd.teachers.teacher import Teacher

    torch.manual_seed(0)
    return Teacher("vit_tiny_patch16_224", image_px=32, patch_size=8, depth=3, embed_dim=24, num_heads=2, reg_tokens=4)


@pytest.fixture(scope="session")
def features(teacher: "Teacher", packed: "PackedImages", tmp_path_factory: pytest.TempPathFactory) -> "PatchFeatures":
    """Both views of the packed images: 8x8 patches of 8 + 16 + 24 values."""
    from prockd.teachers.features import extract

    how = {"precision": "fp32", "device": "cpu", "progress": False}  # the same numbers on every machine
    return extract(teacher, packed, root=tmp_path_factory.mktemp("features"), **how)


@pytest.fixture
def bank(features: "PatchFeatures") -> "PrototypeBank":
    """6 prototypes of width 16, made anew for each test because training may move them."""
    from prockd.prototypes.discovery import discover
    from prockd.settings.method import DiscoverConfig

    config = DiscoverConfig(num_prototypes=6, embed_dim=16, steps=4, batch_size=4)
    return discover(features, config=config, progress=False)
