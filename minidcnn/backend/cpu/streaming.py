"""Copies past the caches, for kernels whose results are so large that nothing of them is left there when they are read (see `streams`).

An ordinary store first reads the line that it writes to, and drives another one out of the caches.

Importing this module imports numba: kernels name its functions by `Streaming`, and ask for them when they are compiled.
"""

from __future__ import annotations

from typing import Any

from .instructions import F32, I64, LANES, Loop, function, load, store


def _stream(bd: Any, source: Any, to: Any, count: Any) -> None:
    """`count` numbers of 4 bytes from `source` to `to`; both `count` and that place are multiples of a vector's length."""
    sp, dp = (bd.inttoptr(p, F32.as_pointer()) for p in (source, to))
    with Loop(bd, I64(0), count, LANES) as loop:
        store(bd, load(bd, sp, loop.index), dp, loop.index, streamed=True)
        loop.update([])


def _fence(bd: Any) -> None:
    """What was streamed before is there for all threads."""
    bd.fence("seq_cst")


stream, fence = function(_stream, 3), function(_fence, 0)
