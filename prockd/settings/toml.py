"""Settings as a TOML file: written with the meaning of every knob, read strictly, changed from the command line."""

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from prockd.settings.experiment import ExperimentConfig
from prockd.settings.knobs import ConfigError


def write_config(config: ExperimentConfig, path: str | Path) -> Path:
    """Write all settings, each below a sentence with its range and unit."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_toml(config), encoding="utf-8")
    return path


def read_config(path: str | Path, *, base: ExperimentConfig | None = None) -> ExperimentConfig:
    """Read a TOML file; what it does not set is taken from ``base``.

    Raises:
        ConfigError: no such file, no TOML, an unknown section or knob (with the nearest one), or a value of another
            type or outside its range.
    """
    path = Path(path)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    return changed(base or ExperimentConfig(), tables, str(path))


def set_values(config: ExperimentConfig, changes: Sequence[str]) -> ExperimentConfig:
    """Apply changes such as ``distill.steps=500``, ``student.layers=[1, 2]`` or ``teacher.options.pad_type=same``.

    Values are TOML; what is not (a bare word, a path) is text.

    Raises:
        ConfigError: a change without ``=``, or as in :func:`read_config`.
    """
    for change in changes:
        key, equals, text = change.partition("=")
        *path, last = key.strip().split(".")
        if not equals or not path:
            raise ConfigError(f"--set {change}: write section.name=value, such as distill.steps=500")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        tables: dict[str, Any] = {last: value}
        for name in reversed(path):
            tables = {name: tables}
        config = changed(config, tables, f"--set {change}", merge=True)
    return config


def changed(
    config: ExperimentConfig, tables: Mapping[str, Any], where: str, *, merge: bool = False
) -> ExperimentConfig:
    """The settings with the values of some tables; ``where`` begins every message.

    ``merge`` adds to a table of options what is new in it, where a file replaces the table.
    """
    sections = config.sections()
    for section, values in tables.items():
        if section not in sections:
            raise ConfigError(f"{where}: there is no section [{section}]{nearest(section, list(sections))}")
        knobs = sections[section]
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"{where}: {section} is a section: write {section}.name = value, or [{section}] above them"
            )
        names = [f.name for f in dataclasses.fields(knobs)]  # type: ignore[arg-type]
        for name in values:
            if name not in names:
                elsewhere = [f"{s}.{name}" for s, other in sections.items() if hasattr(other, name)]
                raise ConfigError(
                    f"{where}: there is no {section}.{name}"
                    + nearest(name, names, prefix=f"{section}.", more=elsewhere)
                )
        told = {
            name: {**getattr(knobs, name), **value} if merge and isinstance(value, Mapping) else value
            for name, value in values.items()
        }
        try:
            sections[section] = knobs.replace(**told)
        except ConfigError as error:
            raise ConfigError(f"{where}: {str(error).replace(f'{type(knobs).__name__}.', f'{section}.')}") from error
    return dataclasses.replace(config, **sections)  # type: ignore[arg-type]


def nearest(name: str, names: Sequence[str], *, prefix: str = "", more: Sequence[str] = ()) -> str:
    """The end of a message: what was probably meant, or all there is."""
    near = [*more, *(prefix + n for n in difflib.get_close_matches(name, names, n=1))]
    return f"; did you mean {' or '.join(near)}?" if near else f"; it has {', '.join(names)}"


def to_toml(config: ExperimentConfig) -> str:
    """The text of :func:`write_config`."""
    parts = ["# Settings of a prockd run. Change them here, or with --set section.name=value.\n"]
    for section, knobs in config.sections().items():
        about = (type(knobs).__doc__ or "").split(" (")[0]
        lines, tables = [f"# {about}", f"[{section}]"], []
        for f in dataclasses.fields(knobs):  # type: ignore[arg-type]
            value = getattr(knobs, f.name)
            if "table" in f.metadata:
                rows = [f"{in_line({k: v})[1:-1]}" for k, v in value.items()]
                tables.append("\n".join([f"\n# {f.metadata['about']}", f"[{section}.{f.name}]", *rows]))
            else:
                lines += [f"# {comment(f)}", f"{f.name} = {in_line(value)}"]
        parts.append("\n".join(lines + tables) + "\n")
    return "\n".join(parts)


def comment(f: "dataclasses.Field[Any]") -> str:
    """What a knob is for, and what it may be."""
    about, meta = f.metadata["about"].rstrip("."), f.metadata
    if "options" in meta:
        return f"{about}: {', '.join(meta['options'])}."
    if meta.get("low") is None:
        return f"{about}."
    unit = f" {meta['unit']}" if meta["unit"] else ""
    return (
        f"{about} ({meta['low']:g} to {meta['high']:g}{unit})."
        if meta["high"] < 1e6
        else f"{about} (from {meta['low']:g}{unit})."
    )


def in_line(value: Any) -> str:
    """A value as TOML, on one line."""
    if isinstance(value, Mapping):
        return (
            "{" + ", ".join(f"{tomli_w.dumps({k: 0}).split(' = ')[0]} = {in_line(v)}" for k, v in value.items()) + "}"
        )
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(in_line, value)) + "]"
    return tomli_w.dumps({"v": value}).removeprefix("v = ").rstrip()


def differences(first: ExperimentConfig, second: ExperimentConfig) -> list[str]:
    """What differs, such as ``distill.steps was 900, is 500``; what only says how to export is left out."""
    told = []
    for section, knobs in first.sections().items():
        other = second.sections()[section]
        for f in dataclasses.fields(knobs):  # type: ignore[arg-type]
            before, after = getattr(knobs, f.name), getattr(other, f.name)
            if section != "export" and before != after:
                told.append(f"{section}.{f.name} was {in_line(before)}, is {in_line(after)}")
    return told
