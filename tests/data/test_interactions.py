"""Reading logs of every format into a dataset: rules with a shape, formats, options, and real data."""

import atexit
import csv
import gzip
import io
import json
import shutil
import sys
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsan.data import delimited, streams
from lsan.data.columns import Columns
from lsan.data.dataset import Dataset
from lsan.data.filters import core_mask, dedupe_mask, history_order, number_by_first_appearance, tie_share
from lsan.data.prepare import PrepareOptions, prepare_dataset
from lsan.errors import DataError, MissingExtraError

Event = tuple[Any, Any, int]
EVENTS: list[Event] = [
    ("ann", "tea", 1_500_000_300),
    ("bob", "jam", 1_500_000_100),
    ("ann", "jam", 1_500_000_100),
    ("ann", "oat", 1_500_000_300),
    ("bob", "tea", 1_500_000_200),
]


#: Gone when the process ends. Hypothesis allows no fixture of one test in its examples.
FOLDERS = tempfile.mkdtemp(prefix="lsan-test-")
atexit.register(shutil.rmtree, FOLDERS, ignore_errors=True)


def prepare(source: object, **arguments: Any) -> Dataset:
    """A dataset in a folder of its own."""
    return prepare_dataset(source, Path(tempfile.mkdtemp(dir=FOLDERS)) / "dataset", **arguments)


def histories(dataset: Dataset) -> dict[Any, list[Any]]:
    """Raw user id -> raw item ids, oldest first."""
    ids = dataset.catalogue.ids
    return {
        user: [ids[item - 1] for item in dataset.items[start:stop]]
        for user, start, stop in zip(
            dataset.user_ids().to_list(), dataset.offsets[:-1], dataset.offsets[1:], strict=True
        )
    }


EXPECTED = {"ann": ["jam", "tea", "oat"], "bob": ["jam", "tea"]}


def delimited_text(separator: str, end: str = "\n", scale: int = 1) -> str:
    lines = [separator.join(["userId", "movieId", "timestamp"])]
    lines += [separator.join([user, item, str(time * scale)]) for user, item, time in EVENTS]
    return end.join(lines) + end


def frame() -> pl.DataFrame:
    return pl.DataFrame(EVENTS, schema=["user", "item", "timestamp"], orient="row")


TEXTS = {
    "comma": delimited_text(","),
    "tab": delimited_text("\t"),
    "semicolon": delimited_text(";"),
    "bar": delimited_text("|"),
    "double colon": delimited_text("::"),
    "CRLF": delimited_text(",", "\r\n"),
    "no last line end": delimited_text(",").rstrip("\n"),
    "blank lines": "\n" + delimited_text(",", "\n\n") + "\n \n",
    "byte order mark": "\ufeff" + delimited_text(","),
    "quoted": "\n".join(",".join(f'"{field}"' for field in line.split(",")) for line in delimited_text(",").split()),
    "milliseconds": delimited_text(",", scale=1000),
    "fractions": delimited_text(",").replace("00\n", "00.5\n"),
    "RecBole": delimited_text("\t").replace(
        "userId\tmovieId\ttimestamp", "user_id:token\titem_id:token\ttimestamp:float"
    ),
    "JSON lines": "".join(
        json.dumps({"reviewerID": user, "asin": item, "unixReviewTime": time}) + "\n" for user, item, time in EVENTS
    ),
    "ISO": "user,item,date\n"
    + "".join(f"{user},{item},{datetime.fromtimestamp(time, UTC).isoformat()}\n" for user, item, time in EVENTS),
    "ISO without a zone": "user,item,InvoiceDate\n"
    + "".join(f"{user},{item},{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M:%S}\n" for user, item, time in EVENTS),
}  # fmt: skip


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_text_formats_give_the_same_histories(text: str, packed: bool, tmp_path: Path) -> None:
    path = tmp_path / "log.any"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    dataset = prepare(path)
    assert histories(dataset) == EXPECTED
    assert dataset.catalogue.ids == ["tea", "jam", "oat"]
    assert dataset.timestamps is not None
    assert abs(int(dataset.timestamps[0]) - 1_500_000_100_000) <= 500


def test_parquet_folders_and_frames_give_the_same_histories(tmp_path: Path) -> None:
    table = frame()
    table.write_parquet(tmp_path / "log.parquet")
    (tmp_path / "log.parquet.gz").write_bytes(gzip.compress((tmp_path / "log.parquet").read_bytes()))
    (tmp_path / "parts" / "day=2").mkdir(parents=True)
    table[:2].write_parquet(tmp_path / "parts" / "a.parquet")
    table[2:].write_parquet(tmp_path / "parts" / "day=2" / "b.parquet")
    (tmp_path / "parts" / "_SUCCESS").touch()
    moments = pl.from_epoch("timestamp", time_unit="s")
    sources: list[object] = [
        tmp_path / "log.parquet",
        str(tmp_path / "log.parquet.gz"),
        tmp_path / "parts",
        table,
        table.lazy(),
        table.with_columns(moments),
        table.with_columns(moments.dt.cast_time_unit("ns").dt.replace_time_zone("UTC")),
        table.with_columns(pl.col("item").cast(pl.Categorical)),
        pd.DataFrame(table.to_dicts()),
    ]
    for source in sources:
        dataset = prepare(source)
        assert histories(dataset) == EXPECTED
        assert dataset.timestamps is not None
        assert dataset.timestamps[0] == 1_500_000_100_000


@pytest.mark.parametrize("first", [[None, None], ["", " "], ["soon", "-5"]])
def test_a_notation_is_learnt_from_the_first_times_there_are(first: list[str | None], tmp_path: Path) -> None:
    for name, times in (("a", first), ("b", ["2024-05-31T17:45:00", "2024-06-01T00:00:00"])):
        rows = {"user": ["u", "u"], "item": [f"{name}1", f"{name}2"], "timestamp": times}
        pl.DataFrame(rows, schema_overrides={"timestamp": pl.String}).write_parquet(tmp_path / f"{name}.parquet")
    dataset = prepare(tmp_path, options=PrepareOptions(on_bad_rows="skip"))
    assert dataset.catalogue.ids == ["b1", "b2"]
    assert dataset.summary["dropped"]["bad rows"] == 2


def test_files_may_have_their_times_as_dates_or_as_numbers(tmp_path: Path) -> None:
    table = frame()
    for name, part in (("a", table[:2].with_columns(pl.from_epoch("timestamp", time_unit="s"))), ("b", table[2:])):
        part.write_parquet(tmp_path / f"{name}.parquet")
    assert histories(prepare(tmp_path)) == EXPECTED


def test_frames_that_cannot_be_used_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for users, message in (([1.0, None], "Float64"), ([1, "a"], "Object"), ([(1,), (2,)], "List|Object")):
        with pytest.raises(DataError, match=message):
            prepare(pd.DataFrame({"user": pd.Series(users), "item": [1, 2]}))
    with pytest.raises(DataError, match="expected a path or a Polars or pandas data frame, got list"):
        prepare([1, 2])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r'pip install "lsan\[pandas\]"'):
        prepare(pd.DataFrame({"user": [1], "item": [1]}))


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["1", "20", "-3"], [1, 20, -3]),
        (["007", "1", "2"], ["007", "1", "2"]),
        (["+1", "1", "2"], ["+1", "1", "2"]),
        (["1.0", "1", "2"], ["1.0", "1", "2"]),
        (["9223372036854775807", "1", "2"], [2**63 - 1, 1, 2]),
        (["9223372036854775808", "1", "2"], ["9223372036854775808", "1", "2"]),
        ([" a", "a", "A"], [" a", "a", "A"]),
    ],
)
def test_text_ids_become_integers_only_if_nothing_is_lost(ids: list[str], expected: list[Any], tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item\n" + "".join(f"u,{item}\n" for item in ids))
    assert prepare(tmp_path / "log.csv").catalogue.ids == expected


def test_typed_sources_keep_strings_that_look_like_numbers(tmp_path: Path) -> None:
    (tmp_path / "log.json").write_text('{"user": 1, "item": "17"}\n{"user": 2, "item": "18"}\n')
    dataset = prepare(tmp_path / "log.json")
    assert dataset.catalogue.ids == ["17", "18"]
    assert dataset.user_ids().to_list() == [1, 2]
    assert prepare(pl.DataFrame({"user": [1, 1], "item": ["17", "18"]})).catalogue.ids == ["17", "18"]


def test_ids_that_stop_being_numbers_late_are_text_from_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "BLOCK", 64)
    lines = [f"{user},{user % 7}" for user in range(100)] + ["a1,9"]
    (tmp_path / "log.csv").write_text("user,item\n" + "\n".join(lines))
    dataset = prepare(tmp_path / "log.csv")
    assert dataset.user_ids().to_list() == [str(user) for user in range(100)] + ["a1"]
    assert dataset.catalogue.ids == [0, 1, 2, 3, 4, 5, 6, 9]


def test_without_times_the_order_of_the_file_counts() -> None:
    dataset = prepare(frame().drop("timestamp"))
    assert histories(dataset) == {"ann": ["tea", "jam", "oat"], "bob": ["jam", "tea"]}
    assert dataset.timestamps is None
    assert dataset.summary["tie_share"] is None


def test_headerless_files_by_naming_their_columns(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::10::5::978300760\n1::11::2::978300761\n")
    (tmp_path / "movies.dat").write_bytes("10::Amélie: A Film::Comedy|Romance\n11::Up::\n".encode("latin-1"))
    columns = Columns(log_header=("user", "item", "rating", "timestamp"), items_header=("item", "title", "genres"))
    dataset = prepare(
        tmp_path / "ratings.dat",
        items=tmp_path / "movies.dat",
        columns=columns,
        options=PrepareOptions(encoding="latin-1"),
    )
    assert dataset.catalogue.titles == ["Amélie: A Film", "Up"]
    assert dataset.catalogue.categories == ["Comedy", None]


def test_titles_and_categories_of_the_log(tmp_path: Path) -> None:
    table = pl.DataFrame(
        {"user": [1, 1, 2], "item": [5, 6, 5], "title": [None, " B\nb ", "A"], "genre": ["x|y", "", None]}
    )
    catalogue = prepare(table).catalogue
    assert catalogue.titles == ["A", "B b"]
    assert catalogue.categories == ["x", None]


def test_a_title_of_a_review_is_no_title_of_an_item() -> None:
    table = pl.DataFrame({"user": [1, 2, 3], "asin": ["a", "a", "b"], "title": ["Great", "Bad", "So-so"]})
    dataset = prepare(table)
    assert dataset.catalogue.titles == [None, None]
    assert "differs from event to event" in dataset.summary["notes"][0]
    assert prepare(table, columns=Columns(title="title")).catalogue.titles == ["Great", "So-so"]


def test_an_item_file_matches_ids_as_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text('sku,name\n07,"Tea, green"\n7,"say ""hi"""\n9,unused\n')
    dataset = prepare(pl.DataFrame({"user": [1, 1], "item": [7, 8]}), items=tmp_path / "items.csv")
    assert dataset.catalogue.titles == ['say "hi"', None]
    assert dataset.summary["items_without_title"] == 1


def test_min_rating_and_counts(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,stars\na,x,5\na,y,3\na,z,4.0\n")
    dataset = prepare(tmp_path / "log.csv", options=PrepareOptions(min_rating=4))
    assert histories(dataset) == {"a": ["x", "z"]}
    assert dataset.summary["rows_read"] == 3
    assert dataset.summary["dropped"]["rating too low"] == 1


@pytest.mark.parametrize(
    ("dedupe", "items", "times"),
    [
        ("keep-all", "xxyxy", [10, 20, 30, 40, 50]),
        ("consecutive", "xyxy", [10, 30, 40, 50]),
        ("first", "xy", [10, 30]),
        ("last", "xy", [40, 50]),
    ],
)
def test_dedupe(dedupe: Any, items: str, times: list[int]) -> None:
    table = pl.DataFrame({"user": ["u"] * 5, "item": list("yxyxx"), "ts": [50, 20, 30, 40, 10]})  # by time: x x y x y
    dataset = prepare(table, options=PrepareOptions(dedupe=dedupe))
    assert histories(dataset) == {"u": list(items)}
    assert dataset.timestamps is not None
    assert dataset.timestamps.tolist() == [1000 * time for time in times]


def test_tie_share_counts_events_with_company() -> None:
    table = pl.DataFrame({"user": list("aaabb"), "item": [1, 2, 3, 1, 2], "ts": [5, 5, 6, 6, 7]})
    assert prepare(table).summary["tie_share"] == pytest.approx(2 / 5)
    assert tie_share(np.array([0, 2, 3]), np.array([4, 4, 4])) == pytest.approx(2 / 3)


def test_the_same_log_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "log.csv").write_text("user,item,timestamp,title\n" + "".join(
        f"u{n % 7},i{n % 11},{1_500_000_000 + n},a title longer than twelve bytes {n % 11}\n" for n in range(200)
    ))  # fmt: skip
    first = prepare(tmp_path / "log.csv")
    monkeypatch.setattr(streams, "BLOCK", 2000)
    second = prepare(tmp_path / "log.csv")
    names = sorted(path.name for path in first.path.iterdir())
    assert names == sorted(path.name for path in second.path.iterdir())
    for name in names:
        assert (first.path / name).read_bytes() == (second.path / name).read_bytes(), name
    assert str(tmp_path) not in (first.path / "dataset.json").read_text()


def test_skipped_rows_are_counted_and_the_first_five_shown(tmp_path: Path) -> None:
    lines = ["a,x,1"] + [f",x,{n}" for n in range(7)] + ["b,y,2", "b", "b,y,soon"]
    (tmp_path / "log.csv").write_text("user,item,ts\n" + "\n".join(lines))
    dataset = prepare(tmp_path / "log.csv", options=PrepareOptions(on_bad_rows="skip"))
    assert dataset.summary["dropped"]["bad rows"] == 9
    assert dataset.summary["rows_read"] == 11
    assert len(dataset.summary["bad_rows"]) == 5
    assert dataset.summary["bad_rows"][0].startswith("log.csv, line 3, field 'user'")
    assert histories(dataset) == {"a": ["x"], "b": ["y"]}


def test_a_quote_left_open_costs_its_own_line_only(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text('user,item,title\na,x,"ok\nok"\nb,y,"open\nc,z,fine\nd,"w",""\ne,v,"2"\n')
    dataset = prepare(tmp_path / "log.csv", options=PrepareOptions(on_bad_rows="skip"))
    assert dataset.user_ids().to_list() == ["a", "c", "d", "e"]
    assert dataset.summary["dropped"]["bad rows"] == 1
    assert "line 4" in dataset.summary["bad_rows"][0]


# Rules with a shape

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8).filter(
    lambda text: bool(text.strip())
)
GOOD = ["a,x,5", "b,y,6", 'c,"z",7']
BAD = ["a,x", ",x,5", "a,x,5,6", "a,x,no", 'a,"x"y,5', "a,\0,5"]
codes = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=40)


@settings(max_examples=20, deadline=None)
@given(rows=st.lists(st.tuples(texts, texts), min_size=1, max_size=12), block=st.integers(5, 200))
def test_any_text_id_survives_csv(rows: list[tuple[str, str]], block: int) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([("user", "item"), *((f"u{user}", f"i{item}") for user, item in rows)])
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "BLOCK", block)
        path = Path(name) / "log.csv"
        path.write_bytes(buffer.getvalue().encode())
        dataset = prepare_dataset(path, Path(name) / "out")
        expected: dict[str, list[str]] = {}
        for user, item in rows:
            expected.setdefault(f"u{user}", []).append(f"i{item}")
        assert histories(dataset) == expected
        assert list(histories(dataset)) == list(expected)


@settings(max_examples=20, deadline=None)
@given(lines=st.lists(st.sampled_from(GOOD + BAD), min_size=1, max_size=30), block=st.integers(5, 200))
def test_skipping_keeps_exactly_the_good_rows(lines: list[str], block: int) -> None:
    good = [line.replace('"', "").split(",") for line in lines if line in GOOD]
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "BLOCK", block)
        patch.setattr(delimited, "_BATCH", 5)
        path = Path(name) / "log.csv"
        path.write_text("user,item,ts\n" + "\n".join(lines) + "\n")
        options = PrepareOptions(on_bad_rows="skip")
        if not good:
            with pytest.raises(DataError, match="no rows left"):
                prepare_dataset(path, Path(name) / "out", options=options)
            return
        dataset = prepare_dataset(path, Path(name) / "out", options=options)
        kept = Counter((user, item) for user, items in histories(dataset).items() for item in items)
        assert kept == Counter((user, item) for user, item, _ in good)
        assert dataset.summary["dropped"]["bad rows"] == len(lines) - len(good)


@given(pairs=codes, min_user=st.integers(1, 4), min_item=st.integers(1, 4))
def test_the_core_is_stable_and_the_largest(pairs: list[tuple[int, int]], min_user: int, min_item: int) -> None:
    users = np.array([user for user, _ in pairs], dtype=np.uint32)
    items = np.array([item for _, item in pairs], dtype=np.uint32)
    keep = core_mask(users, items, min_user_events=min_user, min_item_events=min_item)
    left = list(pairs)  # the plain way: one offender at a time, which ends at the largest stable set
    while True:
        by_user, by_item = Counter(user for user, _ in left), Counter(item for _, item in left)
        offender = next((p for p in left if by_user[p[0]] < min_user or by_item[p[1]] < min_item), None)
        if offender is None:
            break
        left.remove(offender)
    assert Counter(zip(users[keep].tolist(), items[keep].tolist(), strict=True)) == Counter(left)


@given(rows=st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0, 1, 70_000, 2**40, 1_500_000_000_000]))))
def test_history_order_is_the_stable_order(rows: list[tuple[int, int]]) -> None:
    users = np.array([user for user, _ in rows], dtype=np.uint32)
    times = np.array([time for _, time in rows], dtype=np.int64)
    assert history_order(users, times).tolist() == sorted(range(len(rows)), key=lambda row: rows[row])


@given(values=st.lists(st.integers(0, 9)))
def test_numbers_follow_first_appearance(values: list[int]) -> None:
    numbers, old = number_by_first_appearance(np.array(values, dtype=np.uint32))
    assert old.tolist() == list(dict.fromkeys(values))
    assert [int(old[number]) for number in numbers] == values


@given(pairs=codes)
def test_first_and_last_keep_one_of_each_pair(pairs: list[tuple[int, int]]) -> None:
    users = np.array([user for user, _ in pairs], dtype=np.uint32)
    items = np.array([item for _, item in pairs], dtype=np.uint32)
    first = dedupe_mask(users, items, None, dedupe="first")
    last = dedupe_mask(users, items, None, dedupe="last")
    assert [pairs.index(pair) == row for row, pair in enumerate(pairs)] == first.tolist()
    assert last[::-1].tolist() == dedupe_mask(users[::-1], items[::-1], None, dedupe="first").tolist()


# Real data


def test_beauty(shared_data: Path) -> None:
    folder = shared_data / "beauty"
    dataset = prepare(folder / "interactions.csv.gz", items=folder / "items.csv.gz")
    assert (dataset.users, len(dataset.catalogue), dataset.events) == (22_363, 12_101, 198_502)
    assert list(dataset.catalogue.ids) == list(range(1, 12_102))
    assert len(dataset.catalogue.category_names) == 7
    log = pl.read_csv(folder / "interactions.csv.gz").sort("user", "timestamp", maintain_order=True)
    assert np.array_equal(dataset.items, log["item"].to_numpy())
    core = prepare(folder / "interactions.csv.gz", options=PrepareOptions(min_user_events=5, min_item_events=5))
    assert core.content_hash != dataset.content_hash  # categories differ
    assert np.array_equal(core.items, dataset.items)


def test_online_retail(shared_data: Path) -> None:
    folder = shared_data / "online-retail"
    dataset = prepare(folder / "purchases.csv.gz", items=folder / "items.csv")
    assert (dataset.users, len(dataset.catalogue), dataset.events) == (4_338, 3_665, 397_884)
    assert dataset.catalogue.ids[:3] == ["21730", "22752", "71053"]
    assert dataset.summary["items_without_title"] == 0
    assert dataset.summary["first_time"].startswith("2010-12-01T08:26")
    assert dataset.summary["tie_share"] > 0.9


def test_movielens(shared_data: Path) -> None:
    folder = shared_data / "ml-1m"
    dataset = prepare(folder / "interactions.parquet", items=folder / "items.csv.gz")
    assert (dataset.users, len(dataset.catalogue), dataset.events) == (6_040, 3_416, 999_611)
    assert dataset.catalogue.title_of(dataset.catalogue.index_of(1)) == "Toy Story (1995)"
    small = shared_data / "ml-latest-small"
    dataset = prepare(small / "ratings.csv", items=small / "movies.csv")
    assert (dataset.users, len(dataset.catalogue), dataset.events) == (610, 9_724, 100_836)
    assert dataset.catalogue.categories[0] == "Adventure"
    assert dataset.summary["items_without_title"] == 0


def test_yelp(shared_data: Path) -> None:
    dataset = prepare(shared_data / "yelp" / "interactions.csv.gz")
    assert (dataset.users, len(dataset.catalogue), dataset.events) == (30_431, 20_033, 316_354)
    once = prepare(shared_data / "yelp" / "interactions.csv.gz", options=PrepareOptions(dedupe="first"))
    assert once.summary["dropped"]["repeated"] == 316_354 - once.events > 0
