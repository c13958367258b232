"""Swagger's page of the OpenAPI document, from files that fastapi-offline brings, so that no other host is asked."""

import base64
import hashlib
import re
from importlib.resources import files

from fastapi.openapi.docs import get_swagger_ui_html

from lsan.serving.pages import Page, make_page

_PLACE = "/docs"
_SCRIPT, _STYLE, _ICON = "swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"


def make_docs() -> dict[str, Page]:
    """Files by path."""
    brought = files("fastapi_offline") / "static"
    page = bytes(
        get_swagger_ui_html(
            openapi_url="/openapi.json",
            title="lsan",
            swagger_js_url=f"{_PLACE}/{_SCRIPT}",
            swagger_css_url=f"{_PLACE}/{_STYLE}",
            swagger_favicon_url=f"{_PLACE}/{_ICON}",
        ).body
    )
    scripts = [f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'" for script in _inline(page)]
    policy = (
        f"default-src 'none'; script-src 'self' {' '.join(scripts)}; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )
    return {
        _PLACE: make_page("docs.html", page, policy=policy),
        **{f"{_PLACE}/{name}": make_page(name, (brought / name).read_bytes()) for name in (_SCRIPT, _STYLE, _ICON)},
    }


def _inline(page: bytes) -> list[bytes]:
    return re.findall(rb"<script>(.*?)</script>", page, re.DOTALL)
