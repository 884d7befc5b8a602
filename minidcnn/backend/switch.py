"""Choosing where arrays live (`use`) and which kernels work on them (`kernels_of`, `use_kernels`)."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from .arrays import Array, in_memory_order, is_cupy
from .half import HALF, SINGLE
from .pending import raise_pending
from .reference import Kernels
from .usable import BackendError, why_no_cupy, why_not_precision

#: What `use` takes as `precision`.
PRECISIONS = ("float32", "tf32x3", "tf32", "bf16", "float16")

_current = "numpy"
_precision = "float32"
_which: str | Kernels = "fast"
_made: dict[tuple[str, str, str], Kernels] = {}


def use(name: str, precision: str = "float32") -> str:
    """Make new tensors on "numpy" or "cupy"; "auto" takes cupy if a GPU is usable, else numpy. Returns the name chosen.

    `precision`: of the factors in float32 convolutions and matrix products on a GPU, "float32", or on its tensor cores "tf32x3" (two numbers of 10
    bits of mantissa each, nearly as exact as float32), "tf32" (10 bits) or "bf16" (7 bits); weights stay float32, sums are float32. It needs an Ampere
    GPU or newer. On numpy, "bf16" is of most convolutions, faster than float32 where the processor has AVX512-BF16 and slower where it has not, and
    "tf32x3" and "tf32" change nothing.
    "float16" is of another kind: training and prediction give the network float16 images (`image_dtype`), so that all its results take half the
    memory, on either backend; without tensor cores, and on numpy, that is slow.
    BackendError if cupy is asked for and CuPy or a GPU is missing or too old, and if the GPU that "auto" finds is too old for the
    precision: whether to do without it or in float32 is yours to say. ValueError for any other name or precision.
    """
    global _current, _precision
    if precision not in PRECISIONS:
        raise ValueError(f'precision "{precision}" is unknown; use one of {", ".join(PRECISIONS)}')
    if name == "auto":
        name = "numpy" if why_no_cupy() else "cupy"
    if name not in ("numpy", "cupy"):
        raise ValueError(f'backend "{name}" is unknown; use "numpy", "cupy" or "auto"')
    if name == "cupy" and (reason := why_no_cupy() or why_not_precision(precision)):
        raise BackendError(reason)
    _current, _precision = name, precision
    return name


def image_dtype(weights: Any = "float32") -> np.dtype[Any]:
    """The dtype of images for a network of such weights: theirs, but float16 for float32 under precision "float16"."""
    return HALF if _precision == "float16" and np.dtype(weights) == SINGLE else np.dtype(weights)


def backend() -> str:
    """The name of the backend on which new tensors are made: "numpy" or "cupy"."""
    return _current


def kernels(name: str | None = None) -> Kernels:
    """The kernels of backend `name` (default: the current one). BackendError if the environment sets for them what cannot be."""
    if isinstance(_which, Kernels):
        return _which
    key = (name or _current, _which, _precision)
    if key not in _made:
        _made[key] = _make(*key)
    return _made[key]


def _make(name: str, which: str, precision: str) -> Kernels:
    if name == "numpy" and which == "fast":
        from .cpu import CpuKernels

        return CpuKernels(precision)
    if name == "cupy" and which == "fast":
        from .cuda import CudaKernels

        return CudaKernels(precision=precision)
    return Kernels(np if name == "numpy" else importlib.import_module("cupy"))


def kernels_of(array: Array) -> Kernels:
    """The kernels that work on `array`: the only place in the library that asks what kind of array it has."""
    name = "cupy" if is_cupy(array) else "numpy"
    return _made.get((name, _which, _precision)) or kernels(name)  # type: ignore[arg-type]


@contextlib.contextmanager
def use_kernels(which: str | Kernels) -> Iterator[None]:
    """Within a `with` block, work with the "reference" kernels (slow, obvious, for reading and debugging), the "fast" ones, or your own.

    ValueError for another name.
    """
    global _which
    if which not in ("reference", "fast") and not isinstance(which, Kernels):
        raise ValueError(f'kernels "{which}" are unknown; use "reference" or "fast"')
    before, _which = _which, which
    try:
        yield
    finally:
        _which = before


def to_backend(array: Array, name: str | None = None) -> Array:
    """`array` on backend `name` (default: the current one), copied only if it lives elsewhere. The memory layout is kept.

    On the way to "numpy" errors come to light that a GPU kept to itself, such as a label that is no class. ValueError for another name,
    BackendError if cupy cannot be had.
    """
    name = name or _current
    if name not in ("numpy", "cupy"):
        raise ValueError(f'backend "{name}" is unknown; use "numpy" or "cupy"')
    if is_cupy(array) == (name == "cupy"):
        return array
    if name == "cupy":
        if reason := why_no_cupy():
            raise BackendError(reason)
        cupy: Any = importlib.import_module("cupy")
        return in_memory_order(array, cupy.asarray)
    raise_pending()
    return in_memory_order(array, lambda a: a.get())
