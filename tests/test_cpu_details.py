"""What only large or rare arguments do in the CPU kernels: sums of several blocks, channels in parts, taps in the padding, ReLU that stands at 0."""

from __future__ import annotations

import numpy as np
import pytest
from cpu_kernels import CPU, FLOATS, REFERENCE, both, laid_out, near, whole

from minidcnn.backend.cpu import algorithm, conv_weight
from minidcnn.window import Window


@pytest.fixture
def gemm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(algorithm.VARIABLE, "gemm")


# -- gradients of a convolution's weight --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("gemm")
@pytest.mark.parametrize(
    ("window", "c", "out", "n"),
    [
        (Window((3, 2), (2, 1), (2, 1), (1, 3)), 3, (5, 4), 3),
        (Window((2, 4), (1, 3), (1, 4), (3, 2)), 2, (29, 20), 2),  # more pixels than one product takes
        (Window((3, 2), (3, 2), (0, 1), (2, 2)), 517, (4, 3), 2),  # channels in two parts, the second of which is smaller
    ],
)
@pytest.mark.parametrize("dtype", FLOATS)
def test_a_large_weight_sees_each_tap_by_itself(window, c, out, n, dtype, monkeypatch, rng) -> None:
    """Threads share its taps and channels: each tap looks where stride, padding and dilation of its own axis say, through all images."""
    monkeypatch.setattr(conv_weight, "MANY", 1)
    monkeypatch.setattr(conv_weight, "BLOCK", 1)
    size = window.image_size(out)
    x, y = whole(rng, (n, c, *size), dtype, "channels-last"), whole(rng, (n, 5, *out), dtype)
    both("conv2d_weight", x, y, window)


@pytest.mark.usefixtures("gemm")
@pytest.mark.parametrize("window", [Window((3, 2), (1, 1), (1, 0), (1, 2)), Window((2, 3), (2, 3))], ids=["columns", "side by side"])
@pytest.mark.parametrize("out", [(83, 71), (200, 91)], ids=["a block each", "several blocks each"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_partial_sums_hold_every_block_of_pixels_once(window, out, dtype, monkeypatch, rng) -> None:
    """Fewer blocks of pixels than there may be partial sums, and more, of a number that these do not divide."""
    monkeypatch.setattr(conv_weight, "BLOCK", 1)
    x, y = whole(rng, (1, 3, *window.image_size(out)), dtype), whole(rng, (1, 5, *out), dtype)
    both("conv2d_weight", x, y, window)


@pytest.mark.usefixtures("gemm")
@pytest.mark.parametrize("together", [1, 1 << 11])
@pytest.mark.parametrize("c", [16, 5])  # with 5, it is the channels of y that lie along vectors
def test_lines_that_are_read_while_they_are_in_the_cache(together: int, c: int, monkeypatch: pytest.MonkeyPatch, rng) -> None:
    """Each partial sum goes through its lines some at a time, and through all of them."""
    monkeypatch.setattr(conv_weight, "SHORT", 1)
    monkeypatch.setattr(conv_weight, "TOGETHER", together)
    window, out = Window((3, 2), (2, 1), (1, 1)), (31, 9)
    x, y = whole(rng, (2, c, *window.image_size(out)), "f4"), whole(rng, (2, 16, *out), "f4")
    both("conv2d_weight", x, y, window)


# -- pooling ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
def test_taps_in_the_padding_read_zeros_and_write_nowhere(dtype: str, rng: np.random.Generator) -> None:
    """No maximum lies there, but taps may come from anywhere: the maps are defined for all of them."""
    window, size = Window((3, 4), (2, 3), (1, 2), (1, 2)), (6, 9)
    out = window.positions(size)
    taps = rng.integers(0, window.taps, (2, 5, *out)).astype(np.uint8)
    x, g = whole(rng, (2, 5, *size), dtype), whole(rng, (2, 5, *out), dtype)
    both("pool_gather", x, taps, window)
    both("pool_scatter", g, taps, window, size)
    zeros = CPU.pool_gather(np.full_like(x, 7), np.zeros_like(taps), window)
    assert not zeros[:, :, 0].any() and not zeros[..., 0].any() and (zeros[:, :, 1:, 1:] == 7).all()


# -- batch norm ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("gated", [False, True])
def test_the_gradient_of_batch_norm_adds_up_all_blocks(dtype: str, gated: bool, rng: np.random.Generator) -> None:
    """Pixels of four blocks, each with a mean of its own."""
    x = laid_out(rng.standard_normal((2, 3, 170, 111)), "channels-last")
    g = laid_out(rng.standard_normal(x.shape) + np.linspace(-2, 5, 170)[:, None], "channels-last")
    weight, bias = rng.standard_normal((2, 3)).astype(dtype)
    mean, variance = REFERENCE.batch_norm_stats(x)
    near("batch_norm_grad", g.astype(dtype), x.astype(dtype), mean, 1 / np.sqrt(variance), weight, bias if gated else None)


@pytest.mark.parametrize("dtype", FLOATS)
def test_relu_behind_batch_norm_is_closed_at_zero(dtype: str) -> None:
    """All three results are those of the definition where normalised values are exactly 0: at the mean, and everywhere for a weight of 0."""
    x = laid_out(np.arange(-12, 12).reshape(2, 2, 2, 3).astype(dtype), "channels-last")
    g, mean, rstd = x * 0 + 3, np.array([-8.0, 7.0]), np.array([0.5, 2.0])
    for weight in ([1, -2], [0, 0]):
        arguments = g, x, mean, rstd, np.array(weight, dtype), np.zeros(2, dtype)
        both("batch_norm_grad", *arguments)
        dx, dweight, dbias = CPU.batch_norm_grad(*arguments)
        assert any(weight) == bool(dbias.any()) == bool(dweight.any()) == bool(dx.any())
