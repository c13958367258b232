"""`lsan verify`: an exported file against its own test vectors."""

import argparse
from pathlib import Path

from lsan.runtime.recommender import Recommender


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lsan verify`."""
    parser.add_argument("file", metavar="FILE", type=Path, help="file that `lsan export` wrote")


def run(args: argparse.Namespace) -> None:
    """Verify.

    Raises:
        LsanError: when the file is damaged, or answers otherwise than it did when it was made.
    """
    recommender = Recommender.load(args.file)
    worst = recommender.verify()
    state = "readable (it has no digest)" if recommender.file.sha256 is None else "whole"
    print(
        f"{args.file}: {state}; scores are within {worst:.1e} (of the largest) of what they were when it was made "
        f"({recommender.engine.instruction_set})"
    )
