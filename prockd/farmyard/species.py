"""Species: the proportions of an animal, read from a table of ``species.toml`` and checked."""

import difflib
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from prockd._data_path import data_path
from prockd.farmyard.texture import PATTERNS


class SpeciesError(ValueError):
    """A species file holds a value that cannot be drawn."""


def _number(default: float, low: float, high: float) -> Any:
    return field(default=default, metadata={"range": (low, high)})


def _choice(*options: str) -> Any:
    return field(default=options[0], metadata={"options": options})


@dataclass(frozen=True)
class Species:
    """Proportions of one species; lengths are in body lengths (chest to rump = 1), angles in degrees.

    Every field but ``name`` is a key of the species' table; a key left out takes the default here.

    Attributes:
        name: the table's name.
        role: whether the teacher's world (source) or the student's task (target) has it.
        chest: depth of the torso at the withers.
        flank: depth of the torso at the flank.
        slope: withers above rump.
        sag: how far the belly hangs below the straight line from chest to flank.
        wool: radius of the curls along the outline of torso and neck.
        udder: radius of the udder.
        leg: height of the chest above the ground.
        thigh, leg_width: width of a leg at its top and below the knee.
        hock: how strongly the joints of the hind leg are bent, 0 (column) to 1.
        foot, foot_size: kind and length of the feet.
        tail, tail_length, tail_width: kind, length and width (of the hair, where it has any).
        neck, neck_angle: length and elevation of the neck.
        neck_base, neck_top: width of the neck in its middle, and at the head.
        head, head_depth, head_angle: length, depth at the cheek, and how far the nose points below the horizontal.
        muzzle: shape of the front of the head; a trunk is ``muzzle_length`` heads long.
        muzzle_length, muzzle_depth: share of the head's length and of its depth.
        ear, ear_size: shape and length of the ears.
        horn, horn_length: kind and length of horns, antlers or tusks.
        mane, mane_size: kind and reach of the mane.
        hump, hump_size: kind and height of the hump.
        beard: length of the hair below the chin.
        pattern: how the coat is usually marked.
    """

    name: str
    role: str = _choice("source", "target")
    chest: float = _number(0.42, 0.2, 0.9)
    flank: float = _number(0.36, 0.15, 0.9)
    slope: float = _number(0.02, -0.2, 0.4)
    sag: float = _number(0.02, -0.05, 0.2)
    wool: float = _number(0.0, 0.0, 0.1)
    udder: float = _number(0.0, 0.0, 0.15)
    leg: float = _number(0.5, 0.1, 1.6)
    thigh: float = _number(0.24, 0.08, 0.5)
    leg_width: float = _number(0.08, 0.04, 0.35)
    hock: float = _number(0.7, 0.0, 1.0)
    foot: str = _choice("hoof", "paw", "pad")
    foot_size: float = _number(0.13, 0.06, 0.35)
    tail: str = _choice("tuft", "hair", "bushy", "thin", "stub", "curl")
    tail_length: float = _number(0.5, 0.05, 1.2)
    tail_width: float = _number(0.1, 0.02, 0.35)
    neck: float = _number(0.4, 0.05, 2.0)
    neck_angle: float = _number(40.0, -40.0, 88.0)
    neck_base: float = _number(0.3, 0.08, 0.8)
    neck_top: float = _number(0.2, 0.06, 0.6)
    head: float = _number(0.42, 0.15, 0.9)
    head_depth: float = _number(0.22, 0.08, 0.6)
    head_angle: float = _number(35.0, -20.0, 85.0)
    muzzle: str = _choice("square", "blunt", "pointed", "snout", "broad", "bulb", "trunk")
    muzzle_length: float = _number(0.45, 0.1, 2.5)
    muzzle_depth: float = _number(0.6, 0.15, 1.6)
    ear: str = _choice("leaf", "pointed", "round", "floppy", "fan")
    ear_size: float = _number(0.15, 0.03, 0.7)
    horn: str = _choice(
        "none", "straight", "curved", "lyre", "spiral", "cow", "bison", "ram", "antler", "palmate", "nose", "tusk",
        "knob",
    )  # fmt: skip
    horn_length: float = _number(0.3, 0.03, 1.2)
    mane: str = _choice("none", "stiff", "hanging", "ruff", "shag")
    mane_size: float = _number(0.1, 0.02, 0.5)
    hump: str = _choice("none", "shoulder", "one", "two")
    hump_size: float = _number(0.15, 0.02, 0.5)
    beard: float = _number(0.0, 0.0, 0.5)
    pattern: str = _choice(*PATTERNS)


_FIELDS = {spec.name: spec.metadata for spec in fields(Species) if spec.name != "name"}


def _checked(where: str, key: str, value: object) -> float | str:
    if key not in _FIELDS:
        near = difflib.get_close_matches(key, _FIELDS, n=1, cutoff=0.0)[0]
        raise SpeciesError(f"{where}: unknown key {key!r} = {value!r}; nearest valid key: {near!r}")
    if "options" in _FIELDS[key]:
        if value in _FIELDS[key]["options"]:
            return str(value)
        raise SpeciesError(f"{where}: {key} = {value!r} is not one of {', '.join(_FIELDS[key]['options'])}")
    low, high = _FIELDS[key]["range"]
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise SpeciesError(f"{where}: {key} = {value!r} is not a number from {low} to {high}")
    return float(value)


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
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise SpeciesError(f"{path}: not a TOML file: {error}") from error
    species = {}
    for name, table in tables.items():
        where = f"{path}: [{name}]"
        if not isinstance(table, dict):
            raise SpeciesError(f"{where}: {table!r} is not a table of a species; write [{name}] and its keys below")
        values: dict[str, Any] = {key: _checked(where, key, value) for key, value in table.items()}
        if "role" not in table:
            raise SpeciesError(f"{where}: role is missing; it is one of source, target")
        species[name] = Species(name, **values)
    return species
