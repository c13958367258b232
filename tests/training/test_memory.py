"""Memory that is freed stays in the process, where the C library can be asked."""

import os
import platform
import subprocess
import sys

import pytest

from lsan.training.memory import keep_freed_memory

#: Fills 32 blocks of 4 MB and frees them, ten times, and prints by how many megabytes the process has grown.
PROGRAM = """
import resource, torch
from lsan.training.memory import keep_freed_memory
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() >> 20
{}
before = resident()
for step in range(10):
    [torch.ones(1024 * 1024) for _ in range(32)]
print(resident() - before)
"""


def grown_by(preparation: str) -> int:
    """Megabytes, in a process of its own: in this one the tests before leave holes in the heap. It begins with glibc's
    first thresholds, which it otherwise raises itself, sometimes far enough."""
    command = [sys.executable, "-c", PROGRAM.format(preparation)]
    fixed = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
    return int(subprocess.run(command, capture_output=True, text=True, check=True, env=fixed).stdout)


def test_freed_blocks_stay_in_the_process() -> None:
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("the C library here is not glibc")
    assert grown_by("") < 64  # without it they go back to the system, and come anew page by page
    assert grown_by("assert keep_freed_memory() and keep_freed_memory()") > 112  # once more does no harm


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr("ctypes.CDLL", lambda _: pytest.fail("the C library was asked"))
    assert keep_freed_memory() is False
