import hashlib
import io
import stat
import urllib.request
import zipfile
from http.client import HTTPMessage
from pathlib import Path

import pytest

from lsan.data.download import Checksum, Patience, _Redirects, download, unpack_zip
from lsan.errors import ConfigError, DataError


def _nothing(what: str, done: int, total: int | None) -> None:
    pass


def _archive(path: Path, *members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def test_unpacks_without_the_one_folder_around_all(tmp_path: Path) -> None:
    archive = _archive(tmp_path / "a.zip", ("top/", b""), ("top/x", b"1"), ("top/deep/y", b"2"))
    unpack_zip(archive, tmp_path / "a", limit=2)
    assert (tmp_path / "a" / "x").read_bytes() == b"1"
    assert (tmp_path / "a" / "deep" / "y").read_bytes() == b"2"


@pytest.mark.parametrize("names", [("x",), ("x", "y"), ("top/x", "y"), ("one/x", "two/x")])
def test_unpacks_files_that_share_no_folder(tmp_path: Path, names: tuple[str, ...]) -> None:
    unpack_zip(_archive(tmp_path / "a.zip", *((name, b"1") for name in names)), tmp_path / "a", limit=9)
    assert all((tmp_path / "a" / name).read_bytes() == b"1" for name in names)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("names", "method", "reason"),
    [
        (("x", "x"), zipfile.ZIP_DEFLATED, "appears twice"),
        (("x", "./x"), zipfile.ZIP_DEFLATED, "appears twice"),
        (("x", "."), zipfile.ZIP_DEFLATED, "has no name"),
        (("x",), zipfile.ZIP_LZMA, "is compressed by method 14"),
        (("x",), zipfile.ZIP_BZIP2, "is compressed by method 12"),
        (("x", "x/y"), zipfile.ZIP_DEFLATED, "cannot unpack"),
        (("x\ny",), zipfile.ZIP_DEFLATED, "outside the folder"),
        (tuple(str(number) for number in range(10_001)), zipfile.ZIP_STORED, "10001 members"),
    ],
)
def test_refuses_strange_archives(tmp_path: Path, names: tuple[str, ...], method: int, reason: str) -> None:
    archive = _archive(tmp_path / "a.zip", *((name, b"") for name in names), method=method)
    with pytest.raises(DataError, match=reason) as error:
        unpack_zip(archive, tmp_path / "a", limit=100)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_refuses_special_files(tmp_path: Path, kind: int) -> None:
    member = zipfile.ZipInfo("x")
    member.external_attr = (kind | 0o644) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(member, "y")
    with pytest.raises(DataError, match="a link or another special file"):
        unpack_zip(tmp_path / "a.zip", tmp_path / "a", limit=100)


def test_refuses_encrypted_members(tmp_path: Path) -> None:
    archive = _archive(tmp_path / "a.zip", ("x", b"1"))
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(content)
    with pytest.raises(DataError, match="is encrypted"):
        unpack_zip(archive, tmp_path / "a", limit=100)


def test_a_member_cannot_be_larger_than_it_declares(tmp_path: Path) -> None:
    archive = _archive(tmp_path / "a.zip", ("x", bytes(100_000)))
    content = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = content.index(signature) + offset
        content[place : place + 4] = (10).to_bytes(4, "little")
    archive.write_bytes(content)
    with pytest.raises(DataError, match="not a whole zip file"):
        unpack_zip(archive, tmp_path / "a", limit=100)
    assert not (tmp_path / "a").exists()


def test_a_damaged_member_leaves_nothing(tmp_path: Path) -> None:
    archive = _archive(tmp_path / "a.zip", ("x", b"abcdefgh" * 100), method=zipfile.ZIP_STORED)
    content = bytearray(archive.read_bytes())
    content[100] ^= 1
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"not a whole zip file \(Bad CRC-32"):
        unpack_zip(archive, tmp_path / "a", limit=1000)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_a_file_that_is_there_is_only_verified(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    sha256 = hashlib.sha256(b"abc").hexdigest()
    patience = Patience(tries=1)

    def again(expected: str) -> str:
        checksum = Checksum(sha256=expected, origin="written here", remedy="do this")
        url = "https://nowhere.invalid/x"
        return download(url, path, expected=checksum, limit=9, patience=patience, progress=_nothing)

    assert again(sha256) == sha256
    with pytest.raises(DataError, match=f"its SHA-256 is {sha256}, but {'0' * 64} was written here; .*; do this"):
        again("0" * 64)
    assert path.exists()


@pytest.mark.parametrize("target", ["http://elsewhere/x", "file:///etc/passwd", "ftp://elsewhere/x", "https://"])
def test_https_is_not_redirected_to_anything_less(target: str) -> None:
    request = urllib.request.Request("https://publisher/x")
    with pytest.raises(DataError, match="refused a redirect"):
        _Redirects().redirect_request(request, io.BytesIO(), 302, "Found", HTTPMessage(), target)


def test_https_is_redirected_to_https() -> None:
    request = urllib.request.Request("https://publisher/x", headers={"Range": "bytes=5-"})
    answer = _Redirects().redirect_request(request, io.BytesIO(), 302, "Found", HTTPMessage(), "https://elsewhere/x")
    assert answer is not None
    assert answer.full_url == "https://elsewhere/x"
    assert answer.headers["Range"] == "bytes=5-"


@pytest.mark.parametrize("tries", [0, -1])
def test_patience_tries_at_least_once(tries: int) -> None:
    with pytest.raises(ConfigError, match="tries must be at least 1"):
        Patience(tries=tries)


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan"), float("inf")])
def test_patience_ends(timeout: float) -> None:
    with pytest.raises(ConfigError, match="positive number of seconds"):
        Patience(timeout_s=timeout)
