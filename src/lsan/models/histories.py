"""The input of every model: a batch of histories."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lsan.data.windows import Window

_HOUR = 3_600_000  # milliseconds


@dataclass(frozen=True, kw_only=True)
class Histories:
    """Histories side by side, oldest event first, padded on the left."""

    items: Int[Tensor, "batch time"]
    """Item indices 1..V, 0 = padding."""
    times: Int[Tensor, "batch time"]
    """When each event was, in milliseconds since 1970 UTC; -1 = padding or unknown."""
    asked: Int[Tensor, " batch"]
    """When a recommendation is asked for, likewise: while training, the time of the event that is to be predicted."""
    users: Int[Tensor, " batch"]
    """User numbers 1..U of the training data, 0 = anyone else."""

    @classmethod
    def of(cls, window: Window, users: npt.NDArray[np.int64]) -> "Histories":
        """From what `HistoryReader.read` gives, and user numbers 1..U (0 = anyone else)."""
        return cls(
            items=torch.from_numpy(window.items),
            times=torch.from_numpy(window.times),
            asked=torch.from_numpy(window.asked),
            users=torch.from_numpy(users),
        )

    @classmethod
    def of_items(cls, items: Int[Tensor, "batch time"]) -> "Histories":
        """Of unknown users at unknown times."""
        unknown = torch.full_like(items, -1)
        return cls(
            items=items, times=unknown, asked=unknown.new_full((len(items),), -1), users=items.new_zeros(len(items))
        )

    @property
    def present(self) -> Bool[Tensor, "batch time"]:
        """True where there is an event."""
        return self.items != 0

    @property
    def hours(self) -> Int[Tensor, "batch time"]:
        """Hour of the day in UTC of each event as a slot 1..24, 0 = padding or unknown."""
        return torch.where(self.times < 0, 0, self.times // _HOUR % 24 + 1)

    def latest(self, length: int) -> "Histories":
        """The same with at most `length` events, the latest ones."""
        return Histories(
            items=self.items[:, -length:], times=self.times[:, -length:], asked=self.asked, users=self.users
        )

    def to(self, device: torch.device) -> "Histories":
        return Histories(
            items=self.items.to(device, non_blocking=True),
            times=self.times.to(device, non_blocking=True),
            asked=self.asked.to(device, non_blocking=True),
            users=self.users.to(device, non_blocking=True),
        )
