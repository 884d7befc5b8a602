"""Matrix products; each derivative is another product."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..autograd import Function, Gradient
from ..backend import Array, kernels_of
from ..operators import register
from ..tensor import Tensor
from .common import SumTo, as_tensor, cast, check_backend, mixed, result_dtype
from .shape import reshape, transpose, unsqueeze


@dataclass(frozen=True)
class MatMul(Function):
    """a (..., M, K) @ b (..., K, N) -> (..., M, N), leading axes broadcast."""

    needs_inputs = (0, 1)

    def forward(self, a: Array, b: Array) -> Array:
        return kernels_of(a).matmul(a, b)

    def vjp(self, g: Tensor, a: Tensor, b: Tensor) -> tuple[Gradient, ...]:
        def left() -> Tensor:
            product = MatMul()(g, transpose(b, -1, -2))
            return product if product.shape == a.shape else SumTo(a.shape, product.shape)(product)

        def right() -> Tensor:
            product = MatMul()(transpose(a, -1, -2), g)
            return product if product.shape == b.shape else SumTo(b.shape, product.shape)(product)

        return left, right


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Matrix product by torch.matmul's rules: vectors count as a row on the left, a column on the right; leading axes broadcast.

    ValueError if the inner sizes differ, the leading axes do not broadcast or a factor has no axes.
    """
    a, b = as_tensor(a), as_tensor(b)
    check_backend("matmul", a, b)
    if not a.ndim or not b.ndim:
        raise ValueError(f"matmul: both factors need at least one axis, got shapes {a.shape} and {b.shape}; use * for scalars")
    if a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise ValueError(
            f"matmul: the last axis of {a.shape} and the {'last but one' if b.ndim > 1 else 'only'} axis of {b.shape} must be equal"
        )
    try:
        np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ValueError(f"matmul: the leading axes of {a.shape} and {b.shape} do not broadcast; they must be equal or 1") from None
    dtype = result_dtype(a, b)
    a, b = cast(a, dtype), cast(b, dtype)
    row, column = a.ndim == 1, b.ndim == 1
    product = MatMul()(unsqueeze(a, 0) if row else a, unsqueeze(b, 1) if column else b)
    shape = list(product.shape)
    if column:
        del shape[-1]
    if row:
        del shape[-1 if column else -2]
    return reshape(product, shape) if row or column else product


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input: (..., I), weight: (O, I) or (I,), bias: (O,) -> (..., O) or (...): y = input weight^T + bias. ValueError if the sizes do not fit.

    For a float16 input, float32 weights are rounded to float16.
    """
    check_backend("linear", input, weight, *(() if bias is None else (bias,)))
    weight, bias = mixed(input, weight, bias)
    if weight.ndim not in (1, 2):
        raise ValueError(f"linear: weight must be (O, I) or (I,), got shape {weight.shape}")
    if not input.ndim or input.shape[-1] != weight.shape[-1]:
        raise ValueError(
            f"linear: weight expects {weight.shape[-1]} features, got {input.shape[-1] if input.ndim else 'no axis'} (input {input.shape})"
        )
    if bias is not None and bias.shape != weight.shape[:-1]:
        raise ValueError(f"linear: bias must have shape {weight.shape[:-1]}, one number for each output feature, got {bias.shape}")
    y = matmul(input, transpose(weight, 0, 1)) if weight.ndim == 2 else matmul(input, weight)
    return y if bias is None else y + bias


register(matmul=matmul)
