"""Recent popularity: what most users chose lately."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lsan.data.dataset import Dataset
from lsan.data.splits import Split
from lsan.models.events import training_events, training_positions
from lsan.models.histories import Histories

_DAY = 86_400_000  # milliseconds

#: An old event keeps this weight, so that items without a recent one stay in the order of their popularity.
_LEAST = 1e-6


class RecentPopularity:
    """Every history gets the same scores: the training events of each item, weighted `0.5 ** (age / half-life)`.

    With a temporal split the age is the time to the last training event of all. Leave-one-out has no moment at which
    training ends for everybody (held-out events are weeks to years older than the last training event of all, and a
    global age is worse than none), so an age is then the number of training events that the same user has after it.
    """

    def __init__(self, dataset: Dataset, split: Split, *, half_life: float | None = None) -> None:
        """`half_life` is in days with a temporal split, by default 7, and in events with leave-one-out, by default 2:
        chosen on validation, see docs/compare.md."""
        positions = training_positions(split)
        users, items = training_events(dataset, split)
        if split.known_items is not None and dataset.timestamps is not None:  # a temporal split
            times = dataset.timestamps[positions]
            ages = (times.max() - times) / _DAY
            half_life = 7.0 if half_life is None else half_life
        else:
            ages = split.train_stop[users] - 1 - positions
            half_life = 2.0 if half_life is None else half_life
        weights = np.maximum(0.5 ** (ages / half_life), _LEAST)
        counts = np.bincount(items, weights, minlength=len(dataset.catalogue) + 1)
        self.popularity: Float[Tensor, " items"] = torch.from_numpy(counts[1:]).float()

    def scores(self, histories: Histories) -> Float[Tensor, "batch items"]:
        return self.popularity.to(histories.items.device).repeat(len(histories.items), 1)
