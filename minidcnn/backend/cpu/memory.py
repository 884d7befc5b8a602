"""Memory that is freed stays with the process and is used again.

glibc gives every array of more than 128 KiB fresh pages from the system, which zeroes them one fault at a time: up to a fifth of a training
step of small channels. With this, arrays of up to 32 MiB come from the heap, which keeps what a step freed for the next one.
"""

from __future__ import annotations

import ctypes
import os
import sys

VARIABLE = "MINIDCNN_KEEP_MEMORY"  # 0 leaves the allocator as it is
THRESHOLD, KEPT = 1 << 25, (1 << 31) - 1  # bytes: the largest array that glibc lets the heap hold, and what may lie free at its end
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from malloc.h


def keep_memory() -> bool:
    """Tell glibc so, in the whole process; returns whether it was. What MALLOC_ variables or GLIBC_TUNABLES say is left alone."""
    said = any(name in os.environ for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"))
    if said or os.environ.get(VARIABLE) == "0" or not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, THRESHOLD) and mallopt(M_TRIM_THRESHOLD, KEPT))
