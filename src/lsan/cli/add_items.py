"""`lsan add-items`: items that came after training, without training again."""

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np

from lsan.answers import WHOLE_NUMBER, RawId
from lsan.compression.new_items import add_items
from lsan.data.catalogue import Catalogue
from lsan.data.columns import Columns
from lsan.data.items import read_items
from lsan.data.prepare import prepare_dataset
from lsan.data.rows import BadRows
from lsan.data.tables import TextFormat, open_tables
from lsan.errors import DataError
from lsan.experiment import choose_device
from lsan.files import new_folder
from lsan.models.events import near_pairs
from lsan.models.item_tables.warm_start import NEAR
from lsan.runs import load_finished, write_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lsan add-items`."""
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of a trained or compressed run")
    parser.add_argument(
        "items",
        metavar="ITEMS",
        type=Path,
        help="item file with id, title, category; items that the run has are skipped",
    )
    parser.add_argument("--log", metavar="LOG", type=Path, help="events with new items, if there are some already")
    parser.add_argument("--out", metavar="RUN", type=Path, required=True, help="folder to write; must not exist yet")


def run(args: argparse.Namespace) -> None:
    """Write the run with more items.

    Raises:
        LsanError: when a file cannot be used, the model takes no items, or the folder exists.
    """
    before = load_finished(args.run, device=choose_device("cpu"))
    table = read_items(open_tables(args.items, TextFormat()), columns=Columns(), bad_rows=BadRows(skip=False))
    numbers = isinstance(before.catalogue.ids[0], int)
    rows = [row for row in table.frame.iter_rows(named=True) if not before.catalogue.index_of(row["id"])]
    if not rows:
        raise DataError(f"{table.name}: the run has all of its {table.frame.height:,} items already")
    if numbers and (wrong := [row["id"] for row in rows if not _is_number(row["id"])]):
        raise DataError(
            f"{table.name}: the item id {wrong[0]!r:.80} is no whole number of 64 bits without leading zeros, "
            "as all ids of the run are"
        )
    new = Catalogue(
        ids=[int(row["id"]) if numbers else row["id"] for row in rows],
        titles=[row["title"] for row in rows],
        categories=[row["category"] for row in rows],
    )
    company = {} if args.log is None else _company(args.log, before.catalogue, new)
    after = add_items(before, new, company)
    with new_folder(args.out) as temporary:
        write_run(temporary, after)
    print(
        f"{len(new):,} new items ({table.frame.height - len(new):,} were there already), "
        f"{len(company):,} of them with events; written {args.out}"
    )


def _is_number(text: str) -> bool:
    return WHOLE_NUMBER.fullmatch(text) is not None and -(2**63) <= int(text) < 2**63


def _company(log: Path, known: Catalogue, new: Catalogue) -> dict[RawId, dict[RawId, float]]:
    """How often each new item was near to which known ones in a log."""
    with tempfile.TemporaryDirectory(prefix="lsan-") as folder:
        dataset = prepare_dataset(log, Path(folder) / "dataset")
        users = np.repeat(np.arange(dataset.users), np.diff(dataset.offsets))
        items, ids = np.asarray(dataset.items, dtype=np.int64), dataset.catalogue.ids
        is_new = np.array([False, *(new.index_of(raw) > 0 for raw in ids)])
        is_known = np.array([False, *(known.index_of(raw) > 0 for raw in ids)])
        company: dict[RawId, dict[RawId, float]] = defaultdict(lambda: defaultdict(float))
        for earlier, later, distance in near_pairs(users, items, NEAR):
            for one, other in ((earlier, later), (later, earlier)):
                pair = is_new[one] & is_known[other]
                for item, neighbour in zip(one[pair].tolist(), other[pair].tolist(), strict=True):
                    own = new.ids[new.index_of(ids[item - 1]) - 1]
                    company[own][ids[neighbour - 1]] += 1 / distance
    return company
