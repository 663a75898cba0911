"""What does this prototype do? Switch prototypes off in a trained student, and see what changes for each class."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as widgets
import traitlets

from prockd.datasets import PackedImages
from prockd.evaluation.effects import PrototypeEffects, prototype_effects
from prockd.plots import plot_class_effects, plot_prototype_effects
from prockd.students.student import Student
from prockd_widgets.look import STYLE, error_message, picture, png, status_line, table, waiting
from prockd_widgets.options import check_options


class PrototypeSwitches(widgets.VBox):  # type: ignore[misc]
    """Prototypes to choose from, and the change of every class when they are switched off.

    Nothing is trained and the student stays as it is. Without a browser: ``switches.switch_off(3, 7)``, or
    ``switches.switch_off_each()`` for every prototype alone.

    Args:
        student: a trained student; None until there is one.
        images: labelled images that it was not trained on.
        options: what every ipywidget takes, such as ``layout=``.

    Raises:
        TypeError: an option that no widget has.
    """

    effects = traitlets.Instance(PrototypeEffects, allow_none=True, help="What was measured last.")
    status = traitlets.Unicode("Choose one prototype or several, and switch them off.", help="What is going on.")
    error = traitlets.Unicode("", help="Why the last measurement failed; empty when it did not.")
    running = traitlets.Bool(False, help="Something is being measured.")

    def __init__(self, student: Student | None, images: PackedImages, **options: Any) -> None:
        check_options(type(self), options)
        self.images = images
        self._failure: Exception | None = None
        self._thread = threading.Thread()
        hint = "Several can be chosen with Shift or Ctrl; they are switched off together."
        self.menu = widgets.SelectMultiple(
            description="Prototypes", rows=12, tooltip=hint, style={"description_width": "80px"},
            layout=widgets.Layout(width="300px"),
        )  # fmt: skip
        self.off_button = widgets.Button(description="Switch off", icon="power-off", button_style="primary",
                                         tooltip="What changes without these prototypes?")  # fmt: skip
        self.each_button = widgets.Button(description="Each alone", icon="th-list",
                                          tooltip="Remove every prototype, one at a time")  # fmt: skip
        self.picture = widgets.Image(value=waiting("what changes appears here"), format="png")
        self._status_line, self._error_message, self._table = (widgets.HTML() for _ in range(3))
        self.off_button.on_click(lambda _: self._begin(lambda: self.switch_off(*self.menu.value)))
        self.each_button.on_click(lambda _: self._begin(self.switch_off_each))
        self.observe(lambda _: self._show(), ["running", "status", "error"])
        below = widgets.HTML(f'<div class="prockd-soft">{hint}</div>', layout=widgets.Layout(width="300px"))
        buttons = widgets.HBox([self.off_button, self.each_button])
        left = widgets.VBox([self.menu, below, buttons], layout=widgets.Layout(flex="0 0 320px"))
        right = widgets.VBox([self.picture], layout=widgets.Layout(flex="1 1 380px", min_width="340px"))
        columns = widgets.HBox([left, right], layout=widgets.Layout(flex_flow="row wrap"))
        super().__init__([widgets.HTML(STYLE), self._status_line, self._error_message, columns, self._table], **options)
        self.add_class("prockd-panel")
        self.set_student(student)

    def set_student(self, student: Student | None) -> None:
        """Show another student's prototypes; what was measured of the one before is forgotten."""
        self.student, self.effects, self._failure, self.error = student, None, None, ""
        bank = None if student is None else student.bank
        self.menu.value = ()
        names = [] if bank is None else [(name, k) for k, name in enumerate(bank.names) if bank.enabled[k]]
        self.menu.options = names
        self.picture.value, self._table.value = waiting("what changes appears here"), ""
        self._show()

    def switch_off(self, *prototypes: int) -> PrototypeEffects:
        """Switch these prototypes off together and measure the change of each class.

        Raises:
            ValueError: none is named, or the student reads no prototypes.
        """
        if not prototypes:
            raise ValueError("choose one prototype at least")
        bank = self._student().bank
        names = [bank.names[k] for k in prototypes[:3]] if bank is not None else []
        name = ", ".join(names) + (f" and {len(prototypes) - 3} more" if len(prototypes) > 3 else "")
        effects = self._measure({name: list(prototypes)})
        figure = picture(5.6, 1.6 + 0.26 * len(effects.columns))
        plot_class_effects(effects, ax=figure.subplots())
        return self._keep(effects, png(figure))

    def switch_off_each(self) -> PrototypeEffects:
        """Remove every enabled prototype, one at a time.

        Raises:
            ValueError: the student reads no prototypes.
        """
        effects = self._measure(None)
        figure = picture(2.6 + 0.46 * len(effects.columns), 2.0 + 0.24 * min(24, len(effects.removed)))
        plot_prototype_effects(effects, ax=figure.subplots())
        return self._keep(effects, png(figure))

    def _student(self) -> Student:
        if self.student is None:
            raise ValueError("no student was trained yet: press Run first")
        return self.student

    def _measure(self, groups: dict[str, Sequence[int]] | None) -> PrototypeEffects:
        student = self._student()
        if student.bank is None:
            raise ValueError("this student has no prototypes: train one whose content is 'part_maps'")
        self.status = f"Measuring on {len(self.images)} images."
        return prototype_effects(student, student.bank, self.images, groups=groups, progress=False)

    def _keep(self, effects: PrototypeEffects, picture: bytes) -> PrototypeEffects:
        self.effects, self.picture.value = effects, picture
        self._table.value = table(effects.rows(), "The most harmful removal first, points of z⁺")
        one = effects.order()[0]
        if not (effects.low.any() or effects.high.any()):
            which = effects.removed[0] if len(effects.removed) == 1 else "any one of them"
            self.status = f"Without {which} no class gains or loses anything, on {effects.num_images} images."
            return effects
        self.status = (
            f"Without {effects.removed[one]}: {100 * effects.change[one, 0]:+.1f} points of {effects.metric} "
            f"({100 * effects.low[one, 0]:+.1f} to {100 * effects.high[one, 0]:+.1f})."
        )
        return effects

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
        self.off_button.disabled = self.each_button.disabled = self.running
        self._status_line.value = status_line(self.status)
        self._error_message.value = error_message(self.error, self._failure)

    def __repr__(self) -> str:
        return f"PrototypeSwitches({len(self.menu.options)} prototypes, {len(self.images)} images): {self.status}"
