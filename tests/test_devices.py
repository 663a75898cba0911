"""Where things are computed."""

from dataclasses import dataclass

import pytest
import torch
from fake_device import accelerator, fake_device
from torch import nn

from prockd.devices import (
    default_device,
    device_for,
    made_ahead,
    map_tensors,
    on_device,
    random_state_kept,
    seed_global,
)

CPU = torch.device("cpu")


def test_the_default_device_is_the_accelerator_of_the_machine_and_else_the_cpu(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    for found, expected in ((None, "cpu"), (torch.device("mps"), "mps"), (torch.device("cuda"), "cuda")):
        with accelerator(found):
            assert default_device().type == expected
            assert default_device(cpu=True) == CPU


def test_each_of_several_processes_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with accelerator(torch.device("cuda")):
        for rank, index in ((0, 0), (1, 1), (2, 0)):
            monkeypatch.setenv("LOCAL_RANK", str(rank))
            assert default_device() == torch.device("cuda", index)


def test_a_module_runs_where_it_was_put_or_from_the_cpu_on_the_accelerator():
    module = nn.Linear(2, 2)
    with fake_device() as away, accelerator(away):
        assert device_for(module) == away
        assert device_for(module, "cpu") == CPU
        with accelerator(None):
            assert device_for(module) == CPU
            assert device_for(module.to(away)) == away


def stop(module: nn.Module, expected: torch.device) -> None:
    assert {t.device for t in module.state_dict().values()} == {expected}
    raise KeyboardInterrupt


def test_each_part_of_a_module_comes_back_to_where_it_was_whatever_happens():
    with fake_device() as away:
        mixed = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
        mixed[1][0].to(away)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt), on_device(away, mixed):
                stop(mixed, away)
            assert mixed[1][0].weight.device == away
            assert {mixed[0].weight.device, mixed[1][1].running_mean.device} == {CPU}


def test_what_is_drawn_inside_leaves_no_trace():
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    with random_state_kept(CPU):
        seed_global(7, CPU)
        torch.rand(5)
    assert torch.equal(torch.rand(2), expected)


@dataclass(frozen=True)
class Pair:
    first: torch.Tensor
    name: str


def test_tensors_are_reached_through_lists_tuples_dictionaries_and_dataclasses():
    one = torch.ones(1)
    twice = map_tensors(lambda t: 2 * t, {"a": [one, (one, 3)], "b": Pair(one, "x"), "c": None, "d": nn.Identity})
    assert (twice["a"][0].item(), twice["a"][1][0].item(), twice["a"][1][1]) == (2, 2, 3)
    assert (twice["b"].first.item(), twice["b"].name, twice["c"], twice["d"]) == (2, "x", None, nn.Identity)
    assert one.item() == 1


@pytest.mark.parametrize("threads", [0, 3])
def test_what_threads_make_ahead_comes_in_order_and_an_error_at_its_own_place(threads):
    def make(number: int) -> int:
        if number == 5:
            raise ValueError("number 5")
        return 10 * number

    made = made_ahead(make, range(9), threads, 2)
    assert [next(made) for _ in range(5)] == [0, 10, 20, 30, 40]
    with pytest.raises(ValueError, match="number 5"):
        next(made)
