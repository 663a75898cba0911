"""What does this prototype do? Switch prototypes off in a trained student, and see what changes for each class."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ipywidgets as widgets
import numpy as np
import traitlets

from prockd.datasets import PackedImages
from prockd.evaluation.effects import PrototypeEffects, prototype_effects
from prockd.plots import plot_class_effects, plot_prototype_effects
from prockd.students.student import Student
from prockd_widgets.causes import Causes
from prockd_widgets.look import STYLE, error_message, picture, png, status_line, table, waiting
from prockd_widgets.options import check_options

DRAWS = 20
"""Removals of as many others, at random, beside each removal."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured at one press of a button, and how it is shown.

    Attributes:
        off: prototypes that were switched off together; none where each was alone.
        status: in words.
        effects: of the removal, or of each.
        control: of as many others at random; None where there are not as many, and where each was removed.
        picture: a PNG.
        table: HTML, a row a class.
    """

    off: tuple[int, ...] = ()
    status: str = "Tick prototypes and switch them off, or remove each alone."
    effects: PrototypeEffects | None = None
    control: PrototypeEffects | None = None
    picture: bytes = b""
    table: str = ""


class PrototypeSwitches(widgets.VBox):  # type: ignore[misc]
    """Prototypes with their best patches, and the change of every class when they are switched off.

    Beside each removal stands that of as many others, drawn at random. Nothing is trained and the student stays as it
    is; what was measured can be undone and redone. Without a browser: ``switches.switch_off(3, 7)``, or
    ``switches.switch_off_each()`` for every prototype alone.

    Args:
        student: a trained student; None until there is one.
        images: labelled images that it was not trained on.
        options: what every ipywidget takes, such as ``layout=``.

    Raises:
        TypeError: an option that no widget has.
    """

    effects = traitlets.Instance(PrototypeEffects, allow_none=True, help="What was measured last.")
    status = traitlets.Unicode(Measured.status, help="What is going on.")
    error = traitlets.Unicode("", help="Why the last measurement failed; empty when it did not.")
    running = traitlets.Bool(False, help="Something is being measured.")

    def __init__(self, student: Student | None, images: PackedImages, **options: Any) -> None:
        check_options(type(self), options)
        self.images = images
        self._failure: Exception | None = None
        self._thread = threading.Thread()
        self.list = Causes({
            "off": lambda: self._begin(lambda: self.switch_off(*self.list.ticked)),
            "each": lambda: self._begin(self.switch_off_each), "undo": self.undo, "redo": self.redo,
        })  # fmt: skip
        self.picture = widgets.Image(value=waiting("what changes appears here"), format="png")
        self._status_line, self._error_message, self._table = (widgets.HTML() for _ in range(3))
        self.observe(lambda _: self._show(), ["running", "status", "error"])
        super().__init__(
            [widgets.HTML(STYLE), self._status_line, self._error_message, self.list, self.picture, self._table],
            **options,
        )
        self.add_class("prockd-panel")
        self.set_student(student)

    def set_student(self, student: Student | None) -> None:
        """Show another student's prototypes; what was measured of the one before is forgotten."""
        self.student, self._failure, self.error = student, None, ""
        self._past, self._now, self._future = list[Measured](), Measured(), list[Measured]()
        self.list.show(student, self.images)
        self._draw(self._now)

    def switch_off(self, *prototypes: int) -> PrototypeEffects:
        """Switch these prototypes off together and measure the change of each class, beside others at random.

        Raises:
            ValueError: none is named, or the student reads no prototypes.
        """
        if not prototypes:
            raise ValueError("choose one prototype at least")
        off = tuple(dict.fromkeys(prototypes))
        bank = self._student().bank
        names = [bank.names[k] for k in off[:3]] if bank is not None else []
        name = ", ".join(names) + (f" and {len(off) - 3} more" if len(off) > 3 else "")
        others = [] if bank is None else [k for k in range(bank.num_prototypes) if bank.enabled[k] and k not in off]
        groups: dict[str, Sequence[int]] = {name: off}
        groups |= {f"others at random, {i + 1}": drawn for i, drawn in enumerate(others_of(others, len(off)))}
        every = self._measure(groups)
        effects, control = some(every, [0]), some(every, range(1, len(every.removed))) if len(groups) > 1 else None
        figure = picture(6.4, 1.8 + 0.26 * len(effects.columns))
        plot_class_effects(effects, beside=control, ax=figure.subplots())
        told = f"{change_in_words(effects)} {control_in_words(control, len(off))}"
        rows = table(class_rows(effects, control), f"Without {name}, in points")
        return self._keep(Measured(off, told, effects, control, png(figure), rows))

    def switch_off_each(self) -> PrototypeEffects:
        """Remove every enabled prototype, one at a time, and put those first that change most.

        Raises:
            ValueError: the student reads no prototypes.
        """
        effects = self._measure(None)
        figure = picture(2.6 + 0.46 * len(effects.columns), 2.0 + 0.24 * min(24, len(effects.removed)))
        plot_prototype_effects(effects, ax=figure.subplots())
        self.list.measured(effects)
        clear, total = int(effects.clear[:, 0].sum()), len(effects.removed)
        told = (
            f"{change_in_words(effects)} Any one, at random: {100 * effects.change[:, 0].mean():+.1f} on average. "
            f"{clear} of {total} intervals leave out zero; about {0.05 * total:.0f} at most would by chance."
        )
        return self._keep(Measured((), told, effects, None, png(figure)))

    def begin(self) -> None:
        """Begin with each alone, where the student reads prototypes and nothing was measured yet."""
        reads = self.student is not None and self.student.feature_augmentation is not None
        if reads and self.effects is None and not self.error:
            self._begin(self.switch_off_each)

    def undo(self) -> None:
        """Show again what was measured before; nothing happens where there is nothing."""
        if self._past:
            self._future.append(self._now)
            self._draw(self._past.pop())

    def redo(self) -> None:
        """Show again what undo took back."""
        if self._future:
            self._past.append(self._now)
            self._draw(self._future.pop())

    @property
    def control(self) -> PrototypeEffects | None:
        """The removals of as many others at random, beside what was switched off last."""
        return self._now.control

    def _student(self) -> Student:
        if self.student is None:
            raise ValueError("no student was trained yet: press Run first")
        return self.student

    def _measure(self, groups: Mapping[str, Sequence[int]] | None) -> PrototypeEffects:
        student = self._student()
        if student.bank is None:
            raise ValueError("this student has no prototypes: train one whose content is 'part_maps'")
        self.status = f"Measuring on {len(self.images)} images."
        return prototype_effects(student, student.bank, self.images, groups=groups, progress=False)

    def _keep(self, made: Measured) -> PrototypeEffects:
        assert made.effects is not None
        self._past, self._future = [*self._past, self._now], []
        self._draw(made)
        return made.effects

    def _draw(self, now: Measured) -> None:
        self._now, self.effects = now, now.effects
        self.picture.value = now.picture or waiting("what changes appears here")
        self.list.ticked, self._table.value, self.status = list(now.off), now.table, now.status
        self.list.steps = {"undo": len(self._past), "redo": len(self._future)}
        self._show()

    def _begin(self, measure: Callable[[], object]) -> None:
        """A click measures in a thread of its own, and what goes wrong is shown."""
        if self.running:
            return

        def work() -> None:
            try:
                measure()
            except Exception as failure:
                self._failure, self.status = failure, "Nothing was measured."
                self.error = f"{type(failure).__name__}: {failure}"
            finally:
                self.running = False

        self.running, self.error, self._failure = True, "", None
        self._thread = threading.Thread(target=work, daemon=True, name="prockd-switches")
        self._thread.start()

    def wait(self, timeout_s: float | int | None = None) -> None:
        """Wait for what a click began."""
        if self._thread.ident:
            self._thread.join(timeout_s)

    def _show(self) -> None:
        self.list.busy = self.running
        self._status_line.value = status_line(self.status)
        self._error_message.value = error_message(self.error, self._failure)

    def __repr__(self) -> str:
        return f"PrototypeSwitches({len(self.list.rows)} prototypes, {len(self.images)} images): {self.status}"


def others_of(others: Sequence[int], count: int) -> list[list[int]]:
    """As many others, drawn at random a number of times, never the same ones twice where one is drawn."""
    rng = np.random.default_rng(0)
    if count > len(others):
        return []
    if count == 1:
        return [[int(k)] for k in rng.permutation(others)[:DRAWS]]
    return [rng.choice(others, count, replace=False).tolist() for _ in range(DRAWS)]


def some(effects: PrototypeEffects, rows: Sequence[int]) -> PrototypeEffects:
    """Some of the removals."""
    keep = list(rows)
    names = tuple(effects.removed[r] for r in keep), tuple(effects.prototypes[r] for r in keep)
    ends = {name: getattr(effects, name)[keep] for name in ("change", "low", "high")}
    return replace(effects, removed=names[0], prototypes=names[1], **ends)


def change_in_words(effects: PrototypeEffects) -> str:
    """The most harmful removal, or that none changes anything."""
    one = effects.order()[0]
    if not (effects.low.any() or effects.high.any()):
        which = effects.removed[0] if len(effects.removed) == 1 else "any one of them"
        return f"Without {which} no class gains or loses anything, on {effects.num_images} images."
    return (
        f"Without {effects.removed[one]}: {100 * effects.change[one, 0]:+.1f} points of {effects.metric} "
        f"({100 * effects.low[one, 0]:+.1f} to {100 * effects.high[one, 0]:+.1f})."
    )


def control_in_words(control: PrototypeEffects | None, count: int) -> str:
    """What the removal of as many others at random changes."""
    if control is None:
        return "There are not as many others to remove at random."
    change = 100 * control.change[:, 0]
    what = "One other" if count == 1 else f"{count} others"
    return (
        f"{what} at random: {change.mean():+.1f} on average, {change.min():+.1f} to {change.max():+.1f} "
        f"in {len(change)} draws."
    )


def class_rows(effects: PrototypeEffects, control: PrototypeEffects | None) -> list[dict[str, object]]:
    """A row a class: the change of one removal, and those of the others at random."""

    def told(*values: float) -> str | None:
        return None if np.isnan(values).any() else "..".join(f"{100 * value:+.1f}" for value in values)

    rows: list[dict[str, object]] = []
    for c, name in enumerate(effects.columns):
        change, low, high = (float(ends[0, c]) for ends in (effects.change, effects.low, effects.high))
        row: dict[str, object] = {"class": name, "change": told(change), "95 % interval": told(low, high)}
        if control is not None:
            row["as many others at random"] = told(control.change[:, c].min(), control.change[:, c].max())
        rows.append(row)
    return rows
