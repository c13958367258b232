"""`lsan prepare`: a log becomes a dataset folder."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from lsan.data.columns import Columns
from lsan.data.filters import Dedupe
from lsan.data.prepare import OnBadRows, PrepareOptions, prepare_dataset
from lsan.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lsan prepare`."""
    parser.add_argument(
        "log",
        metavar="LOG",
        type=Path,
        help="CSV, TSV, ::-separated, JSON lines or Parquet, gzipped or not, or a folder of Parquet",
    )
    parser.add_argument("--items", metavar="ITEMS", type=Path, help="file of item ids, titles and categories")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder to write; must not exist yet")

    columns = parser.add_argument_group("columns", "recognised by their usual names, or named here")
    columns.add_argument("--user", metavar="NAME", help="user id column of the log")
    columns.add_argument("--item", metavar="NAME", help="item id column of the log")
    columns.add_argument("--timestamp", metavar="NAME", help="time column of the log")
    columns.add_argument("--rating", metavar="NAME", help="rating column of the log, for --min-rating")
    columns.add_argument("--title", metavar="NAME", help="title column of the item file, or of the log without one")
    columns.add_argument("--category", metavar="NAME", help="category column of the item file, or of the log")
    columns.add_argument("--columns", metavar="A,B,...", help="all column names of a log without a header line")
    columns.add_argument("--items-id", metavar="NAME", help="item id column of the item file")
    columns.add_argument("--items-columns", metavar="A,B,...", help="all column names of an item file without a header")

    filters = parser.add_argument_group("filters", "nothing is left out unless asked for; they apply in this order")
    filters.add_argument("--min-rating", metavar="X", type=float, help="leave out events rated lower than X")
    filters.add_argument(
        "--dedupe",
        choices=get_args(Dedupe),
        default="keep-all",
        help="which of several events of one user with one item stay (consecutive: the first of each run)",
    )
    filters.add_argument("--min-user-events", metavar="N", type=int, help="leave out users with fewer events")
    filters.add_argument("--min-item-events", metavar="N", type=int, help="leave out items with fewer events")
    filters.add_argument("--core", metavar="N", type=int, help="both of these at once, until stable (the N-core)")

    text = parser.add_argument_group("text files")
    text.add_argument(
        "--on-bad-rows",
        choices=get_args(OnBadRows),
        default="error",
        help="stop at the first bad row (default), or leave bad rows out and count them",
    )
    text.add_argument("--encoding", metavar="NAME", default="utf-8", help="such as latin-1; default utf-8")
    text.add_argument("--separator", metavar="C", help=r"between fields; default: found in the first line; \t is a tab")
    text.add_argument("--no-quotes", action="store_true", help="double quotes are ordinary characters")


def run(args: argparse.Namespace) -> None:
    """Prepare the dataset and print a summary that a person can check.

    Raises:
        LsanError: as `prepare_dataset`.
    """
    columns = Columns(
        user=args.user,
        item=args.item,
        timestamp=args.timestamp,
        rating=args.rating,
        title=args.title,
        category=args.category,
        log_header=_names(args.columns, "--columns"),
        items_id=args.items_id,
        items_header=_names(args.items_columns, "--items-columns"),
    )
    if args.core is not None and (args.min_user_events is not None or args.min_item_events is not None):
        raise ConfigError("--core sets --min-user-events and --min-item-events: give it or them, not both")
    if args.core is not None and args.core < 1:
        raise ConfigError(f"--core {args.core}: expected a whole number of at least 1")
    options = PrepareOptions(
        min_rating=args.min_rating,
        min_user_events=_first(args.core, args.min_user_events),
        min_item_events=_first(args.core, args.min_item_events),
        dedupe=args.dedupe,
        on_bad_rows=args.on_bad_rows,
        encoding=args.encoding,
        separator="\t" if args.separator == r"\t" else args.separator,
        quotes=not args.no_quotes,
    )
    dataset = prepare_dataset(args.log, args.out, items=args.items, columns=columns, options=options)
    for line in summary_lines(dataset.summary):
        print(line)
    print(f"written    {args.out}")


def summary_lines(summary: dict[str, Any]) -> Iterator[str]:
    """The summary of a preparation as text, line by line."""
    yield f"log        {summary['source']} ({_columns(summary['columns']['log'])})"
    if summary["items_source"]:
        yield f"item file  {summary['items_source']} ({_columns(summary['columns']['items'])})"
    yield f"rows read  {summary['rows_read']:,}"
    for reason, count in summary["dropped"].items():
        if count:
            yield f"  dropped  {count:,} {reason}"
    yield from (f"           {example}" for example in summary["bad_rows"])
    if summary["bad_item_rows"]["count"]:
        yield f"item file  {summary['bad_item_rows']['count']:,} bad rows skipped"
        yield from (f"           {example}" for example in summary["bad_item_rows"]["examples"])
    yield f"events     {summary['events']:,}"
    yield f"users      {summary['users']:,}"
    yield f"items      {summary['items']:,}{_without(summary)}"
    yield f"density    {summary['density']:.4%}"
    if summary["first_time"] is None:
        yield "time       no time column: the order of the log is the order of events"
    else:
        yield f"time       {summary['first_time']} to {summary['last_time']}"
        yield f"ties       {summary['tie_share']:.1%} of events have the time of another event of their user"
    yield from (f"note       {note}" for note in summary["notes"])


def _without(summary: dict[str, Any]) -> str:
    parts = [
        f"{summary[f'items_without_{text}']:,} without {text}"
        for text in ("title", "category")
        if 0 < summary[f"items_without_{text}"] < summary["items"]
    ]
    return f" ({', '.join(parts)})" if parts else ""


def _columns(names: dict[str, str]) -> str:
    return ", ".join(role if role == name else f"{role} = {name}" for role, name in names.items())


def _first(*values: int | None) -> int:
    return next((value for value in values if value is not None), 1)


def _names(text: str | None, flag: str) -> tuple[str, ...] | None:
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(","))
    if "" in names:
        raise ConfigError(f"{flag} {text}: has an empty name")
    return names
