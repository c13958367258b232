"""Endpoints that FastAPI describes in the OpenAPI document, but that are called without it."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from lsan.serving.problems import ProblemError, of_validation

#: Most bytes of a body.
BODY = 2**21


class Direct:
    """An endpoint that takes one pydantic model, the body, and gives the bytes of a JSON document. Nothing else comes
    between the two: a framework would take half as long for a request as the recommendation does."""

    def __init__(self, endpoint: Callable[[Any], Awaitable[bytes]]) -> None:
        self.endpoint = endpoint
        parameter = next(iter(inspect.signature(endpoint).parameters))
        self._read = TypeAdapter(get_type_hints(endpoint)[parameter]).validator.validate_json

    async def __call__(self, scope: Scope, receive: Receive) -> bytes:
        """The answer to a request.

        Raises:
            ProblemError: when the request cannot be answered as it is.
        """
        headers = dict(scope["headers"])
        _expect_json(headers)
        body = await _body(receive, headers)
        try:
            question = self._read(body)
        except ValidationError as error:
            raise of_validation(error) from error
        return await self.endpoint(question)


def _expect_json(headers: Mapping[bytes, bytes]) -> None:
    """Raises `ProblemError` when a body is declared to be something else, or compressed."""
    declared = headers.get(b"content-type", b"")
    if declared != b"application/json" and declared.partition(b";")[0].strip().lower() != b"application/json":
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
