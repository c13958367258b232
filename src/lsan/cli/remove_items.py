"""`lsan remove-items`: items that are no longer read or recommended."""

import argparse
from pathlib import Path

from lsan.compression.new_items import remove_items
from lsan.experiment import choose_device
from lsan.files import new_folder
from lsan.runs import load_finished, write_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lsan remove-items`."""
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of a trained or compressed run")
    parser.add_argument("items", metavar="ID", nargs="+", help="item ids")
    parser.add_argument("--out", metavar="RUN", type=Path, required=True, help="folder to write; must not exist yet")


def run(args: argparse.Namespace) -> None:
    """Write the run without these items.

    Raises:
        LsanError: when the run cannot be used, has no such item, or the folder exists.
    """
    changed = load_finished(args.run, device=choose_device("cpu"))
    remove_items(changed, args.items)
    with new_folder(args.out) as temporary:
        write_run(temporary, changed)
    print(f"{int(changed.network.offered.sum()):,} items are left to recommend; written {args.out}")
