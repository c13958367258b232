"""`lsan fetch` from end to end, against a real server on this machine that misbehaves in many ways."""

import gzip
import hashlib
import io
import json
import re
import resource
import shlex
import stat
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

from lsan.cli import main
from lsan.data import public
from lsan.data.download import Progress
from lsan.data.public import PUBLIC_SETS, PublicSet, RemoteFile

CONTENT = bytes(range(256)) * 8


@dataclass(kw_only=True)
class Site:
    """What the server has and how it behaves."""

    files: dict[str, bytes] = field(default_factory=lambda: {"one.bin": CONTENT})
    """Name -> content."""
    faults: list[str] = field(default_factory=list)
    """What goes wrong with the first request, the second, ...; afterwards all is well."""
    always: str = ""
    """What goes wrong with all requests that `faults` has no entry for."""
    etag: str | None = '"v1"'
    """ETag of every file."""
    requests: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    """Name, Range and If-Range of each request."""
    address: str = ""
    """Address of the folder."""


class Handler(BaseHTTPRequestHandler):
    site: Site
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        site = self.site
        name = unquote(self.path).strip("/")
        wanted, condition = self.headers["Range"], self.headers["If-Range"]
        site.requests.append((name, wanted, condition))
        fault = site.faults.pop(0) if site.faults else site.always
        self.close_connection = True
        if fault.isdigit() or name not in site.files:
            self.send_error(int(fault or 404))
            return
        if fault.startswith("redirect"):
            self.send_response(302)
            self.send_header("Location", fault.removeprefix("redirect ").replace("SELF", self.path))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = site.files[name]
        start = 0
        if wanted is not None and "ignores ranges" not in fault:
            if condition == site.etag or fault == "ignores If-Range":
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        body = content[start:]
        self.send_response(206 if start else 200)
        if start:
            shift = 7 if fault == "wrong place" else 0
            self.send_header("Content-Range", f"bytes {start + shift}-{len(content) - 1}/{len(content)}")
        if site.etag is not None:
            self.send_header("ETag", site.etag)
        announced = {"too big": len(body) + 100, "too small": len(body) - 100, "huge": 10**15}.get(fault, len(body))
        if fault.startswith("chunked"):
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(body), body))
            self.wfile.write(b"" if fault == "chunked and cut" else b"0\r\n\r\n")
            return
        if fault != "no length":
            self.send_header("Content-Length", str(announced))
        self.end_headers()
        if "truncates" in fault:
            body = body[: len(body) // 2]
        if fault == "endless":
            body *= 50
        if fault == "hangs":
            self.wfile.write(body[:100])
            time.sleep(0.6)
            return
        if fault == "stays open":
            self.wfile.write(body)
            self.wfile.flush()
            time.sleep(0.6)
            return
        try:
            self.wfile.write(body)
        except ConnectionError:
            self.close_connection = True


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "*")
    site = Site()
    handler = type("SiteHandler", (Handler,), {"site": site})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = False  # so that closing waits for the answers, and leaves no socket behind
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    site.address = f"http://127.0.0.1:{server.server_port}"
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


def _convert_nothing(folder: Path, converted: Path, progress: Progress) -> None:
    (converted / "items.csv").write_text("item,title,category\n")


def _register(monkeypatch: pytest.MonkeyPatch, entry: PublicSet) -> None:
    monkeypatch.setattr(public, "PUBLIC_SETS", {**PUBLIC_SETS, entry.name: entry})


@pytest.fixture(autouse=True)
def one(monkeypatch: pytest.MonkeyPatch) -> PublicSet:
    """A set of one file without a known checksum."""
    entry = replace(
        PUBLIC_SETS["steam"],
        name="one",
        files=(RemoteFile(url="https://example.org/one.bin", size=len(CONTENT), limit=10_000),),
        convert=_convert_nothing,
    )
    _register(monkeypatch, entry)
    return entry


def _fetch(site: Site, out: Path, *more: str, name: str = "one", tries: int = 1) -> int:
    return main(["fetch", name, "--url", site.address, "--out", str(out), "--tries", str(tries), *more])


def _error(capsys: pytest.CaptureFixture[str]) -> str:
    """The error, which is one line."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lsan: error: ")]
    assert len(lines) == 1
    return lines[0]


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_fetches_and_says_what_is_next(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "one"
    assert _fetch(site, out) == 0
    assert (out / "one.bin").read_bytes() == CONTENT
    assert _names(out) == {"one.bin", "csv", "checksums.json"}
    said = capsys.readouterr()
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    assert said.out.startswith(PUBLIC_SETS["steam"].summary)
    assert "Terms: Collected for research" in said.out
    assert f"SHA-256 {sha256}, recorded" in said.out
    assert said.out.splitlines()[-1].startswith("next: lsan prepare ")
    assert said.err == ""
    assert json.loads((out / "checksums.json").read_bytes())["one.bin"] == {
        "sha256": sha256,
        "bytes": len(CONTENT),
        "url": f"{site.address}/one.bin",
    }


def test_a_second_fetch_verifies_and_asks_the_server_nothing(site: Site, tmp_path: Path) -> None:
    assert _fetch(site, tmp_path) == 0
    assert _fetch(site, tmp_path) == 0
    assert len(site.requests) == 1


@pytest.mark.parametrize("fault", ["truncates", "503"])
def test_a_broken_try_is_followed_by_another(
    site: Site, tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    site.faults = [fault]
    assert _fetch(site, tmp_path, tries=2) == 0
    assert (tmp_path / "one.bin").read_bytes() == CONTENT
    assert "next try in 0.5 s (2 of 2)" in caplog.text


@pytest.mark.parametrize("fault", ["too big", "chunked and cut", "429"])
def test_running_again_mends_a_broken_try(site: Site, tmp_path: Path, fault: str) -> None:
    site.faults = [fault]
    assert _fetch(site, tmp_path) == 2
    assert _fetch(site, tmp_path) == 0
    assert (tmp_path / "one.bin").read_bytes() == CONTENT


def test_resumes_where_it_broke_off(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site.faults = ["truncates"]
    assert _fetch(site, tmp_path) == 2
    error = _error(capsys)
    assert "the connection ended after 1024 of 2048 bytes" in error
    assert "run the same command again to go on after the first 1024 bytes" in error
    assert _names(tmp_path) == {"one.bin.part", "one.bin.part.json"}
    assert _fetch(site, tmp_path) == 0
    assert site.requests == [("one.bin", None, None), ("one.bin", "bytes=1024-", '"v1"')]
    assert (tmp_path / "one.bin").read_bytes() == CONTENT
    assert _names(tmp_path) == {"one.bin", "csv", "checksums.json"}


def test_gives_up_on_a_server_that_always_truncates(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.always = "truncates"
    assert _fetch(site, tmp_path, tries=2) == 2
    assert "gave up at try 2 of 2" in _error(capsys)
    assert (tmp_path / "one.bin.part").stat().st_size == 1536


@pytest.mark.parametrize(
    "then", ["ignores ranges", "a new version", "ignores If-Range", "wrong place", "shorter", "no ETag"]
)
def test_a_part_that_cannot_be_resumed_is_dropped(site: Site, tmp_path: Path, then: str) -> None:
    site.faults = ["truncates"]
    assert _fetch(site, tmp_path) == 2
    content = CONTENT
    if then == "a new version":
        site.etag, content = '"v2"', CONTENT[::-1]
    elif then == "ignores If-Range":
        site.etag, content, site.faults = '"v2"', CONTENT[::-1], [then]
    elif then == "shorter":
        site.etag, content, site.faults = '"v2"', CONTENT[:700], ["ignores If-Range"]
    elif then == "no ETag":
        site.etag, site.faults = None, ["ignores If-Range"]
    else:
        site.faults = [then]
    site.files["one.bin"] = content
    assert _fetch(site, tmp_path) == 0 or _fetch(site, tmp_path) == 0
    assert (tmp_path / "one.bin").read_bytes() == content


def test_without_a_validator_it_starts_afresh(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site.etag, site.faults = None, ["truncates"]
    assert _fetch(site, tmp_path) == 2
    assert "try again later" in _error(capsys)
    assert _fetch(site, tmp_path) == 0
    assert site.requests[1] == ("one.bin", None, None)
    assert (tmp_path / "one.bin").read_bytes() == CONTENT


def test_a_part_of_another_address_is_dropped(site: Site, tmp_path: Path) -> None:
    state = {"url": "http://elsewhere/one.bin", "validator": '"v1"'}
    (tmp_path / "one.bin.part").write_bytes(b"x" * 1000)
    (tmp_path / "one.bin.part.json").write_text(json.dumps(state))
    assert _fetch(site, tmp_path) == 0
    assert (tmp_path / "one.bin").read_bytes() == CONTENT


def test_a_part_that_is_already_whole_is_kept(site: Site, tmp_path: Path) -> None:
    state = {"url": f"{site.address}/one.bin", "validator": '"v1"'}
    (tmp_path / "one.bin.part").write_bytes(CONTENT)
    (tmp_path / "one.bin.part.json").write_text(json.dumps(state))
    assert _fetch(site, tmp_path) == 0
    assert site.requests == [("one.bin", "bytes=2048-", '"v1"')]
    assert (tmp_path / "one.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("state", ["", "[]", "{", '{"url": 1}', "\xff"])
def test_a_damaged_note_beside_a_part_is_ignored(site: Site, tmp_path: Path, state: str) -> None:
    (tmp_path / "one.bin.part").write_bytes(b"x" * 1000)
    (tmp_path / "one.bin.part.json").write_text(state, encoding="latin-1")
    assert _fetch(site, tmp_path) == 0
    assert (tmp_path / "one.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("way", ["no length", "chunked"])
def test_needs_no_content_length(site: Site, tmp_path: Path, way: str) -> None:
    site.faults = [way]
    assert _fetch(site, tmp_path) == 0
    assert (tmp_path / "one.bin").read_bytes() == CONTENT


def test_a_server_that_does_not_hang_up_is_fine(site: Site, tmp_path: Path) -> None:
    site.faults = ["stays open"]
    assert _fetch(site, tmp_path, "--timeout", "0.2") == 0
    assert (tmp_path / "one.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("too small", "the server sent more than the 1948 bytes that it announced; deleted what came"),
        ("huge", f"announces {10**15} bytes, more than the 10000 that this file may have"),
        ("404", "/one.bin: HTTP 404 Not Found"),
        ("403", "/one.bin: HTTP 403 Forbidden"),
        ("500", "/one.bin: HTTP 500 Internal Server Error; gave up at try 1 of 1: try again later"),
        ("redirect SELF", "redirects in a loop, too often, or to what is not a web address"),
        ("redirect file:///etc/passwd", "or to what is not a web address"),
        ("redirect ftp://127.0.0.1/one.bin", "refused a redirect to 'ftp://127.0.0.1/one.bin'"),
    ],
)
def test_refusals_are_one_line_with_the_address(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: str, message: str
) -> None:
    site.always = fault
    assert _fetch(site, tmp_path) == 2
    error = _error(capsys)
    assert message in error
    assert f"{site.address}/one.bin: " in error
    assert _names(tmp_path) == set()


@pytest.mark.parametrize("fault", ["endless", "chunked"])
def test_a_server_cannot_fill_the_disk(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    site.files["one.bin"] = bytes(9_000 if fault == "endless" else 100_000)
    site.always = fault
    assert _fetch(site, tmp_path) == 2
    assert re.search(r"sent more than the (9000|10000) bytes", _error(capsys))
    assert _names(tmp_path) == set()


def test_more_than_the_disk_has_is_refused_at_once(
    site: Site,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    one: PublicSet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _register(monkeypatch, replace(one, files=(replace(one.files[0], limit=10**16),)))
    site.always = "huge"
    assert _fetch(site, tmp_path) == 2
    assert f"{10**15} bytes are still to come, but only" in _error(capsys)


def test_an_unwritable_disk_is_an_error(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        status = _fetch(site, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert status == 2
    assert f"cannot write {tmp_path / 'one.bin'}: File too large" in _error(capsys)
    assert _fetch(site, tmp_path) == 0
    assert site.requests[1][1] == "bytes=1000-"


def test_a_server_that_hangs_is_given_up(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site.always = "hangs"
    assert _fetch(site, tmp_path, "--timeout", "0.2") == 2
    assert "no data for 0.2 s after 100 of 2048 bytes" in _error(capsys)
    assert (tmp_path / "one.bin.part").read_bytes() == CONTENT[:100]


def test_no_server(tmp_path: Path, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.address = "http://127.0.0.1:1"
    assert _fetch(site, tmp_path) == 2
    assert "http://127.0.0.1:1/one.bin: cannot connect: [Errno 111] Connection refused" in _error(capsys)


def test_a_wrong_checksum_deletes_the_download(
    site: Site,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    one: PublicSet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _register(monkeypatch, replace(one, files=(replace(one.files[0], sha256="0" * 64),)))
    assert _fetch(site, tmp_path) == 2
    error = _error(capsys)
    assert hashlib.sha256(CONTENT).hexdigest() in error
    assert "0" * 64 in error
    assert "the download was deleted" in error
    assert _names(tmp_path) == set()


def test_the_first_download_is_the_measure_of_later_ones(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _fetch(site, tmp_path) == 0
    (tmp_path / "one.bin").unlink()
    site.files["one.bin"] = CONTENT[::-1]
    assert _fetch(site, tmp_path) == 2
    error = _error(capsys)
    assert hashlib.sha256(CONTENT).hexdigest() in error
    assert hashlib.sha256(CONTENT[::-1]).hexdigest() in error
    assert f"delete {tmp_path / 'checksums.json'}" in error
    assert not (tmp_path / "one.bin").exists()
    (tmp_path / "checksums.json").unlink()
    assert _fetch(site, tmp_path) == 0


def test_a_changed_file_on_this_disk_is_noticed_and_kept(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _fetch(site, tmp_path) == 0
    (tmp_path / "one.bin").write_bytes(b"changed")
    assert _fetch(site, tmp_path) == 2
    assert "delete that file and run again" in _error(capsys)
    assert (tmp_path / "one.bin").read_bytes() == b"changed"


@pytest.mark.parametrize("lock", ["", "[]", '{"one.bin": 1}', '{"one.bin": {"sha256": "abc"}}', "\xff"])
def test_damaged_checksums_are_an_error(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], lock: str
) -> None:
    (tmp_path / "checksums.json").write_text(lock, encoding="latin-1")
    assert _fetch(site, tmp_path) == 2
    assert "checksums.json is damaged: delete it" in _error(capsys)


def test_two_sets_do_not_share_a_folder(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _fetch(site, tmp_path) == 0
    assert _fetch(site, tmp_path, name="ml-1m") == 2
    assert "holds another public dataset" in _error(capsys)


def test_an_address_that_is_no_web_address(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for url in ("file:///etc", "ftp://host", "nonsense", "http://", "http://a b", "http://[::1"):
        assert main(["fetch", "one", "--url", url, "--out", str(tmp_path)]) == 2
        assert "is not an http or https address" in _error(capsys)


def test_out_that_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["fetch", "one", "--out", str(tmp_path / "file")]) == 2
    assert "cannot make the folder" in _error(capsys)


@pytest.mark.parametrize("option", [["--tries", "0"], ["--timeout", "0"], ["--timeout", "nan"], ["--list"]])
def test_options_that_make_no_sense(tmp_path: Path, capsys: pytest.CaptureFixture[str], option: list[str]) -> None:
    assert main(["fetch", "one", "--out", str(tmp_path), *option]) == 2
    assert _error(capsys)
    assert _names(tmp_path) == set()


# Archives


def _zip(members: dict[str, bytes], *, mode: int = stat.S_IFREG | 0o644) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = mode << 16
            archive.writestr(info, content)
    return buffer.getvalue()


def _serve_1m(site: Site, monkeypatch: pytest.MonkeyPatch, archive: bytes) -> None:
    """Serve `archive` as ml-1m, with the right checksum."""
    entry = PUBLIC_SETS["ml-1m"]
    site.files["ml-1m.zip"] = archive
    _register(
        monkeypatch,
        replace(entry, files=(replace(entry.files[0], sha256=hashlib.sha256(archive).hexdigest()),)),
    )


def test_an_archive_becomes_a_log_and_items(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    movies = "1::Toy Story (1995)::Animation|Children's|Comedy\n2::Misérables, Les (1995)::Drama\n".encode("latin-1")
    ratings = b"1::1::5::978300760\n1::2::3::978302109\n"
    _serve_1m(site, monkeypatch, _zip({"ml-1m/": b"", "ml-1m/movies.dat": movies, "ml-1m/ratings.dat": ratings}))
    out = tmp_path / "my data"
    assert _fetch(site, out, name="ml-1m") == 0
    assert (out / "ml-1m" / "ratings.dat").read_bytes() == ratings
    items = 'item,title,category\n1,Toy Story (1995),Animation\n2,"Misérables, Les (1995)",Drama\n'
    assert (out / "csv" / "items.csv").read_text(encoding="utf-8") == items
    said = capsys.readouterr().out.splitlines()
    assert said[-2].endswith("as expected")
    assert shlex.split(said[-1].removeprefix("next: ")) == [
        *("lsan", "prepare", f"{out}/ml-1m/ratings.dat", "--columns", "user,item,rating,timestamp"),
        *("--items", f"{out}/csv/items.csv", "--core", "5", "--out", f"{out}-dataset"),
    ]
    assert _fetch(site, out, name="ml-1m") == 0


@pytest.mark.parametrize("name", ["../evil", "ml-1m/../../evil", "/tmp/evil", "a\\..\\evil", "c:evil"])
def test_an_archive_that_reaches_outside_is_refused(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    _serve_1m(site, monkeypatch, _zip({"ml-1m/movies.dat": b"", name: b"evil"}))
    assert _fetch(site, tmp_path / "out", name="ml-1m") == 2
    assert "would be written outside the folder" in _error(capsys)
    assert _names(tmp_path / "out") == {"ml-1m.zip"}
    assert _names(tmp_path) == {"out"}


def test_an_archive_with_a_link_is_refused(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _serve_1m(site, monkeypatch, _zip({"ml-1m/movies.dat": b"/etc/passwd"}, mode=stat.S_IFLNK | 0o777))
    assert _fetch(site, tmp_path, name="ml-1m") == 2
    assert "is a link or another special file" in _error(capsys)
    assert _names(tmp_path) == {"ml-1m.zip"}


def test_an_archive_that_swells_is_refused(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = _zip({"ml-1m/movies.dat": bytes(5_000_000)})
    assert len(bomb) < 10_000
    _serve_1m(site, monkeypatch, bomb)
    _register(monkeypatch, replace(public.PUBLIC_SETS["ml-1m"], unpacked_limit=1_000_000))
    assert _fetch(site, tmp_path, name="ml-1m") == 2
    assert "refused to unpack it: it would be 5000000 bytes, expected at most 1000000" in _error(capsys)
    assert _names(tmp_path) == {"ml-1m.zip"}


def test_what_is_no_archive_is_an_error(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _serve_1m(site, monkeypatch, b"<html>please log in</html>")
    assert _fetch(site, tmp_path, name="ml-1m") == 2
    assert "not a whole zip file" in _error(capsys)


# Other formats


def test_amazon_items_become_csv(site: Site, tmp_path: Path) -> None:
    meta = (
        "{'asin': 'A1', 'title': \"Mom's &amp; Pop's\\n soap\", 'categories': [['Beauty', 'Bath', 'Soap']]}\n"
        "{'asin': 'A2', 'price': 2.5}\n"
    )
    review = {"reviewerID": "U1", "asin": "A1", "overall": 5.0, "unixReviewTime": 1369699200}
    site.files["reviews_Beauty_5.json.gz"] = gzip.compress(json.dumps(review).encode() + b"\n")
    site.files["meta_Beauty.json.gz"] = gzip.compress(meta.encode())
    assert _fetch(site, tmp_path, name="amazon-beauty") == 0
    items = "item,title,category\nA1,Mom's & Pop's soap,Bath\nA2,,\n"
    assert (tmp_path / "csv" / "items.csv").read_text() == items
    assert set(json.loads((tmp_path / "checksums.json").read_bytes())) == {
        "reviews_Beauty_5.json.gz",
        "meta_Beauty.json.gz",
    }


def test_a_cut_gzip_file_is_an_error_and_is_not_recorded(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.files["reviews_Beauty_5.json.gz"] = gzip.compress(b"{}")
    site.files["meta_Beauty.json.gz"] = gzip.compress(b"{'asin': 'A1'}\n" * 1000)[:-20]
    assert _fetch(site, tmp_path, name="amazon-beauty") == 2
    assert "meta_Beauty.json.gz: not a whole gzip file" in _error(capsys)
    assert _names(tmp_path) == {"reviews_Beauty_5.json.gz", "meta_Beauty.json.gz"}


# The list


@pytest.mark.parametrize("arguments", [[], ["--list"]])
def test_lists_all_sets_with_sizes_and_terms(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(["fetch", *arguments]) == 0
    said = capsys.readouterr().out
    for public_set in PUBLIC_SETS.values():
        assert public_set.name in said
        assert public_set.licence in said
    assert "199 MB" in said


def test_an_unknown_name_gets_a_suggestion_and_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "ml1m"]) == 2
    error = _error(capsys)
    assert "did you mean 'ml-1m'?" in error
    assert "amazon-beauty, amazon-toys" in error
