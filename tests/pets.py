"""Pictures, masks and boxes on the disk, and a folder of pets in which nothing is wrong."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def put(path: Path, seed: int = 0, size: tuple[int, int] = (12, 10)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    W, H = size
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (H, W, 3), np.uint8)).save(path)
    return path


def mask(path: Path, value: int = 1, size: tuple[int, int] = (12, 10)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    W, H = size
    levels = np.zeros((H, W), np.uint8)
    levels[: H // 2] = value
    Image.fromarray(levels).save(path)


def xml(path: Path, *corners: int, name: str = "cat") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sides = "".join(f"<{s}>{v}</{s}>" for s, v in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=False))
    inside = f"<object><name>{name}</name><bndbox>{sides}</bndbox></object>" if corners else ""
    path.write_text(f"<annotation>{inside}</annotation>")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Class folders with train and val, six different pictures, nothing wrong."""
    for seed, name in enumerate(
        ("train/cat/a b", "train/cat/ü", "train/dog/c", "train/dog/d", "val/cat/e", "val/dog/f")
    ):
        put(tmp_path / "pets" / f"{name}.png", seed)
    return tmp_path / "pets"


def said(report: object) -> list[str]:
    return [
        line.strip()
        for line in repr(report).splitlines()[2:]
        if not re.match(r"(\d+ )?(images|boxes|pixels|joints): ", line)
    ]
