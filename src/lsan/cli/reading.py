"""Flags that say how a shop's own files are read, the same for every command that reads them."""

import argparse
from typing import get_args

from lsan.data.columns import Columns
from lsan.data.prepare import OnBadRows, PrepareOptions
from lsan.errors import ConfigError

_LOG = {
    "--user": "user id column of the log",
    "--item": "item id column of the log",
    "--timestamp": "time column of the log",
    "--columns": "all column names of a log without a header line",
}
_ITEM_FILE = {
    "--title": "title column of the item file, or of the log without one",
    "--category": "category column of the item file, or of the log",
    "--items-id": "item id column of the item file",
    "--items-columns": "all column names of an item file without a header",
}


def add_reading_arguments(parser: argparse.ArgumentParser, *, item_file: bool) -> None:
    """Add the flags for a log, and for an item file where the command reads one."""
    columns = parser.add_argument_group("columns", "recognised by their usual names, or named here")
    for flag, text in (_LOG | (_ITEM_FILE if item_file else {})).items():
        columns.add_argument(flag, metavar="A,B,..." if flag.endswith("columns") else "NAME", help=text)
    files = parser.add_argument_group("text files")
    files.add_argument(
        "--on-bad-rows", choices=get_args(OnBadRows), default="error",
        help="stop at the first bad row (default), or leave bad rows out and count them",
    )  # fmt: skip
    files.add_argument("--encoding", metavar="NAME", default="utf-8", help="such as latin-1; default utf-8")
    files.add_argument(
        "--separator", metavar="C", help=r"between fields; default: found in the first line; \t is a tab"
    )
    files.add_argument("--no-quotes", action="store_true", help="double quotes are ordinary characters")


def columns_of(args: argparse.Namespace) -> Columns:
    """What the flags say of columns.

    Raises:
        ConfigError: when a list of names has an empty one.
    """
    given = vars(args).get
    return Columns(
        user=given("user"),
        item=given("item"),
        timestamp=given("timestamp"),
        rating=given("rating"),
        title=given("title"),
        category=given("category"),
        log_header=_names(given("columns"), "--columns"),
        items_id=given("items_id"),
        items_header=_names(given("items_columns"), "--items-columns"),
    )


def options_of(args: argparse.Namespace) -> PrepareOptions:
    """What the flags say of text files; nothing is filtered.

    Raises:
        ConfigError: when a separator cannot be one.
    """
    return PrepareOptions(
        on_bad_rows=args.on_bad_rows,
        encoding=args.encoding,
        separator="\t" if args.separator == r"\t" else args.separator,
        quotes=not args.no_quotes,
    )


def _names(text: str | None, flag: str) -> tuple[str, ...] | None:
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(","))
    if "" in names:
        raise ConfigError(f"{flag} {text}: has an empty name")
    return names
