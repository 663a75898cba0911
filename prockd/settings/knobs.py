"""Knobs: fields of frozen dataclasses that know their range, unit and meaning.

A knob's metadata is what widgets, ``--help``, TOML comments and error messages say of it, so all say the same.
"""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, TypeVar

K = TypeVar("K", bound="Knobs")


class ConfigError(ValueError):
    """A knob got a value outside its range, or does not exist."""


def knob(default: int | float, low: int | float | None, high: int | float, help: str, unit: str = "") -> Any:
    """A number in a range: whole where the default is."""
    return field(default=default, metadata={"low": low, "high": high, "help": help, "unit": unit})


def choice(default: str, options: tuple[str, ...], help: str) -> Any:
    """One of a few words."""
    return field(default=default, metadata={"options": options, "help": help})


def plain(default: str | bool, help: str) -> Any:
    """Any text, or True and False."""
    return field(default=default, metadata={"help": help})


def numbers(of: type, help: str, default: tuple[float, ...] = ()) -> Any:
    """A list of numbers, empty by default."""
    return field(default=default, metadata={"help": help, "of": of})


def words(default: tuple[str, ...], help: str) -> Any:
    """A list of texts."""
    return field(default=default, metadata={"help": help, "of": str})


def table(help: str) -> Any:
    """A table of names and values, empty by default."""
    return field(default_factory=dict, metadata={"help": help, "table": True})


class Knobs:
    """Base of frozen dataclasses of knobs: every value is checked against its metadata on construction.

    Raises:
        ConfigError: a name that is no knob, with the nearest one, or a value of another type or out of its range.
    """

    def __new__(cls: type[K], *args: Any, **values: Any) -> K:
        """Refuse what is no knob before the dataclass would, and say what was probably meant."""
        names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
        for name in values:
            if name not in names:
                near = "".join(f" Did you mean {n!r}?" for n in difflib.get_close_matches(name, names, n=1))
                raise ConfigError(f"{cls.__name__} has no knob {name!r}.{near} It has {', '.join(names)}")
        return object.__new__(cls)

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):  # type: ignore[arg-type]
            object.__setattr__(self, f.name, checked(type(self).__name__, f, getattr(self, f.name)))

    def replace(self: K, **changes: Any) -> K:
        """A copy with the named knobs changed; it raises as the class does."""
        fields = {f.name: f for f in dataclasses.fields(self) if f.name in changes}  # type: ignore[arg-type]
        new = {name: checked(type(self).__name__, f, changes[name]) for name, f in fields.items()}
        return dataclasses.replace(self, **changes | new)  # type: ignore[type-var]


def checked(owner: str, f: "dataclasses.Field[Any]", value: Any) -> Any:
    """The value of a knob in its own type: a panel or a TOML file may well say ``lr = 1``, or a list for a tuple."""
    meta, where = f.metadata, f"{owner}.{f.name} = {value!r}"
    if "options" in meta and not any(value == option for option in meta["options"]):
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
        of, items = meta["of"], value if isinstance(value, tuple | list) else [None]
        if not all(isinstance(v, str) if of is str else is_number(v, whole=of is int) for v in items):
            what = {str: "texts", int: "whole numbers", float: "numbers"}[of]
            raise ConfigError(f"{where}: must be a list of {what}")
        return tuple(of(v) for v in items)
    if "high" not in meta:
        return value
    low, high, whole = meta["low"], meta["high"], isinstance(f.default, int)
    allowed = f"{low}..{high} {meta['unit']}".rstrip()
    if not is_number(value, whole=whole):
        raise ConfigError(f"{where}: must be a {'whole ' if whole else ''}number in {allowed}")
    if not ((low is None or value >= low) and value <= high):  # so written, NaN is refused too
        raise ConfigError(f"{where}: must lie in {allowed}")
    return value if whole else float(value)


def is_number(value: Any, *, whole: bool) -> bool:
    """Whether it is a number, and no True or False."""
    return not isinstance(value, bool) and isinstance(value, int if whole else int | float)


def as_tuples(value: Any) -> Any:
    """Lists as tuples, so that what is read from a file equals what is typed."""
    if isinstance(value, Mapping):
        return {k: as_tuples(v) for k, v in value.items()}
    return tuple(as_tuples(v) for v in value) if isinstance(value, list | tuple) else value


def did_you_mean(name: str, names: Sequence[str], *, prefix: str = "", elsewhere: Sequence[str] = ()) -> str:
    """The end of a message: what was probably meant, or all there is."""
    near = [*elsewhere, *(prefix + n for n in difflib.get_close_matches(name, names, n=1))]
    return f"; did you mean {' or '.join(near)}?" if near else f"; it has {', '.join(names)}"


def differences(first: Knobs, second: Knobs) -> dict[str, tuple[Any, Any]]:
    """The knobs that differ, with both values."""
    return {name: (value, vars(second)[name]) for name, value in vars(first).items() if value != vars(second)[name]}
