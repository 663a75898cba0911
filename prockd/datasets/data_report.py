"""What is wrong with a data set, as a table."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from prockd.datasets._common import Problem
from prockd.datasets.layouts import WHOLE

SHOWN_ROWS = 40
"""Rows of a printed report; ``rows()`` has all."""


@dataclass(frozen=True, eq=False)
class DataReport:
    """What is wrong with a data set; prints as a table.

    Attributes:
        name: what was checked.
        layout: what it was taken for, in words.
        counts: images by subset.
        problems: everything found, in the order of the data.
        bad: by the fingerprint of each subset, the numbers of the samples that cannot be used.
        twins: the same for good samples whose file is that of an earlier one of the same subset.
    """

    name: str
    layout: str
    counts: Mapping[str, int]
    problems: tuple[Problem, ...]
    bad: Mapping[str, Sequence[int]] = field(default_factory=dict)
    twins: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @property
    def errors(self) -> tuple[Problem, ...]:
        """Problems that training cannot go on with."""
        return tuple(problem for problem in self.problems if not problem.note)

    @property
    def notes(self) -> tuple[Problem, ...]:
        """What is worth knowing, and no reason to stop."""
        return tuple(problem for problem in self.problems if problem.note)

    @property
    def ok(self) -> bool:
        """True when there is no error."""
        return not self.errors

    def rows(self) -> list[dict[str, str]]:
        """All problems as rows of a table: kind, file, entry, problem."""
        return [
            {
                "kind": "note" if problem.note else "error",
                "file": "" if problem.file == self.name else problem.file.removeprefix(f"{self.name}{os.sep}"),
                "entry": problem.entry,
                "problem": problem.text.replace(f"{self.name}{os.sep}", ""),
            }
            for problem in self.problems
        ]

    def __repr__(self) -> str:
        counted = ", ".join(f"{count} images" + (f" in {s}" if s != WHOLE else "") for s, count in self.counts.items())
        told = f"{_count(self.errors, 'error')}, {_count(self.notes, 'note')}" if self.problems else "nothing is wrong"
        spoilt = sum(map(len, self.bad.values()))
        unusable = f"; {spoilt} image{'' if spoilt == 1 else 's'} cannot be used" if spoilt else ""
        lines = [f"{self.name}: {self.layout}", f"{counted or 'no images'}: {told}{unusable}"]
        rows = sorted(self.rows(), key=lambda row: row["kind"])  # errors first
        shown = rows[:SHOWN_ROWS]
        wide = {key: max((len(row[key]) for row in shown), default=0) for key in ("kind", "file", "entry")}
        for row in shown:
            cells = [row[key].ljust(width) for key, width in wide.items() if width]
            lines.append("  ".join(["", *cells, row["problem"]]))
        if len(rows) > SHOWN_ROWS:
            lines.append(f"  ... and {len(rows) - SHOWN_ROWS} more: rows(), or prockd check-data --all, has them")
        if spoilt:
            lines.append("Mend them, or train without them: on_bad='skip' (--set data.on_bad=skip) leaves them out.")
        return "\n".join(lines)


def _count(problems: tuple[Problem, ...], word: str) -> str:
    return f"{len(problems)} {word}{'' if len(problems) == 1 else 's'}"
