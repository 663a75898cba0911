"""Maps of parts over whole animals: each patch has the colour of what its prototype stands for."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from prockd import plots
from prockd.datasets import PackedImages
from prockd.farmyard import part_palette

M, S, PARTS = 3, 24, ("background", "leg", "tail")


def images(*, parts: bool = True, frames: np.ndarray | None = None) -> PackedImages:
    """The upper third of each image is leg, the lower one tail."""
    masks = np.zeros((M, S, S), np.uint8)
    masks[:, :8], masks[:, 16:] = 1, 2
    pixels = np.random.default_rng(0).integers(0, 256, (M, 3, S, S), np.uint8)
    masked = masks if parts else None
    return PackedImages(pixels, np.zeros(M, np.int64), ("a", "b", "c"), ("cow",), "fake", masked, frames=frames)


@pytest.fixture
def assignments() -> torch.Tensor:
    """Prototype 0 in the upper row of patches and in the middle of image 0, 1 in the lower row, 2 elsewhere."""
    a = torch.zeros(M, 9, 4)
    a[:, :3, 0] = a[0, 4, 0] = 0.9
    a[:, 6:, 1] = 0.8
    a[:, 3:6, 2] = 0.6
    return a


def painted(figure: Figure, row: int, column: int) -> np.ndarray:
    """Part of each cell, 0 where nothing is painted."""
    (panel,) = [ax for ax in figure.axes if ax.get_subplotspec().rowspan.start == row
                and ax.get_subplotspec().colspan.start == column]  # fmt: skip
    return np.ma.filled(panel.images[1].get_array(), 0)


def test_a_patch_has_the_part_of_its_prototype_and_below_are_the_true_parts(assignments):
    figure = plots.plot_part_maps(assignments, images(), [0, 2], part_names=PARTS)
    assert painted(figure, 1, 0).tolist() == [[1, 1, 1], [0, 1, 0], [2, 2, 2]]
    assert painted(figure, 1, 1).tolist() == [[1, 1, 1], [0, 0, 0], [2, 2, 2]]
    assert (painted(figure, 2, 0) == images().parts[0]).all()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["leg", "tail"]
    colours = [tuple(round(255 * c) for c in key.get_facecolor()[:3]) for key in figure.legends[0].get_patches()]
    assert colours == list(part_palette[1:3]), "as in overlay_parts"
    assert "Right are 12 of 12 patches on these animals and 5 of 6 beside them" in " ".join(
        figure.get_supxlabel().split()
    )


def test_the_picture_can_be_seen_below_the_colours(assignments):
    figure = plots.plot_part_maps(assignments, images(), [0], part_names=PARTS, alpha=0.4)
    below, above = figure.axes[1].images
    np.testing.assert_allclose(below.get_array(), images().pixels[0].mean(0))
    assert {round(colour[3], 2) for colour in above.cmap.colors} == {0.4}


def test_bars_beside_padded_pictures_stay_grey_and_do_not_count(assignments):
    assignments[:, [3, 5]] = torch.tensor([0.0, 0.0, 0.0, 0.9])
    frames = np.tile(np.array([-8, 0, 16, 24], np.float32), (M, 1))
    figure = plots.plot_part_maps(assignments, images(frames=frames), [1], part_names=PARTS)
    assert painted(figure, 1, 0).tolist() == [[0, 1, 0], [0, 0, 0], [0, 2, 0]]
    assert "2 of 2 patches on these animals and 1 of 1 beside them" in " ".join(figure.get_supxlabel().split())


def test_a_disabled_prototype_gives_its_patches_to_the_next_best(assignments):
    a = assignments.clone()
    a[:, :3, 1] = 0.05
    a[..., 0] = 0  # what a bank says once prototype 0 is disabled
    figure = plots.plot_part_maps(a, images(), [1], part_names=PARTS)
    part = painted(figure, 1, 0)[0, 0]
    assert part in (1, 2)
    assert (painted(figure, 1, 0)[[0, 2]] == part).all(), "one prototype has them all now"


def test_without_parts_the_colours_are_prototypes(assignments):
    figure = plots.plot_part_maps(assignments, images(parts=False), [0], part_names=PARTS, names=list("abcd"))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a (4)", "b (3)", "c (2)"]


def test_what_is_not_there_is_named(assignments):
    with pytest.raises(IndexError, match="image 3 is not there"):
        plots.plot_part_maps(assignments, images(), [3], part_names=PARTS)
    with pytest.raises(ValueError, match="part 2"):
        plots.plot_part_maps(assignments, images(), [0], part_names=PARTS[:2])
