"""The knobs of a contest: which arms, how many seeds, and the tuning budget that every arm has alike."""

from dataclasses import dataclass

from prockd.settings.knobs import Knobs, choice, knob, numbers, plain, words


@dataclass(frozen=True)
class CompareConfig(Knobs):
    """How arms are compared (`prockd compare`)."""

    arms: tuple[str, ...] = words(("labels alone", "hint", "ours"), "Names of arms, shipped ones or your own [arms].")
    seeds: int = knob(5, 1, 1000, "Runs of each arm, of which the last numbers are told.")
    rates: tuple[float, ...] = numbers(
        float, "Learning rates that every arm tries on validation images; empty for distill.lr.", (8e-3, 16e-3, 32e-3)
    )  # fmt: skip
    weights: tuple[float, ...] = numbers(
        float, "Factors of an arm's weight, tried at its best rate; an arm without one tries as many more rates.",
        (0.3, 3.0),
    )  # fmt: skip
    tune_seeds: int = knob(1, 1, 100, "Runs of each setting while tuning; their seeds are in no last number.")
    references: bool = plain(True, "Trivial answers and readings of the teacher stand beside the arms.")
    on: str = choice("test", ("test", "val"), "What the last numbers are told on; val leaves the test images unseen.")
