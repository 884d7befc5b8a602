"""`jit`: plain loops compiled by numba when they first run, so that importing the library costs nothing.

A kernel here is a Python function of arrays and ints, written as loops. Each combination of argument types is compiled once and kept in
numba's cache on disk: NUMBA_CACHE_DIR if set, else beside the package, else in the user's cache folder. Where none of these can be
written, every process compiles anew. Kernels run without the interpreter lock, and the pool of `threads` splits the work; numba's own
parallel loops would take five times as long to compile.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

LANES, AMX, DISABLED = "MINIDCNN_LANES", "MINIDCNN_AMX", "NUMBA_DISABLE_JIT"
OPTIONS = {
    "nogil": True,
    "fastmath": {"contract"},  # fused multiply-add only: infinities and NaN mean what they mean in NumPy
    "error_model": "numpy",  # so does division by 0
    "no_cfunc_wrapper": True,  # nobody calls kernels from C
}

_lock = threading.Lock()


def forced_lanes() -> int:
    """The numbers in a vector that MINIDCNN_LANES forces, or 0. ValueError if there are no such vectors."""
    forced = os.environ.get(LANES, "")
    if forced not in ("", "4", "8", "16"):
        raise ValueError(f"{LANES} must be 4, 8 or 16, got {forced!r}; unset it to use what the processor has")
    return int(forced or 0)


def forced_unit() -> str:
    """What MINIDCNN_AMX says of the matrix unit: "0" not to use it, "vectors" to do slowly without it what it does, "". ValueError for other words."""
    forced = os.environ.get(AMX, "")
    if forced not in ("", "0", "vectors"):
        raise ValueError(f"{AMX} must be 0 or vectors, got {forced!r}; unset it to use the matrix unit where there is one")
    return forced


def demand_compiler() -> None:
    """ValueError if NUMBA_DISABLE_JIT keeps numba from compiling: intrinsics, which kernels are made of, do not run as Python."""
    text = os.environ.get(DISABLED, "").strip()
    if text.isdecimal() and int(text):
        raise ValueError(
            f'{DISABLED} is {text}, and the CPU kernels are compiled by numba: unset it, or work within minidcnn.use_kernels("reference"), '
            "whose kernels are slow and need no numba"
        )


class Compiled(Generic[P, R]):
    """A function that numba compiles when it is first called; `function` is the same in plain, slow Python."""

    def __init__(self, function: Callable[P, R]) -> None:
        self.function = function
        self.compiled: Callable[P, R] | None = None
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return (self.compiled or self.compile())(*args, **kwargs)

    def compile(self) -> Callable[P, R]:
        """numba's version of the function, made now; it compiles itself for each new combination of argument types."""
        with _lock:
            if self.compiled is None:
                self.compiled = _dispatcher(self.function)
        return self.compiled


def jit(function: Callable[P, R]) -> Compiled[P, R]:
    """`function` compiled on its first call, cached on disk where that is possible, without the interpreter lock."""
    return Compiled(function)


class Streaming:
    """A function of `streaming` by name, for kernels to call: numba, which it is made of, is imported when one of these is compiled."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def _numba_type_(self) -> Any:
        """What numba asks a global name for."""
        context: Any = importlib.import_module("numba.core.registry").cpu_target.typing_context
        made = getattr(importlib.import_module(".streaming", __package__), self.name)
        context.refresh()
        return context.resolve_value_type(made)

    def __call__(self, *_: int) -> None:
        raise RuntimeError(f"{self.name}: compiled kernels alone can call it")


stream, fence = Streaming("stream"), Streaming("fence")


def _dispatcher(function: Callable[P, R], **options: bool) -> Callable[P, R]:
    from .cache import KernelCache

    numba: Any = importlib.import_module("numba")
    dispatcher: Any = numba.njit(**OPTIONS, **options)(function)
    with contextlib.suppress(RuntimeError):  # no folder can be written
        dispatcher._cache = KernelCache(function)
    return dispatcher  # type: ignore[no-any-return]
