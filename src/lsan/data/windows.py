"""Histories as rectangles: the latest events before a point, padded on the left."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lsan.data.dataset import Dataset

IntArray = npt.NDArray[np.int64]

_HOUR = 3_600_000  # milliseconds


def hour_slots(timestamps: npt.NDArray[np.int64]) -> IntArray:
    """Hour of the day in UTC as a slot 1..24, of milliseconds since 1970."""
    slots: IntArray = timestamps // _HOUR % 24 + 1
    return slots


def has_hours(timestamps: npt.NDArray[np.int64]) -> bool:
    """Whether times of day differ at all: data with day precision has none to learn from. Reads in chunks."""
    first = None
    for start in range(0, len(timestamps), 1_000_000):
        slots = hour_slots(np.asarray(timestamps[start : start + 1_000_000]))
        first = slots[0] if first is None else first
        if (slots != first).any():
            return True
    return False


@dataclass(frozen=True, kw_only=True)
class Window:
    """Events side by side, oldest first, padded on the left."""

    items: IntArray
    """Item indices 1..V, 0 = padding. Shape [batch, time]."""
    times: IntArray
    """When each event was, in milliseconds since 1970 UTC; -1 = padding, or times are not read. Shape [batch, time]."""
    asked: IntArray
    """When the event after the range was, likewise. Shape [batch]."""


class HistoryReader:
    """Reads ranges of a dataset's events as left-padded rectangles, at most `length` events a row.

    Events with unknown items are passed over as if they were not in the log. They are few, so their places alone are
    kept, and known events are counted: the one with n known events before it stands at n and the unknown ones before.
    """

    def __init__(
        self, dataset: Dataset, length: int, *, timed: bool, known_items: npt.NDArray[np.bool_] | None
    ) -> None:
        """Without `timed` no times are read. Items not in `known_items` [V + 1] are left out of histories."""
        self.length = length
        self._items = dataset.items
        self._timestamps = dataset.timestamps if timed else None
        self._unknown = np.zeros(0, dtype=np.int64) if known_items is None else _places(dataset.items, ~known_items)
        self._known_before = self._unknown - np.arange(len(self._unknown))

    def lengths(self, start: IntArray, stop: IntArray) -> IntArray:
        """How many events of each range are read. Shape [batch]."""
        lengths: IntArray = np.minimum(self._count(stop) - self._count(start), self.length)
        return lengths

    def read(self, start: IntArray, stop: IntArray) -> Window:
        """The events `start .. stop - 1`, the latest last.

        `time` is the longest range read, and at least 1.
        """
        lengths = self.lengths(start, stop)
        time = max(1, int(lengths.max(initial=0)))
        known = self._count(stop)[:, None] + np.arange(-time, 0)
        present = np.arange(-time, 0) >= -lengths[:, None]
        position = np.where(present, known + np.searchsorted(self._known_before, known, side="right"), 0)
        items = np.where(present, self._items[position], 0).astype(np.int64)
        times, asked = np.full_like(items, -1), np.full(len(items), -1)
        if self._timestamps is not None:
            times = np.where(present, self._timestamps[position], -1)
            asked = self._timestamps[np.minimum(stop, len(self._timestamps) - 1)].astype(np.int64)
        return Window(items=items, times=times, asked=asked)

    def _count(self, position: IntArray) -> IntArray:
        """Known events before each position."""
        found: IntArray = position - np.searchsorted(self._unknown, position)
        return found


def _places(items: npt.NDArray[np.integer], which: npt.NDArray[np.bool_]) -> IntArray:
    """Positions of events with these items. Reads in chunks."""
    chunk = 1_000_000
    found = [np.flatnonzero(which[items[start : start + chunk]]) + start for start in range(0, len(items), chunk)]
    return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)
