"""Non-neural baselines, under the same contract as the networks: `scores(histories)`."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lsan.data.dataset import Dataset
from lsan.data.splits import Split
from lsan.models.histories import Histories


def training_popularity(dataset: Dataset, split: Split) -> Int[Tensor, " items"]:
    """Training events of each item 1..V (entry v - 1)."""
    counts = np.bincount(_training_items(dataset, split), minlength=len(dataset.catalogue) + 1)
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
        items = _training_items(dataset, split)
        ends = np.cumsum(split.train_stop - split.train_start)
        follows = np.ones(len(items), dtype=bool)
        follows[ends[ends < len(items)]] = False  # a user's first event follows nothing
        follows[:1] = False
        following = np.flatnonzero(follows)
        popularity = training_popularity(dataset, split).float()
        # below 1, so that one observed transition outweighs any popularity
        self._fallback = popularity / (popularity.max() + 1)
        size = len(popularity)
        pairs, counts = np.unique(items[following - 1] * size + items[following] - 1, return_counts=True)
        self._transitions = torch.sparse_csr_tensor(
            torch.from_numpy(np.searchsorted(pairs // size, np.arange(size + 2))),
            torch.from_numpy(pairs % size),
            torch.from_numpy(counts.astype(np.float32)),
            size=(size + 1, size),
        )

    def scores(self, histories: Histories) -> Float[Tensor, "batch items"]:
        last = histories.items[:, -1]
        begin, end = self._transitions.crow_indices()[last], self._transitions.crow_indices()[last + 1]
        scores = self._fallback.repeat(len(last), 1)
        for row, (first, stop) in enumerate(zip(begin.tolist(), end.tolist(), strict=True)):
            scores[row, self._transitions.col_indices()[first:stop]] += self._transitions.values()[first:stop]
        return scores


def _training_items(dataset: Dataset, split: Split) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Items of all training events, user after user."""
    lengths = split.train_stop - split.train_start
    first = np.repeat(split.train_start - (np.cumsum(lengths) - lengths), lengths)
    return dataset.items[first + np.arange(len(first))].astype(np.int64)
