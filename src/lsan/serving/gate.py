"""What every request passes first and last: keys, load, the log, the figures."""

import logging
from collections.abc import Mapping
from time import perf_counter

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lsan.serving.direct import Direct
from lsan.serving.logs import log, log_request
from lsan.serving.problems import MEDIA_TYPE, ProblemError, overloaded, problem_of
from lsan.serving.service import Service

#: What load balancers ask, without a key and however much there is to do.
OPEN = ("/healthz", "/readyz")

#: Methods that the log names.
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

_MORE = [(b"x-content-type-options", b"nosniff")]

#: Status in the log and the figures of a request whose client went away; it is not sent to anybody.
GONE = 499


class Gate:
    """An ASGI application around another one."""

    def __init__(self, app: ASGIApp, service: Service, *, direct: Mapping[str, Direct], routes: frozenset[str]) -> None:
        """`direct` are the paths whose POST requests do not go to the application; `routes` are those that are named in
        log and figures."""
        self._app, self._service, self._direct, self._routes = app, service, direct, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        begun = perf_counter()
        path, method = scope["path"], scope["method"]
        answer = Sender(send, close=self._service.stopping)
        try:
            problem = self._refusal(path, scope)
            if problem is not None:
                await answer.problem(problem)
            elif method == "POST" and path in self._direct:
                await answer.json(await self._direct[path](scope, receive))
            else:
                await self._app(scope, receive, answer)
        except ClientDisconnect:
            pass
        except Exception as error:
            problem = problem_of(error)
            if problem.status == 500:
                log("a request failed", level=logging.ERROR, error=error, route=self._route(path))
            if answer.status == GONE:
                await answer.problem(problem)
        finally:
            route, seconds = self._route(path), perf_counter() - begun
            self._service.metrics.request(route, answer.status, seconds)
            if self._service.settings.access_log:
                log_request(method if method in _METHODS else "other", route, answer.status, seconds, answer.size)

    def _refusal(self, path: str, scope: Scope) -> ProblemError | None:
        """Why this request is not even looked at."""
        service = self._service
        if path in OPEN:
            return None
        if service.under_way() > service.settings.requests:
            return overloaded(f"more than {service.settings.requests} requests are under way")
        if service.keys is not None and not service.keys.accept(dict(scope["headers"])):
            return ProblemError(
                "no-key", "send a key that this service knows as `Authorization: Bearer KEY` or `X-API-Key: KEY`",
                headers={"WWW-Authenticate": "Bearer"},
            )  # fmt: skip
        return None

    def _route(self, path: str) -> str:
        """The path where it is one of ours: others may hold anything."""
        if path in self._routes:
            return path
        return "page" if path in self._service.model.pages else "other"


class Sender:
    """Sends an answer, and remembers what it was."""

    def __init__(self, send: Send, *, close: bool) -> None:
        """`close`: the connection is closed after the answer."""
        self._send = send
        self._more = [*_MORE, (b"connection", b"close")] if close else _MORE
        self.status, self.size = GONE, 0

    async def __call__(self, message: Message) -> None:
        """What an application sends."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], *self._more]
        else:
            self.size += len(message.get("body", b""))
        await self._send(message)

    async def json(self, body: bytes) -> None:
        """A JSON document."""
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await self({"type": "http.response.start", "status": 200, "headers": headers})
        await self({"type": "http.response.body", "body": body})

    async def problem(self, problem: ProblemError) -> None:
        """An error."""
        body = problem.body
        named = {"content-type": MEDIA_TYPE, "content-length": str(len(body))} | problem.headers
        headers = [(name.lower().encode(), value.encode()) for name, value in named.items()]
        await self({"type": "http.response.start", "status": problem.status, "headers": headers})
        await self({"type": "http.response.body", "body": body})
