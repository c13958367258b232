"""Thirty and more ways to misuse `lsan`: each ends in one clear line and exit code 2, and leaves nothing behind."""

import gzip
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from lsan.cli import main

GOOD = "user,item,timestamp\na,x,1500000000\nb,y,1500000100\na,y,1500000200\n"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One misuse of `lsan prepare`."""

    log: str | bytes | None = GOOD
    """What the log holds; None: there is no such file."""
    items: str | bytes | None = None
    """What the item file holds; None: no --items."""
    flags: tuple[str, ...] = ()
    """Further flags."""
    says: tuple[str, ...]
    """What the error must say."""
    name: str = "log.csv"
    """Name of the log file."""
    make: Callable[[Path], None] | None = None
    """Makes the log at a path where `log` cannot say it."""


def rows(*lines: str) -> str:
    return "\n".join(["user,item,timestamp", "a,x,1500000000", *lines, "b,y,1500000100"]) + "\n"


def parquet(frame: pl.DataFrame) -> Callable[[Path], None]:
    return lambda path: frame.write_parquet(path)


def differing_parquet(folder: Path) -> None:
    folder.mkdir()
    pl.DataFrame({"user": [1], "item": [1]}).write_parquet(folder / "a.parquet")
    pl.DataFrame({"user": [1], "asin": [1]}).write_parquet(folder / "b.parquet")


CASES = {
    # rows
    "too few fields": Case(log=rows("b,y"), says=("log.csv, line 3", "2 fields, expected 3")),
    "too many fields": Case(log=rows("b,y,1500000000,9"), says=("log.csv, line 3", "4 fields, expected 3")),
    "few here, many there": Case(log=rows("b,y", "b,y,1500000000,9"), says=("line 3", "2 fields")),
    "missing user": Case(log=rows(",y,1500000000"), says=("line 3", "'user'", "missing")),
    "blank item": Case(log=rows("b,  ,1500000000"), says=("line 3", "'item'", "missing")),
    "missing time": Case(log=rows("b,y,"), says=("line 3", "'timestamp'", "missing")),
    "time in words": Case(log=rows("b,y,yesterday"), says=("line 3", "'timestamp'", "'yesterday'", "not a time")),
    "time is NaN": Case(log=rows("b,y,nan"), says=("line 3", "'timestamp'", "'nan'")),
    "time is infinite": Case(log=rows("b,y,inf"), says=("line 3", "'timestamp'", "'inf'")),
    "time before 1970": Case(log=rows("b,y,-5"), says=("line 3", "'timestamp'", "before 1970")),
    "time in the far future": Case(log=rows("b,y,9000000000"), says=("line 3", "after the year 2199")),
    "seconds, then milliseconds": Case(log=rows("b,y,1500000000000"), says=("line 3", "looks like milliseconds")),
    "milliseconds, then seconds": Case(
        log=rows("b,y,1500000000").replace("a,x,1500000000", "a,x,1500000000000").replace("000100", "000100000"),
        says=("line 3", "looks like seconds"),
    ),
    "nanoseconds": Case(log=GOOD.replace("15000", "15000000000000"), says=("line 2", "nanoseconds")),
    "days as digits": Case(
        log="user,item,date\na,x,20200131\nb,y,20200201\n", says=("line 2", "'date'", "YYYYMMDD")
    ),
    "American dates": Case(log="user,item,date\na,x,12/1/2010 8:26\n", says=("line 2", "'date'", "not a time")),
    "no such day": Case(
        log="user,item,date\na,x,2020-02-28\na,y,2020-02-30\n", says=("line 3", "'date'", "'2020-02-30'")
    ),
    "time zones here and there": Case(
        log="user,item,time\na,x,2020-01-01T00:00:00Z\na,y,2020-01-02T00:00:00Z\nb,y,2020-01-02T00:00:00\n",
        says=("line 4", "'time'", "no time zone"),
    ),
    "dates among numbers": Case(log=rows("b,y,2020-01-01"), says=("line 3", "ISO text")),
    "rating in words": Case(
        log="user,item,rating\na,x,5\nb,y,great\n",
        flags=("--min-rating", "4"),
        says=("line 3", "'rating'", "'great'"),
    ),
    "Latin-1": Case(
        log=rows("b,caf\xe9,1500000000").encode("latin-1"), says=("line 3", "'item'", "0xE9", "--encoding")
    ),
    "Latin-1 in the header": Case(log="us\xe9r,item\na,b\n".encode("latin-1"), says=("line 1", "0xE9")),
    "UTF-16": Case(log=GOOD.encode("utf-16"), says=("UTF-16", "--encoding utf-16")),
    "NUL byte": Case(log=rows("b,y\0,1500000000"), says=("line 3", "'item'", "NUL")),
    "an open quote": Case(log=rows('b,"y,1500000000'), says=("line 3", "quote")),
    "text after a quote": Case(log=rows('b,"y"z,1500000000'), says=("line 3", "quote")),
    "bad line after a quoted line end": Case(log=rows('b,"y\nz",1500000000', "b"), says=("line 5", "1 fields")),
    # files
    "no file": Case(log=None, says=("log.csv", "no such file")),
    "empty file": Case(log="", says=("log.csv", "empty")),
    "header only": Case(log="user,item,timestamp\n", says=("log.csv", "no rows")),
    "no header": Case(log="1::1193::5::978300760\n", says=("line 1", "--columns user,item,rating,timestamp")),
    "one column": Case(log="user\na\n", says=("line 1", "one column", "--separator")),
    "unknown columns": Case(log="foo,bar,baz\na,b,c\n", says=("foo, bar, baz", "--user")),
    "repeated column": Case(log="user,item,item\na,b,c\n", says=("'item'", "twice")),
    "two user columns": Case(log="user_id,userId,item\na,b,c\n", says=("'user_id' and 'userId'", "--user")),
    "cut-off gzip": Case(log=gzip.compress(GOOD.encode() * 99)[:-20], says=("log.csv", "gzip")),
    "corrupt gzip": Case(log=b"\x1f\x8b\x08\x00" + b"\xff" * 99, says=("log.csv", "gzip")),
    "zip archive": Case(log=b"PK\x03\x04" + b"\0" * 99, says=("log.csv", "zip")),
    "broken Parquet": Case(log=b"PAR1" + b"\0" * 99, says=("log.csv", "cannot be read")),
    "folder without Parquet": Case(make=Path.mkdir, says=("log.csv", "without Parquet")),
    "folder with differing Parquet": Case(
        make=differing_parquet,
        says=("b.parquet", "are not those of", "a.parquet"),
    ),
    "Parquet with fractional ids": Case(
        make=parquet(pl.DataFrame({"user": [1.5], "item": [1]})), says=("'user'", "Float64", "integers")
    ),
    "Parquet with dates as ids": Case(
        make=parquet(pl.DataFrame({"user": [1], "item": [date(2020, 1, 1)]})), says=("'item'", "Date")
    ),
    "Parquet with a missing id": Case(
        make=parquet(pl.DataFrame({"user": [1, None], "item": [1, 2]})), says=("row 2", "'user'", "missing")
    ),
    "Parquet with huge ids": Case(
        make=parquet(pl.DataFrame({"user": [1, 2**64 - 1], "item": [1, 2]}, schema_overrides={"user": pl.UInt64})),
        says=("row 2", "'user'", "64 bits"),
    ),
    "JSON array": Case(log='[{"user": 1, "item": 2}]', says=("line 1", "JSON array")),
    "broken JSON": Case(log='{"user": 1, "item": 2}\n{"user": 1,\n', says=("line 2", "not valid JSON")),
    "JSON that is no object": Case(log='{"user": 1, "item": 2}\n17\n', says=("line 2", "JSON object")),
    "JSON without an item": Case(log='{"user": 1, "item": 2}\n{"user": 1}\n', says=("line 2", "'item'", "missing")),
    "JSON with a list for an id": Case(log='{"user": 1, "item": [2]}\n', says=("line 1", "'item'", "list")),
    # flags
    "flag for no column": Case(flags=("--user", "who"), says=("--user who", "user, item, timestamp")),
    "one column twice": Case(flags=("--user", "item", "--item", "item"), says=("--user", "--item", "'item'")),
    "wrong number of names": Case(flags=("--columns", "user,item"), says=("line 1", "3 fields", "user, item")),
    "empty name": Case(flags=("--columns", "user,,item"), says=("--columns", "empty name")),
    "no rating column": Case(flags=("--min-rating", "4"), says=("log.csv", "rating")),
    "rating not finite": Case(flags=("--min-rating", "nan"), says=("--min-rating", "finite")),
    "rating not a number": Case(flags=("--min-rating", "high"), says=("--min-rating", "high")),
    "no events asked for": Case(flags=("--min-user-events", "0"), says=("--min-user-events 0", "at least 1")),
    "core not a number": Case(flags=("--core", "two"), says=("--core", "two")),
    "core and its parts": Case(flags=("--core", "2", "--min-user-events", "3"), says=("--core", "not both")),
    "unknown dedupe": Case(flags=("--dedupe", "all"), says=("--dedupe", "keep-all")),
    "unknown flag": Case(flags=("--usre", "user"), says=("--usre",)),
    "unknown encoding": Case(flags=("--encoding", "klingon"), says=("--encoding klingon", "utf-8")),
    "wrong encoding": Case(flags=("--encoding", "utf-16"), log=GOOD + "\n", says=("log.csv", "utf-16")),
    "separator of two characters": Case(flags=("--separator", ",,"), says=("--separator", "one")),
    "nothing left": Case(flags=("--core", "9"), says=("log.csv", "no events left", "3 user or item too rare")),
    "nothing rated well": Case(
        log="user,item,stars\na,x,1\n", flags=("--min-rating", "4"), says=("log.csv", "1 rated too low")
    ),
    "all rows bad": Case(
        log="user,item,time\na,,1\n,x,2\n", flags=("--on-bad-rows", "skip"), says=("2 bad", "line 2", "missing")
    ),
    "item flags without item file": Case(flags=("--items-id", "sku"), says=("--items-id", "--items")),
    # item files
    "repeated item": Case(items="item,title\nx,A\ny,B\nx,C\n", says=("items.csv, line 4", "'item'", "second time")),
    "item without id": Case(items="item,title\nx,A\n,B\n", says=("items.csv, line 3", "'item'", "missing")),
    "item with a field too many": Case(items="item,title\nx,A,B\n", says=("items.csv, line 2", "3 fields")),
    "item file of other items": Case(items="item,title\n1,A\n", says=("items.csv", "none of the log's items", "'1'")),
    "item file of ids only": Case(items="item,price\nx,1\n", says=("items.csv", "no title and no category")),
    "item file without header": Case(items="1,Toy Story,Comedy\n", says=("items.csv, line 1", "--items-columns")),
    "empty item file": Case(items="", says=("items.csv", "empty")),
    "item file in Latin-1": Case(
        items="item,title\nx,Am\xe9lie\n".encode("latin-1"), says=("line 2", "'title'", "0xE9")
    ),
    "no title column of that name": Case(
        items="item,title\nx,A\n", flags=("--title", "name"), says=("--title name", "item, title")
    ),
}  # fmt: skip


def arguments_of(case: Case, folder: Path) -> list[str]:
    log = folder / case.name
    if case.make is not None:
        case.make(log)
    elif case.log is not None:
        log.write_bytes(case.log if isinstance(case.log, bytes) else case.log.encode())
    arguments = ["prepare", str(log), "--out", str(folder / "out"), *case.flags]
    if case.items is not None:
        items = folder / "items.csv"
        items.write_bytes(case.items if isinstance(case.items, bytes) else case.items.encode())
        arguments += ["--items", str(items)]
    return arguments


def exit_code(arguments: list[str]) -> int:
    try:
        return main(arguments)
    except SystemExit as stop:  # how argparse ends
        return int(stop.code or 0)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_misuse_is_one_clear_line(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = arguments_of(case, tmp_path)
    before = sorted(tmp_path.iterdir())
    assert exit_code(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.endswith("\n")
    assert "Traceback" not in captured.err
    assert [part for part in case.says if part not in captured.err] == [], captured.err
    assert sorted(tmp_path.iterdir()) == before


def test_there_are_thirty_kinds_of_misuse() -> None:
    assert len(CASES) >= 30


def test_an_existing_folder_is_refused_before_the_log_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("keep me")
    assert main(["prepare", str(tmp_path / "no-such-log.csv"), "--out", str(tmp_path / "out")]) == 2
    assert "already exists and is not empty" in capsys.readouterr().err
    assert (tmp_path / "out" / "precious").read_text() == "keep me"


def test_an_output_below_a_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log.csv").write_text(GOOD)
    assert main(["prepare", str(tmp_path / "log.csv"), "--out", str(tmp_path / "log.csv" / "out")]) == 2
    assert "is a file" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["missing user", "cut-off gzip", "unknown dedupe"])
def test_misuse_in_a_process_of_its_own(name: str, tmp_path: Path) -> None:
    arguments = arguments_of(CASES[name], tmp_path)
    program = [sys.executable, "-c", "import sys; from lsan.cli import main; sys.exit(main())"]
    done = subprocess.run([*program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert all(part in done.stderr for part in CASES[name].says)
