"""From a log of any format to integer columns in file order."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from lsan.data.columns import LOG_NAMES, Columns, Wanted, find_columns
from lsan.data.ids import MISSING, Encoded, Encoder
from lsan.data.rows import SHOWN, BadRow, BadRows, Rows, Table, shown
from lsan.data.times import Clock
from lsan.errors import DataError

logger = logging.getLogger(__name__)

_FLAGS = {role: f"--{role}" for role in LOG_NAMES}


@dataclass(frozen=True, kw_only=True)
class Interactions:
    """All usable events of a log, in file order. N is their number."""

    users: Encoded
    """User ids. Codes of shape [N]."""
    items: Encoded
    """Item ids. Codes of shape [N]."""
    times: npt.NDArray[np.int64] | None
    """Milliseconds since 1970 UTC, None when the log has no time column. Shape [N]."""
    texts: Mapping[str, Encoded]
    """"title" and "category", where the log has such a column. Codes of shape [N]."""
    columns: Mapping[str, str]
    """Role -> the name of its column in the log."""
    rows_read: int
    """Rows of the log, bad ones and those with low ratings included."""
    low_ratings: int
    """Rows left out because of their rating."""


def read_interactions(
    tables: Iterator[Table],
    *,
    columns: Columns,
    with_texts: bool,
    min_rating: float | None,
    bad_rows: BadRows,
) -> Interactions:
    """Read a log.

    Args:
        tables: the log, in one or several parts.
        columns: names of its columns that are not usual ones.
        with_texts: whether `columns.title` and `columns.category` name columns of the log, not of an
            item file.
        min_rating: leave out events rated lower; None to ignore ratings.
        bad_rows: takes the rows that cannot be used.

    Raises:
        ConfigError: when `columns` names columns that the log does not have.
        DataError: when the log cannot be read, or at its first bad row unless they are skipped.
    """
    reader = _Reader(columns=columns, with_texts=with_texts, min_rating=min_rating, bad_rows=bad_rows)
    for table in tables:
        reader.read(table)
    return reader.finish()


class _Reader:
    def __init__(self, *, columns: Columns, with_texts: bool, min_rating: float | None, bad_rows: BadRows) -> None:
        self._wanted = _wanted(columns, with_texts=with_texts, with_rating=min_rating is not None)
        self._min_rating = min_rating
        self._bad_rows = bad_rows
        self._clock = Clock()
        self._encoders: dict[str, Encoder] = {}
        self._times: list[npt.NDArray[np.int64]] = []
        self._names: dict[str, str] = {}
        self._first_table: str | None = None
        self._rows_read = 0
        self._low_ratings = 0

    def read(self, table: Table) -> None:
        """Add the rows of one table."""
        positions = find_columns(table.columns, self._wanted, where=table.name)
        names = {role: table.columns[position] for role, position in positions.items()}
        if self._first_table is None:
            self._first_table, self._names = table.name, names
            self._encoders = {role: Encoder() for role in names if role not in ("timestamp", "rating")}
        elif names != self._names:
            raise DataError(
                f"{table.name}: its columns ({_described(names)}) are not those of {self._first_table} "
                f"({_described(self._names)})"
            )
        for rows in table.read(positions):
            self._add(table, rows)
        logger.debug("%s: %d rows", table.name, self._rows_read)

    def finish(self) -> Interactions:
        """All rows of all tables.

        Raises:
            DataError: when there are none.
        """
        encoded = {role: encoder.finish() for role, encoder in self._encoders.items()}
        if not encoded or not len(encoded["user"].codes):
            raise DataError(f"{self._first_table}: no rows left: {self._what_went()}")
        times = np.concatenate(self._times) if self._times else None
        self._times.clear()
        return Interactions(
            users=encoded["user"],
            items=encoded["item"],
            times=times,
            texts={role: column for role, column in encoded.items() if role in ("title", "category")},
            columns=self._names,
            rows_read=self._rows_read,
            low_ratings=self._low_ratings,
        )

    def _what_went(self) -> str:
        if not self._rows_read:
            return "the log has column names, but no rows"
        first = f" (the first: {self._bad_rows.examples[0]})" if self._bad_rows.examples else ""
        counts = f"{self._rows_read:,} read, {self._bad_rows.count:,} bad{first}"
        return f"{counts}, {self._low_ratings:,} rated too low"

    def _add(self, table: Table, rows: Rows) -> None:
        frame = rows.frame
        self._rows_read += frame.height + len(rows.bad)
        faults = _Faults(rows)
        for role in ("user", "item"):
            faults.add(self._names[role], missing_ids(frame[role]), frame[role], _explain_id)
        times = self._clock.parse(frame["timestamp"]) if "timestamp" in frame.columns else None
        if times is not None:
            faults.add(self._names["timestamp"], times.is_null(), frame["timestamp"], self._clock.explain)
        ratings = _ratings(frame["rating"]) if "rating" in frame.columns else None
        if ratings is not None:
            faults.add(self._names["rating"], ratings.is_null(), frame["rating"], _explain_rating)
        if rows.bad or faults.found:
            self._bad_rows.add(table, [*rows.bad, *faults.found], count=len(rows.bad) + faults.count)
        keep = ~faults.mask
        if ratings is not None and self._min_rating is not None:
            low = keep & (ratings < self._min_rating).fill_null(False).to_numpy()
            self._low_ratings += int(np.count_nonzero(low))
            keep &= ~low
        if not keep.all():
            frame = frame.filter(pl.Series(keep))
            times = None if times is None else times.filter(pl.Series(keep))
        if times is not None:
            self._times.append(times.to_numpy().copy())  # lets Polars reuse its memory
        for role, encoder in self._encoders.items():
            column = frame[role] if role in ("user", "item") else tidy_text(frame[role])
            encoder.add(column, typed=table.typed)


class _Faults:
    """Which of some rows cannot be used; the first few are described."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.mask = np.zeros(rows.frame.height, dtype=np.bool_)
        self.found: list[BadRow] = []

    @property
    def count(self) -> int:
        return int(np.count_nonzero(self.mask))

    def add(self, name: str, mask: pl.Series, values: pl.Series, explain: Callable[[object], str]) -> None:
        """Add the rows under `mask` that have no other fault yet."""
        if not mask.any():
            return
        at_fault = mask.fill_null(True).to_numpy() & ~self.mask
        self.mask |= at_fault
        for row in np.flatnonzero(at_fault)[:SHOWN].tolist():
            self.found.append(BadRow(line=self._rows.line_of(row), field=name, reason=explain(values[row])))


def missing_ids(column: pl.Series) -> pl.Series:
    """Which ids are null, blank, or integers beyond 64 bits (Boolean)."""
    if column.dtype == pl.String:
        return (column.str.strip_chars().str.len_bytes() == 0).fill_null(True)
    if column.dtype in (pl.UInt64, pl.UInt128, pl.Int128):
        return column.cast(pl.Int64, strict=False).is_null()
    return column.is_null()


def tidy_text(column: pl.Series) -> pl.Series:
    """Titles or categories as text on one line, null where there is nothing."""
    text = column.cast(pl.String).str.replace_all(r"\s+", " ").str.strip_chars()
    return text.replace("", None)


def first_text_of_item(items: npt.NDArray[np.integer], text: Encoded, item_count: int) -> npt.NDArray[np.uint32]:
    """The code of the first text that each item has, `MISSING` where it has none. Shape [items]."""
    known = np.flatnonzero(text.codes != MISSING)[::-1]
    codes = np.full(item_count, MISSING, dtype=np.uint32)
    codes[items[known]] = text.codes[known]  # of several writes to a place the last one, the first in the log, stays
    return codes


def _wanted(columns: Columns, *, with_texts: bool, with_rating: bool) -> Wanted:
    chosen = {
        "user": columns.user,
        "item": columns.item,
        "timestamp": columns.timestamp,
        "rating": columns.rating,
    }
    if with_texts:
        chosen |= {"title": columns.title, "category": columns.category}
    with_rating = with_rating or columns.rating is not None
    roles = ["user", "item", "timestamp", *(["rating"] if with_rating else []), "title", "category"]
    return Wanted(
        names={role: LOG_NAMES[role] for role in roles},
        chosen=chosen,
        flags=_FLAGS,
        required=("user", "item", *(["rating"] if with_rating else [])),
        header_flag="--columns",
    )


def _explain_id(value: object) -> str:
    if value is None or (isinstance(value, str) and not value.strip()):
        return "the id is missing"
    return f"{shown(value)} does not fit into 64 bits"


def _ratings(column: pl.Series) -> pl.Series:
    """Ratings as numbers (Float64), null where they are not finite numbers."""
    text = column.str.strip_chars() if column.dtype == pl.String else column
    numbers = text.cast(pl.Float64, strict=False)
    return pl.select(pl.when(numbers.is_finite()).then(numbers)).to_series()


def _explain_rating(value: object) -> str:
    if value is None or (isinstance(value, str) and not value.strip()):
        return "the rating is missing"
    return f"{shown(value)} is not a number"


def _described(names: Mapping[str, str]) -> str:
    return ", ".join(f"{role} {name!r}" for role, name in names.items())
