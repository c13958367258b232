"""What clients of `lsan serve` notice of swaps, deaths, stops, nonsense and dawdling: no wrong answer, none lost.

    python benchmarks/serving_faults.py ONE.lsan OTHER.lsan [--events 1000] [--bodies 100000] [--examples 300]

Two workers; eight clients ask all the time, each over one connection, and compare every answer with that of the model
whose version it names. Parts, of which the first three share out the events:

swaps   the file is replaced by the other one, now and then by a damaged one, half of the times with SIGHUP: every
        request has to be answered with 200
kills   SIGKILL of a worker: clients may see their connection end, and ask again; in the end each has its answer
stops   SIGTERM of the service and a new start: all that the service has answered, by its log, has to have arrived
bodies  random bytes, damaged questions and random JSON as bodies: answered, and never with 5xx
slow    clients that send heads and bodies drop by drop or never read: sent away in time, others notice nothing
schema  schemathesis with the OpenAPI document of the service: no 5xx, every answer as documented

Writes benchmarks/results/serving-faults.json. Any fault ends the script with an error.
"""

import argparse
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from lsan.files import write_atomically
from lsan.runtime import Recommender
from lsan.serving.model import version_of
from provenance import ROOT, provenance
from serving import workers

OUT = ROOT / "benchmarks" / "results" / "serving-faults.json"
CLIENTS, HISTORIES, K = 8, 200, 10
JSON = {"Content-Type": "application/json"}


def main() -> None:
    """Run all parts, print, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("files", nargs=2, type=Path, help="two different bundles of the same catalogue")
    parser.add_argument("--events", type=int, default=1000, help="swaps, kills and stops in all")
    parser.add_argument("--bodies", type=int, default=100_000)
    parser.add_argument("--examples", type=int, default=300, help="of each check of schemathesis")
    arguments = parser.parse_args()
    result: dict[str, Any] = {"what": __doc__.splitlines()[0] if __doc__ else ""}
    with tempfile.TemporaryDirectory(prefix="lsan-faults-") as folder:
        shop = Shop(arguments.files, Path(folder))
        with running(shop, workers=2, patience=2) as service:
            for part, count in (
                (swaps, arguments.events * 2 // 5),
                (kills, arguments.events * 2 // 5),
                (stops, arguments.events // 5),
                (bodies, arguments.bodies),
                (slow, 50),
                (schema, arguments.examples),
            ):
                begun, name = time.perf_counter(), part.__name__
                result[name] = part(service, count) | {"seconds": time.perf_counter() - begun}
                print(json.dumps({name: result[name]}), flush=True)
    result |= provenance()
    write_atomically(OUT, (json.dumps(result, indent=1) + "\n").encode())


class Shop:
    """Two bundles, questions, and what each bundle answers."""

    def __init__(self, files: Sequence[Path], folder: Path) -> None:
        self.folder, self.file = folder, folder / "model.lsan"
        self.contents = [file.read_bytes() for file in files]
        recommenders = [Recommender(content) for content in self.contents]
        ids = list(recommenders[0].vocabulary.ids)
        chance = random.Random(0)
        self.histories = [chance.choices(ids, k=chance.randint(0, 30)) for _ in range(HISTORIES)]
        self.answers = {
            version_of(content): [
                [[item.id, item.score] for item in each.recommend(asked, K)] for asked in self.histories
            ]
            for content, each in zip(self.contents, recommenders, strict=True)
        }
        self.put(self.contents[0])

    def put(self, content: bytes) -> None:
        """Replace the file that is served."""
        write_atomically(self.file, content)

    def is_right(self, place: int, body: bytes) -> bool:
        """Whether a body answers the history at that place."""
        answer = json.loads(body)
        given = [[item["id"], item["score"]] for item in answer["items"]]
        return answer["model"] in self.answers and given == self.answers[answer["model"]][place]


class Service:
    """`lsan serve` as a process, always on the same port."""

    def __init__(self, shop: Shop, port: int, options: Sequence[str]) -> None:
        self.shop, self.port, self.log = shop, port, shop.folder / "log"
        self._command = [sys.executable, "-m", "lsan", "serve", str(shop.file), "--port", str(port), *options]
        self.process = self.start()

    def start(self) -> "subprocess.Popen[str]":
        """Start it, and wait until it says where it listens."""
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]),
        }
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                self._command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
            )
        assert self.process.stdout is not None
        if not self.process.stdout.readline():
            raise RuntimeError(f"it does not start:\n{self.log.read_text()}")
        return self.process

    def stop(self) -> None:
        """SIGTERM; it has to end well."""
        self.process.terminate()
        assert self.process.wait(60) == 0, self.log.read_text()[-2000:]
        assert self.process.stdout is not None
        self.process.stdout.close()

    def answered(self) -> int:
        """Recommendations that the service has answered with 200 since it was started, by its log."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return sum(
            line["event"] == "request" and (line["route"], line["status"]) == ("/v1/recommend", 200) for line in lines
        )

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def await_version(self, version: str) -> None:
        """Return when all workers that answer ten questions in a row serve that version."""
        in_a_row, until = 0, time.monotonic() + 30
        while in_a_row < 10:
            in_a_row = in_a_row + 1 if json.loads(self.get("/readyz")[1])["model"] == version else 0
            assert time.monotonic() < until, f"version {version} is not served"


@contextmanager
def running(shop: Shop, *, workers: int, patience: float) -> Iterator[Service]:
    """A service on a port that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    service = Service(shop, port, ["--workers", str(workers), "--patience", str(patience)])
    try:
        yield service
        service.stop()
    finally:
        service.process.kill()


class Load:
    """Clients that ask all the time, and what they have seen."""

    def __init__(self, service: Service) -> None:
        self._service, self._ending = service, Event()
        self.seen: Counter[str] = Counter()
        self.seconds: list[float] = []
        self._threads = [Thread(target=self._ask_on, args=(number,)) for number in range(CLIENTS)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _ask_on(self, number: int) -> None:
        chance = random.Random(number)
        connection = http.client.HTTPConnection("127.0.0.1", self._service.port, timeout=30)
        while not self._ending.is_set():
            place = chance.randrange(HISTORIES)
            body = json.dumps({"history": self._service.shop.histories[place], "k": K})
            until = time.monotonic() + 60
            while not self._ask(connection, place, body) and not self._ending.is_set():
                connection.close()
                if time.monotonic() > until:
                    self.seen["never answered"] += 1
                    break
                time.sleep(0.02)
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection, place: int, body: str) -> bool:
        """Whether there was an answer."""
        begun = time.perf_counter()
        try:
            connection.request("POST", "/v1/recommend", body, JSON)
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.seen["truncated" if isinstance(error, http.client.IncompleteRead) else "connection ended"] += 1
            return False
        if response.status != 200:
            self.seen[f"status {response.status}"] += 1
            return False
        self.seconds.append(time.perf_counter() - begun)
        self.seen["right" if self._service.shop.is_right(place, answer) else "wrong"] += 1
        return True


def expect(load: Load, *allowed: str) -> dict[str, Any]:
    """What was seen, which has to be right answers and what is allowed alone."""
    others = set(load.seen) - {"right", *allowed}
    assert not others, f"clients saw {dict(load.seen)}"
    assert load.seen["right"], "clients saw nothing"
    return dict(load.seen)


def swaps(service: Service, count: int) -> dict[str, Any]:
    """Replace the file under load; every fifth time by a damaged one before."""
    shop = service.shop
    with Load(service) as load:
        for number in range(count):
            content = shop.contents[(number + 1) % 2]
            if number % 5 == 4:
                shop.put(content[: len(content) // 2])
                service.process.send_signal(signal.SIGHUP)
                time.sleep(0.2)
            shop.put(content)
            if number % 2:
                service.process.send_signal(signal.SIGHUP)
            service.await_version(version_of(content))
    return {"swaps": count, "clients saw": expect(load)}


def kills(service: Service, count: int) -> dict[str, Any]:
    """Kill workers under load."""
    chance = random.Random(0)
    with Load(service) as load:
        for _ in range(count):
            alive = workers(service.process.pid)
            victim = chance.choice(alive)
            os.kill(victim, signal.SIGKILL)
            while victim in (now := workers(service.process.pid)) or len(now) < len(alive):
                time.sleep(0.02)
            time.sleep(chance.uniform(0, 2))  # it is killed while it begins, too
    return {"kills": count, "clients saw": expect(load, "connection ended", "truncated")}


def stops(service: Service, count: int) -> dict[str, Any]:
    """Start the service, whose log is empty then, and stop it under load; answers that it gave are counted on both
    sides."""
    total: Counter[str] = Counter()
    service.stop()
    try:
        for _ in range(count):
            service.start()
            with Load(service) as load:
                time.sleep(0.5)
                service.stop()
            expect(load, "connection ended")
            given, arrived = service.answered(), load.seen["right"]
            assert given == arrived, f"the service gave {given} answers, {arrived} arrived"
            total += load.seen
    finally:
        service.start()
    return {"stops": count, "clients saw": dict(total)}


def bodies(service: Service, count: int) -> dict[str, Any]:
    """Send nonsense."""
    chance = random.Random(0)
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
    statuses: Counter[int] = Counter()
    for number in range(count):
        body = nonsense(chance, service.shop)
        path = "/v1/recommend:batch" if number % 4 == 3 else "/v1/recommend"
        connection.request("POST", path, body, JSON)
        response = connection.getresponse()
        answer = json.loads(response.read())
        statuses[response.status] += 1
        assert response.status in (200, 400, 422), (response.status, body)
        assert response.status == 200 or answer["detail"], body
    connection.close()
    with Load(service) as load:
        time.sleep(0.5)
    return {"bodies": count, "statuses": dict(sorted(statuses.items())), "afterwards": expect(load)}


def nonsense(chance: random.Random, shop: Shop) -> bytes:
    """Random bytes, a damaged question, or random JSON."""
    kind = chance.randrange(3)
    if kind == 0:
        return chance.randbytes(chance.randrange(200))
    if kind == 1:
        question = bytearray(
            json.dumps({"history": chance.choice(shop.histories), "k": 5, "at": 1e9, "filter": None}).encode()
        )
        for _ in range(chance.randint(1, 4)):
            question[chance.randrange(len(question))] = chance.choice(b'0123456789[]{},:"\\-.eEnulltruefalse\xff\x00')
        return bytes(question)
    names = ["history", "histories", "times", "k", "at", "exclude_seen", "filter", "allow", "forbid_categories", "x"]
    return json.dumps({chance.choice(names): value(chance, 3, names) for _ in range(chance.randint(0, 4))}).encode()


def value(chance: random.Random, depth: int, names: Sequence[str]) -> Any:
    """Random JSON."""
    kind = chance.randrange(9 if depth else 7)
    if kind == 7:
        return [value(chance, depth - 1, names) for _ in range(chance.randrange(5))]
    if kind == 8:
        return {chance.choice(names): value(chance, depth - 1, names) for _ in range(chance.randrange(4))}
    plain = [
        None,
        True,
        chance.randint(-5, 5),
        chance.randint(-(2**70), 2**70),
        chance.uniform(-1e3, 1e12),
        "x",
        "\ud800",
    ]
    return plain[kind]


def slow(service: Service, count: int, *, seconds: float = 5) -> dict[str, Any]:
    """Dawdle in three ways while others ask; before, watch those for some seconds."""
    with Load(service) as undisturbed:
        time.sleep(seconds)
    with Load(service) as load:
        threads = [Thread(target=dawdle, args=(service.port, number % 3)) for number in range(count)]
        begun = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        taken = time.monotonic() - begun
    assert taken < 30, f"it took {taken:.0f} s until all slow clients were sent away"
    return {
        "slow clients": count,
        "seconds until all were sent away": taken,
        "clients saw": expect(load),
        "median ms of the others": 1000 * sorted(load.seconds)[len(load.seconds) // 2],
        "median ms without slow clients": 1000 * sorted(undisturbed.seconds)[len(undisturbed.seconds) // 2],
    }


def dawdle(port: int, way: int) -> None:
    """Send a head, or a body, drop by drop, or ask for much and read nothing; return when the connection was ended."""
    with socket.socket() as connection:
        connection.settimeout(30)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", port))
        head = b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n"
        try:
            if way == 2:
                while True:
                    connection.sendall(b"GET /v1/items?k=1000 HTTP/1.1\r\nHost: x\r\n\r\n")
            drops = head if way == 0 else b"[" * 5000
            if way == 1:
                connection.sendall(head + b"\r\n")
            for drop in drops:
                connection.sendall(bytes([drop]))
                time.sleep(0.2)
        except OSError:
            pass


def schema(service: Service, examples: int, *, phases: str = "examples,coverage,fuzzing") -> dict[str, Any]:
    """Schemathesis' command; it fails where an answer is not as the document says."""
    command = [
        str(Path(sys.executable).parent / "schemathesis"), "--config-file", str(ROOT / "benchmarks/schemathesis.toml"),
        "run", f"http://127.0.0.1:{service.port}/openapi.json",
        "--max-examples", str(examples), "--phases", phases, "--seed", "1", "--no-color",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:]
    return {"report": [line.strip() for line in done.stdout.splitlines() if "generated" in line or "passed" in line]}


if __name__ == "__main__":
    main()
