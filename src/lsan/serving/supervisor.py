"""Several workers: starts them, starts again those that die, passes signals on."""

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from lsan.errors import LsanError
from lsan.serving.logs import log, log_to_standard_error
from lsan.serving.settings import Settings

#: Seconds before a worker that died is started again: after it was ready, and where it died before.
_PAUSE, _LONGER_PAUSE = 0.2, 2.0

_spawn = multiprocessing.get_context("spawn")


class Supervisor:
    """As many workers as there are listeners. Each has one of its own, which outlives it: what connects while a worker
    is started again waits for it."""

    def __init__(self, settings: Settings, listeners: Sequence[socket.socket]) -> None:
        self._settings, self._listeners = settings, listeners
        self._processes: dict[int, SpawnProcess] = {}
        self._ready: set[int] = set()
        self._begun = self._stopping = False
        self._failure = ""
        self._ended = asyncio.Event()

    def run(self, ready: Callable[[str], None]) -> None:
        """Serve until SIGINT or SIGTERM. `ready` is called with the version of the model when all workers are there.

        Raises:
            LsanError: when a worker cannot begin.
        """
        log_to_standard_error()
        self._tell = ready
        asyncio.run(self._run())
        if self._failure:
            raise LsanError(self._failure)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._pass_on, signal.SIGHUP)
        for worker in range(len(self._listeners)):
            self._start(worker)
        await self._ended.wait()

    def _start(self, worker: int) -> None:
        if self._stopping:
            return
        mine, theirs = _spawn.Pipe()
        process = _spawn.Process(target=work, args=(self._settings, self._listeners[worker], worker, theirs))
        process.start()
        theirs.close()
        self._processes[worker] = process
        asyncio.get_running_loop().add_reader(mine.fileno(), self._heard, worker, mine)

    def _heard(self, worker: int, pipe: Connection) -> None:
        """A worker says that it is ready or why it cannot be, or its end of the pipe was closed, with its process."""
        try:
            version, reason = pipe.recv()
        except EOFError:
            asyncio.get_running_loop().remove_reader(pipe.fileno())
            pipe.close()
            self._gone(worker)
            return
        if reason and not self._begun:
            self._failure = reason
            self._stop()
        elif reason:
            log("worker cannot begin", level=logging.ERROR, worker=worker, reason=reason)
        else:
            self._ready.add(worker)
            if not self._begun and len(self._ready) == len(self._listeners):
                self._begun = True
                self._tell(version)

    def _gone(self, worker: int) -> None:
        process = self._processes.pop(worker)
        process.join()
        if not (self._stopping or self._begun):
            self._failure = f"a worker died before it was ready, with exit code {process.exitcode}"
            self._stop()
        elif not self._stopping:
            log("worker died", level=logging.ERROR, worker=worker, exit_code=process.exitcode)
            pause = _PAUSE if worker in self._ready else _LONGER_PAUSE
            self._ready.discard(worker)
            asyncio.get_running_loop().call_later(pause, self._start, worker)
        elif not self._processes:
            self._ended.set()

    def _stop(self) -> None:
        self._stopping = True
        self._pass_on(signal.SIGTERM)
        if not self._processes:
            self._ended.set()

    def _pass_on(self, number: signal.Signals) -> None:
        for process in self._processes.values():
            if process.pid is not None and process.is_alive():
                os.kill(process.pid, number)


def work(settings: Settings, listener: socket.socket, number: int, pipe: Connection) -> None:
    """The main function of a worker's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches it too; the supervisor passes on what it means
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it listens to it
    from lsan.serving.server import Worker

    try:
        worker = Worker(settings, listener, number=number)
    except LsanError as error:
        pipe.send(("", str(error)))
        return
    worker.run(lambda: pipe.send((worker.version, "")), stop_on=(signal.SIGTERM,), parent=pipe.fileno())
