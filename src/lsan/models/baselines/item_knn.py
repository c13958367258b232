"""Nearest neighbours of the latest items, by what followed them nearby in training."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from lsan.data.dataset import Dataset
from lsan.data.splits import Split, flat_ranges
from lsan.models.events import training_events, training_popularity
from lsan.models.histories import Histories

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

#: Pairs of events that are counted at a time: bounds the memory beside the neighbours themselves.
_BLOCK = 1 << 22


@dataclass(frozen=True, kw_only=True)
class ItemKnnSettings:
    """The defaults were chosen on validation, see docs/compare.md."""

    window: int = 10
    """An item counts as following another when it comes at most this many events later."""
    shrinkage: float = 50.0
    """Added to the norm of a pair, in events: makes pairs of rare items less alike."""
    neighbours: int = 100
    """Followers that are kept of each item."""
    events: int = 10
    """Latest events of a history that are read."""
    decay: float = 0.5
    """Weight of an event over that of the next one."""


class ItemKnn:
    """Item-to-item nearest neighbours that know the order of events.

    `score(v) = sum over the latest events j of decay^age_j * similarity(item_j, v)`, where the last event has age 0 and

        similarity(i, v) = sum over pairs (i earlier, v later by d <= window events) of 1/d
                           / (sqrt(n_i * n_v) + shrinkage),    n the training events of an item

    Items that follow nothing in the history come after all others, by popularity. Weights by distance and by recency
    are those of session-based neighbours: Ludewig and Jannach 2018 (arXiv 1803.09587, SR and IKNN), Garg et al. 2019
    (STAN).
    """

    def __init__(self, dataset: Dataset, split: Split, settings: ItemKnnSettings | None = None) -> None:
        self._settings = settings = settings or ItemKnnSettings()
        users, items = training_events(dataset, split)
        popularity = training_popularity(dataset, split)
        self._begin, columns, values = _neighbours(users, items - 1, popularity.numpy(), settings)
        self._columns, self._values = torch.from_numpy(columns), torch.from_numpy(values.astype(np.float32))
        least = float(values.min(initial=1.0)) * settings.decay**settings.events
        self._fallback = popularity.float() / (popularity.max() + 1) * least

    def scores(self, histories: Histories) -> Float[Tensor, "batch items"]:
        items = histories.items[:, -self._settings.events :].cpu().numpy()
        row, place = np.nonzero(items)
        item = items[row, place] - 1
        weight = self._settings.decay ** (items.shape[1] - 1 - place)
        counts = self._begin[item + 1] - self._begin[item]
        event = np.repeat(np.arange(len(item)), counts)
        entry = torch.from_numpy(flat_ranges(self._begin[item], counts))
        scores = torch.zeros(len(items), len(self._fallback))
        scores.view(-1).index_add_(
            0,
            torch.from_numpy(row[event] * scores.shape[1]) + self._columns[entry],
            torch.from_numpy(weight[event].astype(np.float32)) * self._values[entry],
        )
        return torch.where(scores > 0, scores, self._fallback).to(histories.items.device)


def _neighbours(
    users: IntArray, items: IntArray, popularity: IntArray, settings: ItemKnnSettings
) -> tuple[IntArray, IntArray, FloatArray]:
    """The best followers of each item 0..V-1 as sparse rows: where row i begins [V + 1], their items and similarities.

    Items are taken in blocks that begin at most `_BLOCK` pairs, or one by one, so that all pairs of an item are seen
    together.
    """
    size, events = len(popularity), len(items)
    order = np.argsort(items, kind="stable")
    begin = np.concatenate([[0], np.cumsum(popularity)])
    cuts = [0]
    while cuts[-1] < size:
        reach = begin[cuts[-1]] + _BLOCK // settings.window
        cuts.append(max(cuts[-1] + 1, int(np.searchsorted(begin, reach, side="right")) - 1))
    rows, columns, values = [], [], []
    for first, last in pairwise(cuts):
        earlier = order[begin[first] : begin[last]]
        keys, weights = [], []
        for distance in range(1, settings.window + 1):
            inside = earlier[earlier + distance < events]
            inside = inside[users[inside] == users[inside + distance]]
            keys.append(items[inside] * size + items[inside + distance])
            weights.append(np.full(len(inside), 1 / distance))
        pairs, pair = np.unique(np.concatenate(keys), return_inverse=True)
        row, column = pairs // size, pairs % size
        norm = np.sqrt(popularity[row] * popularity[column]) + settings.shrinkage
        value = np.bincount(pair, np.concatenate(weights), minlength=len(pairs)) / norm
        best = np.lexsort((-value, row))
        row = row[best]
        kept = np.arange(len(row)) - np.searchsorted(row, row) < settings.neighbours
        rows.append(row[kept])
        columns.append(column[best][kept])
        values.append(value[best][kept])
    starts = np.searchsorted(np.concatenate(rows), np.arange(size + 1))
    return starts, np.concatenate(columns), np.concatenate(values)
