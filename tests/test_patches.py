import numpy as np
import pytest
from part_world import masked

from prockd.evaluation.patches import lies_on, nearest_places, patch_parts, patch_shares, pixel_patches, place_blocks


def test_a_patch_has_the_commonest_part_where_half_of_it_is_foreground():
    mask = np.zeros((1, 4, 12), np.uint8)
    mask[0, :2, 0:4] = 3  # half foreground: part 3
    mask[0, :2, 4:8] = 3
    mask[0, 0, 4] = 0  # one pixel short of half: background
    mask[0, :, 8:12] = 1
    mask[0, :3, 8:12] = 2  # 12 pixels of part 2, 4 of part 1
    assert patch_parts(mask, (1, 3), 4).tolist() == [[3, 0, 2]]


def test_background_does_not_vote_against_parts_where_half_is_foreground():
    mask = np.zeros((1, 4, 4), np.uint8)
    mask[0, 0] = 1
    mask[0, 1] = 2
    mask[0, 1, 0] = 1  # 8 pixels of background, 5 of part 1, 3 of part 2
    assert patch_parts(mask, (1, 1), 3).tolist() == [[1]]


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_patches_are_counted_row_by_row(dtype):
    mask = np.arange(6).reshape(1, 2, 3).repeat(2, 1).repeat(4, 2).astype(dtype)
    assert patch_parts(mask, (2, 3), 6).tolist() == [[0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize("grid", [(64, 8), (8, 33)])
def test_a_grid_finer_than_the_mask_is_refused(grid):
    with pytest.raises(ValueError, match=f"a grid of {grid[0]}x{grid[1]} patches is finer than images of 32x32"):
        patch_parts(np.zeros((1, 32, 32), np.uint8), grid, 2)


def test_a_mask_with_a_number_that_is_no_parts_is_refused():
    with pytest.raises(ValueError, match="the masks hold part 3, but the 3 parts are numbered from 0"):
        patch_parts(np.full((1, 4, 4), 3, np.uint8), (2, 2), 3)


def test_pixels_on_an_edge_of_patches_count_in_both_by_their_area():
    mask = np.zeros((1, 3, 3), np.uint8)
    mask[0, 0] = 1  # the upper row of three; patches are one pixel and a half high
    shares = patch_shares(mask, (2, 1), 2)
    np.testing.assert_allclose(shares[0, :, 1], [2 / 3, 0], rtol=1e-6)
    assert patch_parts(mask, (2, 1), 2).tolist() == [[1, 0]]


def test_shares_of_a_grid_that_does_not_divide_the_side_add_up():
    mask = np.random.default_rng(0).integers(0, 5, (3, 26, 26), np.uint8)
    shares = patch_shares(mask, (7, 5), 5)
    np.testing.assert_allclose(shares.sum(2), 1, rtol=1e-5)
    whole = np.stack([(mask == part).mean((1, 2)) for part in range(5)], 1)
    np.testing.assert_allclose(shares.mean(1), whole, rtol=1e-4)  # patches are of one area


def test_a_patch_lies_on_every_part_that_covers_fifteen_percent_of_it():
    mask = np.zeros((1, 10, 20), np.uint8)
    mask[0, 0, :10] = 1
    mask[0, 1, :5] = 1  # 15 of 100 pixels
    mask[0, 5:, :10] = 2
    mask[0, 0, 10:] = 3
    mask[0, 1, 10:14] = 3  # 14 of 100
    assert lies_on(mask, (1, 2), 4)[0].tolist() == [[True, True, True, False], [True, False, False, False]]


def test_pixel_patches_are_cut_at_the_places_of_the_patches():
    images = masked(num_images=2)
    patches = pixel_patches(images, (8, 4))
    assert patches.shape == (2, 32, 3 * 4 * 8)
    cut = images.pixels[1, :, 5 * 4 : 6 * 4, 2 * 8 : 3 * 8]
    np.testing.assert_allclose(patches[1, 5 * 4 + 2], cut.ravel() / 255, rtol=1e-6)


def test_pixel_patches_of_a_grid_that_does_not_divide_the_side_keep_colours_and_places():
    images = masked(num_images=1, side_px=26, patch_px=2)
    images.pixels[:] = 51
    images.pixels[:, 1, :13] = 255
    patches = pixel_patches(images, (4, 3)).reshape(4, 3, 3, 7, 9)  # rows, columns, channels, pixels resampled by area
    np.testing.assert_allclose(patches[..., 0, :, :], 0.2, rtol=1e-5)
    np.testing.assert_allclose(patches[0, :, 1], 1, rtol=1e-5)
    np.testing.assert_allclose(patches[3, :, 1], 0.2, rtol=1e-5)
    np.testing.assert_allclose(patches[:, :, 1].mean(), 0.6, rtol=1e-5)


def test_a_grid_finer_than_the_image_has_no_pixel_patches():
    with pytest.raises(ValueError, match="a grid of 33x33 patches is finer than images of 32x32 pixels"):
        pixel_patches(masked(1), (33, 33))


def test_places_are_blocks_of_the_frame_and_no_more_than_prototypes():
    assert place_blocks((4, 4), 5).reshape(4, 4).tolist() == [[0, 0, 1, 1]] * 2 + [[2, 2, 3, 3]] * 2
    assert len(np.unique(place_blocks((20, 20), 96))) == 81


def test_the_nearest_places_are_the_patch_itself_and_those_around_it():
    near = nearest_places((3, 3))
    assert near[:, 0].tolist() == list(range(9))
    assert sorted(near[4, :5].tolist()) == [1, 3, 4, 5, 7]
