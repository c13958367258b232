"""A dataset without each user's last event, to compare recipes on what would be their test without touching the test.

    python benchmarks/rehearsal.py beauty
    lsan compare runs/rehearsal-beauty --models lsan bsarec FILE.toml --seeds 2 --out runs/compared

A validation figure alone says too little: networks that were level on it differed by .003 on the events after, and
early stopping was chosen by it. Here the last event but two chooses the epoch, and the last but one, which is the
validation event of the real dataset, says how good that was.
"""

import argparse

import numpy as np
import polars as pl

from accuracy import PLAN, dataset_of
from lsan.data.dataset import write_dataset
from provenance import ROOT


def main() -> None:
    """Write runs/rehearsal-DATASET."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("dataset", choices=PLAN)
    name = parser.parse_args().dataset
    dataset, folder = dataset_of(name), ROOT / "runs" / f"rehearsal-{name}"
    kept = np.ones(dataset.events, dtype=np.bool_)
    kept[dataset.offsets[1:] - 1] = False  # every user has an event
    times = dataset.timestamps
    write_dataset(
        folder,
        offsets=dataset.offsets - np.arange(dataset.users + 1),
        items=dataset.items[kept],
        timestamps=None if times is None else times[kept],
        catalogue=pl.read_ipc(dataset.path / "catalogue.arrow"),
        users=pl.read_ipc(dataset.path / "users.arrow"),
        summary={"rehearsal of": dataset.content_hash},
    )
    print(f"written {folder.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
