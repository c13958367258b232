"""`lsan fetch` from end to end, against a real server on this machine that misbehaves in many ways."""

import fcntl
import hashlib
import json
import os
import re
import resource
from dataclasses import replace
from pathlib import Path

import pytest

from faulty_site import CONTENT, Site, error_of, fetch, names_in, register
from lsan.cli import main
from lsan.data.download import Progress
from lsan.data.public import PUBLIC_SETS, PublicSet, RemoteFile


def _convert_nothing(folder: Path, converted: Path, progress: Progress) -> None:
    (converted / "items.csv").write_text("item,title,category\n")


@pytest.fixture(autouse=True)
def one(monkeypatch: pytest.MonkeyPatch) -> PublicSet:
    """A set of one file without a known checksum."""
    entry = replace(
        PUBLIC_SETS["steam"],
        name="one",
        files=(RemoteFile(url="https://example.org/one.bin", size=len(CONTENT), limit=10_000),),
        convert=_convert_nothing,
    )
    register(monkeypatch, entry)
    return entry


def test_fetches_and_says_what_is_next(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "one"
    assert fetch(site, out) == 0
    assert (out / "one.bin").read_bytes() == CONTENT
    assert names_in(out) == {"one.bin", "csv", "checksums.json"}
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
    assert fetch(site, tmp_path) == 0
    assert fetch(site, tmp_path) == 0
    assert len(site.requests) == 1


@pytest.mark.parametrize("fault", ["truncates", "503"])
def test_a_broken_try_is_followed_by_another(
    site: Site, tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    site.faults = [fault]
    assert fetch(site, tmp_path, tries=2) == 0
    assert (tmp_path / "one.bin").read_bytes() == CONTENT
    assert "next try in 0.5 s (2 of 2)" in caplog.text


@pytest.mark.parametrize("fault", ["too big", "chunked and cut", "429"])
def test_running_again_mends_a_broken_try(site: Site, tmp_path: Path, fault: str) -> None:
    site.faults = [fault]
    assert fetch(site, tmp_path) == 2
    assert fetch(site, tmp_path) == 0
    assert (tmp_path / "one.bin").read_bytes() == CONTENT


def test_resumes_where_it_broke_off(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site.faults = ["truncates"]
    assert fetch(site, tmp_path) == 2
    error = error_of(capsys)
    assert "the connection ended after 1024 of 2048 bytes" in error
    assert "run the same command again to go on after the first 1024 bytes" in error
    assert names_in(tmp_path) == {"one.bin.part", "one.bin.part.json"}
    assert fetch(site, tmp_path) == 0
    assert site.requests == [("one.bin", None, None), ("one.bin", "bytes=1024-", '"v1"')]
    assert (tmp_path / "one.bin").read_bytes() == CONTENT
    assert names_in(tmp_path) == {"one.bin", "csv", "checksums.json"}


def test_gives_up_on_a_server_that_always_truncates(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.always = "truncates"
    assert fetch(site, tmp_path, tries=2) == 2
    assert "gave up at try 2 of 2" in error_of(capsys)
    assert (tmp_path / "one.bin.part").stat().st_size == 1536


@pytest.mark.parametrize(
    "then", ["ignores ranges", "a new version", "ignores If-Range", "wrong place", "shorter", "no ETag"]
)
def test_a_part_that_cannot_be_resumed_is_dropped(site: Site, tmp_path: Path, then: str) -> None:
    site.faults = ["truncates"]
    assert fetch(site, tmp_path) == 2
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
    assert fetch(site, tmp_path) == 0 or fetch(site, tmp_path) == 0
    assert (tmp_path / "one.bin").read_bytes() == content


def test_without_a_validator_it_starts_afresh(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site.etag, site.faults = None, ["truncates"]
    assert fetch(site, tmp_path) == 2
    assert "try again later" in error_of(capsys)
    assert fetch(site, tmp_path) == 0
    assert site.requests[1] == ("one.bin", None, None)
    assert (tmp_path / "one.bin").read_bytes() == CONTENT


def test_a_part_of_another_address_is_dropped(site: Site, tmp_path: Path) -> None:
    state = {"url": "http://elsewhere/one.bin", "validator": '"v1"'}
    (tmp_path / "one.bin.part").write_bytes(b"x" * 1000)
    (tmp_path / "one.bin.part.json").write_text(json.dumps(state))
    assert fetch(site, tmp_path) == 0
    assert (tmp_path / "one.bin").read_bytes() == CONTENT


def test_a_part_that_is_already_whole_is_kept(site: Site, tmp_path: Path) -> None:
    state = {"url": f"{site.address}/one.bin", "validator": '"v1"'}
    (tmp_path / "one.bin.part").write_bytes(CONTENT)
    (tmp_path / "one.bin.part.json").write_text(json.dumps(state))
    assert fetch(site, tmp_path) == 0
    assert site.requests == [("one.bin", "bytes=2048-", '"v1"')]
    assert (tmp_path / "one.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("state", ["", "[]", "{", '{"url": 1}', "\xff"])
def test_a_damaged_note_beside_a_part_is_ignored(site: Site, tmp_path: Path, state: str) -> None:
    (tmp_path / "one.bin.part").write_bytes(b"x" * 1000)
    (tmp_path / "one.bin.part.json").write_text(state, encoding="latin-1")
    assert fetch(site, tmp_path) == 0
    assert (tmp_path / "one.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("way", ["no length", "chunked"])
def test_needs_no_content_length(site: Site, tmp_path: Path, way: str) -> None:
    site.faults = [way]
    assert fetch(site, tmp_path) == 0
    assert (tmp_path / "one.bin").read_bytes() == CONTENT


def test_a_server_that_does_not_hang_up_is_fine(site: Site, tmp_path: Path) -> None:
    site.faults = ["stays open"]
    assert fetch(site, tmp_path, "--timeout", "0.2") == 0
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
    assert fetch(site, tmp_path) == 2
    error = error_of(capsys)
    assert message in error
    assert f"{site.address}/one.bin: " in error
    assert names_in(tmp_path) == set()


@pytest.mark.parametrize("fault", ["endless", "chunked"])
def test_a_server_cannot_fill_the_disk(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    site.files["one.bin"] = bytes(9_000 if fault == "endless" else 100_000)
    site.always = fault
    assert fetch(site, tmp_path) == 2
    assert re.search(r"sent more than the (9000|10000) bytes", error_of(capsys))
    assert names_in(tmp_path) == set()


def test_more_than_the_disk_has_is_refused_at_once(
    site: Site,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    one: PublicSet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    register(monkeypatch, replace(one, files=(replace(one.files[0], limit=10**16),)))
    site.always = "huge"
    assert fetch(site, tmp_path) == 2
    assert f"{10**15} bytes are still to come, but only" in error_of(capsys)


def test_an_unwritable_disk_is_an_error(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        status = fetch(site, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert status == 2
    assert f"cannot write {tmp_path / 'one.bin'}: File too large" in error_of(capsys)
    assert fetch(site, tmp_path) == 0
    assert site.requests[1][1] == "bytes=1000-"


def test_a_server_that_hangs_is_given_up(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site.always = "hangs"
    assert fetch(site, tmp_path, "--timeout", "0.2") == 2
    assert "no data for 0.2 s after 100 of 2048 bytes" in error_of(capsys)
    assert (tmp_path / "one.bin.part").read_bytes() == CONTENT[:100]


def test_no_server(tmp_path: Path, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.address = "http://127.0.0.1:1"
    assert fetch(site, tmp_path) == 2
    assert "http://127.0.0.1:1/one.bin: cannot connect: [Errno 111] Connection refused" in error_of(capsys)


def test_a_wrong_checksum_deletes_the_download(
    site: Site,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    one: PublicSet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    register(monkeypatch, replace(one, files=(replace(one.files[0], sha256="0" * 64),)))
    assert fetch(site, tmp_path) == 2
    error = error_of(capsys)
    assert hashlib.sha256(CONTENT).hexdigest() in error
    assert "0" * 64 in error
    assert "the download was deleted" in error
    assert names_in(tmp_path) == set()


def test_the_first_download_is_the_measure_of_later_ones(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch(site, tmp_path) == 0
    (tmp_path / "one.bin").unlink()
    site.files["one.bin"] = CONTENT[::-1]
    assert fetch(site, tmp_path) == 2
    error = error_of(capsys)
    assert hashlib.sha256(CONTENT).hexdigest() in error
    assert hashlib.sha256(CONTENT[::-1]).hexdigest() in error
    assert "fetch into another folder" in error
    assert not (tmp_path / "one.bin").exists()
    assert fetch(site, tmp_path / "another") == 0


def test_what_is_converted_is_of_the_files_beside_it(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch(site, tmp_path) == 0
    (tmp_path / "one.bin").unlink()
    (tmp_path / "checksums.json").unlink()
    site.files["one.bin"] = CONTENT[::-1]
    assert fetch(site, tmp_path) == 2
    assert f"{tmp_path / 'csv'} is there, and not known to be of these files: delete it" in error_of(capsys)
    assert (tmp_path / "csv" / "items.csv").exists()


def test_two_fetches_do_not_share_a_folder(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        assert fetch(site, tmp_path) == 2
    finally:
        os.close(descriptor)
    assert "another `lsan fetch` is at work in it" in error_of(capsys)
    assert not site.requests
    assert fetch(site, tmp_path) == 0


def test_the_folder_may_be_the_current_one(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert fetch(site, Path()) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"--out {tmp_path}-dataset")


def test_a_changed_file_on_this_disk_is_noticed_and_kept(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch(site, tmp_path) == 0
    (tmp_path / "one.bin").write_bytes(b"changed")
    assert fetch(site, tmp_path) == 2
    assert "delete that file and run again" in error_of(capsys)
    assert (tmp_path / "one.bin").read_bytes() == b"changed"


@pytest.mark.parametrize("lock", ["", "[]", '{"one.bin": 1}', '{"one.bin": {"sha256": "abc"}}', "\xff"])
def test_damaged_checksums_are_an_error(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], lock: str
) -> None:
    (tmp_path / "checksums.json").write_text(lock, encoding="latin-1")
    assert fetch(site, tmp_path) == 2
    assert "checksums.json is damaged: fetch into another folder" in error_of(capsys)


def test_two_sets_do_not_share_a_folder(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch(site, tmp_path) == 0
    assert fetch(site, tmp_path, name="ml-1m") == 2
    assert "holds another public dataset" in error_of(capsys)


def test_an_address_that_is_no_web_address(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for url in ("file:///etc", "ftp://host", "nonsense", "http://", "http://a b", "http://[::1"):
        assert main(["fetch", "one", "--url", url, "--out", str(tmp_path)]) == 2
        assert "is not an http or https address" in error_of(capsys)


def test_out_that_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["fetch", "one", "--out", str(tmp_path / "file")]) == 2
    assert "cannot make the folder" in error_of(capsys)


@pytest.mark.parametrize("option", [["--tries", "0"], ["--timeout", "0"], ["--timeout", "nan"], ["--list"]])
def test_options_that_make_no_sense(tmp_path: Path, capsys: pytest.CaptureFixture[str], option: list[str]) -> None:
    assert main(["fetch", "one", "--out", str(tmp_path), *option]) == 2
    assert error_of(capsys)
    assert names_in(tmp_path) == set()


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
    error = error_of(capsys)
    assert "did you mean 'ml-1m'?" in error
    assert "amazon-beauty, amazon-toys" in error
