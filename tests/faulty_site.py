"""A real server on this machine that misbehaves in many ways, and `lsan fetch` from it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

from lsan.cli import main
from lsan.data import public
from lsan.data.public import PUBLIC_SETS, PublicSet

CONTENT = bytes(range(256)) * 8


@dataclass(kw_only=True)
class Site:
    """What the server has and how it behaves."""

    files: dict[str, bytes] = field(default_factory=lambda: {"one.bin": CONTENT})
    """Name -> content."""
    faults: list[str] = field(default_factory=list)
    """What goes wrong with the first request, the second, ...; afterwards all is well."""
    always: str = ""
    """What goes wrong with all requests that `faults` has no entry for."""
    etag: str | None = '"v1"'
    """ETag of every file."""
    requests: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    """Name, Range and If-Range of each request."""
    address: str = ""
    """Address of the folder."""


class Handler(BaseHTTPRequestHandler):
    site: Site
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        site = self.site
        name = unquote(self.path).strip("/")
        wanted, condition = self.headers["Range"], self.headers["If-Range"]
        site.requests.append((name, wanted, condition))
        fault = site.faults.pop(0) if site.faults else site.always
        self.close_connection = True
        if fault.isdigit() or name not in site.files:
            self.send_error(int(fault or 404))
            return
        if fault.startswith("redirect"):
            self.send_response(302)
            self.send_header("Location", fault.removeprefix("redirect ").replace("SELF", self.path))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = site.files[name]
        start = 0
        if wanted is not None and "ignores ranges" not in fault:
            if condition == site.etag or fault == "ignores If-Range":
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        body = content[start:]
        self.send_response(206 if start else 200)
        if start:
            shift = 7 if fault == "wrong place" else 0
            self.send_header("Content-Range", f"bytes {start + shift}-{len(content) - 1}/{len(content)}")
        if site.etag is not None:
            self.send_header("ETag", site.etag)
        announced = {"too big": len(body) + 100, "too small": len(body) - 100, "huge": 10**15}.get(fault, len(body))
        if fault.startswith("chunked"):
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(body), body))
            self.wfile.write(b"" if fault == "chunked and cut" else b"0\r\n\r\n")
            return
        if fault != "no length":
            self.send_header("Content-Length", str(announced))
        self.end_headers()
        if "truncates" in fault:
            body = body[: len(body) // 2]
        if fault == "endless":
            body *= 50
        if fault == "hangs":
            self.wfile.write(body[:100])
            time.sleep(0.6)
            return
        if fault == "stays open":
            self.wfile.write(body)
            self.wfile.flush()
            time.sleep(0.6)
            return
        try:
            self.wfile.write(body)
        except ConnectionError:
            self.close_connection = True


@contextmanager
def serving() -> Iterator[Site]:
    """A site that is up meanwhile."""
    site = Site()
    handler = type("SiteHandler", (Handler,), {"site": site})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = False  # so that closing waits for the answers, and leaves no socket behind
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    site.address = f"http://127.0.0.1:{server.server_port}"
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


def register(monkeypatch: pytest.MonkeyPatch, entry: PublicSet) -> None:
    """Let `lsan fetch` know that set."""
    monkeypatch.setattr(public, "PUBLIC_SETS", {**PUBLIC_SETS, entry.name: entry})


def fetch(site: Site, out: Path, *more: str, name: str = "one", tries: int = 1) -> int:
    """Exit status of `lsan fetch NAME` from the site."""
    return main(["fetch", name, "--url", site.address, "--out", str(out), "--tries", str(tries), *more])


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    """The error, which is one line."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lsan: error: ")]
    assert len(lines) == 1
    return lines[0]


def names_in(folder: Path) -> set[str]:
    """Names of what is there."""
    return {path.name for path in folder.iterdir()}
