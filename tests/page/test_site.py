"""The site's files and `lsan page`."""

import base64
import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import torch

import lsan.page.site
from lsan.cli import main
from lsan.errors import ConfigError, DataError
from lsan.export.bundle import make_bundle
from lsan.page.site import MARK, site_files, write_site
from lsan.runs import load_run
from lsan.runtime.file import read_bundle
from test_imports import loaded_after

STATIC = Path(lsan.page.site.__file__).parent / "static"


@pytest.fixture(scope="module")
def bundle(small_run: Path) -> bytes:
    return make_bundle(load_run(small_run, device=torch.device("cpu"))).content


def test_everything_but_the_model_is_small(bundle: bytes) -> None:
    files = site_files(bundle)
    assert sum(file.stat().st_size for file in STATIC.iterdir()) <= 24_000
    assert sum(map(len, files.values())) - len(bundle) <= 100_000


def test_the_worker_names_every_file_by_its_hash_and_comes_last(bundle: bytes) -> None:
    files = site_files(bundle)
    assert list(files)[-2:] == ["model.lsan", "sw.js"]
    assert files["model.lsan"] == bundle
    found = re.search(r"const FILES = (\{.*?\});", files["sw.js"].decode(), re.DOTALL)
    assert found is not None
    assert json.loads(found[1]) == {
        "./" if name == "index.html" else name: "sha256-" + base64.b64encode(hashlib.sha256(content).digest()).decode()
        for name, content in files.items()
        if name != "sw.js"
    }


def test_equal_arguments_give_equal_bytes_and_others_another_version(bundle: bytes) -> None:
    assert site_files(bundle) == site_files(bundle)
    assert site_files(bundle)["sw.js"] != site_files(bundle[:-1])["sw.js"]
    assert site_files(bundle)["sw.js"] != site_files(bundle, title="Another")["sw.js"]


def test_pages_ask_for_nothing_elsewhere_and_have_no_inline_script_or_style(bundle: bytes) -> None:
    files = site_files(bundle)
    page = files["index.html"].decode()
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert set(addresses) == set(files) - {"index.html", "sw.js"}
    assert "script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; connect-src 'self'" in page
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script[^>]*>[^<]", page)
    for name in ("style.css", "app.js", "lsan.js"):
        assert not re.search(rb"https?://(?!www\.w3\.org/2000/svg)[a-z]", files[name]), name
    assert b"innerHTML" not in files["app.js"]


def test_titles_are_plain_text(bundle: bytes) -> None:
    title = 'Café <b>"&"</b> $title \udcff'
    files = site_files(bundle, title=title)
    assert files["index.html"].count("Café &lt;b&gt;&quot;&amp;&quot;&lt;/b&gt; $title ?".encode()) == 2
    assert json.loads(files["manifest.webmanifest"])["name"] == 'Café <b>"&"</b> $title ?'
    with pytest.raises(ConfigError, match="blank"):
        site_files(bundle, title=" ")


def test_only_an_earlier_page_is_replaced(bundle: bytes, tmp_path: Path) -> None:
    write_site(tmp_path / "new" / "page", site_files(bundle, title="One"))
    (tmp_path / "new" / "page" / "CNAME").write_text("shop.example")
    write_site(tmp_path / "new" / "page", site_files(bundle, title="Two"))
    assert b"Two" in (tmp_path / "new" / "page" / "index.html").read_bytes()
    assert (tmp_path / "new" / "page" / "CNAME").read_text() == "shop.example"

    for name, content in {"index.html": "mine", "notes.txt": MARK.decode()}.items():
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_text(content)
        with pytest.raises(DataError, match="name another folder, or delete this one"):
            write_site(folder, site_files(bundle))
        assert [(file.name, file.read_text()) for file in folder.iterdir()] == [(name, content)]
    with pytest.raises(DataError, match="is a file"):
        write_site(tmp_path / "notes" / "notes.txt", site_files(bundle))


def test_the_command_takes_a_run_or_a_file(
    small_run: Path, bundle: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["page", str(small_run), "--out", str(tmp_path / "a"), "--title", "Of a run"]) == 0
    printed = capsys.readouterr().out
    assert "histories of test cases" in printed
    assert f"http.server --directory {tmp_path / 'a'}" in printed
    (tmp_path / "model.lsan").write_bytes(bundle)
    assert main(["page", str(tmp_path / "model.lsan"), "--out", str(tmp_path / "b")]) == 0
    assert (tmp_path / "b" / "model.lsan").read_bytes() == bundle
    assert read_bundle(tmp_path / "a" / "model.lsan").manifest["items"] == 60
    assert b"Of a run" in (tmp_path / "a" / "index.html").read_bytes()


def test_a_bad_model_or_folder_writes_nothing(
    small_run: Path, bundle: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cut.lsan").write_bytes(bundle[:5000])
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").touch()
    shutil.copytree(small_run, tmp_path / "damaged")
    (tmp_path / "damaged" / "model.safetensors").write_bytes(b"")
    for model, out, complaint in (
        ("cut.lsan", "out", "cut.lsan"),
        ("gone.lsan", "out", "cannot be read"),
        ("damaged", "out", "damaged"),
        ("damaged", "taken", "taken"),  # found before anything is computed
    ):
        assert main(["page", str(tmp_path / model), "--out", str(tmp_path / out)]) == 2
        assert complaint in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert [file.name for file in (tmp_path / "taken").iterdir()] == ["thesis.txt"]


def test_a_file_needs_no_torch(bundle: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.lsan").write_bytes(bundle)
    command = ["page", str(tmp_path / "model.lsan"), "--out", str(tmp_path / "site")]
    loaded = loaded_after(f"from lsan.cli import main; assert main({command}) == 0")
    assert "numpy" in loaded
    assert loaded.isdisjoint({"torch", "polars", "matplotlib"})
    assert (tmp_path / "site" / "sw.js").exists()
