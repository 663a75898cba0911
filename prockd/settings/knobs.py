"""Knobs: fields of frozen dataclasses that know their range, unit and meaning."""

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import field
from typing import Any, TypeVar

K = TypeVar("K", bound="Knobs")


class ConfigError(ValueError):
    """A knob got a value outside its range, or does not exist."""


def knob(default: Any, low: float | int | None, high: float | int | None, about: str, unit: str = "") -> Any:
    """A dataclass field that knows its range, unit and meaning."""
    return field(default=default, metadata={"low": low, "high": high, "about": about, "unit": unit})


def choice(default: str, options: tuple[str, ...], about: str) -> Any:
    """A dataclass field that is one of a few words."""
    return field(default=default, metadata={"options": options, "about": about})


def said(default: Any, about: str) -> Any:
    """A dataclass field of text, or of True and False."""
    return field(default=default, metadata={"about": about})


def listed(of: type, about: str) -> Any:
    """A dataclass field that is a list of numbers, empty by default."""
    return field(default=(), metadata={"about": about, "of": of})


def table(about: str) -> Any:
    """A dataclass field of names and values, empty by default."""
    return field(default_factory=dict, metadata={"about": about, "table": True})


def as_tuples(value: Any) -> Any:
    """Lists as tuples, so that what is read from a file equals what is typed."""
    if isinstance(value, Mapping):
        return {k: as_tuples(v) for k, v in value.items()}
    return tuple(as_tuples(v) for v in value) if isinstance(value, list | tuple) else value


def checked(owner: str, f: "dataclasses.Field[Any]", value: Any) -> Any:
    """The value of a knob in its own type: a panel or a TOML file may well say ``lr = 1``, or a list for a tuple.

    Raises:
        ConfigError: another type, or a value out of range.
    """
    meta, where = f.metadata, f"{owner}.{f.name} = {value!r}"
    if "options" in meta and value not in meta["options"]:
        raise ConfigError(f"{where}: choose one of {', '.join(map(repr, meta['options']))}")
    if isinstance(f.default, bool) and not isinstance(value, bool):
        raise ConfigError(f"{where}: must be True or False")
    if isinstance(f.default, str) and not isinstance(value, str):
        raise ConfigError(f"{where}: must be text")
    if "table" in meta:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: must be a table of names and values")
        return as_tuples(value)
    if "of" in meta:
        items = value if isinstance(value, tuple | list) else [None]
        if not all(is_number(v, whole=meta["of"] is int) for v in items):
            raise ConfigError(f"{where}: must be a list of {'whole ' if meta['of'] is int else ''}numbers")
        return tuple(meta["of"](v) for v in items)
    low, high = meta.get("low"), meta.get("high")
    if low is None and high is None:
        return value
    whole = isinstance(f.default, int)
    if not is_number(value, whole=whole):
        raise ConfigError(f"{where}: must be a {'whole ' if whole else ''}number")
    if not ((low is None or value >= low) and (high is None or value <= high)):
        raise ConfigError(f"{where}: must lie in {low}..{'' if high is None else high} {meta['unit']}".rstrip())
    return value if whole else float(value)


def is_number(value: Any, *, whole: bool) -> bool:
    """Whether it is a number, and no True or False."""
    return not isinstance(value, bool) and isinstance(value, int if whole else int | float)


class Knobs:
    """Checks every field against its metadata on construction; ``replace`` gives a changed copy."""

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):  # type: ignore[arg-type]
            object.__setattr__(self, f.name, checked(type(self).__name__, f, getattr(self, f.name)))

    def replace(self: K, **changes: Any) -> K:
        """A copy with the named knobs changed.

        Raises:
            ConfigError: for an unknown name or a value out of range.
        """
        fields = {f.name: f for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        for name in changes:
            if name not in fields:
                near = difflib.get_close_matches(name, fields, n=1)
                meant = f"did you mean {near[0]!r}? It" if near else "it"
                raise ConfigError(f"{type(self).__name__} has no knob {name!r}; {meant} has {', '.join(fields)}")
        changes = {name: checked(type(self).__name__, fields[name], value) for name, value in changes.items()}
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]
