"""Endpoints that FastAPI describes, without the work that it does for each request."""

import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, get_type_hints

from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive

from lsan.serving.problems import ProblemError, of_validation

#: Most bytes of a body.
BODY = 2**21


class LeanRoute(APIRoute):
    """A route whose endpoint takes one pydantic model, the body, and gives the bytes of a JSON document. The body goes
    from bytes to the model in one step, which takes a third of the time of FastAPI's own way."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of a request."""
        endpoint = self.endpoint
        parameter = next(iter(inspect.signature(endpoint).parameters))
        read = TypeAdapter(get_type_hints(endpoint)[parameter]).validator.validate_json

        async def handle(request: Request) -> Response:
            headers = dict(request.scope["headers"])
            _expect_json(headers)
            body = await _body(request.receive, headers)
            try:
                question = read(body)
            except ValidationError as error:
                raise of_validation(error) from error
            return Response(await endpoint(question), media_type="application/json")

        return handle


def _expect_json(headers: Mapping[bytes, bytes]) -> None:
    """Raises `ProblemError` when a body is declared to be something else, or compressed."""
    declared = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if declared != b"application/json":
        got = declared.decode("latin-1") or "no Content-Type"
        raise ProblemError("wrong-media-type", f"send the header `Content-Type: application/json`, got {got:.80}")
    if headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
        raise ProblemError("wrong-media-type", "send the body as it is, without a Content-Encoding")


async def _body(receive: Receive, headers: Mapping[bytes, bytes]) -> bytes:
    """The body. Raises `ProblemError` as soon as it is known to be too large."""
    length = headers.get(b"content-length", b"0")
    if length.isdigit() and int(length[:20]) > BODY:
        raise _too_large()
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body"):
        if len(body) > BODY:
            raise _too_large()
        message = await receive()
        body += message.get("body", b"")
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    if len(body) > BODY:
        raise _too_large()
    return body


def _too_large() -> ProblemError:
    return ProblemError("body-too-large", f"send at most {BODY:,} bytes in one request, for example fewer histories")
