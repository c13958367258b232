"""Delimited text (CSV, TSV, `::`, ...): Polars parses what is plainly sound, Python's csv the rest.

A block is plainly sound when its quotes, separators and line ends add up (`DelimitedTable._parse_fast`);
then its rows are its lines, and Polars' parser, which would pad short rows with nulls, has nothing to pad.
Any other block goes through Python's strict csv reader, which knows on which line a row starts and what is
wrong with it.
"""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import polars as pl

from lsan.data.columns import clean_header, is_recbole
from lsan.data.rows import BadRow, Rows, Table, shown
from lsan.data.streams import TextBlocks
from lsan.errors import DataError

#: Stands for `::` while a block is parsed: both parsers take separators of one character only.
_STAND_IN = "\x1f"
#: Rows that the exact scan gathers before it hands them on.
_BATCH = 50_000
#: A record of more lines than this has a quote that was never closed.
_MOST_LINES = 1000


@dataclass(frozen=True, kw_only=True)
class _Scan:
    """What the exact scan of some lines found."""

    rows: list[list[str]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)


class DelimitedTable(Table):
    """A text file of one record a line, fields between separators, quoted as RFC 4180 has it."""

    unit = "line"
    typed = False

    def __init__(
        self,
        name: str,
        blocks: TextBlocks,
        *,
        separator: str | None,
        header: tuple[str, ...] | None,
        quotes: bool,
    ) -> None:
        """Read the header line.

        Args:
            name: what errors call the file.
            separator: None to find it in the first line.
            header: the column names of a file without a header line.
            quotes: whether a double quote at the start of a field quotes it.

        Raises:
            DataError: when the file is empty, or its first line does not fit `header`.
        """
        self.name = name
        self._blocks = blocks
        first, self._line = blocks.first_line()
        if "\0" in first:
            raise DataError(f"{name}, line {self._line}: holds NUL bytes: this is not a text file")
        shown_separator = separator or _sniff_separator(first)
        self._quotes = quotes and shown_separator != "::"
        self._separator = _STAND_IN if shown_separator == "::" else shown_separator
        self._stood_in = shown_separator == "::"
        fields = self._split(first)
        if header is None:
            self._quotes = self._quotes and not is_recbole(fields)
            self.columns = clean_header(fields)
            blocks.skip_first_line()
            self._line += 1
        else:
            self.columns = header
            if len(fields) != len(header):
                raise DataError(
                    f"{name}, line {self._line}: has {len(fields)} fields (separator {shown_separator!r}), "
                    f"but {len(header)} column names were given: {', '.join(header)}"
                )
        if len(self.columns) == 1:
            raise DataError(
                f"{name}, line {self._line - (header is None)}: one column only, {shown(first)}: "
                "expected user and item columns; if they are there, name what separates them with --separator"
            )

    def read(self, positions: Mapping[str, int]) -> Iterator[Rows]:
        """Yield all rows, about a block at a time; fields are text, empty where they were."""
        line, carried = self._line, b""
        for block, is_last in self._blocks:
            block = carried + block
            frame = self._parse_fast(block, positions)
            if frame is not None:
                yield Rows(frame=frame, first_line=line)
                line, carried = line + frame.height, b""
                continue
            text = block.decode("utf-8", "surrogateescape")
            lines = text.replace("::", _STAND_IN).split("\n") if self._stood_in else text.split("\n")
            lines.pop()  # a block ends with a line end
            done = 0
            while done < len(lines):
                scan, stop = self._scan(lines, done, line, is_last=is_last)
                yield self._rows(scan, positions, line + done)
                if stop == done:
                    break
                done = stop
            carried = _after_lines(block, done)
            line += done

    def _parse_fast(self, block: bytes, positions: Mapping[str, int]) -> pl.DataFrame | None:
        if b"\0" in block or (self._stood_in and _STAND_IN.encode() in block) or not _is_utf8(block):
            return None
        if self._stood_in:
            block = block.replace(b"::", _STAND_IN.encode())
        octets = np.frombuffer(block, dtype=np.uint8)
        lines = np.count_nonzero(octets == ord("\n"))
        if b"\r" in block and not block.count(b"\r") == block.count(b"\r\n") == lines:
            return None
        separators = np.count_nonzero(octets == ord(self._separator))
        if separators != lines * (len(self.columns) - 1) or not self._quotes_are_simple(block):
            return None
        names = [f"column_{position}" for position in range(1, len(self.columns) + 1)]
        try:
            frame = pl.read_csv(
                block,
                has_header=False,
                separator=self._separator,
                quote_char='"' if self._quotes else None,
                schema=dict.fromkeys(names, pl.String),
                columns=sorted(set(positions.values())),
            )
        except pl.exceptions.PolarsError:
            return None
        if frame.height != lines:
            return None
        return frame.select(pl.col(names[position]).fill_null("").alias(role) for role, position in positions.items())

    def _quotes_are_simple(self, block: bytes) -> bool:
        """Whether each quote opens or closes a whole field: nothing is escaped, nothing spans lines."""
        if not self._quotes:
            return True
        quotes = block.count(b'"')
        if not quotes:
            return True
        mark = self._separator.encode()
        opening = block.count(mark + b'"') + block.count(b'\n"') + block.startswith(b'"')
        closing = block.count(b'"' + mark) + block.count(b'"\n') + block.count(b'"\r\n')
        return opening == closing and opening + closing == quotes

    def _scan(self, lines: list[str], start: int, first_line: int, *, is_last: bool) -> tuple[_Scan, int]:
        """Take records apart, from `lines[start]` on. `first_line` is the line number of `lines[0]`.

        Returns:
            What was found, and where to go on: at `start` itself when the only record left is not complete.
        """
        scan = _Scan()
        position = start

        def feed() -> Iterator[str]:
            nonlocal position
            while position < len(lines):
                position += 1
                yield lines[position - 1] + "\n"

        reader = csv.reader(feed(), strict=True, delimiter=self._separator, quoting=self._quoting)
        while len(scan.rows) + len(scan.bad) < _BATCH:
            begin = position
            try:
                record = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                unfinished = position == len(lines) and "unexpected end" in str(error)
                if unfinished and not is_last and position - begin < _MOST_LINES:
                    position = begin
                    break
                scan.bad.append(BadRow(line=first_line + begin, field=None, reason=_csv_reason(error, lines[begin])))
                position = begin + 1
                continue
            if not record or (len(record) == 1 and not record[0].strip()):
                continue
            reason = self._fault(record)
            if reason is None:
                scan.rows.append(record)
                scan.lines.append(first_line + begin)
            else:
                scan.bad.append(BadRow(line=first_line + begin, field=reason[0], reason=reason[1]))
                position = begin + 1
        return scan, position

    def _fault(self, record: list[str]) -> tuple[str | None, str] | None:
        """The field at fault, if it is one, and what is wrong; None for a sound record."""
        if len(record) != len(self.columns):
            return None, f"{len(record)} fields, expected {len(self.columns)} ({', '.join(self.columns[:8])})"
        for name, text in zip(self.columns, record, strict=True):
            if text.isascii():
                if "\0" in text:
                    return name, "holds a NUL byte"
            elif any("\udc80" <= character <= "\udcff" for character in text):
                octet = next(ord(character) - 0xDC00 for character in text if "\udc80" <= character <= "\udcff")
                return (
                    name,
                    f"byte 0x{octet:02X} is not valid UTF-8: name the encoding, as in --encoding latin-1",
                )
        return None

    def _rows(self, scan: _Scan, positions: Mapping[str, int], first_line: int) -> Rows:
        frame = pl.DataFrame(
            {role: [record[position] for record in scan.rows] for role, position in positions.items()},
            schema=dict.fromkeys(positions, pl.String),
        )
        lines = np.array(scan.lines, dtype=np.int64)
        return Rows(frame=frame, first_line=first_line, lines=lines, bad=tuple(scan.bad))

    def _split(self, line: str) -> list[str]:
        text = line.replace("::", _STAND_IN) if self._stood_in else line
        try:
            return next(csv.reader([text], strict=True, delimiter=self._separator, quoting=self._quoting), [])
        except csv.Error as error:
            raise DataError(f"{self.name}, line {self._line}: {_csv_reason(error, line)}") from error

    @property
    def _quoting(self) -> Literal[0, 3]:
        return csv.QUOTE_MINIMAL if self._quotes else csv.QUOTE_NONE


def _sniff_separator(line: str) -> str:
    if "::" in line:
        return "::"
    unquoted = "".join(line.split('"')[::2])
    return max(("\t", ",", ";", "|"), key=unquoted.count)


def _csv_reason(error: csv.Error, line: str) -> str:
    message = str(error)
    if "unexpected end" in message or "field larger" in message:
        return f"a quote opens in {shown(line)} and is never closed (`--no-quotes` takes quotes as they are)"
    if "expected after" in message:
        return f"text follows a closing quote in {shown(line)} (`--no-quotes` takes quotes as they are)"
    if "new-line character" in message:
        return f"a carriage return within a field of {shown(line)}"
    return f"{message} in {shown(line)}"


def _is_utf8(block: bytes) -> bool:
    if block.isascii():
        return True
    try:
        block.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _after_lines(block: bytes, lines: int) -> bytes:
    """What follows the first `lines` lines of a block."""
    if lines == 0:
        return block
    ends = np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == ord("\n"))
    return block[int(ends[lines - 1]) + 1 :]
