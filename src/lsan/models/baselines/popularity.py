"""Popularity: what most users chose."""

from jaxtyping import Float
from torch import Tensor

from lsan.data.dataset import Dataset
from lsan.data.splits import Split
from lsan.models.events import training_popularity
from lsan.models.histories import Histories


class Popularity:
    """Every history gets the same scores: the training events of each item."""

    def __init__(self, dataset: Dataset, split: Split) -> None:
        self.popularity: Float[Tensor, " items"] = training_popularity(dataset, split).float()

    def scores(self, histories: Histories) -> Float[Tensor, "batch items"]:
        return self.popularity.to(histories.items.device).repeat(len(histories.items), 1)
