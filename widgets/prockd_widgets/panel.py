"""Turn the knobs, press Run, and see what it does to the student: the panel of notebook 06."""

import base64
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import traitlets
from IPython.display import Image

from prockd.evaluation.effects import PrototypeEffects
from prockd.evaluation.tables import format_table
from prockd.prototypes.bank import PrototypeBank
from prockd.runs.world import World
from prockd.settings.knobs import Knobs, knob
from prockd.settings.method import DiscoverConfig, DistillConfig, FeatureAugmentationConfig
from prockd_widgets.knobs import Knob
from prockd_widgets.live import EVERY_TERM, curves, terms_of
from prockd_widgets.look import COPY, STYLE, error_message, status_line, table
from prockd_widgets.runner import TryRunner
from prockd_widgets.settings import BUDGET, PRESETS, Settings, preset_configs
from prockd_widgets.switches import PrototypeSwitches
from prockd_widgets.tries import Try


@dataclass(frozen=True)
class _World(Knobs):
    labels_per_class: int = knob(30, 1, 1_000_000, "Labelled images of each class that the student gets.", "images")


GROUPS: tuple[tuple[str, tuple[tuple[type[Knobs], tuple[str, ...]], ...]], ...] = (
    ("Prototypes", (
        (DiscoverConfig, ("num_prototypes",)), (FeatureAugmentationConfig, ("content", "fit", "num_maps")),
    )),
    ("Weights of the loss", (
        (DistillConfig, ("feature_weight", "soft_weight", "assignment_weight", "augmented_weight", "consistency_weight",
                         "teacher_branch_weight", "hint_weight")),
    )),
    ("Soft targets and assignments", ((DistillConfig, ("soft_reads", "soft_steps", "temperature")),)),
    ("Training", ((_World, ("labels_per_class",)), (DistillConfig, ("lr", "steps", "unlabelled_batch", "seed")))),
)  # fmt: skip
"""The knobs shown, by heading and by the configuration they belong to."""


class DistillationPanel(widgets.VBox):  # type: ignore[misc]
    """Knobs, Run, Stop and Resume, live curves, and a table that keeps every try, scored on the *validation* images.

    A try trains in a thread of its own, so the page and the kernel stay free. Nothing trains until Run is pressed or
    :meth:`run` is called. Without a browser: set ``panel.knobs["lr"].value``, then ``run()`` and ``wait()``. The second
    tab switches prototypes off in a trained student, see :class:`PrototypeSwitches`.

    Args:
        world: what :func:`prockd.runs.open_world` returned, of any task, Farmyard's images or your own.
        bank: prototypes that were found already, so that the first try need not look for them.
        discovered_with: the settings that ``bank`` was found with; None is the default with the bank's K.
        steps: of training, to begin with; presets leave it alone, as they do the seed and the labels.
        folder: where tries are kept, and looked for: they are in the table of the next kernel too. None keeps them
            until the panel is gone.
    """

    running = traitlets.Bool(False, help="A try is being trained.")
    tries = traitlets.Tuple(help="Every try so far.")
    status = traitlets.Unicode("Nothing was trained yet.", help="What is going on, in words.")
    error = traitlets.Unicode("", help="Why the last try failed; empty when it did not.")

    def __init__(
        self,
        world: World,
        bank: PrototypeBank | None = None,
        *,
        discovered_with: DiscoverConfig | None = None,
        steps: int = 300,
        folder: str | Path | None = None,
    ) -> None:
        self.runner = TryRunner(world, bank, discovered_with, folder, self._draw)
        self.knobs = {
            field.name: Knob(field)
            for _, parts in GROUPS
            for kind, names in parts
            for field in dataclasses.fields(kind)  # type: ignore[arg-type]
            if field.name in names
        }
        self._limit_to_world(steps)
        self._build()
        super().__init__(self._rows())
        self.add_class("prockd-panel")
        self.apply("best")
        for name in ("running", "tries", "status", "error"):
            traitlets.link((self.runner, name), (self, name))
        self._show()
        self._draw()

    @property
    def world(self) -> World:
        """Images and features that students are trained and scored on."""
        return self.runner.world

    @property
    def task(self) -> str:
        """The kind of task that its students learn."""
        return self.world.config.task.kind

    def _limit_to_world(self, steps: int) -> None:
        images = self.world.images("train")
        most = -(-len(images) // max(1, len(images.classes)))
        if (images.labels >= 0).all():
            most = int(np.bincount(images.labels).max())
        labels = self.knobs["labels_per_class"]
        for each in (labels.number, labels.slider):
            each.max = most
        labels.value = most
        self.knobs["steps"].value = steps

    def _build(self) -> None:
        """The widgets that are not knobs, and what each does."""
        self.preset = widgets.ToggleButtons(
            options=list(PRESETS), tooltip="Preset", tooltips=list(PRESETS.values()),
            style={"button_width": "84px"}, layout=widgets.Layout(width="auto"),
        )  # fmt: skip
        self.run_button = widgets.Button(description="Run", icon="play", button_style="primary",
                                         tooltip="Train one student with these settings")  # fmt: skip
        self.stop_button = widgets.Button(description="Stop", icon="stop", disabled=True,
                                          tooltip="Stop training and keep the result so far")  # fmt: skip
        self.resume_button = widgets.Button(description="Resume", icon="step-forward", disabled=True,
                                            tooltip="Go on with the last try that was stopped")  # fmt: skip
        self.progress = widgets.IntProgress(description="Progress", layout=widgets.Layout(width="300px"),
                                            style={"description_width": "60px"})  # fmt: skip
        self.curves = widgets.Image(format="png", layout=widgets.Layout(max_width="100%"))
        narrow = {"description_width": "72px"}
        self.overlaid = widgets.SelectMultiple(rows=3, description="Curves of", tooltip="Tries drawn over one another",
                                               style=narrow, layout=widgets.Layout(width="220px"))  # fmt: skip
        self.term = widgets.Dropdown(options=[EVERY_TERM], description="Term", style=narrow,
                                     tooltip="Which term of the loss is drawn",
                                     layout=widgets.Layout(width="250px"))  # fmt: skip
        self.switches = PrototypeSwitches(None, self.world.images("val"))
        self.switched = widgets.Dropdown(options=[("no try yet", 0)], description="Student of",
                                         style={"description_width": "80px"},
                                         layout=widgets.Layout(width="300px"))  # fmt: skip
        self.code_of = widgets.Dropdown(options=[("the settings above", 0)], description="Code of",
                                        style={"description_width": "60px"})  # fmt: skip
        self.code_text = widgets.Textarea(rows=10, description="Code", tooltip="Python that repeats the try",
                                          layout=widgets.Layout(width="98%", height="250px"),
                                          style={"description_width": "60px"})  # fmt: skip
        self._about_preset, self._said, self._failed, self._table = (widgets.HTML() for _ in range(4))
        self.preset.observe(lambda change: self.apply(change["new"]), "value")
        self.run_button.on_click(lambda _: self._pressed(self.run))
        self.resume_button.on_click(lambda _: self._pressed(self.resume))
        for each in (self.overlaid, self.term):
            each.observe(lambda _: self._draw(), "value")
        self.switched.observe(lambda _: self._switch(), "value")
        self.stop_button.on_click(lambda _: self.stop())
        self.code_of.observe(lambda _: self._show_code(), "value")
        for each in self.knobs.values():
            each.number.observe(lambda _: self._show_code(), "value")
        self.observe(lambda _: self._show(), ["running", "tries", "status", "error"])

    def _rows(self) -> list[widgets.Widget]:
        shown = []
        for heading, parts in GROUPS:
            shown.append(widgets.HTML(f"<h4>{heading}</h4>"))
            shown += [self.knobs[name] for _, names in parts for name in names]
        wrapped = widgets.Layout(flex_flow="row wrap", align_items="center")
        buttons = [self.run_button, self.stop_button, self.resume_button]
        top = widgets.HBox([self.preset, *buttons, self._about_preset], layout=wrapped)
        doing = widgets.HBox([self.progress, self._said], layout=wrapped)
        left = widgets.VBox(shown, layout=widgets.Layout(flex="0 0 440px"))
        chosen = widgets.HBox([self.overlaid, self.term], layout=wrapped)
        code = widgets.HBox(
            [self.code_of, widgets.HTML(f'<button class="prockd-copy" onclick="{COPY}">Copy as code</button>')]
        )
        right = widgets.VBox(
            [self.curves, chosen, code, self.code_text], layout=widgets.Layout(flex="1 1 340px", min_width="320px")
        )
        columns = widgets.HBox([left, right], layout=widgets.Layout(flex_flow="row wrap"))
        train = widgets.VBox([top, doing, self._failed, columns, self._table])
        causes = widgets.VBox([self.switched, self.switches])
        self.tabs = widgets.Tab([train, causes], titles=["Train", "What does this prototype do?"])
        return [widgets.HTML(STYLE), self.tabs]

    # What a user does

    def apply(self, preset: str) -> None:
        """Set every knob as a preset has it, but for steps, seed and labels, which are the budget.

        Raises:
            ValueError: there is no such preset.
        """
        for config in preset_configs(preset, self.task):
            for name in set(_shown(type(config))) - BUDGET:
                self.knobs[name].value = getattr(config, name)
        self.preset.value = preset
        self._about_preset.value = f'<span class="prockd-soft">{escape(PRESETS[preset])}</span>'
        self._show_code()

    def config(self) -> Settings:
        """The settings that the knobs show."""
        preset = str(self.preset.value)
        found, augment, training = preset_configs(preset, self.task)
        asked = self._asked(DistillConfig)
        if training.label_free_steps:  # the label-free share of the steps stays
            share = training.label_free_steps / training.steps
            asked["label_free_steps"] = round(share * self.knobs["steps"].number.value)
        return Settings(
            preset,
            found.replace(**self._asked(DiscoverConfig)),
            augment.replace(**self._asked(FeatureAugmentationConfig)),
            training.replace(**asked),
            self.knobs["labels_per_class"].number.value,
            self.task,
        )

    def _asked(self, kind: type[Knobs]) -> dict[str, object]:
        return {name: self.knobs[name].value for name in _shown(kind)}

    def code(self, number: int = 0) -> str:
        """Python that repeats try ``number``, counted from 1; 0 is what the knobs show.

        Raises:
            IndexError: there is no such try.
        """
        return (self.runner.find(number).settings if number else self.config()).code()

    def run(self) -> None:
        """Begin a try with the settings that the knobs show; returns at once.

        Raises:
            RuntimeError: a try is running.
        """
        self._start(self.config(), None)

    def resume(self, number: int | None = None) -> None:
        """Go on with a try that was stopped, from its checkpoint; returns at once. What comes of it is a new row.

        Args:
            number: of the try; None is the last one that was stopped.

        Raises:
            RuntimeError: a try is running.
            ValueError: there is no such stopped try.
        """
        before = self.runner.stopped_try(number)
        self._start(before.settings, before)

    def _start(self, settings: Settings, before: Try | None) -> None:
        self.progress.max = settings.distill.steps
        self.overlaid.value = ()
        self.runner.start(settings, before)

    def stop(self) -> None:
        """Ask the running try to end after its step; what it has learned is scored and kept."""
        self.runner.stop()

    def wait(self, timeout_s: float | int | None = None) -> Try | None:
        """Wait for the running try and return the last one; an interrupt of the kernel stops the try and keeps it.

        Raises:
            TimeoutError: it still runs after ``timeout_s`` seconds.
            Exception: whatever ended the try.
        """
        return self.runner.wait(timeout_s)

    def rows(self) -> list[dict[str, object]]:
        """Every try as a row of a table."""
        return [one.row() for one in self.tries]

    def overlay(self, *numbers: int, term: str = EVERY_TERM) -> None:
        """Draw the curves of some tries over one another; without numbers, those of the last try.

        Raises:
            IndexError: there is no such try.
            ValueError: there is no such term of the loss.
        """
        for number in numbers:
            self.runner.find(number)
        if term not in self.term.options:
            raise ValueError(f"term {term!r}: choose one of {', '.join(self.term.options)}")
        self.term.value, self.overlaid.value = term, numbers

    def effects(self, *prototypes: int, number: int | None = None) -> PrototypeEffects:
        """What changes for each class without these prototypes; without any named, for each prototype alone.

        Args:
            prototypes: to be switched off together.
            number: of the try; None is the last one.

        Raises:
            IndexError: there is no such try.
            ValueError: its student reads no prototypes.
        """
        self.switched.value = self.runner.find(len(self.tries) if number is None else number).number
        return self.switches.switch_off(*prototypes) if prototypes else self.switches.switch_off_each()

    def snapshot(self) -> Image:
        """The curves as an ordinary picture, which stays in a saved notebook."""
        return Image(self._curves((7.2, 4.6), 100), format="png", alt=f"Training curves. {self.status}")  # type: ignore[no-untyped-call]

    # What is seen

    def _draw(self) -> None:
        self.progress.value = self.runner.history.step
        self.curves.value = self._curves()

    def _curves(self, size: tuple[float, float] = (5.6, 4.6), dpi: int = 120) -> bytes:
        """A PNG of the chosen tries, or of the one that is going on or was the last."""
        chosen = {f"try {n}": self.runner.find(n).history for n in self.overlaid.value}
        history = self.runner.history
        if not history.rows and self.tries:
            history = self.tries[-1].history
        return curves(chosen or {"this try": history}, self.world.task.metric, self.term.value, size=size, dpi=dpi)

    def _pressed(self, action: Callable[[], None]) -> None:
        """A click must not fail in silence."""
        try:
            action()
        except Exception as failure:
            self.error = f"{type(failure).__name__}: {failure}"

    def _switch(self) -> None:
        """The second tab shows the student of another try."""
        if not self.switched.value:
            return
        try:
            self.switches.set_student(self.runner.find(self.switched.value).student)
        except Exception as failure:
            self.switches.set_student(None)
            self.switches.error = f"{type(failure).__name__}: {failure}"

    def _offer(self) -> None:
        """Every try is in every menu."""
        numbers = [(f"try {one.number}", one.number) for one in self.tries]
        if len(self.overlaid.options) == len(numbers):
            return
        self.code_of.options = [("the settings above", 0), *numbers]
        self.overlaid.options = numbers
        chosen = self.term.value
        self.term.options = [EVERY_TERM, *terms_of({name: self.runner.find(n).history for name, n in numbers})]
        self.term.value = chosen if chosen in self.term.options else EVERY_TERM
        self.switched.options = numbers[::-1]
        self.switched.value = numbers[-1][1]

    def _show_code(self) -> None:
        self.code_text.value = self.code(self.code_of.value or 0)

    def _show(self) -> None:
        """Bring buttons, messages and table in step with the traits."""
        self.run_button.disabled, self.stop_button.disabled = self.running, not self.running
        self._offer()
        self.resume_button.disabled = self.running or not any(one.stopped for one in self.tries)
        self._said.value, self._failed.value = status_line(self.status), error_message(self.error, self.runner.failure)
        count = len(self.world.images("val"))
        self._table.value = table(self.rows(), f"Every try, scored on {count} validation images")

    def __repr__(self) -> str:
        doing = "running" if self.running else "idle"
        told = f"DistillationPanel({len(self.tries)} tries, {doing}): {self.status}"
        return f"{told}\n{format_table(self.rows())}" if self.tries else told

    def _repr_mimebundle_(self, **kwargs: object) -> dict[str, object]:
        """The live panel, and for pages without a kernel its picture and its words."""
        shown: dict[str, object] = super()._repr_mimebundle_(**kwargs) or {}
        shown["text/plain"] = repr(self)
        shown["image/png"] = base64.b64encode(self.snapshot().data).decode()
        return shown


def _shown(kind: type[Knobs]) -> list[str]:
    """The knobs of one configuration that the panel shows; ``steps``, ``lr`` and ``seed`` are those of training."""
    return [name for _, parts in GROUPS for owner, names in parts if owner is kind for name in names]
