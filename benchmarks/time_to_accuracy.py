"""Wall time until SASRec ranks Beauty's validation cases as well as lsan's ever does, by lsan and by RecTools.

    python benchmarks/time_to_accuracy.py [--threads 2] [--minutes 60] [--environments DIR]

Trains the preset sasrec, but without R-Drop, which RecTools has not, to its end, then RecTools' SASRecModel (full
softmax, the same width, blocks, heads, dropout and learning rate, its own batch size, memory that is kept) until it
reaches that figure or its time is up. lsan's seconds include its validation, RecTools' do not. Figures: nDCG@10, full
ranking, items already seen left out.

Writes benchmarks/results/time-to-accuracy.json.
"""

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import torch

from accuracy import dataset_of
from lsan.config import SasRecConfig, recipe_to
from lsan.data.dataset import Dataset
from lsan.data.splits import leave_one_out
from lsan.experiment import Observer, start_run
from lsan.models.events import training_events
from lsan.presets import load_preset
from provenance import ROOT, provenance
from train_speed import CONTENDERS, PEERS, python_of

#: Histories a step: RecTools' default.
BATCH = 128

FIGURE = "validation nDCG@10"

_PRESET = load_preset("sasrec")
RECIPE = msgspec.structs.replace(_PRESET, training=msgspec.structs.replace(_PRESET.training, r_drop=0.0))


def main() -> None:
    """Train both, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=60, help="for the peer")
    parser.add_argument("--environments", type=Path, default=ROOT / "benchmarks" / ".environments")
    arguments = parser.parse_args()
    python = python_of(CONTENDERS["rectools-tuned"], arguments.environments)
    dataset = dataset_of("beauty")
    with tempfile.TemporaryDirectory(prefix="lsan-benchmark-") as name:
        ours = train_ours(dataset, Path(name) / "run", arguments.threads)
        best = max(ours, key=lambda line: line[FIGURE])
        print(f"lsan: {best}", flush=True)
        write_events(dataset, Path(name))
        theirs = train_theirs(python, dataset, Path(name), best[FIGURE], arguments)
    reached = max(line[FIGURE] for line in theirs)
    result = {
        "what": __doc__.splitlines()[0] if __doc__ else "",
        "threads": arguments.threads,
        "minutes_for_the_peer": arguments.minutes,
        "best": {"lsan": best[FIGURE], "rectools": reached},
        "seconds_to_the_best_of_lsan": {"lsan": best["seconds"], "rectools": seconds_to(best[FIGURE], theirs)},
        "seconds_to_the_best_of_rectools": {"lsan": seconds_to(reached, ours), "rectools": seconds_to(reached, theirs)},
        "recipe": recipe_to(RECIPE),
        "batch_of_rectools": BATCH,
        "epochs": {"lsan": ours, "rectools": theirs},
        "data_hash": dataset.content_hash,
        **provenance(),
    }
    path = ROOT / "benchmarks" / "results" / "time-to-accuracy.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key.startswith(("best", "seconds"))}))


def seconds_to(figure: float, records: list[dict[str, Any]]) -> float | None:
    """When an epoch first gave it; None where none did."""
    return next((line["seconds"] for line in records if line[FIGURE] >= figure), None)


def train_ours(dataset: Dataset, run: Path, threads: int) -> list[dict[str, Any]]:
    """The records of all epochs."""
    torch.set_num_threads(threads)
    records: list[dict[str, Any]] = []
    start_run(dataset, RECIPE, run, device=torch.device("cpu"), observer=Observer(epoch=records.append))
    return records


def write_events(dataset: Dataset, folder: Path) -> None:
    """The training events, and the validation cases with their whole histories, as the peer reads them."""
    split = leave_one_out(dataset)
    users, items = training_events(dataset, split)
    pl.DataFrame({"user": users, "item": items}).write_csv(folder / "events.csv")
    cases = split.validation
    histories = [dataset.items[begin:end].tolist() for begin, end in zip(cases.start, cases.stop, strict=True)]
    answers = dataset.items[cases.stop].astype(np.int64)
    pl.DataFrame({"history": histories, "answer": answers}).write_ndjson(folder / "validation.jsonl")


def train_theirs(
    python: Path, dataset: Dataset, folder: Path, goal: float, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """The records of all of RecTools' epochs, which are printed as they come."""
    model, contender = RECIPE.model, CONTENDERS["rectools-tuned"]
    assert isinstance(model.encoder, SasRecConfig)
    options = {
        "data": folder, "examples": dataset.users, "items": len(dataset.catalogue), "history": model.history,
        "width": model.width, "blocks": model.encoder.blocks, "heads": model.encoder.heads, "dropout": model.dropout,
        "batch": BATCH, "learning-rate": RECIPE.training.learning_rate, "threads": arguments.threads,
        "goal": goal, "minutes": arguments.minutes,
    }  # fmt: skip
    flags = [f"--{key}={value}" for key, value in options.items()]
    command = [str(python), str(PEERS / "rectools_to_figure.py"), *flags]
    threads = {"OMP_NUM_THREADS": str(arguments.threads), "CUDA_VISIBLE_DEVICES": ""}
    environment = os.environ | threads | contender.variables
    records = []
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            if line.startswith("{"):
                records.append(json.loads(line))
                print(f"rectools: {line}", end="", flush=True)
    if process.returncode != 0:
        raise SystemExit(f"RecTools failed with exit code {process.returncode}")
    return records


if __name__ == "__main__":
    main()
