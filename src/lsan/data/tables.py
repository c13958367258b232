"""Opening a log or an item file: what it is shows in its first bytes, not in its name."""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from lsan.data.delimited import DelimitedTable
from lsan.data.json_lines import JsonTable
from lsan.data.rows import Rows, Table
from lsan.data.streams import TextBlocks, all_bytes, first_bytes, is_gzipped, reading
from lsan.errors import DataError
from lsan.extras import require_extra

_PARQUET = b"PAR1"
#: Rows of a Parquet file or a frame that are handed on at a time.
_SLICE = 2_000_000
#: Formats that people try and that are not rows of text.
_FOREIGN = {
    b"PK\x03\x04": "a zip archive (or an Excel workbook): unpack it, or save it as CSV",
    b"BZh": "compressed with bzip2: unpack it first",
    b"\xfd7zXZ": "compressed with xz: unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: unpack it first",
    b"\xd0\xcf\x11\xe0": "an Excel workbook: save it as CSV",
    b"ARROW1": "an Arrow file: save it as Parquet",
    b"SQLite format 3": "an SQLite database: export the table as CSV",
    b"%PDF": "a PDF document",
}


@dataclass(frozen=True, kw_only=True)
class TextFormat:
    """How to read text files."""

    encoding: str = "utf-8"
    """Name of the text encoding."""
    separator: str | None = None
    """What lies between fields; None to find it in the first line."""
    quotes: bool = True
    """Whether double quotes enclose fields, as in RFC 4180."""
    header: tuple[str, ...] | None = None
    """Names of the columns of a file without a header line."""


class FrameTable(Table):
    """A Polars frame, or Parquet scanned as one."""

    unit = "row"
    typed = True

    def __init__(self, name: str, frame: pl.LazyFrame) -> None:
        """Learn the columns of a frame.

        Raises:
            DataError: when they cannot be read.
        """
        self.name = name
        self._frame = frame
        try:
            self._schema = frame.collect_schema()
        except (OSError, pl.exceptions.PolarsError) as error:
            raise DataError(f"{name}: cannot be read: {_first_line(error)}") from error
        self.columns = tuple(self._schema.names())

    def read(self, positions: Mapping[str, int]) -> Iterator[Rows]:
        """Yield all rows, two million at a time, with the types they have."""
        for role, position in positions.items():
            self._check_type(role, self.columns[position])
        columns = [self._column(self.columns[position]).alias(role) for role, position in positions.items()]
        start = 0
        while True:
            try:
                frame = self._frame.slice(start, _SLICE).select(columns).collect()
            except (OSError, pl.exceptions.PolarsError) as error:
                raise DataError(f"{self.name}: cannot be read: {_first_line(error)}") from error
            if frame.height:
                yield Rows(frame=frame, first_line=start + 1)
            if frame.height < _SLICE:
                return
            start += _SLICE

    def _column(self, name: str) -> pl.Expr:
        kind = self._schema[name]
        column = pl.col(name)
        if isinstance(kind, pl.Categorical | pl.Enum):
            return column.cast(pl.String)
        return column.cast(pl.String) if kind == pl.Null else column

    def _check_type(self, role: str, name: str) -> None:
        kind = self._schema[name]
        text = kind in (pl.String, pl.Null) or isinstance(kind, pl.Categorical | pl.Enum)
        numeric = role in ("timestamp", "rating") and kind.is_numeric()
        moment = role == "timestamp" and isinstance(kind, pl.Date | pl.Datetime)
        if text or kind.is_integer() or numeric or moment:
            return
        expected = {"timestamp": "times, numbers or text", "rating": "numbers"}.get(role, "integers or text")
        hint = ""
        if role in ("user", "item") and kind.is_float():
            hint = ": leave out rows without an id and cast the column to integers"
        raise DataError(f"{self.name}, column {name!r}: is of type {kind}, expected {expected}{hint}")


def open_tables(source: object, text: TextFormat) -> Iterator[Table]:
    """The tables of a source, one after the other: a file, the Parquet files of a folder by name, or a frame.

    Raises:
        DataError: when the source cannot be read or is of no known kind.
        MissingExtraError: when a pandas frame needs pyarrow, and it is not installed.
    """
    if isinstance(source, str | Path):
        path = Path(source)
        with reading(path):
            if not path.exists():
                raise DataError(f"{path}: there is no such file or folder")
            files = _parquet_files(path) if path.is_dir() else [path]
        return (_open_file(file, text) for file in files)
    return iter([FrameTable("data frame", _as_polars(source))])


def source_name(source: object) -> str:
    """What the summary calls a source: the file's name without its folders, or "data frame"."""
    return Path(source).resolve().name if isinstance(source, str | Path) else "data frame"


def _parquet_files(folder: Path) -> list[Path]:
    found = sorted(
        path
        for pattern in ("*.parquet", "*.parquet.gz")
        for path in folder.rglob(pattern)
        if path.is_file() and not any(part[0] in "._" for part in path.relative_to(folder).parts)
    )
    if not found:
        raise DataError(f"{folder}: a folder without Parquet files (*.parquet); name a file, or a folder of Parquet")
    return found


def _open_file(path: Path, text: TextFormat) -> Table:
    start = first_bytes(path, 4096)
    for magic, what in _FOREIGN.items():
        if start.startswith(magic):
            raise DataError(f"{path}: is {what}; expected CSV, TSV, JSON lines or Parquet")
    if start.startswith(_PARQUET):
        source = io.BytesIO(all_bytes(path)) if is_gzipped(path) else path
        return FrameTable(str(path), pl.scan_parquet(source, glob=False))
    blocks = TextBlocks(path, encoding=text.encoding)
    if text.header is None and start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"[")):
        return JsonTable(str(path), blocks)
    return DelimitedTable(str(path), blocks, separator=text.separator, header=text.header, quotes=text.quotes)


def _as_polars(source: object) -> pl.LazyFrame:
    if isinstance(source, pl.LazyFrame):
        return source
    if isinstance(source, pl.DataFrame):
        return source.lazy()
    if type(source).__module__.partition(".")[0] == "pandas" and type(source).__name__ == "DataFrame":
        return _from_pandas(source)
    raise DataError(f"expected a path or a Polars or pandas data frame, got {type(source).__name__}")


def _from_pandas(frame: Any) -> pl.LazyFrame:
    require_extra("pandas", "pyarrow", needed_by="a pandas frame")
    names = [str(name) for name in frame.columns]
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise DataError(f"data frame: the column name {repeated!r} appears twice: rename one of them")
    columns = {}
    for position, name in enumerate(names):
        try:
            columns[name] = pl.Series(name, pl.from_pandas(frame.iloc[:, position]))
        except (
            TypeError,
            ValueError,
            RuntimeError,
            pl.exceptions.PolarsError,
        ):  # pyarrow's errors are ValueErrors
            columns[name] = pl.Series(name, [None] * len(frame), dtype=pl.Object)  # unusable, refused if it is used
    return pl.DataFrame(columns).lazy()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
