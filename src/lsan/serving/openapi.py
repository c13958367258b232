"""The OpenAPI document."""

from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from lsan.serving.gate import OPEN
from lsan.serving.problems import KINDS, MEDIA_TYPE, ProblemDocument

_SCHEMAS = "#/components/schemas/"

_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def problems(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """What FastAPI should tell of these problems of an endpoint."""
    found: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        status, title = KINDS[kind]
        before = found.get(status)
        schema = {"$ref": f"{_SCHEMAS}{ProblemDocument.__name__}"}
        found[status] = {
            "description": f"{before['description']}; or: {title}" if before else title,
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
    return found


def describe(app: FastAPI, *, keys: bool) -> dict[str, Any]:
    """The document of an application, `keys` if it asks for API keys."""
    document = get_openapi(
        title="lsan",
        version=version("lsan"),
        summary="Next-item recommendation",
        description="Errors are problem documents (RFC 9457) that say what to mend.",
        routes=app.routes,
    )
    parts = document["components"]
    schema = ProblemDocument.model_json_schema(ref_template=f"{_SCHEMAS}{{model}}")
    parts["schemas"] |= schema.pop("$defs") | {ProblemDocument.__name__: schema}
    if keys:
        parts["securitySchemes"] = _SECURITY
        document["security"] = [{name: []} for name in _SECURITY]
        for path, operations in document["paths"].items():
            for operation in operations.values():
                if path in OPEN:
                    operation["security"] = []
                else:
                    operation["responses"] |= {str(status): it for status, it in problems("no-key").items()}
    return document
