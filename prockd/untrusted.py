"""Files that somebody else made: what may stand in them, and one sentence that names the file where it does not.

A reader tells :func:`reading` which file it reads and what for, and :func:`fields` what a table of it may hold.
"""

import json
import math
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

MAX_DEPTH = 64
"""Tables and lists within each other; a file that somebody wrote stays far below."""
MAX_RATIO, ALWAYS_ALLOWED = 200, 64 * 2**20
"""Bytes that may come out of one byte of a packed file, photographs stay far below, and that any may grow to."""
_DEEP = f"more than {MAX_DEPTH} tables or lists within each other"


class RefusedError(ValueError):
    """A value that no file may hold; whoever reads the file says which one it is."""


@contextmanager
def reading(path: Path | str, what: str, error: type[Exception], advice: str = "") -> Iterator[None]:
    """Whatever the bytes of a file lead to becomes one ``error`` in one sentence: file, what it should be, advice.

    One of that kind that is raised inside, and names the file, passes as it is.

    >>> with reading("notes.json", "a try", ValueError):
    ...     {}["step"]
    Traceback (most recent call last):
    ValueError: notes.json is not a try that can be read (lacks 'step')
    """
    try:
        yield
    except Exception as cause:  # damaged bytes raise anything: a list of kinds would never be whole
        if isinstance(cause, error) and not isinstance(cause, RefusedError | UnicodeError) and str(path) in str(cause):
            raise
        end = f": {advice}" if advice else ""
        raise error(f"{path} is not {what} that can be read ({reason(cause)}){end}") from cause


def reason(cause: Exception) -> str:
    """An error in a few words, on one line."""
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.lower()
    if isinstance(cause, UnicodeDecodeError):
        line = cause.object[: cause.start].count(b"\n") + 1
        return f"line {line} is not text in UTF-8"
    if isinstance(cause, KeyError):
        return f"lacks {cause}"
    if isinstance(cause, RecursionError):
        return "lists within lists without end"
    if isinstance(cause, MemoryError):
        return "it asks for more memory than there is"
    text = " ".join(str(cause).split())
    text = text if len(text) <= 300 else text[:297] + "..."
    return text if isinstance(cause, RefusedError) else f"{type(cause).__name__}: {text}".removesuffix(": ")


def parse_json(text: str | bytes, loads: Callable[[Any], Any] = json.loads) -> Any:
    """What a JSON text holds; ValueError where it is none, or deeper than 64 tables and lists."""
    try:
        value = loads(text)
        level = [value]
        for _ in range(MAX_DEPTH):
            level = [inner for each in level for inner in _inside(each)]
            if not level:
                return value
    except RecursionError as error:
        raise RefusedError(_DEEP) from error
    raise RefusedError(_DEEP)


def _inside(value: Any) -> list[Any]:
    """The tables and lists that lie in one."""
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [each for each in values if isinstance(each, dict | list)]


def read_json(path: Path) -> Any:
    """What a file of JSON holds, see :func:`parse_json`; a byte order mark, as Windows writes it, is passed over."""
    return parse_json(path.read_text(encoding="utf-8-sig"))


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML text; ValueError where it is none (``tomllib.TOMLDecodeError``) or too deep."""
    return cast(dict[str, Any], parse_json(text, tomllib.loads))


@dataclass(frozen=True)
class Rule:
    """What a value must be, in words, and whether one is."""

    words: str
    holds: Callable[[Any], bool]

    def __or__(self, other: "Rule") -> "Rule":
        return Rule(f"{self.words} or {other.words}", lambda value: self.holds(value) or other.holds(value))


NOTHING = Rule("nothing", lambda value: value is None)
FLAG = Rule("true or false", lambda value: isinstance(value, bool))
TABLE = Rule("a table", lambda value: isinstance(value, dict))
ANYTHING = Rule("anything", lambda value: True)


def whole(low: int, high: int) -> Rule:
    """A whole number in a range, both ends included."""
    return Rule(f"a whole number from {low} to {high}", lambda value: type(value) is int and low <= value <= high)


def number(low: int | float = -math.inf, high: int | float = math.inf) -> Rule:
    """A finite number in a range, both ends included."""
    ends = f" from {low:g} to {high:g}" if math.isfinite(low) and math.isfinite(high) else ""
    # a whole number may be longer than any float
    return Rule(f"a finite number{ends}", lambda v: type(v) in (int, float) and low <= v <= high and abs(v) < 1e300)


def text(most: int = 1000, least: int = 0) -> Rule:
    """A text of so many letters."""
    return Rule(f"a text of {least} to {most} letters", lambda v: isinstance(v, str) and least <= len(v) <= most)


def one_of(words: Iterable[str]) -> Rule:
    """One of a few words."""
    known = tuple(words)
    return Rule(f"one of {', '.join(known)}", lambda value: isinstance(value, str) and value in known)


def list_of(rule: Rule, most: int, least: int = 0) -> Rule:
    """A list of values that all follow a rule."""
    return Rule(
        f"a list of {least} to {most}, each {rule.words}",
        lambda v: isinstance(v, list) and least <= len(v) <= most and all(map(rule.holds, v)),
    )


def fields(table: Any, rules: Mapping[str, Rule], *, optional: Iterable[str] = (), where: str = "") -> dict[str, Any]:
    """A table that has exactly these fields, but for ``optional`` ones, each following its rule, or a RefusedError.

    >>> fields({"steps": -1}, {"steps": whole(0, 100)})
    Traceback (most recent call last):
    prockd.untrusted.RefusedError: steps is -1, not a whole number from 0 to 100
    """
    place = f"{where}." if where else ""
    if not isinstance(table, dict):
        raise RefusedError(f"{where or 'its content'} is {shown(table)}, not a table")
    if missing := [name for name in rules if name not in table and name not in optional]:
        raise RefusedError(f"lacks {', '.join(place + name for name in missing)}; another version of prockd wrote it?")
    for name, value in table.items():
        if name not in rules:
            raise RefusedError(f"has a field {shown(place + str(name))} that prockd does not know")
        if not rules[name].holds(value):
            raise RefusedError(f"{place}{name} is {shown(value)}, not {rules[name].words}")
    return table


def defused(value: object) -> object:
    """A cell of a table for other programs: a text that a spreadsheet would compute begins with an apostrophe.

    >>> defused("=1+1"), defused("cat"), defused(-3)
    ("'=1+1", 'cat', -3)
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else value


def shown(value: Any) -> str:
    """A value in a message: its beginning, for it may be of any length."""
    try:
        words = repr(value)
    except (ValueError, RecursionError):  # a whole number of more than 4300 digits
        words = f"a {type(value).__name__}"
    return words if len(words) <= 60 else f"{words[:57]}..."
