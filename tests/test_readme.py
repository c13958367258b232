"""Every command of the README does what it says, on a shop of twelve."""

import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from lsan.cli import main
from needs import need_command

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

#: What a command gets beyond what the README says, so that it takes seconds.
SHORTER = {"tune": ["--trials", "1"]}

#: These two are what runs the tests and the demo's own test.
OTHERS = ("make demo", "make test")


def commands() -> list[str]:
    """The README's indented lines, without what is said of them."""
    text = re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL)
    lines = [line.strip() for line in re.findall(r"^    (?=\S)(.*)$", text, flags=re.MULTILINE)]
    return [re.sub(r"\s+# .*", "", line) for line in lines if not line.startswith(OTHERS)]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the README has been followed up to the service."""
    folder = tmp_path_factory.mktemp("readme")
    assert main(["simulate", "--out", str(folder / "shop"), "--users", "12", "--items", "40"]) == 0
    for name in ("log.csv", "items.csv"):
        shutil.copy(folder / "shop" / name, folder / name)
    (folder / "new-items.csv").write_text("item,title,category\nSKU-9001,A new one,Crafts\n")
    for name in ("src", "examples"):
        (folder / name).symlink_to(ROOT / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in commands():
            words = shlex.split(line)
            if words[0] == ".venv/bin/lsan" and words[1] != "serve":
                assert main([*words[1:], *SHORTER.get(words[1], [])]) == 0, line
    return folder


def test_each_command_is_of_a_known_kind() -> None:
    found = commands()
    assert len(found) > 15
    assert {shlex.split(line)[0] for line in found} == {".venv/bin/lsan", "cc", "./embed", "curl"}


def test_what_the_commands_write(folder: Path) -> None:
    for name in (
        "dataset", "run", "comparison", "search", "small", "model.lsan", "recommendations.parquet", "larger",
        "site/index.html", "model.onnx",
    ):  # fmt: skip
        assert (folder / name).exists(), name


def test_python(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(folder)
    shutil.rmtree(folder / "run")
    frame = pl.read_csv(folder / "log.csv")
    found = blocks("python")
    assert len(found) == 2
    for block in found:
        exec(compile(block, "README.md", "exec"), {"frame": frame})
    assert len(capsys.readouterr().out.splitlines()) == 10


def test_javascript(folder: Path) -> None:
    node = need_command("node", "nodejs")
    (block,) = blocks("js")
    (folder / "readme.mjs").write_text(block)
    done = subprocess.run([node, "readme.mjs"], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.count("score:") == 10


def test_c(folder: Path) -> None:
    need_command("cc", "build-essential")
    compile_it, run_it = (line for line in commands() if line.startswith(("cc ", "./embed")))
    subprocess.run(["bash", "-c", compile_it], cwd=folder, check=True)
    done = subprocess.run(["bash", "-c", run_it], cwd=folder, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 10


def test_the_service(folder: Path) -> None:
    need_command("curl", "curl")
    (serve,), (ask,) = ([line for line in commands() if word in line] for word in ("lsan serve", "curl "))
    words = [sys.executable, "-m", "lsan", *shlex.split(serve)[1:], "--port", "0"]
    service = subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert service.stdout is not None
        until = time.monotonic() + 60
        address = None
        while address is None and time.monotonic() < until:
            address = re.search(r"http://127\.0\.0\.1:\d+", service.stdout.readline())
        assert address is not None
        asked = ask.replace("http://127.0.0.1:8000", address.group())
        done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True)
        assert done.stdout.count('"score"') == 10
    finally:
        service.send_signal(signal.SIGINT)
        service.wait(30)
        if service.stdout is not None:
            service.stdout.close()
