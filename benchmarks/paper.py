"""The preset `paper` on Amazon Beauty and Sports, leave-one-out, full ranking, three seeds, beside the paper's figures.

    python benchmarks/paper.py [--recipes paper-beauty paper-sports] [--seeds 0 1 2] [--jobs 2] [--threads 1]

Reads the data from LSAN_SHARED_DATA (default ../shared/data), trains each recipe and seed into runs/ (a run that is
there is continued, or used as it is), evaluates it on the test cases once, and writes benchmarks/results/RECIPE.json.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lsan.config import load_recipe, recipe_to
from lsan.data.dataset import Dataset
from lsan.data.prepare import prepare_dataset
from lsan.data.splits import Cases
from lsan.evaluation.ranking import Scorer
from lsan.experiment import evaluate, load_for_evaluation
from lsan.models.baselines import Markov, Popularity
from lsan.models.item_tables.composed import ComposedTable
from lsan.models.network import Network
from lsan.runs import MODEL, RunHeader
from provenance import ROOT, provenance

#: HR@10 and nDCG@10 of LSAN with m_1 = 2 (paper, Table 2).
PAPER = {"beauty": {"HR@10": 0.0785, "nDCG@10": 0.0410}, "sports": {"HR@10": 0.0481, "nDCG@10": 0.0264}}
POLICIES = ("unseen items", "all items")


def main() -> None:
    """Train what is missing, evaluate all, and write one result file a recipe."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--recipes", nargs="+", default=["paper-beauty", "paper-sports"], help="files in recipes/")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each")
    arguments = parser.parse_args()
    jobs = [(recipe, seed) for recipe in arguments.recipes for seed in arguments.seeds]
    for recipe in arguments.recipes:
        dataset_for(recipe)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for folder in pool.map(lambda job: train(*job, threads=arguments.threads), jobs):
            print(f"trained {folder}", flush=True)
    for recipe in arguments.recipes:
        result = report(recipe, arguments.seeds) | {"jobs": arguments.jobs, "threads_a_job": arguments.threads}
        path = ROOT / "benchmarks" / "results" / f"{recipe}.json"
        path.write_text(json.dumps(result, indent=1) + "\n")
        print(f"written {path.relative_to(ROOT)}: {json.dumps(result['mean over seeds']['unseen items'])}")


def data_name(recipe: str) -> str:
    """paper-beauty -> beauty."""
    return recipe.split("-")[1]


def dataset_for(recipe: str) -> Dataset:
    """The prepared dataset of a recipe, from the shared data."""
    name = data_name(recipe)
    folder = ROOT / "runs" / f"dataset-{name}"
    if not folder.exists():
        source = Path(os.environ.get("LSAN_SHARED_DATA", ROOT.parent / "shared" / "data")) / name
        prepare_dataset(source / "interactions.csv.gz", folder, items=source / "items.csv.gz")
    return Dataset.open(folder)


def train(recipe: str, seed: int, *, threads: int) -> Path:
    """Train one seed in a process of its own, unless that is done already. Returns the run folder."""
    folder = ROOT / "runs" / f"{recipe}-{seed}"
    command = [sys.executable, "-m", "lsan", "train", "--threads", str(threads), "--device", "cpu"]
    if folder.exists():
        command += ["--resume", str(folder)]
    else:
        command += [str(dataset_for(recipe).path), "--recipe", str(ROOT / "recipes" / f"{recipe}.toml")]
        command += ["--seed", str(seed), "--out", str(folder)]
    with (ROOT / "runs" / f"{recipe}-{seed}.log").open("a") as log:
        subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT)
    return folder


def report(recipe: str, seeds: list[int]) -> dict[str, Any]:
    """Figures of all seeds, their mean and standard deviation, and the baselines on the same cases."""
    device = torch.device("cpu")
    folders = [ROOT / "runs" / f"{recipe}-{seed}" for seed in seeds]
    runs = []
    for seed, folder in zip(seeds, folders, strict=True):
        run, dataset, split = load_for_evaluation(folder, dataset_for(recipe), device=device)
        if run.header.recipe != load_recipe(ROOT / "recipes" / f"{recipe}.toml").with_seed(seed):
            raise SystemExit(f"{folder} was trained with another recipe: delete it")
        started = time.monotonic()
        figures = evaluate(run.network, dataset, split, run.header, "test", device=device).to_json()
        seconds = time.monotonic() - started
        runs.append(
            {
                "seed": seed,
                **{key: value for key, value in run.header.progress.items() if key != "finished"},
                "parameters": sum(parameter.numel() for parameter in run.network.parameters()),
                "bytes": (folder / MODEL).stat().st_size,
                "test cases whose answer shares its row with an item of its history": row_share(
                    run.network, dataset, split.test
                ),
                "evaluation seconds": round(seconds, 1),
                "test": figures,
            }
        )
    header = RunHeader.read(folders[0])
    baselines: dict[str, Scorer] = {
        "popularity": Popularity(dataset, split),
        "Markov chain": Markov(dataset, split),
    }
    tests = [run["test"] for run in runs]
    return {
        "what": "leave-one-out, every item ranked, ties count half; [mean, low, high] with 95% bootstrap over users",
        "paper (LSAN, m_1 = 2)": PAPER[data_name(recipe)],
        "mean over seeds": _over_seeds(tests, np.mean),
        "standard deviation over seeds": _over_seeds(tests, partial(np.std, ddof=1)),
        "runs": runs,
        "baselines": {
            name: evaluate(scorer, dataset, split, header, "test", device=device).to_json()
            for name, scorer in baselines.items()
        },
        "recipe": recipe_to(load_recipe(ROOT / "recipes" / f"{recipe}.toml")),
        "data": {key: value for key, value in header.dataset.items() if key != "path"},
        **provenance(),
    }


def _over_seeds(tests: list[dict[str, Any]], statistic: Any) -> dict[str, dict[str, float]]:
    return {
        policy: {
            metric: round(float(statistic([test[policy][metric][0] for test in tests])), 5)
            for metric in ("HR@5", "nDCG@5", "HR@10", "nDCG@10", "HR@20", "nDCG@20")
        }
        for policy in POLICIES
    }


def row_share(network: Network, dataset: Dataset, cases: Cases) -> float:
    """Share of cases where an item of the history has the answer's row of the largest base table, and is not it."""
    table = network.table
    if not isinstance(table, ComposedTable):
        return 0.0
    column = int(np.argmax(table.radices))
    row = np.concatenate([[-1], table.codes.rows[:, column].numpy()])
    hits = 0
    for start, stop in zip(cases.start.tolist(), cases.stop.tolist(), strict=True):
        history, answer = dataset.items[start:stop], dataset.items[stop]
        hits += bool(((row[history] == row[answer]) & (history != answer)).any())
    return round(hits / len(cases), 5)


if __name__ == "__main__":
    main()
