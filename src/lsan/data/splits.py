"""Which events train a model and which test it, as ranges over a dataset's flat events. Nothing is copied.

A *case* asks: after these events of one user, which item came next? Its history is the range `start .. stop - 1`
of the flat events, its answer is event `stop`. Training sees, of each user, only events before every case of theirs.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np
import numpy.typing as npt

from lsan.data.dataset import Dataset
from lsan.errors import DataError

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Cases:
    """Held-out questions, one a row."""

    users: IntArray
    """User index of each case. Shape [cases]."""
    start: IntArray
    """First event of the history. Shape [cases]."""
    stop: IntArray
    """One past the last event of the history, and the event to be guessed. Shape [cases]."""

    def __len__(self) -> int:
        return len(self.stop)


@dataclass(frozen=True, kw_only=True)
class Split:
    """Training ranges and the two sets of cases."""

    train_start: IntArray
    """First training event of each user. Shape [U]."""
    train_stop: IntArray
    """One past the last training event of each user. Shape [U]."""
    validation: Cases
    """Cases for choosing: early stopping, settings."""
    test: Cases
    """Cases for reporting."""
    known_items: npt.NDArray[np.bool_] | None
    """Which item indices exist when the model is trained, None for all. An unknown item is never ranked, and a case
    that asks for one is a miss. Shape [V + 1]."""


def leave_one_out(dataset: Dataset) -> Split:
    """Last event of a user = test, last but one = validation, the rest = training.

    A user with fewer than three events trains only. All items of the catalogue are ranked, as the literature does.
    """
    start, stop = dataset.offsets[:-1].astype(np.int64), dataset.offsets[1:].astype(np.int64)
    held_out = stop - start >= 3
    users = np.flatnonzero(held_out)

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

    Training sees events before `validation_from`; every event in `validation_from <= t < test_from` is a validation
    case, every later event a test case, each with all that its user did before it as history. A user who begins after
    the cut-off has an empty history at first. Items that first appear after it are unknown to the model: they are left
    out of histories and rankings, and a case that asks for one counts as a miss.

    Args:
        validation_from: milliseconds since 1970 UTC.
        test_from: milliseconds since 1970 UTC.

    Raises:
        DataError: when the dataset has no times, the cut-offs are out of order, or a part would be empty.
    """
    if dataset.timestamps is None:
        raise DataError(f"{dataset.path}: a temporal split needs times, and this log had none; use leave-one-out")
    if not validation_from < test_from:
        raise DataError(f"the validation cut-off ({_iso(validation_from)}) must lie before the test cut-off ({_iso(test_from)})")
    times = dataset.timestamps
    start = dataset.offsets[:-1].astype(np.int64)
    user_of_event = np.repeat(np.arange(dataset.users), np.diff(dataset.offsets))
    before = np.bincount(user_of_event[times < validation_from], minlength=dataset.users)

    def cases(mask: npt.NDArray[np.bool_]) -> Cases:
        stop = np.flatnonzero(mask)
        users = user_of_event[stop]
        return Cases(users=users, start=start[users], stop=stop)

    split = Split(
        train_start=start,
        train_stop=start + before,
        validation=cases((times >= validation_from) & (times < test_from)),
        test=cases(times >= test_from),
        known_items=np.bincount(dataset.items[times < validation_from], minlength=len(dataset.catalogue) + 1) > 0,
    )
    for name, count in (("training", before.sum()), ("validation", len(split.validation)), ("test", len(split.test))):
        if count == 0:
            span = f"{_iso(int(times.min()))} to {_iso(int(times.max()))}"
            raise DataError(f"the cut-offs leave no {name} events; the log spans {span}")
    return split


def temporal_quantiles(dataset: Dataset, *, validation: float, test: float) -> Split:
    """`temporal` with cut-offs such that about these shares of all events fall into validation and test.

    Raises:
        DataError: as `temporal`, and when the shares are not positive or leave nothing to train on.
    """
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise DataError(f"shares must be positive and sum to less than 1, got validation {validation} and test {test}")
    if dataset.timestamps is None:
        raise DataError(f"{dataset.path}: a temporal split needs times, and this log had none; use leave-one-out")
    cut_offs = np.quantile(dataset.timestamps, [1 - validation - test, 1 - test], method="higher")
    return temporal(dataset, validation_from=int(cut_offs[0]), test_from=int(cut_offs[1]))


def _iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, tz=UTC).isoformat(timespec="seconds")


SplitName = Literal["leave-one-out", "temporal"]
