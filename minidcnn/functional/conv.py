"""Convolution as a closed triple: conv2d, conv_transpose2d and conv2d_weight, each one's derivatives being the other two.

At fixed weight, conv_transpose2d is the adjoint of conv2d; at fixed input, conv2d_weight is. All three use the same weight tensor
(O, C / groups, KH, KW), read as (in, out / groups, KH, KW) by the transposed convolution: no flip, no transposition anywhere
(Dumoulin & Visin, 2016, section 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..autograd import Function, Gradient
from ..backend import Array, kernels_of, sum_dtype
from ..recording import is_grad_enabled
from ..tensor import Tensor, not_a_tensor
from ..window import Pair, Window, integer, integers, pair, same_padding
from .common import check_backend, mixed
from .reduce import sum
from .shape import reshape

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Conv2d(Function):
    """x (N, C, H, W), w (O, C/groups, KH, KW), [bias (O,)] -> y (N, O, *out)."""

    window: Window
    out: Pair
    groups: int
    size: Pair  # of x: the adjoint must be told, since s sizes have the same number of windows
    needs_inputs = (0, 1)

    def forward(self, x: Array, w: Array, bias: Array | None = None) -> Array:
        return kernels_of(x).conv2d(x, w, bias, self.window, self.out, self.groups)

    def vjp(self, g: Tensor, x: Tensor, w: Tensor) -> tuple[Gradient, ...]:
        return (
            lambda: ConvTranspose2d(self.window, self.size, self.groups, self.out)(g, w),
            lambda: Conv2dWeight(self.window, self.groups)(x, g),
            lambda: sum(g, (0, 2, 3)),
        )


@dataclass(frozen=True)
class ConvTranspose2d(Function):
    """y (N, O, OH, OW), w (O, C/groups, KH, KW), [bias (C,)] -> x (N, C, *size)."""

    window: Window
    size: Pair
    groups: int
    out: Pair  # of y
    needs_inputs = (0, 1)

    def forward(self, y: Array, w: Array, bias: Array | None = None) -> Array:
        return kernels_of(y).conv_transpose2d(y, w, bias, self.window, self.size, self.groups)

    def vjp(self, g: Tensor, y: Tensor, w: Tensor) -> tuple[Gradient, ...]:
        return (
            lambda: Conv2d(self.window, self.out, self.groups, self.size)(g, w),
            lambda: Conv2dWeight(self.window, self.groups)(g, y),
            lambda: sum(g, (0, 2, 3)),
        )


@dataclass(frozen=True)
class Conv2dWeight(Function):
    """x (N, C, H, W), y (N, O, OH, OW) -> w (O, C/groups, KH, KW)."""

    window: Window
    groups: int
    needs_inputs = (0, 1)

    def forward(self, x: Array, y: Array) -> Array:
        return kernels_of(x).conv2d_weight(x, y, self.window, self.groups)

    def vjp(self, g: Tensor, x: Tensor, y: Tensor) -> tuple[Gradient, ...]:
        size, out = _hw(x), _hw(y)
        return (
            lambda: ConvTranspose2d(self.window, size, self.groups, out)(y, g),
            lambda: Conv2d(self.window, out, self.groups, size)(x, g),
        )


# -- the public functions -------------------------------------------------------------------------------------------------------


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """input: (N, C, H, W) or (C, H, W), weight: (O, C/groups, KH, KW), bias: (O,) -> (N, O, H', W') or (O, H', W').

    Cross-correlation; H' = floor((H + 2 padding - dilation (KH - 1) - 1) / stride) + 1. padding may be "valid" (0) or "same" (the
    output has the input's size; stride 1 only). For a float16 input, float32 weights are rounded to float16, and so is the result, once.
    ValueError if channels, groups or sizes do not fit (the message says which), TypeError for other mixtures of dtypes, or of backends.
    """
    weight, bias = mixed(input, weight, bias)
    x, function, batched = _prepare(input, weight, bias, stride, padding, dilation, groups)
    y = function(x, weight) if bias is None else function(x, weight, bias)
    return y if batched else reshape(y, y.shape[1:])


def conv2d_affine(
    input: Tensor,
    weight: Tensor,
    scale: Tensor,
    offset: Tensor,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    relu: bool = False,
) -> Tensor:
    """scale conv2d(input, weight) + offset, by channel (O,), with `relu` ReLU of that: for inference, in one pass over memory.

    scale and offset are in input's dtype, or in float32 for float16.

    What a convolution, batch norm by running statistics and ReLU come to. Nothing is recorded: RuntimeError where a gradient would be
    needed (use conv2d, batch_norm and relu, or no_grad()). ValueError, TypeError as for conv2d.
    """
    check_backend("conv2d_affine", input, weight, scale, offset)
    if is_grad_enabled() and any(t.requires_grad for t in (input, weight, scale, offset)):
        raise RuntimeError("conv2d_affine: has no gradient; use conv2d, batch_norm and relu, or call it within no_grad()")
    (weight,) = mixed(input, weight)
    x, f, batched = _prepare(input, weight, None, stride, padding, dilation, groups)
    for what, v in (("scale", scale), ("offset", offset)):
        _check_channels("conv2d_affine", v.shape, weight.shape[0], what)
        _check_kind("conv2d_affine", x, v, what, sum_dtype(x.dtype))
    kernels = kernels_of(x._array)
    y = Tensor.wrap(kernels.conv2d_affine(x._array, weight._array, scale._array, offset._array, relu, f.window, f.out, groups))
    return y if batched else reshape(y, y.shape[1:])


def _prepare(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int | Sequence[int],
    padding: int | Sequence[int] | str,
    dilation: int | Sequence[int],
    groups: int,
) -> tuple[Tensor, Conv2d, bool]:
    """The arguments of conv2d checked: (input (N, C, H, W), the function, whether the input had a batch axis)."""
    x, batched = images("conv2d", input)
    _check_weight("conv2d", x, weight, bias)
    groups = integer(groups, "conv2d: groups", 1)
    if isinstance(padding, str):
        window = window_of("conv2d", weight.shape[2:], stride, 0, dilation)
        window, more = _named_padding(window, padding)
    else:
        window, more = window_of("conv2d", weight.shape[2:], stride, padding, dilation), (0, 0)
    function = _conv2d(input.shape, weight.shape, None if bias is None else bias.shape, window, more, groups)
    if more != (0, 0):
        from .pad import pad

        x = pad(x, (0, more[1], 0, more[0]))
    return x, function, batched


@lru_cache(1024)
def _conv2d(input: Shape, weight: Shape, bias: Shape | None, window: Window, more: Pair, groups: int) -> Conv2d:
    """The function for these shapes, checked once for each geometry; `more`: rows and columns by which the input is padded first."""
    (c, h, w), (o, share) = input[-3:], weight[:2]
    if share * groups != c:
        raise ValueError(
            f"conv2d: weight expects {share * groups} input channels, got {c} (input {input}, weight {weight}, groups {groups})"
        )
    if o % groups:
        raise ValueError(f"conv2d: {o} output channels cannot be divided into {groups} groups; groups must divide both channel counts")
    _check_channels("conv2d", bias, o)
    size = (h + more[0], w + more[1])
    return Conv2d(window, window.positions(size, "conv2d"), groups, size)


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """input: (N, C, H, W) or (C, H, W), weight: (C, O/groups, KH, KW), bias: (O,) -> (N, O, H', W') or (O, H', W').

    The adjoint of conv2d with the same weight, stride, padding and dilation: H' = (H - 1) stride - 2 padding + dilation (KH - 1) + 1 +
    output_padding. `output_size` (H', W') may be given instead of output_padding. output_padding must be smaller than stride or dilation.
    ValueError, TypeError as for conv2d.
    """
    y, batched = images("conv_transpose2d", input)
    weight, bias = mixed(y, weight, bias)
    _check_weight("conv_transpose2d", y, weight, bias)
    groups = integer(groups, "conv_transpose2d: groups", 1)
    window = window_of("conv_transpose2d", weight.shape[2:], stride, padding, dilation)
    extra = pair(output_padding, "conv_transpose2d: output_padding")
    name = "conv_transpose2d: output_size"
    wanted = None if output_size is None else pair(integers(output_size, name)[-2:], name)
    function = _conv_transpose2d(input.shape, weight.shape, None if bias is None else bias.shape, window, extra, wanted, groups)
    x = function(y, weight) if bias is None else function(y, weight, bias)
    return x if batched else reshape(x, x.shape[1:])


@lru_cache(1024)
def _conv_transpose2d(
    input: Shape, weight: Shape, bias: Shape | None, window: Window, extra: Pair, wanted: Pair | None, groups: int
) -> ConvTranspose2d:
    """The function for these shapes, checked once for each geometry; `extra`: output_padding, unless `wanted`, the output size, is given."""
    (c, *out), (first, share) = input[-3:], weight[:2]
    if first != c:
        raise ValueError(
            f"conv_transpose2d: weight expects {first} input channels, got {c} (input {input}, weight {weight}: the weight of a transposed "
            f"convolution is (in, out / groups, KH, KW))"
        )
    if c % groups:
        raise ValueError(
            f"conv_transpose2d: {c} input channels cannot be divided into {groups} groups; groups must divide both channel counts"
        )
    _check_channels("conv_transpose2d", bias, share * groups)
    positions = (out[0], out[1])
    if min(positions) < 1:
        raise ValueError(f"conv_transpose2d: input {input} has no pixels")
    least, limits = window.image_size(positions), tuple(map(max, window.stride, window.dilation))
    if wanted is not None:
        extra = (wanted[0] - least[0], wanted[1] - least[1])
    if any(not 0 <= e < limit for e, limit in zip(extra, limits, strict=True)):
        if wanted is not None:
            last = tuple(n + limit - 1 for n, limit in zip(least, limits, strict=True))
            raise ValueError(f"conv_transpose2d: output_size {wanted} cannot be reached from input {input}; possible are {least} to {last}")
        raise ValueError(
            f"conv_transpose2d: output_padding {extra} must be smaller than stride {window.stride} or dilation {window.dilation}"
        )
    size = window.image_size(positions, extra)
    if min(size) < 1:
        raise ValueError(f"conv_transpose2d: input {input} with padding {window.padding} gives an output of size {size}; use less padding")
    return ConvTranspose2d(window, size, groups, positions)


def conv2d_weight(
    input: Tensor,
    weight_size: Sequence[int],
    grad_output: Tensor,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """The third of the triple, the gradient of conv2d with respect to its weight, as torch.nn.grad.conv2d_weight.

    input: (N, C, H, W), grad_output: (N, O, H', W'), weight_size: (O, C/groups, KH, KW) -> (O, C/groups, KH, KW). It is bilinear and
    differentiable itself. ValueError if the sizes do not belong together, TypeError for mixed dtypes or backends.
    """
    size, groups = integers(weight_size, "conv2d_weight: weight_size"), integer(groups, "conv2d_weight: groups", 1)
    if len(size) != 4:
        raise ValueError(f"conv2d_weight: weight_size must be (O, C/groups, KH, KW), got {size}")
    if input.ndim != 4:
        raise ValueError(f"conv2d_weight: input must be (N, C, H, W), got shape {input.shape}")
    if size[0] % groups:
        raise ValueError(
            f"conv2d_weight: {size[0]} output channels cannot be divided into {groups} groups; groups must divide both channel counts"
        )
    if input.dtype != grad_output.dtype:
        raise TypeError(f"conv2d_weight: input is {input.dtype} but grad_output is {grad_output.dtype}; cast one with .astype()")
    window = window_of("conv2d_weight", size[2:], stride, padding, dilation)
    out = window.positions(_hw(input), "conv2d_weight")
    expected = (input.shape[0], size[0], *out)
    if grad_output.shape != expected or size[1] * groups != input.shape[1]:
        raise ValueError(
            f"conv2d_weight: input {input.shape} and weight_size {size} in {groups} groups need a grad_output of {expected}, got {grad_output.shape}"
        )
    check_backend("conv2d_weight", input, grad_output)
    return Conv2dWeight(window, groups)(input, grad_output)


# -- checks -----------------------------------------------------------------------------------------------------------------------


def images(name: str, input: Any) -> tuple[Tensor, bool]:
    """`input` as (N, C, H, W), and whether it had a batch axis. ValueError unless it has 3 or 4 axes."""
    if not isinstance(input, Tensor):
        raise not_a_tensor(name, input)
    if input.ndim == 4:
        return input, True
    if input.ndim == 3:
        return reshape(input, (1, *input.shape)), False
    raise ValueError(f"{name}: input must be (N, C, H, W) or (C, H, W), got shape {input.shape}")


def _hw(x: Tensor) -> Pair:
    return x.shape[-2], x.shape[-1]


def window_of(
    name: str, kernel: int | Sequence[int], stride: int | Sequence[int], padding: int | Sequence[int], dilation: int | Sequence[int]
) -> Window:
    """Window.of, but for None as a stride, which means the kernel's size in pooling only."""
    return Window.of(kernel, pair(stride, f"{name}: stride", 1), padding, dilation, name=name)


def _check_weight(name: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """What shapes do not tell, and the axes of the weight."""
    if weight.ndim != 4:
        raise ValueError(f"{name}: weight must have 4 axes, got shape {weight.shape}")
    _check_kind(name, x, weight, "weight", x.dtype)
    if bias is not None:
        _check_kind(name, x, bias, "bias", x.dtype)


def _check_kind(name: str, x: Tensor, other: Tensor, what: str, dtype: Any) -> None:
    check_backend(name, x, other)
    if other.dtype != dtype:
        raise TypeError(f"{name}: input is {x.dtype} but {what} is {other.dtype}; cast one with .astype()")


def _check_channels(name: str, shape: Shape | None, channels: int, what: str = "bias") -> None:
    if shape not in (None, (channels,)):
        raise ValueError(f"{name}: {what} must have shape ({channels},) for {channels} output channels, got {shape}")


def _named_padding(window: Window, padding: str) -> tuple[Window, Pair]:
    """padding="same" or "valid" as numbers, and what is padded before: where 'same' is uneven, the odd pixel, below and on the right."""
    if padding == "valid":
        return window, (0, 0)
    if padding != "same":
        raise ValueError(f'conv2d: padding "{padding}" is unknown; use an int, a pair, "same" or "valid"')
    if window.stride != (1, 1):
        raise ValueError(f'conv2d: padding="same" needs stride 1, got {window.stride}; give the padding as numbers')
    (top, bottom), (left, right) = same_padding(window)
    return window._replace(padding=(top, left)), (bottom - top, right - left)
