"""Memory that is freed stays in the process, where the C library can be asked."""

import platform
import subprocess
import sys

import pytest

from lsan.training.memory import keep_freed_memory

#: Fills eight blocks of 16 MB and frees them: ten times, until the heap has grown, then ten times more, and prints the
#: page faults of these.
PROGRAM = """
import resource, torch
from lsan.training.memory import keep_freed_memory
assert keep_freed_memory()
assert keep_freed_memory()  # once more does no harm
for step in range(20):
    if step == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    [torch.ones(4 * 1024 * 1024) for _ in range(8)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_freed_blocks_are_used_again_without_page_faults() -> None:
    """In a process of its own: in this one the tests before leave holes in the heap, each of which is new once."""
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("the C library here is not glibc")
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 10 * 8 * 16 * 1024 * 1024 // 4096 / 10  # anew, it would be a fault for every 4 kB


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr("ctypes.CDLL", lambda _: pytest.fail("the C library was asked"))
    assert keep_freed_memory() is False
