"""The training events of a split: all that counting models may look at."""

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int
from torch import Tensor

from lsan.data.dataset import Dataset
from lsan.data.splits import Split

IntArray = npt.NDArray[np.int64]


def training_positions(split: Split) -> IntArray:
    """Which of the dataset's flat events train, user after user, each oldest first. Shape [training events]."""
    lengths = split.train_stop - split.train_start
    first = np.repeat(split.train_start - (np.cumsum(lengths) - lengths), lengths)
    positions: IntArray = first + np.arange(len(first))
    return positions


def training_events(dataset: Dataset, split: Split) -> tuple[IntArray, IntArray]:
    """User index and item index 1..V of every training event, in the order of `training_positions`."""
    users = np.repeat(np.arange(len(split.train_start)), split.train_stop - split.train_start)
    return users, dataset.items[training_positions(split)].astype(np.int64)


def training_popularity(dataset: Dataset, split: Split) -> Int[Tensor, " items"]:
    """Training events of each item 1..V (entry v - 1)."""
    _, items = training_events(dataset, split)
    counts = np.bincount(items, minlength=len(dataset.catalogue) + 1)
    return torch.from_numpy(counts[1:])
