"""Exercises of notebook 07: other tasks."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from prockd.checks.verdict import Step, close, exercise, integers, shape, values


def mean_iou(predicted: np.ndarray, truth: np.ndarray, num_classes: int) -> float:
    """Intersection over union of masks (M, H, W), a mean over the classes that occur; 255 is not counted."""
    seen = truth != 255
    both = np.array([np.sum(seen & (predicted == c) & (truth == c)) for c in range(num_classes)])
    either = np.array([np.sum(seen & ((predicted == c) | (truth == c))) for c in range(num_classes)])
    return float((both[either > 0] / either[either > 0]).mean())


def box_iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes x0, y0, x1, y1."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = a, b
    both = max(0, min(ax1, bx1) - max(ax0, bx0)) * max(0, min(ay1, by1) - max(ay0, by0))
    return both / ((ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - both)


def mirrored(joints: np.ndarray, names: Sequence[str], width: int) -> np.ndarray:
    """Joints (J, 3) of x, y and visible in the mirrored picture: its left knee was the right one."""
    other = {"left": "right", "right": "left"}
    swap = [list(names).index("_".join(other.get(word, word) for word in name.split("_"))) for name in names]
    flipped = joints.copy()
    flipped[:, 0] = width - joints[:, 0]
    return flipped[swap]


@exercise(mean_iou)
def check_mean_iou(answer: Callable[[np.ndarray, np.ndarray, int], float]) -> Iterator[Step]:
    """``answer(predicted (M, H, W), truth (M, H, W), num_classes)`` gives the mean IoU."""
    truth = np.zeros((2, 4, 4), np.uint8)
    truth[:, :2] = 1
    truth[1, 0] = 255
    yield shape(answer(truth, truth, 4))
    change = "255 belongs to no class: leave these pixels out, whatever was said of them"
    yield close(answer(np.where(truth == 255, 2, truth), truth, 4), 1), "pixels of no class do not count", change
    nothing = np.zeros_like(truth)
    found = answer(nothing, truth, 4)
    yield not close(found, 16 / 28), "all background is not praised", "that is the accuracy of pixels"
    change = "a class that is neither there nor said is no class with IoU 0: leave it out of the mean"
    yield not close(found, 16 / 28 / 4), "classes that do not occur do not count", change
    yield close(found, 16 / 28 / 2), "all background has half of background's IoU", "union: said so or being so"
    predicted, truth = integers(0, 3, 3, 5, 5), integers(0, 3, 3, 5, 5, seed=1)
    change = "add up the pixels of all images first, then divide"
    yield close(answer(predicted, truth, 3), mean_iou(predicted, truth, 3)), "random masks are right too", change


@exercise(box_iou)
def check_box_iou(answer: Callable[[Sequence[float], Sequence[float]], float]) -> Iterator[Step]:
    """``answer(a, b)`` gives the IoU of two boxes x0, y0, x1, y1."""
    a, b = (0.0, 0.0, 4.0, 2.0), (2.0, 0.0, 6.0, 2.0)
    yield shape(answer(a, b))
    change = "area a + area b - both"
    yield not close(answer(a, a), 0.5), "the union counts what they share once", change
    yield close(answer(a, a), 1), "a box fits itself by 1", "corners are edges, not pixels: no + 1"
    change = "a negative width times a negative height is positive: clamp both at 0"
    yield close(answer(a, (5.0, 3.0, 9.0, 5.0)), 0), "boxes that do not meet have 0", change
    yield close(answer(a, b), 1 / 3) and close(answer(b, a), 1 / 3), "half shared is a third", "x0, y0, x1, y1"


@exercise(mirrored)
def check_mirrored(answer: Callable[[np.ndarray, Sequence[str], int], np.ndarray]) -> Iterator[Step]:
    """``answer(joints (J, 3), names, width)`` gives the joints of the mirrored picture, (J, 3)."""
    names = ("nose", "left_knee", "right_knee")
    joints = np.array([[2.0, 3, 1], [4, 7, 1], [9, 8, 0]])
    kept = joints.copy()
    found = values(answer(joints, names, 10)).numpy()
    yield shape(found, 3, 3)
    yield np.array_equal(joints, kept), "the joints given stay as they were", "work on a copy"
    yield close(found[0], (8, 3, 1)), "x is counted from the other side", "width - x; y and visible stay"
    change = "a mirrored left knee looks like a right one: exchange the rows of left and right"
    yield not close(found[1], (6, 7, 1)), "left and right are exchanged", change
    yield close(found, mirrored(joints, names, 10)), "each keeps its own y and visible", "exchange whole rows"
    yield close(answer(found, names, 10), joints), "twice mirrored is as before", "by name, not by place in the list"
