"""What all data sets share: the error, a problem as a row of a table, the check of a label, the words of a repr."""

from collections.abc import Sequence
from dataclasses import dataclass

from prockd._types import UNLABELLED

SHOWN = 5
"""Problems that one error message spells out; the rest are counted."""


WHAT_TO_DO = "Mend what `prockd check-data` lists, or leave it out with on_bad='skip' (--set data.on_bad=skip)."


class DatasetError(ValueError):
    """Images or labels that cannot be used; the message names the first of them and what to do."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a data set.

    Attributes:
        file: the file it is in, as the user would look for it.
        entry: where in the file (``line 3``, ``object 2``, ``annotation 17``); empty for all of it.
        text: what is wrong, and what to do where that is not plain.
        note: True where training can go on as it is.
    """

    file: str
    entry: str
    text: str
    note: bool = False

    def __str__(self) -> str:
        place = f"{self.file}, {self.entry}" if self.entry else self.file
        return f"{place}: {self.text}"


def refuse(problems: Sequence[Problem], what: str, on_bad: str) -> None:
    """Raise one error that spells out the first problems, unless they are to be skipped; notes are no reason.

    Raises:
        DatasetError: there is a problem that is not a note, and ``on_bad`` is ``"refuse"``.
        ValueError: ``on_bad`` is neither ``"refuse"`` nor ``"skip"``.
    """
    if on_bad not in ("refuse", "skip"):
        raise ValueError(f"on_bad={on_bad!r}: must be 'refuse' or 'skip'")
    errors = [problem for problem in problems if not problem.note]
    if errors and on_bad == "refuse":
        listed = "".join(f"\n  {problem}" for problem in errors[:SHOWN])
        more = f"\n  and {len(errors) - SHOWN} more" if len(errors) > SHOWN else ""
        count = f"{len(errors)} bad entries" if len(errors) > 1 else "a bad entry"
        raise DatasetError(f"{what} has {count}:{listed}{more}\n{WHAT_TO_DO}")


def check_label(label: int, num_classes: int, name: str) -> None:
    if label != UNLABELLED and not 0 <= label < num_classes:
        raise DatasetError(f"{name} has label {label}: {num_classes} classes have labels 0..{num_classes - 1}")


def named(classes: Sequence[str]) -> str:
    shown = ", ".join(classes[:4]) + (", ..." if len(classes) > 4 else "")
    return f"{len(classes)} class{'es' if len(classes) > 1 else ''}: {shown}" if classes else "no classes"
