"""`lsan batch`: recommendations for every user of a log, as one Parquet file."""

import argparse
from pathlib import Path

from lsan.batch import recommend_all
from lsan.cli.reading import add_reading_arguments, columns_of, options_of
from lsan.cli.terminal import ranking_progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lsan batch`."""
    parser.add_argument("file", metavar="FILE", type=Path, help="file that `lsan export` wrote")
    parser.add_argument(
        "--histories", metavar="LOG_OR_DATASET", type=Path, required=True,
        help="a log as `lsan prepare` reads it, or a dataset folder that it wrote",
    )  # fmt: skip
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help="the Parquet file to write")
    parser.add_argument("-k", type=int, default=10, help="how many for each user; default 10")
    parser.add_argument("--threads", type=int, help="default: all cores")
    seen = parser.add_mutually_exclusive_group()
    seen.add_argument("--include-seen", action="store_true", help="items of the history may be recommended again")
    seen.add_argument("--exclude-seen", action="store_true", help="they may not; default: as the file says")
    add_reading_arguments(parser, item_file=False)


def run(args: argparse.Namespace) -> None:
    """Recommend for everyone. Started again after a stop, it goes on where it was.

    Raises:
        LsanError: when the file or the log cannot be used, or the output cannot be written.
    """
    exclude_seen = False if args.include_seen else True if args.exclude_seen else None
    with ranking_progress("users") as progress:
        done = recommend_all(
            args.file, args.histories, args.out, args.k,
            exclude_seen=exclude_seen, columns=columns_of(args), options=options_of(args),
            threads=args.threads, progress=progress,
        )  # fmt: skip
    print(f"{done.users:,} users, {done.rows:,} recommendations, {done.unknown:,} events of unknown items skipped")
    if done.bad_rows:
        print(f"{done.bad_rows:,} bad rows of {args.histories} skipped")
    print(f"written {args.out}")
