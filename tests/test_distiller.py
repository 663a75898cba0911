import torch

from prockd.training.distiller import recolour_some


def test_other_colours_come_to_the_asked_share_of_images_and_repeat_with_the_seed():
    images = torch.rand(200, 3, 4, 4)
    torch.manual_seed(3)
    some = recolour_some(images, 0.5)
    changed = (some != images).flatten(1).any(1).float().mean()
    assert 0.35 < changed < 0.65
    torch.manual_seed(3)
    assert torch.equal(recolour_some(images, 0.5), some)
    assert recolour_some(images, 0.0) is images
