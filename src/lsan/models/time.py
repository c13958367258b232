"""Time signals beside the items: how long between events, and the hour and weekday of what is to be predicted."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lsan.config import TimeConfig
from lsan.models.histories import Histories

#: Gaps fall into buckets `1 + floor(log2(1 + seconds))`, the last for 17 years and more; 0 is an unknown gap.
GAP_BUCKETS = 31

_SECOND, _HOUR, _DAY = 1_000, 3_600_000, 86_400_000  # milliseconds


def gap_bucket(milliseconds: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """Bucket 1..30 of a gap; a negative gap counts as none."""
    seconds = (milliseconds.clamp(min=0) // _SECOND).double()
    return 1 + (1 + seconds).log2().floor().long().clamp(max=GAP_BUCKETS - 2)


class TimeFeatures(nn.Module):
    """A vector for each position: the sum of small tables over

    - the gap to the event before and the gap to the event after (`gaps`),
    - the hour of the day and the day of the week, in UTC, of the event after (`calendar`).

    The event after the last one is the query itself: its time is known when a recommendation is asked for, and while
    training it is the time of the event that is to be predicted. The tables start at zero: what training never met
    adds nothing, and a time that is unknown adds nothing.
    """

    def __init__(self, config: TimeConfig, width: int) -> None:
        super().__init__()
        self.gap_before = nn.Parameter(torch.zeros(GAP_BUCKETS, width)) if config.gaps else None
        self.gap_after = nn.Parameter(torch.zeros(GAP_BUCKETS, width)) if config.gaps else None
        self.hour = nn.Parameter(torch.zeros(24, width)) if config.calendar else None
        self.weekday = nn.Parameter(torch.zeros(7, width)) if config.calendar else None

    def forward(self, histories: Histories) -> Float[Tensor, "batch time width"]:
        """Vectors of all positions; those at padding mean nothing."""
        times = histories.times
        after = torch.cat([times[:, 1:], histories.asked[:, None]], dim=1)
        before = torch.cat([torch.full_like(times[:, :1], -1), times[:, :-1]], dim=1)
        parts = []
        if self.gap_before is not None and self.gap_after is not None:
            parts.append(_rows(self.gap_before, gap_bucket(times - before), (times >= 0) & (before >= 0)))
            parts.append(_rows(self.gap_after, gap_bucket(after - times), (times >= 0) & (after >= 0)))
        if self.hour is not None and self.weekday is not None:
            parts.append(_rows(self.hour, after // _HOUR % 24, after >= 0))
            parts.append(_rows(self.weekday, after // _DAY % 7, after >= 0))
        return torch.stack(parts).sum(0)


def _rows(
    table: Float[Tensor, "rows width"], row: Int[Tensor, "batch time"], known: Tensor
) -> Float[Tensor, "batch time width"]:
    return F.embedding(torch.where(known, row, 0), table) * known[..., None]
