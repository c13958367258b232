"""Ranges of a log's events as rectangles."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lsan.data.dataset import Dataset
from lsan.data.windows import HistoryReader

EVENTS = 30


@given(
    items=st.lists(st.integers(1, 5), min_size=EVENTS, max_size=EVENTS),
    known=st.sets(st.integers(1, 5)) | st.none(),
    length=st.integers(1, 6),
    ends=st.lists(st.tuples(st.integers(0, EVENTS), st.integers(0, EVENTS)), min_size=1, max_size=5),
)
def test_the_latest_known_events_are_read(
    items: list[int], known: set[int] | None, length: int, ends: list[tuple[int, int]]
) -> None:
    """Not those of the latest events that are known: as many are read as a recommender would read."""
    log = Dataset(
        path=Path(), offsets=np.array([0, EVENTS]), items=np.array(items, dtype=np.int32),
        timestamps=1000 * np.arange(EVENTS), summary={}, content_hash="",
    )  # fmt: skip
    mask = None if known is None else np.isin(np.arange(6), list(known))
    reader = HistoryReader(log, length, timed=True, known_items=mask)
    start, stop = np.sort(np.array(ends), axis=1).T
    window = reader.read(start, stop)
    expected = [[p for p in range(a, b) if known is None or items[p] in known][-length:] for a, b in map(sorted, ends)]
    assert reader.lengths(start, stop).tolist() == [len(row) for row in expected]
    time = max(1, *map(len, expected), 1)
    assert window.items.tolist() == [[0] * (time - len(row)) + [items[p] for p in row] for row in expected]
    assert window.times.tolist() == [[-1] * (time - len(row)) + [1000 * p for p in row] for row in expected]
    assert window.asked.tolist() == [1000 * min(b, EVENTS - 1) for b in stop]
