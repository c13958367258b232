"""From a log to a dataset folder: read, filter, number, sort, write."""

import logging
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import polars as pl

from lsan.data.columns import Columns
from lsan.data.dataset import Dataset, write_dataset
from lsan.data.filters import (
    Dedupe,
    core_mask,
    dedupe_mask,
    history_order,
    number_by_first_appearance,
    tie_share,
)
from lsan.data.ids import MISSING, Encoded
from lsan.data.interactions import Interactions, first_text_of_item, read_interactions
from lsan.data.items import ItemTable, first_category, read_items, texts_of_items
from lsan.data.rows import BadRows
from lsan.data.tables import TextFormat, open_tables, source_name
from lsan.errors import ConfigError, DataError
from lsan.files import refuse_existing

logger = logging.getLogger(__name__)

OnBadRows = Literal["error", "skip"]
_MOST_ITEMS = 2**31 - 2


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """What to keep of a log, and how to read it. The defaults keep every event.

    Filters apply in this order: bad rows, `min_rating`, `dedupe`, then `min_user_events` and `min_item_events`
    until both hold at once.
    """

    min_rating: float | None = None
    """Leave out events rated lower. None: ratings are not read."""
    min_user_events: int = 1
    """Leave out users with fewer events."""
    min_item_events: int = 1
    """Leave out items with fewer events."""
    dedupe: Dedupe = "keep-all"
    """Which of several events of one user with one item stay."""
    on_bad_rows: OnBadRows = "error"
    """Whether the first bad row is an error, or bad rows are counted and left out."""
    encoding: str = "utf-8"
    """Encoding of text files."""
    separator: str | None = None
    """Between the fields of a text log; None to find it in the first line."""
    quotes: bool = True
    """Whether double quotes enclose fields in text files (never in `::` and RecBole files)."""

    def __post_init__(self) -> None:
        for flag, value in (
            ("--min-user-events", self.min_user_events),
            ("--min-item-events", self.min_item_events),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{flag} {value}: expected a whole number of at least 1")
        if self.min_rating is not None and not np.isfinite(self.min_rating):
            raise ConfigError(f"--min-rating {self.min_rating}: expected a finite number")
        if self.dedupe not in get_args(Dedupe):
            raise ConfigError(f"--dedupe {self.dedupe}: expected one of {', '.join(get_args(Dedupe))}")
        if self.on_bad_rows not in get_args(OnBadRows):
            raise ConfigError(
                f"--on-bad-rows {self.on_bad_rows}: expected one of {', '.join(get_args(OnBadRows))}"
            )
        if self.separator is not None and self.separator != "::":
            if len(self.separator) != 1 or not self.separator.isascii() or self.separator in '"\n\r\0':
                raise ConfigError(f"--separator {self.separator!r}: expected one ASCII character, or ::")


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


def prepare_dataset(
    source: object,
    out: str | Path,
    *,
    items: object | None = None,
    columns: Columns | None = None,
    options: PrepareOptions | None = None,
) -> Dataset:
    """Turn a log into a dataset folder and open it.

    Items and users are numbered in the order of their first appearance in the log among the events that stay. The
    events of a user are sorted by time; within one time, and without times, they stay in the order of the log.

    Args:
        source: path of a log (CSV, TSV, `::`-separated, JSON lines or Parquet, gzipped or not, or a folder of
            Parquet), or a Polars or pandas frame.
        out: the folder to write; it must not exist, or be empty.
        items: path of an item file, or a frame: id, title, category.
        columns: names of columns that the usual names do not cover.
        options: filters, and how to read text.

    Raises:
        ConfigError: when an option is not valid or names a column that does not exist.
        DataError: when `out` exists, the log or the item file cannot be used, or no events are left.
        MissingExtraError: when a pandas frame needs pyarrow, and it is not installed.
    """
    out, columns, options = Path(out), columns or Columns(), options or PrepareOptions()
    _check_out(out)
    skip = options.on_bad_rows == "skip"
    bad_items, bad_rows = BadRows(skip=skip), BadRows(skip=skip)
    item_table = _read_items(items, columns, options, bad_items)
    text = TextFormat(
        encoding=options.encoding,
        separator=options.separator,
        quotes=options.quotes,
        header=columns.log_header,
    )
    log = read_interactions(
        open_tables(source, text),
        columns=columns,
        with_texts=item_table is None,
        min_rating=options.min_rating,
        bad_rows=bad_rows,
    )
    events = _filter(log, options)
    if not len(events.users):
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in events.dropped.items() if count)
        raise DataError(f"{_name(source)}: no events left of {log.rows_read:,} rows: dropped {dropped}")

    user_numbers, user_codes = number_by_first_appearance(events.users)
    item_numbers, item_codes = number_by_first_appearance(events.items)
    if len(item_codes) > _MOST_ITEMS:
        raise DataError(f"{_name(source)}: {len(item_codes):,} items, more than {_MOST_ITEMS:,}")
    users = log.users.ids().gather(user_codes)
    catalogue, notes = _catalogue(log, events, item_numbers, item_codes, item_table, columns)
    order = history_order(user_numbers, events.times)
    offsets = np.zeros(len(user_codes) + 1, dtype=np.int64)
    np.cumsum(np.bincount(user_numbers), out=offsets[1:])
    flat_items = item_numbers[order]
    flat_items += 1  # 0 is padding
    flat_times = None if events.times is None else events.times[order]
    del order, user_numbers, item_numbers
    events.users = events.items = np.zeros(0, np.uint32)
    events.times = None

    summary: dict[str, Any] = {
        "source": source_name(source),
        "items_source": None if items is None else source_name(items),
        "options": asdict(options),
        "columns": {"log": dict(log.columns), "items": item_table.columns if item_table else {}},
        "rows_read": log.rows_read,
        "dropped": {"bad rows": bad_rows.count, "rating too low": log.low_ratings, **events.dropped},
        "bad_rows": bad_rows.examples,
        "bad_item_rows": {"count": bad_items.count, "examples": bad_items.examples},
        "users": len(user_codes),
        "items": len(item_codes),
        "events": len(flat_items),
        "density": len(flat_items) / (len(user_codes) * len(item_codes)),
        "first_time": None if flat_times is None else _iso(int(flat_times.min())),
        "last_time": None if flat_times is None else _iso(int(flat_times.max())),
        "tie_share": None if flat_times is None else tie_share(offsets, flat_times),
        "items_without_title": catalogue["title"].null_count(),
        "items_without_category": catalogue["category"].null_count(),
        "notes": notes,
    }
    write_dataset(
        out,
        offsets=offsets,
        items=flat_items,
        timestamps=flat_times,
        catalogue=catalogue,
        users=pl.DataFrame({"id": users}),
        summary=summary,
    )
    return Dataset.open(out)


def _check_out(out: Path) -> None:
    """Refuse a folder that could not be written, before the work and not after it."""
    try:
        refuse_existing(out)
        parent = next(folder for folder in out.absolute().parents if folder.exists())
    except OSError as error:
        raise DataError(f"cannot make the folder {out}: {error.strerror}") from error
    if not parent.is_dir():
        raise DataError(f"cannot make the folder {out}: {parent} is a file")


def _read_items(
    items: object, columns: Columns, options: PrepareOptions, bad_rows: BadRows
) -> ItemTable | None:
    if items is None:
        for flag, value in (("--items-id", columns.items_id), ("--items-columns", columns.items_header)):
            if value is not None:
                raise ConfigError(f"{flag} describes an item file: give one with --items")
        return None
    text = TextFormat(encoding=options.encoding, quotes=options.quotes, header=columns.items_header)
    return read_items(open_tables(items, text), columns=columns, bad_rows=bad_rows)


def _filter(log: Interactions, options: PrepareOptions) -> _Events:
    events = _Events(users=log.users.codes, items=log.items.codes, times=log.times)
    if options.dedupe != "keep-all":
        mask = dedupe_mask(events.users, events.items, events.times, dedupe=options.dedupe)
        events.keep(mask, "repeated")
    if options.min_user_events > 1 or options.min_item_events > 1:
        mask = core_mask(
            events.users,
            events.items,
            min_user_events=options.min_user_events,
            min_item_events=options.min_item_events,
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
        if text is not None and named is None and _differs_by_row(log.items.codes, text):
            notes.append(
                f"column {log.columns[role]!r} was not taken for the items' {role}: it differs from event to event; "
                f"--{role} takes it all the same"
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
    kept = (
        text
        if events.rows is None
        else Encoded(codes=text.codes[events.rows], values=text.values, kind=text.kind)
    )
    codes = first_text_of_item(item_numbers, kept, item_count)
    positions = pl.Series(np.where(codes == MISSING, 0, codes), dtype=pl.UInt32)
    if not len(text.values):
        return pl.Series([None], dtype=pl.String).new_from_index(0, item_count)
    found = pl.select(pl.when(pl.Series(codes != MISSING)).then(text.values.gather(positions))).to_series()
    return first_category(found) if role == "category" else found


def _differs_by_row(items: npt.NDArray[np.uint32], text: Encoded) -> bool:
    """Whether most items that have several texts have different ones: a review's title is not an item's title."""
    known = text.codes != MISSING
    items, codes = items[known], text.codes[known]
    if not len(items):
        return False
    pairs = pl.Series(items.astype(np.uint64) << np.uint64(32) | codes).unique().to_numpy() >> np.uint64(32)
    repeated = np.bincount(items) > 1
    different = np.bincount(pairs.astype(np.int64), minlength=len(repeated)) > 1
    return bool(different.sum() * 2 > repeated.sum())


def _name(source: object) -> str:
    return str(source) if isinstance(source, str | Path) else "data frame"


def _iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, tz=UTC).isoformat()
