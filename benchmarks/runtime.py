"""Microseconds of the runtime beside peers: whole recommendations, appended events, top-k alone, many users, a start.

    python benchmarks/runtime.py [--bundle beauty=FILE ...] [--parts one topk many start]
        [--sizes 10000 ...] [--peers onnxruntime numpy faiss rectools replay] [--environments DIR] [--queries 200]

Without --bundle the files are of networks as `lsan compress` makes them on Beauty and ML-1M in less than 300 kB beside
ids and titles, but trained for one epoch only, since weights do not change their speed (nor RecTools', which is trained
for one step), each in float32 and in int8. DATASET may go on after a comma ("beauty,int8"): another file for the same
data, timed without peers.

Each part runs ours and the peers one after the other, one thread (but `many`: all cores), median and 99th percentile of
different queries. Peers live in virtual environments of their own (benchmarks/peers/*.txt), which
are made when they are missing.

one     raw ids in, ten titles out, histories of 50 events (made of real ones, one user's after the other's); and
        five events appended one by one to sessions that hold 50, each followed by a recommendation. onnxruntime: the
        same bundle through `lsan export --to onnx`. RecTools: `recommend` for one user. RePlay: its compiled model, on
        OpenVINO, which answers with scores.
topk    the ten best of 10^4 to 10^7 items, 4 codes of 256 rows, width 64. skewed: product codes of vectors in
        clusters of very different sizes, questions are items' vectors; uniform: all codes and rows at random. Peers
        multiply the vectors that the codes stand for (onnxruntime: MatMul and TopK; NumPy: product and argpartition;
        FAISS: IndexFlatIP). Every answer is compared with the product's.
many    recommend_many for 100,000 users on all cores, and on one: users of the dataset over and over; RecTools'
        `recommend` for all users of the dataset, reading as many events as the bundle's model.
start   import, load and first recommendation in a fresh process: seconds and peak memory.

Writes benchmarks/results/runtime.json; parts that are not run keep what the file has.
"""

import argparse
import gc
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

import accuracy
from lsan.compression.compress import Plan
from lsan.config import recipe_from, recipe_to
from lsan.data.dataset import Dataset
from lsan.experiment import Observer, start_run
from lsan.export.bundle import bundle_bytes
from lsan.export.export import export_bundle
from lsan.export.onnx_export import export_onnx
from lsan.export.program import Arithmetic
from lsan.files import write_atomically
from lsan.models.quantisation import pack_bits
from lsan.runtime import Recommender
from lsan.runtime.engine import make_engine
from lsan.runtime.file import BundleFile
from lsan.runtime.recommender import cores
from provenance import ROOT, provenance
from train_speed import PEERS, Contender, python_of

OUT = ROOT / "benchmarks" / "results" / "runtime.json"
PARTS = ["one", "topk", "many", "start"]
TABLES, ROWS, WIDTH, BEST = 4, 256, 64, 10
HISTORY, USERS, APPENDED, WARM_UP = 50, 100_000, 5, 0.1
#: What is made where no bundles are named.
PLANS = {"beauty": Plan(width=64, tables=16), "ml-1m": Plan(width=96, tables=24)}


def main() -> None:
    """Run the parts that are asked for, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--bundle", action="append", default=[], metavar="DATASET=FILE")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--sizes", nargs="+", type=int, default=[10**4, 10**5, 10**6, 10**7])
    parser.add_argument("--peers", nargs="*", default=["onnxruntime", "numpy", "faiss", "rectools", "replay"])
    parser.add_argument("--environments", type=Path, default=ROOT / "benchmarks" / ".environments")
    parser.add_argument("--queries", type=int, default=200)
    arguments = parser.parse_args()
    result = json.loads(OUT.read_text()) if OUT.exists() else {}
    bundles = dict(text.split("=", 1) for text in arguments.bundle)
    if not bundles and arguments.parts != ["topk"]:
        bundles = made_bundles()
    for part in arguments.parts:
        if part == "topk":
            found: Any = result.get("topk", {})
            for size in arguments.sizes:
                for kind in ("skewed", "uniform"):
                    found[f"{size} {kind}"] = topk(size, kind, arguments)
                    print(json.dumps({f"{size} {kind}": found[f"{size} {kind}"]}), flush=True)
        else:
            measure = {"one": one, "many": many, "start": start}[part]
            found = {name: measure(name, Path(file), arguments) for name, file in bundles.items()}
            print(json.dumps({part: found}), flush=True)
        result[part] = found | {"made": provenance()}
        result["what"] = __doc__.splitlines()[0] if __doc__ else ""
        write_atomically(OUT, (json.dumps(result, indent=1) + "\n").encode())


def times(call: Any, questions: list[Any]) -> dict[str, float]:
    """Median and 99th percentile of `call(question)`, in microseconds, after a tenth of a second of such calls: the
    processor takes some milliseconds to its full speed."""
    begun = time.perf_counter()
    for question in cycle(questions):
        call(question)
        if time.perf_counter() - begun > WARM_UP:
            break
    taken = []
    for question in questions:
        begun = time.perf_counter_ns()
        call(question)
        taken.append((time.perf_counter_ns() - begun) / 1000)
    return {"median": float(np.median(taken)), "p99": float(np.quantile(taken, 0.99)), "queries": len(taken)}


def made_bundles() -> dict[str, str]:
    """Files by name, exported anew from networks that are trained where they are missing."""
    found = {}
    for name, plan in PLANS.items():
        folder = ROOT / "runs" / f"runtime-{name}"
        if not (folder / "model.safetensors").exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a run that was interrupted
            content = recipe_to(plan.recipe(accuracy.entries_of(name, ["lsan"], "leave-one-out")[0].recipe))
            del content["training"]["distillation"]
            content["training"]["epochs"] = 1
            recipe = recipe_from(content, where=plan.name)
            print(f"training {folder.relative_to(ROOT)}", flush=True)
            start_run(dataset_of(name), recipe, folder, device=torch.device("cpu"), observer=Observer())
        arithmetics: tuple[Arithmetic, ...] = ("float32", "int8")
        for arithmetic in arithmetics:
            file = folder / f"{arithmetic}.lsan"
            export_bundle(folder, file, arithmetic=arithmetic)
            found[name if arithmetic == "float32" else f"{name},{arithmetic}"] = str(file)
    return found


def dataset_of(name: str) -> Dataset:
    """The dataset of a bundle's name."""
    return accuracy.dataset_of(name.partition(",")[0])


def histories_of(name: str, recommender: Recommender, count: int, length: int) -> list[list[Any]]:
    """Histories of `length` events, made of real ones one after the other."""
    dataset = dataset_of(name)
    ids = dataset.catalogue.ids
    random = np.random.default_rng(0)
    found = []
    for _ in range(count):
        history: list[Any] = []
        while len(history) < length:
            user = int(random.integers(dataset.users))
            events = dataset.items[int(dataset.offsets[user]) : int(dataset.offsets[user + 1])]
            history += [ids[item - 1] for item in events.tolist()]
        found.append(history[-length:])
    return found


def one(name: str, path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Whole recommendations and appended events."""
    recommender = Recommender.load(path)
    histories = histories_of(name, recommender, arguments.queries, HISTORY)
    numpy_recommender = Recommender.load(path, native=False)
    found: dict[str, Any] = {
        "bytes": path.stat().st_size,
        "engine": recommender.engine.instruction_set,
        "causal": recommender.engine.causal,
        "lsan": times(lambda history: recommender.recommend(history, BEST).items, histories),
        "lsan, NumPy": times(lambda history: numpy_recommender.recommend(history, BEST).items, histories),
    }
    found["lsan, appended event"] = appended(recommender, histories)
    if "," in name:
        return found
    if "onnxruntime" in arguments.peers:
        found["onnxruntime"] = own_model(path, recommender, histories, arguments)
    if "rectools" in arguments.peers:
        found["rectools"] = rectools(name, arguments, arguments.queries, HISTORY)
    if "replay" in arguments.peers:
        with tempfile.TemporaryDirectory(prefix="lsan-benchmark-") as folder:
            file = Path(folder) / "histories.json"
            file.write_text(json.dumps([[str(raw) for raw in history] for history in histories]))
            found["replay"] = peer(
                "replay_openvino.py", "replay", arguments, histories=file, items=recommender.engine.items, threads=1
            )
    return found


def own_model(
    path: Path, recommender: Recommender, histories: list[list[Any]], arguments: argparse.Namespace
) -> dict[str, Any]:
    """The bundle's own model in onnxruntime, and in how many histories its ten titles are those of the bundle."""
    with tempfile.TemporaryDirectory(prefix="lsan-benchmark-") as name:
        folder = Path(name)
        exported = export_onnx(path, folder / "model.onnx")
        (folder / "histories.json").write_text(json.dumps(histories))
        line = peer("onnx_recommend.py", "engines", arguments, data=folder)
        answers = line.pop("answers")
        ours = [[one.title for one in recommender.recommend(history, BEST)] for history in histories]
        same = sum(one == other for one, other in zip(answers, ours, strict=True))
        sizes = {"model bytes": (folder / "model.onnx").stat().st_size, "difference of scores": exported.difference}
        return line | sizes | {"same titles": same}


def appended(recommender: Recommender, histories: list[list[Any]]) -> dict[str, float]:
    """A session of each history, to which events are appended, each followed by a recommendation."""
    taken = []
    for history in histories:
        session = recommender.session()
        for item in history:
            session.append(item)
        session.recommend(BEST)
        for item in history[:APPENDED]:
            begun = time.perf_counter_ns()
            session.append(item)
            session.recommend(BEST)
            taken.append((time.perf_counter_ns() - begun) / 1000)
    return {"median": float(np.median(taken)), "p99": float(np.quantile(taken, 0.99)), "queries": len(taken)}


def many(name: str, path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Users a second."""
    recommender = Recommender.load(path)
    dataset = dataset_of(name)
    ids = dataset.catalogue.ids
    whole = [
        [ids[item - 1] for item in dataset.items[begin:end].tolist()]
        for begin, end in zip(dataset.offsets[:-1].tolist(), dataset.offsets[1:].tolist(), strict=True)
    ]
    histories = [whole[number % len(whole)] for number in range(USERS)]

    gc.collect()
    gc.freeze()  # what PyTorch and this script hold is not there where bundles are served

    def users_a_second(threads: int) -> float:
        recommender.recommend_many(histories[:2000], BEST, threads=threads)
        seconds = []
        for _ in range(3):
            begun = time.perf_counter()
            for answer in recommender.recommend_many(histories, BEST, threads=threads):
                assert len(answer.ids) <= BEST  # RecTools' answer has them too
            seconds.append(time.perf_counter() - begun)
        return USERS / median(seconds)

    found: dict[str, Any] = {
        "lsan": {"users a second": users_a_second(cores()), "users": USERS, "cores": cores()},
        "lsan, one thread": {"users a second": users_a_second(1), "users": USERS},
    }
    if "rectools" in arguments.peers and "," not in name:
        found["rectools"] = rectools(name, arguments, 0, recommender.engine.history)
    return found


def start(name: str, path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """A fresh process, five times."""
    first = Recommender.load(path).vocabulary.ids[0]
    program = (
        "import time; begun = time.perf_counter(); from lsan.runtime import Recommender; "
        f"imported = time.perf_counter(); Recommender.load({str(path)!r}).recommend([{first!r}]); "
        "done = time.perf_counter(); import json; status = open('/proc/self/status').read(); "
        "print(json.dumps([imported - begun, done - begun, 1024 * int(status.partition('VmHWM:')[2].split()[0])]))"
    )
    whole, lines = [], []
    for _ in range(5):
        begun = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        whole.append(time.perf_counter() - begun)
        lines.append(json.loads(done.stdout))
    return {
        "import seconds": median(line[0] for line in lines),
        "import, load and recommend seconds": median(line[1] for line in lines),
        "whole process seconds": median(whole),
        "peak bytes": max(line[2] for line in lines),
    }


def topk(items: int, kind: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The best items of a made-up catalogue."""
    random = np.random.default_rng(0)
    codes, rows = made_up(items, kind, random)
    content = bundle_of(codes, rows)
    engine = make_engine(content, BundleFile.parse(content), native=True)
    size = len(content)
    del content
    questions = [np.array([v], dtype=np.int32) for v in random.integers(1, items + 1, arguments.queries).tolist()]
    found: dict[str, Any] = {
        "engine": engine.instruction_set,
        "file bytes": size,
        "code bytes": codes.size,
        "engine bytes": engine.memory,
        "lsan": times(lambda question: engine.recommend(question, None, -1, BEST), questions),
    }
    answers = [engine.recommend(question, None, -1, BEST)[1] for question in questions]
    found["code bytes read a second, if all were read"] = codes.size / (found["lsan"]["median"] / 1e6)
    found["bytes a second of a sum over an array"] = bandwidth()
    peers = [name for name in arguments.peers if name in ("onnxruntime", "numpy", "faiss")]
    if peers:
        with tempfile.TemporaryDirectory(prefix="lsan-benchmark-") as folder:
            np.save(f"{folder}/codes.npy", codes)
            np.save(f"{folder}/rows.npy", rows)
            np.save(f"{folder}/questions.npy", np.concatenate(questions))
            for name in peers:
                line = peer("engines_topk.py", "engines", arguments, data=folder, engine=name)
                theirs = np.array(line.pop("scores"))
                line["largest difference of a score"] = float(np.abs(np.stack(answers) - theirs).max())
                found[name] = line | {"times as long": line["median"] / found["lsan"]["median"]}
    return found


def made_up(
    items: int, kind: str, random: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Codes [V, 4], in the order of the first two, and rows [4, 256, 16] of all tables."""
    part = WIDTH // TABLES
    if kind == "uniform":
        codes = random.integers(0, ROWS, (items, TABLES), dtype=np.uint8)
        rows = random.standard_normal((TABLES, ROWS, part), dtype=np.float32)
    else:
        import faiss

        clusters = random.standard_normal((2000, WIDTH), dtype=np.float32) * random.gamma(2, 0.5, (2000, 1))
        shares = 1 / np.arange(1, 2001)
        shares /= shares.sum()

        def sample(count: int) -> npt.NDArray[np.float32]:
            chosen = random.choice(2000, count, p=shares)
            return (clusters[chosen] + 0.5 * random.standard_normal((count, WIDTH))).astype(np.float32)

        quantiser = faiss.ProductQuantizer(WIDTH, TABLES, 8)
        quantiser.train(sample(50_000))
        codes = np.concatenate(
            [quantiser.compute_codes(sample(min(200_000, items - begin))) for begin in range(0, items, 200_000)]
        )
        rows = faiss.vector_to_array(quantiser.centroids).reshape(TABLES, ROWS, part)
    return codes[np.lexsort((codes[:, 1], codes[:, 0]))], rows.astype(np.float32)


def bundle_of(codes: npt.NDArray[np.uint8], rows: npt.NDArray[np.float32]) -> bytes:
    """A bundle whose hidden vector is the last item's own."""
    items = len(codes)
    tensors: dict[str, Any] = {
        "codes": codes.ravel(),
        "table.weight": rows.reshape(TABLES * ROWS, -1),
        "table.bias": pack_bits(np.full(items, 128), 8),
        "table.bias.scale": np.ones(1, dtype=np.float16),
        "popularity.items": np.zeros(0, dtype=np.uint8),
        "popularity.counts": np.zeros(0, dtype=np.uint8),
    }
    manifest = {
        "items": items, "history": 8, "width": WIDTH, "timed": False, "exclude_seen": True, "categories": 0,
        "popular": 0, "popular_bits": 1,
        "quantised": {"table.bias": {"shape": [items], "bits": 8}},
        "table": {
            "kind": "codes", "weight": "table.weight", "rows": [ROWS] * TABLES,
            "offsets": [ROWS * n for n in range(TABLES)], "slices": TABLES, "codes": {"from": "packed", "bits": 8},
        },
        "program": [{"op": "items", "in": [], "factor": 1.0}, {"op": "last", "in": [0]}],
        "output": {"kind": "table", "bias": "table.bias"},
        "tolerance": 1e-4,
    }  # fmt: skip
    return bundle_bytes(tensors, manifest)


def bandwidth() -> float:
    """Bytes a second of one thread's product of an array with itself, best of five."""
    array = np.ones(2**27, dtype=np.float32)
    seconds = []
    for _ in range(5):
        begun = time.perf_counter()
        np.dot(array, array)
        seconds.append(time.perf_counter() - begun)
    return array.nbytes / min(seconds)


def rectools(name: str, arguments: argparse.Namespace, queries: int, history: int) -> dict[str, Any]:
    """RecTools on the same log, reading `history` events: one by one where there are queries, else all users at once,
    on all cores."""
    dataset = dataset_of(name)
    frame = pl.DataFrame(
        {
            "user": np.repeat(np.arange(dataset.users), np.diff(np.asarray(dataset.offsets)).astype(np.int64)),
            "item": np.asarray(dataset.items),
            "time": np.asarray(dataset.timestamps),
        }
    )
    threads = 1 if queries else cores()
    with tempfile.TemporaryDirectory(prefix="lsan-benchmark-") as folder:
        frame.write_csv(f"{folder}/log.csv")
        return peer(
            "rectools_recommend.py",
            "rectools",
            arguments,
            data=f"{folder}/log.csv",
            queries=queries,
            history=history,
            threads=threads,
        )


def peer(script: str, environment: str, arguments: argparse.Namespace, **options: Any) -> dict[str, Any]:
    """Run a peer's script in its environment; its last line is JSON."""
    python = python_of(Contender(script=script, environment=environment), arguments.environments)
    flags = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    count = str(options.get("threads", 1))
    variables = {**os.environ, "OMP_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count, "CUDA_VISIBLE_DEVICES": ""}
    for name in ("PYTHONPATH", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):  # the last two slow current NumPy down
        variables.pop(name, None)
    done = subprocess.run(
        [str(python), str(PEERS / script), *flags], stdout=subprocess.PIPE, text=True, check=True, env=variables
    )
    line: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return line


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
