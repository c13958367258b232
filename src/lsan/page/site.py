"""Makes the site of a bundle: the files in `static/`, the engine and its module, the bundle, and a worker for them."""

import base64
import hashlib
import html
import json
import re
from pathlib import Path
from string import Template

from lsan.errors import ConfigError
from lsan.files import refuse_existing, write_atomically

#: The heading, unless another is given.
TITLE = "What comes next"

#: In `index.html`; tells that a folder was written here and may be replaced.
MARK = b'<meta name="generator" content="lsan page">'

_STATIC = Path(__file__).parent / "static"
_JAVASCRIPT = Path(__file__).parents[1] / "javascript"


def site_files(content: bytes, *, title: str = TITLE) -> dict[str, bytes]:
    """The whole site: name of each file to its bytes, in the order in which they should be replaced where an earlier
    site is being read: the model and the worker, which announces all others, come last. Equal arguments give equal
    bytes.

    Args:
        content: a bundle's bytes; they are not checked here.
        title: the heading, as plain text.

    Raises:
        ConfigError: when the title is blank.
    """
    heading = title.encode("utf-8", "replace").decode().strip()
    if not heading:
        raise ConfigError("the page's title is blank: a page needs a heading")
    page = Template(_lines(_STATIC / "index.html").decode())
    files = {
        "index.html": page.substitute(title=html.escape(heading)).encode(),
        "style.css": _style(_STATIC / "style.css"),
        "icon.svg": (_STATIC / "icon.svg").read_bytes(),
        "manifest.webmanifest": _manifest(heading),
        "app.js": _script(_STATIC / "app.js"),
        "lsan.js": _script(_JAVASCRIPT / "lsan.js"),
        "lsan.wasm": (_JAVASCRIPT / "lsan.wasm").read_bytes(),
        "model.lsan": content,
    }
    return {**files, "sw.js": _worker(files)}


def write_site(folder: Path, files: dict[str, bytes]) -> None:
    """Write what `site_files` gave, each file atomically, in their order. An earlier page in the folder is replaced
    file by file; what else lies beside an earlier page stays.

    Raises:
        DataError: when the folder holds other things and no page, or cannot be written.
    """
    refuse_unless_page(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_atomically(folder / name, content)


def refuse_unless_page(folder: Path) -> None:
    """Raise `DataError` when `folder` is neither new nor empty nor an earlier page."""
    index = folder / "index.html"
    if not (index.is_file() and MARK in index.read_bytes()):
        refuse_existing(folder)


def _lines(path: Path, *comments: bytes) -> bytes:
    """A file without indentation, empty lines, and lines that begin with one of `comments`: less to load, the same
    content."""
    lines = (line.strip() for line in path.read_bytes().splitlines())
    return b"\n".join(line for line in lines if line and not line.startswith(comments))


def _script(path: Path) -> bytes:
    return _lines(path, b"//", b"/**", b"* ", b"*/")


def _style(path: Path) -> bytes:
    """A style sheet that has none of these signs within a text, without the spaces around them."""
    return re.sub(rb"\s*([{};,])\s*", rb"\1", _lines(path, b"/*"))


def _manifest(title: str) -> bytes:
    """What a browser reads when the page is installed as an application."""
    manifest = {
        "name": title,
        "start_url": ".",
        "display": "standalone",
        "icons": [{"src": "icon.svg", "sizes": "any", "type": "image/svg+xml"}],
    }
    return json.dumps(manifest, ensure_ascii=False).encode()


def _worker(files: dict[str, bytes]) -> bytes:
    """The service worker, with the version of the site and the hash of each file."""
    hashes = {
        "./" if name == "index.html" else name: f"sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}"
        for name, content in sorted(files.items())
    }
    source = _script(_STATIC / "sw.js").decode()
    version = hashlib.sha256((json.dumps(hashes) + source).encode()).hexdigest()[:16]
    return f"const VERSION = {json.dumps(version)};\nconst FILES = {json.dumps(hashes, indent=0)};\n{source}".encode()
