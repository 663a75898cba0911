"""Several processes that share the images of a step."""

import pytest
import torch

from prockd.training.processes import Processes


def test_a_step_without_an_image_for_each_process_is_refused_and_no_image_is_blamed():
    two = Processes(1, 2, torch.device("cpu"))
    assert list(range(5))[two.share(5)] == [1, 3]
    with pytest.raises(ValueError, match=r"1 images in a step for 2 processes: .* raise distill\.batch_size .* to 2"):
        two.share(1)
