"""Farmyard: an endless, bit-identical data set of drawn quadrupeds whose parts are known."""

import hashlib
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np

from prockd._data_path import data_path
from prockd._types import UNLABELLED, Sample
from prockd.farmyard.backdrop import BACKGROUNDS
from prockd.farmyard.body import KEYPOINTS, PARTS
from prockd.farmyard.scene import FORMS, render
from prockd.farmyard.species import SpeciesError, load_species

RENDERER_VERSION = 1
"""Raised by every change that moves a pixel or a label."""

SPECIES = ("source", "target", "all")
SPLITS = ("train", "val", "test", "unlabelled")
KINDS = ("single", "scene")
LABELS = ("species", "parts", "joints")


class Farmyard:
    """Drawn quadrupeds with known classes, parts, boxes and key points; sample i depends on the arguments and i alone.

    A *single* sample is one animal, of class ``i % len(classes)``. A *scene* holds one to five animals of various
    sizes that overlap; its label is their class if they share one, else ``UNLABELLED``.

    Random streams: sample i draws from ``np.random.default_rng([seed, stream, i])``, where ``stream`` is different for
    every combination of species, split and kind, so splits share no sample. Pixels have no other source of randomness.

    Args:
        species: "source" (the teacher's), "target" (the student's, disjoint) or "all".
        split: "train", "val", "test", or "unlabelled": more of the same, without labels.
        size: number of samples, 1 or more.
        kind: "single" or "scene".
        form: "framed": a single animal fills the picture, upright, so its place there half tells the part. "varied": it
            is anywhere, 45 to 100 % of the picture, turned up to 15 degrees and cut off by the edge by up to 10 % of a
            side; in singles and scenes alike its tail, ears, horns, lower legs and feet are larger than life.
        image_px: width and height in pixels, 32..512.
        seed: 0 or more.
        species_names: names to restrict ``species`` to; None for all of them. Classes keep the order of the file.
        background: family of backgrounds, one of ``BACKGROUNDS``; "shifted" looks like none of the others.
        labels: what the classes are. "species" labels pictures, and boxes where there are several animals: for
            classification and detection. "parts" makes the parts the classes of ``Sample.mask``, and tells no species:
            for segmentation. "joints" makes the key points of singles the classes of ``Sample.joints``. All show
            the same pictures.
        species_file: another species file; None for the one that ships with the package.

    Raises:
        ValueError: an argument is out of its range; the message says which, and what is allowed.
        SpeciesError: the species file cannot be drawn, or does not have the species asked for.

    >>> dataset = Farmyard("target", "train", size=20, image_px=32)
    >>> dataset.classes[:3], dataset[2].label, dataset[2].image.shape
    (('horse', 'cow', 'goat'), 2, (32, 32, 3))
    >>> scenes = Farmyard("source", "val", size=1, kind="scene", image_px=64)
    >>> [(scenes.classes[k], *box) for k, box in zip(scenes[0].box_labels, scenes[0].boxes.tolist())]
    [('boar', 17.0, 34.0, 36.0, 48.0), ('hippopotamus', 4.0, 38.0, 32.0, 57.0)]
    """

    parts: tuple[str, ...] = PARTS

    def __init__(
        self,
        species: str = "target",
        split: str = "train",
        size: int = 300,
        *,
        kind: str = "single",
        form: str = "framed",
        image_px: int = 96,
        seed: int = 0,
        species_names: Sequence[str] | None = None,
        background: str = "field",
        labels: str = "species",
        species_file: str | Path | None = None,
    ) -> None:
        choices = (("species", species, SPECIES), ("split", split, SPLITS), ("kind", kind, KINDS),
                   ("form", form, FORMS), ("background", background, BACKGROUNDS),
                   ("labels", labels, LABELS))  # fmt: skip
        for name, value, options in choices:
            if value not in options:
                raise ValueError(f"{name} = {value!r} is not one of {', '.join(options)}")
        ranges = (("size", size, 1, 10**9), ("image_px", image_px, 32, 512), ("seed", seed, 0, 2**63))
        for name, number, low, high in ranges:
            if not low <= number <= high:
                raise ValueError(f"{name} = {number!r} is not from {low} to {high}")
        path = data_path("farmyard", "species.toml") if species_file is None else Path(species_file)
        there = {name: s for name, s in load_species(path).items() if species in ("all", s.role)}
        unknown = sorted(set(species_names or ()) - set(there))
        if unknown or not there:
            missing = ", ".join(unknown) or "animal"
            raise SpeciesError(f"{path}: no {missing} among its {species} species {', '.join(there)}")
        self._species = [s for name, s in there.items() if species_names is None or name in species_names]
        self.species, self.split, self.kind, self.form, self.background = species, split, kind, form, background
        if labels == "joints" and kind != "single":
            raise ValueError(f"labels = 'joints' is for kind = 'single', which shows one animal, not for {kind!r}")
        self.image_px, self.seed, self._size, self._labels = image_px, seed, size, labels
        self._digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        self._stream = (SPECIES.index(species) * len(SPLITS) + SPLITS.index(split)) * len(KINDS) + KINDS.index(kind)

    @property
    def classes(self) -> tuple[str, ...]:
        """Species names in label order, that of the species file; the parts or joints where they are the labels."""
        return {"species": self.species_names, "parts": PARTS, "joints": KEYPOINTS}[self._labels]

    @property
    def species_names(self) -> tuple[str, ...]:
        """Names of the species that are drawn, in the order of the species file."""
        return tuple(s.name for s in self._species)

    @property
    def _other_form(self) -> str:
        """The form in ids and fingerprint; nothing for the framed one, whose caches are older than the other."""
        return "" if self.form == "framed" else f"/{self.form}"

    @property
    def fingerprint(self) -> str:
        """Text that changes when any image or label would change."""
        return (
            f"farmyard-{RENDERER_VERSION}/{self.species}/{self.split}/{self._size}/{self.kind}/{self.image_px}px"
            f"/seed{self.seed}/{self.background}/{'+'.join(self.species_names)}/{self._digest}"
            f"{self._other_form}{'' if self._labels == 'species' else f'/{self._labels}'}"
        )

    def per_class(self, count: int) -> "Farmyard":
        """Return the same data set cut to its first ``count`` images of each class; smaller cuts are prefixes.

        Raises:
            ValueError: there are not that many images of each class, or this is not a data set of singles.
        """
        size = count * len(self._species)
        if self.kind != "single" or not 1 <= size <= self._size:
            most = self._size // len(self._species) if self.kind == "single" else 0
            raise ValueError(f"per_class({count}): {self!r} has {most} images of every class")
        cut = copy(self)
        cut._size = size
        return cut

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Sample:
        """Render sample ``index``; negative indices count from the end.

        Raises:
            IndexError: outside the data set.
        """
        if not -self._size <= index < self._size:
            raise IndexError(f"{index} is outside {self!r}")
        index %= self._size
        rng = np.random.default_rng([self.seed, self._stream, index])
        count, single = len(self._species), self.kind == "single"
        drawn = np.array([index % count])
        if not single:
            drawn = rng.integers(0, count, int(rng.integers(1, 6)))
            if rng.random() < 0.3:
                drawn[:] = drawn[0]
        herd = [self._species[k] for k in drawn]
        sample = render(herd, rng, image_px=self.image_px, background=self.background, single=single, form=self.form)
        labels = drawn[sample.box_labels]
        if self.split == "unlabelled":
            labels[:] = UNLABELLED
        where = f"{self.species}/{self.kind}{self._other_form}/{self.background}/{self.split}"
        name = f"farmyard/{where}/{self.seed}/{index:06d}"
        if self._labels == "parts":
            return replace(sample, id=name, boxes=None, box_labels=None, mask=sample.parts)
        if self._labels == "joints":
            assert sample.keypoints is not None
            joints = sample.keypoints[0] if len(sample.keypoints) else np.zeros((len(KEYPOINTS), 3), np.float32)
            return replace(sample, id=name, joints=joints, box_labels=np.full_like(labels, UNLABELLED))
        label = int(labels[0]) if len(set(labels.tolist())) == 1 else UNLABELLED
        return replace(sample, id=name, label=label, box_labels=labels)

    def __repr__(self) -> str:
        other = "" if self._labels == "species" else f", labels={self._labels!r}"
        return (
            f"Farmyard({self.species!r}, {self.split!r}, {self._size}, kind={self.kind!r}, form={self.form!r}, "
            f"image_px={self.image_px}, seed={self.seed}, background={self.background!r}{other}): "
            f"{len(self.classes)} classes {', '.join(self.classes)}"
        )
