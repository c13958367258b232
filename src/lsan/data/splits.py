"""Which events train a model and which test it, as ranges over a dataset's flat events. Nothing is copied.

A *case* asks: after these events of one user, which item came next? Its history is the range
`start .. stop - 1` of the flat events, its answer is event `stop`. Of each user, training sees only events
before every case of that user.

Both splits read a dataset that is larger than memory: they need O(users + cases) of it and stream the events.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np
import numpy.typing as npt

from lsan.data.dataset import Dataset
from lsan.errors import DataError

IntArray = npt.NDArray[np.int64]

SplitName = Literal["leave-one-out", "temporal"]

#: Events that one step of a streamed pass holds in memory.
BLOCK = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Cases:
    """Held-out questions, one a row, ordered by user and then by time."""

    users: IntArray
    """User index of each case. Shape [cases]."""
    start: IntArray
    """First event of the history. Shape [cases]."""
    stop: IntArray
    """One past the last event of the history, and the event to be guessed. Shape [cases]."""

    def __len__(self) -> int:
        return len(self.stop)

    def spread(self, most: int) -> "Cases":
        """At most `most` of them, spread evenly over all."""
        chosen = np.linspace(0, len(self) - 1, min(most, len(self))).astype(np.int64)
        return Cases(users=self.users[chosen], start=self.start[chosen], stop=self.stop[chosen])


@dataclass(frozen=True, kw_only=True)
class Split:
    """Training ranges and the two sets of cases."""

    train_start: IntArray
    """First training event of each user. Shape [U]."""
    train_stop: IntArray
    """One past the last training event of each user, `train_start` where there is none. Shape [U]."""
    validation: Cases
    """Cases for choosing: early stopping, settings."""
    test: Cases
    """Cases for reporting."""
    known_items: npt.NDArray[np.bool_] | None
    """Which item indices exist when the model is trained, None for all. An unknown item is never ranked, and
    a case that asks for one is a miss. Index 0, the padding, is never known. Shape [V + 1]."""


def flat_ranges(start: IntArray, counts: IntArray) -> IntArray:
    """`start[n] .. start[n] + counts[n] - 1` of every n, one after the other. Shape [sum of counts]."""
    positions: IntArray = np.repeat(start - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
    return positions


def leave_one_out(dataset: Dataset) -> Split:
    """Last event of a user = test, last but one = validation, the rest = training.

    A user with fewer than three events trains only. All items of the catalogue are ranked, as the literature
    does. The order is each user's own: another user may train on events later than this user's test event.

    Raises:
        DataError: when no user has three events, or a user's times go backwards.
    """
    _check_events(dataset)
    start, stop = dataset.offsets[:-1].astype(np.int64), dataset.offsets[1:].astype(np.int64)
    held_out = stop - start >= 3
    users = np.flatnonzero(held_out)
    if len(users) == 0:
        raise DataError(
            f"{dataset.path}: leave-one-out needs a user with three events or more, the longest history has "
            f"{int((stop - start).max(initial=0))}"
        )

    def cases(back: int) -> Cases:
        return Cases(users=users, start=start[users], stop=stop[users] - back)

    return Split(
        train_start=start,
        train_stop=np.where(held_out, stop - 2, stop),
        validation=cases(2),
        test=cases(1),
        known_items=None,
    )


def temporal(dataset: Dataset, *, validation_from: int, test_from: int) -> Split:
    """Global temporal split: one cut-off in time for everybody, as a model in production meets it.

    Training sees events before `validation_from`; every event in `validation_from <= t < test_from` is a
    validation case, every later event a test case, each with all that its user did before it as history. A
    user who begins after the cut-off has an empty history at first. Items that first appear after it are
    unknown to the model: they are left out of histories and rankings, and a case that asks for one counts as
    a miss.

    Events of one user with the very same time keep the order of the log: the first is in the history of the
    second.

    Args:
        validation_from: milliseconds since 1970 UTC.
        test_from: milliseconds since 1970 UTC.

    Raises:
        DataError: when the dataset has no times, a user's times go backwards, the cut-offs are out of order,
            or a part would be empty.
    """
    times = _times(dataset)
    if not validation_from < test_from:
        raise DataError(
            f"the validation cut-off ({_iso(validation_from)}) must lie before the test cut-off ({_iso(test_from)})"
        )
    _check_events(dataset)
    start, stop = dataset.offsets[:-1].astype(np.int64), dataset.offsets[1:].astype(np.int64)
    first_validation = _first_at_or_after(times, start, stop, validation_from)
    first_test = _first_at_or_after(times, first_validation, stop, test_from)
    parts = {
        "training": int((first_validation - start).sum()),
        "validation": int((first_test - first_validation).sum()),
        "test": int((stop - first_test).sum()),
    }
    for name, count in parts.items():
        if count == 0:
            raise DataError(
                f"the cut-offs {_iso(validation_from)} (validation) and {_iso(test_from)} (test) "
                f"leave no {name} events; the log spans {_iso(int(times.min()))} to {_iso(int(times.max()))}"
            )

    def cases(first: IntArray, end: IntArray) -> Cases:
        counts = end - first
        users = np.repeat(np.arange(dataset.users, dtype=np.int64), counts)
        position = np.arange(len(users), dtype=np.int64) - np.repeat(counts.cumsum() - counts, counts)
        return Cases(users=users, start=start[users], stop=first[users] + position)

    known_items = np.zeros(len(dataset.catalogue) + 1, dtype=np.bool_)
    for block in _blocks(dataset.events):
        known_items[dataset.items[block][times[block] < validation_from]] = True
    return Split(
        train_start=start,
        train_stop=first_validation,
        validation=cases(first_validation, first_test),
        test=cases(first_test, stop),
        known_items=known_items,
    )


def temporal_quantiles(dataset: Dataset, *, validation: float, test: float) -> Split:
    """`temporal` with cut-offs such that these shares of all events fall into validation and test.

    Events at the very time of a cut-off all fall after it: many equal times make a share larger than asked.

    Raises:
        DataError: as `temporal`, and when the shares are not positive or leave nothing to train on.
    """
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise DataError(f"shares must be positive and sum to less than 1, got validation {validation} and test {test}")
    times = _times(dataset)
    test_rank = dataset.events - max(1, round(test * dataset.events))
    validation_rank = test_rank - max(1, round(validation * dataset.events))
    if validation_rank < 1:
        raise DataError(f"{dataset.path}: {dataset.events} events are too few for shares of {validation} and {test}")
    validation_from, test_from = _nth_smallest(times, validation_rank), _nth_smallest(times, test_rank)
    if validation_from == test_from:
        raise DataError(
            f"{dataset.path}: both cut-offs fall on {_iso(test_from)}, because many events share that time; "
            "ask for larger shares, or use leave-one-out"
        )
    return temporal(dataset, validation_from=validation_from, test_from=test_from)


def _times(dataset: Dataset) -> IntArray:
    if dataset.timestamps is None:
        raise DataError(f"{dataset.path}: a temporal split needs times, and this log had none; use leave-one-out")
    return dataset.timestamps


def _blocks(events: int, overlap: int = 0) -> Iterator[slice]:
    """Slices that cover `0 .. events - 1`, each with the last `overlap` events of the one before."""
    for first in range(0, events, BLOCK):
        yield slice(max(0, first - overlap), min(first + BLOCK, events))


def _check_events(dataset: Dataset) -> None:
    """Raise `DataError` when an item is not in the catalogue, or an event is earlier than its user's one before.

    The latter would put the future into histories. A log without times is taken to be in order.
    """
    for block in _blocks(dataset.events):
        lowest, highest = int(dataset.items[block].min()), int(dataset.items[block].max())
        if lowest < 1 or highest > len(dataset.catalogue):
            raise DataError(
                f"{dataset.path}: item index {lowest if lowest < 1 else highest} is not in the catalogue of "
                f"{len(dataset.catalogue)} items; prepare the log again"
            )
    times = dataset.timestamps
    if times is None:
        return
    for block in _blocks(dataset.events, overlap=1):
        backwards = np.flatnonzero(times[block][1:] < times[block][:-1]) + block.start + 1
        owner = np.searchsorted(dataset.offsets, backwards, side="right") - 1
        wrong = np.flatnonzero(dataset.offsets[owner] != backwards)
        if len(wrong) > 0:
            raise DataError(
                f"{dataset.path}: event {int(backwards[wrong[0]])} of user index {int(owner[wrong[0]])} is "
                "earlier than the event before it; prepare the log again"
            )


def _first_at_or_after(times: IntArray, start: IntArray, stop: IntArray, cut_off: int) -> IntArray:
    """The first event at or after `cut_off` in each range `start .. stop - 1` of sorted times, else `stop`.

    One binary search in all ranges at once. Shape [U].
    """
    low, high = start.copy(), stop.copy()
    active = np.flatnonzero(low < high)
    while len(active) > 0:
        middle = (low[active] + high[active]) // 2
        early = times[middle] < cut_off
        low[active[early]] = middle[early] + 1
        high[active[~early]] = middle[~early]
        active = active[low[active] < high[active]]
    return low


def _nth_smallest(times: IntArray, rank: int) -> int:
    """The time at position `rank` (from 0) if all were sorted.

    Counts in ever finer bins, so that no more than a block is copied.
    """
    low, high = int(times.min()), int(times.max())
    while low < high:
        width = -(-(high - low + 1) // 65536)
        counts = np.zeros(65536, dtype=np.int64)
        for block in _blocks(len(times)):
            inside = times[block][(times[block] >= low) & (times[block] <= high)]
            counts += np.bincount((inside - low) // width, minlength=65536)
        bin_ = int(np.searchsorted(counts.cumsum(), rank, side="right"))
        rank -= int(counts[:bin_].sum())
        low, high = low + bin_ * width, min(high, low + (bin_ + 1) * width - 1)
    return low


def _iso(milliseconds: int) -> str:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, tz=UTC).isoformat()
    except (OverflowError, ValueError, OSError):  # a cut-off in another unit than milliseconds
        return f"{milliseconds} ms, out of range"
