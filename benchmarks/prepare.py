"""Time and memory of `lsan prepare`: 2 million events, and 20 million in a process limited to 3 GB.

    python benchmarks/prepare.py [--quick]

Writes benchmarks/results/prepare.json. Each run is a fresh process; seconds are those of the whole process, from start
to exit, peak memory is the largest resident set that the kernel saw (wait4).
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from provenance import ROOT, provenance

SEED = 20_260
CATALOGUE = 50_000
EVENTS_A_USER = 20
#: RLIMIT_AS of the large run: all of the address space, mapped files and unused reservations included.
LIMIT_BYTES = 3_000_000_000
#: What the issue asks of 2 million events.
TARGET = {"seconds": 2.0, "peak_bytes": 800_000_000}


def main() -> None:
    """Run all cases and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=5, help="runs of each 2-million case")
    parser.add_argument("--quick", action="store_true", help="2 million events only, and write no result file")
    arguments = parser.parse_args()
    cases: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="lsan-benchmark-") as name:
        folder = Path(name)
        for events, kind, runs, limit in (
            (2_000_000, "integer", arguments.runs, None),
            (2_000_000, "string", arguments.runs, None),
            (20_000_000, "integer", 1, LIMIT_BYTES),
            (20_000_000, "string", 1, LIMIT_BYTES),
        ):
            if arguments.quick and events > 2_000_000:
                continue
            log = folder / "log.csv"
            write_log(log, events=events, kind=kind)
            results = [run_once(log, folder / "dataset", limit=limit) for _ in range(runs)]
            case = {
                "events": events,
                "ids": kind,
                "log_bytes": log.stat().st_size,
                "address_space_limit_bytes": limit,
                "seconds": [round(result["seconds"], 3) for result in results],
                "median_seconds": round(statistics.median(result["seconds"] for result in results), 3),
                "cpu_seconds": [round(result["cpu_seconds"], 3) for result in results],
                "peak_bytes": max(int(result["peak_bytes"]) for result in results),
            }
            print(json.dumps(case))
            cases.append(case)
    if not arguments.quick:
        report = {
            "command": "lsan prepare log.csv --out dataset",
            "seed": SEED,
            "target_for_2_million": TARGET,
            "cases": cases,
            **provenance(),
        }
        path = ROOT / "benchmarks" / "results" / "prepare.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(report, indent=2) + "\n")


def write_log(path: Path, *, events: int, kind: str) -> None:
    """A log in the order of time: Zipf-distributed items, users equally likely, three years in seconds."""
    rng = np.random.default_rng(SEED)
    weights = np.cumsum(1 / np.arange(1, CATALOGUE + 1))
    ranks = np.searchsorted(weights / weights[-1], rng.random(events))
    log = pl.DataFrame(
        {
            "user_id": rng.integers(1, events // EVENTS_A_USER + 1, events),
            "item_id": (rng.permutation(CATALOGUE) + 1)[ranks],
            "timestamp": np.sort(rng.integers(1_500_000_000, 1_600_000_000, events)),
        }
    )
    if kind == "string":
        user = pl.format("U{}", pl.col("user_id").cast(pl.String).str.zfill(12))
        item = pl.format("B{}", pl.col("item_id").cast(pl.String).str.zfill(9))
        log = log.with_columns(user_id=user, item_id=item)
    log.write_csv(path)


def run_once(log: Path, out: Path, *, limit: int | None) -> dict[str, float]:
    """Run `lsan prepare` in a fresh process and measure it."""
    command = [str(Path(sys.executable).with_name("lsan")), "prepare", str(log), "--out", str(out)]

    def set_limit() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, preexec_fn=set_limit)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"lsan prepare failed with exit code {process.returncode}")
    shutil.rmtree(out)
    return {
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * 1024,
    }


if __name__ == "__main__":
    main()
