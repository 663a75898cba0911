import pytest
import torch
from torch.nn import functional as F

from prockd.training.losses import assignment, feature, hint

B, N, E, K = 2, 12, 16, 6


@pytest.fixture
def tensors() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(B, N, E), torch.randn(B, N, E), torch.randn(K, E)


def towards(a: torch.Tensor, b: torch.Tensor, steps: int = 5) -> list[torch.Tensor]:
    """From a to b, both ends included."""
    return [torch.lerp(a, b, part) for part in torch.linspace(0, 1, steps).tolist()]


# Prototype-assignment transfer


def test_assignment_transfer_is_zero_for_equal_features_and_grows_with_the_difference(tensors):
    student, teacher, prototypes = tensors
    values = [assignment(s, teacher, prototypes).item() for s in towards(teacher, student)]
    assert values[0] == pytest.approx(0, abs=1e-6)
    assert values == sorted(values)
    assert values[-1] > 0.1


def test_assignment_transfer_is_the_kl_divergence_of_teacher_from_student_per_patch(tensors):
    student, teacher, prototypes = tensors
    total = 0.0
    for b in range(B):
        for n in range(N):
            p, q = ((F.cosine_similarity(x[b, n], prototypes, dim=1) / 0.3).softmax(0) for x in (teacher, student))
            total += (p * (p / q).log()).sum().item()
    assert assignment(student, teacher, prototypes, 0.3).item() == pytest.approx(total / (B * N), rel=1e-4)


def test_assignment_transfer_reaches_student_and_prototypes_never_the_teacher(tensors):
    student, teacher, prototypes = (tensor.requires_grad_() for tensor in tensors)
    assignment(student, teacher, prototypes).backward()
    assert (student.grad.abs().sum(-1) > 0).all()
    assert (prototypes.grad.abs().sum(-1) > 0).all()
    assert teacher.grad is None


def test_prototypes_learn_from_the_students_side_alone(tensors):
    student, teacher, prototypes = tensors
    prototypes.requires_grad_()
    target = (F.normalize(teacher, dim=-1) @ F.normalize(prototypes.detach(), dim=-1).T / 0.1).softmax(-1)
    score = (F.normalize(student, dim=-1) @ F.normalize(prototypes, dim=-1).T / 0.1).log_softmax(-1)
    expected = torch.autograd.grad(-(target * score).sum(-1).mean(), prototypes)
    got = torch.autograd.grad(assignment(student, teacher, prototypes), prototypes)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)  # else they would move to please both sides


def test_assignment_transfer_sees_directions_and_not_lengths(tensors):
    student, teacher, prototypes = tensors
    before = assignment(student, teacher, prototypes)
    torch.testing.assert_close(assignment(3 * student, 5 * teacher, 7 * prototypes), before)


def test_a_low_temperature_asks_for_the_strongest_prototype_and_a_high_one_for_little(tensors):
    values = [assignment(*tensors, temperature).item() for temperature in (0.05, 0.1, 1.0, 10.0)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.01


def test_following_the_gradient_gives_the_student_the_teachers_prototypes(tensors):
    student, teacher, prototypes = tensors
    student.requires_grad_()
    optimiser = torch.optim.Adam([student], lr=0.1)
    for _ in range(60):
        optimiser.zero_grad()
        assignment(student, teacher, prototypes).backward()
        optimiser.step()
    strongest = [(F.normalize(x, dim=-1) @ F.normalize(prototypes, dim=-1).T).argmax(-1) for x in (student, teacher)]
    assert (strongest[0] == strongest[1]).float().mean() > 0.95


# Cosine


def test_feature_transfer_goes_from_zero_over_one_to_two(tensors):
    _, teacher, _ = tensors
    across = torch.zeros_like(teacher)
    across[..., 0], across[..., 1] = -teacher[..., 1], teacher[..., 0]
    for student, value in ((4 * teacher, 0.0), (across, 1.0), (-teacher, 2.0)):
        assert feature(student, teacher).item() == pytest.approx(value, abs=1e-5)


def test_feature_transfer_grows_with_the_difference_and_never_reaches_the_teacher(tensors):
    student, teacher, _ = tensors
    values = [feature(s, teacher).item() for s in towards(teacher, student)]
    assert values == sorted(values)
    student.requires_grad_()
    teacher.requires_grad_()
    feature(student, teacher).backward()
    assert (student.grad.abs().sum(-1) > 0).all()
    assert teacher.grad is None


# Hint


def test_hint_is_zero_for_equal_maps_and_one_for_the_teachers_mean():
    teacher = 3 + 2 * torch.randn(4, 8, 5, 5)
    assert hint(teacher, teacher).item() == 0
    assert hint(teacher.mean().expand_as(teacher), teacher).item() == pytest.approx(1, rel=0.01)


def test_hint_does_not_depend_on_the_scale_of_the_teachers_activations():
    student, teacher = torch.randn(2, 4, 8, 5, 5)
    before = hint(student, teacher)
    for scale in (0.01, 100.0):
        torch.testing.assert_close(hint(scale * student, scale * teacher), before)


def test_hint_reaches_the_student_never_the_teacher():
    student, teacher = torch.randn(2, 4, 8, 5, 5).unbind(0)
    student.requires_grad_()
    teacher.requires_grad_()
    hint(student, teacher).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


def test_a_constant_teacher_map_gives_a_finite_hint():
    assert hint(torch.randn(2, 3, 4, 4), torch.ones(2, 3, 4, 4)).isfinite()
