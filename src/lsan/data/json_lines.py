"""JSON lines: one object a line. Integers stay integers and strings stay strings."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import polars as pl

from lsan.data.rows import BadRow, Rows, Table, shown
from lsan.data.streams import TextBlocks
from lsan.errors import DataError

_BATCH = 100_000
#: Objects whose keys make the column names.
_LOOKED_AT = 1000
_LARGEST = 2**63 - 1


class JsonTable(Table):
    """A text file of one JSON object a line."""

    unit = "line"
    typed = True

    def __init__(self, name: str, blocks: TextBlocks) -> None:
        """Learn the keys from the first objects.

        Raises:
            DataError: when the first line is not a JSON object.
        """
        self.name = name
        self._blocks = blocks
        first, self._line = blocks.first_line()
        if first.lstrip().startswith("["):
            raise DataError(f"{name}, line {self._line}: a JSON array; expected JSON lines, one object a line")
        self._lines = self._numbered_lines()
        self._ahead: list[tuple[int, bytes]] = []
        keys: dict[str, None] = {}
        fault = ""
        for number, line in self._lines:
            self._ahead.append((number, line))
            record = _object(line)
            if isinstance(record, dict):
                keys.update(dict.fromkeys(record))
            elif not fault:
                fault = f"{name}, line {number}: {record}"
            if len(self._ahead) == _LOOKED_AT:
                break
        if not keys:
            raise DataError(fault or f"{name}, line {self._line}: an object without keys")
        self.columns = tuple(keys)

    def read(self, positions: Mapping[str, int]) -> Iterator[Rows]:
        """Yield all rows, some 100,000 at a time: integers or text, null where a key is absent."""
        keys = {role: self.columns[position] for role, position in positions.items()}
        columns: dict[str, list[Any]] = {role: [] for role in keys}
        lines: list[int] = []
        bad: list[BadRow] = []
        for number, line in self._all_lines():
            record = _object(line)
            fault = self._take(record, keys, columns) if isinstance(record, dict) else (None, record)
            if fault is None:
                lines.append(number)
            else:
                bad.append(BadRow(line=number, field=fault[0], reason=fault[1]))
            if len(lines) + len(bad) == _BATCH:
                yield _rows(columns, lines, bad)
                columns, lines, bad = {role: [] for role in keys}, [], []
        if lines or bad:
            yield _rows(columns, lines, bad)

    def _take(
        self, record: dict[str, Any], keys: dict[str, str], columns: dict[str, list[Any]]
    ) -> tuple[str, str] | None:
        """Append the values of one object to the columns, or say which key is at fault and why."""
        values: dict[str, int | float | str | None] = {}
        for role, key in keys.items():
            value = record.get(key)
            if role == "category":
                while isinstance(value, list):
                    value = value[0] if value else None
            if role in ("user", "item", "title", "category") and isinstance(value, float):
                return key, f"{shown(value)} is a fraction, expected an integer or a string"
            if isinstance(value, bool) or not isinstance(value, int | float | str | None):
                return key, f"{shown(value)} is a {type(value).__name__}, expected a number or a string"
            if isinstance(value, int) and abs(value) > _LARGEST:
                return key, f"{shown(value)} does not fit into 64 bits"
            if isinstance(value, str) and not value.isprintable():
                if "\0" in value:
                    return key, f"{shown(value)} holds a NUL character"
                if any("\ud800" <= character <= "\udfff" for character in value):
                    return key, f"{shown(value)} holds half a surrogate pair, which is not text"
            values[role] = value
        for role, value in values.items():
            columns[role].append(value)
        return None

    def _all_lines(self) -> Iterator[tuple[int, bytes]]:
        yield from self._ahead
        self._ahead = []
        yield from self._lines

    def _numbered_lines(self) -> Iterator[tuple[int, bytes]]:
        number = self._line
        for block, _ in self._blocks:
            for line in block.split(b"\n")[:-1]:
                if line.strip():
                    yield number, line
                number += 1


def _object(line: bytes) -> dict[str, Any] | str:
    """The object on a line, or why there is none."""
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        octet = line[error.start]
        return f"byte 0x{octet:02X} is not valid UTF-8: name the file's encoding, as in --encoding latin-1"
    except (ValueError, RecursionError) as error:
        return f"not valid JSON: {error}"
    if not isinstance(record, dict):
        return f"expected a JSON object, got {shown(record)}"
    return record


def _rows(columns: dict[str, list[Any]], lines: list[int], bad: list[BadRow]) -> Rows:
    frame = pl.DataFrame({role: _series(role, values) for role, values in columns.items()})
    return Rows(
        frame=frame,
        first_line=lines[0] if lines else bad[0].line,
        lines=np.array(lines, dtype=np.int64),
        bad=tuple(bad),
    )


def _series(role: str, values: list[Any]) -> pl.Series:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int}:
        return pl.Series(role, values, dtype=pl.Int64)
    if kinds <= {int, float}:
        return pl.Series(role, values, dtype=pl.Float64, strict=False)
    return pl.Series(role, [None if value is None else str(value) for value in values], dtype=pl.String)
