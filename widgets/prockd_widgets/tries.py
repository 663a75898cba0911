"""What came of a try, kept in a folder so that it outlives the kernel."""

import itertools
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from prockd.datasets import PackedImages
from prockd.evaluation.scores import Scores, evaluate
from prockd.settings.method import DiscoverConfig, DistillConfig, FeatureAugmentationConfig
from prockd.students.student import Student
from prockd.tasks import TASKS
from prockd.training.checkpoint import FILE_FIELDS as CHECKPOINT_FIELDS
from prockd.training.loop import History
from prockd.untrusted import (
    FLAG,
    NOTHING,
    TABLE,
    RefusedError,
    fields,
    number,
    one_of,
    read_json,
    reading,
    text,
    whole,
)
from prockd.writing import write_json
from prockd_widgets.settings import STARTS, Settings

TRY_FIELDS = {
    "number": whole(1, 1_000_000), "settings": TABLE, "plain": number(0, 1), "augmented": NOTHING | number(0, 1),
    "seconds": number(0, 1e9), "scored_on": text(200), "resumed": whole(0, 1_000_000), "step": whole(0, 10**9),
    "stopped": FLAG, "rows": CHECKPOINT_FIELDS["rows"],
}  # fmt: skip
SETTINGS_FIELDS = {
    "preset": one_of(STARTS), "discover": TABLE, "feature_augmentation": TABLE, "distill": TABLE,
    "labels_per_class": whole(0, 1_000_000), "task": one_of(TASKS),
}  # fmt: skip
"""What a ``try.json`` may say."""
KEPT, DELETED = "try", "deleted"
"""How the names of folders begin: a try that was deleted keeps its number, so that undo can bring it back."""


@dataclass(frozen=True, eq=False)
class Try:
    """One student, trained and scored on the validation images.

    Attributes:
        number: counts from 1.
        settings: what it was made of.
        plain: the task's metric of z, 0..1.
        augmented: the same of z+; None without augmentation.
        seconds: wall time of training and scoring, finding prototypes included.
        history: the curves.
        folder: where its ``try.json``, checkpoint and student are.
        scored_on: fingerprint of the validation images.
        resumed: number of the stopped try that it went on from; 0 for none.
    """

    number: int
    settings: Settings
    plain: float
    augmented: float | None
    seconds: float
    history: History
    folder: Path
    scored_on: str = ""
    resumed: int = 0

    @property
    def stopped(self) -> bool:
        """True when it was stopped before its last step."""
        return self.history.stopped and self.history.step < self.settings.distill.steps

    @property
    def can_go_on(self) -> bool:
        """Whether it was stopped and has a checkpoint: self-training in two halves has none."""
        return self.stopped and not self.settings.arm.pseudo

    @property
    def student(self) -> Student:
        """The student itself, read from the folder.

        Raises:
            WeightsError: the file is gone or damaged.
        """
        return Student.load(self.folder / "student.safetensors")

    def scores_on(self, images: PackedImages) -> Scores:
        """What it predicts of the validation images: kept from training, else its student looks at them again."""
        if self.history.scores is None:
            self.history.scores = evaluate(self.student, images)
        return self.history.scores

    def row(self) -> dict[str, object]:
        """The try as a row of a table."""
        changed = ", ".join(f"{name}={value}" for name, value in self.settings.changes().items())
        return {
            "try": f"{self.number}, went on from {self.resumed}" if self.resumed else str(self.number),
            "preset": self.settings.preset,
            "changed": changed or "nothing",
            "labels": self.settings.labels_per_class,
            "steps": f"{self.history.step}, stopped" if self.stopped else str(self.history.step),
            "seed": self.settings.distill.seed,
            "z": f"{self.plain:.1%}",
            "z⁺": None if self.augmented is None else f"{self.augmented:.1%}",
            "seconds": round(self.seconds),
        }

    def facts(self) -> dict[str, object]:
        """The row in numbers, which can be sorted."""
        row = self.row() | {"try": self.number, "steps": self.history.step, "z": self.plain, "z⁺": self.augmented}
        return row | {"stopped": self.stopped, "resumed": self.resumed}

    def save(self, student: Student) -> None:
        """Write the student, then ``try.json``, which makes the folder a try."""
        student.save(self.folder / "student.safetensors", overwrite=True)
        about = {
            "number": self.number, "settings": asdict(self.settings), "plain": self.plain, "augmented": self.augmented,
            "seconds": self.seconds, "scored_on": self.scored_on, "resumed": self.resumed, "step": self.history.step,
            "stopped": self.history.stopped, "rows": self.history.rows,
        }  # fmt: skip
        write_json(self.folder / "try.json", about)


def new_try(folder: Path) -> tuple[int, Path]:
    """The number and the new folder of the next try: claimed on the disk, since other panels may write there too."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [path.name.rpartition("-") for kind in (KEPT, DELETED) for path in folder.glob(f"{kind}-*")]
    numbers = [int(number) for *_, number in parts if number.isdecimal()]
    for place in itertools.count(1 + max(numbers, default=0)):
        with suppress(FileExistsError):
            (own := folder / f"try-{place:03d}").mkdir()
            return place, own
    raise AssertionError("numbers do not end")


def read_try(path: Path) -> Try:
    """Read a ``try.json``.

    Raises:
        ValueError: it is damaged, or of another version (names the file).
    """
    with reading(path, "a try", ValueError, "remove its folder, or open it with the version that wrote it"):
        about = fields(read_json(path), TRY_FIELDS)
        told = fields(about["settings"], SETTINGS_FIELDS, where="settings")
        configs = (
            DiscoverConfig(**told["discover"]), FeatureAugmentationConfig(**told["feature_augmentation"]),
            DistillConfig(**told["distill"]),
        )  # fmt: skip
        settings = Settings(told["preset"], *configs, told["labels_per_class"], told["task"])
        if about["step"] > settings.distill.steps:
            raise RefusedError(f"step {about['step']} is beyond the last one, {settings.distill.steps}")
        history = History(about["rows"], step=about["step"], stopped=about["stopped"])
        return Try(
            about["number"], settings, about["plain"], about["augmented"], about["seconds"], history, path.parent,
            about["scored_on"], about["resumed"],
        )  # fmt: skip


def moved(one: Try, kind: str) -> Try:
    """The same try in the folder of a deleted one, or of one that is kept; where its files are gone they stay so."""
    new = one.folder.with_name(f"{kind}-{one.number:03d}")
    with suppress(FileNotFoundError):
        one.folder.rename(new)
    return replace(one, folder=new)


def read_tries(folder: Path, scored_on: str, kind: str = KEPT) -> tuple[tuple[Try, ...], Sequence[str]]:
    """The tries of a folder in order, and a sentence for each that cannot be shown beside the others."""
    tries, problems = [], []
    for path in folder.glob(f"{kind}-*/try.json"):
        try:
            one = read_try(path)
        except ValueError as error:
            problems.append(str(error))
            continue
        if one.scored_on == scored_on:
            tries.append(one)
        else:
            problems.append(f"{path} was scored on other validation images")
    return tuple(sorted(tries, key=lambda one: one.number)), problems
