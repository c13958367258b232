"""Rows as the readers hand them on: frames of up to a few million rows, and the rows that went wrong."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from lsan.errors import DataError

#: How many bad rows the summary shows when they are skipped.
SHOWN = 5
_LONGEST_VALUE = 40


@dataclass(frozen=True, kw_only=True)
class BadRow:
    """A row that cannot be used."""

    line: int
    """1-based physical line where the row starts (the row's number in Parquet files and frames)."""
    field: str | None
    """Name of the column at fault, None when the whole row is."""
    reason: str
    """What was found and what was expected."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Consecutive rows of one table."""

    frame: pl.DataFrame
    """The good rows, one column for each role asked for (user, item, timestamp, ...)."""
    first_line: int
    """Line of the first row; the others follow without gaps unless `lines` is given."""
    lines: npt.NDArray[np.int64] | None = None
    """Line of each row of `frame`, where they have gaps. Shape [rows]."""
    bad: tuple[BadRow, ...] = ()
    """Rows between the good ones that could not be taken apart."""

    def line_of(self, row: int) -> int:
        """The line of row `row` (from 0) of `frame`."""
        return self.first_line + row if self.lines is None else int(self.lines[row])


class Table(ABC):
    """An input with named columns that is read once, front to back."""

    name: str
    """What errors call it: the path as it was given, or "data frame"."""
    columns: tuple[str, ...]
    """Column names."""
    unit: str
    """What `Rows` counts: "line" or "row"."""
    typed: bool
    """Whether the format tells integers from strings (JSON, Parquet, frames) or has only text."""

    @abstractmethod
    def read(self, positions: Mapping[str, int]) -> Iterator[Rows]:
        """Yield all rows in order. `positions` maps each role to the position of its column in `columns`."""


@dataclass(kw_only=True)
class BadRows:
    """Counts bad rows, or raises at the first."""

    skip: bool
    """Whether to go on after a bad row."""
    count: int = 0
    """Bad rows so far."""
    examples: list[str] = field(default_factory=list)
    """The first few, described."""

    def add(self, table: Table, rows: Iterable[BadRow], *, count: int) -> None:
        """Take note of `count` bad rows of one table, of which `rows` describes the first few at least.

        Raises:
            DataError: for the first of them, unless they are to be skipped.
        """
        self.count += count
        for row in sorted(rows, key=lambda bad: bad.line)[:SHOWN]:
            place = f"{table.unit} {row.line}" + ("" if row.field is None else f", field {row.field!r}")
            if not self.skip:
                raise DataError(
                    f"{table.name}, {place}: {row.reason} (`lsan prepare --on-bad-rows skip` leaves such rows out)"
                )
            if len(self.examples) < SHOWN:
                self.examples.append(f"{Path(table.name).name}, {place}: {row.reason}")


def shown(value: object) -> str:
    """A value as errors show it: quoted, on one line, shortened."""
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}... ({len(str(value))} characters)"
