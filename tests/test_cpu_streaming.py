"""Results past the caches: the same bits as through them, of every kernel that streams, and only where whole cache lines are written."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidcnn.backend import Array, nchw
from minidcnn.backend.cpu import CpuKernels, elementwise, memory, norm, tiled, winograd
from minidcnn.backend.cpu.jit import stream
from minidcnn.backend.cpu.memory import LINE, STREAMED, empty, streams
from minidcnn.window import Window

SAME = Window((3, 3), padding=(1, 1))
channels = st.sampled_from([8, 16, 24, 32, 48, 80, 112, 160])
sizes = st.tuples(st.integers(1, 3), st.integers(5, 23), st.integers(5, 23))  # n, h, w
seeds = st.integers(0, 99)


@pytest.fixture(autouse=True)
def by_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever algorithm is forced for all tests, here the shape decides: results of Winograd and of tiles are streamed."""
    monkeypatch.delenv("MINIDCNN_CONV", raising=False)


@contextmanager
def streaming(least: int) -> Iterator[list[bool]]:
    """Results of `least` bytes and more are streamed; which were, in order."""
    seen = []

    def noting(result: Array, *runs: int) -> bool:
        assert result.ctypes.data % LINE == 0  # what `empty` promises
        seen.append(streams(result, *runs))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "STREAMED", least)
        for module in (elementwise, norm, tiled, winograd):
            patch.setattr(module, "streams", noting)
        yield seen


def same_bits(run, streamed: bool) -> None:
    """run() gives a tuple of arrays: the same ones whether its results are streamed or not."""
    with streaming(sys.maxsize) as seen:
        expected = run()
    assert seen
    assert not any(seen)
    with streaming(0) as seen:
        results = run()
    assert seen == [streamed] * len(seen)
    for got, want in zip(results, expected, strict=True):
        assert got.dtype == want.dtype
        assert np.array_equal(got.view(f"u{got.itemsize}"), want.view(f"u{want.itemsize}"))


def images(rng: np.random.Generator, n: int, c: int, h: int, w: int, dtype: str = "f4") -> Array:
    return nchw(rng.standard_normal((n, h, w, c)).astype(dtype))


@given(size=sizes, c=channels, o=channels, bf16=st.booleans(), relu=st.booleans(), seed=seeds)
def test_winograd(size: tuple[int, int, int], c: int, o: int, bf16: bool, relu: bool, seed: int) -> None:
    """Tiles at the edge and whole ones; weights that stay and weights that pass by (at least 2^14 of them, few tiles)."""
    (n, h, w), c, o = size, max(c, 16), max(o, 16)
    own, rng = CpuKernels("bf16" if bf16 else "float32"), np.random.default_rng(seed)
    x, g, weight = images(rng, n, c, h, w), images(rng, n, o, h, w), images(rng, o, c, 3, 3)
    scale, offset = rng.standard_normal((2, o), dtype=np.float32)
    if n * -(-h // 4) * -(-w // 4) < 3:
        return  # the shape decides for something else
    same_bits(lambda: (own.conv2d_affine(x, weight, scale, offset, relu, SAME, (h, w)),), o % 16 == 0)
    same_bits(lambda: (own.conv_transpose2d(g, weight, None, SAME, (h, w)),), c % 16 == 0)


@given(size=sizes, c=channels, dtype=st.sampled_from(["f4", "f8"]), gated=st.booleans(), seed=seeds)
def test_batch_norm(size: tuple[int, int, int], c: int, dtype: str, gated: bool, seed: int) -> None:
    (n, h, w), own, rng = size, CpuKernels(), np.random.default_rng(seed)
    x, g = (images(rng, n, c, h, w, dtype) for _ in range(2))
    weight, bias = rng.standard_normal((2, c)).astype(dtype)
    mean, variance = own.batch_norm_stats(x)
    pixels, fit = n * h * w, max(1, 256 // c)  # a line of the kernels holds several pixels, as many as divide their number
    run = c * min(1 << fit.bit_length() - 1, pixels & -pixels)
    whole = run * np.dtype(dtype).itemsize % LINE == 0
    same_bits(lambda: (own.batch_norm_apply(x, mean, 1 / np.sqrt(variance), weight, bias, gated),), whole)
    same_bits(lambda: own.batch_norm_grad(g, x, mean, 1 / np.sqrt(variance), weight, bias if gated else None), whole)


@given(size=sizes, a=channels, b=channels, dtype=st.sampled_from(["f4", "f8"]), seed=seeds)
def test_joined_and_cut_channels(size: tuple[int, int, int], a: int, b: int, dtype: str, seed: int) -> None:
    (n, h, w), own, rng = size, CpuKernels(), np.random.default_rng(seed)
    h, w = 4 * h, 4 * w  # what is smaller is left to NumPy
    x, y = images(rng, n, a, h, w, dtype), images(rng, n, b, h, w, dtype)
    per = LINE // np.dtype(dtype).itemsize
    if n * h * w * (a + b) >= 1 << 14:
        same_bits(lambda: (own.concatenate([x, y], 1),), a % per == b % per == 0)
    both = np.concatenate([x, y], 1)
    both = nchw(np.ascontiguousarray(both.transpose(0, 2, 3, 1)))
    same_bits(lambda: (own.channels(both, a, a + b),), b % per == 0)
    same_bits(lambda: (own.channels(both, 0, a),), a % per == 0)


def test_from_4_MiB_on(rng: np.random.Generator) -> None:
    """And nobody has to say so: in whole kernels, of a result a little larger."""
    assert STREAMED == 1 << 22
    line = LINE // 4
    assert streams(empty((1 << 20,)), line, 3 * line)
    assert not streams(empty(((1 << 20) - 1,)), line)
    assert not streams(empty((1 << 20,)), line, line + 4)
    assert streams(empty((1 << 19,), np.float64), 8)
    assert not streams(empty((1 << 19,), np.float64), 4)
    own, x, weight = CpuKernels(), images(rng, 1, 16, 262, 266), images(rng, 16, 16, 3, 3)
    assert x.nbytes > STREAMED
    scale, offset = rng.standard_normal((2, 16), dtype=np.float32)
    mean, variance = own.batch_norm_stats(x)

    def run() -> tuple[Array, ...]:
        y = own.conv2d_affine(x, weight, scale, offset, True, SAME, (262, 266))
        joined = own.concatenate([x, y], 1)
        return y, joined, own.channels(joined, 16, 32), *own.batch_norm_grad(y, x, mean, 1 / np.sqrt(variance), scale)

    with streaming(sys.maxsize):
        expected = run()
    for got, want in zip(run(), expected, strict=True):
        assert np.array_equal(got, want)
    assert np.array_equal(expected[2], expected[0])


def test_stores_are_non_temporal_and_fenced() -> None:
    """What numba makes of the two functions says so to the processor."""
    import numba

    from minidcnn.backend.cpu import streaming as made

    @numba.njit
    def copy(source: Array, to: Array) -> None:
        made.stream(source.ctypes.data, to.ctypes.data, source.size)
        made.fence()

    source, to = np.arange(64, dtype=np.float32), empty((64,))
    to[...] = 0
    copy(source, to)
    assert np.array_equal(to, source)
    (code,) = copy.inspect_llvm().values()
    assert "!nontemporal" in code
    assert "fence seq_cst" in code
    with pytest.raises(RuntimeError, match="^stream: compiled kernels alone can call it$"):
        stream(0, 0, 0)
