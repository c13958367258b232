"""Items that came after training: how well they are recommended when `lsan add-items` has added them.

    python benchmarks/new_items.py beauty [--recipe FILE] [--seed 0] [--plan] [--threads 1]

A random 5% of the items are hidden: their events are dropped from the log, a model is trained on the rest, and the
items are added to it by `add_items`, from category and words (titles; on Beauty and Sports, numbered attributes) and up
to ten of their training events, whose neighbours are their company. Then every item is ranked on the test cases of the
whole log. Beside it: full retraining, the run of the same recipe and seed in accuracy-DATASET.json; and two forms of
popularity in the category of the last event. In one a new item counts as the items of its category do on average, and
each of its told events more; in the other new items come first, by those events. --plan compresses the model before
items are added.

Trains into runs/new-items-DATASET/ (what is there is resumed, or used as it is), and writes
benchmarks/results/new-items-DATASET.json, which keeps what other runs of this script found.
"""

import argparse
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from accuracy import dataset_of
from kept_runs import KeptRuns
from lsan.answers import RawId
from lsan.comparison.entries import Entry, find_entries
from lsan.compression.compress import Compression, Plan
from lsan.compression.new_items import add_items
from lsan.config import Recipe
from lsan.data.catalogue import Catalogue
from lsan.data.dataset import Dataset, write_dataset
from lsan.data.splits import Cases, Split
from lsan.data.windows import HistoryReader
from lsan.evaluation.metrics import hit_rate, ndcg
from lsan.evaluation.ranking import Scorer, rank_cases
from lsan.evaluation.significance import bootstrap_interval
from lsan.experiment import Observer, history_reader, make_split, resume_run, start_run
from lsan.export.bundle import shipped_parts
from lsan.files import write_atomically
from lsan.models.events import near_pairs, training_events
from lsan.models.histories import Histories
from lsan.models.item_tables.warm_start import NEAR
from lsan.models.network import Network
from lsan.runs import Run, RunHeader, load_run
from provenance import ROOT, provenance

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

#: Share of the items that are hidden, and the seed that chooses them and their events.
SHARE, SEED = 0.05, 7
#: Training events of each hidden item that are told when it is added.
TOLD = (0, 1, 3, 10)
#: Test cases whose scores are compared before and after.
CHANGES = 1000
#: With --plan.
PLAN = Plan(width=64, tables=16)
#: Columns of the item files, in the shared data: category, and what has words.
COLUMNS = {"beauty": ("category", "attributes"), "sports": ("category", "attributes"), "ml-1m": ("genres", "title")}


def main() -> None:
    """Train what is missing, add the items, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("dataset", choices=COLUMNS)
    parser.add_argument("--recipe", help="recipe file or preset; default recipes/DATASET/lsan.toml or the preset lsan")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plan", action="store_true", help=f"compress to {PLAN.name} before items are added")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    entry = entry_of(arguments.dataset, arguments.recipe, arguments.seed)
    folder = ROOT / "runs" / f"new-items-{arguments.dataset}"
    whole = dataset_of(arguments.dataset)
    hidden = hidden_items(whole)
    after, before = renumbered(whole, hidden, folder, arguments.dataset)
    run = trained(before, entry, folder, compress=arguments.plan)
    name = f"{entry.label}-{PLAN.name}" if arguments.plan else entry.label
    result = {
        **measure(run, after, len(before.catalogue)),
        "hidden items": int(hidden.sum()),
        "bytes": sum(shipped_parts(run).values()),
        "retrained": retrained(entry, whole, hidden, arguments.dataset),
        **provenance(),
    }
    path = ROOT / "benchmarks" / "results" / f"new-items-{arguments.dataset}.json"
    kept = json.loads(path.read_bytes()) if path.exists() else {}
    content = {"dataset": arguments.dataset, "content_hash": whole.content_hash, "share": SHARE, "seed": SEED}
    models = kept["models"] if {key: kept.get(key) for key in content} == content else {}
    content["models"] = {**models, name: result}
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())
    for key, one in {**result["figures"], "retrained": result["retrained"]}.items():
        if one is not None:
            means = [f"{part} {one[part]['HR@10'][0]:.4f} / {one[part]['nDCG@10'][0]:.4f}" for part in one]
            print(f"{key}: HR@10 / nDCG@10 of {', '.join(means)}")
    print(f"written {path.relative_to(ROOT)}")


def entry_of(dataset: str, recipe: str | None, seed: int) -> Entry:
    """What is trained."""
    own = ROOT / "recipes" / dataset / "lsan.toml"
    names = find_entries([recipe or (str(own) if own.exists() else "lsan")], seeds=seed + 1)
    return names[-1]


def hidden_items(dataset: Dataset) -> npt.NDArray[np.bool_]:
    """Which items [V + 1] are hidden: some of those with a training event or a test case."""
    split = make_split(dataset, Recipe().split)
    used = np.union1d(training_events(dataset, split)[1], dataset.items[split.test.stop])
    hidden = np.zeros(len(dataset.catalogue) + 1, dtype=np.bool_)
    hidden[np.random.default_rng(SEED).choice(used, round(SHARE * len(used)), replace=False)] = True
    return hidden


def new_numbers(hidden: npt.NDArray[np.bool_]) -> IntArray:
    """The number of each item when the hidden ones come last; 0 stays. Shape [V + 1]."""
    order = np.concatenate([[0], 1 + np.argsort(hidden[1:], kind="stable")])
    numbers = np.empty_like(order)
    numbers[order] = np.arange(len(order))
    return numbers


def renumbered(dataset: Dataset, hidden: npt.NDArray[np.bool_], folder: Path, name: str) -> tuple[Dataset, Dataset]:
    """The dataset with the hidden items last, and the one without them, with categories and words."""
    order = np.argsort(hidden[1:], kind="stable")
    catalogue = described(dataset, name)[order]
    items = new_numbers(hidden)[dataset.items].astype(np.int32)
    known = int((~hidden[1:]).sum())
    for part, kept, size in (("after", np.ones(len(items), np.bool_), len(order)), ("before", items <= known, known)):
        if (folder / part).exists():
            continue
        write_dataset(
            folder / part,
            offsets=np.concatenate([[0], np.cumsum(kept)])[dataset.offsets],
            items=items[kept],
            timestamps=None if dataset.timestamps is None else dataset.timestamps[kept],
            catalogue=catalogue[:size],
            users=pl.DataFrame({"id": dataset.user_ids()}),
            summary={"made from": dataset.content_hash},
        )
    return Dataset.open(folder / "after"), Dataset.open(folder / "before")


def described(dataset: Dataset, name: str) -> pl.DataFrame:
    """The catalogue with the categories and words of the item file."""
    category, words = COLUMNS[name]
    shared = Path(os.environ.get("LSAN_SHARED_DATA", ROOT.parent / "shared" / "data"))
    file = pl.read_csv(shared / name / "items.csv.gz", infer_schema=False)
    table = file.select(
        pl.col("item").alias("key"), category=pl.col(category).str.split("|").list.first(), title=pl.col(words)
    )
    ids = pl.DataFrame({"id": dataset.catalogue.ids}).with_columns(key=pl.col("id").cast(pl.String))
    return ids.join(table, on="key", how="left", maintain_order="left").select("id", "title", "category")


def run_folder(folder: Path, entry: Entry, *, compress: bool) -> Path:
    """Where the model is that items are added to."""
    return folder / f"compressed-{entry.label}" / PLAN.name if compress else folder / entry.label


def trained(before: Dataset, entry: Entry, folder: Path, *, compress: bool) -> Run:
    """The model that has not seen the hidden items, trained if it is not there."""
    device, path = torch.device("cpu"), run_folder(folder, entry, compress=False)
    if path.exists():
        if RunHeader.read(path).recipe != entry.recipe:
            raise SystemExit(f"{path} was trained by another recipe: delete it")
        resume_run(path, before, device=device, observer=Observer())
    else:
        start_run(before, entry.recipe, path, device=device, observer=Observer())
    if compress:
        goal = run_folder(folder, entry, compress=True)
        goal.parent.mkdir(parents=True, exist_ok=True)
        teachers = [load_run(path, device=device)]
        path = Compression(
            teachers=teachers, dataset=before, folder=goal.parent, device=device, observer=Observer()
        ).run(PLAN)
    return load_run(path, device=device)


def measure(run: Run, after: Dataset, known: int) -> dict[str, Any]:
    """Figures of the run with the new items added, of the baselines, and by how much scores of other items moved."""
    split, catalogue = make_split(after, run.header.recipe.split), after.catalogue
    reader = history_reader(after, split, run.header)
    new = Catalogue(ids=catalogue.ids[known:], titles=catalogue.titles[known:], categories=catalogue.categories[known:])
    users, events = training_events(after, split)
    figures, changes = {}, []
    for told in TOLD:
        shown = told_events(events, known, told)
        larger = add_items(run, new, company_of(users, events, shown, catalogue.ids, known)).network
        counts = np.bincount(events[(events <= known) | shown], minlength=len(catalogue) + 1)[1:]
        scorers: dict[str, Scorer] = {
            "added": larger,
            "popularity in category": CategoryPopularity(counts, catalogue.category_of_item, known, new_first=False),
            "new items of the category first": CategoryPopularity(
                counts, catalogue.category_of_item, known, new_first=True
            ),
        }
        for name, scorer in scorers.items():
            figures[f"{name}, {told} events told"] = figures_of(scorer, after, split, reader, known)
        changes.append(largest_change(run.network, larger, after, split.test.spread(CHANGES), reader))
    return {"figures": figures, "largest change of another item's score": max(changes)}


def told_events(events: IntArray, known: int, told: int) -> npt.NDArray[np.bool_]:
    """Which training events are of new items and are told: at most `told` of each, at random. Shape [events]."""
    order = np.random.default_rng(SEED).permutation(len(events))
    order = order[np.argsort(events[order], kind="stable")]
    place = np.arange(len(order)) - np.searchsorted(events[order], events[order])
    shown = np.zeros(len(events), dtype=np.bool_)
    shown[order] = place < told
    return shown & (events > known)


def company_of(
    users: IntArray, events: IntArray, shown: npt.NDArray[np.bool_], ids: Sequence[RawId], known: int
) -> dict[RawId, dict[RawId, float]]:
    """How often each new item was near to which known ones, by its told events."""
    company: dict[RawId, dict[RawId, float]] = defaultdict(lambda: defaultdict(float))
    places = np.arange(len(events))
    for earlier, later, distance in near_pairs(users, places, NEAR):
        for one, other in ((earlier, later), (later, earlier)):
            pair = shown[one] & (events[other] <= known)
            for item, neighbour in zip(events[one[pair]].tolist(), events[other[pair]].tolist(), strict=True):
                company[ids[item - 1]][ids[neighbour - 1]] += 1 / distance
    return company


class CategoryPopularity:
    """Items of the category of the last event first, by their events; then the others, by theirs."""

    def __init__(self, events: IntArray, categories: npt.NDArray[np.int32], known: int, *, new_first: bool) -> None:
        """
        Args:
            events: how many events of each item 1..V are known (entry v - 1).
            categories: category of each item, 0 for padding. Shape [V + 1].
            known: items after the first `known` are new.
            new_first: new items come before the others of their category; if not, each has beside its events the mean
                number of the others'. Equal ones are in a random order: ranks that tie would all miss the first ten.
        """
        category, old = categories[1:], np.arange(len(events)) < known
        if new_first:
            more = np.full(len(events), events.max() + 1.0)
        else:
            of_category = np.bincount(category[old], weights=events[old], minlength=categories.max() + 1)
            more = (of_category / np.bincount(category[old], minlength=len(of_category)).clip(min=1))[category]
        more += np.random.default_rng(SEED).random(len(events)) / 2
        self.popularity = torch.from_numpy(np.where(old, events, events + more))
        self.categories = torch.from_numpy(categories.astype(np.int64))

    def scores(self, histories: Histories) -> Float[Tensor, "batch items"]:
        inside = self.categories[1:] == self.categories[histories.items[:, -1:]]
        return self.popularity + inside * (self.popularity.max() + 1)


def figures_of(scorer: Scorer, dataset: Dataset, split: Split, reader: HistoryReader, known: int) -> dict[str, Any]:
    """HR@10 and nDCG@10 over the test cases that ask for a new item, and over the others."""
    rankings = rank_cases(
        scorer, dataset, split.test, reader, known_items=None, device=torch.device("cpu"), lists=False
    )  # fmt: skip
    return by_answer(rankings.unseen_items.ranks, dataset.items[split.test.stop] > known, split.test.users)


def by_answer(ranks: FloatArray, new: npt.NDArray[np.bool_], users: IntArray) -> dict[str, Any]:
    """[mean, low, high] of the figures over the cases whose answer is new, and over the others."""
    figures: dict[str, Any] = {}
    for name, cases in (("new items", new), ("other items", ~new)):
        values = np.stack([hit_rate(ranks[cases], 10), ndcg(ranks[cases], 10)], axis=1)
        low, high = bootstrap_interval(values, users[cases])
        bounds = zip(values.mean(0).tolist(), low.tolist(), high.tolist(), strict=True)
        figures[name] = {"cases": int(cases.sum()), **dict(zip(("HR@10", "nDCG@10"), map(list, bounds), strict=True))}
    return figures


def largest_change(before: Network, after: Network, dataset: Dataset, cases: Cases, reader: HistoryReader) -> float:
    """By how much the score of an item that was there before differs, over histories without new items."""
    known, most = len(before.popularity), 0.0
    for start, stop in zip(cases.start.tolist(), cases.stop.tolist(), strict=True):
        if dataset.items[start:stop].max() <= known:
            window = reader.read(np.array([start]), np.array([stop]))
            histories = Histories.of(window, np.zeros(1, dtype=np.int64))
            with torch.inference_mode():
                change = before.scores(histories) - after.scores(histories)[:, :known]
            most = max(most, float(change.abs().max()))
    return most


def retrained(entry: Entry, whole: Dataset, hidden: npt.NDArray[np.bool_], name: str) -> dict[str, Any] | None:
    """Figures of the run of that recipe and seed that has seen all items, if accuracy-DATASET.json has it."""
    kept = KeptRuns(ROOT / "benchmarks" / "results" / f"accuracy-{name}.json", whole).outcomes([entry])
    if entry.label not in kept:
        return None
    outcome, split = kept[entry.label], make_split(whole, entry.recipe.split)
    if not np.array_equal(outcome.users, split.test.users):
        raise SystemExit(f"{entry.label} was evaluated on other cases")
    return by_answer(outcome.ranks["unseen items"], hidden[whole.items[split.test.stop]], split.test.users)


if __name__ == "__main__":
    main()
