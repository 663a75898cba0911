import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from fake_device import AWAY, fake_device
from torch.nn import functional as F

from prockd.datasets import PackedImages
from prockd.prototypes import discovery as module
from prockd.prototypes.bank import PrototypeBank
from prockd.prototypes.discovery import (
    balanced,
    cluster,
    discover,
    draw_patches,
    read_patches,
    start_from_pca,
    train_bank,
)
from prockd.settings.method import DiscoverConfig
from prockd.teachers.features import PatchFeatures

SMALL = DiscoverConfig(num_prototypes=6, embed_dim=16, steps=4, batch_size=4)


def discovered(features: PatchFeatures, **changes) -> PrototypeBank:
    return discover(features, config=SMALL.replace(**changes), progress=False)


@torch.no_grad()
def with_nan(features: PatchFeatures, image: int) -> PatchFeatures:
    maps = [np.array(m) for m in features.maps]
    maps[1][image, 0, 3, 1, 2] = np.nan
    return replace(features, maps=tuple(maps))


def descriptors(bank: PrototypeBank, features: PatchFeatures) -> torch.Tensor:
    """Cosine between the residual descriptors of every two images."""
    with torch.no_grad():
        u = bank.embed(features.fused(np.arange(len(features))))
        v = F.normalize(F.normalize(bank.residuals(u), dim=-1).flatten(1), dim=1)
    i, j = torch.triu_indices(len(v), len(v), 1)
    return (v @ v.T)[i, j]


def test_a_uniform_start_gives_all_images_nearly_one_descriptor_and_k_means_does_not(features):
    assert descriptors(discovered(features, init="uniform", steps=0), features).mean() > 0.95
    assert descriptors(discovered(features, init="kmeans", steps=0), features).mean() < 0.5


def test_k_means_prototypes_are_the_middles_of_the_patches_assigned_to_them(features):
    bank = discovered(features, steps=0, salient=False)  # all patches weigh the same
    with torch.no_grad():
        unit = F.normalize(bank.embed(features.fused(np.arange(12))).flatten(0, 1), dim=-1)
        assigned = bank.assign(unit[None])[0].argmax(1)
    means = torch.stack([unit[assigned == k].mean(0) for k in range(6)])
    assert (means - bank.prototypes).norm(dim=1).max() < 0.02


def test_the_assignment_follows_parts_and_not_what_a_whole_image_or_a_view_adds(features):
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 2, (12, 8, 8))
    first = np.zeros((12, 8, 8, 8))
    first[..., 0] = 2 * kinds - 1  # the part
    first[..., 1] = 3 * rng.normal(size=(12, 1, 1))  # the style of the image
    first += rng.normal(0, 0.05, first.shape)
    second = first[:, :, ::-1].copy()
    first[..., 2] += 3 * rng.normal(size=(12, 8, 8))  # what another view changes
    second[..., 2] += 3 * rng.normal(size=(12, 8, 8))
    maps = np.stack([first, second], 1).transpose(0, 1, 4, 2, 3).astype(np.float16)
    bank = discovered(replace(features, maps=(maps,)), num_prototypes=2, embed_dim=4, steps=0, salient=False)
    assigned = bank.assignments(replace(features, maps=(maps,))).argmax(-1).numpy()
    agreement = (assigned == kinds.reshape(12, 64)).mean()
    assert max(agreement, 1 - agreement) > 0.95


def test_patches_of_known_kinds_are_told_apart(features):
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 3, (12, 8, 8))
    centres = rng.normal(size=(3, 8))
    first = (centres[kinds] + rng.normal(0, 0.05, (12, 8, 8, 8))).transpose(0, 3, 1, 2).astype(np.float16)
    with_kinds = replace(features, maps=(np.stack([first, first[..., ::-1]], 1),))
    bank = discovered(with_kinds, num_prototypes=3, steps=20, salient=False)  # random patches have no subject
    assigned = bank.assignments(with_kinds).argmax(-1).numpy()
    of_kind = [set(assigned[kinds.reshape(12, 64) == kind].tolist()) for kind in range(3)]
    assert sorted(map(len, of_kind)) == [1, 1, 1]
    assert len(set.union(*of_kind)) == 3


def test_training_makes_a_patch_and_its_mirror_image_foretell_each_others_prototype(features):
    @torch.no_grad()
    def surprise(bank: PrototypeBank) -> float:
        unit = [F.normalize(bank.embed(features.fused(np.arange(12), view)), dim=-1) for view in ("plain", "mirrored")]
        there, back = bank.assigner(unit[0]), bank.assigner(unit[1].unflatten(1, (8, 8)).flip(2).flatten(1, 2))
        return float(-(balanced(back.flatten(0, 1)) * there.flatten(0, 1).log_softmax(-1)).sum(-1).mean())

    assert surprise(discovered(features, steps=80, lr=5e-3, sharpness=8.0)) < 0.97 * surprise(
        discovered(features, steps=0, sharpness=8.0)
    )


@pytest.mark.parametrize("sharpness", [8, 30, 100])
def test_however_sharp_every_patch_keeps_an_assignment_and_every_prototype_its_share(sharpness):
    generator = torch.Generator().manual_seed(0)
    unit = F.normalize(torch.randn(768, 16, generator=generator), dim=1)
    centres = F.normalize(torch.randn(48, 16, generator=generator), dim=1)
    q = balanced(-sharpness * torch.cdist(unit, centres).square())
    assert q.isfinite().all()
    torch.testing.assert_close(q.sum(1), torch.ones(768))
    shares = q.sum(0) / 16
    assert 0.5 < shares.min() < shares.max() < 2


def test_balanced_assignments_sum_to_one_and_use_every_prototype():
    q = balanced(torch.randn(400, 5, generator=torch.Generator().manual_seed(0)) + torch.tensor([4.0, 0, 0, 0, 0]))
    assert torch.allclose(q.sum(1), torch.ones(400), atol=1e-5)
    assert (q.mean(0) > 0.15).all()


def test_bars_beside_a_padded_picture_are_never_sampled(tmp_path):
    from prockd import Sample, Teacher, extract
    from prockd.datasets import pack

    class Wide:
        classes, fingerprint = ("a",), "wide pictures"

        def __len__(self):
            return 3

        def __getitem__(self, index):
            rng = np.random.default_rng(index)
            return Sample(rng.integers(0, 255, (16, 32, 3), dtype=np.uint8), 0, str(index))

    teacher = Teacher("resnet10t", image_px=32, channels=(8, 8, 8, 8), stem_width=8)
    padded = pack(Wide(), 32, fit="pad", root=tmp_path, progress=False)
    np.testing.assert_allclose(padded.pictured, np.tile([0, 0.25, 1, 0.75], (3, 1)))
    features = extract(teacher, padded, views=("plain",), root=tmp_path, progress=False)
    h, w = features.grid
    drawn = draw_patches(features, 10_000, 0)
    assert len(drawn) == len(drawn.active) == 3 * h * w // 2
    assert torch.cat(list(read_patches(features, drawn)), 1).shape == (1, len(drawn), features.width)
    with pytest.raises(ValueError, match=f"is too many: there are {3 * h * w // 2} patches of 3 images"):
        discover(features, 3 * h * w // 2 + 1, progress=False)


def test_the_pca_is_that_of_salient_patches_and_half_whitened():
    generator = torch.Generator().manual_seed(0)
    salient = torch.arange(2000) % 2 == 0
    patches = torch.randn(2000, 6, generator=generator) * 0.01
    patches[salient, 0] += torch.randn(1000, generator=generator) * 4
    patches[salient, 1] += torch.randn(1000, generator=generator)
    patches[~salient, 2] += torch.randn(1000, generator=generator) * 20  # much variance that nobody asked for
    bank = PrototypeBank(2, 6, 2)
    start_from_pca(bank, patches, salient.float())
    assert bank.fuse.weight.detach().abs().argmax(1).tolist() == [0, 1]
    seen = bank.fuse(patches[salient]).detach()
    torch.testing.assert_close(seen.std(0), torch.tensor([2.0, 1.0]), atol=0.15, rtol=0)  # 4 and 1, half whitened
    torch.testing.assert_close(seen.mean(0), torch.zeros(2), atol=0.01, rtol=0)


@pytest.mark.parametrize("init", ["kmeans", "uniform"])
def test_the_same_seed_gives_the_same_bank_and_another_seed_another(features, init):
    first, second = (discovered(features, init=init).state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    other = discovered(features, init=init, seed=1).state_dict()
    assert not torch.equal(first["prototypes"], other["prototypes"])


def test_stop_ends_the_refinement_before_its_next_step(features):
    asked = []
    half = discover(features, config=SMALL, progress=False, stop=lambda: bool(asked.append(0)) or len(asked) > 2)
    assert len(asked) == 3
    assert not torch.equal(half.assigner.weight, discovered(features).assigner.weight)
    assert torch.isfinite(half.prototypes).all()


def test_discovery_needs_no_labels(features):
    hidden = replace(features, images=replace(features.images, labels=np.full(12, -1)))
    labelled, unlabelled = discovered(features).state_dict(), discovered(hidden).state_dict()
    assert all(torch.equal(labelled[key], unlabelled[key]) for key in labelled)


def test_features_without_mirror_images_are_enough(features):
    single = replace(features, maps=tuple(m[:, :1] for m in features.maps), views=("plain",))
    assert discovered(single).assignments(single).shape == (12, 64, 6)


def test_prototypes_may_be_wider_than_the_features(features):
    assert discovered(features, embed_dim=64).assignments(features).isfinite().all()


def test_num_prototypes_stands_above_the_config(features):
    bank = discover(features, 3, config=SMALL, progress=False)
    assert (bank.num_prototypes, bank.embed_dim, bank.names) == (3, 16, ["p00", "p01", "p02"])
    assert not bank.training


def test_more_prototypes_than_patches_are_refused_with_both_numbers(features):
    few = features.select([0])
    with pytest.raises(ValueError, match="num_prototypes=65 is too many: there are 64 patches of 1 images"):
        discovered(few, num_prototypes=65)
    with pytest.raises(ValueError, match="num_prototypes=31 is too many: max_patches=30 leaves 30 patches of 1 images"):
        discovered(few, num_prototypes=31, max_patches=30)


@pytest.mark.parametrize("init", ["kmeans", "uniform"])
def test_features_that_are_not_finite_are_refused_with_the_image(features, init):
    with pytest.raises(ValueError, match=f"image '{features.images.ids[7]}' are not finite"):
        discovered(with_nan(features, 7), init=init, batch_size=12)


# The caller's PyTorch


def test_the_random_generator_is_left_as_it_was_even_by_an_error(features):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    discovered(features)
    with pytest.raises(ValueError, match="too many"):
        discovered(features.select([0]), num_prototypes=65)
    assert torch.equal(torch.get_rng_state(), before)


def test_no_gradient_is_left_or_computed_that_no_optimiser_reads(features, monkeypatch):
    seen = []
    step = torch.optim.AdamW.step

    def watched(optimiser, *args, **kwargs):
        seen.append([bank.fuse.weight.grad, bank.fuse.bias.grad, bank.prototypes.grad])
        return step(optimiser, *args, **kwargs)

    bank = discovered(features, steps=0)
    unit = torch.nn.functional.normalize(torch.randn(2, 50, 16), dim=-1)
    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    config = DiscoverConfig(steps=3, batch_size=4, lr=1e-3)
    train_bank(bank, features, unit, torch.ones(50), config, progress=False)
    assert seen == [[None, None, None]] * 3
    assert all(parameter.grad is None for parameter in bank.parameters())
    assert all(parameter.requires_grad for parameter in bank.parameters())


def test_a_default_device_of_the_caller_changes_nothing(features):
    here = discovered(features).state_dict()
    with fake_device() as device, torch.device(device):
        there = discovered(features).state_dict()
    assert all(torch.equal(there[key], here[key]) for key in here)


def test_a_bank_on_another_device_is_refined_there(features, bank):
    unit = F.normalize(bank.embed(features.fused(np.arange(12))).detach().flatten(0, 1)[None], dim=-1)
    config = DiscoverConfig(steps=3, batch_size=4, lr=1e-3)
    with fake_device() as device:
        away = copy.deepcopy(bank).to(device)
        for one in (bank, away):
            torch.manual_seed(0)
            cluster(one, unit, torch.ones(768), torch.arange(12).repeat_interleave(64), sharpness=8.0, seed=0)
            train_bank(one, features, unit, torch.ones(768), config, progress=False)
        assert away.prototypes.device == AWAY
        torch.testing.assert_close(away.cpu().state_dict(), bank.state_dict())


def of_kinds(count: int = 41) -> PatchFeatures:
    """Patches of six kinds, the same in every process."""
    rng = np.random.default_rng(0)
    kinds = 3 * rng.standard_normal((6, 12))[rng.integers(0, 6, (count, 5, 5))]
    maps = (kinds[:, None] + 0.3 * rng.standard_normal((count, 3, 5, 5, 12))).transpose(0, 1, 4, 2, 3)
    ids, pixels = tuple(map(str, range(count))), np.zeros((count, 3, 8, 8), np.uint8)
    images = PackedImages(pixels, np.zeros(count, np.int64), ids, ("a",), "kinds")
    return PatchFeatures((maps.astype(np.float16),), images, "t", (0,), ("plain", "mirrored", "recoloured"))


def one_of_two(rank: int, path: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{path}/store", rank=rank, world_size=2)
    module.LEARNED_FROM, seen, read = 300, [], PatchFeatures.patches
    PatchFeatures.patches = lambda self, images, *rest: seen.extend(images) or read(self, images, *rest)
    bank = discover(of_kinds(), config=SMALL.replace(steps=0), progress=False, together=True)
    PatchFeatures.patches = read
    refined = discover(of_kinds(), config=SMALL, progress=False, together=True)
    torch.save((bank.state_dict(), refined.state_dict(), len(set(seen))), f"{path}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_read_half_of_the_images_each_and_find_what_one_finds(tmp_path, monkeypatch):
    torch.multiprocessing.start_processes(one_of_two, (str(tmp_path),), nprocs=2, start_method="spawn")
    monkeypatch.setattr(module, "LEARNED_FROM", 300)
    alone = [discover(of_kinds(), config=SMALL.replace(steps=n), progress=False).state_dict() for n in (0, SMALL.steps)]
    for rank in range(2):
        *banks, images = torch.load(tmp_path / f"{rank}.pt")
        assert images <= 22, "of 41"
        for bank, whole in zip(banks, alone, strict=True):
            for name, value in whole.items():
                torch.testing.assert_close(bank[name], value, rtol=1e-3, atol=1e-4)
