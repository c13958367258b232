"""`lsan prepare` from the command line: the summary it prints and the flags it takes."""

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from lsan.cli import main
from lsan.data.dataset import Dataset

LOG = """who,what,when,stars
1,a,2020-01-01 10:00,5
1,b,2020-01-01 10:00,4
2,a,2020-01-02 09:30,1
2,c,2020-01-03 00:00,5
"""
NAMES = ["--user", "who", "--item", "what", "--timestamp", "when"]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.csv"
    path.write_text(LOG)
    return path


def test_the_summary_can_be_checked_by_hand(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "items.csv").write_text("id,title,genres\na,Tea,hot|green\nb,Jam,\n")
    arguments = ["prepare", str(log), "--items", str(tmp_path / "items.csv"), "--out", str(tmp_path / "out")]
    assert main([*arguments, *NAMES]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "log        log.csv (user = who, item = what, timestamp = when)",
        "item file  items.csv (item = id, title, category = genres)",
        "rows read  4",
        "events     4",
        "users      2",
        "items      3 (1 without title, 2 without category)",
        "density    66.6667%",
        "time       2020-01-01T10:00:00+00:00 to 2020-01-03T00:00:00+00:00",
        "ties       50.0% of events have the time of another event of their user",
        f"written    {tmp_path / 'out'}",
    ]
    catalogue = Dataset.open(tmp_path / "out").catalogue
    assert list(zip(catalogue.ids, catalogue.titles, catalogue.categories, strict=True)) == [
        ("a", "Tea", "hot"),
        ("b", "Jam", None),
        ("c", None, None),
    ]


def test_filters_say_what_they_dropped(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with log.open("a") as file:
        file.write("3,a,never,2\n")
    flags = ["--rating", "stars", "--min-rating", "2", "--min-user-events", "2", "--on-bad-rows", "skip"]
    assert main(["prepare", str(log), "--out", str(tmp_path / "out"), *NAMES, *flags]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:6] == [
        "rows read  5",
        "  dropped  1 bad rows",
        "  dropped  1 rating too low",
        "  dropped  1 user or item too rare",
        "           log.csv, line 6, field 'when': 'never' is not a time: expected seconds or milliseconds since "
        "1970, or ISO text such as 2024-05-31 or 2024-05-31T17:45:00Z",
    ]


def test_core_is_short_for_both_minima(tmp_path: Path) -> None:
    table = pl.DataFrame({"user": [1, 1, 2, 2, 3], "item": [7, 8, 7, 8, 9]})
    table.write_parquet(tmp_path / "log.parquet")
    assert main(["prepare", str(tmp_path / "log.parquet"), "--out", str(tmp_path / "a"), "--core", "2"]) == 0
    assert Dataset.open(tmp_path / "a").events == 4


def test_headerless_and_tab_flags(tmp_path: Path) -> None:
    (tmp_path / "u.data").write_text("196\t242\t3\t881250949\n186\t302\t3\t891717742\n")
    flags = ["--columns", "user,item,rating,timestamp", "--separator", r"\t"]
    assert main(["prepare", str(tmp_path / "u.data"), "--out", str(tmp_path / "out"), *flags]) == 0
    assert Dataset.open(tmp_path / "out").catalogue.ids == [242, 302]


def test_quotes_can_be_ordinary_characters(tmp_path: Path) -> None:
    (tmp_path / "log.tsv").write_text('user\titem\n1\t"a\n1\tb"\n')
    assert main(["prepare", str(tmp_path / "log.tsv"), "--out", str(tmp_path / "out"), "--no-quotes"]) == 0
    assert Dataset.open(tmp_path / "out").catalogue.ids == ['"a', 'b"']


def test_preparing_loads_neither_torch_nor_pandas(log: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from lsan.cli import main; code = main(sys.argv[1:]); "
        "print([name for name in ('torch', 'pandas', 'pyarrow') if name in sys.modules], file=sys.stderr); "
        "sys.exit(code)"
    )
    arguments = ["prepare", str(log), "--out", str(tmp_path / "out"), *NAMES]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr.strip()) == (0, "[]")
