"""What a run has made: what runs write and reports read."""

from dataclasses import dataclass

from prockd.evaluation.scores import Scores
from prockd.prototypes.bank import PrototypeBank
from prockd.runs.world import World
from prockd.students.student import Student
from prockd.training.loop import History


@dataclass(frozen=True, eq=False)
class Run:
    """What a run has made.

    Attributes:
        world: its settings, images, task and features.
        bank: prototypes; None without a teacher.
        student: trained.
        history: of the training; its scores are of the test images.
    """

    world: World
    bank: PrototypeBank | None
    student: Student
    history: History

    @property
    def scores(self) -> Scores | None:
        """On the test images, after the last step; None where a callback stopped it."""
        return self.history.scores
