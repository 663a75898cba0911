"""Arrays that lie one behind the other on the disk, read as one."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


class Joined:
    """Arrays with the same rows, one behind the other: reads as one array does, and copies only what is asked for.

    >>> whole = Joined([np.zeros((3, 2)), np.ones((2, 2))])
    >>> whole.shape, whole[[0, 4], 1].tolist(), whole[2:4].tolist()
    ((5, 2), [0.0, 1.0], [[0.0, 0.0], [1.0, 1.0]])

    ``compare`` is called with the number of an array before it is first read, and raises where it is damaged.
    """

    def __init__(self, parts: Sequence[np.ndarray], compare: Callable[[int], None] = lambda part: None) -> None:
        self._parts, self.dtype, self._compare, self._compared = tuple(parts), parts[0].dtype, compare, set[int]()
        self._ends = np.cumsum([len(part) for part in parts])
        self.shape: tuple[int, ...] = (int(self._ends[-1]), *parts[0].shape[1:])
        self.nbytes = sum(part.nbytes for part in parts)

    def __len__(self) -> int:
        return self.shape[0]

    def _part(self, number: int) -> np.ndarray:
        if number not in self._compared:
            self._compare(number)
            self._compared.add(number)
        return self._parts[number]

    def __getitem__(self, key: Any) -> np.ndarray:
        """Rows by number, slice, numbers or mask, and what is asked of each; a number a row goes with its row."""
        rows, *rest = key if isinstance(key, tuple) else (key,)
        if isinstance(rows, int | np.integer):
            return np.asarray(self[[rows], *rest][0])
        numbers = np.arange(len(self))[np.asarray(rows, None if len(rows) else np.int64)] if not isinstance(
            rows, slice) else np.arange(*rows.indices(len(self)))  # fmt: skip
        owners = np.searchsorted(self._ends, numbers, side="right")
        first = int(owners[0]) if len(owners) else 0
        if len(numbers) and isinstance(rows, slice) and owners[0] == owners[-1]:  # a view, as of an array
            start = int(self._ends[first]) - len(self._parts[first])
            step = rows.step or 1
            return np.asarray(self._part(first)[(slice(numbers[0] - start, numbers[-1] - start + 1, step), *rest)])
        found = self._parts[first][(slice(0, 0), *(r if isinstance(r, slice) else 0 for r in rest))]
        whole = np.empty((len(numbers), *found.shape[1:]), self.dtype)
        for part in np.unique(owners):
            mine = np.flatnonzero(owners == part)
            start = self._ends[part] - len(self._parts[part])
            own = (r[mine] if isinstance(r, np.ndarray) else r for r in rest)
            whole[mine] = self._part(int(part))[(numbers[mine] - start, *own)]
        return whole

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)


Rows = np.ndarray | Joined
"""An array, in one piece or in several."""


def joined(parts: Sequence[np.ndarray], compare: Callable[[int], None]) -> Rows:
    """Arrays as one: the array itself where there is one."""
    return parts[0] if len(parts) == 1 else Joined(parts, compare)
