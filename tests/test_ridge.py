"""Ridge regression in closed form: what it leaves out, how it chooses, what its scores mean."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from prockd.training import ridge
from prockd.training.ridge import SHARPNESS, STRENGTHS, fit_ridge, misfit

V, n, WIDTH, C = 2, 12, 7, 3


def world(seed: int = 0, images: int = n, noise: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Images in two views that are alike, and their classes, one-hot."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(images) % C
    middles = 2 * torch.randn(C, WIDTH, generator=torch.Generator().manual_seed(99))
    x = middles[labels] + noise * torch.randn(images, WIDTH, generator=generator)
    return torch.stack([x, x + 0.3 * torch.randn(images, WIDTH, generator=generator)]), F.one_hot(labels, C).float()


def brute(x: torch.Tensor, y: torch.Tensor, strength: float, out: list[int]) -> torch.Tensor:
    """Scores of some rows by ridge regression on the others, about the mean of all, with a constant beside them."""
    x, y = x.double(), y.double()
    rows, wanted = x - x.mean(0), y - y.mean(0)
    size = rows.square().sum(1).mean()
    rows = torch.cat([rows, size.sqrt().expand(len(rows), 1)], 1)
    kept = [m for m in range(len(x)) if m not in out]
    a, b = rows[kept], wanted[kept]
    weight = torch.linalg.solve(a.T @ a + strength * size * torch.eye(rows.shape[1], dtype=a.dtype), a.T @ b)
    return rows[out] @ weight + y.mean(0)


@pytest.mark.parametrize("strength", [1e-3, 1.0])
def test_leaving_an_image_out_in_closed_form_is_to_fit_without_all_of_its_views(strength):
    x, y = world()
    found = fit_ridge(x, y, strengths=[strength])
    rows, wanted = x.reshape(V * n, WIDTH), y.repeat(V, 1)
    for m in range(n):
        expected = brute(rows, wanted, strength, [m, n + m]).mean(0)
        torch.testing.assert_close(found.held_out[m], (found.sharpness * expected).float(), rtol=1e-4, atol=1e-4)


def test_leaving_an_unlabelled_image_out_is_to_fit_without_it():
    (x, y), (more, _) = world(), world(1)
    soft = torch.rand(n, C, generator=torch.Generator().manual_seed(2)).softmax(1)
    found = fit_ridge(x, y, more[0], soft, strengths=[0.1])
    rows, wanted = torch.cat([x.reshape(V * n, WIDTH), more[0]]), torch.cat([y.repeat(V, 1), soft])
    assert found.held_out.shape == (n, C)
    for m in range(n):
        (expected,) = brute(rows, wanted, 0.1, [V * n + m])
        torch.testing.assert_close(found.held_out[m], (found.sharpness * expected).float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("unlabelled", [False, True])
def test_an_image_that_is_left_out_does_not_tell_itself_however_wide_the_features_are(unlabelled):
    generator = torch.Generator().manual_seed(4)
    x, more = torch.randn(1, 60, 500, generator=generator), torch.randn(80, 500, generator=generator)
    y, soft = (F.one_hot(torch.randint(C, (m,), generator=generator), C).float() for m in (60, 80))  # by lot
    found = fit_ridge(x, y, more, soft) if unlabelled else fit_ridge(x, y)
    truth = soft if unlabelled else y
    assert F.mse_loss(found.held_out / found.sharpness, truth) > 0.9 * truth.var(0, correction=0).mean()
    assert found.strength > STRENGTHS[2]
    assert found.held_out.softmax(1).amax(1).mean() < 0.6  # and so it is not sure


def test_weight_and_bias_are_those_of_the_normal_equations():
    x, y = world()
    found, rows = fit_ridge(x, y), x.reshape(V * n, WIDTH)
    twice = fit_ridge(x.roll(1, 1), y.roll(1, 0))  # the order of images tells nothing
    torch.testing.assert_close(found.weight, twice.weight, rtol=1e-3, atol=1e-3)
    a, b = (t.double() - t.double().mean(0) for t in (rows, y.repeat(V, 1)))
    penalty = found.strength * a.square().sum(1).mean() * torch.eye(WIDTH, dtype=a.dtype)
    weight = torch.linalg.solve(a.T @ a + penalty, a.T @ b)
    torch.testing.assert_close(found.weight, (found.sharpness * weight).float(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found(rows).mean(0), found.sharpness * y.mean(0), rtol=1e-4, atol=1e-4)


def test_strength_and_sharpness_are_those_that_tell_left_out_images_best():
    x, y = world(noise=2.0)
    found = fit_ridge(x, y)
    errors = {}
    for strength in STRENGTHS:
        one = fit_ridge(x, y, strengths=[strength])
        errors[strength] = float(F.mse_loss(one.held_out / one.sharpness, y))
    assert found.strength == min(errors, key=lambda s: errors[s])
    losses = [misfit(factor * found.held_out / found.sharpness, y, tags=False) for factor in SHARPNESS]
    assert misfit(found.held_out, y, tags=False) == pytest.approx(min(losses), rel=1e-4)


def test_scores_are_probabilities_of_images_that_nobody_has_seen():
    (x, y), (unseen, truth) = world(images=60, noise=2.0), world(5, images=600, noise=2.0)
    logits = fit_ridge(x, y)(unseen[0])
    right = (logits.argmax(1) == truth.argmax(1)).float().mean()
    assert right > 0.6
    assert float(logits.softmax(1).amax(1).mean()) == pytest.approx(float(right), abs=0.1)


def test_one_image_of_a_class_is_enough():
    x, y = world(images=C)
    found = fit_ridge(x, y)
    assert found(x[0]).argmax(1).tolist() == y.argmax(1).tolist()
    assert found.weight.isfinite().all()


@pytest.mark.parametrize("images", [1, 5])
def test_images_of_one_class_alone_tell_that_class(images):
    x, _ = world(images=images)
    found = fit_ridge(x, F.one_hot(torch.zeros(images, dtype=torch.long), C).float())
    assert found(torch.randn(4, WIDTH)).argmax(1).tolist() == [0] * 4
    assert found.weight.isfinite().all()


def test_features_that_are_all_alike_give_the_share_of_each_class():
    found = fit_ridge(torch.ones(V, n, 1), world()[1])
    assert found.weight.abs().max() < 1e-3
    torch.testing.assert_close(found.bias.softmax(0), torch.full((C,), 1 / C))


def test_soft_rows_that_say_the_truth_help_and_none_are_none():
    (x, y), (more, truth), (unseen, told) = world(images=C, noise=2.5), world(1, 90, 2.5), world(5, 600, 2.5)

    def right(*soft) -> float:
        return float((fit_ridge(x, y, *soft)(unseen[0]).argmax(1) == told.argmax(1)).float().mean())

    assert right(more[0], truth) > right() + 0.05
    alone, empty = fit_ridge(x, y), fit_ridge(x, y, more[0][:0], truth[:0])
    assert torch.equal(alone.weight, empty.weight)


def test_tags_are_each_a_yes_or_no_of_their_own():
    x, y = world(images=60)
    tags = torch.stack([y[:, 0] + y[:, 1], y[:, 1] + y[:, 2]], 1)
    found = fit_ridge(x, tags, tags=True)
    said = found(x[0]).sigmoid() > 0.5
    assert (said == tags.bool()).float().mean() > 0.9
    never = fit_ridge(x, torch.cat([tags, 0 * tags[:, :1]], 1), tags=True)
    assert (never(x[0])[:, 2] < 0).all()


@pytest.mark.parametrize("unlabelled", [False, True])
@pytest.mark.parametrize("kind", ["classes", "one image a class", "tags"])
def test_rows_and_their_sums_give_the_same_fit(kind, unlabelled):
    x, y = world(images=C if kind == "one image a class" else 20, noise=2.0)
    x, y = x + 100, (y + y.roll(1, 1) if kind == "tags" else y)  # far from 0, where sums of squares lose digits
    more = (world(1, 30)[0][0] + 100, torch.rand(30, C)) if unlabelled else ()
    assert V * len(y) + 30 * unlabelled > WIDTH or kind == "one image a class"
    wide = [F.pad(t, (0, 500)) for t in (x, *more[:1])]  # more columns than rows, and nothing in them
    by_sums = fit_ridge(x, y, *more, tags=kind == "tags")
    by_rows = fit_ridge(wide[0], y, *wide[1:], *more[1:], tags=kind == "tags")
    assert (by_sums.strength, by_sums.sharpness) == (by_rows.strength, by_rows.sharpness)
    torch.testing.assert_close(by_sums.weight, by_rows.weight[:WIDTH], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(by_sums.held_out, by_rows.held_out, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(by_sums.bias, by_rows.bias, rtol=1e-5, atol=1e-3)  # 100 times the weights' error


@pytest.mark.parametrize("wide", [0, 500])
def test_of_many_images_some_that_lie_evenly_judge_and_all_are_fitted_to_a_few_at_a_time(wide, monkeypatch):
    x, y = world(images=25)
    x = F.pad(x, (0, wide))
    whole = fit_ridge(x, y, strengths=[0.1])
    monkeypatch.setattr(ridge, "MOST_JUDGES", 9)
    some = fit_ridge(iter(x.split(4, 1)), y, strengths=[0.1])
    judged = (whole.held_out[::3] / whole.sharpness, some.held_out / some.sharpness)
    torch.testing.assert_close(*judged, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(some.weight / some.sharpness, whole.weight / whole.sharpness, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_finite_and_no_images_are_refused(bad):
    x, y = world()
    with pytest.raises(ValueError, match="there is no labelled image"):
        fit_ridge(x[:, :0], y[:0])
    with pytest.raises(ValueError, match="not finite"):
        fit_ridge(x, y, torch.full((2, WIDTH), bad), torch.full((2, C), 1 / C))
    x[1, 3, 2] = bad
    with pytest.raises(ValueError, match="not finite"):
        fit_ridge(x, y)
