"""`lsan prepare`: a log becomes a dataset folder."""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from lsan.cli.reading import add_reading_arguments, columns_of, options_of
from lsan.data.filters import Dedupe
from lsan.data.prepare import prepare_dataset
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
    add_reading_arguments(parser, item_file=True)
    filters = parser.add_argument_group("filters", "nothing is left out unless asked for; they apply in this order")
    filters.add_argument("--min-rating", metavar="X", type=float, help="leave out events rated lower than X")
    filters.add_argument("--rating", metavar="NAME", help="rating column of the log, for --min-rating")
    filters.add_argument(
        "--dedupe",
        choices=get_args(Dedupe),
        default="keep-all",
        help="which of several events of one user with one item stay (consecutive: the first of each run)",
    )
    filters.add_argument("--min-user-events", metavar="N", type=int, help="leave out users with fewer events")
    filters.add_argument("--min-item-events", metavar="N", type=int, help="leave out items with fewer events")
    filters.add_argument("--core", metavar="N", type=int, help="both of these at once, until stable (the N-core)")


def run(args: argparse.Namespace) -> None:
    """Prepare the dataset and print a summary that a person can check.

    Raises:
        LsanError: as `prepare_dataset`.
    """
    if args.core is not None and (args.min_user_events is not None or args.min_item_events is not None):
        raise ConfigError("--core sets --min-user-events and --min-item-events: give it or them, not both")
    if args.core is not None and args.core < 1:
        raise ConfigError(f"--core {args.core}: expected a whole number of at least 1")
    options = replace(
        options_of(args),
        min_rating=args.min_rating,
        min_user_events=_first(args.core, args.min_user_events),
        min_item_events=_first(args.core, args.min_item_events),
        dedupe=args.dedupe,
    )
    dataset = prepare_dataset(args.log, args.out, items=args.items, columns=columns_of(args), options=options)
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
