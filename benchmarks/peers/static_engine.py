"""Exports runs for ExecuTorch or LiteRT and checks them in its runtime; other_engines.py starts it.

--presets DIR holds a run of each preset, of which only parity is asked; --run NAME=FOLDER is exported whole. The last
line is JSON.
"""

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from lsan.data.dataset import Dataset
from lsan.errors import BundleError, ConfigError
from lsan.export.static_export import export_static


def main() -> None:
    """Export everything, and report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", required=True)
    parser.add_argument("--presets", type=Path, required=True)
    parser.add_argument("--run", action="append", default=[])
    parser.add_argument("--dataset", action="append", default=[])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    datasets = dict(text.split("=", 1) for text in arguments.dataset)
    found: dict[str, Any] = {"presets": {}, "runs": {}}
    for folder in sorted(arguments.presets.iterdir()):
        found["presets"][folder.name] = exported(arguments.engine, folder, None)
    for text in arguments.run:
        name, folder = text.split("=", 1)
        found["runs"][name] = exported(arguments.engine, Path(folder), datasets.get(name))
    print(json.dumps(found))


def exported(engine: Any, folder: Path, dataset: str | None) -> dict[str, Any]:
    """What `lsan export` finds, or why there is no such file."""
    with tempfile.TemporaryDirectory(prefix="lsan-benchmark-") as out:
        try:
            result = export_static(
                folder,
                Path(out) / "model",
                engine=engine,
                dataset=None if dataset is None else Dataset.open(Path(dataset)),
            )
        except (BundleError, ConfigError) as error:
            return {"refused": str(error)}
    line: dict[str, Any] = {"engine": result.engine, "bytes": result.parts, "difference": result.difference}
    if result.agreement is not None and result.report is not None and result.latency is not None:
        accuracy = result.report.unseen_items.accuracy
        line |= {
            "histories": asdict(result.agreement),
            "microseconds": {"median": result.latency[0], "p99": result.latency[1]},
            **{metric: accuracy[metric].mean for metric in ("HR@10", "nDCG@10")},
        }
    return line


if __name__ == "__main__":
    main()
