"""A real browser and a real file server, for tests, benchmarks and pictures of what runs in pages."""

import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

_QUIET = ("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
          "--disable-component-update", "--disable-sync")  # fmt: skip


@contextmanager
def chromium() -> Iterator[Browser]:
    """Headless Chromium. To be closed before anything that uses asyncio, since Playwright's loop runs until then.

    Raises:
        FileNotFoundError: when there is none.
    """
    path = shutil.which("chromium")
    if path is None:
        raise FileNotFoundError("there is no chromium; it comes with the Debian/Ubuntu package 'chromium'")
    as_root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*_QUIET, *as_root])
        yield browser
        browser.close()


class FileServer:
    """The standard library's file server on loopback; counts what it sends."""

    def __init__(self, folder: Path) -> None:
        self.headers: Mapping[str, str] = {}
        """Sent with every answer."""
        self.paths: list[str] = []
        """Paths asked for, in order."""
        self.sent = 0
        """Bytes of files sent."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self, directory=str(folder)))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def stop(self) -> None:
        """From now on connections are refused."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, counts: FileServer, *args: Any, **options: Any) -> None:
        self._counts = counts
        super().__init__(*args, **options)

    def end_headers(self) -> None:
        for name, value in self._counts.headers.items():
            self.send_header(name, value)
        super().end_headers()

    def copyfile(self, source: Any, outputfile: Any) -> None:
        content = source.read()
        self._counts.sent += len(content)
        outputfile.write(content)

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        self._counts.paths.append(self.path)

    def log_message(self, format: str, *args: Any) -> None:
        pass
