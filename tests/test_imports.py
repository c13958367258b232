"""What is loaded when: commands that need no network never wait for torch."""

import subprocess
import sys

import pytest

import lsan


def loaded_after(program: str) -> set[str]:
    """Top-level packages that are loaded when a fresh process has run this."""
    report = "import sys; print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", f"try:\n {program}\nfinally:\n {report}"],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())


def test_importing_lsan_loads_neither_torch_nor_polars() -> None:
    loaded = loaded_after("import lsan")
    assert "lsan" in loaded
    assert loaded.isdisjoint({"torch", "polars", "numpy", "msgspec", "rich"})


@pytest.mark.parametrize("arguments", [["--help"], ["prepare", "--help"], ["fetch", "--help"]], ids=" ".join)
def test_help_needs_no_torch(arguments: list[str]) -> None:
    loaded = loaded_after(f"from lsan.cli import main; main({arguments})")
    assert "argparse" in loaded
    assert loaded.isdisjoint({"torch", "matplotlib"})


def test_public_names_are_there() -> None:
    for name in lsan.__all__:
        assert getattr(lsan, name) is not None
    assert lsan.load == lsan.Recommender.load
    with pytest.raises(AttributeError, match="nothing"):
        _ = lsan.nothing
