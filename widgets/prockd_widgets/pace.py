"""How long a try will take: told by tries that were made, or else by one step that is timed."""

import copy
import time

import torch

from prockd.prototypes.bank import PrototypeBank
from prockd.runs.arm_students import begun
from prockd.runs.world import World
from prockd.training.loop import History
from prockd_widgets.settings import Settings

_TRIAL = 8
"""Images in the step that is timed."""


class Pace:
    """Seconds that an image takes in a training step, and seconds that all else takes."""

    def __init__(self) -> None:
        self.an_image: dict[bool, float] = {}  # by whether the student is the teacher's own network
        self.source = "one step, timed"
        self.rest = self.search = 0.0

    def knows(self, settings: Settings) -> bool:
        """Whether a try or a timed step has told how fast its network is."""
        return settings.arm.is_teacher in self.an_image

    def learn(self, settings: Settings, history: History, rest: float, source: str) -> None:
        """Take the pace of a try that was made; ``rest`` are the seconds for scoring and fitting."""
        images = settings.distill.batch_size + settings.distill.unlabelled_batch
        if history.step > 1:
            self.an_image[settings.arm.is_teacher] = history.seconds_per_step / images
            self.rest, self.source = max(0.0, rest), source

    def try_out(self, world: World, settings: Settings, bank: PrototypeBank | None) -> None:
        """Time one step of a new student on grey images, where nothing is known of its network yet."""
        own = settings.arm.is_teacher
        if own in self.an_image:
            return
        student = begun(copy.copy(world), settings.arm, bank, 0, world.teacher)
        images = torch.full((_TRIAL, 3, student.image_px, student.image_px), 0.5)
        device = next(student.parameters()).device
        with torch.random.fork_rng(devices=[]):
            for _ in range(2):  # the first one also finds memory
                began = time.perf_counter()
                student.train()(images.to(device)).features.square().mean().backward()
                self.an_image[own] = (time.perf_counter() - began) / _TRIAL

    def seconds(self, settings: Settings, *, found: bool) -> float | None:
        """Of a whole try; None where nothing is known of its network. ``found``: its prototypes are there."""
        if (pace := self.an_image.get(settings.arm.is_teacher)) is None:
            return None
        images = settings.distill.batch_size + settings.distill.unlabelled_batch
        return settings.distill.steps * images * pace + self.rest + (0 if found else self.search)


def in_words(seconds: float) -> str:
    """A time as a person says it, such as "about 3 min"."""
    if seconds < 100:
        return f"about {max(1, round(seconds))} s"
    return f"about {round(seconds / 60)} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"
