"""What every check of the course shares: steps that must hold, and the verdict that a student reads."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor

Step = tuple[object, str, str]
"""Whether something holds, what should hold, and what to change where it does not."""


@dataclass(frozen=True)
class Verdict:
    """What is right in an answer, what is not, and what to change; printed, it is text to read.

    Attributes:
        exercise: its id, ``NAME`` of ``check_NAME``.
        right: what holds.
        wrong: the first thing that does not hold, and what to change; empty where the answer is right.
        answer: what was checked.
        reference: an answer that is right.
    """

    exercise: str
    right: tuple[str, ...]
    wrong: str
    answer: Any = field(repr=False)
    reference: Any = field(repr=False)

    @property
    def passed(self) -> bool:
        """Whether everything holds."""
        return not self.wrong

    def or_reference(self) -> Any:
        """The answer where it is right, else the reference, so that a page can go on; it says which."""
        if not self.passed:
            print(f"From here on the page uses the reference of '{self.exercise}'.")  # noqa: T201
        return self.answer if self.passed else self.reference

    def __str__(self) -> str:
        lines = [f"✓ {line}" for line in self.right] + [f"✗ {self.wrong}"] * bool(self.wrong)
        return "\n".join([f"{self.exercise}: {'passed' if self.passed else 'not yet'}", *lines])


def exercise(reference: Any) -> Callable[[Callable[[Any], Iterator[Step]]], Callable[[Any], Verdict]]:
    """Make a check of a generator of steps: it stops at the first that does not hold, and never raises."""

    def decorate(steps: Callable[[Any], Iterator[Step]]) -> Callable[[Any], Verdict]:
        @wraps(steps)
        def check(answer: Any) -> Verdict:
            right: list[str] = []
            wrong = ""
            try:
                for holds, what, change in steps(answer):
                    if not holds:
                        wrong = f"{what}: {change}"
                        break
                    right.append(what)
            except NotImplementedError:
                wrong = "nothing is written yet: lines in place of `raise NotImplementedError()`, the last a `return`"
            except (Exception, SystemExit) as error:
                wrong = f"your answer, tried on a small example, ends with {type(error).__name__}: {error}"
            return Verdict(steps.__name__.removeprefix("check_"), tuple(right), wrong, answer, reference)

        check.__annotations__["return"] = Verdict
        return check

    return decorate


def values(found: object) -> Tensor:
    """An answer's numbers, whether they are a tensor, an array or a list; NotImplementedError where there is none."""
    if found is None or found is ...:
        raise NotImplementedError
    return torch.as_tensor(found).detach().double()


def shape(found: object, *sizes: int) -> Step:
    """The step that numbers have a shape."""
    given = tuple(values(found).shape)
    return given == sizes, f"the shape is {sizes}", f"yours is {given}"


def close(found: object, truth: object, tolerance: float = 1e-4) -> bool:
    """Whether numbers are those of the truth."""
    a, b = values(found), values(truth)
    return a.shape == b.shape and bool(torch.allclose(a, b, rtol=tolerance, atol=tolerance))


def noise(*sizes: int, seed: int = 0) -> Tensor:
    """Normal numbers that are the same in every run and leave torch's own generator alone."""
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed))


def integers(low: int, high: int, *sizes: int, seed: int = 0) -> np.ndarray:
    """Whole numbers from low to high - 1."""
    return np.random.default_rng(seed).integers(low, high, sizes)
