"""First-order Markov chain: what followed the last item."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lsan.data.dataset import Dataset
from lsan.data.splits import Split
from lsan.models.events import training_events, training_popularity
from lsan.models.histories import Histories


class Markov:
    """How often each item followed the last one in training, then popularity."""

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
