"""Batch norm on the CPU against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from cpu_kernels import CPU, FLOATS, LAYOUTS, REFERENCE, close, laid_out, near, seeds, shapes
from hypothesis import given
from hypothesis import strategies as st


@given(shapes, st.sampled_from([*FLOATS, "f2"]), st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS), seeds)
def test_batch_norm(shape, dtype, layout, other, seed) -> None:
    rng = np.random.default_rng(seed)
    place = laid_out if len(shape) == 4 else lambda a, _: a
    x, g = (place((rng.standard_normal(shape) + 3).astype(dtype), kind) for kind in (layout, other))
    weight, bias = (rng.standard_normal(shape[1]).astype(dtype) for _ in range(2))
    if dtype != "f2":  # in float16 the reference squares with other roundings
        near("batch_norm_stats", x)
    mean, variance = REFERENCE.batch_norm_stats(x)
    rstd = 1 / np.sqrt(variance + 1e-2)
    near("batch_norm_apply", x, mean, rstd, weight, bias)
    largest = float(np.abs(rstd * weight).max())  # where all values of a channel are alike, rstd is 10 and dx the little that is left
    terms = largest * float(np.abs(g).max())
    near("batch_norm_grad", g, x, mean, rstd, weight, terms=terms)
    near("batch_norm_apply", x, mean, rstd, weight, bias, True)
    if np.abs(REFERENCE.batch_norm_apply(x, mean, rstd, weight, bias)).min() > 1e-4:  # else rounding decides where ReLU is open
        near("batch_norm_grad", g, x, mean, rstd, weight, bias, terms=terms)
    x = x.copy()
    x.flat[0] = np.nan
    for relu in (False, True):
        near("batch_norm_apply", x, mean, rstd, weight, bias, relu)


@pytest.mark.parametrize("eps", [0.0, 1e-2])
@pytest.mark.parametrize("momentum", [0.0, 0.3, np.array(0.25), 1])
@pytest.mark.parametrize(("dtype", "every"), [("f4", 1), ("f8", 1), ("f2", 1), ("f4", 2)])
def test_running_statistics_follow_as_in_the_reference(eps, momentum, dtype, every, rng: np.random.Generator) -> None:
    """Of every dtype, without gaps or with, one of them or both; a channel of one value has no finite rstd without eps."""
    mean, variance = rng.standard_normal(5), rng.random(5)
    variance[2] = 0
    held = rng.standard_normal((2, 5 * every)).astype(dtype)
    for some in ([0, 1], [0], [1], []):
        results = []
        for kernels in (CPU, REFERENCE):
            both = held.copy()
            running = [both[i, ::every] if i in some else None for i in (0, 1)]
            with np.errstate(divide="ignore"):
                results.append((both, kernels.batch_norm_track(mean, variance, 7, eps, momentum, *running)))
        for got, expected in zip(*results, strict=True):
            close(got, expected, "batch_norm_track")


def test_statistics_keep_their_digits_far_from_zero(rng: np.random.Generator) -> None:
    """Squares minus the squared mean would lose all of them; blocks with different means are joined exactly."""
    x = rng.standard_normal((2, 7, 60, 90)) + 1e8
    x[1] += 5
    mean, variance = CPU.batch_norm_stats(x)
    np.testing.assert_allclose(variance, (x - 1e8).var((0, 2, 3)), rtol=1e-7)
    np.testing.assert_allclose(mean - 1e8, (x - 1e8).mean((0, 2, 3)), atol=1e-7)
