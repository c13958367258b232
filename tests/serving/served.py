"""`lsan serve` as a process, and plain clients."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
JSON = {"Content-Type": "application/json"}


class Answer:
    """What came back."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Served:
    """A service that runs."""

    def __init__(self, process: "subprocess.Popen[str]", port: int, log: Path) -> None:
        self.process, self.port, self._log = process, port, log

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] = {}) -> Answer:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, dict(headers))
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, question: Any) -> Answer:
        return self.ask("POST", path, json.dumps(question), JSON)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    @property
    def log(self) -> list[dict[str, Any]]:
        """All lines."""
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    def await_event(self, event: str, count: int = 1) -> dict[str, Any]:
        """The line of the log with that event, once there are so many."""
        await_that(lambda: sum(line["event"] == event for line in self.log) >= count)
        return [line for line in self.log if line["event"] == event][count - 1]

    def figure(self, name: str) -> float:
        """One of /metrics."""
        lines = self.get("/metrics").body.decode().splitlines()
        return next(float(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == name)


def await_that(holds: Callable[[], bool], seconds: float = 30) -> None:
    """Return when it holds."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it does not come to pass"
        time.sleep(0.02)


def workers_of(process: int) -> list[int]:
    """Process ids of a service's workers."""
    found = []
    for name in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        with suppress(OSError):  # it has ended meanwhile
            if "spawn_main" in Path(f"/proc/{name}/cmdline").read_text():
                found.append(int(name))
    return found


@contextmanager
def serving(file: Path, folder: Path, *options: object) -> Iterator[Served]:
    """`lsan serve` on a free port; it has to end well."""
    log = folder / "log"
    command = [sys.executable, "-m", "lsan", "serve", str(file), "--port", "0", *map(str, options)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        told = re.fullmatch(r".* is served at http://127\.0\.0\.1:(\d+); Ctrl-C stops it\n", line)
        assert told is not None, line + log.read_text()
        yield Served(process, int(told[1]), log)
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0, log.read_text()[-2000:]
            assert process.stdout.read() == "stopped\n"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
