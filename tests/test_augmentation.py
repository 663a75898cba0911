import math

import pytest
import torch
from fake_device import AWAY, fake_device
from torch import nn

from prockd.prototypes.augmentation import FeatureAugmentation

B, N, E, K = 3, 10, 16, 5
CONTENTS = ("attention", "descriptor", "mlp")


def build(content: str = "attention", *, open_gate: bool = False, **options) -> FeatureAugmentation:
    torch.manual_seed(0)
    augment = FeatureAugmentation(E, K, content=content, **options)
    if open_gate and augment.gate is not None:
        nn.init.constant_(augment.gate, 0.5)
    return augment


@pytest.fixture
def inputs() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = {"features": (B, N, E), "prototypes": (K, E), "descriptor": (B, E)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def size(*modules: nn.Module | nn.Parameter) -> int:
    return sum(p.numel() for m in modules for p in ([m] if isinstance(m, nn.Parameter) else m.parameters()))


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("residual", ["gate", "relu"])
def test_the_result_has_the_shape_of_the_features(inputs, content, residual):
    f_plus = build(content, residual=residual, open_gate=True)(**inputs)
    assert f_plus.shape == inputs["features"].shape
    assert (f_plus - inputs["features"]).abs().max() > 1e-3


@pytest.mark.parametrize("content", CONTENTS)
def test_the_gate_starts_as_identity_and_can_open(inputs, content):
    augment = build(content)
    f_plus = augment(**inputs)
    assert torch.equal(f_plus, inputs["features"])
    f_plus.square().sum().backward()
    assert augment.gate.grad.abs().min() > 0


def test_the_papers_form_is_a_relu_of_features_and_addition(inputs):
    augment = build(residual="relu", scaled=False, conditional=False)
    e, p = augment.encode(inputs["features"]), augment.encode(inputs["prototypes"])
    attention = torch.stack([torch.softmax(patch @ p.T, dim=-1) for patch in e.flatten(0, 1)])
    added = augment.transform(torch.cat([e, (attention @ p).unflatten(0, (B, N))], dim=-1))
    torch.testing.assert_close(augment(**inputs), (added + inputs["features"]).clamp_min(0))
    assert augment.gate is None


def test_the_gated_form_adds_gate_times_the_same_addition(inputs):
    gated, literal = build(open_gate=True), build(residual="relu")
    literal.load_state_dict(gated.state_dict(), strict=False)
    plus = gated(**inputs) - inputs["features"]
    torch.testing.assert_close((2 * plus + inputs["features"]).relu(), literal(**inputs))


def test_scores_are_divided_by_the_root_of_the_width_unless_switched_off(inputs):
    scaled, plain = build(), build(scaled=False)
    features, prototypes = inputs["features"], inputs["prototypes"]
    scores = scaled.encode(features) @ scaled.keys(prototypes).T
    torch.testing.assert_close(scaled.attention(features, prototypes), (scores / math.sqrt(E)).softmax(-1))
    torch.testing.assert_close(plain.attention(features, prototypes), scores.softmax(-1))


def test_conditional_prototypes_start_as_the_prototypes_and_scale_and_shift_each_one(inputs):
    augment = build()
    torch.testing.assert_close(augment.keys(inputs["prototypes"]), augment.encode(inputs["prototypes"]))
    with torch.no_grad():
        augment.alpha[1, 2], augment.beta[3, 4] = 3.0, -1.0
    changed = inputs["prototypes"].clone()
    changed[1, 2] *= 3
    changed[3, 4] -= 1
    torch.testing.assert_close(augment.keys(inputs["prototypes"]), augment.encode(changed))


@pytest.mark.parametrize("conditional", [True, False])
def test_conditional_prototypes_learn_when_on_and_never_when_off(inputs, conditional):
    augment = build(conditional=conditional, open_gate=True)
    augment(**inputs).square().sum().backward()
    for parameter in (augment.alpha, augment.beta):
        assert parameter.requires_grad is conditional
        if conditional:
            assert parameter.grad.abs().sum() > 0
        else:
            assert parameter.grad is None


def test_the_gradient_reaches_prototypes_and_features(inputs):
    for tensor in inputs.values():
        tensor.requires_grad_()
    build(open_gate=True)(**inputs).square().sum().backward()
    assert inputs["features"].grad.abs().sum() > 0
    assert (inputs["prototypes"].grad.abs().sum(1) > 0).all()
    assert inputs["descriptor"].grad is None


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("residual", ["gate", "relu"])
def test_detach_cuts_the_gradient_to_the_features_and_keeps_the_modules_own(inputs, content, residual):
    inputs["features"].requires_grad_()
    for detach in (False, True):
        augment = build(content, residual=residual, open_gate=True, detach=detach)
        f_plus = augment(**inputs)
        gradient = torch.autograd.grad(f_plus.square().sum(), inputs["features"], retain_graph=True, allow_unused=True)
        assert (gradient[0] is None) is detach
        f_plus.square().sum().backward()
        assert augment.transform.weight.grad.abs().sum() > 0


def test_detach_changes_no_number_of_the_forward_pass(inputs):
    torch.testing.assert_close(build(open_gate=True, detach=True)(**inputs), build(open_gate=True)(**inputs))


def test_a_disabled_prototype_takes_no_attention_and_changes_nothing(inputs):
    augment = build(open_gate=True)
    enabled = torch.tensor([True, True, False, True, True])
    attention = augment.attention(inputs["features"], inputs["prototypes"], enabled=enabled)
    assert (attention[..., 2] == 0).all()
    torch.testing.assert_close(attention.sum(-1), torch.ones(B, N))
    before = augment(**inputs, enabled=enabled)
    inputs["prototypes"][2] = 100.0
    torch.testing.assert_close(augment(**inputs, enabled=enabled), before)
    assert (augment(**inputs) - before).abs().max() > 1e-3


def test_each_content_reads_what_it_says_and_nothing_else(inputs):
    other = {name: torch.randn_like(value) for name, value in inputs.items()}
    for content, read in (("attention", "prototypes"), ("descriptor", "descriptor"), ("mlp", None)):
        augment = build(content, open_gate=True)
        before = augment(**inputs)
        for name in ("prototypes", "descriptor"):
            changed = augment(**inputs | {name: other[name]})
            assert torch.equal(changed, before) is (name != read), (content, name)


def test_the_descriptor_is_given_to_every_patch_of_its_image_and_must_be_there(inputs):
    augment = build("descriptor", open_gate=True)
    alike = {**inputs, "features": inputs["features"][:, :1].expand(B, N, E)}
    f_plus = augment(**alike)
    torch.testing.assert_close(f_plus, f_plus[:, :1].expand(B, N, E))
    with pytest.raises(ValueError, match="needs the residual descriptor"):
        augment(inputs["features"], inputs["prototypes"])


@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize(("width", "count"), [(16, 5), (128, 48), (128, 72), (64, 200)])
def test_the_mlp_has_as_many_parameters_as_prototypes_and_condition_within_a_tenth(width, count, conditional):
    augment = FeatureAugmentation(width, count, conditional=conditional)
    control = FeatureAugmentation(width, count, content="mlp", conditional=conditional)
    stored = count * width + (size(augment.alpha, augment.beta) if conditional else 0)
    tolerance = 0.1 if count > 5 else 0.2  # half a hidden unit is much of a handful
    assert size(control.hidden) == pytest.approx(stored, rel=tolerance)
    shared = size(augment.encode, augment.transform, augment.gate)
    assert size(control) - size(control.hidden) == shared


@pytest.mark.parametrize(("option", "value"), [("content", "none"), ("content", "wings"), ("residual", "sum")])
def test_an_unknown_word_is_refused_with_the_words_there_are(option, value):
    with pytest.raises(ValueError, match=rf"{option}='{value}': choose '"):
        FeatureAugmentation(E, K, **{option: value})


def test_attention_without_any_enabled_prototype_is_refused_instead_of_nan():
    augment = FeatureAugmentation(8, 3)
    with pytest.raises(ValueError, match="all 3 prototypes are disabled"):
        augment(torch.randn(1, 4, 8), torch.randn(3, 8), enabled=torch.zeros(3, dtype=torch.bool))


@pytest.mark.parametrize("content", CONTENTS)
def test_inputs_from_the_cpu_are_brought_to_the_device_of_the_module(inputs, content):
    augment, enabled = build(content, open_gate=True), torch.tensor([True, False, True, True, True])
    here = augment(**inputs, enabled=enabled).detach()
    with fake_device() as device:
        there = augment.to(device)(**inputs, enabled=enabled)
        assert there.device == AWAY
        torch.testing.assert_close(there.detach().cpu(), here)
        if content == "attention":
            assert augment.attention(inputs["features"], inputs["prototypes"], enabled=enabled).device == AWAY
