"""What is kept of a teacher once its bank is frozen."""

import numpy as np
import pytest

from prockd.prototypes.embedding import embed_features
from prockd.teachers.embedded import EmbeddedFeatures


@pytest.fixture
def embedded(features, bank, tmp_path) -> EmbeddedFeatures:
    return embed_features(bank, features, root=tmp_path)


def test_they_know_their_images_views_and_patches(embedded, features, bank):
    assert (len(embedded), embedded.grid, embedded.width, embedded.views) == (12, (8, 8), 16, ("plain", "mirrored"))
    assert (embedded.teacher, embedded.space) == (features.teacher, bank.space)
    assert embedded.embedded([3, 1], "mirrored").shape == (2, 16, 8, 8)
    assert "12 images, plain + mirrored; 8x8 patches of 16;" in repr(embedded)


def test_each_image_may_be_read_in_a_view_of_its_own(embedded):
    mixed = embedded.embedded(np.array([4, 4, 2]), np.array([0, 1, 1]))
    plain, mirrored = embedded.embedded([4, 4, 2]), embedded.embedded([4, 4, 2], "mirrored")
    assert (mixed[0] == plain[0]).all()
    assert (mixed[1:] == mirrored[1:]).all()
    assert not (mixed[1] == plain[1]).all()


def test_a_view_that_the_teacher_has_not_seen_is_refused(embedded):
    with pytest.raises(ValueError, match="no view 'recoloured', only"):
        embedded.embedded([0], "recoloured")


@pytest.mark.parametrize("chosen", [[7, 2, 2], np.arange(12) % 3 == 0, [-1]])
def test_a_selection_reads_the_same_rows_and_copies_no_map(embedded, chosen):
    rows = np.arange(12)[np.asarray(chosen)]
    part = embedded.select(chosen).select(slice_all := np.arange(len(rows)))
    assert part.maps is embedded.maps
    assert part.images.ids == tuple(embedded.images.ids[m] for m in rows)
    np.testing.assert_array_equal(part.embedded(slice_all), embedded.embedded(rows))
    np.testing.assert_array_equal(part.pooled(), embedded.pooled()[rows])
    with pytest.raises(IndexError):
        embedded.select([12])
