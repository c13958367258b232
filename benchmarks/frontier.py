"""Accuracy against bytes: dense tables of 32, 8 and 4 bits, hashing, digits, and learnt codes of each kind.

    python benchmarks/frontier.py beauty --teachers RUN [RUN ...] [--only NAME ...] [--threads 1]

Teachers are finished runs with full item tables on that dataset, such as those in runs/accuracy-DATASET/runs/. Trains
into runs/frontier-DATASET/ (what is there is used), evaluates each model on the test cases once, and keeps it in
benchmarks/results/frontier-DATASET.json, with a picture. Bytes are those of the exported file without ids, titles and
categories.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from accuracy import PLAN, REPEATS, dataset_of
from lsan.compression.compress import Compression, Plan
from lsan.config import Recipe, recipe_from, recipe_to
from lsan.evaluation.report import Report
from lsan.experiment import Observer, evaluate, make_split
from lsan.export.bundle import shipped_parts
from lsan.files import write_atomically
from lsan.pictures import Point, accuracy_picture
from lsan.runs import load_run
from provenance import ROOT, provenance

#: Plans of `lsan compress`.
PLANS = [
    *(Plan(width=width, codes="none", table_bits=bits) for width in (128, 64, 32) for bits in (8, 4)),
    *(Plan(width=64, tables=tables) for tables in (4, 8, 16, 32)),
    *(Plan(width=64, codes="additive", tables=tables) for tables in (2, 4, 8, 12)),
    *(Plan(width=64, codes="quantiles", tables=tables) for tables in (4, 8, 16, 32)),
    *(Plan(width=64, codes="random", tables=tables) for tables in (4, 8, 16, 32)),
    Plan(width=48, tables=16),
    Plan(width=32, tables=16),
    *(Plan(width=96, tables=tables) for tables in (16, 24)),
]

#: Item tables that are not learnt from a student, trained like it and from the same teachers, in 8 bits.
OTHERS: dict[str, dict[str, Any]] = {
    **{f"hashed-{rows}": {"kind": "hashed", "rows": rows} for rows in (500, 1000, 2000, 4000)},
    **{f"digits-{radix}": {"kind": "composed", "radices": [radix], "digits_of": "index"} for radix in (2, 3, 4, 5)},
}


def main() -> None:
    """Train what is missing, evaluate it, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("dataset", choices=PLAN)
    parser.add_argument("--teachers", type=Path, nargs="+", required=True)
    parser.add_argument("--only", nargs="+", choices=[*(plan.name for plan in PLANS), *OTHERS])
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    dataset, device = dataset_of(arguments.dataset), torch.device("cpu")
    folder, path = (
        ROOT / "runs" / f"frontier-{arguments.dataset}",
        ROOT / "benchmarks" / "results" / f"frontier-{arguments.dataset}.json",
    )
    folder.mkdir(parents=True, exist_ok=True)
    compression = Compression(
        teachers=[load_run(teacher, device=device) for teacher in arguments.teachers],
        dataset=dataset, folder=folder, device=device, observer=Observer(),
    )  # fmt: skip
    kept = json.loads(path.read_text()) if path.exists() else {"models": {}}
    models: dict[str, Any] = kept["models"] if kept.get("content_hash") == dataset.content_hash else {}
    repeats = arguments.dataset in REPEATS

    def keep(name: str, run_folder: Path) -> None:
        run = load_run(run_folder, device=device)
        split = make_split(dataset, run.header.recipe.split)
        report: Report = evaluate(run.network, dataset, split, run.header, "test", device=device)
        policy = report.all_items if repeats else report.unseen_items
        models[name] = {
            "bytes": sum(shipped_parts(run).values()),
            "validation nDCG@10": run.header.progress["validation nDCG@10"],
            **{key: [one.mean, one.low, one.high] for key, one in policy.accuracy.items() if key.endswith("@10")},
            "recipe": recipe_to(run.header.recipe),
            "made": provenance(),
        }
        write_atomically(path, (json.dumps(_result(models, dataset.content_hash, arguments), indent=1) + "\n").encode())
        _picture(models, path.with_suffix(".png"))
        print(f"{name}: {models[name]['bytes']:,} bytes, test nDCG@10 {models[name]['nDCG@10'][0]:.4f}", flush=True)

    if "before" not in models:
        keep("before", arguments.teachers[0])
    for plan in PLANS:
        asked = plan.width <= compression.recipe.model.width if arguments.only is None else plan.name in arguments.only
        if asked and plan.name not in models:
            keep(plan.name, compression.run(plan))
    for name, table in OTHERS.items():
        if name not in models and (arguments.only is None or name in arguments.only):
            keep(name, _other(compression, name, table))


def _other(compression: Compression, name: str, table: dict[str, Any]) -> Path:
    """A model of width 64 with such an item table, trained if it is not there."""
    content = recipe_to(Plan(width=64).student(compression.recipe))
    content["model"] |= {"table": table, "quantisation": {"weights": 8, "table": 8}}
    recipe: Recipe = recipe_from(content, where=name)
    return compression.train(recipe, compression.folder / name)


def _result(models: dict[str, Any], content_hash: str, arguments: argparse.Namespace) -> dict[str, Any]:
    teachers = [teacher.name for teacher in arguments.teachers]
    return {"dataset": arguments.dataset, "content_hash": content_hash, "teachers": teachers, "models": models}


def _picture(models: dict[str, Any], path: Path) -> None:
    points = []
    for name, model in models.items():
        mean, low, high = model["nDCG@10"]
        points.append(Point(name=name, x=model["bytes"], y=mean, low=low, high=high))
    accuracy_picture(points, "bytes of the model file", "test nDCG@10", path)


if __name__ == "__main__":
    main()
