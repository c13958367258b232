"""`lsan recommend`: raw ids in, titles, ids and scores out."""

import argparse
import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from lsan.answers import Recommendations
from lsan.cli.console import add_device_arguments, use_device
from lsan.cli.terminal import console, plain_table, readable
from lsan.errors import ConfigError, DataError
from lsan.recommender import Recommender
from lsan.runtime import Recommender as BundleRecommender


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lsan recommend`."""
    parser.add_argument(
        "model",
        metavar="RUN_OR_FILE",
        type=Path,
        help="what `lsan train` or `lsan export` wrote",
    )
    history = parser.add_mutually_exclusive_group(required=True)
    history.add_argument("--history", metavar="ID", nargs="*", help="raw item ids, oldest first")
    history.add_argument(
        "--history-file", metavar="FILE", type=Path, help="the same, one a line (for ids that begin with -)"
    )
    parser.add_argument(
        "--at",
        metavar="TIME",
        help="when: ISO time or seconds since 1970, UTC; the hour matters to models that read it",
    )
    parser.add_argument("-k", type=int, default=10, help="how many; default 10")
    seen = parser.add_mutually_exclusive_group()
    seen.add_argument("--include-seen", action="store_true", help="items of the history may be recommended again")
    seen.add_argument("--exclude-seen", action="store_true", help="they may not; default: as the recipe says")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add_device_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Recommend.

    Raises:
        LsanError: when the run cannot be used, or --at or -k is not valid.
    """
    at = None if args.at is None else parse_time(args.at)
    exclude_seen = False if args.include_seen else True if args.exclude_seen else None
    history = args.history if args.history_file is None else read_history(args.history_file)
    if args.model.is_dir():
        use_device(args)
        trained = Recommender.load(args.model, device=args.device)
        timed, answer = trained.run.header.timed, trained.recommend(history, args.k, at=at, exclude_seen=exclude_seen)
    else:
        exported = BundleRecommender.load(args.model)
        timed, answer = exported.engine.timed, exported.recommend(history, args.k, at=at, exclude_seen=exclude_seen)
    if at is not None and not timed:
        print("note: this model does not read times; --at changes nothing", file=sys.stderr)
    if args.json:
        print(json.dumps(_as_json(answer), indent=1))
        return
    if answer.unknown_ids:
        print(f"note: skipped unknown ids: {', '.join(map(str, answer.unknown_ids))}", file=sys.stderr)
    if answer.by_popularity:
        print("note: no known item in the history, so these are the most popular items", file=sys.stderr)
    if not answer:
        print("note: nothing to recommend: every known item is in the history", file=sys.stderr)
        return
    console().print(recommendations_table(answer))


def recommendations_table(answer: Recommendations) -> Table:
    """Rank, title, category, id and score of each recommendation."""
    table = plain_table("title", "category", "id", "score")
    for item in answer:
        table.add_row(readable(item.title), readable(item.category or ""), readable(str(item.id)), f"{item.score:.3f}")
    return table


def read_history(path: Path) -> list[str]:
    """Item ids from a text file, one a line; empty lines are left out.

    Raises:
        DataError: when it cannot be read as UTF-8 text.
    """
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error})") from error


def parse_time(text: str) -> datetime | float:
    """An ISO time or a number of seconds since 1970.

    Raises:
        ConfigError: when it is neither.
    """
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"--at {text!r} is not a time: expected ISO text such as 2026-11-21T18:30 or seconds since 1970"
        ) from error


def _as_json(answer: Recommendations) -> dict[str, Any]:
    return {
        "recommendations": [
            {"id": item.id, "title": item.title, "category": item.category, "score": item.score} for item in answer
        ],
        "unknown_ids": list(answer.unknown_ids),
        "by_popularity": answer.by_popularity,
    }
