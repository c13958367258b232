"""A catalogue of a million items: the model's bytes, the memory and time of its training, its accuracy.

    python benchmarks/million.py [--items 1000000] [--threads 2] [--cases 2000]

Simulates a log with a long tail (5 events an item), prepares it, trains recipes/million/lsan.toml by `lsan train` in a
process that is limited to 8 GB of address space, and whose peak memory is the largest resident set that the kernel saw,
and ranks all items on a sample of the test cases, beside baselines that count. What is there in runs/million-ITEMS/ is
used; the result is benchmarks/results/million.json, or million-ITEMS.json for another number of items.
"""

import argparse
import dataclasses
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from lsan.config import Recipe, load_recipe, recipe_to
from lsan.data.dataset import Dataset
from lsan.data.prepare import prepare_dataset
from lsan.evaluation.latency import recommendation_microseconds
from lsan.evaluation.ranking import Scorer
from lsan.experiment import evaluate, history_reader, make_split
from lsan.export.bundle import make_bundle
from lsan.files import write_atomically
from lsan.models.baselines import BASELINES
from lsan.runs import MODEL, RunHeader, load_run
from lsan.runtime.file import VOCABULARY
from provenance import ROOT, provenance

IntArray = npt.NDArray[np.int64]

SEED = 20_211
ITEMS = 1_000_000
#: Items of a cluster and of a user, on average; a user has so many events and five more.
ITEMS_A_CLUSTER, ITEMS_A_USER, EVENTS_A_USER = 500, 4, 15
#: How often a user's four tastes are followed, and an event stays in the cluster of the one before.
TASTES, STAYS = (0.4, 0.3, 0.2, 0.1), 0.6
#: How often an event that stays is one of the next three items of the cluster, instead of one by popularity.
FOLLOWS = 0.1
#: What is asked of a million items.
TARGET = {"bytes": 12_000_000, "peak_bytes": 8_000_000_000}


def main() -> None:
    """Make what is missing, measure it, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of training and evaluation")
    parser.add_argument("--cases", type=int, default=2000, help="test cases that are ranked")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    folder = ROOT / "runs" / f"million-{arguments.items}"
    recipe_path = ROOT / "recipes" / "million" / "lsan.toml"
    recipe = load_recipe(recipe_path)
    dataset = prepared(folder / "dataset", arguments.items)
    training = train(dataset, recipe_path, recipe, folder / "run", threads=arguments.threads)
    result = {
        "what": "leave-one-out, every item ranked but those of the user's history, ties count half; "
        "[mean, low, high] with 95% bootstrap over users",
        "target": TARGET,
        "data": facts(dataset),
        "training": training,
        "model": model_facts(folder / "run"),
        "test": test(folder / "run", dataset, recipe, arguments.cases),
        "recipe": recipe_to(recipe),
        **provenance(),
    }
    name = "million" if arguments.items == ITEMS else f"million-{arguments.items}"
    path = ROOT / "benchmarks" / "results" / f"{name}.json"
    write_atomically(path, (json.dumps(result, indent=1) + "\n").encode())
    print(f"written {path.relative_to(ROOT)}")


def simulate(items: int, users: int, seed: int) -> pl.DataFrame:
    """A log (user, item, timestamp) in which every item has an event.

    Items stand on a ring of clusters of log-normal sizes. A user has four of these: where a random item is, two nearby,
    and one anywhere. An event stays in the cluster of the one before or goes to one of the four, and takes the item at
    place r with probability about 1 / (r + 1), or one of the three after the item before. Then, in each cluster, as
    many random events as it has items are given to one item each.
    """
    random = np.random.default_rng(seed)
    share = random.lognormal(0.0, 1.0, max(1, items // ITEMS_A_CLUSTER))
    end = np.round(np.cumsum(share / share.sum()) * items).astype(np.int64)
    size = np.diff(end, prepend=0)
    home = random.integers(0, items, users)
    nearby = [home + random.normal(0, items / 50, users).round().astype(np.int64) for _ in range(2)]
    tastes = np.searchsorted(end, np.stack([home, *nearby, random.integers(0, items, users)]) % items, side="right")
    lengths = np.sort(5 + random.exponential(EVENTS_A_USER, users).astype(np.int64).clip(max=95))[::-1]
    cluster = place = np.full(users, -1)
    clusters, places, active = [], [], users - np.searchsorted(lengths[::-1], np.arange(lengths[0]), side="right")
    for here in active:
        before, last = cluster[:here], place[:here]
        taste = tastes[random.choice(len(TASTES), here, p=TASTES), np.arange(here)]
        cluster = np.where((before >= 0) & (random.random(here) < STAYS), before, taste)
        place = np.exp(random.random(here) * np.log(size[cluster] + 1)).astype(np.int64) - 1
        follows = (before == cluster) & (random.random(here) < FOLLOWS)
        place = np.where(follows, last + random.integers(1, 4, here), place) % size[cluster]
        clusters.append(cluster)
        places.append(place)
    cluster, place = np.concatenate(clusters), np.concatenate(places)
    sell_each_once(cluster, place, size, random)
    return pl.DataFrame(
        {
            "user": np.concatenate([np.arange(here) for here in active]),
            "item": (random.permutation(items) + 1)[end[cluster] - size[cluster] + place],
            "timestamp": 1_600_000_000 + np.repeat(np.arange(len(active)) * 3600, active),
        }
    )


def sell_each_once(cluster: IntArray, place: IntArray, size: IntArray, random: np.random.Generator) -> None:
    """Change `place` so that in each cluster every place below `size` is there; the events that change are random."""
    order = np.lexsort((random.random(len(cluster)), cluster))
    count = np.bincount(cluster, minlength=len(size))
    if (count < size).any():
        raise ValueError("a cluster has fewer events than items: ask for more users")
    number = np.arange(len(cluster)) - np.repeat(np.cumsum(count) - count, count)
    first = number < size[cluster[order]]
    place[order[first]] = number[first]


def prepared(folder: Path, items: int) -> Dataset:
    """The simulated log as a dataset."""
    if not folder.exists():
        prepare_dataset(simulate(items, items // ITEMS_A_USER, SEED), folder)
    return Dataset.open(folder)


def facts(dataset: Dataset) -> dict[str, Any]:
    """Counts, and how long the tail is."""
    events = np.sort(np.bincount(dataset.items)[1:])[::-1]
    return {
        "users": dataset.users,
        "items": len(events),
        "events": dataset.events,
        "share of events of the commonest 1% of items": float(events[: len(events) // 100].sum() / dataset.events),
        "share of items with at most 2 events": float((events <= 2).mean()),
        "seed": SEED,
        "content_hash": dataset.content_hash,
    }


def train(dataset: Dataset, recipe_path: Path, recipe: Recipe, folder: Path, *, threads: int) -> dict[str, Any]:
    """Train in a fresh process, unless that is done, and measure the process."""
    kept = folder.with_suffix(".json")
    if folder.exists() and kept.exists() and RunHeader.read(folder).recipe == recipe:
        measured: dict[str, Any] = json.loads(kept.read_bytes())
        return measured
    shutil.rmtree(folder, ignore_errors=True)
    command = [str(Path(sys.executable).with_name("lsan")), "train", str(dataset.path), "--recipe", str(recipe_path)]
    command += ["--out", str(folder), "--threads", str(threads), "--device", "cpu"]

    def set_limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (TARGET["peak_bytes"], TARGET["peak_bytes"]))

    started, load = time.perf_counter(), os.getloadavg()
    process = subprocess.Popen(command, preexec_fn=set_limit)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"lsan train failed with exit code {process.returncode}")
    measured = {
        "command": "lsan train",
        "threads": threads,
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "load_average_when_it_began": round(load[0], 2),
        "address_space_limit_bytes": TARGET["peak_bytes"],
        "peak_bytes": usage.ru_maxrss * 1024,
        **{key: value for key, value in RunHeader.read(folder).progress.items() if key != "seconds"},
    }
    write_atomically(kept, (json.dumps(measured, indent=1) + "\n").encode())
    return measured


def model_facts(folder: Path) -> dict[str, Any]:
    """Bytes of the run's model file, and of the exported one by part; ids are counted apart."""
    run = load_run(folder, device=torch.device("cpu"))
    parts = make_bundle(run).parts
    return {
        "bytes": sum(parts.values()) - parts.get(VOCABULARY, 0),
        "parts": parts,
        "bytes of model.safetensors": (folder / MODEL).stat().st_size,
        "bytes of a full table": 4 * len(run.catalogue) * run.header.recipe.model.width,
    }


def test(folder: Path, dataset: Dataset, recipe: Recipe, cases: int) -> dict[str, Any]:
    """Figures of the model and of the baselines on the same cases, and how long a recommendation takes."""
    device = torch.device("cpu")
    run, split = load_run(folder, device=device), make_split(dataset, recipe.split)
    split = dataclasses.replace(split, test=split.test.spread(cases))
    scorers: dict[str, Any] = {name: BASELINES[name] for name in ("popularity", "markov", "item-knn")}
    figures: dict[str, Any] = {"cases": len(split.test)}
    for name, make in {"lsan": None, **scorers}.items():
        started = time.perf_counter()
        scorer: Scorer = run.network if make is None else make(dataset, split)
        made = time.perf_counter()
        report = evaluate(scorer, dataset, split, run.header, "test", device=device).unseen_items
        figures[name] = {
            **{key: [one.mean, one.low, one.high] for key, one in report.accuracy.items() if key.endswith("@10")},
            "coverage@10": report.coverage[10],
            "seconds to count": None if make is None else round(made - started, 1),
            "seconds to rank": round(time.perf_counter() - made, 1),
        }
        print(f"{name}: HR@10 {figures[name]['HR@10'][0]:.4f}, nDCG@10 {figures[name]['nDCG@10'][0]:.4f}", flush=True)
    reader = history_reader(dataset, split, run.header)
    figures["lsan"]["microseconds a recommendation, one thread"] = round(
        recommendation_microseconds(run.network, split.test, reader)
    )
    return figures


if __name__ == "__main__":
    main()
