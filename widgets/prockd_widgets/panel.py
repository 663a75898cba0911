"""Turn the knobs, press Run, and see what it does to the student: the panel of notebook 06."""

import base64
import copy
import dataclasses
import io
import math
import threading
import time
import traceback
from dataclasses import dataclass
from html import escape

import ipywidgets as widgets
import numpy as np
import traitlets
from IPython.display import Image
from matplotlib.figure import Figure

from prockd.config import AugmentConfig, DiscoverConfig, DistillConfig, Knobs, best, knob
from prockd.distill import History, distill
from prockd.pipeline import STUDENT, STUDENT_KWARGS, World
from prockd.plots import plot_curves
from prockd.prototypes import PrototypeBank, discover
from prockd.report import format_table
from prockd.student import Student
from prockd_widgets.knobs import Knob
from prockd_widgets.settings import BUDGET, PRESETS, Settings, Try


@dataclass(frozen=True)
class _World(Knobs):
    labels_per_class: int = knob(30, 1, 1_000_000, "Labelled images of each class that the student gets.", "images")


GROUPS: tuple[tuple[str, tuple[tuple[type[Knobs], tuple[str, ...]], ...]], ...] = (
    ("Prototypes", ((DiscoverConfig, ("num_prototypes",)), (AugmentConfig, ("content",)))),
    ("Weights of the loss", (
        (DistillConfig, ("assignment", "feature", "augmented", "consistency", "teacher_branch", "hint", "temperature")),
    )),
    ("Training", ((_World, ("labels_per_class",)), (DistillConfig, ("lr", "steps", "unlabelled_batch", "seed")))),
)  # fmt: skip
"""The knobs shown, by heading and by the configuration they belong to."""

_TELL_EVERY_S = 0.5
_STYLE = """<style>
.prockd-panel { max-width: 1080px }
.prockd-panel .prockd-soft, .prockd-panel .prockd-about { color: var(--jp-ui-font-color2, #616161) }
.prockd-panel .prockd-about { font-size: 11px; line-height: 14px; margin: -2px 0 4px 118px; max-width: 310px }
.prockd-panel h4 { margin: 8px 0 2px; color: var(--jp-ui-font-color1, #212121) }
.prockd-panel .prockd-table { overflow-x: auto }
.prockd-panel table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 12px }
.prockd-panel caption { text-align: left; font-weight: 600; padding: 4px 0 }
.prockd-panel th, .prockd-panel td { padding: 3px 10px; text-align: left; color: var(--jp-ui-font-color1, #212121);
  border-bottom: 1px solid var(--jp-border-color2, #e0e0e0); line-height: 16px }
.prockd-panel .prockd-error { border-left: 4px solid #D55E00; padding: 4px 10px; white-space: pre-wrap;
  color: var(--jp-ui-font-color1, #212121); line-height: 18px; max-width: 900px }
.prockd-panel pre { font-size: 11px; line-height: 14px; overflow-x: auto; color: inherit }
.prockd-panel img { background: #fff; border-radius: 4px; max-width: 100%; height: auto }
.prockd-panel textarea { font-family: var(--jp-code-font-family, monospace); font-size: 12px }
</style>"""


class DistillationPanel(widgets.VBox):  # type: ignore[misc]
    """Knobs, Run and Stop, live curves, and a table that keeps every try, scored on the *validation* images.

    A try trains in a thread of its own, so the page and the kernel stay free. Nothing trains until Run is pressed or
    :meth:`run` is called. Without a browser: set ``panel.knobs["lr"].value``, then ``run()`` and ``wait()``.

    Args:
        world: what :func:`prockd.pipeline.farmyard_world` returned.
        bank: prototypes that were found already, so that the first try need not look for them.
        discovered_with: the settings that ``bank`` was found with; None is the default with the bank's K.
        steps: of training, to begin with; presets leave it alone, as they do the seed and the labels.
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
    ) -> None:
        self.world = world
        self.history = History()
        self._banks: dict[DiscoverConfig, PrototypeBank] = {}
        if bank is not None:
            known = discovered_with or best()[0].replace(num_prototypes=bank.num_prototypes)
            self._banks[known] = bank
        self._stop, self._thread = threading.Event(), threading.Thread()
        self._failure: Exception | None = None
        self._first = self._told = self._drawn = self._draw_s = 0.0
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
        self._draw()

    def _limit_to_world(self, steps: int) -> None:
        counts = np.bincount(np.asarray(self.world.labelled.images.labels))
        most = int(counts.min())
        labels = self.knobs["labels_per_class"]
        for each in (labels.number, labels.slider):
            each.max = most
        labels.value = most
        self.knobs["steps"].value = steps

    def _build(self) -> None:
        """The widgets that are not knobs, and what each does."""
        self.preset = widgets.ToggleButtons(
            options=list(PRESETS), tooltip="Preset", tooltips=[about for _, about in PRESETS.values()],
            style={"button_width": "84px"}, layout=widgets.Layout(width="auto"),
        )  # fmt: skip
        self.run_button = widgets.Button(description="Run", icon="play", button_style="primary",
                                         tooltip="Train one student with these settings")  # fmt: skip
        self.stop_button = widgets.Button(description="Stop", icon="stop", disabled=True,
                                          tooltip="Stop training and keep the result so far")  # fmt: skip
        self.progress = widgets.IntProgress(description="Progress", layout=widgets.Layout(width="300px"),
                                            style={"description_width": "60px"})  # fmt: skip
        self.curves = widgets.Image(format="png", layout=widgets.Layout(max_width="100%"))
        self.code_of = widgets.Dropdown(options=[("the settings above", 0)], description="Code of",
                                        style={"description_width": "60px"})  # fmt: skip
        self.code_text = widgets.Textarea(rows=10, description="Code", tooltip="Python that repeats the try",
                                          layout=widgets.Layout(width="98%", height="250px"),
                                          style={"description_width": "60px"})  # fmt: skip
        self._about_preset, self._said, self._failed, self._table = (widgets.HTML() for _ in range(4))
        self.preset.observe(lambda change: self.apply(change["new"]), "value")
        self.run_button.on_click(lambda _: self._pressed_run())
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
        top = widgets.HBox([self.preset, self.run_button, self.stop_button, self._about_preset], layout=wrapped)
        doing = widgets.HBox([self.progress, self._said], layout=wrapped)
        left = widgets.VBox(shown, layout=widgets.Layout(flex="0 0 440px"))
        right = widgets.VBox(
            [self.curves, self.code_of, self.code_text], layout=widgets.Layout(flex="1 1 340px", min_width="320px")
        )
        columns = widgets.HBox([left, right], layout=widgets.Layout(flex_flow="row wrap"))
        return [widgets.HTML(_STYLE), top, doing, self._failed, columns, self._table]

    # What a user does

    def apply(self, preset: str) -> None:
        """Set every knob as a preset has it, but for steps, seed and labels, which are the budget.

        Raises:
            ValueError: there is no such preset.
        """
        if preset not in PRESETS:
            raise ValueError(f"preset {preset!r}: choose one of {', '.join(PRESETS)}")
        make, about = PRESETS[preset]
        for config in make():
            for name in set(_shown(type(config))) - BUDGET:
                self.knobs[name].value = getattr(config, name)
        self.preset.value = preset
        self._about_preset.value = f'<span class="prockd-soft">{escape(about)}</span>'
        self._show_code()

    def config(self) -> Settings:
        """The settings that the knobs show."""
        preset = str(self.preset.value)
        found, augment, training = PRESETS[preset][0]()
        asked = self._asked(DistillConfig)
        if training.label_free_steps:  # the label-free share of the steps stays
            share = training.label_free_steps / training.steps
            asked["label_free_steps"] = round(share * self.knobs["steps"].number.value)
        return Settings(
            preset,
            found.replace(**self._asked(DiscoverConfig)),
            augment.replace(**self._asked(AugmentConfig)),
            training.replace(**asked),
            self.knobs["labels_per_class"].number.value,
        )

    def _asked(self, kind: type[Knobs]) -> dict[str, object]:
        return {name: self.knobs[name].value for name in _shown(kind)}

    def code(self, number: int = 0) -> str:
        """Python that repeats try ``number``, counted from 1; 0 is what the knobs show.

        Raises:
            IndexError: there is no such try.
        """
        if not 0 <= number <= len(self.tries):
            raise IndexError(f"try {number} is not there: {len(self.tries)} were made")
        return (self.tries[number - 1].settings if number else self.config()).code()

    def run(self) -> None:
        """Begin a try with the settings that the knobs show; returns at once.

        Raises:
            RuntimeError: a try is running.
        """
        if self.running:
            raise RuntimeError("a try is running: stop() it or wait() for it")
        settings = self.config()
        self._stop.clear()
        self._failure, self.error, self.history = None, "", History()
        self.progress.value, self.progress.max = 0, settings.distill.steps
        self.running = True
        self._thread = threading.Thread(target=self._work, args=(settings,), daemon=True, name="prockd-try")
        self._thread.start()

    def stop(self) -> None:
        """Ask the running try to end after its step; what it has learned is scored and kept."""
        self._stop.set()
        if self.running:
            self.status = "Stopping: scoring what it has learned so far."

    def wait(self, timeout_s: float | int | None = None) -> Try | None:
        """Wait for the running try and return the last one; an interrupt of the kernel stops the try and keeps it.

        Raises:
            TimeoutError: it still runs after ``timeout_s`` seconds.
            Exception: whatever ended the try.
        """
        try:
            self._thread.join(timeout_s) if self._thread.ident else None
        except KeyboardInterrupt:
            self.stop()
            self._thread.join()
        if self._thread.is_alive():
            raise TimeoutError(f"the try still runs after {timeout_s} s")
        if self._failure is not None:
            raise self._failure
        return self.tries[-1] if self.tries else None

    def rows(self) -> list[dict[str, object]]:
        """Every try as a row of a table."""
        return [one.row() for one in self.tries]

    def snapshot(self) -> Image:
        """The curves of the last try as an ordinary picture, which stays in a saved notebook."""
        return Image(self._curves((7.2, 3.8), 100), format="png", alt=f"Training curves. {self.status}")  # type: ignore[no-untyped-call]

    # What happens in the thread

    def _work(self, settings: Settings) -> None:
        began = time.perf_counter()
        try:
            bank = self._bank(settings.discover)
            if self._stop.is_set():
                self.status = "Stopped before the first step: there is nothing to keep."
                return
            world = self.world.few(settings.labels_per_class)
            augment, config = settings.augment, settings.distill
            student = Student(
                STUDENT, world.task, copy.deepcopy(bank), augment=augment, seed=config.seed,
                image_px=world.labelled.images.image_px, **STUDENT_KWARGS,
            )  # fmt: skip
            self.status = f"Training on {len(world.labelled)} labelled images."
            self._first = time.perf_counter()
            history = distill(
                student, world.labelled.images, teacher=world.labelled, config=config, val=world.val.images,
                unlabelled=world.unlabelled if config.unlabelled_batch else None,
                callbacks=(self._stepped,), log_every=1, progress=False,
            )  # fmt: skip
            assert history.scores is not None
            self.history = history
            seconds, scores = time.perf_counter() - began, history.scores
            made = Try(len(self.tries) + 1, settings, scores.plain, scores.augmented, seconds, history, student)
            self.tries = (*self.tries, made)
            plus = "" if scores.augmented is None else f", z⁺ {scores.augmented:.1%}"
            self.status = f"Try {made.number}: z {scores.plain:.1%}{plus} on {len(scores.labels)} validation images."
        except Exception as failure:
            self._failure = failure
            self.error = f"{type(failure).__name__}: {failure}"
            self.status = "The try failed."
        finally:
            self._draw()
            self.running = False

    def _bank(self, config: DiscoverConfig) -> PrototypeBank:
        if config not in self._banks:
            self.status = f"Finding {config.num_prototypes} prototypes; the next try with as many is quicker."
            self._banks[config] = discover(self.world.source, config=config, progress=False)
        return self._banks[config]

    def _stepped(self, step: int, row: dict[str, float]) -> bool:
        """After each step: note it, draw now and then, and tell the training loop whether to stop."""
        self.history.rows.append(row)
        self.history.step = step + 1
        now = time.perf_counter()
        if now - self._told > _TELL_EVERY_S:
            self._told = now
            self.progress.value = step + 1
            left = (now - self._first) / (step + 1) * (self.progress.max - step - 1)
            if not self._stop.is_set():
                self.status = f"Step {step + 1} of {self.progress.max}, {math.ceil(left)} s left."
        if now - self._drawn > max(_TELL_EVERY_S, 10 * self._draw_s):  # a tenth of the time goes to pictures at most
            self._draw()
        return self._stop.is_set()

    # What is seen

    def _draw(self) -> None:
        began = time.perf_counter()
        self.progress.value = self.history.step
        self.curves.value = self._curves((5.4, 3.9), 92)
        self._drawn = time.perf_counter()
        self._draw_s = self._drawn - began

    def _curves(self, size: tuple[float, float], dpi: int) -> bytes:
        """A PNG of every term of the loss, without touching pyplot."""
        figure = Figure(figsize=size, dpi=dpi, layout="constrained")
        ax = figure.subplots()
        terms = [key for key in (self.history.rows or [{}])[0] if key not in ("step", "lr", "seconds", "loss")]
        if terms:
            plot_curves({"this try": self.history}, terms, ax=ax)
        else:
            ax.text(0.5, 0.5, "curves appear here", ha="center", va="center", color="#666666")
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        file = io.BytesIO()
        figure.savefig(file, format="png")
        return file.getvalue()

    def _pressed_run(self) -> None:
        """A click must not fail in silence."""
        try:
            self.run()
        except Exception as failure:
            self.error = f"{type(failure).__name__}: {failure}"

    def _show_code(self) -> None:
        self.code_text.value = self.code(self.code_of.value or 0)

    def _show(self) -> None:
        """Bring buttons, messages and table in step with the traits."""
        self.run_button.disabled, self.stop_button.disabled = self.running, not self.running
        self._said.value = f'<div role="status" aria-live="polite">{escape(self.status)}</div>'
        trace = "".join(traceback.format_exception(self._failure)) if self._failure else ""
        more = f"<details><summary>where</summary><pre>{escape(trace)}</pre></details>" if trace else ""
        told = f'<div role="alert" class="prockd-error">{escape(self.error)}{more}</div>'
        self._failed.value = told if self.error else ""
        if len(self.code_of.options) != len(self.tries) + 1:
            self.code_of.options = [("the settings above", 0), *((f"try {t.number}", t.number) for t in self.tries)]
        self._table.value = self._table_html()

    def _table_html(self) -> str:
        rows = self.rows()
        if not rows:
            return ""
        head = "".join(f'<th scope="col">{escape(key)}</th>' for key in rows[0])
        cells = ("".join(f"<td>{'–' if v is None else escape(str(v))}</td>" for v in row.values()) for row in rows)
        body = "".join(f"<tr>{row}</tr>" for row in cells)
        caption = f"Every try, scored on {len(self.world.val)} validation images"
        return f'<div class="prockd-table"><table><caption>{caption}</caption><tr>{head}</tr>{body}</table></div>'

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
