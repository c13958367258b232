"""The table: every model on a dataset, full ranking, validation-selected, several seeds.

    python benchmarks/accuracy.py beauty [--models lsan=1 item-knn] [--split temporal] [--jobs 2] [--threads 1]

Reads the data from LSAN_SHARED_DATA (default ../shared/data). Trains into runs/accuracy-DATASET/ (what is there is
resumed, or used as it is, so the same command goes on after an interruption), evaluates each run on the test cases
once, and keeps it in benchmarks/results/accuracy-DATASET.json and .ranks.parquet. The table is made of all runs that
are kept there. A recipe is recipes/DATASET/NAME.toml, or else the preset of that name; NAME-without-r-drop is that
without R-Drop. A run of another recipe is made again.
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import torch

from kept_runs import KeptRuns
from lsan.comparison.entries import Entry, find_entries
from lsan.comparison.outcomes import Outcome, check_runs, find_outcome
from lsan.comparison.report import write_comparison
from lsan.comparison.rows import compare
from lsan.data.dataset import Dataset
from lsan.data.prepare import prepare_dataset
from lsan.data.splits import SplitName
from lsan.experiment import Observer
from provenance import ROOT, provenance
from side_by_side import alone, in_processes

COUNTED = ("popularity", "recent-popularity", "markov", "item-knn")

#: Ends the name of a network that is trained as the one of the name before it, but without R-Drop.
WITHOUT = "-without-r-drop"

#: Seeds of each network, by dataset.
PLAN: dict[str, dict[str, int]] = {
    "beauty": {
        "lsan": 3, "sasrec": 3, "bsarec": 3, "lightsans": 1, "bert4rec": 1, "gru4rec": 1, "caser": 1, "fpmc": 1,
        "sasrec-original": 1, "paper": 1,
        f"lsan{WITHOUT}": 3, f"sasrec{WITHOUT}": 3, f"bsarec{WITHOUT}": 3, f"lightsans{WITHOUT}": 1,
    },
    "sports": {
        "lsan": 3, "sasrec": 3, "bsarec": 3, f"lsan{WITHOUT}": 1, f"sasrec{WITHOUT}": 1, f"bsarec{WITHOUT}": 1,
    },
    "ml-1m": {"lsan": 3, "sasrec": 3, "gru4rec": 3},
    "yelp": {
        "lsan": 1, "sasrec": 1, "bsarec": 1, f"lsan{WITHOUT}": 1, f"sasrec{WITHOUT}": 1, f"bsarec{WITHOUT}": 1,
    },
    "online-retail": {"lsan": 1, "sasrec": 1, "gru4rec": 1, "lsan-time": 1},
    "ml-1m-exact": {"lsan": 3, "lsan-time": 3},
}  # fmt: skip

#: Where people come back to what they had, items of the user's own history are ranked too.
REPEATS = ("yelp", "online-retail")


def main() -> None:
    """Train what is missing, evaluate all, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("dataset", choices=PLAN)
    parser.add_argument("--models", nargs="+", help="some of the plan's, NAME or NAME=SEEDS; default all")
    parser.add_argument("--split", choices=("leave-one-out", "temporal"), default="leave-one-out")
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    name = arguments.dataset if arguments.split == "leave-one-out" else f"{arguments.dataset}-{arguments.split}"
    folder, dataset = ROOT / "runs" / f"accuracy-{name}", dataset_of(arguments.dataset)
    entries = entries_of(arguments.dataset, arguments.models, arguments.split)
    torch.set_num_threads(arguments.threads)
    if arguments.one is not None:
        _find(next(entry for entry in entries if entry.label == arguments.one), dataset, folder)
        return
    path = ROOT / "benchmarks" / "results" / f"accuracy-{name}.json"
    kept = KeptRuns(path, dataset)
    missing = [entry for entry in entries if entry.label not in kept.outcomes(entries)]
    check_runs(missing, dataset, folder)
    planned = entries_of(arguments.dataset, None, arguments.split)
    for entry in in_processes(missing, folder, arguments.jobs):
        kept.add(
            _find(entry, dataset, folder), {"jobs": arguments.jobs, "threads_a_job": arguments.threads, **provenance()}
        )
        _write(kept, planned, dataset, folder)
        print(f"{entry.label} is done", flush=True)
    _write(kept, planned, dataset, folder)
    print(f"written {path.relative_to(ROOT)} and {(folder / 'comparison.md').relative_to(ROOT)}")


def _write(kept: KeptRuns, planned: list[Entry], dataset: Dataset, folder: Path) -> None:
    """The table of all runs of the plan that are kept."""
    comparison = compare(list(kept.outcomes(planned).values()), dataset, "test")
    write_comparison(comparison, folder)
    kept.write(comparison)


def dataset_of(name: str) -> Dataset:
    """The prepared dataset of that name, from the shared data."""
    folder = ROOT / "runs" / f"dataset-{name}"
    with alone(folder.parent):
        if not folder.exists():
            _prepare(name, folder)
    return Dataset.open(folder)


def _prepare(name: str, folder: Path) -> None:
    shared = Path(os.environ.get("LSAN_SHARED_DATA", ROOT.parent / "shared" / "data"))
    log: Any = shared / name / "interactions.csv.gz"
    if name.startswith("ml-1m"):  # all ratings are kept, whatever they are
        file = "positives_exact.parquet" if name == "ml-1m-exact" else "interactions.parquet"
        log = pl.read_parquet(shared / "ml-1m" / file, columns=["user", "item", "timestamp"])
    elif name == "online-retail":
        log = shared / name / "purchases.csv.gz"
    items = shared / name / "items.csv.gz" if name in ("beauty", "sports") else None
    prepare_dataset(log, folder, items=items)


def entries_of(dataset: str, models: list[str] | None, split: SplitName) -> list[Entry]:
    """What is compared: baselines, then the networks, seed by seed."""
    plan = PLAN[dataset]
    names = list(COUNTED)
    if models is not None:
        asked = dict(model.partition("=")[::2] for model in models)
        if unknown := set(asked) - {*COUNTED, *plan}:
            raise SystemExit(f"no model {', '.join(sorted(unknown))} in the plan of {dataset}")
        names = [name for name in COUNTED if name in asked]
        plan = {model: int(asked[model] or seeds) for model, seeds in plan.items() if model in asked}
    terms: dict[str, Any] = {"split": split, "include_seen": dataset in REPEATS}
    entries = find_entries(names, seeds=1, **terms) if names else []
    for model, seeds in plan.items():
        found = find_entries([_recipe(dataset, model.removesuffix(WITHOUT))], seeds=seeds, **terms)
        entries += [_without_r_drop(entry, model) for entry in found] if model.endswith(WITHOUT) else found
    return sorted(entries, key=lambda entry: (not entry.baseline, entry.recipe.seed))


def _recipe(dataset: str, model: str) -> str:
    path = ROOT / "recipes" / dataset / f"{model}.toml"
    return str(path) if path.exists() else model


def _without_r_drop(entry: Entry, name: str) -> Entry:
    training = msgspec.structs.replace(entry.recipe.training, r_drop=0.0)
    return replace(entry, name=name, recipe=msgspec.structs.replace(entry.recipe, training=training))


def _find(entry: Entry, dataset: Dataset, folder: Path) -> Outcome:
    return find_outcome(entry, dataset, "test", folder, device=torch.device("cpu"), observer=Observer())


if __name__ == "__main__":
    main()
