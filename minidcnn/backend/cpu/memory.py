"""Memory that is freed stays with the process and is used again.

glibc gives every array of more than 128 KiB fresh pages from the system, which zeroes them one fault at a time: up to a fifth of a training
step of small channels. With this, the main thread's arrays come from the heap, which keeps what a step freed for the next one.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Array

VARIABLE = "MINIDCNN_KEEP_MEMORY"  # 0 leaves the allocator as it is
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # from malloc.h
KEPT = (1 << 31) - 1  # bytes that may lie free at the heap's end
LINE = 64  # bytes in a cache line
STREAMED = 1 << 22  # bytes of a result from which on it is faster past the caches: see docs/performance.md


def keep_memory() -> bool:
    """Tell glibc so, in the whole process; returns whether it was. What MALLOC_ variables or GLIBC_TUNABLES say is left alone."""
    said = any(name in os.environ for name in ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"))
    if said or os.environ.get(VARIABLE) == "0" or not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, KEPT))


def empty(shape: Sequence[int], dtype: np.dtype[Any] | type = np.float32) -> Array:
    """np.empty from a cache line's start on: vectors that lie across two lines cost twice."""
    kind = np.dtype(dtype)
    size = math.prod(shape)
    raw = np.empty(size + LINE // kind.itemsize, kind).data
    address = ctypes.addressof(ctypes.c_char.from_buffer(raw))  # three times as quick as .ctypes.data
    # From a buffer, not from the array: so the result counts as the owner of the memory, and not as a part of something larger.
    return np.frombuffer(raw, kind, size, -address % LINE).reshape(shape)


def streams(result: Array, *runs: int) -> bool:
    """Whether to write `result`, made by `empty`, past the caches: it is large, and so many numbers, written at a time, are whole cache lines."""
    return result.nbytes >= STREAMED and not any(run * result.itemsize % LINE for run in runs)


def second_level_cache() -> int:
    """Bytes of one core's L2 cache, 1 MiB where the system does not say."""
    try:
        text = Path("/sys/devices/system/cpu/cpu0/cache/index2/size").read_text(encoding="ascii").strip()
        return int(text.rstrip("KM")) << {"K": 10, "M": 20}.get(text[-1:], 0)
    except (OSError, ValueError):
        return 1 << 20


class Scratch(threading.local):
    """float32 arrays of this thread's own, found again by name: fresh pages cost more than the work."""

    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}

    def __call__(self, name: str, size: int) -> Array:
        """`size` numbers, whatever they hold, until this thread asks for the same name again."""
        array = self.arrays.get(name)
        if array is None or array.size < size:
            array = self.arrays[name] = empty((size,))
            # Rows that only fill up a block are multiplied as well, and what lies in fresh memory may be denormal: 20 times slower.
            array.fill(0)
        return array[:size]
