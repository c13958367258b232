"""LSAN's context over learnt codes at equal bytes: categories and hours, which weigh the rows of a code.

    python benchmarks/context.py ml-1m-exact [--only NAME ...] [--seeds 3] [--jobs 1] [--threads 1]

recipes/DATASET/lsan.toml with product codes, 4 bits for the encoder and 8 for tables: as it is (`codes`), with
[model.context] (`context`), and without it but with the least feed-forward layers that make the file at least as large
as the context does (`wider`). ML-1M has categories (the first genre) and hours; Online Retail has no categories, so
only the hour is context there. The weights of rows cannot be switched off alone: the context is fused with the item's
vector too.

Trains into runs/context-DATASET/ (what is there is resumed, or used as it is), evaluates each run on the test cases
once, and keeps it in benchmarks/results/context-DATASET.json and .ranks.parquet.
"""

import argparse
import itertools
import os
from pathlib import Path

import polars as pl
import torch

from accuracy import REPEATS, dataset_of
from kept_runs import KeptRuns
from lsan.comparison.entries import Entry
from lsan.comparison.outcomes import Outcome, check_runs, find_outcome
from lsan.comparison.rows import DECIDER, compare
from lsan.compression.sizes import shipped_bytes
from lsan.config import Recipe, load_recipe, recipe_from, recipe_to
from lsan.data.dataset import Dataset
from lsan.data.prepare import prepare_dataset
from lsan.experiment import Observer
from provenance import ROOT, provenance
from side_by_side import in_processes

DATASETS = ("ml-1m-exact", "online-retail")
MODELS = ("codes", "context", "wider")
TABLE = {"kind": "coded", "codes": "product", "tables": 16, "rows": 256}
QUANTISATION = {"weights": 4, "table": 8, "bias": 4}


def main() -> None:
    """Train what is missing, evaluate it, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("dataset", choices=DATASETS)
    parser.add_argument("--only", nargs="+", choices=MODELS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    name, folder = arguments.dataset, ROOT / "runs" / f"context-{arguments.dataset}"
    dataset = with_categories(name, folder)
    recipes = recipes_of(name, dataset)
    planned = [
        Entry(name=model, recipe=recipe.with_seed(seed), baseline=False)
        for seed in range(arguments.seeds)
        for model, recipe in recipes.items()
    ]
    if arguments.one is not None:
        _find(next(entry for entry in planned if entry.label == arguments.one), dataset, folder)
        return
    path = ROOT / "benchmarks" / "results" / f"context-{name}.json"
    kept = KeptRuns(path, dataset)
    there = kept.outcomes(planned)
    missing = [entry for entry in planned if entry.label not in there and entry.name in (arguments.only or MODELS)]
    check_runs(missing, dataset, folder)
    for entry in in_processes(missing, folder, arguments.jobs):
        kept.add(
            _find(entry, dataset, folder), {"jobs": arguments.jobs, "threads_a_job": arguments.threads, **provenance()}
        )
        _write(kept, planned, dataset)
        print(f"{entry.label} is done", flush=True)


def with_categories(name: str, folder: Path) -> Dataset:
    """The prepared dataset, with the categories that its items have."""
    if name == "online-retail":
        return dataset_of(name)
    path = folder / "dataset"
    if not path.exists():
        shared = Path(os.environ.get("LSAN_SHARED_DATA", ROOT.parent / "shared" / "data")) / "ml-1m"
        log = pl.read_parquet(shared / "positives_exact.parquet", columns=["user", "item", "timestamp"])
        prepare_dataset(log, path, items=shared / "items.csv.gz")
    return Dataset.open(path)


def recipes_of(name: str, dataset: Dataset) -> dict[str, Recipe]:
    """What is trained, by name."""
    content = recipe_to(load_recipe(ROOT / "recipes" / name / "lsan.toml"))
    content["exclude_seen"] = name not in REPEATS
    content["model"] |= {"table": TABLE, "quantisation": QUANTISATION}
    codes = recipe_from(content, where="codes")
    context = recipe_from({**content, "model": {**content["model"], "context": {}}}, where="context")
    return {"codes": codes, "context": context, "wider": as_large(codes, size_of(context, dataset), dataset)}


def as_large(recipe: Recipe, size: int, dataset: Dataset) -> Recipe:
    """The recipe with the least feed-forward layers that make its file at least so large."""
    content = recipe_to(recipe)
    for inner in itertools.count(content["model"]["encoder"]["feed_forward"]):
        content["model"]["encoder"]["feed_forward"] = inner
        wider = recipe_from(content, where="wider")
        if size_of(wider, dataset) >= size:
            return wider
    raise AssertionError


def size_of(recipe: Recipe, dataset: Dataset) -> int:
    """Bytes of the exported file, all but ids, titles and categories."""
    catalogue = dataset.catalogue
    return sum(shipped_bytes(recipe, len(catalogue), categories=len(catalogue.category_names)).values())


def _find(entry: Entry, dataset: Dataset, folder: Path) -> Outcome:
    return find_outcome(entry, dataset, "test", folder, device=torch.device("cpu"), observer=Observer())


def _write(kept: KeptRuns, planned: list[Entry], dataset: Dataset) -> None:
    """All runs that are kept, as one table."""
    comparison = compare(list(kept.outcomes(planned).values()), dataset, "test")
    kept.write(comparison)
    for row in comparison.rows:
        figure = row.accuracy[comparison.policy][DECIDER]
        print(f"{row.name}: {row.costs.bytes:,} bytes, {DECIDER} {figure.mean:.4f}", flush=True)


if __name__ == "__main__":
    main()
