"""Cross-entropy and its targets on the CPU against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from cpu_kernels import CPU, FLOATS, LAYOUTS, REFERENCE, laid_out, near, seeds, shapes
from hypothesis import given
from hypothesis import strategies as st

from minidcnn.backend.cpu import loss, threads


@given(
    shapes, st.sampled_from([*FLOATS, "f2"]), st.sampled_from(LAYOUTS), st.sampled_from([0.0, 0.1, 1.0]),
    st.sampled_from([1.0, 30.0, 1000.0]), seeds,
)  # fmt: skip
def test_cross_entropy(shape, dtype, layout, smoothing, size, seed) -> None:
    rng = np.random.default_rng(seed)
    x = (size * rng.standard_normal(shape)).astype(dtype)
    x = laid_out(x, layout) if x.ndim == 4 else x
    target = rng.integers(-1, shape[1], (shape[0], *shape[2:]))
    weight = rng.random(shape[1]).astype(dtype)
    near("cross_entropy", x, target, weight, smoothing)
    _, top, logs = REFERENCE.cross_entropy(x, target, weight, smoothing)
    g = rng.standard_normal(target.shape).astype(dtype)
    near("cross_entropy_grad", g, x, top, logs, target, weight, smoothing)
    near("cross_entropy_grad", np.broadcast_to(g.dtype.type(0.5), g.shape), x, top, logs, target, weight, smoothing)


def test_cross_entropy_of_ignored_pixels_is_zero_whatever_their_logits() -> None:
    x = np.array([[[np.nan, 1.0, -np.inf, 1.0]], [[1.0, 2.0, 3.0, np.nan]]]).reshape(1, 2, 1, 4)  # the largest of 1 and NaN is NaN
    target = np.array([[[-1, 1, -1, -1]]])
    near("cross_entropy", x, target, np.ones(2), 0.1)
    losses, top, logs = CPU.cross_entropy(x, target, np.ones(2), 0.1)
    assert losses[0, 0, 0] == 0 == losses[0, 0, 2] == losses[0, 0, 3]
    dx = CPU.cross_entropy_grad(np.ones((1, 1, 4)), x, top, logs, target, np.ones(2), 0.1)
    assert not dx[..., [0, 2, 3]].any() and dx[..., 1].all()


def test_a_target_that_is_no_class_is_an_error() -> None:
    x, target, weight = np.zeros((1, 2, 1, 1)), np.full((1, 1, 1), 2), np.ones(2)
    with pytest.raises(IndexError, match="a target is no class"):
        CPU.cross_entropy(x, target, weight, 0.0)
    with pytest.raises(IndexError, match="a target is no class"):
        CPU.cross_entropy_grad(target * 1.0, x, x[:, 0], x[:, 0], target, weight, 0.0)


@pytest.mark.parametrize("block", [1, 40, loss.BLOCK])
@pytest.mark.parametrize("classes", [2, 7, 50])
def test_blocks_and_threads_change_no_bit(classes: int, block: int, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """Also where a block is less than a pixel, and where the last one is not full."""
    x = laid_out(rng.standard_normal((3, classes, 13, 57), dtype="f4"), "channels-last")
    target, weight, g = rng.integers(-1, classes, (3, 13, 57)), rng.random(classes, "f4"), rng.standard_normal((3, 13, 57), "f4")
    monkeypatch.setattr(threads, "WORTH", 100)
    results = []
    for size, count in ((loss.BLOCK, 1), (block, 1), (block, 3)):
        monkeypatch.setattr(loss, "BLOCK", size)
        monkeypatch.setattr(threads, "_count", count)
        near("cross_entropy", x, target, weight, 0.1)
        losses, top, logs = CPU.cross_entropy(x, target, weight, 0.1)
        results.append((losses, top, logs, CPU.cross_entropy_grad(g, x, top, logs, target, weight, 0.1)))
    for other in results[1:]:
        for got, expected in zip(other, results[0], strict=True):
            np.testing.assert_array_equal(got, expected)
