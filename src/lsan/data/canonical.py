"""The canonical form of a log: events left by the filters, numbered by first appearance, sorted by user and
time."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl

from lsan.data.columns import Columns
from lsan.data.filters import Dedupe, core_mask, dedupe_mask, history_order, number_by_first_appearance
from lsan.data.ids import MISSING, Encoded
from lsan.data.interactions import Interactions, first_text_of_item
from lsan.data.items import ItemTable, first_category, texts_of_items
from lsan.errors import DataError

_MOST_ITEMS = 2**31 - 2


@dataclass(frozen=True, kw_only=True)
class Canonical:
    """What a dataset folder holds, in memory: U users, V items, E events."""

    offsets: npt.NDArray[np.int64]
    """The events of user u are offsets[u] .. offsets[u + 1] - 1. Shape [U + 1]."""
    items: npt.NDArray[np.int32]
    """Item indices 1..V. Shape [E]."""
    times: npt.NDArray[np.int64] | None
    """Milliseconds since 1970 UTC, None without a time column. Shape [E]."""
    catalogue: pl.DataFrame
    """Columns id, title, category of the items 1..V."""
    users: pl.DataFrame
    """Column id of the users 0..U-1."""
    columns: Mapping[str, str]
    """Role -> the name of its column in the log."""
    rows_read: int
    """Rows of the log, unusable ones included."""
    dropped: Mapping[str, int]
    """Reason -> number of usable rows that were left out."""
    notes: tuple[str, ...]
    """Remarks for the summary."""


@dataclass(kw_only=True)
class _Events:
    """The events that are left, in file order."""

    users: npt.NDArray[np.uint32]
    items: npt.NDArray[np.uint32]
    times: npt.NDArray[np.int64] | None
    rows: npt.NDArray[np.int64] | None = None
    """Positions in the log's columns, None for all."""
    dropped: dict[str, int] = field(default_factory=dict)

    def keep(self, mask: npt.NDArray[np.bool_], reason: str) -> None:
        gone = len(mask) - int(np.count_nonzero(mask))
        self.dropped[reason] = self.dropped.get(reason, 0) + gone
        if gone:
            self.users, self.items = self.users[mask], self.items[mask]
            self.times = None if self.times is None else self.times[mask]
            self.rows = np.flatnonzero(mask) if self.rows is None else self.rows[mask]


def arrange(
    log: Interactions,
    *,
    dedupe: Dedupe,
    min_user_events: int,
    min_item_events: int,
    item_table: ItemTable | None,
    columns: Columns,
    name: str,
) -> Canonical:
    """Filter, number and sort. A caller that keeps no `log` of its own lets it go as soon as it is not
    needed.

    Args:
        columns: the user's choice of columns: one that was chosen is taken even if it looks wrong.
        name: what errors call the log.

    Raises:
        DataError: when no events are left, or the item table has none of the items.
    """
    events = _filter(log, dedupe=dedupe, min_user_events=min_user_events, min_item_events=min_item_events)
    if not len(events.users):
        gone = ", ".join(f"{count:,} {reason}" for reason, count in events.dropped.items() if count)
        raise DataError(f"{name}: no events left of {log.rows_read:,} rows: dropped {gone}")
    user_numbers, user_codes = number_by_first_appearance(events.users)
    item_numbers, item_codes = number_by_first_appearance(events.items)
    if len(item_codes) > _MOST_ITEMS:
        raise DataError(f"{name}: {len(item_codes):,} items, more than {_MOST_ITEMS:,}")
    users = pl.DataFrame({"id": log.users.ids().gather(user_codes)})
    catalogue, notes = _catalogue(log, events, item_numbers, item_codes, item_table, columns)
    column_names, rows_read, low_ratings = log.columns, log.rows_read, log.low_ratings
    times, dropped = events.times, events.dropped
    del log, events
    order = history_order(user_numbers, times)
    offsets = np.zeros(len(user_codes) + 1, dtype=np.int64)
    np.cumsum(np.bincount(user_numbers), out=offsets[1:])
    del user_numbers
    items = item_numbers[order]
    items += 1  # 0 is padding
    return Canonical(
        offsets=offsets,
        items=items,
        times=None if times is None else times[order],
        catalogue=catalogue,
        users=users,
        columns=column_names,
        rows_read=rows_read,
        dropped={"rating too low": low_ratings, **dropped},
        notes=tuple(notes),
    )


def _filter(log: Interactions, *, dedupe: Dedupe, min_user_events: int, min_item_events: int) -> _Events:
    events = _Events(users=log.users.codes, items=log.items.codes, times=log.times)
    if dedupe != "keep-all":
        mask = dedupe_mask(events.users, events.items, events.times, dedupe=dedupe)
        events.keep(mask, "repeated")
    if min_user_events > 1 or min_item_events > 1:
        mask = core_mask(
            events.users,
            events.items,
            min_user_events=min_user_events,
            min_item_events=min_item_events,
        )
        events.keep(mask, "user or item too rare")
    return events


def _catalogue(
    log: Interactions,
    events: _Events,
    item_numbers: npt.NDArray[np.int32],
    item_codes: npt.NDArray[np.int64],
    table: ItemTable | None,
    columns: Columns,
) -> tuple[pl.DataFrame, list[str]]:
    """Columns id, title, category of the items in index order, and remarks for the summary."""
    ids = log.items.ids().gather(item_codes).alias("id")
    notes = []
    texts: dict[str, pl.Series] = {}
    for role, named in (("title", columns.title), ("category", columns.category)):
        text = log.texts.get(role)
        chosen = named is not None and table is None
        if text is not None and not chosen and _differs_by_row(log.items.codes, text):
            notes.append(
                f"column {log.columns[role]!r} was not taken for the items' {role}: "
                f"it differs from event to event; --{role} takes it all the same"
            )
            text = None
        texts[role] = _texts_from_log(text, events, item_numbers, len(ids), role)
    if table is not None:
        given = texts_of_items(ids, table)
        texts = {role: given[role].fill_null(texts[role]) for role in texts}
    return pl.DataFrame([ids, texts["title"].alias("title"), texts["category"].alias("category")]), notes


def _texts_from_log(
    text: Encoded | None, events: _Events, item_numbers: npt.NDArray[np.int32], item_count: int, role: str
) -> pl.Series:
    if text is None:
        return pl.Series([None], dtype=pl.String).new_from_index(0, item_count)
    kept = text if events.rows is None else Encoded(codes=text.codes[events.rows], values=text.values, kind=text.kind)
    codes = first_text_of_item(item_numbers, kept, item_count)
    positions = pl.Series(np.where(codes == MISSING, 0, codes), dtype=pl.UInt32)
    if not len(text.values):
        return pl.Series([None], dtype=pl.String).new_from_index(0, item_count)
    found = pl.select(pl.when(pl.Series(codes != MISSING)).then(text.values.gather(positions))).to_series()
    return first_category(found) if role == "category" else found


def _differs_by_row(items: npt.NDArray[np.uint32], text: Encoded) -> bool:
    """Whether most items that have several texts have different ones: a review's title is not an item's
    title."""
    known = text.codes != MISSING
    items, codes = items[known], text.codes[known]
    if not len(items):
        return False
    pairs = pl.Series(items.astype(np.uint64) << np.uint64(32) | codes).unique().to_numpy() >> np.uint64(32)
    repeated = np.bincount(items) > 1
    different = np.bincount(pairs.astype(np.int64), minlength=len(repeated)) > 1
    return bool(different.sum() * 2 > repeated.sum())
