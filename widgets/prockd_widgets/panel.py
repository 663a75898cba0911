"""Turn the knobs, press Run, and see what it does to the student: the panel of notebook 06."""

import base64
from html import escape
from pathlib import Path

import numpy as np
import traitlets
from IPython.display import Image

from prockd.evaluation.effects import PrototypeEffects
from prockd.evaluation.tables import format_table
from prockd.prototypes.bank import PrototypeBank
from prockd.runs.world import World
from prockd.settings.experiment import ExperimentConfig
from prockd.settings.knobs import Knobs
from prockd.settings.method import DiscoverConfig, DistillConfig, FeatureAugmentationConfig
from prockd_widgets.comparison import Difference, differences_of
from prockd_widgets.groups import shown
from prockd_widgets.live import EVERY_TERM
from prockd_widgets.panel_view import FORMS, PanelView
from prockd_widgets.runner import TryRunner
from prockd_widgets.settings import BUDGET, PRESETS, STARTS, Settings, arm_of, method_of, start_config
from prockd_widgets.tries import Try


class DistillationPanel(PanelView):
    """Knobs, Run, Stop and Resume, live curves, and a table that keeps every try, scored on the *validation* images.

    A try trains in a thread of its own, so the page and the kernel stay free. Nothing trains until Run is pressed or
    :meth:`run` is called. Knobs start from a preset, or from a rival or control of ``prockd compare``: see
    :meth:`apply`. Without a browser: set ``panel.knobs["lr"].value``, then ``run()`` and ``wait()``. The second tab
    switches prototypes off in a trained student, see :class:`PrototypeSwitches`.

    Args:
        world: what :func:`prockd.runs.open_world` returned, of any task, Farmyard's images or your own.
        bank: prototypes that were found already, so that the first try need not look for them.
        discovered_with: the settings that ``bank`` was found with; None is the default with the bank's K.
        steps: of training, to begin with; presets leave it alone, as they do the seed and the labels.
        folder: where tries are kept, and looked for: they are in the table of the next kernel too. None keeps them
            until the panel is gone.
    """

    def __init__(
        self,
        world: World,
        bank: PrototypeBank | None = None,
        *,
        discovered_with: DiscoverConfig | None = None,
        steps: int = 300,
        folder: str | Path | None = None,
    ) -> None:
        self.start = "best" if world.is_taught else "plain"
        super().__init__(TryRunner(world, bank, discovered_with, folder, self._draw))
        self._limit_to_world(steps)
        self.apply(self.start)
        for name in ("running", "tries", "deleted", "status", "error"):
            traitlets.link((self.runner, name), (self, name))
        self._show()
        self._draw()

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

    def _starts(self) -> list[str]:
        """Where knobs may start in this world: without a teacher only from labels alone."""
        arms = {name: arm_of(name) for name in STARTS}
        return [n for n, arm in arms.items() if self.world.is_taught or (arm.teacher == "none" and not arm.is_teacher)]

    # What a user does

    def apply(self, start: str) -> None:
        """Set every knob as a preset has it, or a rival or control of ``prockd compare``.

        Steps, seed and labels stay: they are the budget.

        Raises:
            ValueError: there is no such start, or it learns from a teacher and this world has none.
        """
        start_config(start)
        if start not in self._starts():
            raise ValueError(f"{start!r} learns from a teacher, and this world has none: {', '.join(self._starts())}")
        self.start = start
        for config in method_of(self._usual()):
            for name in set(shown(type(config))) - BUDGET:
                self.knobs[name].value = getattr(config, name)
        self.preset.value, self.rival.value = (start, "") if start in PRESETS else (None, start)
        self._about_preset.value = f'<span class="prockd-soft">{escape(STARTS[start])}</span>'
        self._show_code()

    def _usual(self) -> ExperimentConfig:
        return start_config(self.start, self.task, unlabelled="unlabelled" in self.world.sets)

    def config(self) -> Settings:
        """The settings that the knobs show."""
        found, augment, training = method_of(self._usual())
        asked = self._asked(DistillConfig)
        steps = self.knobs["steps"].number.value
        asked["steps"] = max(1, round(steps * arm_of(self.start).longer))
        if training.label_free_steps:  # the label-free share of the steps stays
            asked["label_free_steps"] = round(training.label_free_steps / training.steps * steps)
        return Settings(
            self.start,
            found.replace(**self._asked(DiscoverConfig)),
            augment.replace(**self._asked(FeatureAugmentationConfig)),
            training.replace(**asked),
            self.knobs["labels_per_class"].number.value,
            self.task,
        )

    def _asked(self, kind: type[Knobs]) -> dict[str, object]:
        return {name: self.knobs[name].value for name in shown(kind)}

    def load(self, number: int) -> None:
        """Set every knob as in a try.

        Raises:
            IndexError: there is no such try.
        """
        settings = self.runner.find(number).settings
        self.apply(settings.preset)
        for config in settings.configs:
            for name in shown(type(config)):
                self.knobs[name].value = getattr(config, name)
        self.knobs["steps"].value = max(1, round(settings.distill.steps / arm_of(settings.preset).longer))
        self.knobs["labels_per_class"].value = settings.labels_per_class

    def code(self, number: int = 0, form: str = "code") -> str:
        """What repeats try ``number``, counted from 1; 0 is what the knobs show.

        Args:
            number: of the try.
            form: "code" is Python, "command" a command line, "TOML" a file of settings.

        Raises:
            IndexError: there is no such try.
            ValueError: there is no such form.
        """
        settings = self.runner.find(number).settings if number else self.config()
        if form not in FORMS:
            raise ValueError(f"form={form!r}: choose one of {', '.join(FORMS)}")
        if form == "code":
            return settings.code()
        return settings.command(self.world.config) if form == "command" else settings.toml(self.world.config)

    def estimate(self) -> str:
        """How long a try with these settings will take, in words; a step is timed where no try has told yet."""
        return self.runner.estimate(self.config())

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
        self.table.ticked = []
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
        """Tick some tries, so that their curves are drawn over one another; without numbers, those of the last try.

        Raises:
            IndexError: there is no such try.
            ValueError: there is no such term of the loss.
        """
        for number in numbers:
            self.runner.find(number)
        if term not in self.term.options:
            raise ValueError(f"term {term!r}: choose one of {', '.join(self.term.options)}")
        self.term.value, self.table.ticked = term, list(numbers)

    def compare(self, first: int, second: int) -> list[Difference]:
        """How far a try is above another on the same validation images, with 95 % intervals: of z, and of z⁺.

        Raises:
            IndexError: there is no such try.
            WeightsError: the file of a student is gone or damaged.
        """
        pair, images = [self.runner.find(number) for number in (first, second)], self.world.images("val")
        found = differences_of(pair[0], pair[1], self.world.task, images)
        names = [f"try {one.number}" for one in pair]
        note = (
            f"Points of {self.world.task.metric}, {names[1]} less {names[0]}, paired over {len(images)} validation "
            "images. Another seed may differ by as much: run both with several before you call one better."
        )
        self.table.comparison = {"rows": [one.row(names) for one in found], "note": note}
        return found

    def delete(self, *numbers: int) -> None:
        """Take tries out of the table; :meth:`undelete` brings them back.

        Raises:
            IndexError: there is no such try.
        """
        self.runner.delete(*numbers)

    def undelete(self) -> None:
        """Bring back what was deleted last; nothing happens where there is nothing."""
        self.runner.undelete()

    def effects(self, *prototypes: int, number: int | None = None) -> PrototypeEffects:
        """What changes for each class without these prototypes; without any named, for each prototype alone.

        Args:
            prototypes: to be switched off together.
            number: of the try; None is the last one.

        Raises:
            IndexError: there is no such try.
            ValueError: its student reads no prototypes.
        """
        one = self.runner.find(number or max((one.number for one in self.tries), default=0))
        self.switched.value = one.number
        self._switch(now=True)
        return self.switches.switch_off(*prototypes) if prototypes else self.switches.switch_off_each()

    def snapshot(self) -> Image:
        """The curves as an ordinary picture, which stays in a saved notebook."""
        return Image(self._curves((7.2, 4.6), 100), format="png", alt=f"Training curves. {self.status}")  # type: ignore[no-untyped-call]

    def __repr__(self) -> str:
        doing = "running" if self.running else "idle"
        told = f"DistillationPanel({len(self.tries)} tries, {doing}): {self.status}"
        return f"{told}\n{format_table(self.rows())}" if self.tries else told

    def _repr_mimebundle_(self, **kwargs: object) -> dict[str, object]:
        """The live panel, and for pages without a kernel its picture and its words."""
        shown: dict[str, object] = super()._repr_mimebundle_(**kwargs) or {}
        shown["text/plain"] = repr(self)
        shown["image/png"] = base64.b64encode(self.snapshot().data).decode()
        if not self.runner.pace.knows(self.config()):
            self._time_a_step()
        return shown
