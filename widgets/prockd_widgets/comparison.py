"""Is one try better than another? The same images, so that what both find hard cancels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prockd.datasets import PackedImages
from prockd.evaluation.verdict import FEWEST, paired_intervals, units_of
from prockd.tasks import Task
from prockd_widgets.tries import Try


@dataclass(frozen=True)
class Difference:
    """How far the second of two tries is above the first.

    Attributes:
        prediction: "z" or "z⁺".
        first: metric of the first, 0..1.
        second: of the second.
        low: lower end of the 95 % interval of their difference; NaN where there are too few images.
        high: upper end.
    """

    prediction: str
    first: float
    second: float
    low: float = np.nan
    high: float = np.nan

    @property
    def word(self) -> str:
        """What the interval says."""
        if np.isnan(self.low):
            return "too few images to tell"
        return "higher" if self.low > 0 else "lower" if self.high < 0 else "not told apart"

    def row(self, names: Sequence[str]) -> dict[str, object]:
        """As a row of a table."""
        interval = None if np.isnan(self.low) else f"{100 * self.low:+.1f}..{100 * self.high:+.1f}"
        return {
            "prediction": self.prediction, names[0]: f"{self.first:.1%}", names[1]: f"{self.second:.1%}",
            "points more": f"{100 * (self.second - self.first):+.1f}", "95 % interval": interval, "so": self.word,
        }  # fmt: skip


def differences_of(first: Try, second: Try, task: Task, images: PackedImages) -> list[Difference]:
    """Second minus first, for z and where both have it for z⁺: the interval is over images, or groups of them."""
    before, after = first.scores_on(images), second.scores_on(images)
    pairs = [("z", before.plain, after.plain, [before.predictions, after.predictions])]
    if before.augmented is not None and after.augmented is not None:
        decoded = [before.augmented_predictions, after.augmented_predictions]
        pairs.append(("z⁺", before.augmented, after.augmented, decoded))
    units, _ = units_of(images)
    if int(units.max()) + 1 < FEWEST:
        return [Difference(name, *scores) for name, *scores, _ in pairs]
    return [
        Difference(name, old, new, *map(float, paired_intervals(task, decoded, images, units)[0]))
        for name, old, new, decoded in pairs
    ]
