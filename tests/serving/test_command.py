"""`lsan serve`: what it says, and what it refuses."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from served import await_that, serving, workers_of

from lsan.cli import main
from lsan.errors import ConfigError
from lsan.serving.keys import Keys
from lsan.serving.listen import listen


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["serve", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    message = captured.err.splitlines()[-1]
    assert message.startswith("lsan: error: ")
    return message


def test_ports(bundles: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(bundles[0], tmp_path) as served:
        for workers in (1, 2):
            message = refused(capsys, bundles[0], "--port", served.port, "--workers", workers)
            assert f"port {served.port} of 127.0.0.1 is in use" in message
    assert "is no address of this machine" in refused(capsys, bundles[0], "--host", "nobody.invalid")
    assert "is no address of this machine" in refused(capsys, bundles[0], "--host", "192.0.2.1")
    assert "--port 65536: expected a whole number of 0 to 65535" in refused(capsys, bundles[0], "--port", 65536)


def test_listeners_share_a_port() -> None:
    made = listen("localhost", 0, 3)
    try:
        assert len({listener.getsockname()[1] for listener in made}) == 1
    finally:
        for listener in made:
            listener.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_that_cannot_be_used(bundles: list[Path], tmp_path: Path, workers: int) -> None:
    """In a process of its own: a service changes what its process logs."""
    bad = tmp_path / "bad.lsan"
    bad.write_bytes(bundles[0].read_bytes()[:-1])
    command = [sys.executable, "-m", "lsan", "serve", str(bad), "--port", "0", "--workers", str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith(f"lsan: error: {bad}: ")


def test_keys_that_cannot_be_used(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    with pytest.raises(ConfigError, match="keys cannot be read"):
        Keys.read(file)
    file.write_text(" \n\n")
    with pytest.raises(ConfigError, match="no API key in it"):
        Keys.read(file)
    file.write_text("0123456789abcdef\n\n0123456789abcde\n")
    with pytest.raises(ConfigError, match="line 3: an API key of fewer than 16"):
        Keys.read(file)


def test_a_worker_that_dies_before_it_is_ready(bundles: list[Path]) -> None:
    command = [sys.executable, "-m", "lsan", "serve", str(bundles[0]), "--port", "0", "--workers", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            await_that(lambda: bool(workers_of(process.pid)))
            os.kill(workers_of(process.pid)[0], signal.SIGKILL)
            told, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, told) == (2, "")
    assert errors.splitlines()[-1] == "lsan: error: a worker died before it was ready, with exit code -9"


def test_numbers(bundles: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert "--workers 0: expected" in refused(capsys, bundles[0], "--workers", 0)
    assert "--max-requests 0: expected" in refused(capsys, bundles[0], "--max-requests", 0)
    assert "--patience nan: expected" in refused(capsys, bundles[0], "--patience", "nan")


def test_a_missing_extra(
    bundles: list[Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert 'pip install "lsan[serve]"' in refused(capsys, bundles[0])


def test_it_warns_where_everybody_may_ask(bundles: list[Path], tmp_path: Path) -> None:
    """And says where it listens."""
    command = [sys.executable, "-m", "lsan", "serve", str(bundles[0]), "--port", "0", "--host", "0.0.0.0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            assert " is served at http://0.0.0.0:" in process.stdout.readline()
            assert process.stdout.readline().startswith("note: everybody who reaches this address may ask")
        finally:
            process.terminate()
        assert process.wait(60) == 0


def test_serving_loads_nothing_of_training() -> None:
    program = "import sys, lsan.cli.serve, lsan.serving.server; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded.isdisjoint({"torch", "polars", "rich", "faiss", "matplotlib"})
