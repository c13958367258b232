"""What every request passes first and last: keys, load, the log, the figures."""

from time import perf_counter
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lsan.serving.logs import log, log_request
from lsan.serving.problems import MEDIA_TYPE, ProblemError, overloaded
from lsan.serving.service import Service

#: What load balancers ask, without a key and however much there is to do.
OPEN = ("/healthz", "/readyz")

#: Methods that the log names.
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

#: Status in the log and the figures of a request whose client went away; it is not sent to anybody.
GONE = 499


class Gate:
    """An ASGI application around another one."""

    def __init__(self, app: ASGIApp, service: Service, routes: frozenset[str]) -> None:
        """`routes` are the paths that are named in log and figures."""
        self._app, self._service, self._routes = app, service, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        begun = perf_counter()
        service = self._service
        status, size = GONE, 0

        async def sent(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message["headers"], (b"x-content-type-options", b"nosniff")]
                if service.stopping:
                    headers.append((b"connection", b"close"))
                message["headers"] = headers
            else:
                size += len(message.get("body", b""))
            await send(message)

        path = scope["path"]
        try:
            problem = self._refusal(path, scope)
            if problem is None:
                await self._app(scope, receive, sent)
            else:
                await send_problem(problem, sent)
        except Exception as error:
            log("a request failed", level=40, error=error, route=self._route(path))
            if status == GONE:
                await send_problem(internal(), sent)
        finally:
            route, seconds = self._route(path), perf_counter() - begun
            service.metrics.request(route, status, seconds)
            if service.settings.access_log:
                method = scope["method"] if scope["method"] in _METHODS else "other"
                log_request(method, route, status, seconds, size)

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


async def send_problem(problem: ProblemError, send: Send) -> None:
    """Answer with it."""
    body = problem.body
    headers = {"content-type": MEDIA_TYPE, "content-length": str(len(body))} | problem.headers
    start: dict[str, Any] = {"type": "http.response.start", "status": problem.status}
    start["headers"] = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send(start)
    await send({"type": "http.response.body", "body": body})


def internal() -> ProblemError:
    """A mistake of ours. What it was is in the log."""
    return ProblemError("internal", "the service could not answer; its log says more")
