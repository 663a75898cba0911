"""Exercises of notebook 03: inspect prototypes."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from prockd.checks.verdict import Step, close, exercise, integers, shape, values


def clearest(parts: np.ndarray, part: int) -> int:
    """The prototype of whose strongest patches, parts (K, 50), most lie on a part."""
    return int((parts == part).mean(1).argmax())


def no_part(shares: np.ndarray) -> int:
    """Of the prototypes that show some part in a quarter of their patches, the one least given to a single part.

    Shares are (K, parts), those of the background first.
    """
    best = shares[:, 1:].max(1)
    return int(np.where(best >= 0.25, best, np.inf).argmin())


def selection() -> list[dict[str, Any]]:
    """Rows as an explorer exports them, made up."""
    return [{"image": f"{m:03d}", "name": "leg", "part": "leg" if m % 4 else "foot"} for m in range(40)]


@exercise(selection)
def check_selection(answer: Callable[[], Any]) -> Iterator[Step]:
    """``answer()`` gives the rows of the explorer's selection: patches of legs, and a name given to them."""
    rows: Sequence[Mapping[str, Any]] = answer()
    if hasattr(rows, "to_dict"):  # a DataFrame, where pandas is installed
        rows = rows.to_dict("records")
    yield len(rows) >= 20, "20 patches or more are selected", "click the row of a prototype, or draw a lasso"
    images = len({row["image"] for row in rows})
    yield images >= 10, "they are of 10 images or more", f"yours are of {images}: select in the map, not in one image"
    part, count = Counter(row["part"] for row in rows).most_common(1)[0]
    legs = sum(row["part"] in ("leg", "foot") for row in rows) / len(rows)
    change = f"{legs:.0%} do, and {count} of {len(rows)} lie on {part}; look for another prototype"
    yield legs >= 0.6, "most of them lie on a leg or a foot", change
    names = {str(row["name"]) for row in rows}
    change = "explorer.rename(number, 'leg'), or type it above the table"
    yield any("leg" in name or "foot" in name for name in names), "their prototype was named by you", change


@exercise(clearest)
def check_clearest(answer: Callable[[np.ndarray, int], int]) -> Iterator[Step]:
    """``answer(parts (K, 50), part)`` gives the number of a prototype."""
    parts = np.array([[1, 2, 2, 2], [3, 3, 3, 1], [0, 1, 1, 2], [0, 0, 0, 0], [2, 1, 3, 0]])
    found = answer(parts, 3)
    yield shape(found)
    change = "compare over prototypes: a mean over its patches, axis 1"
    yield 0 <= int(found) < 5, "it is the number of a prototype", change
    yield close(found, 1), "three of four patches on the part beat one of four", "argmax over the shares"
    change = "only patches on the part asked for count; a prototype may be clearer about another"
    yield close(answer(parts, 1), 2), "it is the clearest about *this* part", change
    parts = integers(0, 4, 9, 30)
    same = all(close(answer(parts, p), clearest(parts, p)) for p in range(4))
    yield same, "random rows too", "share of parts == part"


@exercise(no_part)
def check_no_part(answer: Callable[[np.ndarray], int]) -> Iterator[Step]:
    """``answer(shares (K, parts))`` gives the prototype that shows parts, and is least clear about one."""
    shares = np.array([[0.0, 0.9, 0.2], [0.95, 0.03, 0.02], [0.3, 0.3, 0.35], [0.0, 0.5, 0.6], [0.4, 0.4, 0.1]])
    found = int(values(answer(shares)))
    yield found != 1, "it is no prototype of the background", "first leave out those below a quarter for every part"
    yield found != 0, "it is not the clearest one", "the smallest of the best shares, not the largest"
    change = "compare each prototype's best share of a part; the background, column 0, is none"
    yield found == 2, "its best part is the least clear", change
    shares = np.random.default_rng(0).dirichlet(np.ones(5), 40)
    yield close(answer(shares), no_part(shares)), "random shares too", "quarter first, then the smallest best share"
