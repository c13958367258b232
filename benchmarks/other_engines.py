"""ExecuTorch and LiteRT: every preset and real runs exported, and run in each engine's own runtime beside PyTorch.

    python benchmarks/other_engines.py [--engines executorch litert] [--run beauty=FOLDER --dataset beauty=FOLDER]
        [--environments DIR]

A run of each preset is trained for one epoch on a small simulated shop; `lsan export --to ENGINE` then checks scores
on made-up histories and on those of the test cases, and refuses what the engine cannot run. Runs that are named are
exported likewise: bytes, microseconds from raw ids to titles on one thread, accuracy on the test cases by the engine
itself. Each engine has a virtual environment of its own (benchmarks/peers/ENGINE.txt), made when it is missing.

Writes benchmarks/results/other-engines.json; engines that are not run keep what the file has.
"""

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import torch

from lsan.data.prepare import prepare_dataset
from lsan.data.simulate import ShopConfig, simulate_shop
from lsan.experiment import Observer, start_run
from lsan.files import write_atomically
from lsan.presets import load_preset, preset_names
from provenance import ROOT, provenance
from train_speed import PEERS, Contender, python_of

OUT = ROOT / "benchmarks" / "results" / "other-engines.json"
ENGINES = ["executorch", "litert"]


def main() -> None:
    """Train, export in each environment, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--run", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--dataset", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--environments", type=Path, default=ROOT / "benchmarks" / ".environments")
    arguments = parser.parse_args()
    result = json.loads(OUT.read_text()) if OUT.exists() else {}
    with tempfile.TemporaryDirectory(prefix="lsan-benchmark-") as name:
        train_presets(Path(name))
        for engine in arguments.engines:
            found = measure(engine, Path(name) / "presets", arguments)
            print(json.dumps({engine: found}), flush=True)
            result[engine] = found | {"made": provenance()}
            result["what"] = __doc__.splitlines()[0] if __doc__ else ""
            write_atomically(OUT, (json.dumps(result, indent=1) + "\n").encode())


def train_presets(folder: Path) -> None:
    """A run of each preset, of one epoch, in `folder/presets`."""
    shop = simulate_shop(ShopConfig(users=120, items=60, mean_events=14, seed=3))
    dataset = prepare_dataset(shop.interactions, folder / "dataset", items=shop.items)
    (folder / "presets").mkdir()
    for name in preset_names():
        recipe = load_preset(name)
        recipe = msgspec.structs.replace(recipe, training=msgspec.structs.replace(recipe.training, epochs=1))
        start_run(dataset, recipe, folder / "presets" / name, device=torch.device("cpu"), observer=Observer())


def measure(engine: str, presets: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """What the engine's environment finds."""
    python = python_of(Contender(script="static_engine.py", environment=engine), arguments.environments)
    flags = ["--engine", engine, "--presets", str(presets)]
    for name in ("run", "dataset"):
        flags += [part for text in getattr(arguments, name) for part in (f"--{name}", text)]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [str(python), str(PEERS / "static_engine.py"), *flags], stdout=subprocess.PIPE, text=True, check=True,
        env=variables,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
