"""The training events of a split: all that counting models may look at."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int
from torch import Tensor

from lsan.data.dataset import Dataset
from lsan.data.splits import Split, flat_ranges

IntArray = npt.NDArray[np.int64]


def training_positions(split: Split) -> IntArray:
    """Which of the dataset's flat events train, user after user, each oldest first. Shape [training events]."""
    return flat_ranges(split.train_start, split.train_stop - split.train_start)


def training_events(dataset: Dataset, split: Split) -> tuple[IntArray, IntArray]:
    """User index and item index 1..V of every training event, in the order of `training_positions`."""
    users = np.repeat(np.arange(len(split.train_start)), split.train_stop - split.train_start)
    return users, dataset.items[training_positions(split)].astype(np.int64)


def training_popularity(dataset: Dataset, split: Split) -> Int[Tensor, " items"]:
    """Training events of each item 1..V (entry v - 1)."""
    _, items = training_events(dataset, split)
    counts = np.bincount(items, minlength=len(dataset.catalogue) + 1)
    return torch.from_numpy(counts[1:])


def near_pairs(users: IntArray, items: IntArray, reach: int) -> Iterator[tuple[IntArray, IntArray, int]]:
    """Earlier item, later item and distance of all pairs of one user's events at most `reach` steps apart; one distance
    after the other. Shape [pairs] each."""
    for distance in range(1, reach + 1):
        near = users[distance:] == users[:-distance]
        yield items[:-distance][near], items[distance:][near], distance
