"""Tables 3 and 4 of the LSAN paper beside ours: compression by digits and by learnt codes, and the ablation.

    python benchmarks/paper_tables.py beauty [--only NAME ...] [--seeds 3] [--jobs 1] [--threads 1]

Every model is recipes/paper-DATASET.toml (the preset `paper` with its epochs capped) with one change, so several days
can have a part each. Trains into runs/paper-tables-DATASET/ (what is there is resumed, or used as it is), evaluates
each run on the test cases once, and keeps it in benchmarks/results/paper-tables-DATASET.json and .ranks.parquet. Learnt
codes are those of frontier-DATASET.json.

Digits are those of three numbers: of the item's index, as in the paper (which leaks held-out events in these files), of
an index that is shuffled first, and of ours from training co-occurrence. Digits begin with random rows, and so does the
full table beside them; what first vectors from co-occurrence do for it is a row of its own.

Dynamic composition cannot be switched off alone: without the context its fusion with the item's vector goes too. Nor
can twin attention's branches. A convolution over one event stands for attention alone. For convolution alone the
nearest is BSARec's encoder, whose frequency filter is one over the whole history: alone, mixed with attention, without.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from accuracy import dataset_of
from kept_runs import KeptRuns
from lsan.comparison.entries import Entry
from lsan.comparison.outcomes import Outcome, check_runs, find_outcome
from lsan.comparison.rows import compare
from lsan.config import load_recipe, recipe_from, recipe_to
from lsan.data.dataset import Dataset, write_dataset
from lsan.evaluation.metrics import accuracy
from lsan.evaluation.significance import paired_bootstrap
from lsan.experiment import Observer
from lsan.presets import load_preset
from provenance import ROOT, provenance
from side_by_side import in_processes

RATES, SEEDS = (2, 3, 4, 5), 3

#: nDCG@20 (paper, Table 3) by rate of compression, and of SASRec.
TABLE_3 = {
    "beauty": {2: 0.0515, 3: 0.0385, 4: 0.0158, 5: 0.0178, "SASRec": 0.0372},
    "sports": {2: 0.0334, 3: 0.0249, 4: 0.0154, 5: 0.0125, "SASRec": 0.0208},
}
#: nDCG@20 (paper, Table 4).
TABLE_4 = {
    "beauty": {"without dynamic composition": 0.038, "plain attention": 0.045, "LSAN": 0.051},
    "sports": {"without dynamic composition": 0.033, "plain attention": 0.030, "LSAN": 0.033},
}

_PAPER = recipe_to(load_preset("paper"))["model"]

#: What is changed in [model] of the preset `paper`, by name of the model.
CHANGES: dict[str, dict[str, Any]] = {
    "full": {"table": {"kind": "full", "first_vectors": "random"}},
    "full-co-occurrence": {"table": {"kind": "full", "first_vectors": "co-occurrence"}},
    **{
        f"{name}-{rate}": {"table": {"kind": "composed", "radices": [rate], "digits_of": digits_of}}
        for name, digits_of in (("co-occurrence", "co-occurrence"), ("shuffled", "index"), ("index", "index"))
        for rate in RATES
    },
    "no-context": {"context": None},
    "attention-alone": {"encoder": {**_PAPER["encoder"], "window": 1}},
    **{
        f"bsarec-{name}": {"encoder": {"kind": "bsarec", "heads": 2, "blocks": 1, "alpha": alpha}}
        for name, alpha in (("filter-alone", 1.0), ("both", 0.7), ("attention-alone", 0.0))
    },
}

#: Rows of Table 4 by what we call them.
ABLATION = {
    "LSAN": "co-occurrence-2",
    "without dynamic composition": "no-context",
    "plain attention": "attention-alone",
    "BSARec's encoder instead": "bsarec-both",
    "BSARec's encoder, attention alone": "bsarec-attention-alone",
    "BSARec's encoder, filter alone": "bsarec-filter-alone",
}


def main() -> None:
    """Train what is missing, evaluate it, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("dataset", choices=TABLE_3)
    parser.add_argument("--only", nargs="+", choices=CHANGES, metavar="NAME", help=", ".join(CHANGES))
    parser.add_argument("--seeds", type=int, default=SEEDS, help="train no more than these")
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    name, folder = arguments.dataset, ROOT / "runs" / f"paper-tables-{arguments.dataset}"
    dataset = dataset_of(name)
    planned = [entry_of(name, model, seed) for seed in range(SEEDS) for model in CHANGES]
    if arguments.one is not None:
        entry = next(entry for entry in planned if entry.label == arguments.one)
        _find(entry, dataset, folder)
        return
    path = ROOT / "benchmarks" / "results" / f"paper-tables-{name}.json"
    kept = KeptRuns(path, dataset)
    there = kept.outcomes(planned)
    missing = [
        entry
        for entry in planned
        if entry.label not in there
        and entry.name in (arguments.only or CHANGES)
        and entry.recipe.seed < arguments.seeds
    ]
    for entry in missing:
        check_runs([entry], numbered_for(entry, dataset, folder), folder)
    for entry in in_processes(missing, folder, arguments.jobs):
        kept.add(
            _find(entry, dataset, folder), {"jobs": arguments.jobs, "threads_a_job": arguments.threads, **provenance()}
        )
        _write(kept, planned, dataset, path, name)
        print(f"{entry.label} is done", flush=True)
    _write(kept, planned, dataset, path, name)


def entry_of(dataset: str, model: str, seed: int) -> Entry:
    """The recipe for that dataset with that model's change."""
    content = recipe_to(load_recipe(ROOT / "recipes" / f"paper-{dataset}.toml"))
    content["model"] |= CHANGES[model]
    return Entry(name=model, recipe=recipe_from(content, where=model).with_seed(seed), baseline=False)


def numbered_for(entry: Entry, dataset: Dataset, folder: Path) -> Dataset:
    """The dataset; for digits of a shuffled index the same one with its items numbered at random."""
    if not entry.name.startswith("shuffled"):
        return dataset
    path, items = folder / "shuffled", len(dataset.catalogue)
    if not path.exists():
        order = np.random.default_rng(0).permutation(items)
        numbers = np.empty(items + 1, dtype=np.int32)
        numbers[order + 1] = np.arange(1, items + 1)
        write_dataset(
            path,
            offsets=dataset.offsets,
            items=numbers[dataset.items],
            timestamps=dataset.timestamps,
            catalogue=pl.read_ipc(dataset.path / "catalogue.arrow")[order],
            users=pl.read_ipc(dataset.path / "users.arrow"),
            summary={"shuffled from": dataset.content_hash},
        )
    return Dataset.open(path)


def _find(entry: Entry, dataset: Dataset, folder: Path) -> Outcome:
    numbered = numbered_for(entry, dataset, folder)
    return find_outcome(entry, numbered, "test", folder, device=torch.device("cpu"), observer=Observer())


def _write(kept: KeptRuns, planned: list[Entry], dataset: Dataset, path: Path, name: str) -> None:
    """Both tables, and all runs that are kept."""
    outcomes = list(kept.outcomes(planned).values())
    if not outcomes:
        return
    comparison = compare(outcomes, dataset, "test")
    rows = {row["name"]: row for row in comparison.to_json()["rows"]}
    frontier = ROOT / "benchmarks" / "results" / f"frontier-{name}.json"
    learnt = json.loads(frontier.read_bytes())["rows"] if frontier.exists() else []
    tables = {
        "table 3, nDCG@20": table_3(TABLE_3[name], rows),
        "table 3, learnt codes, nDCG@10": learnt_codes(learnt),
        "table 4, nDCG@20": table_4(TABLE_4[name], rows, differences(outcomes, ABLATION["LSAN"])),
    }
    kept.write(comparison, **tables)
    print(f"written {path.relative_to(ROOT)}", flush=True)


def table_3(paper: Mapping[Any, float], rows: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a rate of compression, 1 for the full table: the paper's figure, and ours by what the digits are of."""
    table = [
        {
            "rate": 1,
            "full table": figure_of(rows.get("full")),
            "first vectors from co-occurrence": figure_of(rows.get("full-co-occurrence")),
            "paper's SASRec": paper["SASRec"],
        }
    ]
    for rate in RATES:
        ours = {name: figure_of(rows.get(f"{name}-{rate}")) for name in ("co-occurrence", "shuffled", "index")}
        table.append({"rate": rate, "paper": paper[rate], **ours})
    return table


def table_4(
    paper: Mapping[str, float], rows: Mapping[str, Any], less: Mapping[str, list[float]]
) -> list[dict[str, Any]]:
    """One row a change: the paper's figure where it has one, ours, and ours less that of the whole model."""
    return [
        {"model": name, "paper": paper.get(name), "ours": figure_of(rows.get(model)), "less LSAN": less.get(model)}
        for name, model in ABLATION.items()
    ]


def differences(outcomes: Sequence[Outcome], other: str) -> dict[str, list[float]]:
    """nDCG@20 of each model less that of the other on the same cases, the user's own items left out: mean, and its 95%
    bootstrap interval over users. Each case counts by its mean over seeds. Nothing where the other is not there."""
    by_model: dict[str, list[Any]] = {}
    for outcome in outcomes:
        ranks = outcome.ranks["unseen items"]
        by_model.setdefault(outcome.entry.name, []).append(accuracy(ranks)["nDCG@20"])
    means = {model: np.mean(by_seed, axis=0)[:, None] for model, by_seed in by_model.items()}
    found = {}
    for model in means.keys() - {other} if other in means else ():
        difference = paired_bootstrap(means[model], means[other], outcomes[0].users)
        found[model] = [round(float(x[0]), 4) for x in (difference.mean, difference.low, difference.high)]
    return found


def figure_of(row: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Mean over seeds of nDCG@20 with its interval, under both policies; None where there is no run yet."""
    if row is None:
        return None
    figures = {policy: by_name["nDCG@20"] for policy, by_name in row["accuracy"].items()}
    return {
        "seeds": len(row["seeds"]),
        "bytes": row["costs"]["bytes"],
        **{policy: [round(one[key], 4) for key in ("mean", "low", "high")] for policy, one in figures.items()},
    }


def learnt_codes(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Compressed models of the frontier, the largest first: how many times smaller, and the share that is kept."""
    figures = {row["name"]: row["accuracy"]["unseen items"]["nDCG@10"] for row in rows}
    sizes = {row["name"]: row["costs"]["bytes"] for row in rows}
    return [
        {
            "model": row["name"],
            "seeds": len(row["seeds"]),
            "times smaller": round(sizes["before"] / sizes[row["name"]], 1),
            "bytes": sizes[row["name"]],
            "unseen items": [round(figures[row["name"]][key], 4) for key in ("mean", "low", "high")],
            "kept": round(figures[row["name"]]["mean"] / figures["before"]["mean"], 3),
        }
        for row in sorted(rows, key=lambda row: -sizes[row["name"]])
    ]


if __name__ == "__main__":
    main()
