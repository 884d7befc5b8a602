"""Memory that ran out, in words: how much was asked for, and how much is in use."""

from __future__ import annotations

import importlib
import re
from typing import Any

from ..words import size


def exhausted(error: MemoryError) -> str:
    """What `error` says, fit to stand in brackets: of a GPU with what is in use there, else as NumPy says it.

    Call it while the error is being handled: what its traceback holds counts as in use.
    """
    said = str(error).strip().rstrip(".")
    if not type(error).__module__.startswith("cupy"):
        return said or "no more is to be had"
    asked = re.search(r"allocating ([\d,]+) bytes", said)
    limit = re.search(r"limit set to: ([\d,]+) bytes", said)
    text = f"{size(_number(asked))} more were asked for on the GPU" if asked else said
    cupy: Any = importlib.import_module("cupy")
    try:
        free, total = cupy.cuda.runtime.memGetInfo()
        own = cupy.get_default_memory_pool().total_bytes()
    except Exception:  # a device in this state may not answer
        return text
    text += f", where {size(total - free)} of {size(total)} are in use, {size(own)} by this program"
    return text + (f", which may take {size(_number(limit))}" if limit else "")


def _number(match: re.Match[str]) -> int:
    return int(match[1].replace(",", ""))
