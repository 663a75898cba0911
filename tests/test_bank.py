import json
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from fake_device import AWAY, fake_device
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from prockd.prototypes import bank as bank_module
from prockd.prototypes.bank import PrototypeBank, bank_health, nearest_patches
from prockd.teachers.features import PatchFeatures


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


# A bank and its features


def test_assignments_cover_every_patch_of_every_image_in_order(features, bank):
    a = bank.assignments(features)
    assert a.shape == (12, 64, 6)
    torch.testing.assert_close(a.sum(-1), torch.ones(12, 64), atol=5e-3, rtol=0)
    with torch.no_grad():
        direct = bank.assign(bank.embed(features.fused([7])))
    torch.testing.assert_close(a[7], direct[0], atol=2e-3, rtol=0)


def test_the_strongest_prototypes_are_those_of_the_assignments_however_many_images_are_read_at_once(
    features, bank, monkeypatch
):
    whole = bank.assignments(features)
    monkeypatch.setattr(bank_module, "CHUNK_BYTES", 1)  # an image at a time
    assert torch.equal(bank.assignments(features), whole)
    shares, numbers = bank.strongest(features, 2)
    best = whole.topk(2)
    assert shares.shape == numbers.shape == (*whole.shape[:2], 2)
    torch.testing.assert_close(shares.float(), best.values, atol=1e-3, rtol=0)
    torch.testing.assert_close(whole.gather(-1, numbers.long()), best.values, atol=1e-3, rtol=0)
    assert shares.element_size() + numbers.element_size() == 4


def test_assignments_of_the_mirror_image_are_those_of_the_second_view(features, bank):
    with torch.no_grad():
        direct = bank.assign(bank.embed(features.fused([3], view="mirrored")))
    torch.testing.assert_close(bank.assignments(features, view="mirrored")[3], direct[0], atol=2e-3, rtol=0)
    assert (bank.assignments(features, view="mirrored") - bank.assignments(features)).abs().max() > 0.01


def test_assignments_of_features_that_are_not_finite_are_refused_with_the_image(features, bank):
    with pytest.raises(ValueError, match=f"image '{features.images.ids[11]}' are not finite"):
        bank.assignments(with_nan(features, 11))


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
    options = {"num_prototypes": 6, "feature_dim": 48, "embed_dim": 16}
    for metadata in (
        {"prockd_bank": json.dumps(options)},
        {"prockd_bank": json.dumps(options | {"wings": 2}), "names": "[]"},
        {"prockd_bank": json.dumps(options | {"embed_dim": 17}), "names": json.dumps(bank.names)},
        {"prockd_bank": json.dumps(options), "names": json.dumps(["one"])},
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


def test_bank_health_finds_dead_prototypes_and_duplicates():
    bank = random_bank(5, 16)
    with torch.no_grad():
        bank.prototypes.copy_(torch.eye(16)[:5])
        bank.prototypes[3] = 2 * bank.prototypes[1] + 0.01
    a = torch.full((2, 4, 5), 0.1)
    a[..., 0], a[0, :, 1], a[1, 0, 4] = 0.2, 0.6, 0.9
    health = bank_health(bank, a)
    np.testing.assert_allclose(health.usage, [3 / 8, 4 / 8, 0, 0, 1 / 8])
    assert health.dead == (2, 3)
    assert health.duplicates == ((1, 3),)


def test_a_healthy_bank_has_no_dead_prototypes(features, bank):
    health = bank_health(bank, bank.assignments(features))
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
    for edit, kind, message in (
        (lambda: bank.merge(0, 0), ValueError, "p00 cannot be merged into itself"),
        (lambda: bank.merge(0, 1), ValueError, "p01 is disabled or merged"),
        (lambda: bank.merge(0, 2, share=2.0), ValueError, "share=2.0 is not from 0 to 1"),
        (lambda: bank.rename(0, "  "), ValueError, "name of prototype 0 is empty"),
        (lambda: bank.disable(6), IndexError, "prototype 6 is not there: 6"),
        (lambda: bank.enable(-1), IndexError, "prototype -1 is not there"),
    ):
        with pytest.raises(kind, match=message):
            edit()
    for k in (0, 2, 3, 4):
        bank.disable(k)
    with pytest.raises(ValueError, match="p05 is the last prototype"):
        bank.disable(5)


def test_a_bank_without_any_enabled_prototype_says_so_instead_of_nan(features, bank):
    bank.enabled[:] = False
    with pytest.raises(ValueError, match="all 6 prototypes are disabled"):
        bank.assignments(features)


# Another device


def test_every_step_takes_inputs_from_the_cpu_and_answers_on_the_device_of_the_bank():
    bank, fused, u = random_bank(), torch.randn(2, 48, 3, 3), torch.randn(2, 9, 16)
    steps = {bank.embed: fused, bank.assign: u, bank.residuals: u, bank.describe: u, bank: u}
    with fake_device() as device:
        expected = [step(value).detach() for step, value in steps.items()]
        bank.to(device)
        for (step, value), here in zip(steps.items(), expected, strict=True):
            for given in (value, value.to(device)):
                there = step(given)
                assert there.device == AWAY, step
                torch.testing.assert_close(there.detach().cpu(), here)


def test_inputs_of_double_precision_never_reach_a_device_in_it():
    bank = random_bank()
    with fake_device() as device:
        u = bank.to(device).embed(torch.randn(2, 48, 3, 3, dtype=torch.float64))
        assert (u.device, u.dtype) == (AWAY, torch.float32)


def test_assignments_and_edits_are_the_same_on_another_device_and_come_back_from_it(features, bank, tmp_path):
    def edited(bank: PrototypeBank) -> torch.Tensor:
        bank.merge(0, 4)
        bank.disable(3)
        bank.rename(1, "ear")
        bank.disable(5)
        bank.enable(5)
        return bank.assignments(features)

    away = PrototypeBank.load(bank.save(tmp_path / "bank.safetensors"))
    with fake_device() as device:
        away.to(device)
        torch.testing.assert_close(edited(away), edited(bank))
        assert {t.device for t in away.state_dict().values()} == {AWAY}
        assert repr(away) == repr(bank)
        back = away.assignments(features).to(device)
        assert nearest_patches(back, features.grid, 2) == nearest_patches(back.cpu(), features.grid, 2)
        health, here = bank_health(away, back), bank_health(bank, back.cpu())
        np.testing.assert_array_equal(health.usage, here.usage)
        assert (health.dead, health.duplicates) == (here.dead, here.duplicates)
        away.cpu().save(tmp_path / "again.safetensors")
    assert PrototypeBank.load(tmp_path / "again.safetensors").names[1] == "ear"
