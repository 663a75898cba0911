import numpy as np
import torch

from prockd.prototypes.saliency import BARS, INNER, OUTER, activity, patch_saliency, zones


def test_patches_that_look_like_borders_are_not_salient_wherever_they_lie():
    places = torch.arange(36).repeat(200)
    row, column = places // 6, places % 6
    subject = (row >= 2) & (row < 4) & (column >= 2) & (column < 4)
    stray = (torch.arange(7200) // 36 == 7) & (places == 14)  # background in the middle of one picture
    patches = torch.randn(7200, 8, generator=torch.Generator().manual_seed(0)) * 0.1
    patches[subject & ~stray, 0] += 3
    where = torch.from_numpy(zones(np.array([[0.0, 0, 1, 1]]), (6, 6)))[0][places]
    salient = patch_saliency(patches, where)
    assert salient[subject & ~stray].min() > 0.5 > salient[~subject].max() + 0.1
    assert salient[stray].item() < 0.4
    assert torch.equal(patch_saliency(patches[:4], torch.full((4,), OUTER)), torch.ones(4))


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
