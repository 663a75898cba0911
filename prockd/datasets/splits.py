"""Parts of a data set, and divisions that keep near copies on one side."""

from collections.abc import Hashable, Sequence
from typing import cast

import numpy as np
from jaxtyping import Int64

from prockd._types import ImageDataset, Sample
from prockd.cache import digest
from prockd.datasets.packed import PackedImages, row_numbers
from prockd.datasets.problems import DatasetError


class _Subset:
    """Some samples of a data set; what it knows of them without reading them is known of the part too."""

    def __init__(self, dataset: ImageDataset, indices: Sequence[int]) -> None:
        self.dataset, self.indices, ids, groups = dataset, indices, getattr(dataset, "ids", None), groups_of(dataset)
        self.fingerprint, self.threads = digest([dataset.fingerprint, indices]), getattr(dataset, "threads", 0)
        self.ids = None if ids is None else tuple(str(ids[m]) for m in indices)
        self.groups = None if groups is None else tuple(groups[m] for m in indices)

    @property
    def classes(self) -> Sequence[str]:
        return self.dataset.classes

    @property
    def labels(self) -> Int64[np.ndarray, " M"]:
        return labels_of(self.dataset)[self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[self.indices[index]]

    def __repr__(self) -> str:
        return f"{len(self)} of {self.dataset!r}"


def labels_of(dataset: ImageDataset) -> Int64[np.ndarray, " M"]:
    """Return all labels, from the data set's own ``labels`` where it has them, else by reading every sample."""
    labels = getattr(dataset, "labels", None)
    return np.array([dataset[m].label for m in range(len(dataset))] if labels is None else labels, np.int64)


def groups_of(dataset: ImageDataset) -> Sequence[Hashable] | None:
    """Return the group of each sample (the video of a frame), where the data set knows it."""
    return cast(Sequence[Hashable] | None, getattr(dataset, "groups", None))


def id_of(dataset: ImageDataset, index: int) -> str:
    """Return the name of a sample without reading it: its id where the data set lists them, else its number."""
    ids = getattr(dataset, "ids", None)
    return str(index if ids is None else ids[index])


def subset(dataset: ImageDataset, indices: Sequence[int] | np.ndarray) -> ImageDataset:
    """Some samples of a data set, by number (IndexError outside) or by a boolean mask; packed images stay packed."""
    if isinstance(dataset, PackedImages):
        return dataset.select(indices)
    return _Subset(dataset, row_numbers(indices, len(dataset)).tolist())


def train_test_split(
    dataset: ImageDataset, test_size: float, seed: int = 0, *, groups: Sequence[Hashable] | None = None
) -> tuple[ImageDataset, ImageDataset]:
    """Divide a data set at random into two.

    Without groups each class is divided alike. With groups, such as the video that each frame is from, a group goes to
    one side as a whole, so that near copies are never on both.

    Example:
        >>> import numpy as np
        >>> from prockd.datasets import Arrays
        >>> frames = Arrays(np.zeros((8, 16, 16, 3), np.uint8), labels=[0] * 8, classes=["cow"])
        >>> train, test = train_test_split(frames, 0.25, groups=list("aaabbbcc"))
        >>> len(train), [sample.id for sample in test]
        (6, ['6', '7'])

    Args:
        dataset: what to divide.
        test_size: share of the test part, between 0 and 1; both parts get at least one image or group.
        seed: the same seed divides alike.
        groups: a name for each sample, equal for those that belong together; None for the groups that the data set
            knows itself, if it does. ``range(len(dataset))`` divides image by image all the same.

    Returns:
        The part to train on and the part to test on, each in the order of the data set.

    Raises:
        DatasetError: fewer than two images or groups, or not one group a sample.
        ValueError: ``test_size`` is not between 0 and 1.
    """
    if not 0 < test_size < 1:
        raise ValueError(f"test_size={test_size}: must lie between 0 and 1")
    rng = np.random.default_rng(seed)
    groups = groups_of(dataset) if groups is None else groups
    if groups is None:
        labels = labels_of(dataset)
        drawn = []
        for members in (np.flatnonzero(labels == label) for label in np.unique(labels)):
            n, share = len(members), round(test_size * len(members))
            drawn.append(rng.permutation(members)[: min(max(share, 1), n - 1) if n > 1 else share])
        test = np.concatenate(drawn)
    else:
        if len(groups) != len(dataset):
            raise DatasetError(f"{len(groups)} groups for {len(dataset)} samples")
        number = {group: i for i, group in enumerate(dict.fromkeys(groups))}
        group_of = np.array([number[group] for group in groups])
        # Groups differ in size: of the groups in random order, as many as come nearest to the share of images.
        order = rng.permutation(len(number))
        filled = np.bincount(group_of)[order].cumsum()
        count = int(np.abs(filled - test_size * len(dataset)).argmin()) + 1
        test = np.flatnonzero(np.isin(group_of, order[: min(count, len(number) - 1)]))
    train = np.setdiff1d(np.arange(len(dataset)), test)
    if len(train) == 0 or len(test) == 0:
        needed = "two are needed, of two groups where there are groups"
        raise DatasetError(f"{len(dataset)} images cannot be divided: {needed}")
    return subset(dataset, train), subset(dataset, np.sort(test))
