"""What `lsan fetch` makes of what it downloaded: archives, also such as mean harm, and the formats of publishers."""

import gzip
import hashlib
import io
import json
import shlex
import stat
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from faulty_site import Site, error_of, fetch, names_in, register
from lsan.data import public
from lsan.data.public import PUBLIC_SETS


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
    register(
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
    assert fetch(site, out, name="ml-1m") == 0
    assert (out / "ml-1m" / "ratings.dat").read_bytes() == ratings
    items = 'item,title,category\n1,Toy Story (1995),Animation\n2,"Misérables, Les (1995)",Drama\n'
    assert (out / "csv" / "items.csv").read_text(encoding="utf-8") == items
    said = capsys.readouterr().out.splitlines()
    assert said[-2].endswith("as expected")
    assert shlex.split(said[-1].removeprefix("next: ")) == [
        *("lsan", "prepare", f"{out}/ml-1m/ratings.dat", "--columns", "user,item,rating,timestamp"),
        *("--items", f"{out}/csv/items.csv", "--core", "5", "--out", f"{out}-dataset"),
    ]
    assert fetch(site, out, name="ml-1m") == 0


@pytest.mark.parametrize("name", ["../evil", "ml-1m/../../evil", "/tmp/evil", "a\\..\\evil", "c:evil"])
def test_an_archive_that_reaches_outside_is_refused(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    _serve_1m(site, monkeypatch, _zip({"ml-1m/movies.dat": b"", name: b"evil"}))
    assert fetch(site, tmp_path / "out", name="ml-1m") == 2
    assert "would be written outside the folder" in error_of(capsys)
    assert names_in(tmp_path / "out") == {"ml-1m.zip"}
    assert names_in(tmp_path) == {"out"}


def test_an_archive_with_a_link_is_refused(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _serve_1m(site, monkeypatch, _zip({"ml-1m/movies.dat": b"/etc/passwd"}, mode=stat.S_IFLNK | 0o777))
    assert fetch(site, tmp_path, name="ml-1m") == 2
    assert "is a link or another special file" in error_of(capsys)
    assert names_in(tmp_path) == {"ml-1m.zip"}


def test_an_archive_that_swells_is_refused(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = _zip({"ml-1m/movies.dat": bytes(5_000_000)})
    assert len(bomb) < 10_000
    _serve_1m(site, monkeypatch, bomb)
    register(monkeypatch, replace(public.PUBLIC_SETS["ml-1m"], unpacked_limit=1_000_000))
    assert fetch(site, tmp_path, name="ml-1m") == 2
    assert "refused to unpack it: it would be 5000000 bytes, expected at most 1000000" in error_of(capsys)
    assert names_in(tmp_path) == {"ml-1m.zip"}


def test_what_is_no_archive_is_an_error(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _serve_1m(site, monkeypatch, b"<html>please log in</html>")
    assert fetch(site, tmp_path, name="ml-1m") == 2
    assert "not a whole zip file" in error_of(capsys)


# Other formats


def test_amazon_items_become_csv(site: Site, tmp_path: Path) -> None:
    meta = (
        "{'asin': 'A1', 'title': \"Mom's &amp; Pop's\\n soap\", 'categories': [['Beauty', 'Bath', 'Soap']]}\n"
        "{'asin': 'A2', 'price': 2.5}\n"
    )
    review = {"reviewerID": "U1", "asin": "A1", "overall": 5.0, "unixReviewTime": 1369699200}
    site.files["reviews_Beauty_5.json.gz"] = gzip.compress(json.dumps(review).encode() + b"\n")
    site.files["meta_Beauty.json.gz"] = gzip.compress(meta.encode())
    assert fetch(site, tmp_path, name="amazon-beauty") == 0
    items = "item,title,category\nA1,Mom's & Pop's soap,Bath\nA2,,\n"
    assert (tmp_path / "csv" / "items.csv").read_text() == items
    assert set(json.loads((tmp_path / "checksums.json").read_bytes())) == {
        "reviews_Beauty_5.json.gz",
        "meta_Beauty.json.gz",
    }


def test_a_cut_gzip_file_is_an_error_and_is_not_recorded(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    review = json.dumps({"reviewerID": "U1", "asin": "A1", "unixReviewTime": 1369699200}).encode()
    reviews = gzip.compress(review + b"\n")
    meta = gzip.compress(b"{'asin': 'A1'}\n" * 1000)
    site.files["meta_Beauty.json.gz"] = meta
    for damaged, reason in (
        (reviews[:-9], "not a whole gzip file"),
        (b"<html>maintenance</html>", "not a whole gzip file"),
        (gzip.compress(b"<html>maintenance</html>"), "its first line is not JSON with reviewerID, asin"),
    ):
        site.files["reviews_Beauty_5.json.gz"] = damaged
        assert fetch(site, tmp_path, name="amazon-beauty") == 2
        assert f"reviews_Beauty_5.json.gz: {reason}" in error_of(capsys)
        (tmp_path / "reviews_Beauty_5.json.gz").unlink()
    site.files |= {"reviews_Beauty_5.json.gz": reviews, "meta_Beauty.json.gz": meta[:-20]}
    (tmp_path / "meta_Beauty.json.gz").unlink()
    assert fetch(site, tmp_path, name="amazon-beauty") == 2
    assert "meta_Beauty.json.gz: not a whole gzip file" in error_of(capsys)
    assert names_in(tmp_path) == {"reviews_Beauty_5.json.gz", "meta_Beauty.json.gz"}
