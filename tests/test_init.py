"""Initial weights: moments, bounds, exact fillings, and the bilinear filter."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

import minidcnn
from minidcnn import Tensor, nn
from minidcnn import functional as F
from minidcnn.nn import init


@pytest.fixture(autouse=True)
def _seed() -> None:
    minidcnn.manual_seed(3)


def weight(*shape: int, dtype: str = "float64") -> Tensor:
    return Tensor(np.full(shape, np.nan, dtype))


SHAPES = [(40, 30, 3, 5), (300, 200), (64, 8, 7, 1)]


@pytest.mark.parametrize("shape", SHAPES)
def test_moments_follow_the_papers(shape: tuple[int, ...]) -> None:
    field = math.prod(shape[2:])
    fan_in, fan_out = shape[1] * field, shape[0] * field
    assert init.calculate_fans(weight(*shape)) == (fan_in, fan_out)
    variances = {
        "kaiming_normal_": ({}, 2 / fan_in),
        "kaiming_uniform_": ({}, 2 / fan_in),
        "xavier_normal_": ({}, 2 / (fan_in + fan_out)),
        "xavier_uniform_": ({}, 2 / (fan_in + fan_out)),
    }
    for name, (kwargs, variance) in variances.items():
        values = getattr(init, name)(weight(*shape), **kwargs).numpy()
        assert abs(values.var() / variance - 1) < 0.05 and abs(values.mean()) < 4 * math.sqrt(variance / values.size), name
    out = init.kaiming_normal_(weight(*shape), a=0.2, mode="fan_out").numpy()
    assert abs(out.var() * fan_out * (1 + 0.04) / 2 - 1) < 0.05
    bound = init.kaiming_uniform_(weight(*shape), a=math.sqrt(5)).numpy()
    assert 0.98 / math.sqrt(fan_in) < np.abs(bound).max() <= 1 / math.sqrt(fan_in)
    gained = init.xavier_uniform_(weight(*shape), gain=5 / 3).numpy()
    limit = 5 / 3 * math.sqrt(6 / (fan_in + fan_out))
    assert 0.98 * limit < np.abs(gained).max() <= limit


NORMAL, UNIFORM = ("normal_", "kaiming_normal_", "xavier_normal_"), ("uniform_", "kaiming_uniform_", "xavier_uniform_")


@pytest.mark.parametrize("name", NORMAL + UNIFORM)
def test_weights_are_normal_or_uniform_as_they_are_called(name: str) -> None:
    """The mean fourth power of what has mean 0 and variance 1: its deviation is 0.03 over so many numbers for the normal distribution."""
    values = getattr(init, name)(weight(40, 30, 5, 4)).numpy()
    standard = (values - values.mean()) / values.std()
    assert (standard**4).mean() == pytest.approx(3 if name in NORMAL else 9 / 5, abs=0.15) and abs((standard**3).mean()) < 0.08


def test_plain_fillings_write_in_place_in_any_layout() -> None:
    for t in (weight(3, 4), Tensor(np.zeros((2, 5, 3, 4)).transpose(0, 3, 1, 2)), weight(2, 3, dtype="float32")):
        dtype = t.dtype
        for fill, low, high in (
            (lambda t: init.zeros_(t), 0, 0),
            (lambda t: init.ones_(t), 1, 1),
            (lambda t: init.constant_(t, -2.5), -2.5, -2.5),
            (lambda t: init.uniform_(t, 3, 4), 3, 4),
        ):
            assert fill(t) is t and t.dtype == dtype
            assert low <= t.numpy().min() and t.numpy().max() <= high
    t = init.normal_(weight(100, 90), 3.0, 0.5).numpy()
    assert abs(t.mean() - 3) < 0.02 and abs(t.std() - 0.5) < 0.02


def test_values_do_not_depend_on_the_memory_layout() -> None:
    plain, other = weight(4, 3, 2, 5), Tensor(np.zeros((4, 2, 5, 3)).transpose(0, 3, 1, 2))
    minidcnn.manual_seed(0)
    init.kaiming_normal_(plain)
    minidcnn.manual_seed(0)
    init.kaiming_normal_(other)
    np.testing.assert_array_equal(plain.numpy(), other.numpy())


def test_default_layers_start_as_pytorch_documents() -> None:
    for layer, fan_in in (
        (nn.Conv2d(8, 12, (3, 5), groups=2), 4 * 15),
        (nn.Linear(70, 90), 70),
        (nn.ConvTranspose2d(6, 10, (4, 3)), 10 * 12),
    ):
        for p in layer.parameters():
            size = np.abs(p.numpy())
            assert size.max() <= 1 / math.sqrt(fan_in)
            assert size.max() > 0.7 / math.sqrt(fan_in)


@pytest.mark.parametrize(
    "name, expected", [("linear", 1), ("conv_transpose2d", 1), ("sigmoid", 1), ("tanh", 5 / 3), ("relu", 2**0.5), ("selu", 0.75)]
)
def test_gains(name: str, expected: float) -> None:
    assert init.calculate_gain(name) == expected


def test_gain_of_a_leaky_relu() -> None:
    assert init.calculate_gain("leaky_relu", 0.5) == math.sqrt(2 / 1.25)
    assert init.calculate_gain("leaky_relu") == math.sqrt(2 / (1 + 1e-4))
    with pytest.raises(ValueError, match='nonlinearity "swish" is unknown; use one of'):
        init.calculate_gain("swish")


@pytest.mark.parametrize(
    "size, expected", [(4, [0.25, 0.75, 0.75, 0.25]), (3, [0.5, 1, 0.5]), (5, [1 / 3, 2 / 3, 1, 2 / 3, 1 / 3]), (1, [1])]
)
def test_bilinear_filter(size: int, expected: list[float]) -> None:
    np.testing.assert_allclose(init.bilinear_filter(size), expected)


@pytest.mark.parametrize("stride", range(1, 7))
def test_bilinear_weights_interpolate(stride: int) -> None:
    """Theorem T12: kernel 2s - s % 2 and padding s // 2 give half-pixel bilinear interpolation away from the border."""
    kernel, pad = 2 * stride - stride % 2, stride // 2
    layer = nn.ConvTranspose2d(3, 3, kernel, stride, pad, bias=False).double()
    init.bilinear_(layer.weight)
    image = np.random.default_rng(0).standard_normal((1, 3, 5, 7))
    out = layer(Tensor(image)).numpy()
    assert out.shape[2:] == (5 * stride, 7 * stride)
    rows, columns = (np.clip((np.arange(n * stride) + 0.5) / stride - 0.5, 0, n - 1) for n in (5, 7))

    def mix(values: np.ndarray, at: np.ndarray) -> np.ndarray:
        low = np.minimum(at.astype(int), values.shape[-1] - 2)
        return values[..., low] * (1 - (at - low)) + values[..., low + 1] * (at - low)

    expected = mix(mix(image, columns).swapaxes(2, 3), rows).swapaxes(2, 3)
    edge = slice(stride // 2, -(stride // 2) or None)
    np.testing.assert_allclose(out[:, :, edge, edge], expected[:, :, edge, edge], rtol=1e-12, atol=1e-14)


def test_bilinear_is_dense_and_diagonal_or_one_per_group() -> None:
    dense = init.bilinear_(weight(3, 3, 4, 3)).numpy()
    expected = np.outer(init.bilinear_filter(4), init.bilinear_filter(3))
    for i in range(3):
        for j in range(3):
            np.testing.assert_array_equal(dense[i, j], expected if i == j else 0 * expected)
    grouped = init.bilinear_(weight(3, 1, 4, 3)).numpy()
    assert all(np.array_equal(grouped[i, 0], expected) for i in range(3))
    x = Tensor(np.random.default_rng(1).standard_normal((2, 3, 4, 5)))
    np.testing.assert_allclose(
        F.conv_transpose2d(x, Tensor(dense), stride=2).numpy(), F.conv_transpose2d(x, Tensor(grouped), stride=2, groups=3).numpy()
    )
    for wrong in ((3, 2, 4, 4), (3, 3, 4)):
        with pytest.raises(
            ValueError, match=re.escape(f"bilinear_: the weight must be (C, C, KH, KW), or (C, 1, KH, KW) for groups=C, got {wrong}")
        ):
            init.bilinear_(weight(*wrong))


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"fan in and fan out need a weight of at least 2 axes, got shape \(3,\)"):
        init.kaiming_normal_(weight(3))
    with pytest.raises(ValueError, match='mode "fan" is unknown; use "fan_in" or "fan_out"'):
        init.kaiming_uniform_(weight(3, 3), mode="fan")
    with pytest.raises(ValueError, match="std must not be negative, got -1"):
        init.normal_(weight(3), std=-1)
    with pytest.raises(ValueError, match="a must not exceed b"):
        init.uniform_(weight(3), 1, 0)
    with pytest.raises(ValueError, match="a weight without elements has no fan"):
        init.xavier_normal_(weight(0, 0))


def test_float64_is_drawn_in_float64() -> None:
    w = init.normal_(Tensor(np.zeros((4, 3)))).numpy()
    assert (w != w.astype(np.float32)).any()
