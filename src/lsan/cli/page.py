"""`lsan page`: a static site that recommends in the browser, without a server of its own or a network."""

import argparse
from pathlib import Path

from lsan.cli.terminal import ranking_progress
from lsan.page.site import TITLE, refuse_unless_page, site_files, write_site
from lsan.runtime.file import read_bytes
from lsan.runtime.recommender import Recommender


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lsan page`."""
    parser.add_argument(
        "model", metavar="RUN_OR_FILE", type=Path, help="what `lsan train`, `lsan compress` or `lsan export` wrote"
    )
    parser.add_argument(
        "--out", metavar="DIR", type=Path, required=True, help="folder to write; an earlier page in it is replaced"
    )
    parser.add_argument("--title", metavar="TEXT", default=TITLE, help=f"the page's heading; default: {TITLE}")
    parser.add_argument("--dataset", metavar="DIR", type=Path, help="the run's dataset, if it has moved")


def run(args: argparse.Namespace) -> None:
    """Write the site. The model is checked first, as `lsan export` and `lsan verify` do.

    Raises:
        LsanError: when the model cannot be used, or the folder holds something that is no page.
    """
    refuse_unless_page(args.out)
    content = _exported(args) if args.model.is_dir() else _verified(args.model)
    files = site_files(content, title=args.title)
    write_site(args.out, files)
    others = sum(map(len, files.values())) - len(content)
    print(f"written {args.out}: the model {len(content):,} bytes, everything else {others:,}")
    print(how_to_look(args.out))


def how_to_look(folder: Path) -> str:
    """One line that says how a page can be seen."""
    return f"to look at it: python3 -m http.server --directory {folder}, then open http://localhost:8000"


def _verified(file: Path) -> bytes:
    content = read_bytes(file)
    Recommender(content, where=str(file)).verify()
    return content


def _exported(args: argparse.Namespace) -> bytes:
    from lsan.cli.export import show
    from lsan.cli.terminal import console  # here, since an exported file needs no torch
    from lsan.data.dataset import Dataset
    from lsan.export.export import checked_bundle

    dataset = None if args.dataset is None else Dataset.open(args.dataset)
    with ranking_progress() as progress:
        content, exported = checked_bundle(args.model, dataset=dataset, progress=progress)
    show(console(), exported)
    return content
