"""Which events stay, and in what order: plain functions of integer columns. N is the number of events."""

from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

Codes = npt.NDArray[np.uint32]
Times = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Order = npt.NDArray[np.uint32]

#: keep-all: repeats stay. consecutive: of a run of events of one user with one item, the first stays. first,
#: last: of all events of one user with one item, the first or the last stays.
Dedupe = Literal["keep-all", "consecutive", "first", "last"]

_BLOCK = 1 << 20


def core_mask(users: Codes, items: Codes, *, min_user_events: int, min_item_events: int) -> Mask:
    """The largest set of events in which every user and every item has at least so many events. Shape [N]."""
    keep = np.ones(len(users), dtype=np.bool_)
    rows: npt.NDArray[np.int64] | None = None
    while len(users):
        good = np.ones(len(users), dtype=np.bool_)
        if min_user_events > 1:
            good &= (np.bincount(users) >= min_user_events)[users]
        if min_item_events > 1:
            good &= (np.bincount(items) >= min_item_events)[items]
        if good.all():
            break
        keep[np.flatnonzero(~good) if rows is None else rows[~good]] = False
        rows = np.flatnonzero(good) if rows is None else rows[good]
        users, items = users[good], items[good]
    return keep


def dedupe_mask(users: Codes, items: Codes, times: Times | None, *, dedupe: Dedupe) -> Mask:
    """Which events stay; "first", "last" and "consecutive" are meant in time, then file order. Shape [N]."""
    keep = np.ones(len(users), dtype=np.bool_)
    if dedupe == "keep-all":
        return keep
    order = history_order(users, times)
    if dedupe == "consecutive":
        keep[order[1:]] = (users[order[1:]] != users[order[:-1]]) | (items[order[1:]] != items[order[:-1]])
        return keep
    pairs = pl.Series(users[order].astype(np.uint64) << np.uint64(32) | items[order])
    distinct = pairs.is_first_distinct() if dedupe == "first" else pairs.is_last_distinct()
    keep[order] = distinct.to_numpy()
    return keep


def number_by_first_appearance(codes: Codes) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Renumber codes 0, 1, ... in the order in which they first appear.

    Returns:
        The new numbers, shape [N], and the old code of each new number, shape [distinct codes].
    """
    if not len(codes):
        return codes.astype(np.int32), np.zeros(0, np.int64)
    first = np.full(int(codes.max()) + 1, len(codes), dtype=np.int64)
    for stop in range(len(codes), 0, -_BLOCK):  # backwards: of several writes to a place the last one stays
        start = max(0, stop - _BLOCK)
        first[codes[start:stop][::-1]] = np.arange(stop - 1, start - 1, -1)
    by_appearance = np.argsort(first, kind="stable")
    old = by_appearance[: np.count_nonzero(first < len(codes))]
    new = np.zeros(len(first), dtype=np.int32)
    new[old] = np.arange(len(old), dtype=np.int32)
    return new[codes], old


def history_order(users: npt.NDArray[np.uint32] | npt.NDArray[np.int32], times: Times | None) -> Order:
    """Positions of the events sorted by user, then time, then file order. Shape [N]."""
    order: Order | None = None
    if times is not None and len(times) and not _is_sorted(times):
        ticks = times - times.min()
        whole_seconds = not np.any(ticks % 1000)
        order = _radix_order((ticks // 1000 if whole_seconds else ticks).view(np.uint64), None)
    return _radix_order(users.view(np.uint32), order)


def tie_share(offsets: npt.NDArray[np.int64], times: Times) -> float:
    """The share of events, given in history order, that have the time of another event of their user."""
    if not len(times):
        return 0.0
    same = np.zeros(len(times) + 1, dtype=np.bool_)  # same[e]: event e is as late as event e - 1, of the same user
    same[1:-1] = times[1:] == times[:-1]
    same[offsets] = False
    return float(np.count_nonzero(same[1:] | same[:-1]) / len(times))


def _is_sorted(values: Times) -> bool:
    return all(
        bool(
            np.all(values[start + 1 : start + _BLOCK + 1] >= values[start : start + _BLOCK][: len(values) - start - 1])
        )
        for start in range(0, len(values), _BLOCK)
    )


def _radix_order(keys: npt.NDArray[np.uint32] | npt.NDArray[np.uint64], order: Order | None) -> Order:
    """Refine `order` by a stable sort on `keys`, 16 bits at a time: those NumPy sorts by radix."""
    largest = int(keys.max()) if len(keys) else 0
    for shift in range(0, max(1, largest.bit_length()), 16):
        digits = (keys >> keys.dtype.type(shift)).astype(np.uint16)
        if order is None:
            order = np.argsort(digits, kind="stable").astype(np.uint32)
        else:
            order = order[np.argsort(digits[order], kind="stable")]
    assert order is not None
    return order
