"""What the panel looks like: its widgets, what a click on each does, and what they show."""

import threading
from collections.abc import Callable
from html import escape
from typing import Any

import ipywidgets as widgets
import traitlets

from prockd.runs.world import World
from prockd_widgets.groups import GROUPS, make_knobs
from prockd_widgets.live import EVERY_TERM, curves, terms_of
from prockd_widgets.look import COPY, STYLE, error_message, status_line
from prockd_widgets.runner import TryRunner
from prockd_widgets.settings import PRESETS, Settings, arm_of
from prockd_widgets.switches import PrototypeSwitches
from prockd_widgets.tries import Try
from prockd_widgets.try_table import TryTable

FORMS = ("code", "command", "TOML")
"""In which the settings of a try can be taken along."""


class PanelView(widgets.VBox):  # type: ignore[misc]
    """The panel but for what it does: :class:`DistillationPanel` has the verbs that clicks call."""

    running = traitlets.Bool(False, help="A try is being trained.")
    tries = traitlets.Tuple(help="Every try so far.")
    deleted = traitlets.Tuple(help="Tries that were deleted, in groups; undo brings the last group back.")
    status = traitlets.Unicode("Nothing was trained yet.", help="What is going on, in words.")
    error = traitlets.Unicode("", help="Why the last try failed; empty when it did not.")

    _shown_student: Try | None = None
    apply: Callable[[str], None]
    run: Callable[[], None]
    resume: Callable[[], None]
    load: Callable[..., None]
    compare: Callable[..., Any]
    delete: Callable[..., None]
    config: Callable[[], Settings]
    code: Callable[[int, str], str]
    estimate: Callable[[], str]

    def __init__(self, runner: TryRunner) -> None:
        self.runner, self.knobs, self._timing = runner, make_knobs(), threading.Thread()
        self._build()
        super().__init__(self._rows())
        self.add_class("prockd-panel")

    @property
    def world(self) -> World:
        """Images and features that students are trained and scored on."""
        return self.runner.world

    def _build(self) -> None:
        """The widgets that are not knobs, and what each does."""
        starts = self._starts()
        presets, arms = ([n for n in starts if (n in PRESETS) is kind] for kind in (True, False))
        self.preset = widgets.ToggleButtons(
            options=presets, tooltip="Preset", tooltips=[PRESETS[n] for n in presets],
            style={"button_width": "84px"}, layout=widgets.Layout(width="auto"),
        )  # fmt: skip
        offered = [("rivals and controls …", ""), *((f"{arm_of(n).group}: {n}", n) for n in arms)]
        self.rival = widgets.Dropdown(options=offered, tooltip="A rival or control of prockd compare",
                                      layout=widgets.Layout(width="230px"))  # fmt: skip
        self.run_button = widgets.Button(description="Run", icon="play", button_style="primary",
                                         tooltip="Train one student with these settings")  # fmt: skip
        self.stop_button = widgets.Button(description="Stop", icon="stop", disabled=True,
                                          tooltip="Stop training and keep the result so far")  # fmt: skip
        self.resume_button = widgets.Button(description="Resume", icon="step-forward", disabled=True,
                                            tooltip="Go on with the last try that was stopped")  # fmt: skip
        self.progress = widgets.IntProgress(description="Progress", layout=widgets.Layout(width="300px"),
                                            style={"description_width": "60px"})  # fmt: skip
        self.curves = widgets.Image(format="png", layout=widgets.Layout(max_width="100%"))
        self.term = widgets.Dropdown(options=[EVERY_TERM], description="Curves of", style={"description_width": "72px"},
                                     tooltip="Which term of the loss is drawn, of the ticked tries",
                                     layout=widgets.Layout(width="270px"))  # fmt: skip
        self.switches = PrototypeSwitches(None, self.world.images("val"))
        self.switched = widgets.Dropdown(options=[("no try yet", 0)], description="Student of",
                                         style={"description_width": "80px"},
                                         layout=widgets.Layout(width="300px"))  # fmt: skip
        self.form = widgets.ToggleButtons(options=FORMS, tooltip="Take the settings along as",
                                          style={"button_width": "76px"},
                                          layout=widgets.Layout(width="auto"))  # fmt: skip
        self.code_text = widgets.Textarea(rows=10, description="Code", tooltip="What repeats the try",
                                          layout=widgets.Layout(width="98%", height="250px"),
                                          style={"description_width": "0"})  # fmt: skip
        self.table = TryTable({
            "compare": self._compare, "undo": self.runner.undelete,
            "load": lambda: self._pressed(lambda: self.load(*self.table.ticked)),
            "delete": lambda: self._pressed(lambda: self.delete(*self.table.ticked)),
        })  # fmt: skip
        self._about_preset, self._said, self._failed, self._code_of, self._estimate = (widgets.HTML() for _ in range(5))
        self._listen()

    def _listen(self) -> None:
        for menu in (self.preset, self.rival):
            menu.observe(self._start_chosen, "value")
        self.run_button.on_click(lambda _: self._pressed(self.run))
        self.resume_button.on_click(lambda _: self._pressed(self.resume))
        self.term.observe(lambda _: self._draw(), "value")
        self.table.observe(lambda _: self._draw(), "ticked")
        self.table.observe(lambda _: self._show_code(), "ticked")
        self.stop_button.on_click(lambda _: self.stop())
        self.form.observe(lambda _: self._show_code(), "value")
        for each in self.knobs.values():
            each.number.observe(lambda _: self._show_code(), "value")
        self.observe(lambda _: self._show(), ["running", "tries", "deleted", "status", "error"])

    def _start_chosen(self, change: Any) -> None:
        if change["new"]:
            self.apply(change["new"])

    def _rows(self) -> list[widgets.Widget]:
        left = []
        for heading, parts in GROUPS:
            left.append(widgets.HTML(f"<h4>{heading}</h4>"))
            left += [self.knobs[name] for _, names in parts for name in names]
        wrapped = widgets.Layout(flex_flow="row wrap", align_items="center")
        buttons = [self.run_button, self.stop_button, self.resume_button]
        top = widgets.HBox([self.preset, self.rival, *buttons], layout=wrapped)
        doing = widgets.HBox([self.progress, self._said], layout=wrapped)
        copied = widgets.HTML(f'<button class="prockd-copy" onclick="{COPY}">Copy</button>')
        code = widgets.HBox([self._code_of, self.form, copied], layout=wrapped)
        right = [self.curves, self.term, code, self.code_text]
        columns = widgets.HBox([
            widgets.VBox(left, layout=widgets.Layout(flex="0 0 440px")),
            widgets.VBox(right, layout=widgets.Layout(flex="1 1 340px", min_width="320px")),
        ], layout=widgets.Layout(flex_flow="row wrap"))  # fmt: skip
        train = widgets.VBox([top, self._about_preset, self._estimate, doing, self._failed, self.table, columns])
        causes = widgets.VBox([self.switched, self.switches])
        self.tabs = widgets.Tab([train, causes], titles=["Train", "What does this prototype do?"])
        self.switched.observe(lambda _: self._switch(), "value")
        self.tabs.observe(lambda _: self._switch(), "selected_index")
        return [widgets.HTML(STYLE), self.tabs]

    # What is seen

    def _draw(self) -> None:
        self.progress.value = self.runner.history.step
        self.curves.value = self._curves()

    def _curves(self, size: tuple[float, float] = (5.6, 4.6), dpi: int = 120) -> bytes:
        """A PNG of the ticked tries, or of the one that is going on or was the last."""
        chosen = {f"try {one.number}": one.history for one in self.tries if one.number in self.table.ticked}
        history = self.runner.history
        if not history.rows and self.tries:
            history = self.tries[-1].history
        return curves(chosen or {"this try": history}, self.world.task.metric, self.term.value, size=size, dpi=dpi)

    def _pressed(self, action: Callable[[], object]) -> None:
        """A click must not fail in silence."""
        try:
            action()
        except Exception as failure:
            self.error = f"{type(failure).__name__}: {failure}"

    def _compare(self) -> None:
        """A click compares in a thread of its own: students may have to look at the images again."""

        def work() -> None:
            self._pressed(lambda: self.compare(*self.table.ticked))
            self.table.busy = False

        self.table.busy = True
        threading.Thread(target=work, daemon=True, name="prockd-compare").start()

    def _switch(self, *, now: bool = False) -> None:
        """The second tab, once it is open, shows the student of the chosen try."""
        number = self.switched.value
        if not number or not (now or self.tabs.selected_index == 1):
            return
        try:
            if self._shown_student != (one := self.runner.find(number)):
                self.switches.set_student(one.student)
                self._shown_student = one
        except Exception as failure:
            self._shown_student = None
            self.switches.set_student(None)
            self.switches.error = f"{type(failure).__name__}: {failure}"
        if not now:
            self.switches.begin()

    def _offer(self) -> None:
        """Every try is in every menu."""
        self.table.rows, self.table.deleted = [one.facts() for one in self.tries], len(self.deleted)
        numbers = [(f"try {one.number}", one.number) for one in self.tries]
        self.table.ticked = [n for n in self.table.ticked if n in dict(numbers).values()]
        if self.switched.options == tuple(numbers[::-1]) or not (numbers or self.switched.value):
            return
        chosen = self.term.value
        self.term.options = [EVERY_TERM, *terms_of({name: self.runner.find(n).history for name, n in numbers})]
        self.term.value = chosen if chosen in self.term.options else EVERY_TERM
        self.switched.options = numbers[::-1] or [("no try yet", 0)]
        self.switched.value = self.switched.options[0][1]

    def _show_code(self) -> None:
        number = self.table.ticked[0] if len(self.table.ticked) == 1 else 0
        self._code_of.value = f"Try {number} as" if number else "These settings as"
        self.code_text.value = self.code(number, self.form.value)
        self._show_estimate()

    def _show_estimate(self) -> None:
        """Before Run: how long it will take, once a try or a timed step has told."""
        settings = self.config()
        if self.runner.pace.knows(settings):
            self._estimate.value = f'<span class="prockd-soft">Run will take {escape(self.estimate())}.</span>'
        elif self._timing.ident and not self._timing.is_alive():
            self._time_a_step()

    def _time_a_step(self) -> None:
        def work() -> None:
            self._pressed(self.estimate)
            if not self.error:
                self._show_estimate()

        if not self.running and not self._timing.is_alive():
            self._timing = threading.Thread(target=work, daemon=True, name="prockd-pace")
            self._timing.start()

    def _show(self) -> None:
        """Bring buttons, messages and table in step with the traits."""
        self.run_button.disabled, self.stop_button.disabled = self.running, not self.running
        self._offer()
        self.resume_button.disabled = self.running or not any(one.can_go_on for one in self.tries)
        self._said.value, self._failed.value = status_line(self.status), error_message(self.error, self.runner.failure)
        if not self.running:
            self._show_estimate()
