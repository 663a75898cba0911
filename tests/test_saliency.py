import numpy as np
import torch

from prockd.prototypes.saliency import BARS, INNER, OUTER, activity, learn_saliency, zones


def test_patches_that_look_like_active_ones_are_salient_though_they_are_not_active_themselves():
    generator = torch.Generator().manual_seed(0)
    subject = torch.arange(6000) % 4 == 0
    patches = torch.randn(6000, 8, generator=generator) * 0.3
    patches[subject, 0] += 3
    active = (subject * 0.5 + 0.25 + torch.randn(6000, generator=generator) * 0.15).clamp(0, 1)
    salient = learn_saliency(patches, active)(patches, active)
    weak, loud = subject & (active < 0.5), ~subject & (active > 0.5)
    assert weak.sum() > 20
    assert loud.sum() > 20
    assert salient[weak].min() > 0.5 > salient[loud].max()
    half = torch.full((6000,), 0.5)
    assert torch.equal(learn_saliency(patches, half)(patches, half), half)


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


def test_patches_with_long_features_are_active_wherever_they_lie_and_bars_do_not_count():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randn(6, 2, 8, 8, generator=generator) * 0.1
    lengths[:, :, 0, 3:5] += 3  # along the border
    found = activity(lengths)
    assert found[:, 0, 3:5].min() > 0.9
    assert found[:, 2:].mean() < 0.4
    inside = torch.ones(6, 8, 8, dtype=torch.bool)
    inside[:, 6:] = False
    lengths[:, :, 6:] = 50
    torch.testing.assert_close(activity(lengths, inside)[:, 0, 3:5].min(), torch.tensor(1.0), atol=0.1, rtol=0)
    assert activity(torch.zeros(2, 1, 4, 4)).isfinite().all()
