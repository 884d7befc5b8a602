"""Pooling on the CPU, and gather and scatter at plane indices, against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cpu_kernels import CPU, FLOATS, LAYOUTS, REFERENCE, both, equal, geometries, laid_out, means_keep_their_digits, seeds, whole
from hypothesis import given
from hypothesis import strategies as st

from minidcnn.backend import Kernels
from minidcnn.backend.cpu.pool import BESIDE
from minidcnn.window import Window


@given(geometries(pooling=True), st.integers(1, 2), st.integers(1, 20), st.sampled_from([*FLOATS, "f2"]), st.sampled_from(LAYOUTS), seeds)
def test_pooling(geometry, n, c, dtype, layout, seed) -> None:
    """Small whole numbers tie often, so the first maximum must win; a NaN here and there wins over all."""
    window, size, out = geometry
    rng = np.random.default_rng(seed)
    x, y = whole(rng, (n, c, *size), dtype, layout), whole(rng, (n, c, *out), dtype, layout)
    try:
        expected = REFERENCE.max_pool2d(x, window, out)
    except ValueError as error:  # a window in the padding
        with pytest.raises(ValueError) as caught:
            CPU.max_pool2d(x, window, out)
        assert str(caught.value) == str(error)
        return
    equal(CPU.max_pool2d(x, window, out), expected)
    taps = laid_out(expected[1], layout)
    both("pool_gather", x, taps, window)
    both("pool_scatter", y, taps, window, size)
    both("plane_indices", taps, window, size)
    holes = x.copy()
    holes[rng.random(x.shape) < 0.1] = np.nan
    both("max_pool2d", holes, window, out)
    both("max_pool2d", np.full_like(x, -np.inf), window, out)
    weight = (1 / rng.integers(1, 3, out)).astype(dtype)  # powers of two: exact
    both("avg_pool2d", x, window, weight)
    both("avg_pool2d_adjoint", y, window, weight, size)


@pytest.mark.parametrize(("kernel", "tap"), [((16, 16), np.uint8), ((1, 257), np.uint16), ((256, 257), np.uint32)])
def test_pooling_whatever_the_number_of_taps(kernel: tuple[int, int], tap: Any) -> None:
    """The winner is the window's last tap but two, whose number needs all bytes that a tap has."""
    window, size = Window(kernel, kernel), (kernel[0], 2 * kernel[1])
    x, last = np.zeros((1, 2, *size), np.float32), window.taps - 3
    x[0, 1, kernel[0] - 1, 2 * kernel[1] - 3] = 1  # in the second window
    expected = REFERENCE.max_pool2d(x, window, (1, 2))
    assert expected[1].dtype == tap and expected[1].ravel().tolist() == [0, 0, 0, last]
    equal(CPU.max_pool2d(x, window, (1, 2)), expected)
    both("pool_gather", x, expected[1], window)
    both("pool_scatter", expected[0], expected[1], window, size)
    both("plane_indices", expected[1], window, size)


@pytest.mark.parametrize("kernels", [REFERENCE, CPU], ids=["reference", "cpu"])
def test_means_over_large_windows_keep_their_digits(kernels: Kernels) -> None:
    means_keep_their_digits(kernels)


def test_windows_are_averaged_some_at_a_time() -> None:
    """As many as have room in the first cache: what windows share is added up for each such group anew, also at the ends."""
    rng, window, size = np.random.default_rng(3), Window((3, 5), (2, 2), (1, 2), (2, 3)), (9, 41)
    out = window.positions(size)
    for c in (200, 300, BESIDE + 1):  # 5, 3 and not even one of them at a time
        both("avg_pool2d", whole(rng, (2, c, *size), "f4"), window, np.full(out, 0.5, "f4"))


@given(
    st.integers(0, 2), st.integers(1, 40), st.tuples(st.integers(1, 7), st.integers(1, 7)), st.tuples(st.integers(0, 6), st.integers(1, 6)),
    st.sampled_from([*FLOATS, "f2", "i8"]), st.sampled_from(LAYOUTS), seeds,
)  # fmt: skip
def test_gather_and_scatter_at_plane_indices(n, c, size, out, dtype, layout, seed) -> None:
    rng = np.random.default_rng(seed)
    indices = laid_out(rng.integers(0, size[0] * size[1], (n, c, *out)), layout)
    both("gather", whole(rng, (n, c, *size), dtype, layout), indices)
    both("scatter", whole(rng, (n, c, *out), dtype, layout), indices, size)
    both("gather", whole(rng, (n, c, *size), dtype), indices.astype(np.int32))


@pytest.mark.parametrize("index", [6, -1])
def test_an_index_outside_the_plane_is_an_error(index: int) -> None:
    indices = np.full((1, 1, 1, 2), index)
    with pytest.raises(IndexError, match="gather: an index lies outside"):
        CPU.gather(np.ones((1, 1, 2, 3)), indices)
    with pytest.raises(IndexError, match="scatter: an index lies outside"):
        CPU.scatter(np.ones((1, 1, 1, 2)), indices, (2, 3))
