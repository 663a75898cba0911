"""Settings as a TOML file: written with the meaning of every knob, read strictly, changed from the command line."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tomlkit

from prockd.settings.experiment import ExperimentConfig
from prockd.settings.knobs import ConfigError, Knobs, did_you_mean
from prockd.settings.knobs import differences as knob_differences
from prockd.untrusted import parse_toml, reading
from prockd.writing import write_file

K = TypeVar("K", bound=Knobs)


def write_config(config: ExperimentConfig, path: str | Path) -> Path:
    """Write all settings, each below a sentence with its range and unit."""
    return write_file(path, to_toml(config))


def read_config(path: str | Path, *, base: ExperimentConfig | None = None) -> ExperimentConfig:
    """Read a TOML file; what it does not set is taken from ``base``.

    Raises:
        ConfigError: no such file, no TOML, an unknown section or knob (with the nearest one), or a value of another
            type or outside its range.
    """
    return changed(base or ExperimentConfig(), read_tables(path), str(path))


def read_tables(path: str | Path) -> dict[str, Any]:
    """The tables of a TOML file; ConfigError where there is no such file, or no TOML in it."""
    with reading(path, "a TOML file", ConfigError):
        return parse_toml(Path(path).read_text(encoding="utf-8"))


def set_values(config: ExperimentConfig, changes: Sequence[str]) -> ExperimentConfig:
    """Apply changes such as ``student.layers=[1, 2]`` or ``teacher.options.pad_type=same``: TOML, or else text.

    Raises:
        ConfigError: a change without ``=``, or as in :func:`read_config`.

    >>> set_values(ExperimentConfig(), ["distill.steps=500"]).distill.steps
    500
    """
    for change in changes:
        key, value = typed(change)
        *path, last = key.split(".")
        if not path:
            raise ConfigError(f"--set {change}: write section.name=value, such as distill.steps=500")
        tables: dict[str, Any] = {last: value}
        for name in reversed(path):
            tables = {name: tables}
        config = changed(config, tables, f"--set {change}", merge=True)
    return config


def set_knobs(knobs: K, changes: Sequence[str] | None) -> K:
    """Apply changes such as ``zoom=0.3`` to one section; ConfigError as in :func:`set_values`.

    >>> from prockd.settings.method import ClusterConfig
    >>> set_knobs(ClusterConfig(), ["zoom=0.3"]).zoom
    0.3
    """
    return knobs.replace(**dict(map(typed, changes or ())))


def typed(change: str) -> tuple[str, Any]:
    """Name and value of ``name=value``, the value as TOML reads it, or else as text."""
    key, equals, text = change.partition("=")
    if not equals:
        raise ConfigError(f"--set {change}: write name=value, such as steps=500")
    try:
        value = parse_toml(f"value = {text}")["value"]
    except ValueError:
        value = text.strip()
    return key.strip(), value


def changed(
    config: ExperimentConfig, tables: Mapping[str, Any], where: str, *, merge: bool = False
) -> ExperimentConfig:
    """The settings with the values of some tables; ``merge`` adds to a table of options where a file replaces it."""
    sections = config.sections()
    for section, values in tables.items():
        if section not in sections:
            raise ConfigError(f"{where}: there is no section [{section}]{did_you_mean(section, list(sections))}")
        knobs = sections[section]
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"{where}: {section} is a section: write {section}.name = value, or [{section}] above them"
            )
        names = [f.name for f in dataclasses.fields(knobs)]  # type: ignore[arg-type]
        for name in set(values).difference(names):
            elsewhere = [f"{other}.{name}" for other, its in sections.items() if hasattr(its, name)]
            near = did_you_mean(name, names, prefix=f"{section}.", elsewhere=elsewhere)
            raise ConfigError(f"{where}: there is no {section}.{name}{near}")
        new = {
            name: {**old, **value} if merge and isinstance(old, Mapping) and isinstance(value, Mapping) else value
            for name, value in values.items()
            for old in [getattr(knobs, name)]
        }
        try:
            sections[section] = knobs.replace(**new)
        except ConfigError as error:
            raise ConfigError(f"{where}: {str(error).replace(f'{type(knobs).__name__}.', f'{section}.')}") from error
    return dataclasses.replace(config, **sections)  # type: ignore[arg-type]


def to_toml(config: ExperimentConfig) -> str:
    """The text of :func:`write_config`."""
    parts = ["# Settings of a prockd run. Change them here, or with --set section.name=value.\n"]
    for section, knobs in config.sections().items():
        table = tomlkit.table()
        for f in dataclasses.fields(knobs):  # type: ignore[arg-type]
            table.add(tomlkit.comment(comment(f)))
            table.add(f.name, getattr(knobs, f.name))
        document = tomlkit.document().add(section, table)
        parts.append(f"# {(type(knobs).__doc__ or '').split(' (')[0]}\n{tomlkit.dumps(document)}")
    return "\n".join(parts)


def comment(f: "dataclasses.Field[Any]") -> str:
    """What a knob is for, and what it may be."""
    help, meta = f.metadata["help"].rstrip("."), f.metadata
    if "options" in meta:
        return f"{help}: {', '.join(meta['options'])}."
    if meta.get("low") is None:
        return f"{help}."
    unit = f" {meta['unit']}" if meta["unit"] else ""
    reach = f"{meta['low']:g} to {meta['high']:g}" if meta["high"] < 1e6 else f"from {meta['low']:g}"
    return f"{help} ({reach}{unit})."


def in_line(value: Any) -> str:
    """A value as TOML, on one line."""
    if not isinstance(value, Mapping):
        return str(tomlkit.item(value).as_string())
    table = tomlkit.inline_table()
    table.update(value)
    return str(table.as_string())


def differences(first: ExperimentConfig, second: ExperimentConfig) -> list[str]:
    """What differs, such as ``distill.steps was 900, is 500``; what only says how to export is left out."""
    return [
        f"{section}.{name} was {in_line(before)}, is {in_line(after)}"
        for section, knobs in first.sections().items() if section != "export"
        for name, (before, after) in knob_differences(knobs, second.sections()[section]).items()
    ]  # fmt: skip
