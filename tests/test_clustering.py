from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TINY

from prockd._types import UNLABELLED
from prockd.datasets import Arrays, pack
from prockd.datasets.transforms import whole_images
from prockd.prototypes.bank import PrototypeBank
from prockd.settings.method import ClusterConfig
from prockd.teachers.teacher import Teacher
from prockd.training.adaptation import learn_clusters
from prockd.training.clustering import (
    LEAST_WEIGHT,
    PairSource,
    PatchClusters,
    aligned,
    balanced_in,
    evenly,
    middle_weights,
    nearest_elsewhere,
    rareness,
)

SMALL = ClusterConfig(
    steps=8, batch_size=6, image_px=48, crop_px=32, num_prototypes=6, embed_dim=8, aligned=4, frozen_layers=0,
    lr=3e-3, head_rate=1.0,
)  # fmt: skip
CPU = {"cpu": True, "progress": False, "log_every": 1}


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    torch.manual_seed(0)
    return Teacher("resnet10t", image_px=32, layers=(1, 2, 3), **TINY)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Twenty pictures of blocks of other colours."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, 6, 6, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    return pack(Arrays(pixels, np.arange(20) % 2, ("even", "odd")), 48, root=tmp_path_factory.mktemp("blocks"))


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Pictures in which each pixel says where it is: red from the left, green from the top, and blue everywhere."""
    at = ((np.arange(64) + 0.5) / 64 * 255).astype(np.uint8)
    x, y = np.meshgrid(at, at)
    pixels = np.stack([x, y, np.full_like(x, 255)], -1)[None].repeat(8, 0)
    pixels[np.arange(8), 0, 0, 0] = np.arange(8)  # no two are the same image
    return pack(Arrays(pixels, [0] * 8, ("place",)), 64, root=tmp_path_factory.mktemp("places"))


def source_of(images, config=SMALL, groups=None) -> PairSource:
    return PairSource(images, config, np.zeros(len(images), np.int64) if groups is None else np.asarray(groups))


def pairs_of(source, learner, count=8, seed=0):
    rows = np.tile(np.arange(count), 2)
    crops = source.crops(np.arange(count), torch.Generator().manual_seed(seed))
    batch = source.batch(rows, crops, learner, torch.device("cpu"))
    return batch, source.targets(rows, crops, learner, torch.device("cpu")), crops


def learner_of(teacher, config=SMALL, **options) -> PatchClusters:
    return PatchClusters(teacher, PrototypeBank(config.num_prototypes, 48, config.embed_dim), config, **options)


def weights_of(module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("zoom", [0.0, 1.0])
def test_aligned_patches_of_two_crops_are_the_same_place_of_the_picture(places, teacher, zoom):
    config = SMALL.replace(image_px=64, crop_px=64, min_crop=0.4, zoom=zoom)
    batch, pairs, crops = pairs_of(source_of(places, config), learner_of(teacher, config))
    assert 0 < crops.mirrored[8:].sum() < 8, "some second crops are mirrored"
    assert not crops.mirrored[:8].any()
    patches, weights, owners = aligned(batch.images, pairs, 4)  # an "identity network": a patch is its colour
    assert patches.shape == (2, len(weights), 3)
    assert len(weights) >= 6 * 16
    assert owners.unique_consecutive().tolist() == sorted(set(owners.tolist()))
    where = patches[..., :2] / patches[..., 2:]  # x, y in 0..1 of the picture
    assert (where[0] - where[1]).abs().max() < 0.05
    low, high = pairs.overlap[:, None, :2], pairs.overlap[:, None, 2:]
    kept = (high - low).amin((1, 2)) > 0.15
    middle = low[kept] + (high - low)[kept] * 0.5
    torch.testing.assert_close(where[0].view(-1, 16, 2).mean(1), middle[:, 0], atol=0.03, rtol=0)
    assert torch.equal(owners.view(-1, 16)[:, 0], torch.nonzero(kept).flatten())


def test_enlarged_crops_lie_inside_the_first_and_are_small(images):
    for zoom, inside in ((1.0, 50), (0.0, 5)):
        crops = source_of(images, SMALL.replace(zoom=zoom)).crops(np.arange(50), torch.Generator().manual_seed(1))
        x0, y0, x1, y1 = crops.regions[50:].unbind(1)
        x0, x1 = torch.where(crops.mirrored[50:], 1 - x1, x0), torch.where(crops.mirrored[50:], 1 - x0, x1)
        first = crops.regions[:50]
        is_inside = (x0 >= first[:, 0]) & (y0 >= first[:, 1]) & (x1 <= first[:, 2]) & (y1 <= first[:, 3])
        assert (is_inside.sum() == 50) if zoom else (is_inside.sum() <= inside + 10)
        area, whole = ((r[:, 2] - r[:, 0]) * (r[:, 3] - r[:, 1]) for r in (crops.regions[50:], first))
        assert not zoom or (area < 0.41 * whole).all()


def test_patches_near_the_middle_of_the_picture_weigh_most_and_bars_nothing():
    whole, wide = torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[0.0, 0.25, 1, 0.75]])
    weights = middle_weights(whole, whole, (8, 8)).view(8, 8)
    assert weights[3, 4] == 1
    assert weights[0, 0] == weights[7, 3] == 0.25
    assert weights.min() >= LEAST_WEIGHT
    padded = middle_weights(whole, wide, (8, 8)).view(8, 8)
    assert not padded[:2].any()
    assert not padded[6:].any()
    assert (padded[2:6] > 0).all()
    assert padded[3, 4] == 1


def test_the_nearest_patch_is_looked_for_in_other_pictures():
    patches, owners = torch.eye(3)[[0, 0, 1, 2]], torch.tensor([0, 1, 1, 2])
    assert nearest_elsewhere(patches, patches, owners, owners)[:2].tolist() == [1, 0]
    assert all(owners[nearest_elsewhere(patches, patches, owners, owners)] != owners)
    alone = torch.zeros(4, dtype=torch.long)
    assert nearest_elsewhere(patches, patches, alone, alone).shape == (4,)


def test_salient_patches_count_more_and_neighbours_are_a_term_of_their_own(images, teacher):
    config = SMALL.replace(salience=2.0, neighbour_weight=0.5)
    learner = learner_of(teacher, config)
    batch, pairs, _ = pairs_of(source_of(images, config), learner)
    predictions, maps = learner(batch)
    assert predictions["saliency"].shape == (16, 1, *learner.grid)
    assert not predictions["saliency"].requires_grad
    terms = learner.terms(predictions, maps, pairs)
    assert set(terms) == {"clusters", "neighbours", "drift"}
    even = learner.terms(predictions | {"saliency": torch.ones_like(predictions["saliency"])}, maps, pairs)
    assert even["clusters"] != terms["clusters"]
    torch.autograd.backward(terms["neighbours"])
    assert learner.bank.prototypes.grad.abs().sum() > 0


def test_the_balance_of_each_group_uses_all_prototypes():
    torch.manual_seed(0)
    groups = torch.arange(600) % 3
    scores = torch.randn(600, 4) + 6 * torch.nn.functional.one_hot(groups, 4)  # each group has a favourite
    weights = torch.rand(600) + 0.1
    assigned = balanced_in(groups, scores, weights)
    torch.testing.assert_close(assigned.sum(1), torch.ones(600))
    share = lambda q, g: (q * weights[:, None])[groups == g].sum(0) / weights[groups == g].sum()  # noqa: E731
    for group in range(3):
        assert (share(assigned, group) - 0.25).abs().max() < 0.05
    together = balanced_in(torch.zeros_like(groups), scores, weights)
    assert max(share(together, group).max() for group in range(3)) > 0.6


def test_patches_of_rare_prototypes_weigh_more_and_all_together_as_much():
    assigned = torch.eye(2)[torch.tensor([0] * 9 + [1])].repeat(2, 1, 1)
    weights = rareness(assigned, torch.ones(10), 0.5)
    torch.testing.assert_close(weights.mean(), torch.tensor(1.0))
    torch.testing.assert_close(weights[9] / weights[0], torch.tensor(3.0))
    torch.testing.assert_close(rareness(assigned, torch.ones(10), 0.0), torch.ones(10))


def test_gradients_reach_prototypes_w_c_and_backbone_and_never_the_teacher(images, teacher):
    learner, before = learner_of(teacher), weights_of(teacher)
    batch, pairs, _ = pairs_of(source_of(images), learner)
    predictions, maps = learner(batch)
    assert predictions["drift"].shape == (16,)
    assert not maps
    learner.total(learner.terms(predictions, maps, pairs)).backward()
    stages = [list(learner.backbone.get_submodule(name).parameters()) for name in ("conv1", "layer1", "layer3")]
    for parameters in (*stages, [learner.bank.fuse.weight], [learner.bank.prototypes]):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters)
    assert all(p.grad is None for p in (*teacher.parameters(), *learner.before.parameters()))
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


@pytest.mark.parametrize(("frozen_layers", "frozen_norms"), [(1, True), (1, False), (2, False)])
def test_what_lies_before_the_frozen_layers_stays_and_what_follows_learns(images, teacher, frozen_layers, frozen_norms):
    config = SMALL.replace(frozen_layers=frozen_layers, frozen_norms=frozen_norms, steps=2)
    learner, _ = learn_clusters(teacher, images, config, **CPU)
    stays = ("conv1", "bn1", "layer1", *(["layer2"] if frozen_layers == 2 else []))
    for name, old in teacher.backbone.state_dict().items():
        new = learner.backbone.state_dict()[name]
        is_statistic = "running_" in name or "num_batches" in name
        if name.startswith(stays) or (is_statistic and frozen_norms):
            assert torch.equal(old, new), name
        elif name.startswith("layer3"):
            assert not torch.equal(old, new), name


def test_the_loss_falls_and_repeats_with_the_seed(images, teacher):
    config = SMALL.replace(steps=40, recoloured=0.0, drift_weight=0.0)
    first, second = (learn_clusters(teacher, images, config, **CPU)[1].curve("clusters")[1] for _ in range(2))
    assert first == second
    assert np.mean(first[-5:]) < np.mean(first[:5]) - 0.1


def test_shares_of_two_processes_are_pairs_of_their_own_and_give_the_whole_together(images, teacher):
    learner, source = learner_of(teacher, SMALL.replace(recoloured=0.0)).train(), source_of(images)
    rows, crops = np.tile(np.arange(8), 2), source.crops(np.arange(8), torch.Generator().manual_seed(0))

    def predicted(share: slice) -> dict[str, torch.Tensor]:
        return learner(source.batch(rows[share], crops[share], learner, torch.device("cpu")))[0]

    whole, shares = predicted(slice(None)), [predicted(slice(rank, None, 2)) for rank in range(2)]
    for name, value in whole.items():
        joined = torch.empty_like(value)
        for rank, share in enumerate(shares):
            joined[rank::2] = share[name]
        torch.testing.assert_close(joined, value)


def test_drift_is_held_by_its_weight(images, teacher):
    def drift(weight: float) -> float:
        config = SMALL.replace(steps=15, drift_weight=weight, recoloured=0.0)
        return learn_clusters(teacher, images, config, **CPU)[1].curve("drift")[1][-1]

    free, held = drift(1e-6), drift(20.0)
    assert held < 0.7 * free


def test_no_label_and_no_part_is_read_where_species_have_no_weight(images, teacher):
    unlabelled = replace(images, labels=np.full(20, UNLABELLED), parts=None)
    shuffled = replace(images, labels=images.labels[::-1].copy(), parts=np.full((20, 48, 48), 3, np.uint8))
    curves = [
        learn_clusters(teacher, given, SMALL.replace(steps=3), **CPU)[1].curve("loss")[1]
        for given in (images, unlabelled, shuffled)
    ]
    assert curves[0] == curves[1] == curves[2]


def test_species_are_learned_beside_clusters_and_a_label_outside_is_refused(images, teacher):
    config = SMALL.replace(species_weight=1.0, steps=2)
    learner, history = learn_clusters(teacher, images, config, num_classes=2, **CPU)
    assert {"clusters", "species", "drift"} <= set(history.rows[-1])
    assert learner.species is not None
    wrong = replace(images, labels=images.labels + 1)
    with pytest.raises(ValueError, match=r"has label 2, but the task has classes 0\.\.1"):
        learn_clusters(teacher, wrong, config, num_classes=2, **CPU)


def test_groups_take_turns_however_many_images_they_have(images):
    source = source_of(images, groups=[0] * 15 + [1] * 2 + [2] * 3)
    steps = np.concatenate([source.rows(4, 0, step) for step in range(15)])
    assert np.bincount(source.groups.numpy()[steps]).tolist() == [20, 20, 20]
    assert set(steps.tolist()) == set(range(20))
    assert (
        source.rows(4, 0, 7).tolist() == source_of(images, groups=[0] * 15 + [1] * 2 + [2] * 3).rows(4, 0, 7).tolist()
    )


def test_prototypes_start_as_centres_of_patches_of_all_groups_alike():
    groups = np.array([0] * 90 + [1] * 5 + [2] * 5)
    taken = evenly(groups, 12, np.random.default_rng(0))
    assert len(set(taken)) == 12
    assert np.bincount(groups[taken]).tolist() == [4, 4, 4]
    assert sorted(evenly(groups, 500, np.random.default_rng(0))) == list(range(100))


def test_whole_images_are_their_own_crops(images, teacher):
    learner, source = learner_of(teacher), source_of(images, groups=np.arange(20) % 4)
    pairs = source.targets(np.array([3, 6]), whole_images(2), learner, torch.device("cpu"))
    assert pairs.groups.tolist() == [3, 2]
    assert pairs.regions.tolist() == [[0, 0, 1, 1]] * 2


def test_crops_that_never_meet_cost_nothing_and_break_nothing(images, teacher):
    learner, source = learner_of(teacher), source_of(images)
    batch, pairs, _ = pairs_of(source, learner, 2)
    apart = torch.tensor([[0.0, 0, 0.4, 0.4]] * 2 + [[0.6, 0.6, 1, 1]] * 2)
    terms = learner.terms(*learner(batch), replace(pairs, regions=apart))
    assert terms["clusters"] == 0
    learner.total(terms).backward()


def test_what_cannot_be_clustered_is_refused_in_one_sentence(images, teacher):
    cases = [
        (SMALL.replace(crop_px=64), "the images are 48 px, and crop_px=64"),
        (SMALL.replace(frozen_layers=3), "frozen_layers=3 of 3 layers"),
        (SMALL.replace(num_prototypes=4000), "num_prototypes=4000 is too many: 20 images at 32 px have"),
    ]
    for config, message in cases:
        with pytest.raises(ValueError, match=message):
            learn_clusters(teacher, images, config, **CPU)
    with pytest.raises(ValueError, match="3 groups for 20 images"):
        learn_clusters(teacher, images, SMALL, groups=["a", "b", "c"], **CPU)
