"""What steps read is made ready in their order, and copied once."""

import json

import numpy as np
import pytest
import torch

from prockd.training.feeding import fed, has_room, profiled, take

CPU = torch.device("cpu")


def test_steps_are_fed_in_order_and_an_error_is_raised_at_its_own_step():
    def make(step: int) -> int:
        if step == 3:
            raise ValueError("step 3")
        return 10 * step

    feeds = fed(make, range(5), CPU)
    assert [next(feeds) for _ in range(3)] == [0, 10, 20]
    with pytest.raises(ValueError, match="step 3"):
        next(feeds)


def test_rows_of_an_array_on_the_disk_are_those_that_were_asked_for(tmp_path):
    array = np.lib.format.open_memmap(tmp_path / "a.npy", mode="w+", dtype=np.uint8, shape=(7, 3, 4, 4))
    array[:] = np.random.default_rng(0).integers(0, 256, array.shape)
    rows = np.array([6, 0, 0, 3])
    taken = take(array, rows, CPU)
    assert taken.dtype == torch.uint8
    assert np.array_equal(taken.numpy(), array[rows])
    taken[:] = 0
    assert array.any()


def test_nothing_stays_on_a_cpu_whose_memory_is_the_disks():
    assert not has_room(1, CPU)


def test_a_profile_tells_read_and_copied_and_gives_what_was_fed(tmp_path):
    array = np.zeros((9, 3, 4, 4), np.uint8)
    feeds = fed(lambda step: take(array, np.array([step, 8]), CPU), range(4), CPU)
    assert [tuple(feed.shape) for feed in profiled(feeds, tmp_path)] == [(2, 3, 4, 4)] * 4
    table = (tmp_path / "profile.txt").read_text()
    assert all(word in table for word in ("read", "copy", "CPU total"))
    names = {event.get("name") for event in json.loads((tmp_path / "trace.json").read_text())["traceEvents"]}
    assert {"read", "copy"} <= names
