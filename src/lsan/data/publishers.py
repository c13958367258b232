"""The files of publishers of public datasets, each in its own format, as CSV files: items.csv (item, title, category)
and, where the publisher's own log is not one that `lsan prepare` reads, interactions.csv (user, item, timestamp)."""

import ast
import csv
import gzip
import html
import json
import logging
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from lsan.data.download import Progress
from lsan.errors import DataError

logger = logging.getLogger(__name__)

_MB = 1_000_000
_LONGEST_LINE = 8 * _MB
_LARGEST_GZIP_CONTENT = 20_000 * _MB
_LARGEST_SHEET = 2_000 * _MB
#: More unusable lines than this share of a file mean that the file is not what we take it for.
_MOST_UNUSABLE = 0.01

#: Reads the files in a set's folder (first argument) and writes CSV files into a new one (second argument).
Convert = Callable[[Path, Path, Progress], None]


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    # "replace": some records have halves of surrogate pairs, which UTF-8 cannot hold.
    with path.open("w", encoding="utf-8", errors="replace", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _write_items(folder: Path, items: Iterable[tuple[str, str, str]]) -> None:
    """Write items.csv; an item that comes again is left out."""
    first: dict[str, tuple[str, str]] = {}
    for item, title, category in items:
        first.setdefault(item, (title, category))
    rows = ((item, *texts) for item, texts in first.items())
    _write_csv(folder / "items.csv", ["item", "title", "category"], rows)


def _text(value: Any) -> str:
    """A text on one line; anything but a text or a whole number is as good as none."""
    return " ".join(str(value).split()) if isinstance(value, str | int) else ""


# MovieLens


_MOVIELENS_100K_GENRES = (
    "", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama",
    "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="latin-1").splitlines()
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing: this is not the archive that was expected") from error


def _malformed(path: Path, line: int, expected: str) -> DataError:
    return DataError(f"{path}, line {line}: expected {expected}: this is not the file that was expected")


def convert_movielens_100k(folder: Path, converted: Path, progress: Progress) -> None:
    """Items of MovieLens 100K, with their first genres."""
    path = folder / "ml-100k" / "u.item"
    items = []
    for number, line in enumerate(_lines(path), start=1):
        fields = line.split("|")
        if len(fields) != 5 + len(_MOVIELENS_100K_GENRES):
            raise _malformed(path, number, f"{5 + len(_MOVIELENS_100K_GENRES)} fields separated by |")
        genres = [genre for genre, flag in zip(_MOVIELENS_100K_GENRES, fields[5:], strict=True) if flag == "1"]
        items.append((fields[0], fields[1], genres[0] if genres else ""))
    _write_items(converted, items)


def convert_movielens_1m(folder: Path, converted: Path, progress: Progress) -> None:
    """Items of MovieLens 1M, with their first genres."""
    path = folder / "ml-1m" / "movies.dat"
    items = []
    for number, line in enumerate(_lines(path), start=1):
        fields = line.split("::")
        if len(fields) != 3:
            raise _malformed(path, number, "MovieID::Title::Genres")
        items.append((fields[0], fields[1], fields[2].split("|")[0]))
    _write_items(converted, items)


def convert_movielens_csv(folder: Path, converted: Path, progress: Progress, *, name: str) -> None:
    """Items of the later MovieLens sets, with their first genres."""
    path = folder / name / "movies.csv"
    items = []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                genre = row["genres"].split("|")[0]
                items.append((row["movieId"], row["title"], "" if genre == "(no genres listed)" else genre))
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing: this is not the archive that was expected") from error
    except (KeyError, AttributeError, csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: expected the columns movieId,title,genres in UTF-8") from error
    _write_items(converted, items)


# Files of Python literals, one dictionary a line, gzipped (Amazon's items, Steam)


def _literal(line: bytes) -> Any:
    """The value of a line, None where it is not a literal. Nothing in it is executed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the parser warns of "\d" and the like in texts
            return ast.literal_eval(line.decode("utf-8", errors="replace").strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None


def _records(path: Path, fields: Sequence[str], progress: Progress) -> Iterator[dict[str, Any]]:
    """The dictionaries of a file that have a text or a number for each of `fields`.

    Raises:
        DataError: when the file is damaged, has over-long lines or content, or more than a few unusable
            lines.
    """
    lines = unusable = content = 0
    try:
        with path.open("rb") as raw, gzip.open(raw) as file:
            while line := file.readline(_LONGEST_LINE + 1):
                lines += 1
                content += len(line)
                if len(line) > _LONGEST_LINE or content > _LARGEST_GZIP_CONTENT:
                    raise DataError(f"{path}, line {lines}: the line or the file is far longer than it should be")
                record = _literal(line)
                if isinstance(record, dict) and all(_text(record.get(field)) for field in fields):
                    yield record
                else:
                    unusable += 1
                if lines % 5000 == 0:
                    progress(f"converting {path.name}", raw.tell(), path.stat().st_size)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _damaged(path, error) from error
    if not lines or unusable > max(1, _MOST_UNUSABLE * lines):
        raise DataError(
            f"{path}: {unusable} of {lines} lines are not Python dictionaries with {', '.join(fields)}: "
            "this is not the file that was expected"
        )
    if unusable:
        logger.warning("%s: left out %d of %d lines without %s", path, unusable, lines, ", ".join(fields))


def _check_log(path: Path, fields: Sequence[str], progress: Progress) -> None:
    """Read a gzipped file of JSON lines to its end.

    Raises:
        DataError: when it is damaged, or its first line is no object with these fields.
    """
    try:
        with path.open("rb") as raw, gzip.open(raw) as file:
            try:
                first = json.loads(file.readline(_LONGEST_LINE))
            except (ValueError, RecursionError):
                first = None
            if not isinstance(first, dict) or not all(_text(first.get(field)) for field in fields):
                expected = f"JSON with {', '.join(fields)}"
                raise DataError(f"{path}: its first line is not {expected}: this is not the file that was expected")
            while file.read(_MB):
                progress(f"checking {path.name}", raw.tell(), path.stat().st_size)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: not a whole gzip file ({error}): delete it and run again to download it anew")


def _amazon_category(categories: Any) -> str:
    """The second level of the first path (Hair Care of Beauty > Hair Care > Shampoos), else the first."""
    path = categories[0] if isinstance(categories, list) and categories else None
    return _text(path[min(1, len(path) - 1)]) if isinstance(path, list) and path else ""


def convert_amazon(folder: Path, converted: Path, progress: Progress, *, category: str) -> None:
    """Items of Amazon reviews of 2014, with categories. The reviews themselves are a log, and only checked."""
    _check_log(folder / f"reviews_{category}_5.json.gz", ["reviewerID", "asin", "unixReviewTime"], progress)
    records = _records(folder / f"meta_{category}.json.gz", ["asin"], progress)
    _write_items(
        converted,
        (
            (
                _text(record["asin"]),
                html.unescape(_text(record.get("title"))),
                html.unescape(_amazon_category(record.get("categories"))),
            )
            for record in records
        ),
    )


def convert_steam(folder: Path, converted: Path, progress: Progress) -> None:
    """Log and items of Steam reviews."""
    reviews = _records(folder / "steam_reviews.json.gz", ["username", "product_id", "date"], progress)
    _write_csv(
        converted / "interactions.csv",
        ["user", "item", "timestamp"],
        ((_text(review["username"]), _text(review["product_id"]), _text(review["date"])) for review in reviews),
    )
    games = _records(folder / "steam_games.json.gz", ["id"], progress)
    _write_items(
        converted,
        (
            (
                _text(game["id"]),
                _text(game.get("title")) or _text(game.get("app_name")),
                _text(genres[0]) if isinstance(genres := game.get("genres"), list) and genres else "",
            )
            for game in games
        ),
    )


# A workbook (Online Retail)


_SHEET = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_RETAIL_COLUMNS = ("StockCode", "Description", "Quantity", "InvoiceDate", "CustomerID")


def _workbook_rows(path: Path) -> Iterator[dict[str, str]]:
    """The rows of the first sheet of an .xlsx file as column letter -> text; empty cells are left out.

    Raises:
        DataError: when it is not an .xlsx file, or larger than any that is expected.
    """
    try:
        with zipfile.ZipFile(path) as book:
            if sum(member.file_size for member in book.infolist()) > _LARGEST_SHEET:
                raise DataError(f"{path}: more than {_LARGEST_SHEET} bytes when unpacked")
            shared = []
            if "xl/sharedStrings.xml" in book.namelist():
                with book.open("xl/sharedStrings.xml") as file:
                    for _, element in ElementTree.iterparse(file):
                        if element.tag == f"{_SHEET}si":
                            shared.append("".join(text.text or "" for text in element.iter(f"{_SHEET}t")))
                            element.clear()
            with book.open("xl/worksheets/sheet1.xml") as file:
                parents: list[ElementTree.Element] = []
                for event, element in ElementTree.iterparse(file, events=("start", "end")):
                    if event == "start":
                        parents.append(element)
                        continue
                    parents.pop()
                    if element.tag == f"{_SHEET}row":
                        yield {
                            cell.attrib["r"].rstrip("0123456789"): text
                            for cell in element.iter(f"{_SHEET}c")
                            if (text := _cell_text(cell, shared))
                        }
                        parents[-1].clear()
    except (
        FileNotFoundError,
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise DataError(f"{path}: not an .xlsx file: {error}") from error
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise DataError(f"{path}: not an .xlsx file of the expected form: {error}") from error


def _cell_text(cell: ElementTree.Element, shared: Sequence[str]) -> str:
    if cell.get("t") == "inlineStr":
        return _text("".join(text.text or "" for text in cell.iter(f"{_SHEET}t")))
    value = cell.findtext(f"{_SHEET}v", default="")
    if cell.get("t") == "s":
        return _text(shared[int(value)])
    return _text(value)


def _spreadsheet_time(text: str) -> str:
    """ISO text of a time that is the number of days since 1899-12-30."""
    return (datetime(1899, 12, 30) + timedelta(seconds=round(float(text) * 86_400))).isoformat()


def convert_online_retail(folder: Path, converted: Path, progress: Progress) -> None:
    """Log and items of Online Retail."""
    path = folder / "online+retail" / "Online Retail.xlsx"
    rows = _workbook_rows(path)
    letters = {name: letter for letter, name in next(rows, {}).items()}
    if not all(name in letters for name in _RETAIL_COLUMNS):
        raise DataError(f"{path}: expected the columns {', '.join(_RETAIL_COLUMNS)}, found {', '.join(letters)}")
    titles: dict[str, str] = {}
    nameless = cancelled = 0

    def purchases() -> Iterator[tuple[str, str, str]]:
        nonlocal nameless, cancelled
        for number, row in enumerate(rows, start=2):
            item, title, quantity, when, user = (row.get(letters[name], "") for name in _RETAIL_COLUMNS)
            if number % 5000 == 0:
                progress(f"converting {path.name}", number, None)
            if not user:
                nameless += 1
                continue
            try:
                if float(quantity) <= 0:
                    cancelled += 1
                    continue
                time = _spreadsheet_time(when)
            except (ValueError, OverflowError) as error:
                raise DataError(f"{path}, row {number}: not a quantity and a date: {quantity!r}, {when!r}") from error
            if not titles.get(item):
                titles[item] = title
            yield user, item, time

    _write_csv(converted / "interactions.csv", ["user", "item", "timestamp"], purchases())
    _write_items(converted, ((item, title, "") for item, title in titles.items()))
    logger.info("%s: left out %d rows without a customer and %d returns", path, nameless, cancelled)
