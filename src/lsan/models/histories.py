"""The input of every model: a batch of histories."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Histories:
    """Histories side by side, oldest event first, padded on the left with 0."""

    items: Int[Tensor, "batch time"]
    """Item indices 1..V, 0 = padding."""
    hours: Int[Tensor, "batch time"]
    """Hour slots 1..24 of the events, 0 = padding or unknown."""

    @classmethod
    def of(cls, items: npt.NDArray[np.int64], hours: npt.NDArray[np.int64]) -> "Histories":
        """From arrays, as `HistoryReader.read` gives them."""
        return cls(items=torch.from_numpy(items), hours=torch.from_numpy(hours))

    @property
    def present(self) -> Bool[Tensor, "batch time"]:
        """True where there is an event."""
        return self.items != 0

    def latest(self, length: int) -> "Histories":
        """The same with at most `length` events, the latest ones."""
        return Histories(items=self.items[:, -length:], hours=self.hours[:, -length:])

    def to(self, device: torch.device) -> "Histories":
        return Histories(items=self.items.to(device, non_blocking=True), hours=self.hours.to(device, non_blocking=True))
