"""Seconds an epoch and peak memory of one SASRec, trained by lsan, RecTools and RePlay on the same histories.

    python benchmarks/train_speed.py [--datasets beauty ml-1m] [--threads 2] [--rounds 1] [--full-epochs]

Every training is a process of its own, one at a time, in a ring that is repeated for each round. Data: the
leave-one-out training part of LSAN_SHARED_DATA (default ../shared/data), of each user the latest `history + 1` events,
so that all train on the same targets once an epoch.

Peers live in virtual environments of their own, made when they are missing, PyTorch first and with TORCH_PIP_OPTIONS,
versions as in benchmarks/peers/*.txt. A step of theirs has the same shape every time (batch x history), so blocks of
steps are timed, their loading of batches included, and an epoch is taken from the median; --full-epochs times whole
ones. lsan's epochs are always whole.

Writes benchmarks/results/train-speed.json.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import polars as pl

from provenance import ROOT, provenance

PEERS = ROOT / "benchmarks" / "peers"
#: Longest history read, by dataset.
HISTORY = {"beauty": 50, "ml-1m": 200}
#: The network and its training, options of every script.
SIZES = {"width": 64, "blocks": 2, "heads": 2, "dropout": 0.5, "batch": 256, "learning-rate": 1e-3}
#: Tells glibc's malloc to keep freed memory. By default it returns large blocks, and each step pays for their pages
#: again; lsan changes that itself, of peers it depends on who runs them.
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A training in the ring."""

    script: str
    """In benchmarks/peers/."""
    environment: str | None
    """The file of requirements in benchmarks/peers/, less .txt; None for the environment of this process."""
    options: dict[str, Any] = field(default_factory=dict)
    """Of the script alone."""
    variables: dict[str, str] = field(default_factory=dict)
    """Of the process's environment."""


#: All as they come, lsan in float32 too, and peers with all that they and glibc offer to make the same training faster.
CONTENDERS = {
    "lsan": Contender(script="lsan_sasrec.py", environment=None),
    "lsan-float32": Contender(script="lsan_sasrec.py", environment=None, options={"precision": "float32"}),
    "rectools": Contender(script="rectools_sasrec.py", environment="rectools"),
    "replay": Contender(script="replay_sasrec.py", environment="replay"),
    "rectools-tuned": Contender(script="rectools_sasrec.py", environment="rectools", variables=KEEP_MEMORY),
    "replay-tuned": Contender(
        script="replay_sasrec.py",
        environment="replay",
        options={"loss": "LogInCE", "bucket": 64},
        variables=KEEP_MEMORY,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """What all train on."""

    folder: Path
    """As `Options.data` of benchmarks/peers/protocol.py."""
    history: int
    users: int
    items: int
    """The whole catalogue, held-out items included."""
    targets: int
    """Events that are predicted in an epoch."""

    @property
    def loss_operations(self) -> int:
        """Multiplications and additions of an epoch's cross-entropy: three products, targets x items x width each."""
        return 6 * self.targets * self.items * int(SIZES["width"])


def main() -> None:
    """Make what is missing, run the ring, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--datasets", nargs="+", choices=HISTORY, default=list(HISTORY))
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--environments", type=Path, default=ROOT / "benchmarks" / ".environments")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1, help="times that the ring is run")
    parser.add_argument("--warm-up", type=int, default=3, help="steps of a peer before the clock starts")
    parser.add_argument("--steps", type=int, default=10, help="steps of a peer in each of the 3 blocks")
    parser.add_argument("--full-epochs", action="store_true", help="time 3 epochs of the peers, after one, not blocks")
    parser.add_argument(
        "--precision",
        choices=["default", "float32", "mixed"],
        default="default",
        help="of all contenders; default: lsan chooses by the processor, peers use float32",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "train-speed.json")
    arguments = parser.parse_args()
    if min(arguments.threads, arguments.rounds, arguments.warm_up, arguments.steps) < 1:
        parser.error("--threads, --rounds, --warm-up and --steps are at least 1")
    pythons = {name: python_of(CONTENDERS[name], arguments.environments) for name in arguments.contenders}
    results = {}
    for dataset in arguments.datasets:
        with tempfile.TemporaryDirectory(prefix="lsan-benchmark-") as folder:
            sequences = write_sequences(dataset, Path(folder))
            results[dataset] = measure(sequences, pythons, arguments)
        print_table(dataset, results[dataset])
    settings = {key: value for key, value in vars(arguments).items() if key not in ("datasets", "environments", "out")}
    report = {
        "what": __doc__.splitlines()[0] if __doc__ else "",
        "sizes": SIZES,
        **settings,
        "datasets": results,
        **provenance(),
    }
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")


def python_of(contender: Contender, folder: Path) -> Path:
    """The Python of a contender's environment, which is made or made anew unless it is as its requirements ask."""
    if contender.environment is None:
        return Path(sys.executable)
    requirements = PEERS / f"{contender.environment}.txt"
    options = torch_pip_options()
    environment = folder.resolve() / contender.environment
    python, stamp = environment / "bin" / "python", environment / "installed"
    wanted = f"{options}\n{requirements.read_text()}"
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"making {environment} (this may take minutes)", flush=True)
        torch = [line for line in requirements.read_text().splitlines() if line.startswith("torch==")]
        install = [str(python), "-m", "pip", "--no-input", "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(environment)], check=True)
        if torch:
            subprocess.run([*install, *torch, *shlex.split(options)], check=True)
        subprocess.run([*install, "--requirement", str(requirements)], check=True)
        stamp.write_text(wanted)
    return python


def torch_pip_options() -> str:
    """TORCH_PIP_OPTIONS, else those that scripts/bootstrap.sh remembers."""
    remembered = ROOT / ".venv" / "lsan-installed"
    lines = remembered.read_text().splitlines() if remembered.exists() else []
    return os.environ.get("TORCH_PIP_OPTIONS") or "".join(lines[1:2])


def write_sequences(dataset: str, folder: Path) -> Sequences:
    """The training part of a dataset, for all contenders."""
    source = Path(os.environ.get("LSAN_SHARED_DATA", ROOT.parent / "shared" / "data")) / dataset
    table = source / "interactions.parquet"
    events = pl.read_parquet(table) if table.exists() else pl.read_csv(source / "interactions.csv.gz")
    sequences = training_part(events, HISTORY[dataset])
    sequences.write_parquet(folder / "sequences.parquet")
    sequences.explode("item").write_csv(folder / "events.csv")
    lengths = sequences["item"].list.len()
    return Sequences(
        folder=folder,
        history=HISTORY[dataset],
        users=len(sequences),
        items=events["item"].n_unique(),
        targets=int(lengths.sum()) - len(sequences),
    )


def training_part(events: pl.DataFrame, history: int) -> pl.DataFrame:
    """Of each user with two or more of them, the latest `history + 1` events but for the last two: columns user
    (0, 1, ...) and item (a list of codes 0, 1, ..., oldest first). `events` are in the order of time."""
    codes = events.select("user", item=pl.col("item").rank("dense").cast(pl.Int64) - 1)
    lists = codes.group_by("user", maintain_order=True).agg(pl.col("item").slice(0, pl.len() - 2).tail(history + 1))
    return lists.filter(pl.col("item").list.len() > 1).select(
        user=pl.int_range(pl.len(), dtype=pl.Int64), item=pl.col("item")
    )


def measure(sequences: Sequences, pythons: dict[str, Path], arguments: argparse.Namespace) -> dict[str, Any]:
    """The roofline, all rounds of the ring, and what follows from them."""
    common = {"items": sequences.items, "threads": arguments.threads}
    training = {"data": sequences.folder, "examples": sequences.users, "history": sequences.history}
    training |= common | SIZES | {"precision": arguments.precision, "warm-up": arguments.warm_up}
    if not arguments.full_epochs:
        training["steps"] = arguments.steps
    products = Contender(script="roofline.py", environment=None)
    roofline = run(Path(sys.executable), products, common | {"width": SIZES["width"]}, arguments.threads)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in pythons}
    for _ in range(arguments.rounds):
        for name, python in pythons.items():
            contender = CONTENDERS[name]
            line = run(python, contender, training | contender.options, arguments.threads)
            print(f"{name}: {json.dumps(line)}", flush=True)
            runs[name].append(line)
    return {
        "history": sequences.history,
        "users": sequences.users,
        "items": sequences.items,
        "targets": sequences.targets,
        "loss_operations": sequences.loss_operations,
        "roofline": roofline,
        "contenders": {name: summary(lines, runs.get("lsan"), sequences, roofline) for name, lines in runs.items()},
        "runs": runs,
    }


def run(python: Path, contender: Contender, options: dict[str, Any], threads: int) -> dict[str, Any]:
    """Run a script on the CPU with so many threads, and read its last line."""
    command = [str(python), str(PEERS / contender.script), *(f"--{name}={value}" for name, value in options.items())]
    counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "ARROW_NUM_THREADS"), str(threads))
    environment = os.environ | counts | {"CUDA_VISIBLE_DEVICES": ""} | contender.variables
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{shlex.join(command)} failed with exit code {done.returncode}:\n{done.stderr}")
    line: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return line


def summary(
    lines: list[dict[str, Any]], ours: list[dict[str, Any]] | None, sequences: Sequences, roofline: dict[str, Any]
) -> dict[str, Any]:
    """The rounds of one contender: medians, each round compared with lsan's, and the share of the loss's arithmetic
    limit (its operations at the rate of its products alone) in the time measured."""
    seconds = median(line["seconds_per_epoch"] for line in lines)
    result: dict[str, Any] = {
        "seconds_per_epoch": round(seconds, 3),
        "peak_bytes": max(line["peak_bytes"] for line in lines),
        "share_of_arithmetic_limit": {
            dtype: round(sequences.loss_operations / rates["loss"] / seconds, 4)
            for dtype, rates in roofline["flops_per_second"].items()
        },
    }
    for key in ("seconds_per_epoch", "peak_bytes") if ours is not None else ():
        ratios = [line[key] / other[key] for line, other in zip(lines, ours or [], strict=True)]
        result[f"{key}, lsan = 1"] = round(median(ratios), 2)
    return result


def print_table(dataset: str, result: dict[str, Any]) -> None:
    """What a person wants to see."""
    print(f"\n{dataset:<18}{'s/epoch':>10}{'lsan = 1':>10}{'peak MB':>10}{'lsan = 1':>10}{'of fp32 limit':>15}")
    for name, row in result["contenders"].items():
        print(
            f"{name:<18}{row['seconds_per_epoch']:>10.2f}{row.get('seconds_per_epoch, lsan = 1', float('nan')):>10.2f}"
            f"{row['peak_bytes'] / 1e6:>10.0f}{row.get('peak_bytes, lsan = 1', float('nan')):>10.2f}"
            f"{row['share_of_arithmetic_limit']['float32']:>15.3f}"
        )
    print(flush=True)


if __name__ == "__main__":
    main()
