"""Pictures of predictions, one beside another."""

from collections.abc import Iterator
from dataclasses import replace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.cbook import is_math_text
from matplotlib.text import Text

from prockd import plots
from prockd.datasets import PackedImages
from prockd.evaluation.scores import Scores
from prockd.tasks import Boxes, Classification, Detection, Segmentation

M, S = 3, 16
PARTS = ("background", "leg", "tail")


@pytest.fixture(autouse=True)
def _canvas() -> Iterator[None]:
    mpl.use("agg")
    yield
    plt.close("all")


@pytest.fixture
def images() -> PackedImages:
    pixels = np.random.default_rng(0).integers(0, 256, (M, 3, S, S), np.uint8)
    masks = np.zeros((M, S, S), np.uint8)
    masks[:, : S // 2] = 1
    return PackedImages(pixels, np.full(M, -1), tuple("abc"), PARTS, "fake", masks=masks)


def masked(images: PackedImages, value: int) -> Scores:
    guess = np.full((M, S, S), value, np.uint8)
    return Scores(0.5, 0.5, guess, guess, images.masks, "mean IoU")


def boxed(images: PackedImages, score: float) -> Scores:
    found = [Boxes(np.array([[2, 2, 9, 9]], np.float32), np.array([1]), np.float32([score])) for _ in range(M)]
    return Scores(0.5, None, found, None, found, "mAP")


def rows_of(figure: plt.Figure, columns: int) -> list[str]:
    return [ax.get_ylabel() for ax in figure.axes[::columns]]


def test_one_student_is_shown_with_the_image_the_truth_and_both_predictions(images):
    figure = plots.plot_predictions(masked(images, 1), images, Segmentation(3, PARTS), count=2)
    assert rows_of(figure, 2) == ["image", "truth", "plain z", "augmented z⁺"]


def test_students_by_name_are_compared_row_by_row(images):
    scores = {"alone": masked(images, 1), "distilled": masked(images, 2)}
    figure = plots.plot_predictions(scores, images, Segmentation(3, PARTS))
    assert rows_of(figure, M) == ["image", "truth", "alone", "distilled"]
    alone, distilled = (figure.axes[row * M].get_images()[0].get_array() for row in (2, 3))
    assert not np.allclose(alone, distilled)


def test_a_background_stays_grey_and_is_no_line_of_the_legend(images):
    figure = plots.plot_predictions(masked(images, 0), images, Segmentation(3, PARTS))
    guess = figure.axes[2 * M].get_images()[0].get_array()
    assert np.allclose(guess[..., 0], guess[..., 1])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["leg"]


def test_every_class_of_a_detector_has_a_colour_and_line_of_its_own(images):
    boxes = np.tile(np.array([[2, 2, 9, 9]], np.float32), (12, 1))
    found = [Boxes(boxes, np.arange(12), np.ones(12, np.float32)) for _ in range(M)]
    scores = Scores(0.5, None, found, None, found, "mAP")
    figure = plots.plot_predictions(scores, images, Detection(12), count=1)
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.legends[0].get_lines()}
    assert len(looks) == 12


def test_unsure_boxes_are_not_drawn(images):
    figures = [plots.plot_predictions(boxed(images, score), images, Detection(2), count=1) for score in (0.9, 0.1)]
    assert [len(figure.axes[2].patches) > 0 for figure in figures] == [True, False]


def test_scores_of_other_images_and_no_scores_are_refused(images):
    with pytest.raises(ValueError, match="scores of 3 images, but 2 images"):
        plots.plot_predictions(masked(images, 1), images.select([0, 1]), Segmentation(3, PARTS))
    with pytest.raises(ValueError, match="no scores"):
        plots.plot_predictions({}, images, Segmentation(3, PARTS))


def test_classes_are_in_the_order_of_what_the_last_student_gained(images):
    before, after = (
        replace(masked(images, 1), per_class=np.array(each)) for each in ([0.5, 0.1, 0.2], [0.6, 0.5, 0.1])
    )
    ax = plots.plot_class_scores({"alone": before, "distilled": after}, PARTS)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["tail", "background", "leg"]
    assert ax.lines[0].get_xdata().tolist() == [0.2, 0.5, 0.1]
    assert "alone 50.0%; distilled 50.0%" in ax.get_xlabel().replace("\n", " ")


def test_scores_that_tell_nothing_of_classes_are_refused(images):
    with pytest.raises(ValueError, match="no scores of each class"):
        plots.plot_class_scores({"alone": masked(images, 1)}, PARTS)


def test_of_boxes_at_one_place_the_best_is_drawn_and_of_the_truth_all(images):
    two = [Boxes(np.array([[2, 2, 9, 9], [2, 2, 9, 8]], np.float32), np.array([1, 2]), np.float32([0.5, 0.9]))] * M
    figure = plots.plot_predictions(Scores(0.5, None, two, None, two, "mAP"), images, Detection(3, PARTS), count=1)
    _, truth, predicted = figure.axes[:3]
    assert (len(truth.patches), len(predicted.patches)) == (4, 2)  # each box has a white edge
    assert predicted.patches[0].get_height() == 6


def test_each_line_above_an_image_is_green_where_it_is_right_itself(images):
    truth = np.array([0, 1, 2])
    several = {name: Scores(0.5, None, np.array(said), None, truth, "accuracy") for name, said in
               (("alone", [0, 0, 0]), ("distilled", [0, 1, 0]))}  # fmt: skip
    figure = plots.plot_predictions(several, images, Classification(3, PARTS), count=3)
    lines = [[(t.get_text(), t.get_color()) for t in reversed(ax.texts)] for ax in figure.axes[:M]]
    assert [[text for text, _ in line] for line in lines] == [
        ["background", "background", "background"], ["leg", "background", "leg"], ["tail", "background", "background"]
    ]  # fmt: skip
    (_, green, _), (_, red, also_green) = ([colour for _, colour in line] for line in lines[:2])
    assert green == also_green != red


def test_dollar_signs_in_names_are_no_formula(images):
    task = Classification(2, ("Ba$$in", "$cash$"))
    marks = [task.marks(np.array([0.4, 0.6], np.float32))] * M
    scores = Scores(0.5, None, np.array([0, 1, 1]), None, np.array([0, 0, 1]))
    masks = Segmentation(3, ("$$", "a$b$c", "d"))
    answers = plots.predictions.plot_answers(list(images.pixels), marks, ["a$$.png"] * M, task)
    predictions = plots.plot_predictions(scores, images, task)
    areas = plots.plot_predictions(masked(images, 1), images, masks)
    for name, figure in (("cash", answers), ("cash", predictions), ("$", areas)):
        figure.canvas.draw()
        texts = [text.get_text() for text in figure.findobj(Text)]
        assert any(name in text for text in texts)
        assert not any(is_math_text(text) for text in texts)
