"""One worker: an event loop that serves a bundle until it is told to stop."""

import asyncio
import contextlib
import functools
import gc
import logging
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn

from lsan.errors import ConfigError, LsanError
from lsan.serving.app import make_app
from lsan.serving.connection import Connection
from lsan.serving.keys import Keys
from lsan.serving.logs import log, log_to_standard_error
from lsan.serving.metrics import Metrics
from lsan.serving.service import Service
from lsan.serving.settings import Settings
from lsan.serving.watch import Watch

#: Seconds between two looks at the file.
_INTERVAL = 1.0

#: Seconds in which connections end by themselves after their next answer, before those that are idle are closed.
_FAREWELL = 0.5

#: Seconds that requests under way have to end.
_LAST_REQUESTS = 30

#: Seconds that an idle connection is kept; longer than load balancers keep theirs, so that they close first.
_KEEP_ALIVE = 75


class Worker:
    """Serves on a socket. To be made and run in the main thread of a process."""

    def __init__(self, settings: Settings, listener: socket.socket, *, number: int = 0) -> None:
        """Read keys and model.

        Raises:
            LsanError: when they cannot be used.
        """
        log_to_standard_error()
        folder = settings.folder
        self._settings, self._listener = settings, listener
        self._watch = Watch(settings.file, keep=None if folder is None else folder / "latest.lsan")
        self._service = Service(
            settings=settings,
            model=self._watch.first(),
            keys=None if settings.api_key_file is None else Keys.read(settings.api_key_file),
            metrics=Metrics(folder=folder, worker=number),
        )
        self._service.metrics.serving(self._service.model)
        self._service.metrics.stale.set(self._watch.refused)
        self._asked_again = asyncio.Event()
        connection = type("Connection", (Connection,), {"patience": settings.patience})
        self._server = _Server(
            uvicorn.Config(
                make_app(self._service), http=connection, loop="uvloop", ws="none", lifespan="off", interface="asgi3",
                log_config=None, access_log=False, server_header=False, proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE, timeout_graceful_shutdown=_LAST_REQUESTS,
            )
        )  # fmt: skip
        self._service.under_way = self._server.server_state.tasks.__len__
        self._stopping: asyncio.Task[None] | None = None
        gc.collect()
        gc.freeze()  # what is there by now stays, and need not be looked through again and again

    @property
    def version(self) -> str:
        """Of the model."""
        return self._service.model.version

    def run(self, ready: Callable[[], None], *, stop_on: tuple[signal.Signals, ...], parent: int | None = None) -> None:
        """Serve until one of these signals comes, or until the pipe `parent` ends; requests under way are answered
        first. SIGHUP reads keys and model again. `ready` is called when connections are accepted."""
        with asyncio.Runner(loop_factory=self._server.config.get_loop_factory()) as runner:
            runner.run(self._serve(ready, stop_on, parent))

    async def _serve(self, ready: Callable[[], None], stop_on: tuple[signal.Signals, ...], parent: int | None) -> None:
        loop = asyncio.get_running_loop()
        for number in stop_on:
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._asked_again.set)
        if parent is not None:
            loop.add_reader(parent, self._parent_ended, parent)
        background = [loop.create_task(self._keep_watch()), loop.create_task(self._keep_order())]
        self._server.ready = ready
        try:
            await self._server.serve(sockets=[self._listener])
        finally:
            for task in background:
                task.cancel()
            self._service.threads.shutdown(cancel_futures=True)

    def _stop(self) -> None:
        """Begin to stop; asked a second time, do not wait for anything."""
        if self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self._stop_gently())
        else:
            self._server.force_exit = True

    async def _stop_gently(self) -> None:
        log("stopping")
        self._service.stopping = True
        await asyncio.sleep(_FAREWELL)
        self._server.should_exit = True

    def _parent_ended(self, parent: int) -> None:
        asyncio.get_running_loop().remove_reader(parent)
        self._stop()

    async def _keep_watch(self) -> None:
        """Look at the file now and then, and at keys and file when SIGHUP asks for it."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked_again.wait(), _INTERVAL)
            again = self._asked_again.is_set()
            self._asked_again.clear()
            if again:
                self._read_keys()
            await self._look(again)

    async def _keep_order(self) -> None:
        """Send clients away that had their time."""
        while True:
            await asyncio.sleep(min(1, self._settings.patience / 4))
            for connection in list(self._server.server_state.connections):
                if isinstance(connection, Connection):
                    connection.check()

    async def _look(self, again: bool) -> None:
        """Swap the model where there is a new one."""
        service = self._service
        look = functools.partial(self._watch.check, again=again)
        try:
            model = await asyncio.get_running_loop().run_in_executor(service.threads, look)
        except Exception as error:  # whatever a file did, the model that is being served goes on
            reason = str(error) if isinstance(error, LsanError) else type(error).__name__
            service.metrics.refused.inc()
            log("model refused", level=logging.ERROR, reason=reason, serving=service.model.version)
        else:
            if model is not None:
                before, service.model = service.model.version, model
                service.metrics.swapped.inc()
                service.metrics.serving(model)
                log("model swapped", before=before, serving=model.version)
        service.metrics.stale.set(self._watch.refused)

    def _read_keys(self) -> None:
        path = self._settings.api_key_file
        if path is None:
            return
        try:
            self._service.keys = Keys.read(path)
        except ConfigError as error:
            log("keys refused", level=logging.ERROR, reason=str(error))
        else:
            log("keys read")


class _Server(uvicorn.Server):
    """Uvicorn's server, which leaves signals to the worker and says when it is ready."""

    ready: Callable[[], None]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        self.ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None."""
        yield
