"""One rule chooses what galleries show: with parts the clearest of each, without any label the clearest of all."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from widget_world import PART_NAMES, discovered, world

from prockd.datasets import PackedImages
from prockd.evaluation.best_prototypes import part_prototypes
from prockd.evaluation.clarity import strongest_patches, strongest_vectors
from prockd.evaluation.galleries import clearest_prototypes, gallery_prototypes, part_names_of
from prockd.farmyard import PARTS

SIDE = 6


def pictures(count: int, ids: str = "a", parts: int = 0) -> PackedImages:
    """Blank images."""
    masks = np.full((count, 12, 12), parts, np.uint8) if parts else None
    names = tuple(f"{ids}/{m}" for m in range(count))
    return PackedImages(np.zeros((count, 3, 12, 12), np.uint8), np.zeros(count, np.int64), names, ("x",), "", masks)


def test_where_parts_are_known_a_gallery_shows_the_clearest_prototype_of_each_part():
    features = world()
    bank = discovered(features)
    a = bank.assignments(features)
    found = part_prototypes(a, features.images, features.grid, PART_NAMES)
    assert gallery_prototypes(bank, features, a, part_names=PART_NAMES) == found.gallery


def test_without_labels_the_clearest_come_first_and_what_keeps_to_the_border_last():
    M, N = 8, SIDE * SIDE
    a = torch.full((M, N, 5), 0.01)
    a[..., 3] = 0.02  # 3 is everywhere, 2 at the border, and 4 nowhere preferred
    middle, corner = 2 * SIDE + 2, 0
    a[:, middle, 0] = a[:, middle + 1, 1] = a[:, corner, 2] = 0.9
    rng = np.random.default_rng(0)
    base = rng.normal(size=(4, 1, 16))
    spread = np.array([1.0, 0.2, 0.0, 0.1])[:, None, None]  # 0 is muddled, 1 clear, 2 and 3 clearest
    vectors = (base + spread * rng.normal(size=(4, M, 16))).astype(np.float32)
    images = pictures(M)
    assert clearest_prototypes(vectors, a, images, (SIDE, SIDE)) == [1, 0, 2, 3]
    assert clearest_prototypes(vectors, a, images, (SIDE, SIDE), count=1) == [1]
    assert set(clearest_prototypes(vectors[:, :1], a, images, (SIDE, SIDE))) == {0, 1, 2, 3}, "one image has no cosines"


def test_strongest_patches_are_one_an_image_and_leave_out_what_no_patch_prefers():
    a = torch.tensor([[[0.9, 0.1, 0.0], [0.8, 0.2, 0.0]], [[0.2, 0.8, 0.0], [0.95, 0.05, 0.0]]])  # 2 images of 2
    used, image, patch = strongest_patches(a, top=2)
    assert used.tolist() == [0, 1]
    assert image.tolist() == [[1, 0], [1, 0]]
    assert patch.tolist() == [[1, 0], [0, 1]]
    a[:, 0] = 0  # a bar beside the picture: nobody's
    assert strongest_patches(a)[0].tolist() == [0]


def test_the_vectors_of_the_strongest_patches_are_those_of_the_bank():
    features = world(70)
    bank = discovered(features)
    a = bank.assignments(features)
    _, image, patch = strongest_patches(a)
    u = bank.embed(features.fused(range(70))).detach().numpy()
    np.testing.assert_allclose(strongest_vectors(bank, features, a), u[image, patch], rtol=1e-5, atol=1e-6)


def test_own_images_have_a_gallery_without_part_names():
    features = world(parts=False)
    bank = discovered(features)
    found = gallery_prototypes(bank, features, bank.assignments(features), count=3)
    assert len(set(found)) == 3


def test_parts_bear_the_callers_names_farmyards_or_numbers():
    assert part_names_of(pictures(1)) == []
    assert part_names_of(pictures(1, "farmyard", parts=8)) == list(PARTS)
    assert part_names_of(pictures(1, "photos", parts=2)) == ["background", "part 1", "part 2"]
    assert part_names_of(pictures(1, parts=1), ["none", "wing"]) == ["none", "wing"]
    with pytest.raises(ValueError, match="1 part names, but the masks have part 3"):
        part_names_of(replace(pictures(1, parts=3)), ["none"])
