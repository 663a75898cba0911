"""One try after another, trained in a thread of its own and kept in a folder: the panel but for what is seen."""

import copy
import math
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import traitlets

from prockd.prototypes.bank import PrototypeBank
from prockd.prototypes.discovery import discover
from prockd.runs.students import make_student, teach
from prockd.runs.world import World
from prockd.settings.method import DiscoverConfig
from prockd.students.student import Student
from prockd.training.loop import History
from prockd_widgets.live import SCORES, score, watched
from prockd_widgets.settings import Settings
from prockd_widgets.tries import Try, new_try, read_tries

TELL_EVERY_S = 0.5
_SHARE = 10
"""Pictures and scores while training take at most this part of the time, each."""


class TryRunner(traitlets.HasTraits):
    """Trains, stops, resumes and keeps tries.

    Args:
        world: images and features.
        bank: prototypes that were found already.
        discovered_with: the settings that ``bank`` was found with; None is the default with the bank's K.
        folder: where tries are kept, and looked for; None keeps them until the runner is gone.
        draw: called in the thread now and then, to show how far it is.
    """

    running = traitlets.Bool(False, help="A try is being trained.")
    tries = traitlets.Tuple(help="Every try so far.")
    status = traitlets.Unicode("Nothing was trained yet.", help="What is going on, in words.")
    error = traitlets.Unicode("", help="Why the last try failed; empty when it did not.")

    def __init__(
        self,
        world: World,
        bank: PrototypeBank | None,
        discovered_with: DiscoverConfig | None,
        folder: str | Path | None,
        draw: Callable[[], None],
    ) -> None:
        super().__init__()
        self.world, self.history, self.draw = world, History(), draw
        self.failure: Exception | None = None
        self._banks: dict[DiscoverConfig, PrototypeBank] = {}
        if bank is not None:
            usual = DiscoverConfig(num_prototypes=bank.num_prototypes)
            self._banks[discovered_with or usual] = bank
        self._stop, self.thread = threading.Event(), threading.Thread()
        self._watched = watched(world.images("val"))
        self._first = self._told = self._drawn = self._draw_s = self._scored = self._score_s = 0.0
        self.begun_at = 0
        self._temporary = tempfile.TemporaryDirectory(prefix="prockd-panel-") if folder is None else None
        self.folder = Path(self._temporary.name if self._temporary else str(folder))
        self.tries, problems = read_tries(self.folder, world.images("val").fingerprint)
        self.error = "\n".join(problems)
        if self.tries:
            self.status = f"{len(self.tries)} tries were read from {self.folder.name}."

    def find(self, number: int) -> Try:
        """The try of this number.

        Raises:
            IndexError: it is not there.
        """
        for one in self.tries:
            if one.number == number:
                return one  # type: ignore[no-any-return]
        raise IndexError(f"try {number} is not there: {len(self.tries)} were made")

    def start(self, settings: Settings, before: Try | None = None) -> None:
        """Begin a try, or go on with one that was stopped; returns at once.

        Raises:
            RuntimeError: a try is running.
        """
        if self.running:
            raise RuntimeError("a try is running: stop() it or wait() for it")
        self._stop.clear()
        self.failure, self.error = None, ""
        self.history = History(list(before.history.rows), step=before.history.step) if before else History()
        self.begun_at = self.history.step
        self.running = True
        self.thread = threading.Thread(target=self._work, args=(settings, before), daemon=True, name="prockd-try")
        self.thread.start()

    def stopped_try(self, number: int | None) -> Try:
        """A try that can go on; None is the last one.

        Raises:
            ValueError: there is none.
        """
        stopped = [one for one in self.tries if one.stopped and number in (None, one.number)]
        if not stopped:
            asked = "no try was stopped" if number is None else f"try {number} was not stopped, or is not there"
            raise ValueError(f"{asked}: only a stopped try can go on")
        return stopped[-1]  # type: ignore[no-any-return]

    def stop(self) -> None:
        """Ask the running try to end after its step; what it has learned is scored and kept."""
        self._stop.set()
        if self.running:
            self.status = "Stopping: what was learned so far is scored and kept."

    def wait(self, timeout_s: float | int | None = None) -> Try | None:
        """Wait for the running try and return the last one; see :meth:`DistillationPanel.wait`."""
        try:
            self.thread.join(timeout_s) if self.thread.ident else None
        except KeyboardInterrupt:
            self.stop()
            self.thread.join()
        if self.thread.is_alive():
            raise TimeoutError(f"the try still runs after {timeout_s} s")
        if self.failure is not None:
            raise self.failure
        return self.tries[-1] if self.tries else None

    def _work(self, settings: Settings, before: Try | None) -> None:
        began = time.perf_counter() - (before.seconds if before else 0)
        try:
            bank = self.bank(settings.discover)
            if self._stop.is_set():
                self.status = "Stopped before the first step: there is nothing to keep."
                return
            world = self.world.few(settings.labels_per_class)
            number, folder = new_try(self.folder)
            if before is not None:
                shutil.copytree(before.folder, folder, ignore=shutil.ignore_patterns("try.json"), dirs_exist_ok=True)
            student = make_student(
                world, copy.deepcopy(bank), settings.feature_augmentation, seed=settings.distill.seed
            )
            self.status = f"Training on {len(world.images('train'))} labelled images."
            self._first = time.perf_counter()
            history = teach(
                world, student, settings.distill, on="val", run_dir=folder, resume=before is not None, log_every=1,
                callbacks=(lambda step, row: self._stepped(step, row, student, settings.distill.steps),),
            )  # fmt: skip
            assert history.scores is not None
            self.history = history
            seconds, scores = time.perf_counter() - began, history.scores
            made = Try(
                number, settings, scores.plain, scores.augmented, seconds, history, folder,
                self.world.images("val").fingerprint, before.number if before else 0,
            )  # fmt: skip
            made.save(student)
            self.tries = (*self.tries, made)
            plus = "" if scores.augmented is None else f", z⁺ {scores.augmented:.1%}"
            self.status = f"Try {made.number}: z {scores.plain:.1%}{plus} on {len(scores.labels)} validation images."
        except Exception as failure:
            self.failure = failure
            self.error = f"{type(failure).__name__}: {failure}"
            self.status = "The try failed."
        finally:
            self.draw()
            self.running = False

    def bank(self, config: DiscoverConfig) -> PrototypeBank:
        """The prototypes of these settings, found once; those of a search that was stopped are not kept."""
        if config not in self._banks:
            self.status = f"Finding {config.num_prototypes} prototypes; the next try with as many is quicker."
            found = discover(self.world.source, config=config, progress=False, stop=self._stop.is_set)
            if self._stop.is_set():  # half refined: not to be remembered
                return found
            self._banks[config] = found
        return self._banks[config]

    def _stepped(self, step: int, row: dict[str, float], student: Student, steps: int) -> bool:
        """After each step: note it, score and draw now and then, and tell the training loop whether to stop."""
        now = time.perf_counter()
        if now - self._scored > max(TELL_EVERY_S, _SHARE * self._score_s) and not self._stop.is_set():
            row |= score(student, self._watched)
            self._scored = time.perf_counter()
            self._score_s = self._scored - now
        self.history.rows.append(row)
        self.history.step = step + 1
        if now - self._told > TELL_EVERY_S and not self._stop.is_set():
            self._told = now
            left = (now - self._first) / (step + 1 - self.begun_at) * (steps - step - 1)
            so_far = "".join(f", {key} {row[key]:.1%}" for key in SCORES if key in row)
            self.status = f"Step {step + 1} of {steps}, {math.ceil(left)} s left{so_far}."
        if now - self._drawn > max(TELL_EVERY_S, _SHARE * self._draw_s):
            began = time.perf_counter()
            self.draw()
            self._drawn = time.perf_counter()
            self._draw_s = self._drawn - began
        return self._stop.is_set()
