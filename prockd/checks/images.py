"""Exercises of notebook 08: your own images."""

from collections.abc import Callable, Hashable, Iterator, Sequence

import numpy as np

from prockd.checks.verdict import Step, close, exercise, integers, shape, values

Division = tuple[Sequence[int], Sequence[int]]


def leaks(train: Sequence[str], test: Sequence[str], group: Callable[[str], str]) -> list[str]:
    """The groups, in order, of which pictures are on both sides."""
    return sorted({group(name) for name in train} & {group(name) for name in test})


def divide(groups: Sequence[Hashable], share: float, seed: int) -> Division:
    """Numbers of the images to train on and to test on; a group goes to one side as a whole."""
    names = list(dict.fromkeys(groups))
    order = np.random.default_rng(seed).permutation(len(names))
    chosen = {names[i] for i in order[: max(1, round(share * len(names)))]}
    sides = [[m for m, group in enumerate(groups) if (group in chosen) == side] for side in (False, True)]
    return sides[0], sides[1]


def normalised(image: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Pixels (H, W, 3) of 0 to 255 as a network wants them: (3, H, W), with its own mean and deviation."""
    return np.moveaxis((image / 255 - np.asarray(mean)) / np.asarray(std), 2, 0)


@exercise(leaks)
def check_leaks(
    answer: Callable[[Sequence[str], Sequence[str], Callable[[str], str]], Sequence[str]],
) -> Iterator[Step]:
    """``answer(train, test, group)`` gives the groups that are on both sides, sorted."""
    train, test = ["a_0.jpg", "a_1.jpg", "c_0.jpg", "b_0.jpg"], ["d_0.jpg", "c_1.jpg", "a_2.jpg"]
    found = list(answer(train, test, lambda name: name[0]))
    yield len(found) > 0, "shots of one animal are found", "compare groups, not names: no file is there twice"
    yield not any("." in str(one) for one in found), "it names groups", "give group(name), not the file"
    yield len(found) == len(set(found)), "each is named once", "use sets"
    yield found == ["a", "c"], "it is those on both sides, sorted", "what is in both, &: not in either"


@exercise(divide)
def check_divide(answer: Callable[[Sequence[Hashable], float, int], Division]) -> Iterator[Step]:
    """``answer(groups, share, seed)`` gives the numbers to train on and to test on."""
    groups = [f"animal{m}" for m in integers(0, 12, 60)]
    train, test = (values(side).long().tolist() for side in answer(groups, 0.25, 0))
    yield len(train) > 0 < len(test), "neither side is empty", "at least one group for each"
    yield sorted([*train, *test]) == list(range(60)), "each image is on one side", "all numbers of 0 to 59, once each"
    both = {groups[m] for m in train} & {groups[m] for m in test}
    change = f"{len(both)} animals are on both: draw groups, and send the pictures after them"
    yield not both, "no animal is on both sides", change
    yield 3 <= len(test) <= 30, "a quarter of the animals is tested on", "share of the groups; train comes first"
    again, other = answer(groups, 0.25, 0)[1], [answer(groups, 0.25, seed)[1] for seed in (1, 2, 3)]
    yield close(again, test), "the same seed divides alike", "np.random.default_rng(seed), not np.random"
    yield any(not close(o, test) for o in other), "another seed divides otherwise", "draw with the seed"


@exercise(normalised)
def check_normalised(answer: Callable[[np.ndarray, Sequence[float], Sequence[float]], np.ndarray]) -> Iterator[Step]:
    """``answer(image (H, W, 3), mean, std)`` gives the input of a network, (3, H, W)."""
    image, mean, std = integers(0, 256, 4, 6, 3).astype(np.uint8), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    found = values(answer(image, mean, std)).numpy()
    yield shape(found, 3, 4, 6)
    yield np.abs(found).max() < 10, "the values are near 0", "mean and deviation are of pixels in 0 to 1: divide by 255"
    truth = normalised(image, mean, std)
    change = "channels keep their order red, green, blue: no [..., ::-1]"
    yield not close(found, normalised(image[..., ::-1], mean, std)), "red stays red", change
    yield not close(found, truth * np.reshape(std, (3, 1, 1))), "its deviation is 1", "divide by std"
    yield close(found, truth), "all channels are right", "(image / 255 - mean) / std, then (2, 0, 1)"
