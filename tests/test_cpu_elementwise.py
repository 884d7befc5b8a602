"""Sums, ReLU and joins on the CPU against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from cpu_kernels import CPU, FLOATS, LAYOUTS, REFERENCE, both, equal, laid_out, seeds, whole
from hypothesis import given
from hypothesis import strategies as st

from minidcnn.backend import is_channels_last
from minidcnn.backend.cpu import elementwise


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is too small for the compiled elementwise kernels."""
    monkeypatch.setattr(elementwise, "LARGE", 1)


@pytest.mark.usefixtures("small")
@given(
    st.tuples(st.integers(0, 3), st.integers(1, 70), st.integers(1, 9), st.integers(1, 9)),
    st.sampled_from([(0, 1, 2, 3), (0, 2, 3), (1,), (2, 3), (3, 2, 0), ()]),
    st.booleans(), st.sampled_from([*FLOATS, "f2", "i4"]), st.sampled_from(LAYOUTS), seeds,
)  # fmt: skip
def test_sum(shape, axes, keepdims, dtype, layout, seed) -> None:
    both("sum", whole(np.random.default_rng(seed), shape, dtype, layout), axes, keepdims)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 700), (4, 5, 6), (2, 3, 4, 5, 6)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_sum_of_other_shapes(shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> None:
    x = rng.integers(-3, 4, shape).astype(dtype)
    for axes in (tuple(range(len(shape))), (0,) if shape else ()):
        both("sum", x, axes)
        both("sum", x.T, axes, True)


def test_sums_are_added_up_in_float64(rng: np.random.Generator) -> None:
    x = laid_out(rng.random((2, 3, 300, 200), dtype="f4"), "channels-last")
    for axes in ((0, 1, 2, 3), (0, 2, 3)):
        np.testing.assert_array_equal(CPU.sum(x, axes), x.astype("f8").sum(axes).astype("f4"))


@pytest.mark.usefixtures("small")
@given(
    st.tuples(st.integers(0, 2), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
    st.sampled_from([*FLOATS, "f2", "i4"]), st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS), seeds,
)  # fmt: skip
def test_relu_and_its_gradient(shape, dtype, layout, other, seed) -> None:
    rng = np.random.default_rng(seed)
    x, g = whole(rng, shape, dtype, layout), whole(rng, shape, dtype, other)
    both("relu", x)
    both("relu_grad", g, REFERENCE.relu(x))
    both("relu_grad", np.broadcast_to(g[:1, :, :1], shape), REFERENCE.relu(x))
    if dtype != "i4" and x.size:
        x = x.copy()
        x.flat[0], x.flat[-1] = np.nan, -np.inf
        both("relu", x)
        both("relu_grad", g, REFERENCE.relu(x))
        endless = np.where(x > 0, g, g.dtype.type(np.inf))  # where it does not count
        both("relu_grad", endless, REFERENCE.relu(x))
        equal(REFERENCE.relu_grad(endless, REFERENCE.relu(x)), REFERENCE.relu_grad(g, REFERENCE.relu(x)))


def test_relu_keeps_the_layout(rng: np.random.Generator) -> None:
    x = laid_out(rng.standard_normal((2, 16, 40, 30), dtype="f4"), "channels-last")
    y = CPU.relu(x)
    assert is_channels_last(y) and is_channels_last(CPU.relu_grad(x, y))


@pytest.mark.usefixtures("small")
@given(
    st.integers(0, 2), st.lists(st.integers(1, 40), min_size=1, max_size=3), st.tuples(st.integers(1, 6), st.integers(1, 7)),
    st.sampled_from([0, 1, 2, 3]), st.sampled_from([*FLOATS, "f2", "i4"]), st.sampled_from(LAYOUTS), seeds,
)  # fmt: skip
def test_concatenate(n, channels, size, axis, dtype, layout, seed) -> None:
    rng = np.random.default_rng(seed)
    same = [channels[0] if axis != 1 else c for c in channels]
    parts = [whole(rng, (n, c, *size), dtype, layout) for c in same]
    both("concatenate", parts, axis)
    both("concatenate", [laid_out(p, "channels-last") for p in parts], axis)
    for first, last in ((0, parts[0].shape[1]), (1, parts[0].shape[1]), (0, 0)):
        both("channels", parts[0], first, last)
        both("channels", laid_out(parts[0], "channels-last"), first, last)


@pytest.mark.parametrize("channels", [(5,), (3, 5), (16, 1), (2, 3, 4), (1, 2, 3, 4)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_any_number_of_images_is_joined(channels: tuple[int, ...], dtype: str, small: None, rng: np.random.Generator) -> None:
    parts = [whole(rng, (2, c, 5, 4), dtype, "channels-last") for c in channels]
    both("concatenate", parts, 1)
    assert is_channels_last(CPU.concatenate(parts, 1))


def test_concatenate_refuses_what_the_reference_refuses(small: None, rng: np.random.Generator) -> None:
    parts = [laid_out(rng.random((1, 3, *size)), "channels-last") for size in ((4, 5), (5, 4))]
    for kernels in (CPU, REFERENCE):
        with pytest.raises(ValueError, match="must match exactly"):
            kernels.concatenate(parts, 1)
