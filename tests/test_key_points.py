"""Key points: a heat-map a joint, and where it is read."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TINY

from prockd._types import UNLABELLED, Sample
from prockd.datasets import PackedImages, pack
from prockd.datasets.transforms import Crops, cut_maps, whole_images
from prockd.evaluation.effects import prototype_effects
from prockd.evaluation.scores import evaluate, predict
from prockd.farmyard import KEYPOINTS, Farmyard
from prockd.plots import plot_predictions
from prockd.runs.recipes import task_settings
from prockd.settings.method import DistillConfig, FeatureAugmentationConfig
from prockd.students.student import Student
from prockd.tasks import TASKS, KeyPoints, Task
from prockd.tasks.key_points import gaussians, mean_place, read_points
from prockd.training.batches import Source
from prockd.training.loop import distill

CPU = torch.device("cpu")
TASK = KeyPoints(3, ("left_eye", "right_eye", "tail"), width=16)


def drawn(count: int = 12, side_px: int = 32) -> PackedImages:
    """A red, a green and a blue spot on grey noise; the blue one is not annotated in the first image."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side_px, :side_px] + 0.5
    pixels, joints = rng.normal(110, 8, (count, 3, side_px, side_px)), np.ones((count, 3, 3), np.float32)
    joints[..., :2] = rng.uniform(5, side_px - 5, (count, 3, 2))
    for image, spots in zip(pixels, joints, strict=True):
        for colour, (px, py, _) in enumerate(spots):
            image[colour, (x - px) ** 2 + (y - py) ** 2 < 9] = 250
    joints[0, 2] = 0
    ids, boxes = tuple(f"{m}.png" for m in range(count)), (np.array([[0, 4, side_px, 24]], np.float32),) * count
    labels = np.full(count, UNLABELLED)
    return PackedImages(
        pixels.clip(0, 255).astype(np.uint8), labels, ids, TASK.classes, "spots", joints=joints, boxes=boxes,
        box_labels=(np.array([UNLABELLED]),) * count,
    )  # fmt: skip


@pytest.fixture(scope="module")
def images() -> PackedImages:
    return drawn()


def rows(images: PackedImages) -> np.ndarray:
    return np.arange(len(images))


def test_it_is_a_task_and_its_head_gives_a_heat_map_a_joint_on_any_grid():
    assert isinstance(TASK, Task)
    assert TASKS["keypoints"] is KeyPoints
    for grid in ((8, 8), (3, 5)):
        assert TASK.head(16, grid, 32)(torch.randn(2, grid[0] * grid[1], 16)).shape == (2, 3, *grid)


def test_a_gaussian_around_a_place_is_read_at_that_place():
    xy = torch.tensor([[0.2, 0.7], [0.55, 0.4]])
    heat = gaussians(xy, (20, 24), 0.06)
    assert heat.shape == (2, 20, 24)
    torch.testing.assert_close(heat.sum((1, 2)), torch.ones(2))
    torch.testing.assert_close(mean_place(heat), xy, atol=1e-3, rtol=0)
    read = read_points(heat[None].log())[0]
    torch.testing.assert_close(read[:, :2], xy, atol=0.01, rtol=0)


def test_of_two_far_places_the_likelier_one_is_read_and_never_their_middle():
    two = 0.6 * gaussians(torch.tensor([[0.2, 0.5]]), (20, 20), 0.03) + 0.4 * gaussians(
        torch.tensor([[0.8, 0.5]]), (20, 20), 0.03
    )
    x, y, sure = read_points(two[None].log())[0, 0].tolist()
    assert (x, y) == (pytest.approx(0.2, abs=0.02), pytest.approx(0.5, abs=0.02))
    assert 0.3 < sure < 0.6
    assert mean_place(two)[0, 0].item() == pytest.approx(0.44, abs=0.01)


def test_joints_are_cut_and_mirrored_as_the_images_are(images):
    crops = Crops(torch.tensor([[0.2, 0.1, 0.9, 0.8]]).repeat(12, 1), torch.arange(12) % 2 == 0)
    pixels = torch.from_numpy(np.array(images.pixels)).float()
    seen = cut_maps(torch.where(crops.mirrored[:, None, None, None], pixels.flip(3), pixels), crops.regions, (64, 64))
    targets, mirror, checked = TASK.targets(images, rows(images), crops, 64), TASK.mirror, 0
    for m in range(12):
        for j, (x, y, visible) in enumerate(targets[m].tolist()):
            if visible and 0.05 < x < 0.95 and 0.05 < y < 0.95:  # the spot of its own colour is there
                colour = mirror[j] if crops.mirrored[m] else j
                assert seen[m, colour, int(64 * y), int(64 * x)] > 200, (m, j)
                checked += 1
    assert checked > 12
    assert (targets[..., 2] == 0).any()  # what lies beyond the crop


@pytest.mark.parametrize(
    "pair",
    ["left_ear right_ear", "ear_l ear_r", "L-ear R-ear", "EarLeft EarRight", "earL earR", "leftEar rightEar"],
)
def test_left_and_right_are_exchanged_where_names_tell(pair):
    assert KeyPoints(3, (*pair.split(), "tail")).mirror == [1, 0, 2]


def test_names_that_tell_no_side_exchange_nothing():
    assert KeyPoints(4, ("bright", "left", "lip", "rip")).mirror == [0, 1, 2, 3]
    assert KeyPoints(len(KEYPOINTS), KEYPOINTS).mirror == list(range(len(KEYPOINTS)))  # near stays near
    assert KeyPoints(3).mirror == [0, 1, 2]


def test_joints_that_are_not_visible_cost_nothing(images):
    targets = TASK.targets(images, rows(images), whole_images(12), 32)
    assert targets[0, 2, 2] == 0
    logits = torch.randn(12, 3, 8, 8)
    other = logits.clone()
    other[0, 2] = 30 * torch.randn(8, 8)
    torch.testing.assert_close(TASK.loss(logits, targets), TASK.loss(other, targets))
    counts = [TASK.counts(TASK.decode(some, 32), TASK.truth(images)) for some in (logits, other)]
    assert np.array_equal(*counts)
    none = targets * torch.tensor([1.0, 1.0, 0.0])
    assert TASK.loss(logits.requires_grad_(), none).item() == 0


def test_the_loss_is_least_for_the_gaussian_itself_and_smoothing_flattens_it():
    targets = torch.tensor([[[0.3, 0.6, 1.0], [0.7, 0.2, 1.0], [0.0, 0.0, 0.0]]])
    heat = gaussians(targets[0, :, :2], (16, 16), TASK.spread).clamp(min=1e-12).log()[None]
    entropy = -(heat.exp() * heat).sum((2, 3))[0, :2].mean()
    assert TASK.loss(heat, targets).item() == pytest.approx(entropy.item(), abs=0.01)
    assert TASK.loss(heat.roll(3, 3), targets) > TASK.loss(heat, targets) + 1
    assert TASK.loss(heat, targets, smoothing=0.3) > TASK.loss(heat, targets) + 1


def test_consistency_is_the_divergence_of_heat_maps_a_mean_over_images_and_joints():
    plain, augmented = torch.randn(2, 2, 3, 4, 4)
    assert TASK.consistency(plain, plain + 1.0).item() == pytest.approx(0, abs=1e-6)
    p, q = (one.flatten(2).softmax(2) for one in (augmented, plain))
    torch.testing.assert_close(TASK.consistency(plain, augmented), (p * (p / q).log()).sum(2).mean())


def test_crops_that_lose_most_joints_become_the_whole_image_and_all_that_is_cut_follows(images):
    joints = images.joints.copy()
    joints[:6, :, :2] = 28  # all in the lower right corner
    cornered = replace(images, joints=joints)
    crops = Crops(torch.tensor([[0.0, 0.0, 0.7, 0.7]]).repeat(12, 1), torch.zeros(12, dtype=torch.bool))
    fitted = TASK.fit_crops(cornered, rows(images), crops)
    assert (fitted.regions[:6] == torch.tensor([0.0, 0.0, 1.0, 1.0])).all()
    kept = TASK.targets(cornered, rows(images), fitted, 32)[..., 2].sum(1)
    assert (kept >= 0.5 * torch.from_numpy(joints[..., 2].sum(1))).all()
    source = Source(cornered, task=TASK, min_crop=0.2)
    drawn_crops = source.crops(rows(images), torch.Generator().manual_seed(0))
    targets = source.targets(rows(images), drawn_crops, Student("resnet10t", TASK, image_px=32, **TINY), CPU)
    assert (targets[..., 2].sum(1) >= 0.5 * torch.from_numpy(joints[..., 2].sum(1))).all()


def test_pck_is_the_share_of_joints_within_a_tenth_of_the_longer_side_worked_by_hand(images):
    two = images.select([0, 1])
    told = two.joints.copy()
    told[0, 0, 0] += 3.1  # of a box of 32 x 20 px: 3.2 px are right
    told[1, 0, 1] -= 3.3
    told[1, 2, :2] += 20
    score = TASK.score(told, two)
    assert score.per_class == pytest.approx([0.5, 1, 0])
    assert score.value == pytest.approx(3 / 5)  # the joint that is not annotated does not count
    wanted = 100 * np.mean([3.1, 0, 3.3, 0, np.hypot(20, 20)]) / 32
    assert score.details["error, % of box"] == pytest.approx(wanted, rel=1e-4)


def test_the_trivial_answer_is_the_mean_of_each_joint_over_the_images_that_show_it(images):
    told = TASK.trivial(images, 2)["mean pose"]
    assert told.shape == (2, 3, 3)
    assert told[0, 0, :2] == pytest.approx(images.joints[:, 0, :2].mean(0))
    assert told[1, 2, :2] == pytest.approx(images.joints[1:, 2, :2].mean(0))  # not annotated in the first
    unseen = replace(images, joints=images.joints * np.float32([1, 1, 0]))
    assert TASK.trivial(unseen, 1)["mean pose"][0, 0].tolist() == [16, 16, 1]


def test_without_a_box_the_visible_joints_tell_how_large_the_animal_is(images):
    free = replace(images, boxes=None, box_labels=None)
    seen = free.joints[3, :, :2]
    assert TASK.truth(free)[3, 0, 3] == pytest.approx((seen.max(0) - seen.min(0)).max())
    hidden = replace(free, joints=free.joints * np.float32([1, 1, 0]))
    with pytest.raises(ValueError, match="no visible joint at all"):
        TASK.check(hidden)


def test_images_without_joints_and_joints_of_another_task_are_refused(images, packed):
    with pytest.raises(ValueError, match=r"has no joints: KeyPoints learns Sample\.joints"):
        TASK.check(packed)
    with pytest.raises(ValueError, match="tells 3 joints, but the task has 2"):
        KeyPoints(2).check(images)
    for wrong in ({"width": 12}, {"spread": 0.0}):
        with pytest.raises(ValueError, match=f"KeyPoints.{next(iter(wrong))}="):
            KeyPoints(3, **wrong)


def test_a_pack_moves_joints_into_the_square_and_those_outside_are_not_visible():
    pixels, joints = np.zeros((20, 40, 3), np.uint8), np.array([[10, 5, 1], [39, 19, 1], [0, 0, 0]], np.float32)
    listed = _Listed([Sample(pixels, UNLABELLED, "a", joints=joints)])
    padded = pack(listed, 20, progress=False)
    assert padded.joints[0].tolist() == [[5, 7.5, 1], [19.5, 14.5, 1], [0, 5, 0]]
    cropped = pack(listed, 20, fit="crop", progress=False)
    assert cropped.joints[0, :, 2].tolist() == [1, 0, 0]
    assert "joints known" in repr(cropped)
    assert pack(listed, 20, progress=False)[0].joints.tolist() == padded.joints[0].tolist()


class _Listed:
    classes, fingerprint = TASK.classes, "listed"

    def __init__(self, samples: list[Sample]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


def test_farmyard_gives_joints_with_the_box_of_the_animal_and_other_labels_keep_their_fingerprints():
    farm = Farmyard("target", "val", 4, image_px=48, labels="joints")
    assert (farm.classes, len(farm[0].joints)) == (KEYPOINTS, 17)
    assert farm[1].box_labels.tolist() == [UNLABELLED]
    images = pack(farm, 48, progress=False)
    assert np.array_equal(images.joints[2], farm[2].joints)
    plain = Farmyard("target", "val", 4, image_px=48)
    assert plain[0].joints is None
    assert plain.fingerprint + "/joints" == farm.fingerprint
    assert np.array_equal(plain[3].image, farm[3].image)
    with pytest.raises(ValueError, match="labels = 'joints' is for kind = 'single'"):
        Farmyard(kind="scene", labels="joints")
    assert KeyPoints.for_images(images).names == KEYPOINTS


def test_a_student_learns_poses_with_both_predictions_is_drawn_saved_and_its_prototypes_removed(images, bank, tmp_path):
    student = Student(
        "resnet10t", TASK, bank, feature_augmentation=FeatureAugmentationConfig(), image_px=32, grid=16, **TINY
    )
    config = DistillConfig(
        steps=120, batch_size=12, lr=1e-2, assignment_weight=0.0, feature_weight=0.0, consistency_weight=0.1, flip=False
    )
    history = distill(student, images, config=config, val=images, cpu=True, progress=False, log_every=1)
    scores = history.scores
    assert {"task", "augmented", "consistency"} < history.rows[-1].keys()
    assert "PCK at 0.1: plain z" in repr(scores)
    assert min(scores.plain, scores.augmented) > 0.6
    assert scores.predictions.shape == (12, 3, 3)
    loaded = Student.load(student.save(tmp_path / "student.safetensors"))
    assert loaded.task == TASK
    assert np.allclose(predict(loaded, images), scores.predictions, atol=1e-3)
    assert evaluate(loaded, images).details.keys() == {"error, % of box"}
    figure = plot_predictions(scores, images, TASK, count=2)
    dots = [len(ax.lines) for ax in figure.axes]
    assert dots == [0, 0, *[2, 3] * 3]  # image; truth, z and z+ without the joint that is not annotated
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(TASK.classes)
    effects = prototype_effects(student, bank, images, groups={"two": [0, 1]}, resamples=50, progress=False)
    assert (effects.metric, effects.columns) == (TASK.metric, ("all classes", *TASK.classes))
    assert np.isfinite(effects.low).all()  # a bootstrap of counts


def test_the_teachers_side_gives_heat_maps_as_soft_targets_of_labelled_and_unlabelled_images(images, features, bank):
    seen = replace(features, images=replace(images, ids=features.images.ids))
    ends = []
    for weight in (0.01, 30.0):  # this teacher has seen other images: what it thinks is far from the labels
        student = Student("resnet10t", TASK, bank, image_px=32, grid=8, **TINY)
        config = DistillConfig(steps=30, batch_size=6, unlabelled_batch=6, soft_weight=weight, soft_steps=20, lr=1e-2)
        history = distill(
            student, seen.images, features=seen, unlabelled=seen, config=config, cpu=True, progress=False, log_every=1
        )
        ends.append(np.mean(history.curve("soft")[1][-5:]))
    assert ends[1] < 0.5 * ends[0]


def test_the_recipe_is_of_farmyards_joints():
    config = task_settings("keypoints")
    assert config.task.kind == "keypoints"
    assert config.distill.feature_weight > 0
