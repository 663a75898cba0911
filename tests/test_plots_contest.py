"""The figure of a contest: who is drawn where, and in which colour."""

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from prockd import plots


def rows() -> list[dict]:
    seeds = np.linspace(-0.02, 0.02, 5)
    return [
        {"name": "labels alone", "group": "baseline", "values": (0.5 + seeds).tolist(), "augmented": None},
        {"name": "VkD", "group": "rival", "values": (0.7 + seeds).tolist(), "augmented": None},
        {"name": "hint", "group": "rival", "values": (0.6 + seeds).tolist(), "augmented": None},
        {"name": "ours", "group": "ours", "values": (0.8 + seeds).tolist(), "augmented": (0.9 + seeds).tolist()},
    ]


def test_groups_follow_each_other_and_the_best_of_a_group_comes_first():
    ax = plots.plot_contest(rows(), "accuracy")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["ours", "VkD", "hint", "labels alone"]
    assert ax.get_xlabel().startswith("accuracy")


def test_a_group_has_one_colour_and_stands_in_the_legend():
    ax = plots.plot_contest(rows())
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["ours", "rival", "baseline"]
    colours = {to_rgba(line.get_color()) for line in ax.lines if len(line.get_xdata()) == 5 and line.get_alpha() == 0.5}
    assert len(colours) == 3


def test_the_line_is_at_the_best_of_ours_and_every_seed_is_a_dot():
    ax = plots.plot_contest(rows())
    dashed = [line for line in ax.lines if line.get_linestyle() == "--"]
    assert [line.get_xdata()[0] for line in dashed] == [pytest.approx(0.9)]
    assert sum(len(line.get_xdata()) for line in ax.lines if line.get_marker() == ".") == 5 * 5
    assert [text.get_text() for text in ax.texts] == ["80.0%", "90.0%", "70.0%", "60.0%", "50.0%"]


def test_one_seed_is_drawn_without_an_interval():
    ax = plots.plot_contest([{"name": "ours", "group": "ours", "values": [0.5], "augmented": None}])
    assert [text.get_text() for text in ax.texts] == ["50.0%"]


@pytest.mark.parametrize(
    ("given", "message"), [([], "no arms to draw"), ([{"group": "them"}], "group them: there are")]
)
def test_what_cannot_be_drawn_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        plots.plot_contest(given)


@pytest.mark.parametrize("most", [0.02, 0.2, 0.4, 1.0])
def test_a_tick_says_where_it_stands(most):
    given = [row | {key: (np.array(row[key]) * most).tolist() for key in ("values", "augmented") if row[key]}
             for row in rows()]  # fmt: skip
    ax = plots.plot_contest([*given, {"name": "floor", "group": "floor", "values": [0.0], "augmented": None}])
    ax.figure.canvas.draw()
    said = [
        float(tick.label1.get_text().replace("\N{MINUS SIGN}", "-").rstrip("%")) for tick in ax.xaxis.get_major_ticks()
    ]
    np.testing.assert_allclose(said, 100 * ax.get_xticks(), atol=1e-6)
