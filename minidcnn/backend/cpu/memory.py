"""Memory that is freed stays with the process and is used again, and scratch memory in large pages.

glibc gives every array of more than 128 KiB fresh pages from the system, which zeroes them one fault at a time: up to a fifth of a training
step of small channels. With this, arrays of up to 32 MiB come from the heap, which keeps what a step freed for the next one.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
import os
import sys
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arrays import Array

VARIABLE = "MINIDCNN_KEEP_MEMORY"  # 0 leaves the allocator as it is
THRESHOLD, KEPT = 1 << 25, (1 << 31) - 1  # bytes: the largest array that glibc lets the heap hold, and what may lie free at its end
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from malloc.h
LARGE_PAGE, REGION, LINE = 1 << 21, 1 << 22, 64  # bytes: of a large page, the least that is asked for at a time, of a cache line


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


def empty(shape: Sequence[int], dtype: np.dtype[Any] | type = np.float32) -> Array:
    """np.empty from a cache line's start on: vectors that lie across two lines cost twice."""
    kind = np.dtype(dtype)
    size = math.prod(shape)
    raw = np.empty(size + LINE // kind.itemsize, kind)
    start = -raw.ctypes.data % LINE // kind.itemsize
    return raw[start : start + size].reshape(shape)


class Scratch(threading.local):
    """float32 arrays of this thread's own, from a cache line's start on, found again by name: fresh pages cost more than the work.

    They lie in pages of 2 MiB where Linux has them to give: in pages of 4 KiB, the products of blocks that fill most of L2 take a quarter
    longer, since those are scattered over L2 and their addresses over more entries than the processor keeps.
    """

    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}
        self.rest = np.empty(0, np.float32)  # of the last region

    def __call__(self, name: str, size: int) -> Array:
        """`size` numbers, whatever they hold, until this thread asks for the same name again."""
        array = self.arrays.get(name)
        if array is None or array.size < size:
            lines = -(-size // 16) * 16
            if self.rest.size < lines:
                self.rest = region(4 * lines)
            array = self.arrays[name] = self.rest[:size]
            self.rest = self.rest[lines:]
        return array[:size]


def region(size: int) -> Array:
    """float32 zeros, at least `size` bytes and REGION of them, from the start of a large page on."""
    size = -(-max(size, REGION) // LARGE_PAGE) * LARGE_PAGE
    memory = mmap.mmap(-1, size + LARGE_PAGE)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    numbers = np.frombuffer(memory, np.float32)
    start = -numbers.ctypes.data % LARGE_PAGE // 4
    return numbers[start : start + size // 4]
