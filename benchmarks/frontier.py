"""Accuracy against bytes: dense tables of 32, 8 and 4 bits, hashing, digits, and learnt codes of each kind.

    python benchmarks/frontier.py beauty --teachers RUN [RUN ...] [--only NAME ...] [--threads 1]

Teachers are finished runs with full item tables on that dataset, such as those in runs/accuracy-DATASET/runs/; the
first of them is the dense model to compare with (`before`), and its seed is that of all that is trained. So other
seeds come from other teachers, a first one of that seed. It replaces a `before` that is kept from another run of that
seed, of another machine for example. Trains into runs/frontier-DATASET/seed-SEED/ (what is there is used), evaluates
each model on the test cases once, and keeps it in benchmarks/results/frontier-DATASET.json and
.ranks.parquet, with a picture. Bytes are those of the exported file without ids, titles and categories.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import torch

from accuracy import REPEATS, dataset_of
from kept_runs import KeptRuns
from lsan.comparison.entries import Entry
from lsan.comparison.outcomes import Costs, Outcome
from lsan.comparison.rows import DECIDER, Comparison, compare
from lsan.compression.compress import Compression, Plan
from lsan.config import Recipe, recipe_from, recipe_to
from lsan.data.dataset import Dataset
from lsan.evaluation.latency import recommendation_microseconds
from lsan.experiment import Observer, evaluate, history_reader, make_split
from lsan.export.bundle import shipped_parts
from lsan.pictures import Point, accuracy_picture
from lsan.runs import load_run
from provenance import ROOT, provenance

_CPU, _VALIDATION = torch.device("cpu"), "validation nDCG@10"

#: Of the students: a second block brings little where histories are short (docs/log.md).
SHAPES = {"beauty": Plan(width=64, blocks=1), "sports": Plan(width=64, blocks=1), "ml-1m": Plan(width=96)}


def students(shape: Plan) -> dict[str, Plan]:
    """Students of several widths with full tables, all in 32 bits."""
    found = (replace(shape, codes="none", width=w, weights=None) for w in (128, shape.width, 48, 32))
    return {plan.name: plan for plan in found}


def plans(shape: Plan) -> dict[str, Plan]:
    """Those of `lsan compress`, by name."""
    found = [
        *(replace(plan, table_bits=bits, weights=4) for plan in students(shape).values() for bits in (8, 4)),
        *(replace(shape, tables=tables) for tables in (4, 8, 16, 24, 32) if shape.width % tables == 0),
        *(replace(shape, tables=16, paired=paired) for paired in (0.4, 0.5, 0.8)),
        *(replace(shape, tables=32, paired=paired) for paired in (0.5, 0.79, 0.87)),
        *(replace(shape, width=w, tables=tables) for w in (64, 48, 32) if w < shape.width for tables in (8, 16)),
        *(replace(shape, codes="additive", tables=tables) for tables in (2, 4, 8, 12)),
        *(replace(shape, codes="quantiles", tables=tables) for tables in (4, 8, 16, 32)),
        *(replace(shape, codes="random", tables=tables) for tables in (4, 8, 16, 32)),
    ]
    return {plan.name: plan for plan in found}


#: Item tables that are not learnt from a student, trained like it and from the same teachers, in 8 bits.
OTHERS: dict[str, dict[str, Any]] = {
    **{f"hashed-{rows}": {"kind": "hashed", "rows": rows} for rows in (500, 1000, 2000, 4000)},
    **{f"digits-{radix}": {"kind": "composed", "radices": [radix], "digits_of": "index"} for radix in (2, 3, 4, 5)},
}


def main() -> None:
    """Train what is missing, evaluate it, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("dataset", choices=SHAPES)
    parser.add_argument("--teachers", type=Path, nargs="+", required=True)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="the others are left out")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    shape = SHAPES[arguments.dataset]
    dense, planned = students(shape), plans(shape)
    names = ["before", *dense, *planned, *OTHERS]
    if unknown := set(arguments.only or ()) - set(names):
        parser.error(f"no model {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    torch.set_num_threads(arguments.threads)
    dataset, repeats = dataset_of(arguments.dataset), arguments.dataset in REPEATS
    teachers = [load_run(teacher, device=_CPU) for teacher in arguments.teachers]
    seed = teachers[0].header.recipe.seed
    folder = ROOT / "runs" / f"frontier-{arguments.dataset}" / f"seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    compression = Compression(teachers=teachers, dataset=dataset, folder=folder, device=_CPU, observer=Observer())
    path = ROOT / "benchmarks" / "results" / f"frontier-{arguments.dataset}.json"
    kept = KeptRuns(path, dataset)
    made = {"teachers": [teacher.name for teacher in arguments.teachers], **provenance()}
    recipes = _recipes(shape, compression.recipe, repeats=repeats)
    for name in names:
        if name not in (arguments.only or [name]) + ["before"]:
            continue
        entry = _entry(name, recipes, seed)
        known = kept.outcomes([entry]).get(entry.label)
        if known and (name != "before" or known.figures[_VALIDATION] == teachers[0].header.progress[_VALIDATION]):
            continue
        if name == "before":
            run = arguments.teachers[0]
        elif name in dense:
            run = compression.student(dense[name])
        elif name in planned:
            run = compression.run(planned[name])
        else:
            run = compression.train(_other(shape, compression.recipe, name), compression.folder / name)
        outcome = _evaluated(entry, run, dataset)
        kept.add(outcome, made)
        row = next(row for row in _write(kept, recipes, dataset, path).rows if row.name == name)
        print(f"{outcome.entry.label}: {row.costs.bytes:,} bytes, {DECIDER} of {len(row.seeds)} seeds "
              f"{row.accuracy[outcome.entry.policy][DECIDER].mean:.4f}", flush=True)  # fmt: skip


def _other(shape: Plan, teacher: Recipe, name: str) -> Recipe:
    """A model of the students' shape with such an item table."""
    content = recipe_to(shape.student(teacher))
    content["model"] |= {"table": OTHERS[name], "quantisation": {"weights": 8, "table": 8}}
    return recipe_from(content, where=name)


def _recipes(shape: Plan, teacher: Recipe, *, repeats: bool) -> dict[str, Recipe]:
    """How every model is made and evaluated, by name."""
    found = {"before": teacher}
    found |= {name: plan.student(teacher) for name, plan in students(shape).items()}
    found |= {name: plan.recipe(teacher) for name, plan in plans(shape).items()}
    found |= {name: _other(shape, teacher, name) for name in OTHERS}
    return {name: msgspec.structs.replace(recipe, exclude_seen=not repeats) for name, recipe in found.items()}


def _entry(name: str, recipes: dict[str, Recipe], seed: int) -> Entry:
    return Entry(name=name, recipe=recipes[name].with_seed(seed), baseline=False)


def _evaluated(entry: Entry, folder: Path, dataset: Dataset) -> Outcome:
    """The run's outcome on the test cases; bytes are those that ship."""
    run = load_run(folder, device=_CPU)
    split = make_split(dataset, entry.recipe.split)
    report = evaluate(run.network, dataset, split, run.header, "test", device=_CPU)
    costs = Costs(
        parameters=sum(parameter.numel() for parameter in run.network.parameters()),
        bytes=sum(shipped_parts(run).values()),
        training_seconds=run.header.progress["seconds"],
        recommendation_microseconds=recommendation_microseconds(
            run.network, split.test, history_reader(dataset, split, run.header)
        ),
    )
    return Outcome(
        entry=entry,
        costs=costs,
        figures={_VALIDATION: run.header.progress[_VALIDATION], **report.to_json()},
        users=report.users,
        ranks={"unseen items": report.unseen_items.ranks, "all items": report.all_items.ranks},
    )


def _write(kept: KeptRuns, recipes: dict[str, Recipe], dataset: Dataset, path: Path) -> Comparison:
    """The table of all models that are kept and were made as they would be now, and the picture."""
    entries = [
        _entry(name, recipes, int(seed))
        for name, _, seed in (label.rpartition("-") for label in kept.runs)
        if name in recipes
    ]
    comparison = compare(list(kept.outcomes(entries).values()), dataset, "test")
    kept.write(comparison)
    _draw(comparison, path.with_suffix(".png"))
    return comparison


def _draw(comparison: Comparison, path: Path) -> None:
    points = []
    for row in comparison.rows:
        figure, series = row.accuracy[comparison.policy][DECIDER], _series(row.name)
        points.append(
            Point(name=row.name, x=row.costs.bytes, y=figure.mean, low=figure.low, high=figure.high, series=series)
        )
    accuracy_picture(points, "bytes of the model file", f"test {DECIDER}", path)


def _series(name: str) -> str:
    """What models the picture joins by a line."""
    kinds = {
        "full-int8": "vectors of 8 bits", "full-int4": "vectors of 4 bits", "full": "vectors of 32 bits",
        "paired": "product codes, some in pairs", "product": "product codes", "additive": "residual codes",
        "quantiles": "codes of quantiles (RecJPQ)", "random": "random codes",
        "hashed": "hashed", "digits": "digits of the index",
    }  # fmt: skip
    return next((series for kind, series in kinds.items() if kind in name), "")


if __name__ == "__main__":
    main()
