"""Connections that do not wait for ever. Uvicorn has no limits on how long a client may take, nor on the head."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from lsan.serving.problems import MEDIA_TYPE, ProblemError

#: Most bytes of a request's head: its line and its headers.
_HEAD = 2**15

#: Most open connections of a worker.
_CONNECTIONS = 1000


class Connection(HttpToolsProtocol):
    """Uvicorn's connection with deadlines: for the head, for the body, and for a client that does not read. A slow
    request is answered with 408, one with too long a head with 431, one connection too many with 503."""

    patience: float

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None
        self._in_head = self._in_request = True  # the first request is awaited from the beginning
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        if len(self.connections) > _CONNECTIONS:
            self._refuse(ProblemError("overloaded", "too many connections are open", headers={"Retry-After": "1"}))
        else:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; wait for what is missing of a request."""
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD:
                self._refuse(ProblemError("head-too-large", f"send at most {_HEAD:,} bytes before the body"))
                return
        if not self._in_request:
            self._stop_waiting()
        elif self._deadline is None:
            self._wait()

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_head = self._in_request = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Its head is there: the body has as long again."""
        self._in_head = False
        self._stop_waiting()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """It is there as a whole."""
        self._in_request = False
        super().on_message_complete()

    def pause_writing(self) -> None:
        """The client does not read as fast as it is sent to."""
        super().pause_writing()
        self._write_deadline = self.loop.call_later(self.patience, self.transport.abort)

    def resume_writing(self) -> None:
        """It did read."""
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """What cannot be understood."""
        self._refuse(ProblemError("bad-request", "the request cannot be understood; send HTTP/1.1"))

    def _unsupported_upgrade_warning(self) -> None:
        """A client may ask for another protocol, and need not be heard: that is nothing to log."""

    def _wait(self) -> None:
        self._deadline = self.loop.call_later(self.patience, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        if self._in_head and self._head_bytes == 0:
            self.transport.close()
        else:
            slow = f"send a request's head, and its body, within {self.patience:g} seconds each"
            self._refuse(ProblemError("too-slow", slow))

    def _refuse(self, problem: ProblemError) -> None:
        """Close the connection; before that answer the request that is being received, unless it has an answer already
        or earlier ones still wait for theirs."""
        self._stop_waiting()
        if self.transport.is_closing():
            return
        in_body = self._in_request and not self._in_head
        if in_body:
            unanswered = not self.cycle.response_started and not self.pipeline
        else:
            unanswered = self.cycle is None or self.cycle.response_complete
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
