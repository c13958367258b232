"""Load on `lsan serve` on loopback, beside a handler that does nothing and beside FastAPI with SASRec in PyTorch.

    python benchmarks/serving.py FILE [--seconds 20] [--connections 1 2 4 16 64] [--workers 2] [--long 300]

Needs wrk, which shares the machine's cores with the services. All three run as many workers and write no access log.
Each request is another history of ids drawn at random from FILE: "short" histories are 5 events and more, 9 on
average, as users of Beauty have; "long" ones are 50. One service after the other at each number of connections.

ratio                        requests a second, ours to PyTorch's, at as many connections
ratio_at_no_longer_p99       the same, but ours at whatever number of connections answers most while its 99th percentile
                             is no longer than PyTorch's
steady                       ours alone for --long seconds at 16 connections: errors, and the workers' resident memory

Writes benchmarks/results/serving.json.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import mean
from threading import Thread
from typing import Any

import numpy as np

from lsan.files import write_atomically
from lsan.runtime import Recommender
from provenance import ROOT, provenance

OUT = ROOT / "benchmarks" / "results" / "serving.json"
PEERS = ROOT / "benchmarks" / "peers"
QUESTIONS, STEADY_CONNECTIONS = 10_000, 16
LENGTHS: dict[str, Callable[[np.random.Generator], int]] = {
    "short": lambda random: 4 + int(random.geometric(0.2)),
    "long": lambda _random: 50,
}


def main() -> None:
    """Measure, print, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", type=Path, help="a bundle")
    parser.add_argument("--seconds", type=int, default=20, help="of each measurement")
    parser.add_argument("--connections", nargs="+", type=int, default=[1, 2, 4, 16, 64])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--long", type=int, default=300, help="seconds of the steady load; 0: none")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lsan-benchmark-")))
        questions = {name: write_questions(arguments.file, folder / name, name) for name in LENGTHS}
        places = {
            name: stack.enter_context(running(command, arguments, questions["short"]))
            for name, command in {
                "lsan": [sys.executable, "-m", "lsan", "serve", str(arguments.file), "--no-access-log"],
                "no-op": [sys.executable, str(PEERS / "noop_service.py"), str(arguments.file), "--no-access-log"],
                "torch": [sys.executable, "-m", "uvicorn", "torch_service:app", "--no-access-log"],
            }.items()
        }
        result: dict[str, Any] = {"what": __doc__.splitlines()[0] if __doc__ else "", "workers": arguments.workers}
        for lengths, file in questions.items():
            result[lengths] = measure(places, file, arguments)
            print(json.dumps({lengths: result[lengths]}), flush=True)
        if arguments.long:
            result["steady"] = steady(places["lsan"], questions["short"], arguments.long)
            print(json.dumps({"steady": result["steady"]}), flush=True)
    result |= provenance()
    write_atomically(OUT, (json.dumps(result, indent=1) + "\n").encode())


def write_questions(bundle: Path, path: Path, lengths: str) -> Path:
    """Bodies of requests, one a line."""
    ids = list(Recommender.load(bundle).vocabulary.ids)
    random = np.random.default_rng(0)
    lines = []
    for _ in range(QUESTIONS):
        history = [ids[place] for place in random.integers(0, len(ids), LENGTHS[lengths](random)).tolist()]
        lines.append(json.dumps({"history": history, "k": 10}))
    path.write_text("\n".join(lines) + "\n")
    return path


@contextmanager
def running(command: list[str], arguments: argparse.Namespace, questions: Path) -> Iterator[tuple[str, int]]:
    """A service: its address and its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    paths = os.pathsep.join([str(PEERS), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "LSAN_BUNDLE": str(arguments.file), "PYTHONPATH": paths}
    options = ["--port", str(port), "--workers", str(arguments.workers)]
    process = subprocess.Popen(
        [*command, *options], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        address = f"http://127.0.0.1:{port}/v1/recommend"
        await_answer(address, questions)
        yield address, process.pid
    finally:
        process.terminate()
        process.wait(60)


def await_answer(address: str, questions: Path) -> None:
    """Return when a question is answered."""
    question = questions.read_text().splitlines()[0].encode()
    request = urllib.request.Request(address, question, {"Content-Type": "application/json"})
    for _ in range(600):
        try:
            urllib.request.urlopen(request, timeout=10).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"nothing answers at {address}")


def load(place: tuple[str, int], questions: Path, connections: int, seconds: int) -> dict[str, float]:
    """What wrk measures, and the processor's microseconds that the service's workers take for a request."""
    address, process = place
    script = str(ROOT / "benchmarks" / "serving.lua")
    options = ["-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", script]
    command = ["wrk", *options, address, "--", str(questions)]
    before = processor(process)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    taken = processor(process) - before
    figures = json.loads(done.stdout.splitlines()[-1])
    errors = sum(figures.pop(name) for name in ("connect", "read", "write", "timeout", "status"))
    return {
        "requests_a_second": figures["requests"] / figures["seconds"],
        "processor_us": 1e6 * taken / figures["requests"],
        **figures,
        "errors": errors,
    }


def measure(places: dict[str, tuple[str, int]], questions: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """All services at each number of connections, and how ours compares."""
    found: dict[str, Any] = {}
    for connections in arguments.connections:
        found[str(connections)] = {
            name: load(place, questions, connections, arguments.seconds) for name, place in places.items()
        }
    for figures in list(found.values()):
        ours, theirs = [other["lsan"] for other in found.values()], figures["torch"]
        swift = [other["requests_a_second"] for other in ours if other["p99_ms"] <= theirs["p99_ms"]]
        figures["ratio"] = figures["lsan"]["requests_a_second"] / theirs["requests_a_second"]
        figures["ratio_at_no_longer_p99"] = max(swift) / theirs["requests_a_second"] if swift else None
    return found


def steady(place: tuple[str, int], questions: Path, seconds: int) -> dict[str, Any]:
    """Our service under a load that lasts: figures of wrk, and the workers' resident memory, in bytes, sampled once a
    second: the means of the second tenth of the time and of the last, and the largest."""
    samples: list[int] = []

    def sample() -> None:
        for _ in range(seconds):
            time.sleep(1)
            samples.append(memory(place[1]))

    thread = Thread(target=sample)
    thread.start()
    figures = load(place, questions, STEADY_CONNECTIONS, seconds)
    thread.join()
    tenth = max(1, len(samples) // 10)
    return figures | {
        "memory_early": mean(samples[tenth : 2 * tenth] or samples),
        "memory_late": mean(samples[-tenth:]),
        "memory_most": max(samples),
    }


def memory(process: int) -> int:
    """Resident bytes of all workers of a service."""
    pages = sum(int(Path(f"/proc/{worker}/statm").read_text().split()[1]) for worker in workers(process))
    return pages * os.sysconf("SC_PAGE_SIZE")


def processor(process: int) -> float:
    """Seconds of the processor that they have taken."""
    ticks = sum(sum(map(int, Path(f"/proc/{worker}/stat").read_text().split()[13:15])) for worker in workers(process))
    return ticks / os.sysconf("SC_CLK_TCK")


def workers(process: int) -> list[int]:
    """Process ids of a service's workers."""
    found = []
    for name in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        with suppress(OSError):  # it has ended meanwhile
            if "spawn_main" in Path(f"/proc/{name}/cmdline").read_text():
                found.append(int(name))
    return found


if __name__ == "__main__":
    main()
