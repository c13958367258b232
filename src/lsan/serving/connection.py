"""Connections that do not wait for ever. Uvicorn has no limits on how long a client may take, nor on the head."""

import asyncio
import re
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from lsan.serving.problems import MEDIA_TYPE, ProblemError, overloaded

#: Most bytes of a request's head: its line and its headers.
_HEAD = 2**15

#: Most requests that wait on one connection for the answer to the one before; the next one ends the connection.
_PIPELINED = 16

_END = b"\r\n\r\n"  # of a head
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)

#: Most open connections of a worker.
_CONNECTIONS = 1000


class Connection(HttpToolsProtocol):
    """Uvicorn's connection with deadlines: for the head, for the body, and for a client that does not read. A slow
    request is answered with 408, one with too long a head with 431, one connection too many with 503."""

    patience: float

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._in_head = self._in_request = True  # the first request is awaited from the beginning
        self._head_bytes = 0
        self._held = b""  # of the head: what is not a whole line yet
        self._awaited_since = self.loop.time()
        self._stuck_since: float | None = None
        self._answered: RequestResponseCycle | None = None  # the one whose answer is being made

    def check(self) -> None:
        """End it where the client had its time. To be called now and then."""
        now = self.loop.time()
        if self.flow.write_paused or self.transport.is_closing():
            self._stuck_since = self._stuck_since or now
            if now - self._stuck_since > self.patience:
                self.transport.abort()
        elif self._in_request and now - self._awaited_since > self.patience:
            if self._in_head and self._head_bytes == 0:
                self.transport.close()
            else:
                slow = f"send a request's head, and its body, within {self.patience:g} seconds each"
                self._refuse(ProblemError("too-slow", slow))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        if len(self.connections) > _CONNECTIONS:
            self._refuse(overloaded(f"more than {_CONNECTIONS} connections are open"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request that is being answered, too: Uvicorn tells the latest of several."""
        if self._answered is not None and not self._answered.response_complete:
            self._answered.disconnected = True
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        in_head = self._in_head or not self._in_request
        if in_head and self._head_bytes + len(data.partition(_END)[0]) > _HEAD:
            self._refuse(ProblemError("head-too-large", f"send at most {_HEAD:,} bytes before the body"))
            return
        super().data_received(self._without_upgrade(data) if in_head else data)
        if self._in_head:
            self._head_bytes += len(data)

    def _without_upgrade(self, data: bytes) -> bytes:
        """The head without a wish for another protocol, which need not be heard. The parser would take the body for
        that protocol; Java's own client has such a wish and a body in every request. The name of a header may come in
        pieces, so a line is held back until it is whole."""
        data, self._held = self._held + data, b""
        head, end, rest = data.partition(_END)
        if not end:
            whole = data.rfind(b"\r\n")
            if whole < 0:
                whole = len(data) - data.endswith(b"\r")
            elif whole == 0 and not self._in_head:  # no line yet: the parser shall see that a request begins
                whole = len(data)
            head, self._held = data[:whole], data[whole:]
        return _UPGRADE.sub(b"\r\nIgnored:", head) + end + rest

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_head = self._in_request = True
        self._head_bytes = 0
        self._awaited_since = self.loop.time()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Its head is there: the body has as long again."""
        if len(self.pipeline) >= _PIPELINED:
            raise ValueError("too many requests before their answers")
        super().on_headers_complete()  # first: what it cannot read is answered as a bad head
        self._in_head = False
        self._head_bytes = 0
        self._awaited_since = self.loop.time()

    def on_message_complete(self) -> None:
        """It is there as a whole."""
        self._in_request = False
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """Go on reading when nothing waits for an answer any more, so that memory does not fill with requests."""
        super().on_response_complete()
        if self.pipeline:
            self.flow.pause_reading()

    def resume_writing(self) -> None:
        """The client reads."""
        self._stuck_since = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """What cannot be understood."""
        self._refuse(ProblemError("bad-request", "the request cannot be understood; send HTTP/1.1"))

    def _refuse(self, problem: ProblemError) -> None:
        """Close the connection; before that answer the request that is being received, unless it has an answer already
        or earlier ones still wait for theirs."""
        if self.transport.is_closing():
            return
        in_body = self._in_request and not self._in_head
        if in_body:
            unanswered = not self.cycle.response_started and not self.pipeline
        else:
            unanswered = self.cycle is None or self.cycle.response_complete
        if not (unanswered or in_body):  # let the earlier ones be answered
            self.cycle.keep_alive = False
            self.flow.pause_reading()
            return
        if unanswered:
            body = problem.body
            headers = {
                "content-type": MEDIA_TYPE, "content-length": str(len(body)), "connection": "close", **problem.headers,
            }  # fmt: skip
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            self.transport.write(STATUS_LINE[problem.status] + lines.encode() + b"\r\n" + body)
        if in_body:  # tell the endpoint, which awaits the body
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()
