"""Times in any usual notation, as milliseconds since 1970-01-01 UTC.

Text and numbers: whole or fractional seconds, milliseconds, or ISO 8601 text (a date, or a date and a time,
with or without a zone; without one it is UTC). A column has one notation, learnt from its first rows that hold any
time (up to a few hundred thousand): the one that most of them have. Numbers are seconds when their median lies before
the year 2200 read as seconds, otherwise milliseconds. Later rows in another notation are bad rows, not guesses. What a
file itself says to be dates or datetimes needs no notation.
"""

from typing import Literal

import numpy as np
import polars as pl

from lsan.data.rows import shown

#: 2200-01-01 in milliseconds: a later time is taken for a mistake, as is one before 1970.
END_OF_TIME = 7_258_118_400_000
#: Fewer than this many milliseconds (26 April 1970) in a column of milliseconds are seconds, or 0
#: for "unknown".
_FIRST_MILLISECONDS = 10_000_000_000

Notation = Literal["seconds", "milliseconds", "iso", "iso with zone", "date digits", "too large"]
_EXPECTED = "expected seconds or milliseconds since 1970, or ISO text such as 2024-05-31 or 2024-05-31T17:45:00Z"
_NAIVE = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M")
_ZONED = ("%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M%#z", "%Y-%m-%dT%H:%M%#z")


class Clock:
    """Reads one column of times, piece by piece."""

    def __init__(self) -> None:
        self.notation: Notation | None = None
        """What the column's times look like; None before the first of them."""

    def parse(self, column: pl.Series) -> pl.Series:
        """Milliseconds since 1970 UTC (Int64), null where a value is not a time in the column's notation."""
        if column.dtype == pl.Date or isinstance(column.dtype, pl.Datetime):
            zoned = column.cast(pl.Datetime("ms")) if column.dtype == pl.Date else column
            return _within(zoned.dt.timestamp("ms"), first=0)
        numbers = _numbers(column)
        if self.notation is None:
            self.notation = _learn(column, numbers)
        if self.notation == "seconds":
            whole, fractional = numbers
            seconds = _within(whole, first=0, end=END_OF_TIME // 1000) * 1000
            return _within(seconds.fill_null((fractional * 1000).round().cast(pl.Int64, strict=False)), first=0)
        if self.notation == "milliseconds":
            whole, fractional = numbers
            return _within(whole.fill_null(fractional.round().cast(pl.Int64, strict=False)), first=_FIRST_MILLISECONDS)
        if self.notation in ("iso", "iso with zone") and column.dtype == pl.String:
            return _iso(column, zoned=self.notation == "iso with zone")
        return pl.Series(column.name, [None], dtype=pl.Int64).new_from_index(0, len(column))

    def explain(self, value: object) -> str:
        """Why a value that `parse` made null is not a time."""
        if value is None or (isinstance(value, str) and not value.strip()):
            return "the time is missing"
        column = pl.Series([str(value)])
        number = _numbers(column)[1].item()
        if self.notation == "date digits":
            return f"{shown(value)} looks like a date written YYYYMMDD: {_EXPECTED}"
        if number is not None:
            return self._explain_number(value, number)
        for zoned in (False, True):
            if _iso(column, zoned=zoned, limited=False).item() is not None:
                if _iso(column, zoned=zoned).item() is None:
                    return f"{shown(value)} lies outside the years 1970 to 2199"
                if self.notation in ("iso", "iso with zone"):
                    return f"{shown(value)} has {'a' if zoned else 'no'} time zone, unlike the times before it"
                return f"{shown(value)} is ISO text, but the times before it are {self.notation}"
        return f"{shown(value)} is not a time: {_EXPECTED}"

    def _explain_number(self, value: object, number: float) -> str:
        if not np.isfinite(number):
            return f"{shown(value)} is not a time: {_EXPECTED}"
        if number < 0:
            return f"{shown(value)} lies before 1970: {_EXPECTED}"
        if self.notation == "seconds" and _FIRST_MILLISECONDS <= number < END_OF_TIME:
            return f"{shown(value)} looks like milliseconds, but the times around it are seconds"
        if self.notation == "milliseconds" and number < _FIRST_MILLISECONDS:
            return f"{shown(value)} looks like seconds, but the times around it are milliseconds"
        if self.notation in ("iso", "iso with zone"):
            return f"{shown(value)} is a number, but the times around it are ISO text"
        if number >= END_OF_TIME * 100:
            return f"{shown(value)} looks like micro- or nanoseconds: {_EXPECTED}"
        return f"{shown(value)} lies after the year 2199: {_EXPECTED}"


def _numbers(column: pl.Series) -> tuple[pl.Series, pl.Series]:
    """The values as whole numbers (Int64) and as numbers (Float64), null where they are not."""
    if column.dtype == pl.String:
        whole = column.cast(pl.Int64, strict=False)
        if whole.null_count():
            whole = column.str.strip_chars().cast(pl.Int64, strict=False)
            return whole, column.str.strip_chars().cast(pl.Float64, strict=False)
        return whole, whole.cast(pl.Float64)
    if column.dtype.is_integer():
        whole = column.cast(pl.Int64, strict=False)
        return whole, column.cast(pl.Float64)
    if column.dtype.is_float() or column.dtype.is_decimal():
        nothing = pl.Series(column.name, [None], dtype=pl.Int64).new_from_index(0, len(column))
        return nothing, column.cast(pl.Float64)
    nothing = pl.Series(column.name, [None], dtype=pl.Int64).new_from_index(0, len(column))
    return nothing, nothing.cast(pl.Float64)


def _learn(column: pl.Series, numbers: tuple[pl.Series, pl.Series]) -> Notation | None:
    """The notation that most values of a piece have; None where none is a time."""
    counted: list[tuple[int, Notation]] = [(int(numbers[1].is_finite().sum() or 0), "seconds")]
    if column.dtype == pl.String and 2 * counted[0][0] < len(column):
        counted.append((_iso(column, zoned=False).count(), "iso"))
        counted.append((_iso(column, zoned=True).count(), "iso with zone"))
    count, notation = max(counted, key=lambda pair: pair[0])
    if count == 0:
        return None
    return _unit(*numbers) if notation == "seconds" else notation


def _unit(whole: pl.Series, number: pl.Series) -> Notation | None:
    sensible = number.filter(number.is_finite() & (number >= 0))
    median = sensible.median()
    if not isinstance(median, float):
        return None
    if median < END_OF_TIME / 1000:
        return "date digits" if _all_date_digits(whole) else "seconds"
    return "milliseconds" if median < END_OF_TIME else "too large"


def _all_date_digits(whole: pl.Series) -> bool:
    """Whether all of the numbers read as calendar days written YYYYMMDD."""
    if not len(whole) or not bool(whole.is_between(1970_01_01, 2199_12_31).all()) or whole.null_count():
        return False
    days = whole.cast(pl.String).str.to_date("%Y%m%d", strict=False)
    return days.null_count() == 0


def _iso(column: pl.Series, *, zoned: bool, limited: bool = True) -> pl.Series:
    """Milliseconds since 1970 UTC; null where the text is in another notation or, if limited, out of range."""
    text = column.str.strip_chars()
    if zoned:
        text = text.str.replace(r"\s*(UTC|GMT)$", "Z")
    found = pl.Series(column.name, [None], dtype=pl.Int64).new_from_index(0, len(column))
    for pattern in _ZONED if zoned else _NAIVE:
        kind = pl.Datetime("ms", "UTC" if zoned else None)
        found = found.fill_null(text.str.strptime(kind, pattern, strict=False).dt.timestamp("ms"))
        if not found.null_count():
            break
    return _within(found, first=0) if limited else found


def _within(column: pl.Series, *, first: int, end: int = END_OF_TIME) -> pl.Series:
    """Null where a value is not in first .. end - 1."""
    low, high = column.min(), column.max()
    if isinstance(low, int) and isinstance(high, int) and first <= low and high < end:
        return column
    return pl.select(pl.when((column >= first) & (column < end)).then(column)).to_series().alias(column.name)
