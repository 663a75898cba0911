import pytest
import torch
from loop_world import BASE, PLAIN, copy_of, curves, made, run

from prockd.plots import plot_curves
from prockd.training import gradient_share
from prockd.training.gradient_share import GradientShare

ALONE = PLAIN.replace(rival="cosine", rival_weight=2.0, steps=8)


def nothing(tensors) -> None:
    """One process has nobody to average with."""


def measured(share: float, pulls: list[tuple[float, float]]) -> GradientShare:
    """After steps in which the gradients of task and teacher had these lengths."""
    rule = GradientShare(share)
    for task, teacher in pulls:
        patches = torch.zeros(2, 3, 4, requires_grad=True)
        rule.measure(task * patches[0, 0, 0], teacher * patches[1, 1, 1], patches, nothing)
    return rule


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_teachers_gradient_has_its_share_of_both(share):
    factor = measured(share, [(2.0, 3.0), (4.0, 5.0)]).factor.item()
    assert factor * 8 / (factor * 8 + 6) == pytest.approx(share)


def test_nothing_is_scaled_before_both_sides_have_pulled():
    assert GradientShare(0.9).factor == 1
    assert measured(0.9, [(2.0, 0.0)]).factor == 1
    rule, patches = GradientShare(0.9), torch.zeros(1, 2, 3, requires_grad=True)
    rule.measure(patches.sum(), torch.ones(2, requires_grad=True).sum(), patches, nothing)  # reaches no patch
    assert rule.factor == 1


def test_the_factor_stays_once_enough_steps_are_measured():
    pulls = [(1.0, 2.0)] * gradient_share.MEASURED_STEPS
    assert measured(0.5, [*pulls, (100.0, 1.0)]).factor == measured(0.5, pulls).factor == 0.5


def test_a_gradient_that_is_not_finite_does_not_count():
    rule = measured(0.5, [(1.0, 2.0), (float("inf"), 1.0), (float("nan"), 1.0)])
    assert (rule.factor, int(rule.steps)) == (0.5, 1)


def test_the_weight_that_was_given_does_not_matter_and_the_chosen_one_is_told(features):
    ends = []
    for weight in (0.5, 50.0):
        student = made()
        history = run(
            student, features.images, ALONE.replace(rival_weight=weight, gradient_share=0.7), features=features
        )
        ends.append((history.curve("rival_weight")[1], copy_of(student)))
        for row in history.rows:
            assert row["loss"] == pytest.approx(row["task"] + row["rival_weight"] * row["rival"], rel=1e-5)
    assert ends[0][0] == pytest.approx(ends[1][0], rel=1e-4)
    for name, value in ends[0][1].items():
        torch.testing.assert_close(value, ends[1][1][name], rtol=1e-3, atol=1e-4)
    fixed = run(made(), features.images, ALONE, features=features)
    assert "rival_weight" not in fixed.rows[0]


def test_a_greater_share_is_a_greater_weight_and_terms_keep_their_proportion(features, bank):
    weights = []
    for share in (0.2, 0.8):
        config = BASE.replace(gradient_share=share, steps=1, assignment_weight=2.0, feature_weight=6.0)
        (row,) = run(made(bank), features.images, config, features=features).rows
        assert row["feature_weight"] == pytest.approx(3 * row["assignment_weight"], rel=1e-5)
        weights.append(row["feature_weight"])
    assert weights[1] == pytest.approx(16 * weights[0], rel=1e-4)  # .8 / .2 against .2 / .8


def test_a_resumed_run_goes_on_with_what_was_measured(features, tmp_path, monkeypatch):
    monkeypatch.setattr(gradient_share, "MEASURED_STEPS", 5)
    config, given = ALONE.replace(gradient_share=0.7), {"features": features}
    whole = run(made(), features.images, config, **given)
    for stop in (3, 6):  # while it measures, and after
        folder = tmp_path / str(stop)
        run(made(), features.images, config, **given, run_dir=folder, callbacks=(lambda step, row, s=stop: step >= s,))
        resumed = run(made(), features.images, config, **given, run_dir=folder, resume=True)
        assert curves(resumed) == curves(whole)
    values = whole.curve("rival_weight")[1]
    assert len(set(values[:5])) == 5
    assert len(set(values[4:])) == 1


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_chooses_nearly_the_same_weight(features, precision):
    config = ALONE.replace(gradient_share=0.7, steps=2)
    half, single = (
        run(made(), features.images, c, features=features).rows[-1]["rival_weight"]
        for c in (config.replace(mixed_precision=precision), config)
    )
    assert half == pytest.approx(single, rel=0.15)


def test_the_chosen_weight_is_drawn_among_the_terms_only_where_it_is_asked_for(features):
    history = run(made(), features.images, ALONE.replace(gradient_share=0.7, steps=2), features=features)
    legend = [text.get_text() for text in plot_curves({"a": history}).get_legend().get_texts()]
    assert {"task", "rival"} <= set(legend)
    assert "rival_weight" not in legend
    assert plot_curves({"a": history}, ["rival_weight"]).get_ylabel() == "rival_weight"


def test_a_hint_reads_another_map_and_is_refused(features):
    with pytest.raises(ValueError, match="gradient_share measures at the patches, and the hint reads another map"):
        run(made(), features.images, PLAIN.replace(hint_weight=1.0, gradient_share=0.5), features=features)


def test_labels_alone_have_nothing_to_share(packed):
    history = run(made(), packed, PLAIN.replace(gradient_share=0.5))
    assert set(history.rows[0]) == {"step", "lr", "seconds", "loss", "task"}
