"""Keep freed memory in the process, so that a training step does not fault its pages in anew."""

import ctypes
import platform

#: Parameters of mallopt, from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3

#: The largest block that stays: glibc takes no more for the second.
_KEEP = 32 * 1024 * 1024


def keep_freed_memory() -> bool:
    """Ask glibc's malloc to serve blocks up to 32 MiB from its heap and to never return the heap to the system.

    By default it maps and unmaps each block of 128 kiB or more, a page fault for every 4 kiB of every tensor of every
    step. Returns whether the C library could be asked: True with glibc, else nothing happens. Lasts for the process.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_THRESHOLD, _KEEP) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))
