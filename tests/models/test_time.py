"""Time features: buckets of gaps, and what each position reads."""

import pytest
import torch

from lsan.config import TimeConfig
from lsan.models.histories import Histories
from lsan.models.time import GAP_BUCKETS, TimeFeatures, gap_bucket

SECOND, HOUR, DAY = 1_000, 3_600_000, 86_400_000


@pytest.mark.parametrize(
    ("milliseconds", "bucket"),
    [(-5_000, 1), (0, 1), (999, 1), (SECOND, 2), (2 * SECOND, 2), (3 * SECOND, 3), (7 * SECOND, 4), (HOUR, 12),
     (2**29 * SECOND, 30), (2**60, 30)],
)  # fmt: skip
def test_buckets_of_gaps(milliseconds: int, bucket: int) -> None:
    assert gap_bucket(torch.tensor([milliseconds])).item() == bucket
    assert bucket < GAP_BUCKETS


def features(config: TimeConfig) -> TimeFeatures:
    """Every entry tells its table and its row."""
    layer = TimeFeatures(config, 1)
    with torch.no_grad():
        for table, factor in (
            (layer.gap_before, 1),
            (layer.gap_after, 100),
            (layer.hour, 10_000),
            (layer.weekday, 10**6),
        ):
            if table is not None:
                table.copy_(torch.arange(len(table))[:, None] * float(factor))
    return layer


#: Thursday 1970-01-01 00:00:00 and 00:00:03, asked for at 05:00 on Friday; and one event at an unknown time.
HISTORIES = Histories(
    items=torch.tensor([[0, 4, 2], [0, 0, 1]]),
    times=torch.tensor([[-1, 0, 3 * SECOND], [-1, -1, -1]]),
    asked=torch.tensor([DAY + 5 * HOUR, -1]),
    users=torch.tensor([0, 0]),
)


@torch.no_grad()
def test_vectors_by_hand() -> None:
    vectors = features(TimeConfig())(HISTORIES)[..., 0]
    after = gap_bucket(torch.tensor([DAY + 5 * HOUR - 3 * SECOND])).item()
    # nothing before, 3 s after, hour 0, Thursday (weekday 0, as 1970 began with one)
    assert vectors[0, 1] == 100 * 3
    assert vectors[0, 2] == 3 + 100 * after + 10_000 * 5 + 10**6
    assert vectors[1, 2] == 0


@torch.no_grad()
def test_each_part_can_be_left_out() -> None:
    gaps = features(TimeConfig(calendar=False))
    calendar = features(TimeConfig(gaps=False))
    assert torch.equal(gaps(HISTORIES) + calendar(HISTORIES), features(TimeConfig())(HISTORIES))
    assert len(list(gaps.parameters())) == len(list(calendar.parameters())) == 2


def test_an_untrained_layer_adds_nothing() -> None:
    assert not TimeFeatures(TimeConfig(), 4)(HISTORIES).any()
