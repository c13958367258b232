"""lsan.js in Node beside onnxruntime-web: bytes, milliseconds to the first answer, microseconds of each further one.

    python benchmarks/javascript.py --bundle NAME=FILE.lsan [--onnx NAME=FILE.onnx] [--environments DIR] [--starts 7]

Histories of 50 events of random items, ten items back, one thread, a fresh process for each start. With --onnx, the
same model in onnxruntime-web (what `lsan export FILE.lsan --to onnx` writes), which npm installs when missing. Its
answers are compared with ours. Its times do not count what ours have in them: raw ids, titles, categories. `append` is
one event appended to a session of 49 and the recommendation after it, for models that look back only.

Writes benchmarks/results/javascript.json.
"""

import argparse
import json
import random
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from lsan.files import write_atomically
from lsan.runtime import Recommender
from provenance import ROOT, provenance

OUT = ROOT / "benchmarks" / "results" / "javascript.json"
MODULE = ROOT / "src" / "lsan" / "javascript"
SCRIPT = ROOT / "benchmarks" / "peers" / "recommend.mjs"
PEER = "onnxruntime-web@1.30.0"
HISTORY, QUERIES = 50, 300


def main() -> None:
    """Measure each file, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--bundle", action="append", required=True, metavar="NAME=FILE")
    parser.add_argument("--onnx", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--environments", type=Path, default=ROOT / "benchmarks" / ".environments")
    parser.add_argument("--starts", type=int, default=7)
    arguments = parser.parse_args()
    models = dict(text.split("=", 1) for text in arguments.onnx)
    peer = installed(arguments.environments / "onnxruntime-web") if models else None
    result: dict[str, Any] = {"what": __doc__.splitlines()[0] if __doc__ else ""}
    with tempfile.TemporaryDirectory(prefix="lsan-benchmark-") as folder:
        for name, file in (text.split("=", 1) for text in arguments.bundle):
            found = result[name] = of_file(Path(file), Path(folder), arguments.starts)
            ours = found.pop("answers")
            if peer is not None and name in models:
                theirs = of_peer(Path(file), models[name], peer, Path(folder), arguments.starts)
                same = [one == other for one, other in zip(ours, theirs.pop("answers"), strict=True)]
                found["onnxruntime-web"] = theirs | {"same answers": float(np.mean(same))}
            print(json.dumps({name: found}), flush=True)
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    result["made"] = provenance() | {"node": node, "peer": PEER if peer else None}
    write_atomically(OUT, (json.dumps(result, indent=1) + "\n").encode())


def of_file(path: Path, folder: Path, starts: int) -> dict[str, Any]:
    """lsan.js with a file; `answers` has the item numbers of the first ten."""
    recommender = Recommender.load(path)
    ids = list(recommender.vocabulary.ids)
    histories = [[ids[item - 1] for item in history] for history in histories_of(len(ids))]
    (folder / "ours.json").write_text(json.dumps(histories))
    found = measured(["lsan", str(MODULE / "lsan.js"), str(path), str(folder / "ours.json")], starts)
    found["answers"] = [recommender.vocabulary.indices_of(answer) for answer in found["answers"]]
    sizes = {name: (MODULE / name).stat().st_size for name in ("lsan.wasm", "lsan.js")}
    return {"bytes": sizes | {"model": path.stat().st_size}, **found}


def of_peer(path: Path, model: str, modules: Path, folder: Path, starts: int) -> dict[str, Any]:
    """onnxruntime-web with the same model."""
    histories = list(histories_of(Recommender.load(path).engine.items))
    (folder / "theirs.json").write_text(json.dumps(histories))
    entry, wasm = modules / "ort.node.min.mjs", modules / "ort-wasm-simd-threaded.wasm"
    found = measured(["onnxruntime", str(entry), model, str(folder / "theirs.json")], starts)
    sizes = {path.name: path.stat().st_size for path in (wasm, wasm.with_suffix(".mjs"), modules / "ort.wasm.min.mjs")}
    return {"bytes": sizes | {"model": Path(model).stat().st_size}, **found}


def histories_of(items: int) -> list[list[int]]:
    """Item numbers."""
    chance = random.Random(0)
    return [[chance.randint(1, items) for _ in range(HISTORY)] for _ in range(QUERIES)]


def measured(command: list[str], starts: int) -> dict[str, Any]:
    """Medians over fresh processes of what recommend.mjs tells; of single answers, those of the last process."""
    runs = []
    for _ in range(starts):
        done = subprocess.run(["node", str(SCRIPT), *command], stdout=subprocess.PIPE, text=True, check=True)
        runs.append(json.loads(done.stdout))
    last = runs[-1]
    found: dict[str, Any] = {
        "load ms": float(np.median([run["load"] for run in runs])),
        "first answer ms": float(np.median([run["first"] for run in runs])),
        "starts": starts,
        "recommend us": summary(last["recommended"]),
    }
    if last["appended"]:
        found["append us"] = summary(last["appended"])
    return found | {"answers": last["answers"]}


def summary(milliseconds: list[float]) -> dict[str, float]:
    """Median and 99th percentile in microseconds."""
    taken = 1000 * np.array(milliseconds)
    return {"median": float(np.median(taken)), "p99": float(np.quantile(taken, 0.99)), "queries": len(taken)}


def installed(folder: Path) -> Path:
    """The modules of onnxruntime-web, which npm puts into `folder` when they are not there."""
    modules = folder / "node_modules" / "onnxruntime-web" / "dist"
    if not modules.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", PEER], check=True)
    return modules


if __name__ == "__main__":
    main()
