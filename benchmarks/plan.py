"""What `lsan plan` foretells, beside measurements: bytes, memory to train and to serve, microseconds.

    python benchmarks/plan.py [--parts training serving] [--rounds 3]

Training: the peak of a process that trains for 12 steps on a made-up log of long histories. Serving: the peak of a
process that loads the bundle of random weights and recommends, and the median of 400 recommendations, one thread; of
seven processes the largest peak and the median of medians. All options are served one after the other, then again, and
the round with the median time counts.

Writes benchmarks/results/plan.json.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import polars as pl
import torch

from lsan.compression.costs import costs, training_bytes
from lsan.compression.sizes import small_run
from lsan.config import Recipe, recipe_from, recipe_to
from lsan.data.prepare import prepare_dataset
from lsan.experiment import Observer, start_run
from lsan.export.bundle import make_bundle, shipped_parts
from lsan.files import write_atomically
from lsan.presets import load_preset
from provenance import ROOT, provenance

FULL = {"kind": "full"}
FOUR, EIGHT = {"weights": 4, "table": 4, "bias": 4}, {"weights": 8, "table": 8, "bias": 8}
STEPS, PROCESSES = 12, 7


def coded(tables: int) -> dict[str, Any]:
    return {"kind": "coded", "tables": tables, "rows": 256}


#: Items, events, width, history, batch, regime, item table.
TRAININGS = [
    (12_000, 200_000, 64, 50, 512, "prefix", FULL),
    (12_000, 200_000, 128, 50, 512, "prefix", FULL),
    (12_000, 200_000, 64, 50, 256, "prefix", FULL),
    (12_000, 200_000, 64, 25, 512, "prefix", FULL),
    (12_000, 200_000, 64, 50, 512, "prefix", coded(8)),
    (12_000, 200_000, 128, 200, 32, "causal", FULL),
    (12_000, 200_000, 64, 200, 256, "causal", FULL),
    (50_000, 1_000_000, 64, 50, 512, "prefix", FULL),
    (50_000, 1_000_000, 64, 50, 512, "prefix", coded(16)),
    (150_000, 1_000_000, 64, 50, 512, "prefix", FULL),
]

#: Items, width, history, item table, precision.
SERVED: list[tuple[int, int, int, dict[str, Any], dict[str, Any] | None]] = [
    (12_000, 64, 50, FULL, None),
    (12_000, 64, 50, FULL, EIGHT),
    (12_000, 64, 50, FULL, FOUR),
    (12_000, 64, 50, coded(8), FOUR | {"table": 8}),
    (12_000, 64, 50, coded(16), FOUR | {"table": 8}),
    (12_000, 64, 50, coded(32), FOUR | {"table": 8}),
    (12_000, 32, 50, coded(16), FOUR | {"table": 8}),
    (12_000, 128, 50, coded(16), FOUR | {"table": 8}),
    (12_000, 64, 25, coded(16), FOUR | {"table": 8}),
    (3_000, 64, 200, coded(16), FOUR | {"table": 8}),
    (100_000, 64, 50, FULL, EIGHT),
    (100_000, 64, 50, coded(16), FOUR | {"table": 8}),
    (400_000, 64, 50, coded(8), FOUR | {"table": 8}),
]


def main() -> None:
    """Measure, compare, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--parts", nargs="+", choices=("training", "serving"), default=["training", "serving"])
    parser.add_argument("--rounds", type=int, default=3, help="of serving; memory to train is measured once")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        kind, number = arguments.one[0], int(arguments.one[1])
        print(json.dumps(train(*TRAININGS[number]) if kind == "training" else serve(*SERVED[number])))
        return
    path = ROOT / "benchmarks" / "results" / "plan.json"
    result = json.loads(path.read_text()) if path.exists() else {}
    for part in arguments.parts:
        if part == "training":
            result[part] = [measure(part, number) for number in range(len(TRAININGS))]
        else:
            rounds = [[measure(part, number) for number in range(len(SERVED))] for _ in range(arguments.rounds)]
            result[part] = [
                sorted(found, key=lambda line: float(line["measured"]["microseconds"]))[len(found) // 2]
                for found in zip(*rounds, strict=True)
            ]
        result.setdefault("made", {})[part] = provenance()
    result["what"] = __doc__.splitlines()[0] if __doc__ else ""
    write_atomically(path, (json.dumps(result, indent=1) + "\n").encode())


def measure(part: str, number: int) -> dict[str, Any]:
    """What a process of its own finds."""
    done = subprocess.run(
        [sys.executable, __file__, "--one", part, str(number)], stdout=subprocess.PIPE, text=True, check=True
    )
    line: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(line), flush=True)
    return line


def recipe_of(width: int, history: int, table: dict[str, Any], **changes: Any) -> Recipe:
    content: dict[str, Any] = recipe_to(load_preset("lsan"))
    content["model"] |= {"width": width, "history": history, "table": table} | changes
    return recipe_from(content, where="benchmark")


def train(
    items: int, events: int, width: int, history: int, batch: int, regime: str, table: dict[str, Any]
) -> dict[str, Any]:
    """A training's peak memory, and what was foretold."""
    random = np.random.default_rng(0)
    log = pl.DataFrame(
        {
            "user": random.integers(0, max(1, events // (2 * history)), events),
            "item": random.permutation(np.concatenate([np.arange(items), random.integers(0, items, events - items)])),
            "timestamp": np.arange(events) + 1_600_000_000,
        }
    )
    content: dict[str, Any] = recipe_to(recipe_of(width, history, table, regime=regime))
    content["training"] |= {
        "batch_size": batch,
        "loss": {"kind": "sampled-softmax" if items > 10**5 else "cross-entropy"},
    }
    recipe = recipe_from(content, where="benchmark")
    taken = 0

    def step(epoch: int, step: int, steps: int) -> None:
        nonlocal taken
        taken += 1
        if taken == STEPS:
            raise KeyboardInterrupt

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="lsan-benchmark-") as folder:
        dataset = prepare_dataset(log, Path(folder) / "dataset")
        del log
        with contextlib.suppress(KeyboardInterrupt):
            start_run(dataset, recipe, Path(folder) / "run", device=torch.device("cpu"), observer=Observer(step=step))
    planned = training_bytes(recipe, items, events)
    return {
        "items": items, "events": events, "width": width, "history": history, "batch": batch, "regime": regime,
        "table": table, "measured": peak(), "planned": round(planned), "ratio": planned / peak(),
    }  # fmt: skip


def serve(
    items: int, width: int, history: int, table: dict[str, Any], precision: dict[str, Any] | None
) -> dict[str, Any]:
    """A recommender's size, memory and speed, and what was foretold."""
    recipe = recipe_of(width, history, table, quantisation=precision)
    run = small_run(recipe, items)
    made = make_bundle(run)
    program = """
import json, sys, time
import numpy as np
from lsan.runtime import Recommender
recommender = Recommender.load(sys.argv[1])
items, history = recommender.engine.items, int(sys.argv[2])
random = np.random.default_rng(0)
histories = [random.integers(1, items + 1, history).tolist() for _ in range(100)]
taken = []
for number in range(440):
    begun = time.perf_counter()
    recommender.recommend(histories[number % 100])
    taken.append((time.perf_counter() - begun) * 1e6)
peak = 1024 * int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0])
print(json.dumps([peak, float(np.median(taken[40:])), recommender.engine.instruction_set]))
"""
    with tempfile.TemporaryDirectory(prefix="lsan-benchmark-") as folder:
        path = Path(folder) / "model.lsan"
        path.write_bytes(made.content)
        command = [sys.executable, "-c", program, str(path), str(history)]
        lines = [
            json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
            for _ in range(PROCESSES)
        ]
    held, taken, engine = max(line[0] for line in lines), median(line[1] for line in lines), lines[0][2]
    planned = costs("", recipe, items, 10 * items)
    measured = {"bytes": sum(shipped_parts(run).values()), "memory": held, "microseconds": taken}
    told = {"bytes": planned.shipped, "memory": planned.serving, "microseconds": planned.microseconds}
    return {
        "items": items, "width": width, "history": history, "table": table, "precision": precision, "engine": engine,
        "measured": measured, "planned": told, "ratio": {name: told[name] / measured[name] for name in told},
    }  # fmt: skip


def peak() -> int:
    """The largest resident set of this process so far."""
    return 1024 * int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])


if __name__ == "__main__":
    main()
