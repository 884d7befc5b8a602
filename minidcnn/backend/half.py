"""float16 keeps numbers in half the memory; nothing is added up in it: its 10 bits of mantissa lose what is 2000 times smaller."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np

P = ParamSpec("P")
R = TypeVar("R")

#: float16, in which images may be stored.
HALF = np.dtype(np.float16)
#: float32, in which what is stored as float16 is added up.
SINGLE = np.dtype(np.float32)


def sum_dtype(dtype: Any) -> np.dtype[Any]:
    """The dtype in which numbers of `dtype` are multiplied and added up: float32 for float16, else the same."""
    return SINGLE if dtype == HALF else np.dtype(dtype)


def in_float32(kernel: Callable[P, R]) -> Callable[P, R]:
    """A kernel that computes with float16 arrays in float32 and rounds its result once, at the end. Other dtypes are what they were."""

    @functools.wraps(kernel)
    def widened(*arguments: P.args, **named: P.kwargs) -> R:
        if not any(getattr(a, "dtype", None) == HALF for a in arguments):
            return kernel(*arguments, **named)
        result: Any = kernel(*(_cast(a, HALF, SINGLE) for a in arguments), **named)
        return tuple(_cast(r, SINGLE, HALF) for r in result) if isinstance(result, tuple) else _cast(result, SINGLE, HALF)  # type: ignore[return-value]

    return widened


def _cast(value: Any, source: Any, target: Any) -> Any:
    """An array of dtype `source` as `target`, in the same memory order; anything else as it is."""
    return value.astype(target, order="K") if getattr(value, "dtype", None) == source else value
