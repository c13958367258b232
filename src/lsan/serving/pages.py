"""The page (`lsan page`) as the service gives it out: bodies and headers, made once for each model."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from lsan.page.site import site_files

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
}

_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, kw_only=True)
class Page:
    """A file of the page."""

    body: bytes
    """As it is."""
    tag: str
    """Its ETag."""
    headers: Mapping[str, str]
    """Type, ETag, and what a browser may do with it."""


def make_pages(content: bytes) -> dict[str, Page]:
    """Files by path for a bundle's bytes; the index is at / too."""
    pages = {f"/{path}": make_page(path, body) for path, body in site_files(content).items()}
    return pages | {"/": pages["/index.html"]}


def make_page(path: str, body: bytes, *, policy: str = _POLICY) -> Page:
    """One file; browsers ask each time whether it has changed."""
    tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    headers = {
        "content-type": _TYPES.get(PurePosixPath(path).suffix, "application/octet-stream"),
        "etag": tag,
        "cache-control": "no-cache",
        "content-security-policy": policy,
        "referrer-policy": "no-referrer",
    }
    return Page(body=body, tag=tag, headers=headers)
