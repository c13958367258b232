"""Downloads that resume, are bounded and are verified, and safe unpacking of what came."""

import hashlib
import http.client
import json
import logging
import os
import re
import shutil
import ssl
import stat
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import FileIO
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import urlsplit

from lsan.errors import ConfigError, DataError
from lsan.files import new_folder, write_atomically

logger = logging.getLogger(__name__)

#: Called with what is going on, the bytes done so far, and the bytes there are in all (None: unknown).
Progress = Callable[[str, int, int | None], None]

_CHUNK = 1 << 18
_TEMPORARY_STATUS = {408, 425, 429, 500, 502, 503, 504}
_MAX_MEMBERS = 10_000


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to try."""

    tries: int = 5
    """Requests for one file before giving up; each goes on where the one before it broke off."""
    timeout_s: float = 30.0
    """Seconds without a byte after which a connection counts as broken."""
    backoff_s: float = 0.5
    """Seconds before the second request; doubles with every further one."""

    def __post_init__(self) -> None:
        if self.tries < 1:
            raise ConfigError(f"tries must be at least 1, got {self.tries}")
        if not 0 < self.timeout_s < float("inf"):
            raise ConfigError(f"the timeout must be a positive number of seconds, got {self.timeout_s}")


@dataclass(frozen=True, kw_only=True)
class Checksum:
    """What a file must hash to."""

    sha256: str
    """SHA-256, 64 lower-case hexadecimal digits."""
    origin: str
    """Where the sum comes from."""
    remedy: str
    """What to do when a download has another one."""


class _BrokenError(Exception):
    """One request did not bring the file, another one may."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = 5

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if not _is_web_address(newurl) or (req.type == "https" and urlsplit(newurl).scheme != "https"):
            fp.close()
            raise DataError(f"{req.full_url}: refused a redirect to {newurl!r}, which is not an https address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(
    url: str,
    destination: Path,
    *,
    expected: Checksum | None,
    limit: int,
    patience: Patience,
    progress: Progress,
) -> str:
    """Bring `url` to `destination`, whole and verified; return its SHA-256. A file that is there is only
    verified.

    What has come of a download that breaks off stays in `destination` + ".part". The next call goes on from
    there, provided that the server says that its file is still the same (by ETag or Last-Modified). `limit`
    is in bytes.

    Raises:
        ConfigError: when `url` is not an http or https address.
        DataError: when the server does not have the file, keeps breaking off, sends more than it announced or
            than `limit`; when the checksum is not the expected one; when the disk is full or not writable.
    """
    if not _is_web_address(url):
        raise ConfigError(f"{url!r} is not an http or https address")
    try:
        if destination.exists():
            return _verified(destination, destination, expected, at_fault="delete that file and run again")
        part = _part_of(destination)
        _fill(url, part, limit=limit, patience=patience, progress=progress)
        try:
            digest = _verified(part, url, expected, at_fault="the download was deleted")
        except DataError:
            _discard(part)
            raise
        part.replace(destination)
        _state_of(part).unlink(missing_ok=True)
        return digest
    except OSError as error:
        raise DataError(f"cannot write {destination}: {error.strerror or error}") from error


def _is_web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and not re.search(r"[\s\x00-\x1f\x7f]", url)
    except ValueError:  # such as an unclosed [ of an IPv6 address
        return False


def _verified(path: Path, name: str | Path, expected: Checksum | None, *, at_fault: str) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if expected is not None and digest != expected.sha256:
        raise DataError(
            f"{name}: wrong checksum: its SHA-256 is {digest}, but {expected.sha256} was {expected.origin}; "
            f"{at_fault}; {expected.remedy}"
        )
    return digest


def _part_of(destination: Path) -> Path:
    return destination.with_name(f"{destination.name}.part")


def _state_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _state_of(part).unlink(missing_ok=True)


def _resume_point(url: str, part: Path) -> tuple[int, str | None]:
    """Bytes of `url` that are there and the validator that proves them current; (0, None): start afresh."""
    try:
        state = json.loads(_state_of(part).read_bytes())
        if isinstance(state, dict) and state.get("url") == url and isinstance(state.get("validator"), str):
            size = part.stat().st_size
            return (size, state["validator"]) if size else (0, None)
    except (FileNotFoundError, ValueError):
        pass
    return 0, None


def _fill(url: str, part: Path, *, limit: int, patience: Patience, progress: Progress) -> None:
    opener = urllib.request.OpenerDirector()  # no file:, ftp: or data: handler
    opener.addheaders = [("User-Agent", "lsan")]
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    for attempt in range(1, patience.tries + 1):
        try:
            _request(opener, url, part, limit=limit, timeout_s=patience.timeout_s, progress=progress)
            return
        except _BrokenError as broken:
            if attempt == patience.tries:
                kept = _resume_point(url, part)[0]
                then = (
                    f"run the same command again to go on after the first {kept} bytes" if kept else "try again later"
                )
                raise DataError(f"{url}: {broken}; gave up at try {attempt} of {patience.tries}: {then}") from broken
            pause = patience.backoff_s * 2 ** (attempt - 1)
            logger.warning("%s: %s; next try in %g s (%d of %d)", url, broken, pause, attempt + 1, patience.tries)
            time.sleep(pause)


def _request(
    opener: urllib.request.OpenerDirector,
    url: str,
    part: Path,
    *,
    limit: int,
    timeout_s: float,
    progress: Progress,
) -> None:
    offset, validator = _resume_point(url, part)
    request = urllib.request.Request(url)
    if validator is not None:
        request.add_header("Range", f"bytes={offset}-")
        request.add_header("If-Range", validator)
    try:
        response: Any = opener.open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        with error:
            _judge_status(url, part, offset, error)
        return
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise DataError(f"{url}: the server's certificate is not valid: {error.reason.verify_message}") from error
        raise _BrokenError(f"cannot connect: {_one_line(error.reason)}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenError(f"no answer: {_one_line(error) or type(error).__name__}") from error
    with response:
        offset = _start(url, part, offset, validator, response)
        length = response.getheader("Content-Length", "")
        total = offset + int(length) if length.isascii() and length.isdigit() and not response.chunked else None
        _refuse_too_large(url, part, total, offset, limit)
        _receive(url, part, offset, total, response, limit=limit, timeout_s=timeout_s, progress=progress)


def _judge_status(url: str, part: Path, offset: int, error: urllib.error.HTTPError) -> None:
    """Return if the answer means that the part is already whole.

    Raises:
        _BrokenError: when another request may help.
        DataError: when it will not.
    """
    if error.code == 416 and offset:
        if error.headers.get("Content-Range", "").replace(" ", "") == f"bytes*/{offset}":
            return
        _discard(part)
        raise _BrokenError(f"the server's file no longer has the {offset} bytes that came before: starting afresh")
    if error.code in (301, 302, 303, 307, 308):
        raise DataError(f"{url}: the server redirects in a loop, too often, or to what is not a web address")
    reason = f"HTTP {error.code} {_one_line(error.reason)}".rstrip()
    if error.code in _TEMPORARY_STATUS:
        raise _BrokenError(reason)
    raise DataError(f"{url}: {reason}: the address is wrong or the file has moved; `--url` names a mirror")


def _start(url: str, part: Path, offset: int, validator: str | None, response: http.client.HTTPResponse) -> int:
    """The byte at which the body that now comes belongs; keeps what is needed to resume it."""
    now = _validator(response)
    if response.status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(?:\d+|\*)", response.getheader("Content-Range", "").strip())
        if found is None or int(found[1]) != offset or now != validator:
            _discard(part)
            raise _BrokenError("the server's file has changed since the download began: starting afresh")
        return offset
    if response.status != 200:
        raise DataError(f"{url}: expected the file, got HTTP {response.status} {_one_line(response.reason)}")
    _discard(part)
    if now is not None:
        write_atomically(_state_of(part), json.dumps({"url": url, "validator": now}).encode())
    return 0


def _validator(response: http.client.HTTPResponse) -> str | None:
    """What `If-Range` may carry: a strong ETag, else the date; None when the server gives neither."""
    etag = response.getheader("ETag")
    return etag if etag and not etag.startswith("W/") else response.getheader("Last-Modified")


def _refuse_too_large(url: str, part: Path, total: int | None, offset: int, limit: int) -> None:
    if total is None:
        return
    if total > limit:
        _discard(part)
        raise DataError(f"{url}: the server announces {total} bytes, more than the {limit} that this file may have")
    free = shutil.disk_usage(part.parent).free
    if total - offset > free:
        raise DataError(
            f"{part.parent}: {total - offset} bytes are still to come, but only {free} are free on that disk"
        )


def _receive(
    url: str,
    part: Path,
    offset: int,
    total: int | None,
    response: http.client.HTTPResponse,
    *,
    limit: int,
    timeout_s: float,
    progress: Progress,
) -> None:
    # Without this, http.client stops at Content-Length and hides that the server sent more than it announced.
    response.length = None
    received = offset
    with FileIO(part, "ab") as file:
        while True:
            try:
                block = response.read1(_CHUNK)
            except TimeoutError as error:
                if received == total:  # whole; the server only failed to close the connection
                    break
                raise _BrokenError(f"no data for {timeout_s:g} s after {_of(received, total)} bytes") from error
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise _BrokenError(f"the connection broke after {_of(received, total)} bytes") from error
            if not block:
                break
            received += len(block)
            bound, what = min((limit, "this file may have"), (limit if total is None else total, "it announced"))
            if received > bound:
                _discard(part)
                raise DataError(f"{url}: the server sent more than the {bound} bytes that {what}; deleted what came")
            rest = memoryview(block)
            while rest:
                rest = rest[file.write(rest) :]
            progress(f"downloading {part.name.removesuffix('.part')}", received, total)
        os.fsync(file.fileno())
    if total is not None and received < total:
        raise _BrokenError(f"the connection ended after {_of(received, total)} bytes")


def _of(received: int, total: int | None) -> str:
    return str(received) if total is None else f"{received} of {total}"


def _one_line(text: object) -> str:
    return " ".join(str(text).split())


def unpack_zip(archive: Path, folder: Path, *, limit: int) -> None:
    """Unpack a zip file into the new folder `folder`: all of it or nothing. One folder around all of it is
    left out.

    `limit` is the most bytes that the unpacked files may have together.

    Raises:
        DataError: when the archive is damaged, holds absolute paths, `..`, links or other special files,
            encrypted or repeated members, or more than `limit` bytes; when `folder` exists or cannot be
            written.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = _checked_members(archive, opened.infolist(), limit=limit)
            with new_folder(folder) as temporary:
                for path, member in members.items():
                    target = temporary / path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with opened.open(member) as source, target.open("xb") as file:
                        shutil.copyfileobj(source, file, _CHUNK)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise DataError(f"{archive}: not a whole zip file ({_one_line(error)}): delete it and run again") from error
    except OSError as error:
        raise DataError(f"cannot unpack {archive} into {folder}: {error.strerror or error}") from error


def _checked_members(archive: Path, members: list[zipfile.ZipInfo], *, limit: int) -> dict[Path, zipfile.ZipInfo]:
    """Relative path of every file in the archive -> its entry, all of them safe to write."""

    def refuse(member: zipfile.ZipInfo, reason: str) -> DataError:
        return DataError(f"{archive}: refused to unpack it: the member {member.filename!r} {reason}")

    paths: dict[PurePosixPath, zipfile.ZipInfo] = {}
    if len(members) > _MAX_MEMBERS:
        raise DataError(f"{archive}: refused to unpack it: {len(members)} members, expected at most {_MAX_MEMBERS}")
    for member in members:
        path = PurePosixPath(member.filename)
        if path.is_absolute() or ".." in path.parts or re.search(r"[\\:\x00-\x1f]", member.orig_filename):
            raise refuse(member, "would be written outside the folder")
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise refuse(member, "is a link or another special file")
        if member.flag_bits & 0x1:
            raise refuse(member, "is encrypted")
        # The other methods decompress without a bound on memory.
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise refuse(member, f"is compressed by method {member.compress_type}, expected deflate")
        if member.is_dir():
            continue
        if path in paths or not path.parts:
            raise refuse(member, "appears twice" if path.parts else "has no name")
        paths[path] = member
    # zipfile stops each member at its declared size, so the declared sizes bound what is written.
    size = sum(member.file_size for member in paths.values())
    if size > limit:
        raise DataError(f"{archive}: refused to unpack it: it would be {size} bytes, expected at most {limit}")
    tops = {path.parts[0] for path in paths}
    wrapped = len(tops) == 1 and all(len(path.parts) > 1 for path in paths)
    return {Path(*path.parts[wrapped:]): member for path, member in paths.items()}
