from collections.abc import Iterator
from dataclasses import replace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from fake_device import fake_device
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prockd import plots
from prockd._types import UNLABELLED
from prockd.datasets import PackedImages
from prockd.evaluation.effects import PrototypeEffects
from prockd.evaluation.embed import Embedding
from prockd.evaluation.galleries import gallery_prototypes
from prockd.evaluation.intervals import paired_interval
from prockd.evaluation.parts import part_agreement
from prockd.evaluation.points import PointAgreement, PointPatches
from prockd.evaluation.scores import Scores
from prockd.prototypes.bank import PrototypeBank
from prockd.settings.method import FeatureAugmentationConfig
from prockd.students.student import Student
from prockd.tasks import Classification
from prockd.teachers.features import PatchFeatures
from prockd.training.loop import History

M, S, GRID, K, PATCH = 5, 24, (3, 3), 4, 8
PARTS = ("background", "leg", "tail")


@pytest.fixture(autouse=True)
def _canvas() -> Iterator[None]:
    mpl.use("agg")
    yield
    plt.close("all")


@pytest.fixture
def images() -> PackedImages:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (M, 3, S, S), np.uint8)
    ids = tuple(f"set/{m:03d}.png" for m in range(M))
    parts = np.zeros((M, S, S), np.uint8)
    parts[:, :PATCH] = 1  # the upper row of patches is leg, the lower tail
    parts[:, 2 * PATCH :] = 2
    return PackedImages(pixels, np.array([0, 0, 1, 1, -1]), ids, ("cow", "pig"), "fake", parts)


@pytest.fixture
def assignments() -> torch.Tensor:
    """Prototype 2 is strongest in patch m of image m, the more so the greater m; elsewhere 0 or 1 rules, 3 nowhere."""
    a = torch.tensor([0.5, 0.2, 0.2, 0.1]).repeat(M, 9, 1)
    a[:, 6:] = torch.tensor([0.1, 0.6, 0.2, 0.1])
    for m in range(M):
        a[m, m] = torch.tensor([0.4 - 0.1 * m, 0.0, 0.6 + 0.1 * m, 0.0])
    return a


@pytest.fixture
def features(images: PackedImages) -> PatchFeatures:
    rng = np.random.default_rng(1)
    maps = tuple(rng.normal(size=(M, 2, D, h, h)).astype(np.float16) for D, h in ((6, 3), (8, 2)))
    return PatchFeatures(maps, images, "teacher", (2, 3), ("plain", "mirrored"))


def arrays_of(ax: Axes) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for image in ax.images]


def caption_of(figure: Figure) -> str:
    return " ".join(figure.get_supxlabel().split())


def panels_of(figure: Figure, rows: int) -> np.ndarray:
    """The Axes of a figure of panels, without colour bars."""
    panels = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    return np.array(panels, dtype=object).reshape(rows, -1)


def as_shown(pixels: np.ndarray) -> np.ndarray:
    return pixels.transpose(1, 2, 0)


def legend_of(ax: Axes) -> list[str]:
    legend = ax.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def test_styles_tell_64_things_apart_and_neighbours_by_colour():
    assert len({plots.style(i) for i in range(64)}) == 64
    assert all(plots.style(i)[0] != plots.style(i + 1)[0] for i in range(63))


def test_a_caption_keeps_the_label_above_it_and_wraps():
    ax = Figure(figsize=(3, 2)).subplots()
    ax.set_xlabel("step")
    plots.caption(ax, "word " * 30)
    label, sentence = ax.get_xlabel().split("\n\n")
    assert label == "step"
    assert sentence.split() == ["word"] * 30
    assert max(map(len, sentence.splitlines())) <= 51


def test_gallery_crops_are_the_pixels_of_the_strongest_patches_best_first(images, assignments):
    figure = plots.plot_gallery(assignments, images, prototypes=[2], count=3, context=0.0)
    row = panels_of(figure, 1)[0]
    assert len(row) == 3
    for ax, m in zip(row, (4, 3, 2), strict=True):  # patch m of image m, the last image strongest
        y, x = m // 3 * PATCH, m % 3 * PATCH
        np.testing.assert_array_equal(arrays_of(ax)[0], as_shown(images.pixels[m])[y : y + PATCH, x : x + PATCH])
        assert ax.get_xlabel() == f"{0.6 + 0.1 * m:.2f} · {m:03d}.png"


def test_gallery_context_moves_into_the_image_and_the_box_stays_on_the_patch(images, assignments):
    figure = plots.plot_gallery(assignments, images, prototypes=[2], count=3, context=0.5)
    ax = panels_of(figure, 1)[0, 2]  # image 2, patch 2: upper right corner
    np.testing.assert_array_equal(arrays_of(ax)[0], as_shown(images.pixels[2])[0:16, 8:24])
    assert {(b.get_x(), b.get_y(), b.get_width(), b.get_height()) for b in ax.patches} == {(7.5, -0.5, 8, 8)}


def test_gallery_can_show_the_whole_image_with_the_box_of_the_patch(images, assignments):
    figure = plots.plot_gallery(assignments, images, prototypes=[2], count=1, full=True)
    ax = panels_of(figure, 1)[0, 0]
    np.testing.assert_array_equal(arrays_of(ax)[0], as_shown(images.pixels[4]))
    assert (ax.patches[0].get_x(), ax.patches[0].get_y()) == (7.5, 7.5)  # patch 4: the middle


def test_gallery_rows_start_with_the_most_used_and_leave_out_dead_prototypes(images, assignments):
    figure = plots.plot_gallery(assignments, images, names=["sky", "grass", "hoof", "none"], count=2)
    labels = [row[0].get_ylabel() for row in panels_of(figure, 3)]
    assert labels == ["sky\n25 patches", "grass\n15 patches", "hoof\n5 patches"]
    assert "3 of 4 prototypes in 5 images" in caption_of(figure)


def test_gallery_shows_the_best_prototype_of_each_known_part(images, assignments):
    figure = plots.plot_gallery(assignments, images, names=["sky", "grass", "hoof", "none"], part_names=PARTS, count=2)
    labels = [row[0].get_ylabel() for row in panels_of(figure, 2)]
    # of the strongest patches, one an image, those of hoof lie on leg in three of five; those of sky, 0 or 1, in all
    assert labels == ["sky\n25 patches\nleg 100%", "grass\n15 patches\ntail 100%"]
    assert caption_of(figure).endswith("Parts: share of the 5 strongest patches that lie on them.")
    figure = plots.plot_gallery(assignments, images, prototypes=[2, 0], part_names=PARTS, count=2)
    assert [row[0].get_ylabel() for row in panels_of(figure, 2)] == [
        "p02\n5 patches\nleg 60%",
        "p00\n25 patches\nleg 100%",
    ]


def test_galleries_choose_the_prototype_whose_strongest_patches_lie_on_the_part_and_not_the_most_faithful_one(images):
    a = torch.zeros(M, 9, K)
    a[:, :, 0] = 0.3  # the background of all
    a[:2, 1, 1] = 0.5  # on leg alone, in two images; in the others its strongest patch is in the middle row
    a[2:, 4, 1] = 0.2
    a[:, 2, 2] = a[:, 5, 2] = 0.4  # half of its patches on leg, among them the strongest of every image
    a[:, 2, 2] += 0.2
    figure = plots.plot_gallery(a, images, part_names=PARTS, count=2)
    assert panels_of(figure, 2)[0, 0].get_ylabel() == "p02\n10 patches\nleg 100%"


def test_without_parts_a_gallery_with_bank_and_features_shows_the_clearest_prototypes(images, assignments, features):
    torch.manual_seed(0)
    bank, unmasked = PrototypeBank(K, features.width, 8), replace(images, parts=None)
    features = replace(features, images=unmasked)
    figure = plots.plot_gallery(assignments, unmasked, bank=bank, features=features, count=2)
    rows = [row[0].get_ylabel().split()[0] for row in panels_of(figure, 3)]
    assert rows == [f"p{k:02d}" for k in gallery_prototypes(bank, features, assignments)]


@pytest.fixture
def padded(images) -> PackedImages:
    """The same squares, of which the left and the right third are bars."""
    return replace(images, frames=np.tile(np.array([-8, 0, 16, 24], np.float32), (M, 1)))


def test_bars_beside_padded_pictures_are_in_no_gallery_and_no_map(padded, assignments, features):
    figure = plots.plot_gallery(assignments, padded, prototypes=[2, 0], count=5, context=0.0)
    for row in panels_of(figure, 2):
        assert {box.get_x() for ax in row for box in ax.patches} == {-0.5}
        for ax in row:
            assert ax.images[0].get_array().shape == (PATCH, PATCH, 3)
    assert panels_of(figure, 2)[0, 0].get_ylabel() == "p02\n2 patches"  # patches 1 and 4 of images 1 and 4
    assert panels_of(figure, 2)[1, 0].get_ylabel() == "p00\n8 patches"
    heat = arrays_of(plots.plot_heatmap(assignments, padded, 4, 2))[1]
    assert (heat[:, [0, 2]] == 0).all()
    assert heat[1, 1] == 1
    painted = panels_of(plots.plot_assignments(assignments, padded, [4, 0]), 2)[1, 0].images[1].get_array()
    assert painted.mask.tolist() == [[True, False, True]] * 3
    like = panels_of(plots.plot_similarity(replace(features, images=padded), 0, 1, 1), 2)[1, 0].images[1].get_array()
    assert np.isnan(np.ma.filled(like, np.nan)).tolist() == [[True, False, True]] * 3
    rgb = arrays_of(panels_of(plots.plot_teacher_maps(replace(features, images=padded), [0, 1], layers=[0]), 2)[1, 0])[
        0
    ]
    assert (rgb[:, [0, 2]] == 1).all()
    assert (rgb[:, 1] < 1).any()


def test_attention_leaves_the_bars_beside_padded_pictures_out():
    bank = PrototypeBank(K, 6, 8)
    augmentation = FeatureAugmentationConfig("attention")
    student = Student(
        "test_vit", Classification(2), bank, feature_augmentation=augmentation, image_px=64, patch_size=16
    )
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 64, 64), np.uint8)
    frames = np.array([[0, -16, 64, 48]], np.float32)
    images = PackedImages(pixels, np.zeros(1, np.int64), ("a",), ("cow", "pig"), "fake", frames=frames)
    _, attention, change = panels_of(plots.plot_attention(student, images, 0, top=1), 1)[0]
    for ax in (attention, change):
        blank = np.isnan(np.ma.filled(ax.images[1].get_array(), np.nan))
        assert blank[[0, 3]].all()
        assert not blank[1:3].any()


def test_gallery_tells_the_distance_of_each_patch_to_its_prototype(images, assignments, features):
    torch.manual_seed(0)
    bank = PrototypeBank(K, features.width, 8)
    figure = plots.plot_gallery(assignments, images, prototypes=[2], count=1, bank=bank, features=features)
    with torch.no_grad():  # the strongest patch of prototype 2 is the middle one of image 4
        u = bank.embed(features.fused([4]))[0, 4]
        expected = 1 - torch.cosine_similarity(u, bank.prototypes[2], dim=0)
    assert panels_of(figure, 1)[0, 0].get_xlabel() == f"1.00 · 004.png\ndistance {expected:.2f}"
    assert caption_of(figure).endswith("Numbers: assignment, 0..1, and distance, 1 - cosine.")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"prototypes": [4]}, IndexError, r"prototype 4 is not there: 4 are numbered 0\.\.3"),
        ({"count": 0}, ValueError, "at least one"),
        ({"names": ["a"]}, ValueError, "1 names for 4"),
        ({"grid": (2, 4)}, ValueError, "9 patches do not fill a grid of 2 x 4"),
    ],
)
def test_gallery_refuses_what_is_not_there(images, assignments, arguments, error, message):
    with pytest.raises(error, match=message):
        plots.plot_gallery(assignments, images, **arguments)


def test_raw_heatmap_is_the_assignments_over_the_grey_image_on_a_scale_of_0_to_1(images, assignments):
    ax = plots.plot_heatmap(assignments, images, 4, 2)
    under, heat = ax.images
    np.testing.assert_array_equal(under.get_array(), images.pixels[4].mean(0))
    np.testing.assert_array_equal(heat.get_array(), assignments[4, :, 2].reshape(3, 3).numpy())
    assert heat.get_clim() == (0, 1)
    assert heat.get_extent() == under.get_extent()
    assert "raw, 3 × 3 patches" in ax.get_title()
    assert "1.00" in ax.get_xlabel()


def test_smoothed_heatmap_has_the_size_of_the_image_and_says_so(images, assignments):
    ax = plots.plot_heatmap(assignments, images, 4, 2, smooth=True, name="hoof")
    heat = arrays_of(ax)[1]
    assert heat.shape == (S, S)
    assert np.unravel_index(heat.argmax(), heat.shape)[0] in range(8, 16)
    assert ax.get_title() == "hoof: smoothed"


def test_heatmap_names_the_image_or_prototype_that_is_missing(images, assignments):
    with pytest.raises(IndexError, match="image 5"):
        plots.plot_heatmap(assignments, images, 5, 0)
    with pytest.raises(IndexError, match="prototype -1"):
        plots.plot_heatmap(assignments, images, 0, -1)
    with pytest.raises(ValueError, match="4 images, and 5 images"):
        plots.plot_heatmap(assignments[:4], images, 0, 0)


def test_assignment_map_paints_the_strongest_prototype_of_each_patch(images, assignments):
    figure = plots.plot_assignments(assignments, images, [4, 0], names=["sky", "grass", "hoof", "none"], top=2)
    shown, painted = panels_of(figure, 2)
    np.testing.assert_array_equal(arrays_of(shown[0])[0], as_shown(images.pixels[4]))
    ranks = painted[0].images[1].get_array()  # sky is commonest, then grass; hoof is not among two
    np.testing.assert_array_equal(ranks.filled(-1), [[0, 0, 0], [0, -1, 0], [1, 1, 1]])
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["sky (10)", "grass (6)"]
    assert "1 rarer ones are left grey" in caption_of(figure)


def test_similarity_is_the_cosine_to_the_boxed_patch_on_one_scale(features):
    figure = plots.plot_similarity(features, 1, 2, 0, others=[3])
    pictures, maps = panels_of(figure, 2)
    fused = features.fused([1, 3])
    expected = torch.cosine_similarity(fused, fused[:1, :, 2, 0, None, None], dim=1).numpy()
    for i in range(2):
        np.testing.assert_allclose(arrays_of(maps[i])[1], expected[i], atol=1e-5)
    assert arrays_of(maps[0])[1][2, 0] == pytest.approx(1)
    assert maps[0].images[1].get_clim() == maps[1].images[1].get_clim()
    assert [len(ax.patches) for ax in (pictures[0], pictures[1], maps[0], maps[1])] == [2, 0, 2, 0]
    assert (pictures[0].patches[0].get_x(), pictures[0].patches[0].get_y()) == (-0.5, 15.5)
    assert "row 2, column 0 of 3 × 3 in set/001.png" in caption_of(figure)


def test_similarity_takes_any_patch_vectors_with_their_images(images, features):
    vectors = features.fused(np.arange(M)).flatten(2).transpose(1, 2)
    figure = plots.plot_similarity(vectors, 1, 2, 0, images=images)
    same = plots.plot_similarity(features, 1, 2, 0)
    np.testing.assert_allclose(arrays_of(panels_of(figure, 2)[1, 0])[1], arrays_of(panels_of(same, 2)[1, 0])[1])
    with pytest.raises(ValueError, match="pass images="):
        plots.plot_similarity(vectors, 1, 2, 0)
    with pytest.raises(IndexError, match=r"row 3 is not there: 3 are numbered 0\.\.2"):
        plots.plot_similarity(features, 1, 3, 0)


def test_teacher_maps_colour_equal_patches_equally(features):
    maps = tuple(np.array(m) for m in features.maps)
    maps[0][3, 0, :, 1, 1] = maps[0][0, 0, :, 0, 2]
    changed = PatchFeatures(maps, features.images, "t", (2, 3), features.views)
    figure = plots.plot_teacher_maps(changed, [0, 3])
    rows = panels_of(figure, 3)
    np.testing.assert_array_equal(arrays_of(rows[0, 1])[0], as_shown(features.images.pixels[3]))
    np.testing.assert_allclose(arrays_of(rows[1, 0])[0][0, 2], arrays_of(rows[1, 1])[0][1, 1], atol=1e-4)
    assert [row[0].get_ylabel() for row in rows] == ["image", "layer 2\n3 × 3 patches", "layer 3\n2 × 2 patches"]
    with pytest.raises(IndexError, match="layer 2"):
        plots.plot_teacher_maps(features, [0], layers=[2])


def embedding() -> Embedding:
    xy = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    return Embedding(xy, np.array([0, 2, 4, 6, 8, 10]), "pca", "PCA of 6 of 12 points")


def test_embedding_puts_each_label_at_its_points_and_takes_labels_of_all_vectors():
    of_points = np.array([1, 1, 0, 2, 2, 2])
    of_vectors = np.full(12, 9)
    of_vectors[::2] = of_points
    of_vectors[1::2] = 0
    map_ = embedding()
    for labels in (of_points, of_vectors):
        ax = plots.plot_embedding(map_, labels, names=("background", "leg", "tail"), title="by part")
        grey, leg, tail = (c.get_offsets() for c in ax.collections)
        np.testing.assert_allclose(grey, map_.xy[[2]])
        np.testing.assert_allclose(leg, map_.xy[:2])
        np.testing.assert_allclose(tail, map_.xy[3:])
        assert legend_of(ax) == ["leg", "tail", "background"]
        assert "PCA of 6 of 12 points" in " ".join(ax.get_xlabel().split())


def test_embedding_greys_unknown_and_rare_labels():
    ax = plots.plot_embedding(embedding(), np.array([-1, 0, 1, 1, 2, 2]), top=2)
    assert legend_of(ax) == ["1", "2", "others"]
    assert len(ax.collections[0].get_offsets()) == 2
    with pytest.raises(ValueError, match="5 labels for 6 points"):
        plots.plot_embedding(embedding(), np.zeros(5, int))


def test_part_table_rows_go_by_part_then_purity_with_background_last_and_the_dead_left_out():
    assigned = np.repeat([0, 1, 2, 3], [4, 4, 2, 4])[None]
    parts = np.array([[0, 0, 0, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 0]])
    agreement = part_agreement(assigned, parts, 5, 3)
    ax = plots.plot_part_table(agreement, PARTS, ["sky", "tail!", "hoof", "leg?", "dead"])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["hoof", "leg?", "tail!", "sky"]
    np.testing.assert_allclose(arrays_of(ax)[0], [[0, 1, 0], [0.25, 0.75, 0], [0, 0.25, 0.75], [0.75, 0.25, 0]])
    assert [t.get_text() for t in ax.texts] == ["100%", "2", "75%", "4", "75%", "4", "75%", "4"]
    sentence = " ".join(ax.get_xlabel().split())
    assert f"purity is {agreement.purity:.2f}" in sentence
    assert "1 prototypes without a patch" in sentence
    with pytest.raises(ValueError, match="2 part names for a table of 3"):
        plots.plot_part_table(agreement, PARTS[:2])


def test_usage_is_the_share_of_each_class_and_leaves_out_unlabelled_images(images, assignments):
    ax = plots.plot_usage(assignments, images.labels, images.classes)
    # cow: images 0 and 1, pig: 2 and 3; every image has 3 patches of p01 and 1 of p02, so 5 of p00
    assert [t.get_text() for t in ax.get_xticklabels()] == ["p00", "p01", "p02", "p03"]
    np.testing.assert_allclose(arrays_of(ax)[0] * 9, [[5, 3, 1, 0], [5, 3, 1, 0]])
    assert "36 patches" in ax.get_xlabel()
    with pytest.raises(ValueError, match="2 labels"):
        plots.plot_usage(assignments, [0, 1], images.classes)


def test_agreement_counts_equal_prototypes_in_equal_patches(assignments):
    other = assignments.clone()
    other[0, 6:] = torch.tensor([0.0, 0.0, 0.0, 1.0])
    ax = plots.plot_agreement(assignments, other)
    assert ax.get_title() == "42 of 45 patches agree (93%)"
    np.testing.assert_allclose(arrays_of(ax)[0][1], [0, 12 / 15, 0, 3 / 15])


def test_confusion_rows_are_true_classes():
    scores = Scores(0.5, None, np.array([0, 1, 1, 1]), None, np.array([0, 0, 0, 1]))
    ax = plots.plot_confusion(scores, ("cow", "pig"))
    np.testing.assert_allclose(arrays_of(ax)[0], [[1 / 3, 2 / 3], [0, 1]])
    assert ax.get_title() == "plain prediction z: 2 of 4 right (50.0%)"
    assert [t.get_text() for t in ax.texts] == ["33", "67", "100"]
    with pytest.raises(ValueError, match="no augmented prediction"):
        plots.plot_confusion(scores, ("cow", "pig"), augmented=True)


def test_dollar_signs_in_names_are_no_formula_in_any_table_axis_or_legend(images, assignments):
    names = ("Ba$$in", "$cash$")
    scores = Scores(0.5, None, np.array([0, 1, 1, 1]), None, np.array([0, 0, 0, 1]), per_class=np.array([0.2, 0.4]))
    embedding = Embedding(np.zeros((4, 2), np.float32), np.arange(4), "pca", "PCA")
    drawn = [
        plots.plot_confusion(scores, names),
        plots.plot_class_scores({"z": scores, "$$": scores}, names),
        plots.plot_usage(assignments, images.labels, names, names=["$$"] * K),
        plots.plot_embedding(embedding, np.arange(4) % 2, names=names),
    ]
    for ax in drawn:
        ax.figure.canvas.draw()
    assert legend_of(drawn[-1]) == [r"Ba\$\$in", r"\$cash\$"]  # as matplotlib writes a dollar that is one


def test_curves_are_the_logged_values_under_the_keys_of_the_losses():
    rows = [{"step": float(i), "lr": 0.1, "seconds": 1.0, "task": 2.0 - 0.1 * i, "assignment": 1.0} for i in range(5)]
    ax = plots.plot_curves({"run": History(rows, step=5)})
    assert legend_of(ax) == ["task", "assignment"]
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[i, 2 - 0.1 * i] for i in range(5)])
    assert "run 5 steps" in ax.get_xlabel()


def test_several_runs_are_named_and_long_curves_smoothed():
    rows = [{"step": float(i), "task": float(i % 2)} for i in range(40)]
    ax = plots.plot_curves({"a": History(rows), "b": History(rows, stopped=True)}, ["task"])
    assert legend_of(ax) == ["a", "b"]
    raw, smooth = ax.lines[:2]
    assert len(raw.get_ydata()) == 40
    assert set(np.asarray(smooth.get_ydata())) == {0.5}
    assert "stopped early" in ax.get_xlabel()
    with pytest.raises(ValueError, match="no curve of hint: these histories have task"):
        plots.plot_curves({"a": History(rows)}, ["hint"])


def test_scores_draw_every_seed_the_mean_and_the_interval():
    values = [0.3, 0.4, 0.5]
    rows = [
        {"name": "hint", "labels_per_class": 30, "values": values, "augmented": None},
        {"name": "best", "labels_per_class": 5, "values": values, "augmented": [0.6, 0.6, 0.6]},
    ]
    ax = plots.plot_scores(rows)
    names = ["5 images a class", "best", "30 images a class", "hint"]
    assert [t.get_text() for t in ax.get_yticklabels()] == names
    dots, interval, mean = ax.lines[:3]
    np.testing.assert_allclose(dots.get_xdata(), values)
    np.testing.assert_allclose(interval.get_xdata(), paired_interval(values)[1:])
    np.testing.assert_allclose(mean.get_xdata(), [0.4])
    assert [t.get_text() for t in ax.texts] == ["40.0%", "60.0%", "40.0%"]
    assert "(3 a row)" in ax.get_xlabel()
    with pytest.raises(ValueError, match="no scores"):
        plots.plot_scores([])


def test_attention_shows_the_highest_peaks_and_the_change_of_each_patch():
    torch.manual_seed(0)
    bank = PrototypeBank(K, 6, 8)
    student = Student(
        "mobilenetv3_small_050",
        Classification(2),
        bank,
        feature_augmentation=FeatureAugmentationConfig("attention"),
        image_px=32,
    ).eval()
    assert student.feature_augmentation is not None
    assert student.feature_augmentation.gate is not None
    torch.nn.init.ones_(student.feature_augmentation.gate)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), np.uint8)
    images = PackedImages(pixels, np.zeros(2, np.int64), ("a", "b"), ("cow", "pig"), "fake")
    figure = plots.plot_attention(student, images, 1, top=2)
    image, first, second, change = panels_of(figure, 1)[0]
    with torch.no_grad():
        f = student(torch.from_numpy(pixels[1:]).float() / 255).features
        attention = student.feature_augmentation.attention(f, bank.prototypes, enabled=bank.enabled)[0]
        moved = (student.augmented(f) - f)[0].norm(dim=-1)
    order = attention.amax(0).argsort(descending=True)[:2].tolist()
    np.testing.assert_array_equal(arrays_of(image)[0], as_shown(pixels[1]))
    for ax, k in zip((first, second), order, strict=True):
        assert ax.get_title() == bank.names[k]
        np.testing.assert_allclose(arrays_of(ax)[1].ravel(), attention[:, k], rtol=1e-4)
    np.testing.assert_allclose(arrays_of(change)[1].ravel(), moved, rtol=1e-3)
    assert "uniform attention would be 0.250" in caption_of(figure)


def with_part_maps() -> Student:
    torch.manual_seed(0)
    student = Student(
        "test_vit",
        Classification(2, ("cow", "pig")),
        PrototypeBank(K, 6, 8),
        feature_augmentation=FeatureAugmentationConfig(),
        image_px=64,
        patch_size=16,
    )
    student.feature_augmentation.set_reading(torch.randn(K * 8, 2), torch.randn(2))
    return student.eval()


def test_evidence_shows_what_the_strongest_prototypes_and_all_say_and_its_sum_is_z_plus():
    student, rng = with_part_maps(), np.random.default_rng(0)
    images = PackedImages(
        rng.integers(0, 256, (2, 3, 64, 64), np.uint8), np.zeros(2, np.int64), ("a", "b"), ("cow", "pig"), "fake"
    )
    output = student(torch.from_numpy(images.pixels[1:]).float() / 255)
    told = int(output.augmented_logits.argmax())
    for label in (None, 1 - told):
        shown = told if label is None else label
        image, *others = panels_of(plots.plot_evidence(student, images, 1, label=label, top=2), 1)[0]
        maps, bank = student.feature_augmentation, student.bank
        said = maps.evidence(output.features, bank.prototypes, bank.enabled, output=shown)[0].numpy() / 16
        order = np.argsort(-np.abs(said.sum(0)))[:2]
        np.testing.assert_array_equal(arrays_of(image)[0], as_shown(images.pixels[1]))
        assert image.get_title() == ("cow", "pig")[told]
        for ax, k in zip(others, order, strict=False):
            assert ax.get_title() == f"{bank.names[k]}  {said[:, k].sum():+.2f}"
            np.testing.assert_allclose(arrays_of(ax)[1].ravel(), said[:, k], rtol=1e-3, atol=1e-5)
        total = float((output.augmented_logits[0, shown] - maps.bias[shown]).detach())
        assert len(others) == 3
        assert arrays_of(others[-1])[1].sum() == pytest.approx(total, rel=1e-3, abs=1e-4)
        assert others[-1].get_title() == f"all {K}  {total:+.2f}"
        for scaled in (others[:-1], others[-1:]):  # all say many times what one does: one scale would leave it blank
            darkest = max(np.abs(arrays_of(ax)[1]).max() for ax in scaled)
            assert [ax.images[-1].get_clim()[1] for ax in scaled] == pytest.approx([darkest] * len(scaled))


def test_evidence_of_a_student_without_fitted_part_maps_or_of_a_class_or_image_that_is_not_there_is_refused(images):
    student = with_part_maps()
    images = replace(images, labels=np.full(len(images), UNLABELLED))
    assert "the label" not in caption_of(plots.plot_evidence(student, images, 0))  # nobody knows what it is
    with pytest.raises(IndexError, match="class 2 is not there"):
        plots.plot_evidence(student, images, 0, label=2)
    with pytest.raises(IndexError, match="image"):
        plots.plot_evidence(student, images, 5)
    student.feature_augmentation.fitted.fill_(False)
    with pytest.raises(ValueError, match=r"no fitted part maps in closed form: train it"):
        plots.plot_evidence(student, images, 0)


def test_attention_is_that_of_the_students_own_size_whatever_that_of_the_images():
    bank = PrototypeBank(K, 6, 8)
    student = Student(
        "test_vit",
        Classification(2),
        bank,
        feature_augmentation=FeatureAugmentationConfig("attention"),
        image_px=64,
        patch_size=16,
    )
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 32, 32), np.uint8)
    images = PackedImages(pixels, np.zeros(1, np.int64), ("a",), ("cow", "pig"), "fake")
    figure = plots.plot_attention(student, images, 0, top=1)
    assert arrays_of(panels_of(figure, 1)[0][1])[1].shape == student.grid


def test_attention_needs_prototypes_in_the_augmentation(images):
    plain = Student("mobilenetv3_small_050", Classification(2), image_px=32)
    with pytest.raises(ValueError, match="attends to no prototypes"):
        plots.plot_attention(plain, images, 0)


def effects() -> PrototypeEffects:
    """Three removals by two classes: p1 costs cow 30 points for certain, p2 nothing, p0 gains pig 10, perhaps."""
    change = np.array([[0.05, 0.0, 0.1], [-0.15, -0.3, 0.0], [0.0, 0.0, 0.0]])
    low, high = change - 0.2, change + 0.2
    return PrototypeEffects(
        "accuracy", ("all classes", "cow", "pig"), ("p0", "p1", "p2"), ((0,), (1,), (2,)),
        np.array([0.5, 0.6, 0.4]), change, low, high, 40,
    )  # fmt: skip


def test_effects_go_from_the_most_harmful_removal_to_the_most_useful_and_clear_ones_are_bold():
    ax = plots.plot_prototype_effects(effects())
    assert [t.get_text() for t in ax.get_yticklabels()] == ["p1", "p2", "p0"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["all classes", "cow", "pig"]
    np.testing.assert_allclose(arrays_of(ax)[0], [[-15, -30, 0], [0, 0, 0], [5, 0, 10]])
    assert ax.images[0].get_clim() == (-30, 30)
    assert [t.get_text() for t in ax.texts if t.get_fontweight() == "bold"] == ["-30.0"]
    sentence = " ".join(ax.get_xlabel().split())
    assert "40 images" in sentence
    assert "(1 of 9 cells; about 0 at most would by chance)" in sentence


def test_few_effects_are_those_that_change_most():
    ax = plots.plot_prototype_effects(effects(), top=2)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["p1", "p0"]
    assert "the 2 of 3 that change most" in " ".join(ax.get_xlabel().split())
    with pytest.raises(ValueError, match="top=0"):
        plots.plot_prototype_effects(effects(), top=0)


def test_one_removal_shows_each_class_with_its_interval_the_most_harmed_below_the_whole():
    ax = plots.plot_class_effects(effects(), 1)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["all classes", "cow", "pig"]
    interval, mean = ax.lines[2:4]
    np.testing.assert_allclose(interval.get_xdata(), [-50, -10])
    np.testing.assert_allclose(mean.get_xdata(), [-30])
    assert ax.get_title() == "without p1 (one prototype)"
    with pytest.raises(IndexError, match="removal 3"):
        plots.plot_class_effects(effects(), 3)


def test_points_are_drawn_in_their_patch_with_the_part_that_the_prototype_tells_and_errors_are_ringed(images):
    points = PointPatches(
        np.array([1, 1, 2]), np.array([0, 5, 4]), np.array([0, 1, 0]), ("ear", "leg"), np.full((3, 2), 0.5)
    )
    assigned = np.zeros((M, 9), int)
    assigned[1, 5] = 1
    named = PointAgreement(
        1 / 3, 0.5, np.array([0.0, 1.0]), 0.25, np.array([2, 1]), np.array([1, 1, 0, 0]), ("ear", "leg"),
        np.array([False, True, False]),
    )  # fmt: skip
    figure = plots.plot_points(points, assigned, named, images, [1], GRID)
    truth, told = panels_of(figure, 2)[:, 0]
    ear, leg = (c.get_offsets() for c in truth.collections)
    np.testing.assert_allclose(ear, [[3.5, 3.5]])
    np.testing.assert_allclose(leg, [[19.5, 11.5]])
    told_ear, told_leg, ringed = (c.get_offsets() for c in told.collections)
    assert len(told_ear) == 0
    np.testing.assert_allclose(told_leg, [[3.5, 3.5], [19.5, 11.5]])
    np.testing.assert_allclose(ringed, [[3.5, 3.5]])
    assert "1 of 2 points shown are told rightly" in caption_of(figure)
    assert "33% are (always telling the commonest part: 25%)" in caption_of(figure)
    with pytest.raises(ValueError, match=r"none of the images set/000\.png has a key point"):
        plots.plot_points(points, assigned, named, images, [0], GRID)


def test_names_are_text_and_never_formulas(images, assignments):
    ax = plots.plot_usage(assignments, images.labels, images.classes, names=["$", "a$b$", r"$\oops$", "<b>"])
    ax.figure.canvas.draw()
    assert ax.get_xticklabels()[0].get_text() == r"\$"


def test_a_figure_of_panels_shows_itself_in_a_notebook(images, assignments):
    assert plots.plot_gallery(assignments, images, count=1)._repr_jpeg_().startswith(b"\xff\xd8")


def test_nothing_leaks_into_pyplot(images, assignments, features):
    before = plt.get_fignums()
    figure = Figure()
    axes = figure.subplots(1, 3)
    plots.plot_heatmap(assignments, images, 0, 0, ax=axes[0])
    plots.plot_agreement(assignments, assignments, ax=axes[1])
    plots.plot_curves({"a": History([{"step": 0.0, "task": 1.0}])}, ax=axes[2])
    plots.plot_gallery(assignments, images)
    plots.plot_teacher_maps(features, [0])
    plots.plot_assignments(assignments, images, [0])
    plots.plot_similarity(features, 0, 0, 0)
    assert plt.get_fignums() == before
    plots.plot_heatmap(assignments, images, 0, 0)
    assert len(plt.get_fignums()) == len(before) + 1


@pytest.mark.parametrize(
    "draw",
    [
        lambda a, v, images: plots.plot_gallery(a, images, count=2, part_names=PARTS),
        lambda a, v, images: plots.plot_heatmap(a, images, 4, 2),
        lambda a, v, images: plots.plot_heatmap(a, images, 4, 2, smooth=True),
        lambda a, v, images: plots.plot_assignments(a, images, [4, 0]),
        lambda a, v, images: plots.plot_usage(a, (a.amax((1, 2)) > 0.8).long(), images.classes),
        lambda a, v, images: plots.plot_agreement(a, a.roll(1, 0)),
        lambda a, v, images: plots.plot_similarity(v, 1, 2, 0, images=images),
        lambda a, v, images: plots.plot_embedding(embedding(), a.argmax(-1).flatten()[:6]),
    ],
    ids=["gallery", "heatmap", "smooth heatmap", "assignments", "usage", "agreement", "similarity", "embedding"],
)
def test_tensors_of_any_device_are_drawn_as_those_of_the_cpu(images, features, assignments, draw):
    vectors = features.fused(np.arange(M)).flatten(2).transpose(1, 2)
    here = draw(assignments, vectors, images)
    with fake_device() as device:
        away = draw(assignments.to(device), vectors.to(device).requires_grad_(), images)
    for ax, same in zip(*([drawn] if isinstance(drawn, Axes) else drawn.axes for drawn in (here, away)), strict=True):
        assert [collection.get_offsets().tolist() for collection in ax.collections] == [
            collection.get_offsets().tolist() for collection in same.collections
        ]
        for drawn, again in zip(arrays_of(ax), arrays_of(same), strict=True):
            np.testing.assert_array_equal(drawn, again)


def test_students_and_banks_of_another_device_are_drawn_and_stay_there(images, assignments, features):
    torch.manual_seed(0)
    bank, own = PrototypeBank(K, features.width, 8), PrototypeBank(K, 6, 8)
    student = Student(
        "mobilenetv3_small_050",
        Classification(2),
        own,
        feature_augmentation=FeatureAugmentationConfig("attention"),
        image_px=32,
    )
    here = plots.plot_attention(student, images, 0)
    with fake_device() as device:
        student.to(device)
        bank.to(device)
        plots.plot_gallery(assignments.to(device), images, count=2, bank=bank, features=features)
        away = plots.plot_attention(student, images, 0)
        assert {tensor.device for net in (bank, student) for tensor in net.state_dict().values()} == {device}
    for ax, same in zip(here.axes, away.axes, strict=True):
        assert ax.get_title() == same.get_title()
        for drawn, again in zip(arrays_of(ax), arrays_of(same), strict=True):
            np.testing.assert_allclose(drawn, again, rtol=1e-5)


def test_class_scores_put_the_largest_gain_on_top_and_name_the_metric_of_one_class():
    truth = np.array([0, 1, 2])
    before = Scores(0.5, None, truth, None, truth, "mAP", np.array([0.5, 0.2, 0.4]), class_metric="AP")
    after = Scores(0.6, None, truth, None, truth, "mAP", np.array([0.5, 0.6, 0.3]), class_metric="AP")
    ax = plots.plot_class_scores({"before": before, "after": after}, ("cow", "pig", "yak"))
    assert [t.get_text() for t in ax.get_yticklabels()] == ["yak", "cow", "pig"]
    assert legend_of(ax) == ["before", "after"]
    np.testing.assert_allclose(ax.lines[1].get_xdata(), [0.3, 0.5, 0.6])
    assert ax.get_xlabel().startswith("AP")
    with pytest.raises(ValueError, match="no scores of each class"):
        plots.plot_class_scores({"one": Scores(0.5, None, truth, None, truth)}, ("cow", "pig", "yak"))


def test_vectors_and_assignments_of_other_images_are_refused(images, features):
    vectors = features.fused(np.arange(M)).flatten(2).transpose(1, 2)
    with pytest.raises(ValueError, match="patches of 4 images, and 5 images"):
        plots.plot_similarity(vectors[:4], 1, 2, 0, images=images)
