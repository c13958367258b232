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
    """Reads ranges of a dataset's events as left-padded rectangles, at most `length` events a row."""

    def __init__(
        self, dataset: Dataset, length: int, *, timed: bool, known_items: npt.NDArray[np.bool_] | None
    ) -> None:
        """Without `timed` no times are read. Items not in `known_items` [V + 1] are left out of histories."""
        self.length = length
        self._items = dataset.items
        self._timestamps = dataset.timestamps if timed else None
        self._known_items = known_items

    def lengths(self, start: IntArray, stop: IntArray) -> IntArray:
        """How many events of each range are read. Shape [batch]."""
        lengths: IntArray = np.minimum(stop - start, self.length)
        return lengths

    def read(self, start: IntArray, stop: IntArray) -> Window:
        """The events `start .. stop - 1`, the latest last.

        `time` is the longest range read, and at least 1.
        """
        lengths = self.lengths(start, stop)
        time = max(1, int(lengths.max(initial=0)))
        position = stop[:, None] + np.arange(-time, 0)
        present = position >= (stop - lengths)[:, None]
        position = np.where(present, position, 0)
        items = np.where(present, self._items[position], 0).astype(np.int64)
        if self._known_items is not None:
            items = np.where(self._known_items[items], items, 0)
        times, asked = np.full_like(items, -1), np.full(len(items), -1)
        if self._timestamps is not None:
            times = np.where(items > 0, self._timestamps[position], -1)
            asked = self._timestamps[np.minimum(stop, len(self._timestamps) - 1)].astype(np.int64)
        if self._known_items is not None:  # close the gaps that unknown items left
            order = np.argsort(items > 0, axis=1, kind="stable")
            items, times = np.take_along_axis(items, order, 1), np.take_along_axis(times, order, 1)
        return Window(items=items, times=times, asked=asked)
