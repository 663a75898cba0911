"""One try after another, trained in a thread of its own and kept in a folder: the panel but for what is seen."""

import copy
import math
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import traitlets

from prockd.prototypes.bank import PrototypeBank
from prockd.runs.arm_students import arm_world, find_bank, train_arm
from prockd.runs.arms import ARMS, OURS, Arm
from prockd.runs.world import World
from prockd.settings.method import DiscoverConfig
from prockd.students.student import Student
from prockd.training.loop import History
from prockd_widgets.live import SCORES, score, watched
from prockd_widgets.pace import Pace, in_words
from prockd_widgets.settings import Settings
from prockd_widgets.tries import DELETED, KEPT, Try, moved, new_try, read_tries

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
    deleted = traitlets.Tuple(help="Tries that were deleted, in groups; undo brings the last group back.")
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
        self._banks: dict[tuple[DiscoverConfig, str, str], PrototypeBank] = {}
        self._worlds: dict[str, World] = {}
        self.pace = Pace()
        if bank is not None:
            usual = DiscoverConfig(num_prototypes=bank.num_prototypes)
            self._banks[_key(discovered_with or usual, ARMS[OURS])] = bank
        self._stop, self.thread = threading.Event(), threading.Thread()
        self._watched = watched(world.images("val"))
        self._first = self._told = self._drawn = self._draw_s = self._scored = self._score_s = 0.0
        self.begun_at = 0
        self._temporary = tempfile.TemporaryDirectory(prefix="prockd-panel-") if folder is None else None
        self.folder = Path(self._temporary.name if self._temporary else str(folder))
        self.tries, problems = read_tries(self.folder, world.images("val").fingerprint)
        self.error = "\n".join(problems)
        self.deleted = tuple((one,) for one in read_tries(self.folder, world.images("val").fingerprint, DELETED)[0])
        for one in self.tries:
            training = one.history.seconds_per_step * one.history.step
            self.pace.learn(one.settings, one.history, one.seconds - training, f"as in try {one.number}")
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
        stopped = [one for one in self.tries if one.can_go_on and number in (None, one.number)]
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

    def delete(self, *numbers: int) -> None:
        """Take tries out of the table; their folders keep another name, so that :meth:`undelete` brings them back.

        Raises:
            IndexError: there is no such try.
        """
        gone = [self.find(number) for number in dict.fromkeys(numbers)]
        self.tries = tuple(one for one in self.tries if one not in gone)
        if gone:
            self.deleted = (*self.deleted, tuple(moved(one, DELETED) for one in gone))

    def undelete(self) -> None:
        """Bring back what was deleted last; nothing happens where there is nothing."""
        if self.deleted:
            back, self.deleted = self.deleted[-1], self.deleted[:-1]
            tries = (*self.tries, *(moved(one, KEPT) for one in back))
            self.tries = tuple(sorted(tries, key=lambda one: one.number))

    def _work(self, settings: Settings, before: Try | None) -> None:
        began = time.perf_counter() - (before.seconds if before else 0)
        try:
            arm, own = settings.arm, self.world_of(settings.arm)
            bank = self.bank(settings.discover, arm) if own.is_taught else None
            search = time.perf_counter()
            if self._stop.is_set():
                self.status = "Stopped before the first step: there is nothing to keep."
                return
            world = own.few(settings.labels_per_class)
            number, folder = new_try(self.folder)
            if before is not None:
                shutil.copytree(before.folder, folder, ignore=shutil.ignore_patterns("try.json"), dirs_exist_ok=True)
            self.status = f"Training on {len(world.images('train'))} labelled images."
            self._first, self._labelled = time.perf_counter(), world.images("train")
            kept = {} if arm.pseudo else {"run_dir": folder, "resume": before is not None}
            student, history = train_arm(
                world, arm, settings.experiment(world.config), copy.deepcopy(bank), on="val", log_every=1, **kept,
                watch=lambda student: lambda step, row: self._stepped(step, row, student, settings.distill.steps),
            )  # fmt: skip
            scores, now = history.scores, time.perf_counter()
            assert scores is not None
            if arm.pseudo:  # the second of two students told the last half alone
                history = replace(self.history, scores=scores, stopped=history.stopped)
            self.history = history
            made = Try(
                number, settings, scores.plain, scores.augmented, now - began, history, folder,
                self.world.images("val").fingerprint, before.number if before else 0,
            )  # fmt: skip
            made.save(student)
            self.tries = (*self.tries, made)
            if before is None:
                training = history.seconds_per_step * history.step
                self.pace.learn(settings, history, now - search - training, f"as in try {number}")
            plus = "" if scores.augmented is None else f", z⁺ {scores.augmented:.1%}"
            self.status = f"Try {made.number}: z {scores.plain:.1%}{plus} on {len(scores.labels)} validation images."
        except Exception as failure:
            self.failure = failure
            self.error = f"{type(failure).__name__}: {failure}"
            self.status = "The try failed."
        finally:
            self.draw()
            self.running = False

    def world_of(self, arm: Arm) -> World:
        """The world that an arm learns in: opened once."""
        if arm.teacher != "random":
            return self.world
        if arm.teacher not in self._worlds:
            self._worlds[arm.teacher] = arm_world(self.world, arm)
        return self._worlds[arm.teacher]

    def has_bank(self, settings: Settings) -> bool:
        """Whether its prototypes were found already."""
        return _key(settings.discover, settings.arm) in self._banks or not self.world.is_taught

    def bank(self, config: DiscoverConfig, arm: Arm = ARMS[OURS]) -> PrototypeBank:
        """The prototypes of these settings, found once; those of a search that was stopped are not kept."""
        key = _key(config, arm)
        if key not in self._banks:
            self.status = f"Finding {config.num_prototypes} prototypes; the next try with as many is quicker."
            began = time.perf_counter()
            found = find_bank(self.world_of(arm), arm.bank, config, stop=self._stop.is_set)
            if self._stop.is_set():  # half refined: not to be remembered
                return found
            self._banks[key], self.pace.search = found, time.perf_counter() - began
        return self._banks[key]

    def estimate(self, settings: Settings) -> str:
        """How long a try with these settings will take, in words; the first time it is asked, a step is timed."""
        found = self.has_bank(settings)
        bank = self._banks.get(_key(settings.discover, settings.arm))
        self.pace.try_out(self.world, settings, bank)
        seconds = self.pace.seconds(settings, found=found)
        assert seconds is not None
        images = settings.distill.batch_size + settings.distill.unlabelled_batch
        more = "" if found else f"; {settings.discover.num_prototypes} prototypes are looked for first" + (
            f" ({in_words(self.pace.search)} the last time)" if self.pace.search else ""
        )  # fmt: skip
        return f"{in_words(seconds)} for {settings.distill.steps} steps of {images} images, {self.pace.source}{more}"

    def _stepped(self, step: int, row: dict[str, float], student: Student, steps: int) -> bool:
        """After each step: note it, score and draw now and then, and tell the training loop whether to stop."""
        now, step = time.perf_counter(), self.history.step  # counted on where a second student begins
        row["step"] = float(step)
        if now - self._scored > max(TELL_EVERY_S, _SHARE * self._score_s) and not self._stop.is_set():
            row |= score(student, self._watched, self._labelled)
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


def _key(config: DiscoverConfig, arm: Arm) -> tuple[DiscoverConfig, str, str]:
    """What prototypes depend on."""
    return config, arm.bank, "random" if arm.teacher == "random" else "trained"
