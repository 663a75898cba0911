"""A knob of :mod:`prockd.settings` on the screen: slider, number field, unit and sentence, all from its metadata."""

import dataclasses
import math
from html import escape
from typing import Any

import ipywidgets as widgets

from prockd_widgets.options import check_options

REACH: dict[str, tuple[float, float, float | None]] = {
    "num_prototypes": (8, 128, 8), "temperature": (0.01, 1, None), "assignment_weight": (0, 40, 1),
    "feature_weight": (0, 300, 5), "soft_weight": (0, 20, 0.5), "soft_steps": (0, 600, 20), "num_maps": (1, 64, 1),
    "augmented_weight": (0, 4, 0.1), "consistency_weight": (0, 4, 0.1), "teacher_branch_weight": (0, 4, 0.1),
    "hint_weight": (0, 10, 0.5),
    "lr": (1e-4, 1e-1, None), "steps": (20, 1500, 20), "unlabelled_batch": (0, 96, 8), "seed": (0, 9, 1),
    "labels_per_class": (1, 30, 1),
}  # fmt: skip
"""What a slider reaches, and its step (None: logarithmic); the number field takes all that the configuration allows."""

_LABEL, _NUMBER, _SLIDER, _MENU = "112px", "196px", "140px", "340px"


class Knob(widgets.VBox):  # type: ignore[misc]
    """One field of a configuration. ``value`` is read and set; moving the slider moves the number.

    Args:
        field: a field made by ``prockd.settings.knobs.knob`` or ``choice``.
        options: what every ipywidget takes, such as ``layout=``.

    Raises:
        TypeError: an option that no widget has.
    """

    def __init__(self, field: dataclasses.Field[object], **options: Any) -> None:
        check_options(type(self), options)
        self.name, self.meta = field.name, field.metadata
        self.slider: Any = None
        sentence, unit = str(self.meta["help"]), str(self.meta.get("unit", ""))
        labelled = {"description": self.name, "style": {"description_width": _LABEL}, "tooltip": sentence}
        if "options" in self.meta:
            wide = widgets.Layout(width=_MENU)
            self.number = widgets.Dropdown(options=self.meta["options"], value=field.default, layout=wide, **labelled)
            parts = [self.number]
        else:
            low, high, step = REACH[self.name]
            low, high = max(low, self.meta["low"]), min(high, self.meta["high"])
            whole = isinstance(field.default, int)
            kind = widgets.BoundedIntText if whole else widgets.BoundedFloatText
            self.number = kind(
                field.default, min=self.meta["low"], max=self.meta["high"], step=1 if whole else step or 0.001,
                layout=widgets.Layout(width=_NUMBER), **labelled,
            )  # fmt: skip
            shared = {"readout": False, "layout": widgets.Layout(width=_SLIDER), "tooltip": f"{self.name}: {sentence}"}
            if step is None:
                self.slider = widgets.FloatLogSlider(min=math.log10(low), max=math.log10(high), step=0.02, **shared)
            elif whole:
                self.slider = widgets.IntSlider(min=int(low), max=int(high), step=int(step), **shared)
            else:
                self.slider = widgets.FloatSlider(min=low, max=high, step=step, **shared)
            self._moved = False
            self._from_number()
            self.slider.observe(self._from_slider, "value")
            self.number.observe(self._from_number, "value")
            parts = [self.number, self.slider, widgets.HTML(f'<span class="prockd-soft">{escape(unit)}</span>')]
        super().__init__(
            [widgets.HBox(parts), widgets.HTML(f'<div class="prockd-about">{escape(sentence)}</div>')], **options
        )

    @property
    def value(self) -> object:
        """The value of the number field or menu."""
        return self.number.value

    @value.setter
    def value(self, value: object) -> None:
        self.number.value = value

    def _from_slider(self, _: object = None) -> None:
        """The slider was moved: the number follows, to two digits where the slider is logarithmic."""
        if self._moved or self.slider is None:
            return
        value, number = self.slider.value, self.number.value
        logarithmic = isinstance(self.slider, widgets.FloatLogSlider)
        steps = math.log10(value / number) if logarithmic and number > 0 else value - number
        if abs(steps) < 0.99 * self.slider.step:  # the page puts a slider on its nearest step: nobody moved it
            return
        self.number.value = float(f"{value:.2g}") if logarithmic else value

    def _from_number(self, _: object = None) -> None:
        """The number was typed: the slider goes as near as it can, and leaves the number as it is."""
        if self.slider is None:
            return
        logarithmic = isinstance(self.slider, widgets.FloatLogSlider)
        ends = [10**e if logarithmic else e for e in (self.slider.min, self.slider.max)]
        self._moved = True
        self.slider.value = min(max(self.number.value, ends[0]), ends[1])
        self._moved = False
