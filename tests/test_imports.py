"""What is loaded when: commands that need no network never wait for torch."""

import os
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


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere PyTorch comes with another OpenMP")
@pytest.mark.parametrize(
    ("told", "looks"), [({}, 3000), ({"GOMP_SPINCOUNT": "77"}, 77), ({"OMP_WAIT_POLICY": "passive"}, 0)]
)
def test_waiting_threads_soon_sleep_unless_the_user_says_otherwise(told: dict[str, str], looks: int) -> None:
    silent = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", "import lsan, torch"],
        capture_output=True, text=True, timeout=100, check=True,
        env={**silent, **told, "OMP_DISPLAY_ENV": "verbose"},
    )  # fmt: skip
    assert f"GOMP_SPINCOUNT = '{looks}'" in done.stderr


def test_public_names_are_there() -> None:
    for name in lsan.__all__:
        assert getattr(lsan, name) is not None
    assert lsan.load == lsan.Recommender.load
    with pytest.raises(AttributeError, match="nothing"):
        _ = lsan.nothing
