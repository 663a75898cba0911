import numpy as np
import pytest
import torch
from loop_world import PLAIN, made, run

from prockd.training.batches import Source
from prockd.training.loop import make_distiller
from prockd.training.rivals import whole_patches
from prockd.training.standardiser import Standardiser

B, N, D = 40, 12, 24


@pytest.fixture
def patches() -> torch.Tensor:
    """Correlated values of very different deviations, far from zero."""
    torch.manual_seed(0)
    mixed = torch.randn(B, N, D) @ torch.randn(D, D) * torch.logspace(-2, 1, D)
    return 5 + mixed


def fitted(how: str, patches: torch.Tensor, parts: int = 1) -> Standardiser:
    standardiser = Standardiser(how, D)
    standardiser.fit(patches.chunk(parts))
    return standardiser


@pytest.mark.parametrize("how", ["mean_std", "phi_s"])
def test_every_value_has_mean_zero_and_variance_one(patches, how):
    standardiser = fitted(how, patches)
    out = standardiser(patches)
    assert out.shape == (B, N, standardiser.width)
    torch.testing.assert_close(out.mean((0, 1)), torch.zeros(standardiser.width), atol=1e-3, rtol=0)
    variance = out.var((0, 1), correction=0)
    wide = patches.std((0, 1)) > 0.02 * patches.std((0, 1)).mean() if how == "mean_std" else slice(None)
    torch.testing.assert_close(variance[wide], torch.ones_like(variance[wide]), atol=2e-2, rtol=0)


def test_phi_s_keeps_distances_up_to_one_factor_and_single_values_do_not(patches):
    apart = torch.pdist(patches.flatten(0, 1)[:50])
    ratios = [torch.pdist(fitted(how, patches)(patches).flatten(0, 1)[:50]) / apart for how in ("phi_s", "mean_std")]
    torch.testing.assert_close(ratios[0], ratios[0].mean().expand_as(ratios[0]), rtol=1e-3, atol=0)
    assert ratios[1].std() > 0.05 * ratios[1].mean()


def test_a_width_that_is_a_power_of_two_stays_as_it_is():
    assert [Standardiser("phi_s", width).width for width in (1, 2, 24, 32, 33)] == [1, 2, 32, 32, 64]
    assert Standardiser("mean_std", 33).width == 33


@pytest.mark.parametrize("how", ["mean_std", "phi_s"])
def test_statistics_do_not_depend_on_how_many_patches_come_at_a_time(patches, how):
    whole, parts = fitted(how, patches), fitted(how, patches, 7)
    torch.testing.assert_close(whole(patches), parts(patches), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("how", ["mean_std", "phi_s"])
def test_values_that_never_change_stay_finite(how):
    constant = torch.ones(2, 3, D)
    assert torch.equal(fitted(how, constant)(constant).isfinite().all(), torch.tensor(True))
    dead = torch.randn(20, 6, D) * (torch.arange(D) > 3)
    dead[0, 0, 0] = 1e-4  # dead but for one patch
    assert fitted(how, dead)(dead).abs().max() < 10


def test_statistics_are_of_whole_images_with_and_without_labels_and_are_taken_before_the_training(features):
    images = features.images
    student = made()
    sources = [Source(images, features, task=student.task), Source(images.select([0, 1]), features.select([0, 1]))]
    cpu = torch.device("cpu")
    seen = torch.cat(list(whole_patches(sources, student, cpu, batch_size=5)))
    assert len(seen) == len(images) + 2
    config = PLAIN.replace(rival="mse", standardise="mean_std", steps=1)
    distiller = make_distiller(student, config, features.widths)
    distiller.rival.fit(sources, student, cpu)
    torch.testing.assert_close(distiller.rival.standardiser.mean, seen.mean((0, 1)), rtol=1e-4, atol=1e-6)
    values = [
        run(made(), images, config.replace(standardise=how), features=features).rows[0]["rival"]
        for how in ("none", "mean_std", "phi_s")
    ]
    assert len(set(np.round(values, 4))) == 3


def test_of_very_many_images_some_are_measured(features, monkeypatch):
    monkeypatch.setattr("prockd.training.rivals.MOST_MEASURED", 6)
    student = made()
    sources = [Source(features.images, features, task=student.task), Source(features.images, features)]
    assert sum(len(some) for some in whole_patches(sources, student, torch.device("cpu"))) == 6
