"""K-means by blocks, in one process or in several."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
from fake_device import fake_device
from sklearn.cluster import KMeans

from prockd.prototypes import kmeans as module
from prockd.prototypes.kmeans import k_means


def blobs(count: int = 3000, centres: int = 12, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Points about some centres, and weights of which some are 0."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(centres, 8))[rng.integers(0, centres, count)] + 0.3 * rng.normal(size=(count, 8))
    return torch.from_numpy(points).float(), torch.from_numpy(rng.integers(0, 4, count)).float()


def inertia(points, weights, centres) -> float:
    return float((torch.cdist(points, centres).min(1).values.square() * weights).sum())


def test_it_ends_as_near_to_the_points_as_scikit_learn_does_in_the_median_of_seeds():
    points, weights = blobs()
    own, reference = [], []
    for seed in range(5):
        own.append(inertia(points, weights, k_means(points, weights, 12, seed=seed)[0]))
        fitted = KMeans(12, n_init=1, random_state=seed).fit(points.numpy(), sample_weight=weights.numpy())
        reference.append(inertia(points, weights, torch.from_numpy(fitted.cluster_centers_).float()))
    assert np.median(own) < 1.02 * np.median(reference)


def test_centres_are_weighted_means_of_the_points_that_are_nearest():
    points, weights = blobs()
    centres, labels = k_means(points, weights, 12, seed=0, tolerance=0.0)
    assert torch.equal(labels, torch.cdist(points, centres).argmin(1))
    for k in range(12):
        own = labels == k
        torch.testing.assert_close(centres[k], (points[own] * weights[own, None]).sum(0) / weights[own].sum())


def test_blocks_and_devices_change_nothing_but_the_order_of_sums(monkeypatch):
    points, weights = blobs()
    whole, labels = k_means(points, weights, 12, seed=0)
    with fake_device() as away:
        there, _ = k_means(points.to(away), weights.to(away), 12, seed=0)
        torch.testing.assert_close(there.cpu(), whole)
    monkeypatch.setattr(module, "BLOCK", 700)
    torch.testing.assert_close(k_means(points, weights, 12, seed=0)[0], whole)
    assert len(labels) == len(points)


def test_of_many_points_some_move_the_centres_and_all_end_it(monkeypatch):
    points, weights = blobs(20_000)
    whole = inertia(points, weights, k_means(points, weights, 12, seed=0)[0])
    monkeypatch.setattr(module, "LEARNERS", 2000)
    monkeypatch.setattr(module, "STARTERS", 1000)
    centres, labels = k_means(points.half(), weights, 12, seed=0)
    assert labels.shape == (20_000,)
    assert centres.dtype == torch.float32
    assert inertia(points, weights, centres) < 1.1 * whole


def test_alike_points_leave_no_centre_that_is_no_number():
    centres, labels = k_means(torch.ones(50, 3), torch.ones(50), 4, seed=0)
    assert centres.isfinite().all()
    assert len(labels) == 50


def one_of_two(rank: int, path: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{path}/store", rank=rank, world_size=2)
    points, weights = blobs()
    own = slice(0, 1100) if rank == 0 else slice(1100, None)
    centres, labels = k_means(points[own], weights[own], 12, seed=0, together=True)
    torch.save((centres, labels), f"{path}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_with_some_of_the_points_each_find_what_one_finds(tmp_path):
    torch.multiprocessing.start_processes(one_of_two, (str(tmp_path),), nprocs=2, start_method="spawn")
    (first, labels), (second, others) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    centres, whole = k_means(*blobs(), 12, seed=0)
    assert torch.equal(first, second)
    torch.testing.assert_close(first, centres)
    assert torch.equal(torch.cat([labels, others]), whole)
