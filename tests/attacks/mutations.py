"""What happens to files: bytes that change, get lost or come twice, and JSON whose values are others.

``PROCKD_FUZZ=2000`` tries that many files a reader, other ones each time; without it a few, the same ones each time.
"""

import copy
import json
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import hypothesis.configuration
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

hypothesis.configuration.set_hypothesis_home_dir(tempfile.mkdtemp(prefix="prockd-hypothesis-"))
TRIED = int(os.environ.get("PROCKD_FUZZ", "0"))
MANY, FEW = (
    settings(
        max_examples=TRIED or count, derandomize=not TRIED, deadline=None, database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    for count in (40, 15)
)  # fmt: skip
EDITS = ("change", "flip", "insert", "remove", "repeat", "cut")

edits = st.lists(
    st.tuples(st.sampled_from(EDITS), st.floats(0, 1), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4
)
"""Changes of a file: what, where (0 its beginning, 1 its end) and with which bytes."""

numbers = st.sampled_from([0, -1, 1, 2**31, 2**63, 2**70, 10**400, -0.5, 1e308, float("nan"), float("inf")])
texts = st.sampled_from(["", "../up.png", "/etc/passwd", "hf-hub:a/b", "\0", "x" * 300, "\ud800", "1_0", "cat"])
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=5,
)
"""What JSON may hold where nobody expects it."""


def mutated(content: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    """The bytes of a file after some changes."""
    for what, where, new in changes:
        place = min(int(where * len(content)), max(0, len(content) - 1))
        before, here, after = content[:place], content[place : place + len(new)], content[place + len(new) :]
        content = {
            "change": before + new + after,
            "flip": before + bytes(a ^ b for a, b in zip(here, new, strict=False)) + after,
            "insert": before + new + here + after,
            "remove": before + after,
            "repeat": before + here * 3 + after,
            "cut": before,
        }[what]
    return content


def replaced(tree: Any, number: int, value: Any) -> Any:
    """A copy of a JSON tree in which one of its places holds something else."""
    tree = copy.deepcopy(tree)
    places = list(_places(tree))
    inside, key = places[number % len(places)]
    inside[key] = value
    return tree


def without(tree: Any, number: int) -> Any:
    """A copy of a JSON tree that lacks one of its places."""
    tree = copy.deepcopy(tree)
    places = list(_places(tree))
    inside, key = places[number % len(places)]
    del inside[key]
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    for key in tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield tree, key
        yield from _places(tree[key])


def as_text(tree: Any) -> str:
    """The tree as JSON; NaN and lone halves of letters stay what they are."""
    return json.dumps(tree)
