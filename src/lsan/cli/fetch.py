"""`lsan fetch`: download a public dataset from its publisher, with its terms, and say how to prepare it."""

import argparse
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from lsan.data.download import Patience, Progress
from lsan.data.public import PUBLIC_SETS, PublicSet, fetch, find_set
from lsan.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `lsan fetch`."""
    default = Patience()
    parser.add_argument("name", nargs="?", metavar="NAME", help="the dataset; without it, all are listed")
    parser.add_argument("--list", action="store_true", help="list the datasets with their sizes and terms")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the files (default: data/NAME)")
    parser.add_argument(
        "--url",
        metavar="URL",
        help="address of a mirror: a folder with the publisher's files; checksums still apply",
    )
    parser.add_argument(
        "--tries",
        type=int,
        default=default.tries,
        metavar="N",
        help=f"requests for a file; each goes on where the last broke off (default: {default.tries})",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=default.timeout_s,
        metavar="SECONDS",
        help=f"time without a byte after which a connection is given up (default: {default.timeout_s:g})",
    )


def run(args: argparse.Namespace) -> None:
    """List the sets, or fetch one.

    Raises:
        ConfigError: for an unknown name or options that do not fit together.
        DataError: when the set could not be fetched.
    """
    if args.list or args.name is None:
        if args.name is not None or args.out is not None or args.url is not None:
            raise ConfigError("without the NAME of a dataset, or with --list, there is nothing to fetch")
        for public_set in PUBLIC_SETS.values():
            print(f"{public_set.name:16} {_megabytes(public_set.size):>9}  {public_set.summary}")
            print(f"{'':16} {'':>9}  terms: {public_set.licence}")
        return
    public_set = find_set(args.name)
    patience = Patience(tries=args.tries, timeout_s=args.timeout)
    folder = Path("data", public_set.name) if args.out is None else args.out
    _show_terms(public_set)
    with _progress_bars() as progress:
        checksums = fetch(public_set, folder, mirror=args.url, patience=patience, progress=progress)
    known = {file.name: file.sha256 is not None for file in public_set.files}
    for name, sha256 in checksums.items():
        print(f"{folder / name}: SHA-256 {sha256}, {'as expected' if known[name] else 'recorded'}")
    print(f"next: {public_set.prepare_command(folder)}")


def _show_terms(public_set: PublicSet) -> None:
    print(f"{public_set.summary} ({_megabytes(public_set.size)})")
    for line in textwrap.wrap(f"Terms: {public_set.terms}", width=100):
        print(line)
    print(f"See {public_set.page}", flush=True)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB" if size >= 9.5e6 else f"{size / 1e6:.1f} MB"


@contextmanager
def _progress_bars() -> Iterator[Progress]:
    """Bars on a terminal, nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Bars(*columns, console=console, disable=not sys.stderr.isatty()) as bars:
        tasks: dict[str, TaskID] = {}

        def progress(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield progress
