"""Species: the proportions of an animal, read from a table of ``species.toml`` and checked."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from prockd._data_path import data_path
from prockd.farmyard.texture import PATTERNS
from prockd.settings.knobs import ConfigError, Knobs, checked, choice, did_you_mean, knob, plain
from prockd.untrusted import parse_toml, reading

_HORNS = ("none", "straight", "curved", "lyre", "spiral", "cow", "bison", "ram", "antler", "palmate", "nose", "tusk",
          "knob")  # fmt: skip

_BOLD = {"tail_length": (1.1, 0.32), "tail_width": (1.3, 0.2), "horn_length": (1.0, 0.34), "horn_width": (1.8, 0.0),
         "leg_width": (1.1, 0.115), "foot_size": (1.15, 0.17)}  # fmt: skip
"""Of a bold animal's thin parts: the multiple of the usual size, and the least size."""

_BOLD_EARS = {"leaf": 0.27, "pointed": 0.26, "floppy": 0.3, "round": 0.14, "fan": 0.3}
"""Least size of a bold animal's ears: round ones are as wide as they are long, and would hide the head."""


class SpeciesError(ValueError):
    """A species file holds a value that cannot be drawn."""


@dataclass(frozen=True)
class Species(Knobs):
    """Proportions of one species; lengths are in body lengths (chest to rump = 1), angles in degrees.

    Every field but ``name`` is a key of the species' table; a key left out takes the default here.
    """

    name: str
    role: str = choice("source", ("source", "target"), "Whether the teacher's world or the student's task has it.")
    chest: float = knob(0.42, 0.2, 0.9, "Depth of the torso at the withers.")
    flank: float = knob(0.36, 0.15, 0.9, "Depth of the torso at the flank.")
    slope: float = knob(0.02, -0.2, 0.4, "Withers above rump.")
    sag: float = knob(0.02, -0.05, 0.2, "How far the belly hangs below the straight line from chest to flank.")
    wool: float = knob(0.0, 0.0, 0.1, "Radius of the curls along the outline of torso and neck.")
    udder: float = knob(0.0, 0.0, 0.15, "Radius of the udder.")
    leg: float = knob(0.5, 0.1, 1.6, "Height of the chest above the ground.")
    thigh: float = knob(0.24, 0.08, 0.5, "Width of a leg at its top.")
    leg_width: float = knob(0.08, 0.04, 0.35, "Width of a leg below the knee.")
    hock: float = knob(0.7, 0.0, 1.0, "How strongly the joints of the hind leg are bent, from 0, a column.")
    foot: str = choice("hoof", ("hoof", "paw", "pad"), "Kind of the feet.")
    foot_size: float = knob(0.13, 0.06, 0.35, "Length of the feet.")
    tail: str = choice("tuft", ("tuft", "hair", "bushy", "thin", "stub", "curl"), "Kind of the tail.")
    tail_length: float = knob(0.5, 0.05, 1.2, "Length of the tail.")
    tail_width: float = knob(0.1, 0.02, 0.35, "Width of the tail, or of its hair where it has any.")
    neck: float = knob(0.4, 0.05, 2.0, "Length of the neck.")
    neck_angle: float = knob(40.0, -40.0, 88.0, "Elevation of the neck.")
    neck_base: float = knob(0.3, 0.08, 0.8, "Width of the neck in its middle.")
    neck_top: float = knob(0.2, 0.06, 0.6, "Width of the neck at the head.")
    head: float = knob(0.42, 0.15, 0.9, "Length of the head.")
    head_depth: float = knob(0.22, 0.08, 0.6, "Depth of the head at the cheek.")
    head_angle: float = knob(35.0, -20.0, 85.0, "How far the nose points below the horizontal.")
    muzzle: str = choice(
        "square", ("square", "blunt", "pointed", "snout", "broad", "bulb", "trunk"), "Shape of the front of the head."
    )
    muzzle_length: float = knob(0.45, 0.1, 2.5, "Share of the head's length; a trunk is that many heads long.")
    muzzle_depth: float = knob(0.6, 0.15, 1.6, "Share of the head's depth.")
    ear: str = choice("leaf", ("leaf", "pointed", "round", "floppy", "fan"), "Shape of the ears.")
    ear_size: float = knob(0.15, 0.03, 0.7, "Length of the ears.")
    ear_inside: bool = plain(False, "Whether floppy and fan ears show a lighter or darker inside, as the others do.")
    horn: str = choice("none", _HORNS, "Kind of horns, antlers or tusks.")
    horn_length: float = knob(0.3, 0.03, 1.2, "Length of horns, antlers or tusks.")
    horn_width: float = knob(1.0, 0.3, 4.0, "Width of slender horns, antlers or tusks, as a multiple of the usual one.")
    mane: str = choice("none", ("none", "stiff", "hanging", "ruff", "shag"), "Kind of the mane.")
    mane_size: float = knob(0.1, 0.02, 0.5, "Reach of the mane.")
    hump: str = choice("none", ("none", "shoulder", "one", "two"), "Kind of the hump.")
    hump_size: float = knob(0.15, 0.02, 0.5, "Height of the hump.")
    beard: float = knob(0.0, 0.0, 0.5, "Length of the hair below the chin.")
    pattern: str = choice("plain", PATTERNS, "How the coat is usually marked.")

    def bold(self) -> "Species":
        """The same animal with tail, ears, horns, lower legs and feet larger than life, so that patches see them."""
        highest = {f.name: f.metadata["high"] for f in dataclasses.fields(self) if f.name in _BOLD}
        grown = {k: min(max(share * vars(self)[k], least), highest[k]) for k, (share, least) in _BOLD.items()}
        return self.replace(**grown, ear_size=max(self.ear_size, _BOLD_EARS[self.ear]), ear_inside=True)


def load_species(path: str | Path | None = None) -> dict[str, Species]:
    """Read and check a species file.

    Args:
        path: a TOML file with one table per species; None for the one that ships with the package.

    Returns:
        The species by name, in the order of the file.

    Raises:
        SpeciesError: the file is not TOML, an entry is not a table, a key is unknown or a value out of range; the
            message names file, species, key, value and what is allowed.
    """
    path = data_path("farmyard", "species.toml") if path is None else Path(path)
    with reading(path, "a TOML file", SpeciesError):
        tables = parse_toml(path.read_text(encoding="utf-8"))
    fields = {f.name: f for f in dataclasses.fields(Species) if f.name != "name"}
    species = {}
    for name, table in tables.items():
        where = f"{path}: [{name}]"
        if not isinstance(table, dict):
            raise SpeciesError(f"{where}: {table!r} is not a table of a species; write [{name}] and its keys below")
        for key in table.keys() - fields:
            raise SpeciesError(f"{where}: unknown key {key!r} = {table[key]!r}{did_you_mean(key, list(fields))}")
        if "role" not in table:
            raise SpeciesError(f"{where}: role is missing; it is one of source, target")
        try:
            species[name] = Species(name, **{key: checked(where, fields[key], value) for key, value in table.items()})
        except ConfigError as error:
            raise SpeciesError(str(error)) from error
    return species
