import json
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from prockd.prototypes.bank import PrototypeBank, nearest_patches, report
from prockd.prototypes.discovery import (
    BARS,
    INNER,
    OUTER,
    balanced,
    discover,
    saliency,
    sample_patches,
    start_from_pca,
    zones,
)
from prockd.settings.method import DiscoverConfig
from prockd.teachers.features import PatchFeatures

SMALL = DiscoverConfig(num_prototypes=6, embed_dim=16, steps=4, batch_size=4)


def found(features: PatchFeatures, **changes) -> PrototypeBank:
    return discover(features, config=SMALL.replace(**changes), progress=False)


def random_bank(num_prototypes: int = 6, embed_dim: int = 16, **options) -> PrototypeBank:
    torch.manual_seed(0)
    return PrototypeBank(num_prototypes, 48, embed_dim, **options)


@torch.no_grad()
def with_nan(features: PatchFeatures, image: int) -> PatchFeatures:
    maps = [np.array(m) for m in features.maps]
    maps[1][image, 0, 3, 1, 2] = np.nan
    return replace(features, maps=tuple(maps))


class LargestTensor(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation returned, in elements."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


# The module


def naive_residuals(bank: PrototypeBank, u: torch.Tensor) -> torch.Tensor:
    """sum_n a_nk (u_n - c_k) with every difference written out, a tensor of B*K*E*N numbers."""
    unit = F.normalize(u, dim=-1)
    differences = unit[:, None] - bank.prototypes[None, :, None]  # (B, K, N, E)
    return (bank.assign(u).transpose(1, 2).unsqueeze(-1) * differences).sum(2)


@pytest.mark.parametrize("disabled", [(), (0, 4)])
def test_the_descriptor_equals_the_naive_form(disabled):
    bank = random_bank().double()
    bank.enabled[list(disabled)] = False
    u = torch.randn(3, 20, 16, dtype=torch.double)
    torch.testing.assert_close(bank.residuals(u), naive_residuals(bank, u))
    v = F.normalize(F.normalize(naive_residuals(bank, u), dim=-1).flatten(1), dim=-1)  # intra- then L2-normalised
    joined = torch.stack([bank.reduce.weight @ row for row in v.unflatten(1, (6, 16)).flatten(0, 1)])
    torch.testing.assert_close(bank.describe(u), bank.expand(joined.unflatten(0, (3, 6)).flatten(1)))


def test_the_gradient_of_the_descriptor_equals_that_of_the_naive_form():
    bank = random_bank().double()
    u = torch.randn(2, 9, 16, dtype=torch.double, requires_grad=True)
    weights = torch.randn(2, 6, 16, dtype=torch.double)
    inputs = (u, bank.prototypes, bank.assigner.weight, bank.assigner.bias)
    fast = torch.autograd.grad((bank.residuals(u) * weights).sum(), inputs)
    slow = torch.autograd.grad((naive_residuals(bank, u) * weights).sum(), inputs)
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a, b)


def test_no_tensor_of_size_b_times_k_times_e_times_n_is_ever_made_forward_or_backward():
    B, K, E, N = 2, 48, 64, 144
    bank, u = random_bank(K, E), torch.randn(2, 144, 64, requires_grad=True)
    with LargestTensor() as fast:
        bank(u).square().sum().backward()
    with LargestTensor() as naive:
        naive_residuals(bank, u)
    assert naive.elements == B * K * E * N  # the meter sees it where it is made
    assert fast.elements <= B * K * E * N / 10


def test_rows_of_the_assignment_sum_to_one():
    a = random_bank().assign(torch.randn(3, 20, 16))
    assert a.shape == (3, 20, 6)
    assert a.min() >= 0
    torch.testing.assert_close(a.sum(-1), torch.ones(3, 20))


def test_an_assignment_does_not_depend_on_the_length_of_a_patch():
    bank, u = random_bank(), torch.randn(3, 20, 16)
    torch.testing.assert_close(bank.assign(u), bank.assign(7 * u))


def test_a_disabled_prototype_gets_nothing_anywhere_and_the_others_share_its_part():
    bank, u = random_bank(), torch.randn(3, 20, 16)
    before = bank.assign(u)
    bank.enabled[2] = False
    after = bank.assign(u)
    assert (after[..., 2] == 0).all()
    kept = before[..., bank.enabled]
    torch.testing.assert_close(after[..., bank.enabled], kept / kept.sum(-1, keepdim=True))
    assert (bank.residuals(u)[:, 2] == 0).all()
    assert bank(u).isfinite().all()


def test_every_patch_is_joined_with_the_descriptor_of_its_own_image():
    bank, u = random_bank(), torch.randn(2, 5, 16)
    g = bank(u)
    assert g.shape == u.shape
    by_hand = bank.transform(torch.cat([u[1, 3], bank.describe(u)[1]]))
    torch.testing.assert_close(g[1, 3], by_hand)
    torch.testing.assert_close(bank(u.flip(0)).flip(0), g)


def test_the_descriptor_does_not_depend_on_where_the_patches_lie():
    bank, u = random_bank(), torch.randn(2, 20, 16)
    torch.testing.assert_close(bank.describe(u[:, torch.randperm(20)]), bank.describe(u), atol=1e-5, rtol=1e-4)


def test_embed_keeps_the_order_of_the_grid():
    bank, fused = random_bank(), torch.randn(2, 48, 3, 5)
    u = bank.embed(fused)
    torch.testing.assert_close(u[1, 2 * 5 + 4], bank.fuse(fused[1, :, 2, 4]))
    assert (u < 0).any()
    assert (random_bank(rectify=True).embed(fused) >= 0).all()


def test_the_gradient_reaches_every_parameter_of_the_module():
    bank = random_bank()
    bank(bank.embed(torch.randn(2, 48, 4, 4))).square().sum().backward()
    for name, parameter in bank.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_the_factorised_projection_is_much_smaller_than_the_full_one():
    bank = random_bank(72, 128)
    projection = sum(p.numel() for m in (bank.reduce, bank.expand) for p in m.parameters())
    assert projection < 72 * 128 * 128 / 5


# Discovery


def descriptors(bank: PrototypeBank, features: PatchFeatures) -> torch.Tensor:
    """Cosine between the residual descriptors of every two images."""
    with torch.no_grad():
        u = bank.embed(features.fused(np.arange(len(features))))
        v = F.normalize(F.normalize(bank.residuals(u), dim=-1).flatten(1), dim=1)
    i, j = torch.triu_indices(len(v), len(v), 1)
    return (v @ v.T)[i, j]


def test_a_uniform_start_gives_all_images_nearly_one_descriptor_and_k_means_does_not(features):
    assert descriptors(found(features, init="uniform", steps=0), features).mean() > 0.95
    assert descriptors(found(features, init="kmeans", steps=0), features).mean() < 0.5


def test_k_means_prototypes_are_the_middles_of_the_patches_assigned_to_them(features):
    bank = found(features, steps=0, salient=False)  # all patches weigh the same
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
    bank = found(replace(features, maps=(maps,)), num_prototypes=2, embed_dim=4, steps=0, salient=False)
    assigned = bank.assignments(replace(features, maps=(maps,))).argmax(-1).numpy()
    agreement = (assigned == kinds.reshape(12, 64)).mean()
    assert max(agreement, 1 - agreement) > 0.95


def test_patches_of_known_kinds_are_told_apart(features):
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 3, (12, 8, 8))
    centres = rng.normal(size=(3, 8))
    first = (centres[kinds] + rng.normal(0, 0.05, (12, 8, 8, 8))).transpose(0, 3, 1, 2).astype(np.float16)
    known = replace(features, maps=(np.stack([first, first[..., ::-1]], 1),))
    bank = found(known, num_prototypes=3, steps=20)
    assigned = bank.assignments(known).argmax(-1).numpy()
    of_kind = [set(assigned[kinds.reshape(12, 64) == kind].tolist()) for kind in range(3)]
    assert sorted(map(len, of_kind)) == [1, 1, 1]
    assert len(set.union(*of_kind)) == 3


def test_training_makes_a_patch_and_its_mirror_image_foretell_each_others_prototype(features):
    @torch.no_grad()
    def surprise(bank: PrototypeBank) -> float:
        unit = [F.normalize(bank.embed(features.fused(np.arange(12), view)), dim=-1) for view in (0, 1)]
        there, back = bank.assigner(unit[0]), bank.assigner(unit[1].unflatten(1, (8, 8)).flip(2).flatten(1, 2))
        return float(-(balanced(back.flatten(0, 1)) * there.flatten(0, 1).log_softmax(-1)).sum(-1).mean())

    assert surprise(found(features, steps=80, lr=5e-3)) < 0.95 * surprise(found(features, steps=0))


def test_balanced_assignments_sum_to_one_and_use_every_prototype():
    q = balanced(torch.randn(400, 5, generator=torch.Generator().manual_seed(0)) + torch.tensor([4.0, 0, 0, 0, 0]))
    assert torch.allclose(q.sum(1), torch.ones(400), atol=1e-5)
    assert (q.mean(0) > 0.15).all()


def test_patches_that_look_like_borders_are_not_salient_wherever_they_lie():
    places = torch.arange(36).repeat(200)
    row, column = places // 6, places % 6
    subject = (row >= 2) & (row < 4) & (column >= 2) & (column < 4)
    stray = (torch.arange(7200) // 36 == 7) & (places == 14)  # background in the middle of one picture
    patches = torch.randn(7200, 8, generator=torch.Generator().manual_seed(0)) * 0.1
    patches[subject & ~stray, 0] += 3
    where = torch.from_numpy(zones(np.array([[0.0, 0, 1, 1]]), (6, 6)))[0][places]
    found = saliency(patches, where)
    assert found[subject & ~stray].min() > 0.5 > found[~subject].max() + 0.1
    assert found[stray].item() < 0.4
    assert torch.equal(saliency(patches[:4], torch.full((4,), OUTER)), torch.ones(4))


def test_zones_are_those_of_the_picture_and_not_of_the_square():
    whole, wide = zones(np.array([[0, 0, 1, 1], [0, 0.25, 1, 0.75]]), (8, 8)).reshape(2, 8, 8)
    assert (whole[0] == OUTER).all()
    assert (whole[:, -1] == OUTER).all()
    assert (whole[2:6, 2:6] == INNER).all()
    assert (wide[:2] == BARS).all()
    assert (wide[6:] == BARS).all()
    assert (wide[2] == OUTER).all()
    assert (wide[3, 1:-1] == INNER).all()
    assert (wide[2:6, 0] == OUTER).all()
    assert (zones(np.array([[0.0, 0, 1, 1]]), (1, 2)) == OUTER).all()


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
    features = extract(teacher, padded, views=1, root=tmp_path, progress=False)
    h, w = features.grid
    patches, where, owners = sample_patches(features, 10_000, 0)
    assert patches.shape[1] == len(where) == len(owners) == 3 * h * w // 2
    assert (where != BARS).all()
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
    first, second = (found(features, init=init).state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    other = found(features, init=init, seed=1).state_dict()
    assert not torch.equal(first["prototypes"], other["prototypes"])


def test_stop_ends_the_refinement_before_its_next_step(features):
    asked = []
    half = discover(features, config=SMALL, progress=False, stop=lambda: bool(asked.append(0)) or len(asked) > 2)
    assert len(asked) == 3
    assert not torch.equal(half.assigner.weight, found(features).assigner.weight)
    assert torch.isfinite(half.prototypes).all()


def test_discovery_needs_no_labels(features):
    hidden = replace(features, images=replace(features.images, labels=np.full(12, -1)))
    known, unknown = found(features).state_dict(), found(hidden).state_dict()
    assert all(torch.equal(known[key], unknown[key]) for key in known)


def test_features_without_mirror_images_are_enough(features):
    single = replace(features, maps=tuple(m[:, :1] for m in features.maps))
    assert found(single).assignments(single).shape == (12, 64, 6)


def test_prototypes_may_be_wider_than_the_features(features):
    assert found(features, embed_dim=64).assignments(features).isfinite().all()


def test_num_prototypes_stands_above_the_config(features):
    bank = discover(features, 3, config=SMALL, progress=False)
    assert (bank.num_prototypes, bank.embed_dim, bank.names) == (3, 16, ["p00", "p01", "p02"])
    assert not bank.training


def test_more_prototypes_than_patches_are_refused_with_both_numbers(features):
    few = features.select([0])
    with pytest.raises(ValueError, match="num_prototypes=65 is too many: there are 64 patches of 1 images"):
        found(few, num_prototypes=65)
    with pytest.raises(ValueError, match="num_prototypes=31 is too many: max_patches=30 leaves 30 patches of 1 images"):
        found(few, num_prototypes=31, max_patches=30)


@pytest.mark.parametrize("init", ["kmeans", "uniform"])
def test_features_that_are_not_finite_are_refused_with_the_image(features, init):
    with pytest.raises(ValueError, match=f"image '{features.images.ids[7]}' are not finite"):
        found(with_nan(features, 7), init=init, batch_size=12)


# A bank and its features


def test_assignments_cover_every_patch_of_every_image_in_order(features, bank):
    a = bank.assignments(features, chunk=5)
    assert a.shape == (12, 64, 6)
    torch.testing.assert_close(a.sum(-1), torch.ones(12, 64), atol=5e-3, rtol=0)
    with torch.no_grad():
        direct = bank.assign(bank.embed(features.fused([7], view=0)))
    torch.testing.assert_close(a[7], direct[0], atol=2e-3, rtol=0)


def test_assignments_of_the_mirror_image_are_those_of_the_second_view(features, bank):
    with torch.no_grad():
        direct = bank.assign(bank.embed(features.fused([3], view=1)))
    torch.testing.assert_close(bank.assignments(features, view=1)[3], direct[0], atol=2e-3, rtol=0)
    assert (bank.assignments(features, view=1) - bank.assignments(features)).abs().max() > 0.01


def test_assignments_of_features_that_are_not_finite_are_refused_with_the_image(features, bank):
    with pytest.raises(ValueError, match=f"image '{features.images.ids[11]}' are not finite"):
        bank.assignments(with_nan(features, 11), chunk=5)


def test_features_of_another_teacher_are_refused(features, bank):
    with pytest.raises(ValueError, match=r"teacher ffffffff .* learned\s+from teacher " + features.teacher[:8]):
        bank.assignments(replace(features, teacher="f" * 20))
    with pytest.raises(ValueError, match=r"width 24\).*width 48\)"):
        bank.check(replace(features, maps=features.maps[:2]))
    bank.check(features)


# Files


def test_a_saved_bank_comes_back_as_it_was(features, bank, tmp_path):
    bank.names[3], bank.enabled[4] = "left ear", False
    path = bank.save(tmp_path / "deep" / "bank.safetensors")
    back = PrototypeBank.load(path)
    assert back.names == bank.names
    assert back.enabled.tolist() == [True] * 4 + [False, True]
    assert back.teacher == features.teacher
    for key, value in bank.state_dict().items():
        assert torch.equal(back.state_dict()[key], value), key
    torch.testing.assert_close(back.assignments(features), bank.assignments(features))


def test_options_of_the_bank_are_saved_too(tmp_path):
    bank = random_bank(rectify=True, rank=3)
    back = PrototypeBank.load(bank.save(tmp_path / "bank.safetensors"))
    fused = torch.randn(1, 48, 2, 2)
    torch.testing.assert_close(back(back.embed(fused)), bank(bank.embed(fused)))


def damaged(whole: bytes, how: str) -> bytes:
    return {
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "text": b"not a bank at all",
        "header": b"\xff" * 64 + whole,
    }[how]


@pytest.mark.parametrize("how", ["empty", "cut", "text", "header"])
def test_a_damaged_file_is_refused_by_name(bank, tmp_path, how):
    path = bank.save(tmp_path / "bank.safetensors")
    path.write_bytes(damaged(path.read_bytes(), how))
    with pytest.raises(ValueError, match=r"bank\.safetensors is not a prototype bank"):
        PrototypeBank.load(path)


def test_a_missing_file_and_a_file_of_something_else_are_refused_by_name(bank, tmp_path):
    with pytest.raises(ValueError, match=r"nowhere.* is not a prototype bank"):
        PrototypeBank.load(tmp_path / "nowhere.safetensors")
    path = tmp_path / "teacher.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="is not a prototype bank"):
        PrototypeBank.load(path)
    about = {"num_prototypes": 6, "feature_dim": 48, "embed_dim": 16}
    for metadata in (
        {"prockd_bank": json.dumps(about)},
        {"prockd_bank": json.dumps(about | {"wings": 2}), "names": "[]"},
        {"prockd_bank": json.dumps(about | {"embed_dim": 17}), "names": json.dumps(bank.names)},
        {"prockd_bank": json.dumps(about), "names": json.dumps(["one"])},
        {"prockd_bank": "{", "names": "[]"},
        {"prockd_bank": "[]", "names": "[]"},
    ):
        safetensors.torch.save_file(bank.state_dict(), path, metadata)
        with pytest.raises(ValueError, match="is not a prototype bank"):
            PrototypeBank.load(path)


# Galleries and health


def test_nearest_patches_come_best_first_one_an_image_at_their_place():
    a = torch.zeros(4, 6, 2)
    for image, patch, score in ((0, 1, 0.5), (1, 5, 0.9), (1, 4, 0.8), (2, 0, 0.7), (3, 3, 0.1)):
        a[image, patch, 1] = score
    best = nearest_patches(a, (2, 3), 1, count=3)
    assert [(p.image, p.row, p.column) for p in best] == [(1, 1, 2), (2, 0, 0), (0, 0, 1)]
    assert [round(p.score, 3) for p in best] == [0.9, 0.7, 0.5]
    assert len({p.image for p in nearest_patches(a, (2, 3), 1, count=99)}) == 4
    two = nearest_patches(a, (2, 3), 1, count=3, per_image=2)
    assert [(p.image, p.row, p.column) for p in two] == [(1, 1, 2), (1, 1, 1), (2, 0, 0)]


def test_nearest_patches_of_a_real_bank_are_sorted_and_never_twice_the_same(features, bank):
    a = bank.assignments(features)
    for prototype in range(6):
        best = nearest_patches(a, features.grid, prototype, count=30, per_image=5)
        scores = [p.score for p in best]
        assert scores == sorted(scores, reverse=True)
        assert len({(p.image, p.row, p.column) for p in best}) == len(best) == 30
        for p in best:
            assert p.score == a[p.image, p.row * 8 + p.column, prototype].item()


def test_the_report_finds_dead_prototypes_and_duplicates():
    bank = random_bank(5, 16)
    with torch.no_grad():
        bank.prototypes.copy_(torch.eye(16)[:5])
        bank.prototypes[3] = 2 * bank.prototypes[1] + 0.01
    a = torch.full((2, 4, 5), 0.1)
    a[..., 0], a[0, :, 1], a[1, 0, 4] = 0.2, 0.6, 0.9
    health = report(bank, a)
    np.testing.assert_allclose(health.usage, [3 / 8, 4 / 8, 0, 0, 1 / 8])
    assert health.dead == (2, 3)
    assert health.duplicates == ((1, 3),)


def test_a_healthy_bank_has_no_dead_prototypes(features, bank):
    health = report(bank, bank.assignments(features))
    assert health.dead == ()
    assert health.usage.sum() == pytest.approx(1)


def test_repr_tells_size_teacher_and_what_is_off(features, bank):
    assert "6 prototypes of width 16" in repr(bank)
    assert "disabled" not in repr(bank)
    bank.enabled[:2] = False
    assert "2 disabled" in repr(bank)
    assert features.teacher[:8] in repr(bank)


# Names and switches


def test_a_merged_prototype_gives_its_patches_to_the_other_and_leaves_the_rest_alone(features, bank):
    before, centres = bank.assignments(features), bank.prototypes.detach().clone()
    bank.merge(1, 4, share=0.25)
    after = bank.assignments(features)
    torch.testing.assert_close(after[..., 1], before[..., 1] + before[..., 4], atol=2e-3, rtol=0)
    assert after[..., 4].abs().max() == 0
    torch.testing.assert_close(after[..., [0, 2, 3, 5]], before[..., [0, 2, 3, 5]])
    torch.testing.assert_close(bank.prototypes[1], 0.75 * centres[1] + 0.25 * centres[4])
    assert not bank.enabled[4]
    assert "1 merged" in repr(bank)


def test_what_was_merged_goes_along_when_its_prototype_is_merged_or_disabled(features, bank):
    before = bank.assignments(features)
    bank.merge(1, 4)
    bank.merge(2, 1)
    torch.testing.assert_close(bank.assignments(features)[..., 2], before[..., [1, 2, 4]].sum(-1), atol=3e-3, rtol=0)
    bank.disable(2)
    left = before[..., [0, 3, 5]]
    after = bank.assignments(features)
    torch.testing.assert_close(after[..., [0, 3, 5]], left / left.sum(-1, keepdim=True), atol=5e-3, rtol=0)
    assert after[..., [1, 2, 4]].abs().max() == 0


def test_an_enabled_prototype_stands_for_itself_again(features, bank):
    before = bank.assignments(features)
    bank.merge(0, 3)
    bank.disable(5)
    for k in (3, 5):
        bank.enable(k)
    torch.testing.assert_close(bank.assignments(features), before)


def test_names_and_merges_travel_with_the_file(features, bank, tmp_path):
    bank.rename(2, "  hoof <b>left</b> ")
    bank.merge(2, 3)
    back = PrototypeBank.load(bank.save(tmp_path / "bank.safetensors"))
    assert back.names[2] == "hoof <b>left</b>"
    assert back.merged.tolist() == [0, 1, 2, 2, 4, 5]
    torch.testing.assert_close(back.assignments(features), bank.assignments(features))


def test_a_file_from_before_merging_can_still_be_read(features, bank, tmp_path):
    path = bank.save(tmp_path / "bank.safetensors")
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    state = {key: value for key, value in bank.state_dict().items() if key != "merged"}
    safetensors.torch.save_file(state, path, metadata)
    torch.testing.assert_close(PrototypeBank.load(path).assignments(features), bank.assignments(features))


def test_edits_that_make_no_sense_are_refused_by_name(bank):
    bank.disable(1)
    for edit, kind, said in (
        (lambda: bank.merge(0, 0), ValueError, "p00 cannot be merged into itself"),
        (lambda: bank.merge(0, 1), ValueError, "p01 is disabled or merged"),
        (lambda: bank.merge(0, 2, share=2.0), ValueError, "share=2.0 is not from 0 to 1"),
        (lambda: bank.rename(0, "  "), ValueError, "name of prototype 0 is empty"),
        (lambda: bank.disable(6), IndexError, "prototype 6 is not there: 6"),
        (lambda: bank.enable(-1), IndexError, "prototype -1 is not there"),
    ):
        with pytest.raises(kind, match=said):
            edit()
    for k in (0, 2, 3, 4):
        bank.disable(k)
    with pytest.raises(ValueError, match="p05 is the last prototype"):
        bank.disable(5)


def test_a_bank_without_any_enabled_prototype_says_so_instead_of_nan(features, bank):
    bank.enabled[:] = False
    with pytest.raises(ValueError, match="all 6 prototypes are disabled"):
        bank.assignments(features)
