"""Errors as the service answers them: application/problem+json of RFC 9457."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from pydantic_core import ErrorDetails, ValidationError
from starlette.exceptions import HTTPException

from lsan.errors import ConfigError

MEDIA_TYPE = "application/problem+json"

#: Name of a problem, the last part of its `type` -> status and title.
KINDS = {
    "bad-request": (400, "This is not a request of HTTP/1.1"),
    "not-json": (400, "The body is not JSON"),
    "no-key": (401, "A valid API key is needed"),
    "not-found": (404, "There is nothing at this address"),
    "unknown-item": (404, "The model does not know this item"),
    "method-not-allowed": (405, "This address does not offer this method"),
    "too-slow": (408, "The request did not arrive in time"),
    "body-too-large": (413, "The body is too large"),
    "wrong-media-type": (415, "The body is not declared as JSON"),
    "invalid": (422, "The request does not have the form that is expected"),
    "head-too-large": (431, "The head of the request is too large"),
    "internal": (500, "The service failed"),
    "overloaded": (503, "Too much is asked for at the moment"),
    "stopping": (503, "The service is stopping"),
}

#: Most errors that are named in one answer.
_NAMED = 10


class ProblemError(Exception):
    """A request that cannot be answered as it is. Every header value is ASCII."""

    def __init__(
        self,
        kind: str,
        detail: str,
        *,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind, self.detail, self.errors = kind, detail, errors
        self.status, self.title = KINDS[kind]
        self.headers = dict(headers or {})

    @property
    def body(self) -> bytes:
        """The JSON."""
        entries: dict[str, Any] = {
            "type": f"urn:lsan:problem:{self.kind}", "title": self.title, "status": self.status, "detail": self.detail,
        }  # fmt: skip
        if self.errors:
            entries["errors"] = self.errors
        return json.dumps(entries, ensure_ascii=False).encode("utf-8", "replace")


class FieldError(BaseModel):
    """One thing that is wrong with a request."""

    pointer: str | None = Field(None, description="JSON pointer into the body, as a fragment")
    parameter: str | None = Field(None, description="name of the query parameter")
    got: str = Field(description="what was there")
    expected: str = Field(description="what should be there")


class ProblemDocument(BaseModel):
    """What an error looks like (RFC 9457)."""

    type: str = Field(description="urn:lsan:problem: and the name of the problem")
    title: str
    status: int
    detail: str = Field(description="what was wrong, and what to do")
    errors: list[FieldError] | None = Field(None, description="where, what was got, what was expected")


def overloaded(detail: str) -> ProblemError:
    """Too much at once; the client should come again in a second."""
    return ProblemError("overloaded", f"{detail}; try again in a second", headers={"Retry-After": "1"})


def invalid(where: str, got: str, expected: str) -> ProblemError:
    """One thing that is wrong with a body, at a JSON pointer."""
    return ProblemError(
        "invalid", f"{where}: got {got}, expected {expected}",
        errors=[{"pointer": where, "got": got, "expected": expected}],
    )  # fmt: skip


def problem_of(error: Exception) -> ProblemError:
    """What to answer where this was raised."""
    if isinstance(error, ProblemError):
        return error
    if isinstance(error, RequestValidationError):
        return _of_errors(error.errors())
    if isinstance(error, ConfigError):
        return ProblemError("invalid", str(error))
    if isinstance(error, HTTPException) and error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        return ProblemError("method-not-allowed", f"use {allowed}", headers={"Allow": allowed})
    return ProblemError("internal", "the service could not answer; its log says more")


def of_validation(error: ValidationError) -> ProblemError:
    """What pydantic found wrong with a body."""
    return _of_errors(error.errors(include_url=False))


def _of_errors(found: Sequence[ErrorDetails]) -> ProblemError:
    """Errors in pydantic's form; a place that begins with "query" is a parameter's."""
    if found[0]["type"] == "json_invalid":
        reason = found[0].get("ctx", {}).get("error", "it ends too early")
        return ProblemError("not-json", f"the body is not JSON: {reason}")
    errors = [_described(each) for each in found[:_NAMED]]
    first = errors[0]
    where = first.get("pointer") or first["parameter"]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return ProblemError("invalid", f"{where}: got {first['got']}, expected {first['expected']}{more}", errors=errors)


def _described(error: ErrorDetails) -> dict[str, str]:
    kind, place = error["type"], list(error["loc"])
    got = "nothing" if kind == "missing" else _shown(error["input"])
    if kind == "extra_forbidden":
        expected = "no entry of this name"
    elif kind == "missing":
        expected = "an entry of this name"
    else:
        expected = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    if place[:1] == ["query"]:
        return {"parameter": str(place[-1]), "got": got, "expected": expected}
    escaped = "/".join(str(part).replace("~", "~0").replace("/", "~1") for part in place)
    return {"pointer": f"#/{escaped}" if place else "#", "got": got, "expected": expected}


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"an array of {len(value)}"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:80]}..."
