"""From a log to a dataset folder: read, filter, number, sort, write."""

import string
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from lsan.data.canonical import Canonical, arrange
from lsan.data.columns import Columns
from lsan.data.dataset import Dataset, write_dataset
from lsan.data.filters import Dedupe, tie_share
from lsan.data.interactions import read_interactions
from lsan.data.items import ItemTable, read_items
from lsan.data.rows import BadRows
from lsan.data.tables import TextFormat, open_tables, source_name
from lsan.errors import ConfigError, DataError
from lsan.files import refuse_existing

OnBadRows = Literal["error", "skip"]
_SEPARATORS = "\t \x1f" + string.punctuation.replace('"', "")


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """What to keep of a log, and how to read it. The defaults keep every event.

    Filters apply in this order: bad rows, `min_rating`, `dedupe`, then `min_user_events` and
    `min_item_events` until both hold at once.
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
            raise ConfigError(f"--on-bad-rows {self.on_bad_rows}: expected one of {', '.join(get_args(OnBadRows))}")
        if self.separator not in (None, "::", *_SEPARATORS):
            raise ConfigError(f"--separator {self.separator!r}: expected one punctuation character, a tab, or ::")


def prepare_dataset(
    source: object,
    out: str | Path,
    *,
    items: object | None = None,
    columns: Columns | None = None,
    options: PrepareOptions | None = None,
) -> Dataset:
    """Turn a log into a dataset folder and open it.

    Items and users are numbered in the order of their first appearance in the log among the events that stay.
    The events of a user are sorted by time; within one time, and without times, they stay in the order of the
    log.

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
    item_table = _item_table(items, columns, options, bad_items)
    text = TextFormat(
        encoding=options.encoding,
        separator=options.separator,
        quotes=options.quotes,
        header=columns.log_header,
    )
    canonical = arrange(
        read_interactions(
            open_tables(source, text),
            columns=columns,
            with_texts=item_table is None,
            min_rating=options.min_rating,
            bad_rows=bad_rows,
        ),
        dedupe=options.dedupe,
        min_user_events=options.min_user_events,
        min_item_events=options.min_item_events,
        item_table=item_table,
        columns=columns,
        name=str(source) if isinstance(source, str | Path) else "data frame",
    )
    summary: dict[str, Any] = {
        "source": source_name(source),
        "items_source": None if items is None else source_name(items),
        "options": asdict(options),
        "columns": {"log": dict(canonical.columns), "items": item_table.columns if item_table else {}},
        "rows_read": canonical.rows_read,
        "dropped": {"bad rows": bad_rows.count, **canonical.dropped},
        "bad_rows": bad_rows.examples,
        "bad_item_rows": {"count": bad_items.count, "examples": bad_items.examples},
        **_statistics(canonical),
        "notes": list(canonical.notes),
    }
    write_dataset(
        out,
        offsets=canonical.offsets,
        items=canonical.items,
        timestamps=canonical.times,
        catalogue=canonical.catalogue,
        users=canonical.users,
        summary=summary,
    )
    return Dataset.open(out)


def _statistics(canonical: Canonical) -> dict[str, Any]:
    events, users, items = len(canonical.items), canonical.users.height, canonical.catalogue.height
    times = canonical.times
    return {
        "users": users,
        "items": items,
        "events": events,
        "density": events / (users * items),
        "first_time": None if times is None else _iso(int(times.min())),
        "last_time": None if times is None else _iso(int(times.max())),
        "tie_share": None if times is None else tie_share(canonical.offsets, times),
        "items_without_title": canonical.catalogue["title"].null_count(),
        "items_without_category": canonical.catalogue["category"].null_count(),
    }


def _check_out(out: Path) -> None:
    """Refuse a folder that could not be written, before the work and not after it."""
    try:
        refuse_existing(out)
        parent = next(folder for folder in out.absolute().parents if folder.exists())
    except OSError as error:
        raise DataError(f"cannot make the folder {out}: {error.strerror}") from error
    if not parent.is_dir():
        raise DataError(f"cannot make the folder {out}: {parent} is a file")


def read_item_file(items: object, columns: Columns, options: PrepareOptions, bad_rows: BadRows) -> ItemTable:
    """Read an item file: a path or a frame, as `prepare_dataset` takes it.

    Raises:
        ConfigError: when `columns` names columns that it does not have.
        DataError: when it cannot be read, or at its first bad row unless `bad_rows` skips them.
    """
    text = TextFormat(encoding=options.encoding, quotes=options.quotes, header=columns.items_header)
    return read_items(open_tables(items, text), columns=columns, bad_rows=bad_rows)


def _item_table(items: object, columns: Columns, options: PrepareOptions, bad_rows: BadRows) -> ItemTable | None:
    if items is None:
        for flag, value in (("--items-id", columns.items_id), ("--items-columns", columns.items_header)):
            if value is not None:
                raise ConfigError(f"{flag} describes an item file: give one with --items")
        return None
    return read_item_file(items, columns, options, bad_rows)


def _iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, tz=UTC).isoformat()
