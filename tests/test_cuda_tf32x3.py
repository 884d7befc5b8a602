"""Precision tf32x3: float32 factors as two tf32 each, three products for one on tensor cores, nearly as exact as float32.

What the simulator cannot show is how tensor cores round their sums; on a device the same bounds hold or these tests fail there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from simulated import simulated, why_not
from test_cuda_kernels import REFERENCE

from minidcnn.window import Window

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "runs")

Array = np.ndarray[Any, Any]
SHAPES: dict[str, tuple[str, ...]] = {"128x128": ("SMALL=0",), "128x64": ("SMALL=1", "TALL=1"), "64x64": ("SMALL=1",)}
WINDOW, SIZE, OUT = Window((3, 2), (2, 1), (1, 1)), (9, 10), (5, 11)
LAYERS: dict[str, tuple[tuple[tuple[int, ...], tuple[int, ...]], Callable[[Any, Array, Array], Array]]] = {
    "product": (((70, 600), (600, 66)), lambda k, a, b: k.matmul(a, b)),
    "product along k": (((70, 600), (66, 600)), lambda k, a, b: k.matmul(a, b.T)),
    "forward": (((2, 64, *SIZE), (72, 64, 3, 2)), lambda k, x, w: k.conv2d(x, w, None, WINDOW, OUT)),
    "forward, broken runs": (((2, 65, *SIZE), (72, 65, 3, 2)), lambda k, x, w: k.conv2d(x, w, None, WINDOW, OUT)),
    "transposed": (((2, 72, *OUT), (72, 64, 3, 2)), lambda k, y, w: k.conv_transpose2d(y, w, None, WINDOW, SIZE)),
    "weight": (((2, 24, *SIZE), (2, 72, *OUT)), lambda k, x, y: k.conv2d_weight(x, y, WINDOW)),
}


def kernels(precision: str, shape: str = "64x64") -> Any:
    """Kernels with tiles of this shape."""
    made = simulated(precision=precision, mode="check", order=2)
    tensor, (down, across) = made.tensor(np.empty(0, np.float32)), map(int, shape.split("x"))
    made.tile = lambda *_: ((down, across), (*SHAPES[shape], f"TENSOR={tensor}"))
    return made


def errors(layer: str, a: Array, b: Array, shape: str, *precisions: str) -> list[float]:
    """Of each precision, the mean square of what it differs from float64, as a share of the result's."""
    run = LAYERS[layer][1]
    exact = run(REFERENCE, a.astype(np.float64), b.astype(np.float64))
    return [float(np.linalg.norm(run(kernels(p, shape), a, b) - exact) / np.linalg.norm(exact)) for p in precisions]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layer", LAYERS)
def test_tensor_cores_are_nearly_as_exact_as_float32(layer: str, shape: str, rng: np.random.Generator) -> None:
    a, b = (rng.standard_normal(of).astype(np.float32) for of in LAYERS[layer][0])
    split, single, once = errors(layer, a, b, shape, "tf32x3", "float32", "tf32")
    assert 0 < split <= 4 * single and 100 * split < once < 1e-3, (split, single, once)


@pytest.mark.parametrize("scale", [2.0**-60, 2.0**60])
def test_tensor_cores_have_float32s_range(scale: float, rng: np.random.Generator) -> None:
    """Both parts have its exponents: no scale is needed, as it is for float16."""
    a, b = (rng.standard_normal(of).astype(np.float32) for of in LAYERS["product"][0])
    split, single = errors("product", a * np.float32(scale), b * np.float32(2) ** rng.integers(-30, 30, (600, 1)).astype(np.float32), "64x64",
                           "tf32x3", "float32")  # fmt: skip
    assert 0 < split <= 4 * single, (split, single)


def test_tensor_cores_pass_on_what_is_not_finite() -> None:
    """Infinities and NaN come out where float32 has them: times zero, a number with a low part, and each other."""
    special = np.array([np.inf, -np.inf, np.nan, 0, 1 + 2.0**-12, -1 - 2.0**-20, 1 - 2.0**-12, 2.0**20, -(2.0**-20), 3], np.float32)
    a, b = np.zeros((10, 16), np.float32), np.zeros((16, 10), np.float32)
    a[:, 5], b[5] = special, special
    with np.errstate(invalid="ignore"):
        expected = np.outer(special, special)
    assert np.isinf(expected).sum() > 20 and np.isnan(expected).sum() > 20
    for shape in SHAPES:
        np.testing.assert_allclose(kernels("tf32x3", shape).matmul(a, b), expected, rtol=2.0**-22)


def test_tensor_cores_take_every_nan_and_the_largest_numbers() -> None:
    """Rounding to the nearest tf32 would make zero of the largest NaN, an infinity of the smallest one, and another of the largest float32."""
    largest = np.finfo(np.float32).max
    a = np.zeros((4, 16), np.float32)
    a[:, 3] = np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0x7FC00000], np.uint32).view(np.float32)
    b = np.zeros((16, 3), np.float32)
    b[3] = 1, -0.5, np.inf
    assert np.isnan(kernels("tf32x3").matmul(a, b)).all()
    a[:, 3] = largest, -largest, largest / 3, -1
    b[3] = 1, -0.5, 2.0**-20
    np.testing.assert_allclose(kernels("tf32x3").matmul(a, b), a[:, 3:4] * b[3:4], rtol=2.0**-10)
    np.testing.assert_allclose(kernels("tf32x3").matmul(a[2:], b), a[2:, 3:4] * b[3:4], rtol=2.0**-22)
