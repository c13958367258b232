"""Memory that is freed stays in the process, where the C library can be asked."""

import platform
import resource

import pytest
import torch

from lsan.training.memory import keep_freed_memory

MEGABYTE = 1024 * 1024


def page_faults(steps: int) -> int:
    """What it costs to fill and free blocks of 16 MB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        torch.ones(4 * MEGABYTE)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_freed_blocks_are_used_again_without_page_faults() -> None:
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("the C library here is not glibc")
    assert keep_freed_memory()
    page_faults(2)  # the heap grows once
    assert page_faults(20) < 20 * 16 * MEGABYTE // 4096 / 10  # anew, it would be a fault for every 4 kB
    assert keep_freed_memory()  # once more does no harm


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr("ctypes.CDLL", lambda _: pytest.fail("the C library was asked"))
    assert keep_freed_memory() is False
