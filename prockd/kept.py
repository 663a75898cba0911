"""What the cache keeps, to look through, clear and move; an entry that is being built is never touched."""

import re
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from prockd.cache import CacheError, cache_root, unfinished

_DIGEST = re.compile(r"[0-9a-f]{20}")
_UNITS = {"m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}


@dataclass(frozen=True)
class Entry:
    """One entry of the cache."""

    path: Path  # its folder
    kind: str  # what it holds, such as "images" or "features"
    bytes: int
    age_s: float  # seconds since it was built


def entries(root: Path | None = None) -> list[Entry]:
    """All whole entries, kind by kind, the newest first; whatever else lies there is left alone."""
    found, now = [], time.time()
    for path in (root or cache_root()).glob("*/*/meta.json"):
        if _DIGEST.fullmatch(path.parent.name):
            size = sum(file.stat().st_size for file in path.parent.iterdir())
            found.append(Entry(path.parent, path.parent.parent.name, size, max(0.0, now - path.stat().st_mtime)))
    return sorted(found, key=lambda entry: (entry.kind, entry.age_s))


def chosen(found: Iterable[Entry], kinds: Iterable[str] = (), older_than_s: float = 0) -> list[Entry]:
    """The entries of these kinds, of all where none is named, of such an age; ValueError for a kind that none is of."""
    found, kinds = list(found), set(kinds)
    if unknown := sorted(kinds - (there := {entry.kind for entry in found})):
        has = ", ".join(sorted(there)) or "nothing"
        raise ValueError(f"the cache keeps nothing of kind {', '.join(unknown)}: it has {has}")
    return [entry for entry in found if entry.age_s >= older_than_s and (not kinds or entry.kind in kinds)]


def remove(some: Iterable[Entry]) -> None:
    """Remove entries, or CacheError; one that is removed half is never read, and a later run removes the rest."""
    for entry in some:
        try:
            with unfinished(entry.path) as place:
                shutil.rmtree(entry.path.rename(place))
        except FileNotFoundError:  # another process was first
            continue
        except OSError as error:
            raise CacheError(
                f"{entry.path} cannot be removed ({error.strerror or error}): may you write there?"
            ) from error


def move(some: Iterable[Entry], folder: Path) -> int:
    """Move entries to another folder, on any disk, each whole; returns how many, or CacheError: the others stay."""
    count = 0
    for entry in some:
        place = folder / entry.kind / entry.path.name
        try:
            if not place.exists():
                with unfinished(place) as copy:
                    shutil.copytree(entry.path, copy)
                    copy.rename(place)
        except (OSError, shutil.Error) as error:
            reason = getattr(error, "strerror", None) or error
            why = (
                f"({reason}; {entry.bytes / 1e6:.3g} MB): it is still there, as are the others that were not moved yet"
            )
            raise CacheError(f"{entry.path} cannot be moved to {folder} {why}") from error
        remove([entry])
        count += 1
    return count


def seconds(age: str) -> float:
    """A time such as ``90m``, ``12h``, ``30d`` or ``2w`` in seconds; ValueError where it is none."""
    if not (match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([mhdw])", age.strip())):
        raise ValueError(f"{age!r} is no age: write it as 90m, 12h, 30d or 2w")
    return float(match[1]) * _UNITS[match[2]]
