"""Non-neural baselines, under the same contract as the networks: `scores(histories)`."""

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lsan.data.dataset import Dataset
from lsan.data.splits import Split
from lsan.models.histories import Histories

IntArray = npt.NDArray[np.int64]


def training_events(dataset: Dataset, split: Split) -> tuple[IntArray, IntArray]:
    """User index and item index 1..V of every training event, user after user, each oldest first."""
    lengths = split.train_stop - split.train_start
    first = np.repeat(split.train_start - (np.cumsum(lengths) - lengths), lengths)
    users = np.repeat(np.arange(len(lengths)), lengths)
    return users, dataset.items[first + np.arange(len(first))].astype(np.int64)


def training_popularity(dataset: Dataset, split: Split) -> Int[Tensor, " items"]:
    """Training events of each item 1..V (entry v - 1)."""
    _, items = training_events(dataset, split)
    counts = np.bincount(items, minlength=len(dataset.catalogue) + 1)
    return torch.from_numpy(counts[1:])


class Popularity:
    """Every history gets the same scores: the training events of each item."""

    def __init__(self, popularity: Int[Tensor, " items"]) -> None:
        self._scores = popularity.float()

    def scores(self, histories: Histories) -> Float[Tensor, "batch items"]:
        return self._scores.expand(len(histories.items), -1).clone()


class Markov:
    """First-order Markov chain: how often each item followed the last one in training, then popularity."""

    def __init__(self, dataset: Dataset, split: Split) -> None:
        users, items = training_events(dataset, split)
        following = np.flatnonzero(users[1:] == users[:-1]) + 1
        popularity = training_popularity(dataset, split).float()
        # below 1, so that one observed transition outweighs any popularity
        self._fallback = popularity / (popularity.max() + 1)
        size = len(popularity)
        pairs, counts = np.unique((items[following - 1] - 1) * size + items[following] - 1, return_counts=True)
        self._begin = np.searchsorted(pairs // size, np.arange(size + 1))
        self._column = torch.from_numpy(pairs % size)
        self._count = torch.from_numpy(counts.astype(np.float32))

    def scores(self, histories: Histories) -> Float[Tensor, "batch items"]:
        last = histories.items[:, -1].cpu().numpy()
        scores = self._fallback.repeat(len(last), 1)
        for row in np.flatnonzero(last):
            followers = slice(self._begin[last[row] - 1], self._begin[last[row]])
            scores[row, self._column[followers]] += self._count[followers]
        return scores.to(histories.items.device)
