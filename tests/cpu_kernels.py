"""What the tests of the CPU kernels share: layouts, geometries, and comparisons with the reference.

Images hold small whole numbers, so that sums of products are exact in any order and kernels must agree to the bit; only Winograd, which
divides by 24, is compared within its rounding errors, as are the kernels that are not sums of products.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from minidcnn.backend import Kernels, nchw
from minidcnn.backend.cpu import CpuKernels
from minidcnn.window import Window

REFERENCE, CPU = Kernels(np), CpuKernels()
FLOATS = ["f4", "f8"]
LAYOUTS = ["C", "channels-last", "sliced", "reversed", "read-only"]


def laid_out(values: np.ndarray, layout: str) -> np.ndarray:
    """`values` (N, C, H, W) in another memory layout."""
    if layout == "channels-last":
        return nchw(np.ascontiguousarray(values.transpose(0, 2, 3, 1)))
    if layout == "sliced":  # every second pixel of rows of a larger image
        n, c, h, w = values.shape
        large = np.full((n, h + 1, 2 * w, c + 2), 99, values.dtype)
        view = nchw(large[:, :h, ::2, 1 : c + 1])
        view[...] = values
        return view
    if layout == "reversed":
        return np.ascontiguousarray(values[:, ::-1, ::-1, ::-1])[:, ::-1, ::-1, ::-1]
    array = np.ascontiguousarray(values)
    array.flags.writeable = layout != "read-only"
    return array


def whole(rng: np.random.Generator, shape: tuple[int, ...], dtype: str, layout: str = "C") -> np.ndarray:
    values = rng.integers(-3, 4, shape).astype(dtype)
    return laid_out(values, layout) if len(shape) == 4 else values


def equal(got: Any, expected: Any) -> None:
    """The same shapes, dtypes and values; 0.0 and -0.0 may differ in sign, NaN equals NaN."""
    if isinstance(expected, tuple):
        assert len(got) == len(expected)
        for g, e in zip(got, expected, strict=True):
            equal(g, e)
        return
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected, strict=True)


def both(name: str, *arguments: Any, **keywords: Any) -> None:
    """Kernel `name` gives what the reference gives, and neither writes to what it was given."""
    before = [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]
    expected = getattr(REFERENCE, name)(*arguments, **keywords)
    equal(getattr(CPU, name)(*arguments, **keywords), expected)
    for a, b in zip(arguments, before, strict=True):
        if isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b)


pairs = st.tuples(st.integers(0, 3), st.integers(0, 3))
steps = st.tuples(st.integers(1, 3), st.integers(1, 3))
seeds = st.integers(0, 2**16)


@st.composite
def geometries(draw: st.DrawFn, pooling: bool = False) -> tuple[Window, tuple[int, int], tuple[int, int]]:
    """(window, image size, number of positions) that fit together."""
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel) if pooling else draw(pairs)
    window = Window(kernel, draw(steps), padding, draw(steps), draw(st.booleans()) if pooling else False)  # type: ignore[arg-type]
    size = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    assume(all(n + 2 * p >= span for n, p, span in zip(size, padding, window.span, strict=True)))
    return window, size, window.positions(size)


shapes = st.one_of(
    st.tuples(st.integers(1, 3), st.integers(1, 70), st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 40), st.integers(1, 9)), st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 30)),
)  # fmt: skip


def near(name: str, *arguments: Any, terms: float = 0) -> None:
    """Kernel `name` gives what the reference gives up to rounding, and does not write to its arguments.

    `terms` is the size of the terms whose sum is the first result, if they may cancel: their roundings stay.
    """
    before = [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]
    results = (as_tuple(getattr(kernels, name)(*arguments)) for kernels in (CPU, REFERENCE))
    for i, (got, expected) in enumerate(zip(*results, strict=True)):
        assert got.shape == expected.shape and got.dtype == expected.dtype, name
        close(got, expected, name, 0 if i else terms)
    for a, b in zip(arguments, before, strict=True):
        np.testing.assert_array_equal(a, b)


def means_keep_their_digits(kernels: Kernels) -> None:
    """Windows of 60,000 pixels, and pixels in 60,000 windows: one sum of so many in float32 is wrong in the fourth digit."""
    window = Window((300, 200), (300, 200))
    y = kernels.avg_pool2d(np.full((1, 2, 300, 400), 0.7, "f4"), window, np.full((1, 2), 1 / 60000, "f4"))
    np.testing.assert_allclose(y, np.full((1, 2, 1, 2), 0.7), rtol=3e-5)
    around, size = Window((300, 200), padding=(298, 198)), (2, 3)
    out = around.positions(size)
    g, share = np.full((1, 2, *out), 0.7, "f4"), np.full(out, 1 / 60000, "f4")
    x = kernels.avg_pool2d_adjoint(g, around, share, size)
    np.testing.assert_allclose(x, REFERENCE.avg_pool2d_adjoint(g.astype("f8"), around, share.astype("f8"), size), rtol=3e-5)


def as_tuple(result: Any) -> tuple[np.ndarray, ...]:
    return result if isinstance(result, tuple) else (result,)


def close(got: np.ndarray, expected: np.ndarray, name: str, terms: float = 0) -> None:
    """Within a few roundings of the largest finite value, or of larger `terms`; what is not finite must be the same."""
    finite = np.abs(expected[np.isfinite(expected)])
    tolerance = {"f2": 4e-3, "f4": 2e-6, "f8": 2e-14}[expected.dtype.str[1:]] * max(1.0, terms, finite.max(initial=0))
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance, err_msg=name)


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`code` in another process, after the imports that all of these need."""
    environment = {k: v for k, v in os.environ.items() if k not in ("MINIDCNN_NUM_THREADS", "NUMBA_CACHE_DIR")} | variables
    start = "import numpy as np\nfrom minidcnn.backend import kernels\nfrom minidcnn.backend.cpu import threads\n"
    return subprocess.run([sys.executable, "-c", start + code], env=environment, capture_output=True, text=True, timeout=120, check=False)
