"""examples/embed.c answers as Python does, on this processor and on a phone's, compiled as docs/embedding.md says."""

import platform
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from lsan.export.bundle import make_bundle
from lsan.runtime import Recommender
from needs import need_command
from small_networks import NETWORKS, run_of

ROOT = Path(__file__).parents[2]
NATIVE = ROOT / "src" / "lsan" / "runtime" / "_native"
SOURCES = [
    ROOT / "examples" / "embed.c",
    *(NATIVE / f"{name}.c" for name in ["json", "reader", "tensors", "items", "program", "encoder", "topk", "kernels"]),
]
OPTIONS = ["-std=c11", "-fno-math-errno", "-Wall", "-Wextra", "-Werror", "-I", str(NATIVE)]

HISTORIES = [[5], [7, 3, 7], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [22, 23], []]


def compiled(compiler: list[str], to: Path) -> str:
    done = subprocess.run(
        [*compiler, *OPTIONS, *map(str, SOURCES), "-lm", "-o", str(to)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return str(to)


def embed(command: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)


def check(command: list[str], tmp_path: Path) -> None:
    """Four networks, five histories each."""
    with torch.no_grad():
        for number, config in enumerate(NETWORKS[::20]):
            content = make_bundle(run_of(config)).content
            path = tmp_path / f"{number}.lsan"
            path.write_bytes(content)
            recommender = Recommender(content)
            for history in HISTORIES:
                ids = [recommender.vocabulary.ids[item - 1] for item in history]
                expected = recommender.recommend(ids)
                done = embed(command, str(path), *map(str, history))
                assert done.returncode == 0, done.stderr
                lines = [line.split() for line in done.stdout.splitlines()]
                scores = [item.score for item in expected]
                assert np.allclose([float(score) for _, score in lines], scores, rtol=1e-5, atol=1e-5)
                assert [recommender.vocabulary.ids[int(item) - 1] for item, _ in lines] == expected.ids


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> str:
    need_command("cc", "build-essential")
    folder = tmp_path_factory.mktemp("embed")
    for name in ("examples", "src"):
        (folder / name).symlink_to(ROOT / name)
    [commands] = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "embedding.md").read_text(), re.DOTALL)
    *compiling, use = commands.splitlines()
    assert use == "./embed model.lsan 17 4 250"
    done = subprocess.run(
        ["bash", "-ec", "\n".join(compiling)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return str(folder / "embed")


def test_readers_are_told_the_same_files() -> None:
    names = "{" + ",".join(source.stem for source in SOURCES[1:]) + "}"
    for place in ("README.md", "examples/embed.c", "docs/embedding.md"):
        assert names in (ROOT / place).read_text(), place


def test_here(here: str, tmp_path: Path) -> None:
    check([here], tmp_path)


def test_it_says_what_is_wrong(here: str, tmp_path: Path) -> None:
    (tmp_path / "no.lsan").write_bytes(b"12345678 no bundle")
    for arguments, message in (
        ([], "usage"),
        ([str(tmp_path / "nothing")], "cannot be read"),
        ([str(tmp_path / "no.lsan")], "the header is longer than allowed"),
    ):
        done = embed([here], *arguments)
        assert done.returncode == 1
        assert message in done.stderr


def test_on_aarch64(tmp_path: Path) -> None:
    if platform.machine() == "aarch64":
        pytest.skip("this machine is one: test_here has shown it")
    compiler = need_command("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu")
    emulator = need_command("qemu-aarch64-static", "qemu-user-static")
    check([emulator, compiled([compiler, "-static", "-O1"], tmp_path / "embed")], tmp_path)
