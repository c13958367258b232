"""`lsan add-items`: items that came after training, without training again."""

import argparse
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

from lsan.answers import WHOLE_NUMBER, RawId
from lsan.cli.reading import add_reading_arguments, columns_of, options_of
from lsan.compression.new_items import add_items, return_items, trained_items
from lsan.data.catalogue import Catalogue
from lsan.data.dataset import Dataset
from lsan.data.prepare import prepare_dataset, read_item_file
from lsan.data.rows import BadRows
from lsan.errors import ConfigError, DataError
from lsan.experiment import choose_device
from lsan.files import new_folder
from lsan.models.events import near_pairs
from lsan.models.item_tables.warm_start import NEAR
from lsan.runs import load_finished, write_run

#: Of each new item: the known ones near it in a log, and how often, nearer ones counting more.
_Company = dict[RawId, dict[RawId, float]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lsan add-items`."""
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of a trained or compressed run")
    parser.add_argument(
        "items",
        metavar="ITEMS",
        type=Path,
        help="item file with id, title, category; removed items come back, others that the run has are skipped",
    )
    parser.add_argument("--log", metavar="LOG", type=Path, help="events with new items, if there are some already")
    parser.add_argument("--out", metavar="RUN", type=Path, required=True, help="folder to write; must not exist yet")
    add_reading_arguments(parser, item_file=True)


def run(args: argparse.Namespace) -> None:
    """Write the run with more items.

    Raises:
        LsanError: when a file cannot be used, the model takes no items, or the folder exists.
    """
    for flag in ("user", "item", "timestamp", "columns", "separator"):
        if args.log is None and getattr(args, flag) is not None:
            raise ConfigError(f"--{flag} describes a log: give one with --log")
    before = load_finished(args.run, device=choose_device("cpu"))
    columns, options = columns_of(args), options_of(args)
    bad_rows = BadRows(skip=options.on_bad_rows == "skip")
    table = read_item_file(args.items, columns, options, bad_rows)
    numbers = isinstance(before.catalogue.ids[0], int)
    returned = return_items(before, table.frame["id"].to_list())
    trained = trained_items(before).tolist()
    rows = [
        row
        for row in table.frame.iter_rows(named=True)
        if not (index := before.catalogue.index_of(row["id"])) or not trained[index - 1]
    ]
    if not rows and not returned:
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
    company: _Company = {}
    skipped = bad_rows.count
    if args.log is not None:
        with tempfile.TemporaryDirectory(prefix="lsan-") as folder:
            of_log = replace(columns, title=None, category=None, items_id=None, items_header=None)
            dataset = prepare_dataset(args.log, Path(folder) / "dataset", columns=of_log, options=options)
            skipped += dataset.summary["dropped"]["bad rows"]
            company = _company(dataset, before.catalogue, new)
    after = add_items(before, new, company) if rows else before
    with new_folder(args.out) as temporary:
        write_run(temporary, after)
    if skipped:
        print(f"{skipped:,} bad rows skipped")
    print(
        f"{len(new):,} new items, {len(company):,} of them with events, {returned:,} that had been removed and "
        f"{table.frame.height - len(new) - returned:,} that were there already; written {args.out}"
    )


def _is_number(text: str) -> bool:
    return WHOLE_NUMBER.fullmatch(text) is not None and -(2**63) <= int(text) < 2**63


def _company(dataset: Dataset, known: Catalogue, new: Catalogue) -> _Company:
    """How often each new item was near to which known ones in a log."""
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
